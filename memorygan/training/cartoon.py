"""Drawn faces: a picture and its part ids painted with the same strokes, and the dice that decide what is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from memorygan.parts import FACE_PARTS

# Raise it when the drawing changes, so that prepared files of the older look are not continued with the newer one.
DRAWING_VERSION = 2

Color = tuple[float, float, float]
SKINS: tuple[Color, ...] = ((255, 226, 204), (240, 194, 160), (214, 156, 114), (164, 108, 72), (110, 70, 48))
HAIRS: tuple[Color, ...] = (
    (34, 28, 30), (62, 42, 32), (110, 66, 40), (170, 96, 46), (214, 160, 84), (240, 208, 140), (190, 188, 190),
    (214, 92, 140), (66, 120, 190),
)  # fmt: skip
IRISES: tuple[Color, ...] = ((62, 40, 28), (104, 78, 40), (70, 120, 84), (66, 118, 176), (110, 124, 134))
# How far down the hair behind the head reaches, and the chance of each style.
HAIR_STYLES = {"bald": (-1.0, 0.06), "short": (-1.0, 0.34), "curly": (0.1, 0.2), "bob": (0.26, 0.2), "long": (0.6, 0.2)}
MOUTHS = {"closed": (0.0, 0.5), "grin": (0.022, 0.3), "open": (0.045, 0.2)}  # how far it is open, and its chance

# Where the right eye and the mouth sit in head coordinates: the origin lies between them, x grows to the right and y
# downwards, and 1 is the side of the picture. The left eye mirrors the right one.
_EYE_X, _EYE_Y, _MOUTH_Y = 0.112, -0.03, 0.215


@dataclass(frozen=True)
class FaceTraits:
    """Everything that tells one drawn face from another.

    Lengths are in sides of the picture, angles in radians, colours RGB 0–255; the rest are factors around 1 or, where
    they say so, directions from −1 to 1.
    """

    skin: Color
    hair: Color
    iris: Color
    lips: Color
    cloth: Color
    backdrop: Color
    accent: Color  # of hat, frames and the pattern of the backdrop
    hair_style: str
    mouth: str
    fringe: float  # how far the hair comes down over the forehead
    beard: bool
    glasses: bool
    hat: bool
    earrings: bool
    stripes: bool
    scale: float
    tilt: float
    shift: tuple[float, float]
    light: float  # −1 (from the left) to 1
    yaw: float  # −1 (looks left) to 1
    gaze: float  # −1 to 1
    smile: float  # −1 to 1
    width: float
    length: float
    jaw: float
    eyes: float
    openness: float
    brows: float
    nose: float
    lip: float
    ears: float
    volume: float

    def aside(self, depth: float) -> float:
        """How far a feature moves sideways when the head turns; what sticks out (larger ``depth``) moves further."""
        return 0.035 * self.yaw * depth


def roll_traits(seed: int, index: int) -> FaceTraits:
    """The traits of one face; the same for the same seed and index, on every machine.

    Args:
        seed: 0 to 2**32 - 1.
        index: which face, from 0.
    """
    dice = np.random.RandomState(np.array([seed, index, DRAWING_VERSION], dtype=np.uint32))

    def pick(options: dict[str, tuple[float, float]]) -> str:
        return str(dice.choice(list(options), p=[chance for _, chance in options.values()]))

    def around(middle: float, sigma: float) -> float:
        return float(middle + sigma * np.clip(dice.randn(), -2, 2))

    def tint(color: Color, amount: float) -> Color:
        r, g, b = np.clip(np.array(color) + dice.uniform(-amount, amount, 3), 0, 255)
        return float(r), float(g), float(b)

    skin = tint(SKINS[dice.randint(len(SKINS))], 12)
    return FaceTraits(
        skin=skin,
        hair=tint(HAIRS[dice.randint(len(HAIRS))], 10),
        iris=tint(IRISES[dice.randint(len(IRISES))], 8),
        lips=tint((0.6 * skin[0] + 70, 0.55 * skin[1] + 8, 0.55 * skin[2] + 18), 10),
        cloth=tint((128, 128, 128), 110),
        backdrop=tint((160, 160, 160), 80),
        accent=tint((128, 128, 128), 110),
        hair_style=pick(HAIR_STYLES),
        mouth=pick(MOUTHS),
        fringe=float(dice.uniform(-0.22, -0.145)),
        beard=dice.rand() < 0.2,
        glasses=dice.rand() < 0.2,
        hat=dice.rand() < 0.14,
        earrings=dice.rand() < 0.2,
        stripes=dice.rand() < 0.25,
        scale=around(1.08, 0.03),
        tilt=around(0.0, 0.045),
        shift=(around(0.5, 0.008), around(0.5, 0.008)),
        light=float(dice.choice((-1, 1)) * dice.uniform(0.5, 1)),
        yaw=around(0.0, 0.42),
        gaze=float(dice.uniform(-1, 1)),
        smile=float(np.clip(around(0.4, 0.42), -0.7, 1)),
        width=around(1.0, 0.05),
        length=around(1.0, 0.04),
        jaw=float(dice.uniform(0.12, 0.5)),
        eyes=around(1.0, 0.09),
        openness=float(dice.uniform(0.72, 1.18)),
        brows=float(dice.uniform(0.65, 1.35)),
        nose=around(1.0, 0.14),
        lip=around(1.0, 0.2),
        ears=around(1.0, 0.12),
        volume=around(1.0, 0.06),
    )


class _Canvas:
    """A picture and its part ids, painted together, without antialiasing: they agree to the pixel.

    Outlines are (N, 2) in head coordinates.
    """

    def __init__(self, traits: FaceTraits, size: int) -> None:
        self.size, self.shift = size, np.array(traits.shift)
        cos, sin = np.cos(traits.tilt), np.sin(traits.tilt)
        self.turn = traits.scale * np.array([[cos, sin], [-sin, cos]])
        self.picture, self.ids = Image.new("RGB", (size, size)), Image.new("L", (size, size))

    def paint(self, outline: np.ndarray, color: Color, part: str | None = None, width: float = 0.0) -> None:
        """Fills an outline, or draws it as a line of some width; without a part the ids stay (make-up, shadow)."""
        points = [tuple(point) for point in (outline @ self.turn + self.shift) * self.size]
        stroke = max(1, round(width * self.size))
        planes: list[tuple[Image.Image, tuple[int, ...] | int]] = [(self.picture, tuple(round(c) for c in color))]
        if part is not None:
            planes.append((self.ids, FACE_PARTS.index(part)))
        for plane, ink in planes:
            pen = ImageDraw.Draw(plane)
            if width:
                pen.line(points, fill=ink, width=stroke, joint="curve")
            else:
                pen.polygon(points, fill=ink)


def _ellipse(x: float, y: float, rx: float, ry: float, first: float = 0.0, last: float = 2.0) -> np.ndarray:
    """Outline (N, 2) of an ellipse, or of a sector between two angles in units of π; upwards is 1.5."""
    angle = np.pi * np.linspace(first, last, 48)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def _mixed(color: Color, other: Color, share: float) -> Color:
    r, g, b = ((1 - share) * a + share * c for a, c in zip(color, other, strict=True))
    return r, g, b


def _darker(color: Color, factor: float) -> Color:
    return _mixed(color, (0, 0, 0), 1 - factor)


def draw_face(traits: FaceTraits, size: int) -> tuple[Image.Image, np.ndarray]:
    """Draw a face, back to front, without antialiasing; sample it down for smooth borders.

    Args:
        traits: what it looks like.
        size: side in pixels, at least 64 for all parts to show.

    Returns:
        RGB picture of ``size`` × ``size`` and its (size, size) uint8 part ids.
    """
    canvas = _Canvas(traits, size)
    canvas.paint(np.array([(-2, -2), (2, -2), (2, 2), (-2, 2)]), traits.backdrop, "background")
    canvas.paint(_ellipse(0, -0.02, 0.44, 0.44), _mixed(traits.backdrop, traits.accent, 0.3))
    _back_hair(canvas, traits)
    _body(canvas, traits)
    _head(canvas, traits)
    _nose(canvas, traits)
    _mouth(canvas, traits)
    _eyes(canvas, traits)
    _front_hair(canvas, traits)
    if traits.hat:
        half = 0.275 * traits.width * traits.volume
        canvas.paint(_ellipse(0, -0.17, half, 0.25, 1.0, 2.0), traits.accent, "hat")
        canvas.paint(_ellipse(0, -0.17, half + 0.1, 0.04), _darker(traits.accent, 0.8), "hat")
    if traits.earrings:
        for side in (-1, 1):
            x = side * 0.234 * traits.width - traits.aside(0.4)
            canvas.paint(_ellipse(x, 0.05 + 0.07 * traits.ears, 0.018, 0.03), (236, 196, 84), "earring")
    return _lit(canvas.picture, traits.light), np.asarray(canvas.ids)


def _lit(picture: Image.Image, light: float) -> Image.Image:
    """The picture, lighter towards one side."""
    side = np.linspace(-0.12, 0.12, picture.width) * light
    return Image.fromarray(np.clip(np.asarray(picture) * (1 + side[:, None]), 0, 255).astype(np.uint8))


def _back_hair(canvas: _Canvas, traits: FaceTraits) -> None:
    """The hair behind the head and shoulders."""
    end, _ = HAIR_STYLES[traits.hair_style]
    shade, half = _darker(traits.hair, 0.82), 0.29 * traits.volume
    if end > -1:
        top = _ellipse(0, -0.06, half, 0.3, 1.0, 2.0)
        canvas.paint(np.concatenate([top, [(half, end), (-half, end)]]), shade, "hair")
    if traits.hair_style == "curly":
        for x, y in _ellipse(0, -0.09, 0.27 * traits.volume, 0.25 * traits.volume, 0.8, 2.2)[::4]:
            canvas.paint(_ellipse(x, y, 0.085, 0.085), shade, "hair")


def _body(canvas: _Canvas, traits: FaceTraits) -> None:
    """Neck and clothes."""
    half = 0.118 * traits.width
    neck = [(-half, 0.2), (half, 0.2), (half, 0.38), (0.24, 0.62), (-0.24, 0.62), (-half, 0.38)]
    canvas.paint(np.array(neck), _darker(traits.skin, 0.88), "neck")
    shoulders = [(-0.7, 0.75), (-0.52, 0.49), (-0.15, 0.39), (0, 0.46), (0.15, 0.39), (0.52, 0.49), (0.7, 0.75)]
    canvas.paint(np.array(shoulders), traits.cloth, "cloth")
    for y in np.arange(0.5, 0.7, 0.05) if traits.stripes else ():
        canvas.paint(np.array([(-0.45, y), (0.45, y)]), _darker(traits.cloth, 0.7), width=0.02)


def _outline(traits: FaceTraits) -> np.ndarray:
    """Outline of the face, forehead to chin, (N, 2)."""
    x, y = _ellipse(0, 0, 0.232 * traits.width, 1).T
    below = np.clip(y, 0, 1)
    x = x * (1 - traits.jaw * below**3) * (1 + 0.05 * below * (1 - below))
    return np.stack([x, np.where(y > 0, y * 0.31 * traits.length, y * 0.29) + 0.055], axis=1)


def _head(canvas: _Canvas, traits: FaceTraits) -> None:
    """Ears, face and beard; a beard grows on the skin and is annotated as skin."""
    for side in (-1, 1):
        x = side * 0.228 * traits.width - traits.aside(0.4)
        canvas.paint(_ellipse(x, 0.025, 0.042, 0.072 * traits.ears), _darker(traits.skin, 0.92), "ears")
        canvas.paint(_ellipse(x, 0.025, 0.02, 0.045 * traits.ears), _darker(traits.skin, 0.78))
    face = _outline(traits)
    canvas.paint(face, traits.skin, "skin")
    if traits.beard:
        canvas.paint(face[face[:, 1] > 0.15], _mixed(traits.hair, traits.skin, 0.15))


def _nose(canvas: _Canvas, traits: FaceTraits) -> None:
    x, width, tip = traits.aside(1.3), 0.05 * traits.nose, 0.127
    root = 0.55 * x
    ridge = np.array([(root - 0.016, -0.035), (root + 0.016, -0.035), (x + width, tip - 0.02), (x - width, tip - 0.02)])
    shade = _mixed(traits.skin, (170, 60, 40), 0.12)
    for outline in (ridge, _ellipse(x, tip - 0.015, width, 0.035)):
        canvas.paint(outline, shade, "nose")
    for side in (-1, 1):
        canvas.paint(_ellipse(x + side * 0.45 * width, tip + 0.004, 0.012, 0.007), _darker(traits.skin, 0.45))


def _mouth(canvas: _Canvas, traits: FaceTraits) -> None:
    gap, _ = MOUTHS[traits.mouth]
    along = np.linspace(-1, 1, 21)
    arc, lip = 1 - along**2, 0.021 * traits.lip
    corners = _MOUTH_Y - 0.3 * gap - 0.03 * traits.smile * along**2

    def between(upper: float, lower: float, half: float) -> np.ndarray:
        x = traits.aside(0.9) + half * along
        edges = [np.stack([x, corners + depth * arc], axis=1) for depth in (upper, lower)]
        return np.concatenate([edges[0], edges[1][::-1]])

    canvas.paint(between(-lip, gap + 1.3 * lip, 0.082), traits.lips, "mouth")
    if not gap:
        canvas.paint(between(-0.003, 0.003, 0.075), _darker(traits.lips, 0.5))
        return
    canvas.paint(between(0, gap, 0.07), (84, 24, 32))
    canvas.paint(between(0, gap if traits.mouth == "grin" else 0.4 * gap, 0.066), (246, 242, 234))


def _eyes(canvas: _Canvas, traits: FaceTraits) -> None:
    """Eyes and eyebrows, and the glasses before them, through which the eyes are seen."""
    frame, bridge = _darker(traits.accent, 0.55), []
    for side in (-1, 1):
        x = side * _EYE_X * (1 - 0.05 * side * traits.yaw) + traits.aside(0.8)
        lens = _ellipse(x, _EYE_Y + 0.006, 0.083, 0.075)
        if traits.glasses:
            canvas.paint(lens, _mixed(traits.skin, (232, 242, 250), 0.22), "eyeglass")
        eye = _ellipse(x, _EYE_Y, 0.05 * traits.eyes * (1 - 0.14 * side * traits.yaw), 0.026 * traits.openness)
        canvas.paint(eye, (250, 248, 244), "eyes")
        seen = x + 0.01 * traits.gaze + 0.008 * traits.yaw
        for radius, color in ((0.023, traits.iris), (0.012, (16, 12, 14)), (0.005, (255, 255, 255))):
            canvas.paint(_ellipse(seen, _EYE_Y, radius, min(radius, 0.025 * traits.openness)), color)
        canvas.paint(eye[len(eye) // 2 :], (38, 26, 26), "eyes", width=0.011)
        brow = _ellipse(x, _EYE_Y - 0.048, 0.062, 0.036, 1.15, 1.85)
        canvas.paint(brow, _darker(traits.hair, 0.7), "eyebrows", width=0.018 * traits.brows)
        if traits.glasses:
            canvas.paint(lens, frame, "eyeglass", width=0.016)
            bridge.append((x - side * 0.083, _EYE_Y))
    if traits.glasses:
        canvas.paint(np.array(bridge), frame, "eyeglass", width=0.016)


def _front_hair(canvas: _Canvas, traits: FaceTraits) -> None:
    """The hair over the head, down to its hairline, with some strands."""
    if traits.hair_style == "bald":
        return
    half = 0.258 * traits.width * traits.volume
    crown = _ellipse(0, -0.055, half, 0.3 * traits.volume, 0.95, 2.05)
    line = _ellipse(0, -0.02, 0.2 * traits.width, -0.02 - traits.fringe, 2.0, 1.0)
    canvas.paint(np.concatenate([crown, line]), traits.hair, "hair")
    for outer, inner in list(zip(crown, line[::-1], strict=True))[4:-4:5]:
        canvas.paint(np.array([outer + 0.1 * (inner - outer), inner]), _darker(traits.hair, 0.85), width=0.006)
