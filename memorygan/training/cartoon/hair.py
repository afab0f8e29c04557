"""Hair of the drawn faces."""

from __future__ import annotations

import numpy as np

from memorygan.parts import FACE_PARTS
from memorygan.training.cartoon.canvas import Canvas, ellipse, mirrored, smooth
from memorygan.training.cartoon.traits import FaceTraits

_HAIR = FACE_PARTS.index("hair")
_LONG = ("bob", "long", "wavy")


def draw_back_hair(canvas: Canvas, traits: FaceTraits) -> None:
    """The hair behind the head and shoulders."""
    volume, style = traits.hair_volume, traits.hair_style
    outlines: list[np.ndarray] = []
    if style in _LONG:
        end = {"bob": 0.27, "long": 0.62, "wavy": 0.56}[style]
        width = {"bob": 0.3, "long": 0.29, "wavy": 0.33}[style] * volume
        wave = 0.025 if style == "wavy" else 0.0
        left = [(-width * 0.86, -0.22), (-width * 0.98, -0.05), (-width - wave, 0.08), (-width + wave, 0.2),
                (-width - wave, end * 0.8), (-width * 0.94, end), (-width * 0.7, end + 0.02),
                (-width * 0.2, end + 0.02)]  # fmt: skip
        outlines.append(smooth([(0, -0.36 * volume), *left, *[(-x, y) for x, y in reversed(left)]]))
    elif style == "bun":
        outlines.append(ellipse(0.02 * traits.part_side, -0.36, 0.1 * volume, 0.09 * volume))
    elif style == "ponytail":
        side = np.sign(traits.part_side)
        tail = smooth([(0.1, -0.3), (0.26, -0.3), (0.35, -0.1), (0.33, 0.16), (0.26, 0.3), (0.25, 0.05), (0.2, -0.12)])
        outlines.append(tail if side > 0 else mirrored(tail))
    elif style == "curly":
        outlines += [
            ellipse(0.27 * volume * np.cos(a), -0.09 + 0.25 * volume * np.sin(a), 0.085, 0.085, points=20)
            for a in np.linspace(np.pi * 0.82, np.pi * 2.18, 13) + 0.1 * np.sin(traits.strand_phase)
        ]
    if outlines:
        _paint_hair(canvas, traits, canvas.region(*outlines), 0.82)


def draw_front_hair(canvas: Canvas, traits: FaceTraits, face: np.ndarray) -> None:
    """The hair over the head, with its hairline and fringe.

    Args:
        canvas: painted up to the face.
        traits: what it looks like.
        face: (S, S) bool, the region of the face.
    """
    style, volume = traits.hair_style, traits.hair_volume
    if style == "bald":
        return
    x, y = canvas.coordinates()
    grow = {"buzz": 0.9, "short": 1.0, "quiff": 1.02, "bowl": 1.05, "curly": 1.04}.get(style, 1.0)
    cap = canvas.region(ellipse(0, -0.055, 0.258 * grow * volume * traits.face_width, 0.3 * grow * volume, points=72))
    if style == "quiff":
        top = smooth([(-0.2, -0.2), (-0.18, -0.36), (0.0, -0.42), (0.2, -0.4), (0.24, -0.26), (0.1, -0.18)])
        cap |= canvas.region(top if traits.part_side > 0 else mirrored(top))
    elif style == "curly":
        cap |= canvas.region(*[
            ellipse(0.2 * np.cos(a), -0.14 + 0.17 * np.sin(a), 0.075, 0.075, points=20)
            for a in np.linspace(np.pi * 0.9, np.pi * 2.1, 11)
        ])  # fmt: skip
    sides = {
        "buzz": -0.02,
        "short": 0.0,
        "quiff": -0.03,
        "bowl": 0.035,
        "curly": 0.05,
        "bun": -0.01,
        "ponytail": 0.0,
    }.get(style, 0.6)
    hair = cap & (y < sides) & ~(_opening(traits, x, y) & (face | (y > -0.05)))
    if style in _LONG:
        hair |= _side_locks(canvas, traits) & ~(_opening(traits, x, y) & (y < 0.3))
    _paint_hair(canvas, traits, hair, 0.8 if style == "buzz" else 1.0)


def _opening(traits: FaceTraits, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the face shows below the hairline, (S, S) bool."""
    style, side = traits.hair_style, float(np.sign(traits.part_side))
    width = 0.2 * traits.face_width
    line = np.full_like(x, -0.175) + 0.9 * x**2  # sinks slightly towards the temples
    fringe = "full" if style == "bowl" else "none" if style in ("buzz", "quiff") else traits.fringe
    if fringe == "full":
        line = -0.115 + 0.012 * np.sin(70 * x + traits.strand_phase)
    elif fringe == "side":
        line = -0.16 + 0.28 * np.clip(side * x + 0.06, -0.1, 0.2) - 0.35 * np.clip(-side * x - 0.05, 0, 0.1)
    elif fringe == "curtain":
        line = -0.2 + 0.62 * np.abs(x - 0.03 * side)
    elif style == "curly":
        line = -0.155 + 0.014 * np.cos(38 * x + traits.strand_phase)
    # The sides of the opening lean in at the top, where the hairline meets the temples.
    lean = width * (1.02 - 0.9 * np.clip(-0.08 - y, 0, 1))
    return (y > line) & (np.abs(x) < lean)


def _side_locks(canvas: Canvas, traits: FaceTraits) -> np.ndarray:
    style, volume = traits.hair_style, traits.hair_volume
    inner, outer = 0.19 * traits.face_width, 0.285 * volume
    end = {"bob": 0.24, "long": 0.6, "wavy": 0.52}[style]
    sway = 0.02 if style == "wavy" else 0.004
    flare = 0.03 if style in ("long", "wavy") else 0.0
    lock = smooth([(outer * 0.8, -0.24), (outer, -0.08), (outer + sway, 0.08),
                   (outer + 0.01 - sway + flare, end * 0.6 + 0.03), (outer - 0.005 + flare, end),
                   (outer - 0.035 + flare, end + 0.025), (inner + 0.045 - 3 * flare, end + 0.025),
                   (inner + 0.02 - 3 * flare, end), (inner + 0.02 + sway - flare, end * 0.6),
                   (inner + 0.005 - sway, 0.06), (inner, -0.1)])  # fmt: skip
    return canvas.region(lock, mirrored(lock))


def _paint_hair(canvas: Canvas, traits: FaceTraits, region: np.ndarray, brightness: float) -> None:
    x, y = canvas.coordinates()
    if traits.hair_style == "curly":
        strands = np.sin(60 * x + traits.strand_phase) * np.sin(60 * y + 2 * traits.strand_phase)
    else:
        # Strands run down from the crown and hang beside the face.
        around = np.where(y < 0, np.arctan2(x, 0.3 - y) * 40, np.arctan2(x, 0.3) * 40)
        strands = np.sin(around + traits.strand_phase) * 0.7 + 0.3 * np.sin(2.3 * around)
    gloss = np.exp(-(((np.hypot(x + 0.06 * -traits.light, y + 0.05) - 0.22) / 0.035) ** 2)) * (y < -0.08)
    shade = brightness * (1 + 0.09 * strands + 0.16 * gloss)
    canvas.paint(region, traits.hair, _HAIR, round_off=0.3, softness=0.03, shade=shade)
