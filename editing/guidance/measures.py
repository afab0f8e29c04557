"""What can be measured of an aligned face without any network: colours, sizes and forms of its parts.

A measure is a number with a direction: it tells whether an edit made the hair redder or the mouth smile more, however
little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TypeAlias

import cv2
import numpy as np
import torch

from editing.guidance.words import describe
from memorygan.colour import rgb_to_lab
from memorygan.parts import FACE_PARTS

Measures: TypeAlias = dict[str, "float | str | None"]

# Raw measures in the order of :func:`measure`. Lengths are shares of the width of the face; areas of nose and
# eyes are shares of its square, other areas shares of the area of the face; colours are CIELAB; "darkness" is lightness
# of the cheeks minus lightness of the place. Saturation is chroma in proportion to lightness, in percent (Lübbe 2010:
# C* / √(C*² + L*²)): black hair has hardly any chroma and is not gray.
MEASURES: tuple[str, ...] = (
    "hair.lightness", "hair.redness", "hair.yellowness", "hair.saturation", "hair.hue", "hair.length", "hair.crown",
    "hair.bangs", "hair.area", "beard.darkness", "beard.texture", "beard.strength", "beard.hair",
    "moustache.darkness", "glasses.area", "glasses.darkness", "hat.area", "earrings.area", "smile.curve",
    "smile.width", "smile.teeth", "smile.strength", "mouth.openness", "mouth.inside", "lips.redness",
    "lips.lightness", "brows.thickness", "brows.darkness", "nose.size", "nose.width", "face.width",
    "skin.lightness", "skin.tone", "eyes.size", "eyes.openness", "eyes.redness", "eyes.yellowness",
    "eyes.lightness", "pose.turn", "background.lightness", "background.redness", "background.yellowness",
    "clothes.lightness", "clothes.redness", "clothes.yellowness",
)  # fmt: skip

# What a word asks for, as the raw measure that has to move and the direction in which it has to move.
DIRECTIONS: Mapping[str, tuple[str, int]] = {
    "black hair": ("hair.lightness", -1),
    "blond hair": ("hair.lightness", 1),
    "white hair": ("hair.lightness", 1),
    "red hair": ("hair.redness", 1),
    "gray hair": ("hair.saturation", -1),
    "long hair": ("hair.length", 1),
    "short hair": ("hair.length", -1),
    "bangs": ("hair.bangs", 1),
    "bald": ("hair.crown", -1),
    "beard": ("beard.strength", 1),
    "moustache": ("moustache.darkness", 1),
    "glasses": ("glasses.area", 1),
    "hat": ("hat.area", 1),
    "earrings": ("earrings.area", 1),
    "smile": ("smile.strength", 1),
    "teeth": ("smile.teeth", 1),
    "open mouth": ("mouth.openness", 1),
    "lipstick": ("lips.redness", 1),
    "thick brows": ("brows.thickness", 1),
    "thin brows": ("brows.thickness", -1),
    "big nose": ("nose.size", 1),
    "small nose": ("nose.size", -1),
    "wide face": ("face.width", 1),
    "narrow face": ("face.width", -1),
    "pale skin": ("skin.lightness", 1),
    "dark skin": ("skin.lightness", -1),
    "big eyes": ("eyes.size", 1),
    "blue eyes": ("eyes.yellowness", -1),
    "brown eyes": ("eyes.yellowness", 1),
}

_ID = {name: index for index, name in enumerate(FACE_PARTS.names)}
_FACE_IDS = [_ID[name] for name in ("skin", "eyes", "eyebrows", "mouth", "nose")]


class _Face:
    """One face with its colours and the places that measures refer to; rows and columns in pixels."""

    def __init__(self, image: np.ndarray, ids: np.ndarray) -> None:
        side_y, side_x = ids.shape
        rgb = torch.from_numpy(np.array(image)).reshape(1, -1, 3).transpose(1, 2).float() / 255
        self.lab = rgb_to_lab(rgb)[0].reshape(3, side_y, side_x).numpy()
        self.ids = ids
        self.y, self.x = np.mgrid[0:side_y, 0:side_x].astype(np.float32) + 0.5
        self.pixels = side_x * side_y
        self.face = np.isin(ids, _FACE_IDS)
        self.face_area = float(self.face.sum())
        if self.face_area < 0.01 * self.pixels:
            return
        columns, rows = self.x[self.face], self.y[self.face]
        self.left, self.right = np.quantile(columns, (0.01, 0.99))
        self.chin = float(np.quantile(rows, 0.995))
        self.width = max(float(self.right - self.left), 1.0)
        self.middle = float(columns.mean())

    def of(self, part: str) -> np.ndarray:
        return self.ids == _ID[part]

    @cached_property
    def cheeks(self) -> np.ndarray:
        """Skin beside the nose, below the eyes and above the mouth; all skin where those do not show."""
        nose, mouth, skin = self.box("nose"), self.box("mouth"), self.of("skin")
        if nose is None or mouth is None:
            return skin
        upper, margin = nose[1] + 0.45 * max(mouth[1] - nose[1], 1.0), 0.06 * self.width
        cheeks = skin & (self.y > upper) & (self.y < mouth[1])
        cheeks &= (self.x > self.left + margin) & (self.x < self.right - margin)
        cheeks &= np.abs(self.x - (nose[0] + nose[2]) / 2) > 0.2 * self.width
        return cheeks if cheeks.sum() >= 0.002 * self.pixels else skin

    @cached_property
    def cheek(self) -> tuple[float, float, float] | None:
        """Colour of the cheeks."""
        return self.colour(self.cheeks)

    def box(self, part: str) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom of a part without its outermost percent; None if it hardly shows."""
        where = self.of(part)
        if where.sum() < max(4.0, 1e-4 * self.pixels):
            return None
        left, right = np.quantile(self.x[where], (0.01, 0.99))
        top, bottom = np.quantile(self.y[where], (0.01, 0.99))
        return float(left), float(top), float(right), float(bottom)

    def colour(self, where: np.ndarray, least: float = 0.0) -> tuple[float, float, float] | None:
        """Median L*, a*, b* of a region; None if it covers less than ``least`` of the picture or hardly a pixel."""
        if where.sum() < max(4.0, least * self.pixels):
            return None
        lightness, red, yellow = np.median(self.lab[:, where], axis=1)
        return float(lightness), float(red), float(yellow)


