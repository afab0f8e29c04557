"""What can be measured of a part in a picture: size, place and form from the mask, colour from the image.

Masks are taken soft, so that a change smaller than a pixel still counts. Lengths are in percent of the picture's side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from editing.sliders.regression import unbroken
from memorygan.analysis.probes import image_features
from memorygan.colour import rgb_to_lab
from memorygan.generator import Synthesis
from memorygan.parts import LayerGroup, PartScheme

# The fine mask is near ±1: this makes its softmax hard, so that the rest of the picture does not leak into a small
# part, and still keeps sub-pixel borders, where the mask is between.
_SHARPNESS = 8.0
# Below this share of the picture a part counts as absent, and nothing else of it is measured.
PRESENT = 5e-4
# Chroma below which a colour is grey to the eye, and its hue chance.
_GREY = 3.0
FACE = ("skin", "eyes", "eyebrows", "mouth", "nose")


@dataclass(frozen=True)
class Scene:
    """B faces, ready to be measured.

    Attributes:
        weight: (B, K, P) share of each pixel that belongs to each part.
        rgb: (B, 3, P) in 0–1.
        x, y: (P,) pixel centres in percent of the side, from the left and from the top.
        side: pixels.
        parts: what K means.
    """

    weight: Tensor
    rgb: Tensor
    x: Tensor
    y: Tensor
    side: int
    parts: PartScheme

    @cached_property
    def features(self) -> Tensor:
        """(B, 1280) image features, of what training needs and the page does not; see :mod:`editing.sliders.traits`."""
        return image_features(2.0 * self.rgb.unflatten(2, (self.side, self.side)) - 1.0, "lite0")

    @cached_property
    def lab(self) -> Tensor:
        """(B, 3, P) CIELAB colours, L* in 0–100."""
        return rgb_to_lab(self.rgb)

    def of(self, *names: str) -> Tensor:
        """(B, P) weight of one part or of several together; 0 for parts the model does not have."""
        known = [self.parts.index(name) for name in names if name in self.parts.names]
        return self.weight[:, known].sum(dim=1)


def scene(synthesis: Synthesis, parts: PartScheme) -> Scene:
    """Prepares composed faces."""
    weight = torch.softmax(_SHARPNESS * synthesis.mask.float(), dim=1).flatten(2)
    side = synthesis.image.shape[-1]
    line = (torch.arange(side, device=weight.device) + 0.5) * (100.0 / side)
    y, x = torch.meshgrid(line, line, indexing="ij")
    rgb = (synthesis.image.float().clamp(-1, 1) + 1.0) / 2.0
    return Scene(weight, rgb.flatten(2), x.flatten(), y.flatten(), side, parts)


@dataclass(frozen=True)
class Property:
    """Something measurable.

    Attributes:
        name: identifier, unique within a part.
        label: the word a person sees on the slider.
        group: the layers that should govern it.
        low, high: what a small and a large value look like.
        unit: "% of the picture", "L*" …
        measure: (scene, (B, P) weight of the part) → (B,); not-a-number where it has no meaning.
        period: of an angle, after which it is the same again; 0 for anything else.
        asked: people ask for it, so that it is kept before stronger ones that they do not.
    """

    name: str
    label: str
    group: LayerGroup
    low: str
    high: str
    unit: str
    measure: Callable[[Scene, Tensor], Tensor]
    period: float = 0.0
    asked: bool = False

    def difference(self, after: Tensor, before: Tensor) -> Tensor:
        """What has to be added to get from one value to the other, the shorter way round for an angle."""
        change = after - before
        return change if not self.period else (change + self.period / 2).remainder(self.period) - self.period / 2

    def deviation(self, values: Tensor) -> float:
        """Standard deviation over what is a number, about the circular mean for an angle; 0 for fewer than 8."""
        known = values[torch.isfinite(values)]
        if not self.period and len(known):
            known = known[torch.isfinite(unbroken(known))]
        if len(known) < 8:
            return 0.0
        if self.period:
            angles = known * (2.0 * math.pi / self.period)
            mean = torch.atan2(angles.sin().mean(), angles.cos().mean()) * (self.period / (2.0 * math.pi))
            known = self.difference(known, mean)
        return float(known.std())


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum(dim=-1) / weight.sum(dim=-1).clamp_min(1e-6)


def _deviation(values: Tensor, weight: Tensor) -> Tensor:
    centred = values - _mean(values, weight)[:, None]
    return _mean(centred.square(), weight).clamp_min(0).sqrt()


def _covariance(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    return _mean((a - _mean(a, weight)[:, None]) * (b - _mean(b, weight)[:, None]), weight)


def present(weight: Tensor) -> Tensor:
    """(B,) bool: the part is there."""
    return weight.mean(dim=-1) > PRESENT


def _if_present(value: Tensor, *weights: Tensor) -> Tensor:
    for weight in weights:
        value = torch.where(present(weight), value, torch.full_like(value, math.nan))
    return value


def _area(scene: Scene, weight: Tensor) -> Tensor:
    return 100.0 * weight.mean(dim=-1)


# A bar of uniform weight has a standard deviation of its length over √12.
_EXTENT = math.sqrt(12.0)


def _extent(values: Tensor, weight: Tensor) -> Tensor:
    return _if_present(_EXTENT * _deviation(values, weight), weight)


def _width(scene: Scene, weight: Tensor) -> Tensor:
    return _extent(scene.x, weight)


def _height(scene: Scene, weight: Tensor) -> Tensor:
    return _extent(scene.y, weight)


def _upward(scene: Scene, weight: Tensor) -> Tensor:
    return _if_present(100.0 - _mean(scene.y, weight), weight)


def _rightward(scene: Scene, weight: Tensor) -> Tensor:
    return _if_present(_mean(scene.x, weight), weight)


def _halves(scene: Scene, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The left and the right one of a pair."""
    left = scene.x < _mean(scene.x, weight)[:, None]
    return weight * left, weight * ~left


