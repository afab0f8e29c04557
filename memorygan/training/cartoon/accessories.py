"""Glasses, earrings and hats of the drawn faces."""

from __future__ import annotations

import numpy as np

from memorygan.parts import FACE_PARTS
from memorygan.training.cartoon.canvas import Canvas, Color, darker, ellipse, smooth
from memorygan.training.cartoon.traits import EYE_X, EYE_Y, FaceTraits

_EYEGLASS, _EARRING, _HAT = (FACE_PARTS.index(name) for name in ("eyeglass", "earring", "hat"))


def _lens_outlines(traits: FaceTraits) -> list[np.ndarray]:
    outlines = []
    for side in (-1, 1):
        x = side * (EYE_X + 0.002) * traits.eye_gap + traits.aside(0.9)
        if traits.glasses == "round":
            outlines.append(ellipse(x, EYE_Y + 0.008, 0.083, 0.078))
        else:
            lens = smooth([(-0.085, -0.05), (0, -0.058), (0.085, -0.05), (0.084, 0.03), (0.05, 0.066), (-0.05, 0.066),
                           (-0.084, 0.03)])  # fmt: skip
            outlines.append(lens + (x, EYE_Y + 0.006))
    return outlines


def draw_lenses(canvas: Canvas, traits: FaceTraits) -> None:
    """The tinted lenses, to be painted before the eyes, which stay visible through them."""
    if traits.glasses == "none":
        return
    for lens in _lens_outlines(traits):
        canvas.paint(canvas.region(lens), (232, 242, 250), _EYEGLASS, opacity=0.22)


def draw_frames(canvas: Canvas, traits: FaceTraits) -> None:
    """The frames of the glasses, over eyes and eyebrows."""
    if traits.glasses == "none":
        return
    left, right = _lens_outlines(traits)
    color = darker(traits.accessory, 0.55)
    closed = [np.concatenate([lens, lens[:1]]) for lens in (left, right)]
    bridge = np.array([(left[:, 0].max(), EYE_Y - 0.01), (right[:, 0].min(), EYE_Y - 0.01)])
    edge = 0.235 * traits.face_width
    arms = []
    for side, hinge in ((-1, left[:, 0].min()), (1, right[:, 0].max())):
        arms.append(np.array([(hinge, EYE_Y - 0.015), (side * edge - traits.aside(0.3), EYE_Y - 0.005)]))
    for line in (*closed, bridge, *arms):
        canvas.paint(canvas.stroke(line, 0.016), color, _EYEGLASS)


def draw_earrings(canvas: Canvas, traits: FaceTraits) -> None:
    """Earrings, if the face wears any."""
    if traits.earring == "none":
        return
    gold: Color = (236, 196, 84) if traits.accessory[0] > traits.accessory[2] else (214, 218, 226)
    for side in (-1, 1):
        x = side * 0.234 * traits.face_width - traits.aside(0.4)
        y = 0.025 + 0.07 * traits.ear_size
        if traits.earring == "stud":
            region = canvas.region(ellipse(x, y, 0.018, 0.018))
        elif traits.earring == "hoop":
            ring = ellipse(x, y + 0.036, 0.03, 0.038)
            region = canvas.stroke(np.concatenate([ring, ring[:1]]), 0.015)
        else:
            drop = smooth([(x, y - 0.01), (x + 0.021, y + 0.05), (x, y + 0.075), (x - 0.021, y + 0.05)])
            region = canvas.region(drop)
        canvas.paint(region, gold, _EARRING, round_off=0.25, softness=0.01)


def draw_hat(canvas: Canvas, traits: FaceTraits) -> None:
    """A hat over the hair, if the face wears one."""
    if traits.hat == "none":
        return
    x, y = canvas.coordinates()
    half = 0.275 * traits.face_width * traits.hair_volume
    dark = (traits.cloth_accent[0] * 0.72, traits.cloth_accent[1] * 0.72, traits.cloth_accent[2] * 0.72)
    crown = canvas.region(ellipse(0, -0.13, half, 0.29, points=72)) & (y < -0.15 + 0.25 * x**2)
    if traits.hat == "beanie":
        ribs = 1 + 0.08 * np.sin(x * 90)
        canvas.paint(crown, traits.cloth_accent, _HAT, round_off=0.3, softness=0.035, shade=ribs)
        edge = half + 0.012
        band = smooth([(-edge, -0.225), (0, -0.25), (edge, -0.225), (edge, -0.145), (0, -0.165), (-edge, -0.145)])
        canvas.paint(canvas.region(band), dark, _HAT, round_off=0.25, softness=0.02, shade=ribs)
        canvas.paint(canvas.region(ellipse(0, -0.425, 0.05, 0.045)), dark, _HAT, round_off=0.3, softness=0.02)
        return
    canvas.paint(crown, traits.cloth_accent, _HAT, round_off=0.3, softness=0.035)
    if traits.hat == "cap":
        visor = smooth([(-0.22, -0.17), (0, -0.205), (0.22, -0.17), (0.25, -0.12), (0, -0.15), (-0.25, -0.12)])
        canvas.paint(canvas.region(visor), dark, _HAT, round_off=0.25, softness=0.02)
        return
    canvas.paint(crown & (y > -0.235), dark)
    brim = canvas.region(ellipse(0, -0.165, half + 0.14, 0.05, points=72))
    canvas.paint(brim, traits.cloth_accent, _HAT, round_off=0.3, softness=0.02, shade=0.92)