def measure(image: np.ndarray, part_ids: np.ndarray) -> Measures:
    """Measures an aligned face and says it in words.

    Args:
        image: (H, W, 3) uint8 RGB.
        part_ids: (H, W) uint8, ids of :data:`memorygan.parts.FACE_PARTS`.

    Returns:
        the raw measures of :data:`MEASURES` (numbers) and the words of :func:`describe`; None where there is nothing
        to measure, or where the measure does not settle the word.
    """
    raw: dict[str, float | None] = dict.fromkeys(MEASURES)
    face = _Face(image, part_ids)
    if face.face_area >= 0.01 * face.pixels:
        for group in (_hair, _skin, _jaw, _things, _mouth, _features, _eyes, _surroundings):
            raw.update(group(face))
    return {**raw, **describe(raw)}


def _hair(face: _Face) -> dict[str, float | None]:
    hair, out = face.of("hair"), dict[str, "float | None"]()
    out["hair.area"] = float(hair.sum()) / face.face_area
    if colour := face.colour(_eroded(hair), 0.01):
        lightness, red, yellow = colour
        out["hair.lightness"], out["hair.redness"], out["hair.yellowness"] = lightness, red, yellow
        chroma = math.hypot(red, yellow)
        out["hair.saturation"] = 100.0 * chroma / max(math.hypot(chroma, lightness), 1.0)
        out["hair.hue"] = math.degrees(math.atan2(yellow, red))
        out["hair.length"] = (float(np.quantile(face.y[hair], 0.97)) - face.chin) / face.width
    if (brows := face.box("eyebrows") or face.box("eyes")) is None:
        return out
    top = brows[1]
    near = np.abs(face.x - face.middle) < 0.4 * face.width
    crown = near & (face.y < top - 0.3 * face.width) & (hair | face.face)
    if crown.sum() >= 4:
        out["hair.crown"] = float(hair[crown].mean())
    eyes = face.box("eyes") or brows
    forehead = (face.x > eyes[0]) & (face.x < eyes[2]) & (face.y < top) & (face.y > top - 0.2 * face.width)
    if forehead.sum() >= 4:
        out["hair.bangs"] = float(hair[forehead].mean())
    return out