def _openness(scene: Scene, weight: Tensor) -> Tensor:
    """Height over width, in percent, each side of a pair by itself."""
    halves = _halves(scene, weight)
    ratios = [_deviation(scene.y, half) / _deviation(scene.x, half).clamp_min(1e-3) for half in halves]
    return _if_present(100.0 * (ratios[0] + ratios[1]) / 2, weight)


def _thickness(scene: Scene, weight: Tensor) -> Tensor:
    """Area over width: the mean height of the part's columns."""
    return _if_present(100.0 * _area(scene, weight) / _width(scene, weight).clamp_min(1e-3), weight)


def _aspect(scene: Scene, weight: Tensor) -> Tensor:
    return _if_present(100.0 * _height(scene, weight) / _width(scene, weight).clamp_min(1e-3), weight)


def _smile(scene: Scene, weight: Tensor) -> Tensor:
    """How far the corners lie above the parabola's vertex: slope of y on the squared distance from the middle."""
    x, y = scene.x, scene.y
    u = ((x - _mean(x, weight)[:, None]) / _deviation(x, weight).clamp_min(1e-3)[:, None]).square()
    return _if_present(-_covariance(u, y, weight) / _covariance(u, u, weight).clamp_min(1e-3) * 3.0, weight)


def _arch(scene: Scene, weight: Tensor) -> Tensor:
    """Slope of y on the distance from the middle of the face: inner ends low is positive."""
    x, y = scene.x, scene.y
    u = (x - _mean(x, weight)[:, None]).abs()
    return _if_present(-100.0 * _covariance(u, y, weight) / _covariance(u, u, weight).clamp_min(1e-3), weight)


def _gaze(scene: Scene, weight: Tensor) -> Tensor:
    """How far the dark of each eye lies to the right of its middle, in percent of the eye's width."""
    x, light, values = scene.x, scene.lab[:, 0], []
    for half in _halves(scene, weight):
        dark = half * (_mean(light, half)[:, None] - light).clamp_min(0)
        width = _EXTENT * _deviation(x, half)
        values.append((_mean(x, dark) - _mean(x, half)) / width.clamp_min(1e-3))
    return _if_present(100.0 * (values[0] + values[1]) / 2, weight)


def _teeth(scene: Scene, weight: Tensor) -> Tensor:
    """Share of the mouth that is light and not red, in percent."""
    white = torch.sigmoid((scene.lab[:, 0] - 60.0) / 4.0) * torch.sigmoid((14.0 - scene.lab[:, 1]) / 3.0)
    return _if_present(100.0 * _mean(white, weight), weight)


def _bangs(scene: Scene, weight: Tensor) -> Tensor:
    """How little forehead shows between the brows and the hair above them."""
    brows, face = scene.of("eyebrows"), scene.of(*FACE)
    middle, spread = _mean(scene.x, brows)[:, None], _deviation(scene.x, brows)[:, None]
    forehead = face * ((scene.x - middle).abs() < spread)
    shown = _mean(scene.y, brows) - _quantile_row(scene, forehead, 0.02)
    return _if_present(-shown, weight, brows, forehead)


