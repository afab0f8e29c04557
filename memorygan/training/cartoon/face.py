"""Drawing one face, back to front; every layer paints the picture and its part id together."""

from __future__ import annotations

import numpy as np
from PIL import Image

from memorygan.parts import FACE_PARTS
from memorygan.training.cartoon.accessories import draw_earrings, draw_frames, draw_hat, draw_lenses
from memorygan.training.cartoon.canvas import Canvas, darker, ellipse, mirrored, smooth
from memorygan.training.cartoon.hair import draw_back_hair, draw_front_hair
from memorygan.training.cartoon.traits import EYE_X, EYE_Y, FaceTraits

_ID = {name: index for index, name in enumerate(FACE_PARTS.names)}
_MOUTH_Y = 0.215


def draw_face(traits: FaceTraits, size: int) -> tuple[Image.Image, np.ndarray]:
    """Draw a face without antialiasing; sample it down for smooth borders.

    Args:
        traits: what it looks like.
        size: side in pixels, at least 64 for all parts to show.

    Returns:
        RGB picture of ``size`` × ``size`` and its (size, size) uint8 part ids.
    """
    canvas = Canvas(size, traits.scale, traits.tilt, traits.shift, traits.light)
    _backdrop(canvas, traits)
    draw_back_hair(canvas, traits)
    _neck_and_cloth(canvas, traits)
    _ears(canvas, traits)
    face = _face(canvas, traits)
    _beard(canvas, traits, face)
    _nose(canvas, traits)
    _mouth(canvas, traits)
    draw_lenses(canvas, traits)
    _eyes(canvas, traits)
    _brows(canvas, traits)
    draw_frames(canvas, traits)
    draw_front_hair(canvas, traits, face)
    draw_hat(canvas, traits)
    draw_earrings(canvas, traits)
    return canvas.picture(), canvas.ids