def _eroded(where: np.ndarray) -> np.ndarray:
    """The region without its border pixels, unless nothing would be left."""
    inner = cv2.erode(where.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))).astype(bool)
    return inner if inner.sum() > 0.3 * where.sum() else where


def _skin(face: _Face) -> dict[str, float | None]:
    colour = face.cheek
    if colour is None:
        return {}
    lightness, _, yellow = colour
    # Individual typology angle (Chardon et al. 1991): dermatology's scale from dark (below −30°) to very light (55°).
    return {"skin.lightness": lightness, "skin.tone": math.degrees(math.atan2(lightness - 50, max(yellow, 1.0)))}


def _jaw(face: _Face) -> dict[str, float | None]:
    mouth, nose, cheek = face.box("mouth"), face.box("nose"), face.cheek
    out: dict[str, float | None] = {}
    if mouth is None or nose is None or cheek is None:
        return out
    centre, half = (mouth[0] + mouth[2]) / 2, max(mouth[2] - mouth[0], 1.0) / 2
    chin = face.chin
    below = (face.y > mouth[3] + 0.02 * face.width) & (face.y < chin) & (np.abs(face.x - centre) < 1.2 * half)
    hair, skin = face.of("hair"), face.of("skin")
    jaw = below & (skin | hair)
    if jaw.sum() >= max(6.0, 5e-4 * face.pixels):
        lightness = face.lab[0][jaw]
        out["beard.darkness"] = cheek[0] - float(lightness.mean())
        out["beard.texture"] = float(lightness.std()) - float(face.lab[0][face.cheeks].std())
        out["beard.hair"] = float(hair[jaw].mean())
    lip = (face.y > nose[3]) & (face.y < mouth[3]) & (np.abs(face.x - centre) < 0.7 * half) & skin
    lip &= face.y < mouth[1] + 0.35 * (mouth[3] - mouth[1])
    if lip.sum() >= 4:
        out["moustache.darkness"] = cheek[0] - float(np.median(face.lab[0][lip]))
    if "beard.texture" in out and "moustache.darkness" in out:
        # A shadow darkens the jaw or the lip; a beard both, and it is rough.
        out["beard.strength"] = min(out["beard.darkness"] or 0.0, out["moustache.darkness"] or 0.0) + (
            out["beard.texture"] or 0
        )
    return out


def _things(face: _Face) -> dict[str, float | None]:
    out: dict[str, float | None] = {}
    for name, part in (("glasses", "eyeglass"), ("hat", "hat"), ("earrings", "earring")):
        out[f"{name}.area"] = float(face.of(part).sum()) / face.face_area
    cheek, lens = face.cheek, face.colour(face.of("eyeglass"), 0.005)
    if cheek and lens:
        out["glasses.darkness"] = cheek[0] - lens[0]
    return out


def _mouth(face: _Face) -> dict[str, float | None]:
    mouth, box, cheek = face.of("mouth"), face.box("mouth"), face.cheek
    if box is None or cheek is None:
        return {}
    width, height = max(box[2] - box[0], 1.0), max(box[3] - box[1], 0.5)
    x, y = (face.x[mouth] - (box[0] + box[2]) / 2) / (width / 2), face.y[mouth]
    lightness, red, yellow = face.lab[:, mouth]
    # Slope of the mouth's middle line on the squared distance from its centre: corners up is positive.
    u = x * x
    curve = -float(np.cov(u, y, bias=True)[0, 1] / max(float(u.var()), 1e-3)) / width
    bright = (lightness > cheek[0] - 14) & (red < cheek[1] + 1) & (np.hypot(red, yellow) < math.hypot(*cheek[1:]))
    dark = (lightness < 0.42 * cheek[0]) & (np.abs(x) < 0.75)
    lips = ~bright & ~dark
    out: dict[str, float | None] = {
        "smile.curve": curve,
        "smile.width": width / face.width,
        "smile.teeth": float(bright.mean()),
        "mouth.openness": height / width,
        "mouth.inside": float((bright | dark).mean()),
    }
    # Logistic regression against a classifier's happy faces, which it finds with an area under the curve of 0.96.
    out["smile.strength"] = 20.0 * curve + 45.0 * width / face.width + 5.4 * float(bright.mean()) - 19.3
    if lips.sum() >= 4:
        out["lips.redness"] = float(np.median(red[lips])) - cheek[1]
        out["lips.lightness"] = float(np.median(lightness[lips])) - cheek[0]
    return out