def _spacing(scene: Scene, weight: Tensor) -> Tensor:
    return _if_present(2.0 * _mean((scene.x - _mean(scene.x, weight)[:, None]).abs(), weight), weight)


def _quantile_row(scene: Scene, weight: Tensor, share: float) -> Tensor:
    """(B,) y below which ``share`` of the weight lies above, interpolated between rows."""
    rows = weight.unflatten(-1, (scene.side, scene.side)).sum(dim=-1)  # (B, rows)
    total = rows.cumsum(dim=-1) / rows.sum(dim=-1, keepdim=True).clamp_min(1e-6)
    below = (total < share).sum(dim=-1).clamp_max(scene.side - 1)
    reached = total.gather(1, below[:, None])[:, 0]
    before = torch.where(below > 0, total.gather(1, (below - 1).clamp_min(0)[:, None])[:, 0], torch.zeros_like(reached))
    part = ((share - before) / (reached - before).clamp_min(1e-6)).clamp(0, 1)
    return (below + part) * (100.0 / scene.side)


def _below_chin(scene: Scene, weight: Tensor) -> Tensor:
    face = scene.of(*FACE)
    return _if_present(_quantile_row(scene, weight, 0.97) - _quantile_row(scene, face, 0.97), weight, face)


def _above_eyes(scene: Scene, weight: Tensor) -> Tensor:
    eyes = scene.of("eyes", "eyebrows")
    return _if_present(_mean(scene.y, eyes) - _quantile_row(scene, weight, 0.03), weight, eyes)


def _yaw(scene: Scene, weight: Tensor) -> Tensor:
    nose, face = scene.of("nose"), scene.of(*FACE)
    shift = _mean(scene.x, nose) - _mean(scene.x, face)
    width = _EXTENT * _deviation(scene.x, face)
    return _if_present(100.0 * shift / width.clamp_min(1e-3), nose, face)


def _pitch(scene: Scene, weight: Tensor) -> Tensor:
    nose, eyes, mouth = scene.of("nose"), scene.of("eyes", "eyebrows"), scene.of("mouth")
    top, middle, bottom = (_mean(scene.y, part) for part in (eyes, nose, mouth))
    return _if_present(-100.0 * (middle - top) / (bottom - top).clamp_min(1e-3), nose, eyes, mouth)


def _roll(scene: Scene, weight: Tensor) -> Tensor:
    eyes = scene.of("eyes", "eyebrows")
    x, y = scene.x, scene.y
    slope = _covariance(x, y, eyes) / _covariance(x, x, eyes).clamp_min(1e-3)
    return _if_present(torch.rad2deg(torch.atan(slope)), eyes)


def _face_size(scene: Scene, weight: Tensor) -> Tensor:
    face = scene.of(*FACE)
    return _if_present(100.0 * face.mean(dim=-1).sqrt(), face)


def _channel(number: int) -> Callable[[Scene, Tensor], Tensor]:
    """The mean of L*, a* or b*."""
    return lambda scene, weight: _if_present(_mean(scene.lab[:, number], weight), weight)


def _saturation(scene: Scene, weight: Tensor) -> Tensor:
    chroma = (scene.lab[:, 1].square() + scene.lab[:, 2].square() + 1e-6).sqrt()
    return _if_present(_mean(chroma, weight), weight)


def _hue(scene: Scene, weight: Tensor) -> Tensor:
    """Angle of the mean colour in the a*b* plane: 0 red, 90 yellow, 180 green; grey has none."""
    a, b = _mean(scene.lab[:, 1], weight), _mean(scene.lab[:, 2], weight)
    hue = torch.where(torch.hypot(a, b) > _GREY, torch.rad2deg(torch.atan2(b, a)), torch.full_like(a, math.nan))
    return _if_present(hue, weight)


def _contrast(scene: Scene, weight: Tensor) -> Tensor:
    return _if_present(_deviation(scene.lab[:, 0], weight), weight)


