"""What tells one drawn face from another, and the dice that decide it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memorygan.training.cartoon.canvas import Color

# Raise it when the drawing changes, so that prepared files of the older look are not continued with the newer one.
DRAWING_VERSION = 1

# Where the right eye sits, in head coordinates (see Canvas); the left one mirrors it.
EYE_X, EYE_Y = 0.112, -0.03

SKIN_TONES: tuple[Color, ...] = (
    (255, 226, 204), (248, 208, 180), (236, 188, 152), (222, 166, 124), (198, 138, 96), (164, 108, 72),
    (126, 80, 54), (92, 58, 42),
)  # fmt: skip
HAIR_COLORS: tuple[Color, ...] = (
    (34, 28, 30), (52, 36, 30), (86, 54, 36), (122, 74, 42), (160, 96, 48), (190, 84, 40), (214, 160, 84),
    (238, 204, 132), (176, 174, 176), (226, 224, 222), (214, 92, 140), (66, 120, 190), (84, 150, 110),
)  # fmt: skip
_HAIR_ODDS = (0.17, 0.14, 0.13, 0.1, 0.07, 0.07, 0.08, 0.08, 0.04, 0.03, 0.03, 0.03, 0.03)
IRIS_COLORS: tuple[Color, ...] = (
    (62, 40, 28),
    (96, 62, 34),
    (116, 92, 44),
    (70, 120, 84),
    (66, 118, 176),
    (110, 124, 134),
)
HAIR_STYLES = ("bald", "buzz", "short", "quiff", "bowl", "curly", "bob", "long", "wavy", "bun", "ponytail")
_STYLE_ODDS = (0.05, 0.06, 0.14, 0.1, 0.08, 0.12, 0.12, 0.14, 0.1, 0.05, 0.04)


@dataclass(frozen=True)
class FaceTraits:
    """Everything that tells one drawn face from another.

    Lengths are in sides of the picture, angles in radians, colours RGB 0–255; the rest are factors around 1 or, where
    they say so, directions from -1 to 1.
    """

    skin: Color
    hair: Color
    iris: Color
    lips: Color
    cloth: Color
    cloth_accent: Color
    backdrop: Color
    backdrop_accent: Color
    accessory: Color
    hair_style: str
    fringe: str
    clothing: str
    backdrop_style: str
    mouth: str
    beard: str
    glasses: str
    hat: str
    earring: str
    scale: float
    tilt: float
    shift: tuple[float, float]
    light: float  # -1 to 1
    yaw: float  # -1 (looks left) to 1 (looks right)
    face_width: float
    face_length: float
    jaw: float
    eye_size: float
    eye_open: float
    eye_gap: float
    eye_slant: float
    gaze: float  # -1 to 1
    brow_height: float
    brow_angle: float
    brow_width: float
    nose_width: float
    nose_length: float
    mouth_width: float
    smile: float  # -1 to 1
    lip_size: float
    ear_size: float
    hair_volume: float
    part_side: float  # -1 to 1
    strand_phase: float
    blush: float
    freckles: int

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

    def pick(options: tuple[str, ...], odds: tuple[float, ...]) -> str:
        return options[dice.choice(len(options), p=np.array(odds) / sum(odds))]

    def spread(middle: float, sigma: float, limit: float = 2.0) -> float:
        return float(middle + sigma * np.clip(dice.randn(), -limit, limit))

    def tint(color: Color, amount: float) -> Color:
        r, g, b = np.clip(np.array(color) + dice.uniform(-amount, amount, 3) + dice.uniform(-amount, amount), 0, 255)
        return float(r), float(g), float(b)

    def vivid(low: float, high: float) -> Color:
        hue, gray, strength = dice.uniform(0, 2 * np.pi), dice.uniform(low, high), dice.uniform(5, 55)
        r, g, b = np.clip(gray + strength * np.cos(hue + np.array([0, 2.1, 4.2])), 0, 255)
        return float(r), float(g), float(b)

    tone = dice.uniform(0, len(SKIN_TONES) - 1)
    low = min(int(tone), len(SKIN_TONES) - 2)
    blend = np.array(SKIN_TONES[low]) + (tone - low) * (np.array(SKIN_TONES[low + 1]) - SKIN_TONES[low])
    skin = tint((float(blend[0]), float(blend[1]), float(blend[2])), 5)
    red = 0.62 if dice.rand() < 0.3 else 0.28
    mix = (1 - red) * np.array(skin) * 0.86 + red * np.array((196, 40, 62))
    style = pick(HAIR_STYLES, _STYLE_ODDS)
    bearded = style in ("bald", "buzz", "short", "quiff", "curly")
    hat = pick(("none", "beanie", "cap", "brim"), (0.86, 0.06, 0.04, 0.04))
    if hat != "none" and style in ("quiff", "bun"):
        style = "short"  # they would stick out above the hat
    covered_ears = style in ("bob", "long", "wavy", "bowl")
    return FaceTraits(
        skin=skin,
        hair=tint(HAIR_COLORS[dice.choice(len(HAIR_COLORS), p=_HAIR_ODDS)], 8),
        iris=tint(IRIS_COLORS[dice.randint(len(IRIS_COLORS))], 6),
        lips=tint((float(mix[0]), float(mix[1]), float(mix[2])), 8),
        cloth=vivid(40, 215),
        cloth_accent=vivid(60, 235),
        backdrop=vivid(110, 220),
        backdrop_accent=vivid(110, 225),
        accessory=vivid(30, 190),
        hair_style=style,
        fringe=pick(("none", "side", "full", "curtain"), (0.3, 0.32, 0.18, 0.2)),
        clothing=pick(("crew", "vneck", "shirt", "turtleneck", "stripes"), (0.3, 0.22, 0.2, 0.1, 0.18)),
        backdrop_style=pick(("flat", "gradient", "disc", "stripes", "bokeh"), (0.25, 0.35, 0.15, 0.1, 0.15)),
        mouth=pick(("closed", "grin", "open", "round"), (0.5, 0.26, 0.17, 0.07)),
        beard=pick(("none", "full", "goatee", "moustache"), (0.62, 0.18, 0.1, 0.1) if bearded else (1, 0, 0, 0)),
        glasses=pick(("none", "round", "square"), (0.8, 0.11, 0.09)),
        hat=hat,
        earring=pick(
            ("none", "stud", "hoop", "drop"), (0.9, 0.04, 0.03, 0.03) if covered_ears else (0.72, 0.1, 0.1, 0.08)
        ),
        scale=spread(1.08, 0.03),
        tilt=spread(0.0, 0.045),
        shift=(spread(0.5, 0.008), spread(0.5, 0.008)),
        light=float(dice.choice((-1, 1)) * dice.uniform(0.5, 1)),
        yaw=spread(0.0, 0.42),
        face_width=spread(1.0, 0.05),
        face_length=spread(1.0, 0.04),
        jaw=float(dice.uniform(0.12, 0.5)),
        eye_size=spread(1.0, 0.09),
        eye_open=float(dice.uniform(0.72, 1.18)),
        eye_gap=spread(1.0, 0.05),
        eye_slant=spread(0.05, 0.07),
        gaze=float(dice.uniform(-1, 1)),
        brow_height=spread(1.0, 0.12),
        brow_angle=spread(0.0, 0.1),
        brow_width=float(dice.uniform(0.65, 1.35)),
        nose_width=spread(1.0, 0.14),
        nose_length=spread(1.0, 0.08),
        mouth_width=spread(1.0, 0.1),
        smile=float(np.clip(spread(0.4, 0.42), -0.7, 1)),
        lip_size=spread(1.0, 0.2),
        ear_size=spread(1.0, 0.12),
        hair_volume=spread(1.0, 0.06),
        part_side=float(dice.choice((-1, 1)) * dice.uniform(0.3, 1)),
        strand_phase=float(dice.uniform(0, 2 * np.pi)),
        blush=float(dice.uniform(0, 0.4)),
        freckles=int(dice.choice((0, 12), p=(0.85, 0.15))),
    )