def _features(face: _Face) -> dict[str, float | None]:
    out: dict[str, float | None] = {"nose.size": float(face.of("nose").sum()) / face.width**2}
    brows, forehead = face.of("eyebrows"), face.colour(face.of("skin"))
    if brows.sum() >= 4:
        # Each brow's columns, so that the gap between the two does not count.
        columns = brows.sum(axis=0)
        out["brows.thickness"] = float(columns[columns > 0].mean()) / face.width
        colour = face.colour(brows)
        if colour and forehead:
            out["brows.darkness"] = forehead[0] - colour[0]
    nose = face.box("nose")
    if nose:
        out["nose.width"] = (nose[2] - nose[0]) / face.width
        # The nose against the middle of the face: positive when it points to the right of the picture.
        out["pose.turn"] = ((nose[0] + nose[2]) / 2 - (face.left + face.right) / 2) / face.width
    top = face.box("eyebrows") or face.box("eyes")
    if top:
        out["face.width"] = face.width / max(face.chin - top[1], 1.0)
    return out


def _eyes(face: _Face) -> dict[str, float | None]:
    eyes = face.of("eyes")
    out: dict[str, float | None] = {"eyes.size": float(eyes.sum()) / face.width**2}
    columns = eyes.sum(axis=0)
    if eyes.sum() < 8:
        return out
    out["eyes.openness"] = float(np.quantile(columns[columns > 0], 0.8)) / face.width
    iris = np.zeros_like(eyes)
    for half in (eyes & (face.x < face.middle), eyes & (face.x >= face.middle)):
        if half.sum() < 8:
            continue
        columns, rows = face.x[half], face.y[half]
        left, right = np.quantile(columns, (0.02, 0.98))
        top, bottom = np.quantile(rows, (0.02, 0.98))
        width, height = max(right - left, 1.0), max(bottom - top, 1.0)
        # The iris is the darkest disc of the eye: look for it along the eye, in the middle row.
        inner = half & (np.abs(face.y - (top + bottom) / 2) < 0.35 * height)
        centres = np.linspace(left + 0.25 * width, right - 0.25 * width, 9)
        darkness = [_mean_in(face.lab[0], inner & (np.abs(face.x - c) < 0.16 * width)) for c in centres]
        centre = centres[int(np.argmin(darkness))]
        ring = half & (np.hypot(face.x - centre, face.y - (top + bottom) / 2) < 0.24 * width)
        values = face.lab[0][ring]
        if values.size >= 4:
            # Without the pupil and lashes, and without white and highlights.
            low, high = np.quantile(values, (0.25, 0.85))
            iris |= ring & (face.lab[0] >= low) & (face.lab[0] <= high)
    if colour := face.colour(iris):
        out["eyes.lightness"], out["eyes.redness"], out["eyes.yellowness"] = colour
    return out


def _mean_in(values: np.ndarray, where: np.ndarray) -> float:
    return float(values[where].mean()) if where.any() else math.inf


def _surroundings(face: _Face) -> dict[str, float | None]:
    out: dict[str, float | None] = {}
    for name, part in (("background", "background"), ("clothes", "cloth")):
        if colour := face.colour(face.of(part), 0.03):
            out[f"{name}.lightness"], out[f"{name}.redness"], out[f"{name}.yellowness"] = colour
    return out