_S, _T, _B, _OWN_LAYERS = LayerGroup.SHAPE, LayerGroup.TEXTURE, LayerGroup.BASE, LayerGroup.OWN
_LENGTH = "% of the picture's side"
AREA = Property("size", "Size", _S, "smaller", "larger", "% of the picture", _area)
WIDTH = Property("width", "Width", _S, "narrower", "wider", _LENGTH, _width)
HEIGHT = Property("height", "Height", _S, "shorter", "taller", _LENGTH, _height)
WORN = Property("worn", "Off – on", _OWN_LAYERS, "off", "on", "% of the picture", _area, asked=True)
UP = Property("position", "Height in the face", _S, "lower", "higher", _LENGTH, _upward)
COLOURS = (
    Property("lightness", "Lightness", _T, "darker", "lighter", "L*", _channel(0)),
    Property("redness", "Red–green", _T, "greener", "redder", "a*", _channel(1)),
    Property("warmth", "Yellow–blue", _T, "bluer", "yellower", "b*", _channel(2)),
    Property("hue", "Hue", _T, "towards red", "towards yellow", "degrees", _hue, 360.0),
    Property("saturation", "Saturation", _T, "paler", "more vivid", "chroma", _saturation),
    Property("contrast", "Contrast", _T, "flatter", "more contrast", "L* deviation", _contrast),
)
BASE_PROPERTIES = (
    Property("yaw", "Turn", _B, "to the left", "to the right", "% of the face's width", _yaw, asked=True),
    Property("pitch", "Nod", _B, "down", "up", "% of eyes to mouth", _pitch, asked=True),
    Property("tilt", "Tilt", _B, "anticlockwise", "clockwise", "degrees", _roll),
    Property("size", "Closeness", _B, "further", "closer", _LENGTH, _face_size),
    Property("right", "Left–right", _B, "left", "right", _LENGTH, lambda scene, _: _rightward(scene, scene.of(*FACE))),
    Property("up", "Up–down", _B, "lower", "higher", _LENGTH, lambda scene, _: _upward(scene, scene.of(*FACE))),
)
_OWN: Mapping[str, tuple[Property, ...]] = {
    "background": (),
    "skin": (AREA, WIDTH, Property("length", "Face length", _S, "shorter", "longer", _LENGTH, _height)),
    "eyes": (
        AREA,
        Property("openness", "Openness", _S, "more closed", "wider open", "% of the width", _openness, asked=True),
        Property("spacing", "Spacing", _S, "closer together", "further apart", _LENGTH, _spacing),
        UP,
        Property("gaze", "Gaze", _T, "to the left", "to the right", "% of the eye's width", _gaze, asked=True),
    ),
    "eyebrows": (
        Property("thickness", "Thickness", _S, "thinner", "thicker", _LENGTH, _thickness),
        Property("arch", "Slant", _S, "outer ends low", "outer ends high", "% slope", _arch),
        Property("spacing", "Spacing", _S, "closer together", "further apart", _LENGTH, _spacing),
        UP,
    ),
    "mouth": (
        Property("openness", "Openness", _S, "closed", "open", "% of the width", _aspect, asked=True),
        Property("smile", "Smile", _S, "corners down", "corners up", _LENGTH, _smile, asked=True),
        WIDTH,
        UP,
        Property("teeth", "Teeth", _S, "hidden", "shown", "% of the mouth", _teeth, asked=True),
    ),
    "nose": (AREA, WIDTH, Property("length", "Length", _S, "shorter", "longer", _LENGTH, _height), UP),
    "ears": (AREA, HEIGHT, UP),
    "hair": (
        Property("length", "Length below the chin", _S, "shorter", "longer", _LENGTH, _below_chin, asked=True),
        Property("top", "Height above the eyes", _S, "flatter", "taller", _LENGTH, _above_eyes),
        Property("bangs", "Bangs", _S, "forehead bare", "forehead covered", _LENGTH, _bangs, asked=True),
        WIDTH,
        AREA,
    ),
    "neck": (AREA, WIDTH),
    "cloth": (AREA, UP),
    "eyeglass": (WORN, HEIGHT, WIDTH),
    "hat": (WORN, HEIGHT),
    "earring": (WORN, HEIGHT),
}
_ANY = (AREA, WIDTH, HEIGHT, UP)


def properties_of(part: str, traits: tuple[Property, ...] = ()) -> tuple[Property, ...]:
    """What is measured of a part (or of "base"): shape first, then colour; of each the plainest first, traits last.

    Unknown parts get the general ones.
    """
    if part == "base":
        return (*BASE_PROPERTIES, *traits)
    return (*_OWN.get(part, _ANY), *COLOURS, *traits)


def measure(properties: tuple[Property, ...], faces: Scene, part: str) -> Tensor:
    """(B, number of properties) float64 on the CPU; not-a-number where a property has no meaning."""
    weight = faces.weight.sum(dim=1) if part == "base" else faces.of(part)
    if not properties:
        return torch.zeros(len(weight), 0, dtype=torch.float64)
    return torch.stack([item.measure(faces, weight) for item in properties], dim=1).double().cpu()