def face_outline(traits: FaceTraits) -> np.ndarray:
    """Outline of the face, forehead to chin, (N, 2)."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    x, y = 0.232 * traits.face_width * np.cos(angle), np.sin(angle)
    below = np.clip(y, 0, 1)
    x = x * (1 - traits.jaw * below**3) * (1 + 0.05 * below * (1 - below))
    y = np.where(y > 0, y * 0.31 * traits.face_length, y * 0.29)
    return np.stack([x, y + 0.055], axis=1)


def _backdrop(canvas: Canvas, traits: FaceTraits) -> None:
    x, y = canvas.coordinates()
    everywhere = np.ones(canvas.ids.shape, dtype=bool)
    canvas.paint(everywhere, traits.backdrop, _ID["background"])
    accent = traits.backdrop_accent
    if traits.backdrop_style == "gradient":
        canvas.glow(np.clip(y + 0.5 + 0.3 * x * traits.light, 0, 1) * 0.8, accent)
    elif traits.backdrop_style == "disc":
        canvas.paint(canvas.region(ellipse(0, -0.02, 0.44, 0.44)), accent)
    elif traits.backdrop_style == "stripes":
        canvas.paint(np.sin(14 * (x + 0.6 * y) + traits.strand_phase) > 0, accent, opacity=0.45)
    elif traits.backdrop_style == "bokeh":
        for i in range(6):
            angle = traits.strand_phase + i * 2.4
            spot = ellipse(0.46 * np.cos(angle), 0.44 * np.sin(angle), 0.1 + 0.02 * i, 0.1 + 0.02 * i)
            canvas.glow(0.5 * canvas.soft(spot, 0.01), accent)


def _neck_and_cloth(canvas: Canvas, traits: FaceTraits) -> None:
    width = 0.118 * traits.face_width
    neck = smooth([(-width, 0.2), (-width, 0.36), (-width - 0.05, 0.44), (-0.24, 0.62), (0.24, 0.62),
                   (width + 0.05, 0.44), (width, 0.36), (width, 0.2)])  # fmt: skip
    region = canvas.region(neck)
    canvas.paint(region, darker(traits.skin, 0.93), _ID["neck"], round_off=0.2)
    chin = canvas.soft(ellipse(traits.aside(0.5), 0.31 * traits.face_length, 0.17, 0.1), 0.025)
    canvas.glow(np.where(region, 0.5 * chin, 0), darker(traits.skin, 0.6))

    collar = {"vneck": 0.55, "turtleneck": 0.345}.get(traits.clothing, 0.45)
    side = 0.13 if traits.clothing == "turtleneck" else 0.155
    slope = (collar + 0.4) / 2 + 0.01
    shoulders = smooth([(-0.7, 0.75), (-0.52, 0.49), (-0.3, 0.425), (-side, 0.39), (-side * 0.55, slope), (0, collar),
                        (side * 0.55, slope), (side, 0.39), (0.3, 0.425), (0.52, 0.49), (0.7, 0.75)])  # fmt: skip
    if traits.clothing == "turtleneck":
        shoulders = smooth([(-0.7, 0.75), (-0.5, 0.49), (-0.26, 0.43), (-side, 0.38), (-side, 0.345), (0, 0.365),
                            (side, 0.345), (side, 0.38), (0.26, 0.43), (0.5, 0.49), (0.7, 0.75)])  # fmt: skip
    body = canvas.region(shoulders)
    canvas.paint(body, traits.cloth, _ID["cloth"], round_off=0.3, softness=0.035)
    _, y = canvas.coordinates()
    if traits.clothing == "stripes":
        canvas.paint(body & (np.sin(y * 130) > 0), traits.cloth_accent, opacity=0.8)
    elif traits.clothing == "shirt":
        flap = np.array([(-0.16, 0.375), (-0.02, 0.47), (-0.1, 0.53), (-0.2, 0.42)])
        flaps = canvas.region(flap, mirrored(flap))
        canvas.paint(flaps, traits.cloth_accent, _ID["cloth"], round_off=0.25, softness=0.012)
    elif traits.clothing in ("crew", "vneck"):
        hem = canvas.region(shoulders + (0, 0.018))
        x, _ = canvas.coordinates()
        canvas.paint(body & ~hem & (np.abs(x) < 0.19), darker(traits.cloth, 0.75))


def _ears(canvas: Canvas, traits: FaceTraits) -> None:
    for side in (-1, 1):
        x = side * 0.228 * traits.face_width - traits.aside(0.4)
        size = traits.ear_size * (1 + 0.25 * side * -traits.yaw)
        ear = canvas.region(ellipse(x, 0.025, 0.042 * size, 0.072 * traits.ear_size, side * 0.2))
        canvas.paint(ear, darker(traits.skin, 0.92), _ID["ears"], round_off=0.25, softness=0.015)
        inner = canvas.region(ellipse(x + side * 0.006, 0.022, 0.021 * size, 0.045 * traits.ear_size, side * 0.2))
        canvas.paint(inner, darker(traits.skin, 0.74), opacity=0.7)


def _face(canvas: Canvas, traits: FaceTraits) -> np.ndarray:
    region = canvas.region(face_outline(traits))
    canvas.paint(region, traits.skin, _ID["skin"], round_off=0.24, softness=0.05)
    blush = (min(255.0, traits.skin[0] * 1.02), traits.skin[1] * 0.72, traits.skin[2] * 0.7)
    for side in (-1, 1):
        cheek = canvas.soft(ellipse(side * 0.135 + traits.aside(0.7), 0.115, 0.055, 0.042), 0.022)
        canvas.glow(np.where(region, traits.blush * cheek, 0), blush)
    for i in range(traits.freckles):
        spot = (0.1 + 0.07 * np.cos(i * 2.4)) * (1 if i % 2 else -1) + traits.aside(0.7)
        dot = canvas.region(ellipse(spot, 0.09 + 0.03 * np.sin(i * 1.7), 0.006, 0.006, points=8))
        canvas.paint(dot & region, darker(traits.skin, 0.72), opacity=0.7)
    return region


def _beard(canvas: Canvas, traits: FaceTraits, face: np.ndarray) -> None:
    # A beard grows on the skin and is annotated as skin.
    x, y = canvas.coordinates()
    aside = traits.aside(0.8)
    color = darker(traits.hair, 0.95)
    moustache = canvas.region(smooth([(-0.09 + aside, 0.2), (-0.04 + aside, 0.15), (aside, 0.145), (0.04 + aside, 0.15),
                                      (0.09 + aside, 0.2), (0.03 + aside, 0.185), (aside, 0.18),
                                      (-0.03 + aside, 0.185)]))  # fmt: skip
    if traits.beard == "full":
        line = 0.05 + 0.16 * np.clip(1 - (np.abs(x) / (0.2 * traits.face_width)) ** 4, 0, 1)
        canvas.paint(face & (y > line), color, opacity=0.86, round_off=0.2)
    elif traits.beard == "goatee":
        chin = canvas.region(ellipse(aside, 0.3, 0.085, 0.085))
        canvas.paint(face & chin, color, opacity=0.86, round_off=0.2)
    if traits.beard != "none":
        canvas.paint(face & moustache, color, opacity=0.9)


def _nose(canvas: Canvas, traits: FaceTraits) -> None:
    x, width = traits.aside(1.3), 0.05 * traits.nose_width
    tip = 0.115 * traits.nose_length + 0.012
    root = x * 0.55
    outline = smooth([(root - 0.016, -0.035), (root + 0.016, -0.035), (x + 0.022, 0.045), (x + width, tip - 0.022),
                      (x + width * 0.72, tip + 0.014), (x, tip + 0.026), (x - width * 0.72, tip + 0.014),
                      (x - width, tip - 0.022), (x - 0.022, 0.045)])  # fmt: skip
    nose = canvas.region(outline)
    xs, _ = canvas.coordinates()
    tilt = 1 + 0.11 * np.clip((xs - x) / 0.03, -1, 1) * traits.light
    warm = (traits.skin[0] * 0.985, traits.skin[1] * 0.93, traits.skin[2] * 0.9)
    canvas.paint(nose, warm, _ID["nose"], shade=tilt)
    shine = canvas.soft(ellipse(x + 0.012 * traits.light, tip - 0.02, 0.014, 0.014), 0.008)
    canvas.glow(np.where(nose, 0.35 * shine, 0), (255, 250, 244))
    for side in (-1, 1):
        nostril = canvas.region(ellipse(x + side * width * 0.48, tip + 0.01, 0.013, 0.008, side * 0.3))
        canvas.paint(nostril & nose, darker(traits.skin, 0.45))


def _mouth(canvas: Canvas, traits: FaceTraits) -> None:
    x, half = traits.aside(0.9), 0.082 * traits.mouth_width
    lift, lip = 0.03 * traits.smile, 0.021 * traits.lip_size
    gap = {"closed": 0.0, "grin": 0.02, "open": 0.042, "round": 0.05}[traits.mouth]
    if traits.mouth == "round":
        half *= 0.6
    y = _MOUTH_Y - gap * 0.3
    corner = y - lift
    upper = smooth([(x - half, corner), (x - half * 0.4, y - lip), (x, y - lip * 0.72), (x + half * 0.4, y - lip),
                    (x + half, corner)], closed=False)  # fmt: skip
    middle = smooth([(x + half, corner), (x, y + lift * 0.55), (x - half, corner)], closed=False)
    low = y + gap + lip + lift * 0.5
    under = smooth([(x + half, corner), (x + half * 0.45, low), (x, y + gap + lip * 1.3 + lift * 0.7),
                    (x - half * 0.45, low), (x - half, corner)], closed=False)  # fmt: skip
    lips = canvas.region(np.concatenate([upper, under]))
    canvas.paint(lips, traits.lips, _ID["mouth"], round_off=0.16, softness=0.01)
    top_lip = canvas.region(np.concatenate([upper, middle]))
    canvas.paint(top_lip & lips, darker(traits.lips, 0.85))
    if gap == 0.0:
        canvas.paint(canvas.stroke(middle, 0.008) & lips, darker(traits.lips, 0.5))
        return
    left, right = (x - half * 0.86, corner + 0.006), (x + half * 0.86, corner + 0.006)
    inner_top = smooth([left, (x, y + lift * 0.4 - lip * 0.1), right], closed=False)
    inner_low = smooth([right, (x, y + gap + lip * 0.35 + lift * 0.7), left], closed=False)
    opening = canvas.region(np.concatenate([inner_top, inner_low])) & lips
    canvas.paint(opening, (84, 24, 32))
    if traits.mouth != "round":
        below_teeth = canvas.region(np.concatenate([inner_top, inner_low]) + (0, gap * 0.5))
        canvas.paint(opening if traits.mouth == "grin" else opening & ~below_teeth, (246, 242, 234))
    if traits.mouth in ("open", "round"):
        tongue = canvas.region(ellipse(x, y + gap + lift * 0.7, half * 0.5, gap * 0.5))
        canvas.paint(tongue & opening, (204, 86, 96))


def _eye_outline(traits: FaceTraits, side: int) -> tuple[float, np.ndarray]:
    """Centre x and outline of one eye; the one turned away is narrower."""
    near = 1 - 0.14 * side * traits.yaw
    x = side * EYE_X * traits.eye_gap * (1 - 0.05 * side * traits.yaw) + traits.aside(0.8)
    rx, ry = 0.05 * traits.eye_size * near, 0.025 * traits.eye_size * traits.eye_open
    slant = side * -traits.eye_slant
    outline = smooth([(-rx, 0.004), (-rx * 0.5, -ry * 0.85), (rx * 0.1, -ry * 1.05), (rx * 0.65, -ry * 0.7), (rx, 0.0),
                      (rx * 0.5, ry * 0.75), (-rx * 0.3, ry * 0.85)])  # fmt: skip
    if side < 0:
        outline = mirrored(outline)
    turn = np.array([[np.cos(slant), np.sin(slant)], [-np.sin(slant), np.cos(slant)]])
    return x, outline @ turn + (x, EYE_Y)


def _eyes(canvas: Canvas, traits: FaceTraits) -> None:
    for side in (-1, 1):
        x, outline = _eye_outline(traits, side)
        eye = canvas.region(outline)
        lid = canvas.region(outline * (1.12, 1.0) - (0.12 * x, 0.012)) & ~eye & (canvas.ids == _ID["skin"])
        canvas.paint(lid, darker(traits.skin, 0.8))
        canvas.paint(eye, (250, 248, 244), _ID["eyes"], round_off=0.3, softness=0.012)
        center = x + 0.01 * traits.gaze + 0.008 * traits.yaw
        radius = 0.0245 * traits.eye_size
        canvas.paint(canvas.region(ellipse(center, EYE_Y - 0.002, radius, radius)) & eye, traits.iris)
        canvas.paint(canvas.region(ellipse(center, EYE_Y - 0.002, radius * 0.5, radius * 0.5)) & eye, (16, 12, 14))
        glint = ellipse(center + 0.009 * traits.light, EYE_Y - 0.011, 0.0075, 0.0075, points=12)
        canvas.paint(canvas.region(glint) & eye, (255, 255, 255))
        lash = canvas.stroke(outline[:40], 0.011)
        canvas.paint(lash, (38, 26, 26), _ID["eyes"])


def _brows(canvas: Canvas, traits: FaceTraits) -> None:
    color = darker(traits.hair, 0.8)
    if sum(color) > 430:  # fair hair over fair skin would leave no brow to see
        color = darker(color, 0.72)
    for side in (-1, 1):
        x = side * (EYE_X + 0.004) * traits.eye_gap + traits.aside(0.8)
        y = EYE_Y - 0.066 * traits.brow_height
        half = 0.062 * (1 - 0.12 * side * traits.yaw)
        thick = 0.0115 * traits.brow_width
        rise = 0.05 * traits.brow_angle
        brow = smooth([(-half, -rise - thick * 0.4), (-half * 0.2, -0.008 - thick), (half * 0.5, -0.01 - thick),
                       (half, 0.012 + rise), (half * 0.5, -0.006 + thick * 0.4), (-half * 0.2, -0.002 + thick),
                       (-half, -rise + thick * 1.2)])  # fmt: skip
        canvas.paint(canvas.region((brow if side > 0 else mirrored(brow)) + (x, y)), color, _ID["eyebrows"])
