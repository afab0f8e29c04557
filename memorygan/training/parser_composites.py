"""What few photos show, drawn into them: glasses, closed eyes, surgical masks, white beards, things before the face.

Each function takes a face (S, S, 3) uint8 RGB and its part ids (S, S) uint8, and returns new ones; it returns the face
as it came where it does not apply. Labels follow CelebAMask-HQ: the lenses of glasses are glasses but for the eyes seen
through them, a beard is skin, and what is no part (a hand, a microphone) is background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from memorygan.parts import FACE_PARTS

IGNORE = 255  # mask id of pixels that do not count

Face = tuple[np.ndarray, np.ndarray]
Composite = Callable[[np.ndarray, np.ndarray, np.random.Generator], Face]

_OVERSAMPLE = 4  # frames thinner than a pixel need it
_ID = {name: FACE_PARTS.index(name) for name in FACE_PARTS.names}


def _eye_boxes(ids: np.ndarray) -> list[tuple[float, float, float, float]] | None:
    """(x, y, width, height) of the left and right eye in the picture, or None where two are not seen."""
    rows, columns = np.nonzero(ids == _ID["eyes"])
    if len(rows) < 30:
        return None
    middle = (columns.min() + columns.max()) / 2
    boxes = []
    for side in (columns < middle, columns >= middle):
        if side.sum() < 12:
            return None
        x, y = columns[side], rows[side]
        boxes.append((x.mean(), y.mean(), float(np.ptp(x)) + 1, float(np.ptp(y)) + 1))
    if boxes[1][0] - boxes[0][0] < 0.12 * len(ids):
        return None
    return boxes


def _noise(size: int, cells: int, rng: np.random.Generator, across: int = 0) -> np.ndarray:
    """Smooth noise (size, size) of about [-1, 1], from ``cells`` rows of as many random values, or ``across`` many."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, across or cells)).astype(np.float32))
    return np.array(coarse.resize((size, size), Image.Resampling.BICUBIC))


def _soft(area: np.ndarray, radius: float) -> np.ndarray:
    """An area (S, S) as (S, S) float32 in [0, 1] with its border blurred."""
    picture = Image.fromarray(area.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(picture, np.float32) / 255


def _blend(image: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A picture under a colour (3,) or picture (S, S, 3), as far as ``alpha`` (S, S) says."""
    alpha = alpha[..., None]
    return np.clip(image * (1 - alpha) + np.asarray(colour, np.float32) * alpha + 0.5, 0, 255).astype(np.uint8)


def _light(image: np.ndarray, face: np.ndarray, radius: float) -> np.ndarray:
    """(S, S) how bright it is, in means over the face (S, S)."""
    light = np.asarray(Image.fromarray(image).convert("L").filter(ImageFilter.GaussianBlur(radius)), np.float32)
    return light / max(float(light[face].mean()), 1.0)


def _lens_outline(width: float, height: float, power: float) -> np.ndarray:
    """(N, 2) of a superellipse: round for power 2, square for large ones."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    u = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / power) * width / 2
    v = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / power) * height / 2
    return np.stack((u * (1 - 0.12 * v / height), v), axis=1)  # wider at the top, as most frames are


def glasses(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> Face:
    """Draw glasses over the eyes: thin to thick frames, clear to tinted, mirrored or black lenses."""
    boxes = _eye_boxes(ids)
    if boxes is None or (ids == _ID["eyeglass"]).any():
        return image, ids
    size, scale = len(ids), _OVERSAMPLE
    (x0, y0, *_), (x1, y1, *_) = boxes
    apart = float(np.hypot(x1 - x0, y1 - y0))
    tilt = float(np.arctan2(y1 - y0, x1 - x0))
    width = apart * rng.uniform(0.66, 0.92)
    height = width * rng.uniform(0.5, 0.95)
    power, drop = rng.choice([2.0, 2.6, 4.0]), rng.uniform(-0.02, 0.16) * height
    rimless = rng.random() < 0.15
    # Thinner and fainter frames, which nobody sees in a blurred photo, teach to find glasses on every face.
    line = (
        rng.choice([rng.uniform(0.9, 1.6), rng.uniform(1.5, 3.0), rng.uniform(3.0, 6.0)], p=[0.5, 0.3, 0.2])
        * size
        / 256
    )
    frame, lens = (Image.new("L", (size * scale, size * scale)) for _ in range(2))
    pen_frame, pen_lens = ImageDraw.Draw(frame), ImageDraw.Draw(lens)
    stroke = max(1, round(line * scale))
    cos, sin = np.cos(tilt), np.sin(tilt)

    def placed(x: float, y: float, *points: Sequence[float]) -> np.ndarray:
        return np.array((x, y)) + np.array(points) @ np.array(((cos, sin), (-sin, cos)))

    def flat(points: np.ndarray) -> list[float]:
        return (points * scale).flatten().tolist()

    outline = _lens_outline(width, height, power)
    for x, y in ((x0, y0), (x1, y1)):
        lens_outline = placed(x, y + drop, *outline, outline[0])
        pen_lens.polygon(flat(lens_outline[:-1]), fill=255)
        pen_frame.line(flat(lens_outline), fill=150 if rimless else 255, width=stroke, joint="curve")
    up = drop - height * rng.uniform(0.1, 0.3)
    left, right = placed(x0, y0, (width / 2, up)), placed(x1, y1, (-width / 2, up))
    bridge = np.concatenate((left, placed((x0 + x1) / 2, (y0 + y1) / 2, (0, up - 2)), right))
    pen_frame.line(flat(bridge), fill=255, width=stroke)
    for x, y, side in ((x0, y0, -1), (x1, y1, 1)):  # temples, as far as the face goes
        row = ids[int(np.clip(y, 0, size - 1))]
        face = np.nonzero(np.isin(row, (_ID["skin"], _ID["ears"])))[0]
        (hinge,) = placed(x, y, (side * width / 2, up))
        if len(face):
            end = float(face.min() if side < 0 else face.max())
            if (end - hinge[0]) * side > 0:
                temple = np.array((hinge, (end, hinge[1] + rng.uniform(-3, 4))))
                pen_frame.line(flat(temple), fill=255, width=stroke)
    frame_alpha, lens_alpha = (
        np.asarray(layer.resize((size, size), Image.Resampling.BOX), np.float32) / 255 for layer in (frame, lens)
    )
    visible = np.isin(ids, [_ID[n] for n in ("skin", "eyes", "eyebrows", "nose", "ears")])
    frame_alpha, lens_alpha = frame_alpha * visible, lens_alpha * visible
    kind = rng.choice(["clear", "tinted", "dark"], p=[0.6, 0.12, 0.28])
    tint = rng.uniform(0, 70, 3) if kind == "dark" else rng.uniform(20, 200, 3)
    strength = {"clear": rng.uniform(0, 0.08), "tinted": rng.uniform(0.15, 0.4), "dark": rng.uniform(0.75, 1.0)}[kind]
    out = image
    if kind == "clear" and rng.random() < 0.5:  # lenses shift and soften what lies behind them
        soft = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.6)), np.float32)
        out = _blend(out, soft, lens_alpha * 0.7)
    out = _blend(out, tint, lens_alpha * strength)
    if rng.random() < 0.5:  # reflections
        glare = np.clip(_noise(size, int(rng.integers(4, 12)), rng) - rng.uniform(0.1, 0.6), 0, 1)
        glare = glare * rng.uniform(0.3, 1.2)
        out = _blend(out, rng.uniform(170, 255, 3), np.clip(glare * lens_alpha, 0, 0.9))
    shine = 1 + 0.35 * _noise(size, 10, rng)[..., None]
    colour = rng.uniform(0, 60, 3) if rng.random() < 0.6 else rng.uniform(30, 225, 3)
    out = _blend(out, np.clip(colour * shine, 0, 255), frame_alpha * rng.uniform(0.75, 1.0))
    covered = (lens_alpha > 0.5) | (frame_alpha > 0.4)
    seen = (ids == _ID["eyes"]) & (strength < 0.6) & (frame_alpha < 0.4)
    return out, np.where(covered & ~seen, np.uint8(_ID["eyeglass"]), ids)


def closed_eyes(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> Face:
    """Close both eyes or one, or nearly: press them flat and draw the upper lid over the rest."""
    boxes = _eye_boxes(ids)
    if boxes is None or (ids == _ID["eyeglass"]).any():
        return image, ids
    size = len(ids)
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    source = ys.copy()
    keep = rng.uniform(0.1, 0.35)  # aperture left
    winks = rng.random() < 0.1
    for x, y, width, height in boxes[: 1 if winks else 2] if rng.random() < 0.5 else boxes[-1 if winks else 0 :]:
        half = max(height / 2, 0.012 * size) * 1.15
        reach = 2.6 * half
        line = y + half * rng.uniform(0.25, 0.7)  # where the lids meet, below the middle of the open eye
        # In the new picture the eye takes keep × half about the line; lid and cheek are stretched to meet it.
        side = np.clip(1.6 - np.abs(xs - x) / (0.62 * width), 0, 1)
        d = ys - line
        top, bottom = -(reach + line - y), reach - (line - y)
        low, high = -half - (line - y), half - (line - y)
        old = np.interp(d, [top, keep * low, keep * high, bottom], [top, low, high, bottom]).astype(np.float32)
        inside = (d > top) & (d < bottom)
        source = np.where(inside, source + side * (old - d), source)
    rows = np.clip(source, 0, size - 1)
    below = np.floor(rows).astype(int)
    above = np.minimum(below + 1, size - 1)
    share = (rows - below)[..., None]
    columns = xs.astype(int)
    moved = image[below, columns] * (1 - share) + image[above, columns] * share
    new_ids = ids[np.rint(rows).astype(int), columns]
    eyes = new_ids == _ID["eyes"]
    # The line of the lashes is what is left of an eye: dark, soft, at least three pixels high.
    grown = np.asarray(Image.fromarray(eyes.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(3))) > 0
    lashes = _soft(eyes, 0.8)
    skin = image[(ids == _ID["skin"])]
    tone = skin.mean(axis=0) if len(skin) else np.full(3, 120.0)
    dark = tone * rng.uniform(0.15, 0.6)
    out = _blend(moved.astype(np.float32), dark, np.clip(lashes * rng.uniform(0.7, 1.1), 0, 1))
    return out, np.where(grown & (new_ids == _ID["skin"]), np.uint8(_ID["eyes"]), new_ids)


def surgical_mask(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> Face:
    """Cover nose, mouth and chin with cloth, and draw the bands to the ears."""
    nose, mouth = np.argwhere(ids == _ID["nose"]), np.argwhere(ids == _ID["mouth"])
    if len(nose) < 80 or len(mouth) < 60 or _eye_boxes(ids) is None:
        return image, ids
    size = len(ids)
    top = int(nose[:, 0].min() + rng.uniform(0.25, 0.7) * np.ptp(nose[:, 0]))
    face = np.isin(ids, [_ID[n] for n in ("skin", "mouth", "nose")])
    rows = np.nonzero(face.any(axis=1))[0]
    bottom = min(int(rows.max()) + int(rng.uniform(0, 0.05) * size), size - 1)
    level = min(int(mouth[:, 0].mean()), size - 1)
    edge = np.nonzero(face[level])[0]
    upper_edge = np.nonzero(face[top])[0]
    if len(edge) < 10 or len(upper_edge) < 10 or bottom - top < 20:
        return image, ids
    left, right = float(edge.min()), float(edge.max())
    upper_left, upper_right = float(upper_edge.min()), float(upper_edge.max())
    inset = rng.uniform(0, 0.08) * (upper_right - upper_left)
    centre = float(nose[:, 1].mean())
    points = [
        (upper_left + inset, top + rng.uniform(0.04, 0.1) * size),
        (centre, top),
        (upper_right - inset, top + rng.uniform(0.04, 0.1) * size),
        (right - inset / 2, level),
        (centre + 0.55 * (right - centre), bottom),
        (centre - 0.55 * (centre - left), bottom),
        (left + inset / 2, level),
    ]
    layer, bands = Image.new("L", (size, size)), Image.new("L", (size, size))
    ImageDraw.Draw(layer).polygon(points, fill=255)
    alpha = np.asarray(layer.filter(ImageFilter.GaussianBlur(1.2)), np.float32) / 255
    pen = ImageDraw.Draw(bands)
    for corner, x in ((points[0], upper_left), (points[2], upper_right)):
        pen.line([corner, (x, corner[1] - rng.uniform(0, 0.06) * size)], fill=255, width=int(rng.integers(1, 4)))
    alpha = np.maximum(alpha, np.asarray(bands, np.float32) / 255 * face)
    colour = np.array(
        [[150, 190, 220], [235, 235, 240], [30, 30, 34], rng.uniform(0, 255, 3)][int(rng.integers(4))], np.float32
    ) * rng.uniform(0.7, 1.05)
    # The light of the face goes on over the cloth, with folds across it.
    light = _light(image, face, size / 24)
    folds = (
        1
        + rng.uniform(0, 0.12) * np.sin(np.arange(size) / size * rng.uniform(40, 120))[:, None]
        + 0.12 * _noise(size, 8, rng)
    )
    cloth = np.clip(colour * (light * folds)[..., None], 0, 255)
    return _blend(image, cloth, alpha), np.where(alpha > 0.5, np.uint8(_ID["cloth"]), ids)


def beard(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> Face:
    """Grow a beard of any colour, mostly white or grey, and of any length; it is skin."""
    mouth, nose = np.argwhere(ids == _ID["mouth"]), np.argwhere(ids == _ID["nose"])
    if len(mouth) < 60 or len(nose) < 60:
        return image, ids
    size = len(ids)
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    centre, start = float(mouth[:, 1].mean()), float(nose[:, 0].max())
    face = np.isin(ids, [_ID[n] for n in ("skin", "mouth", "nose")])
    chin = float(np.nonzero(face.any(axis=1))[0].max())
    level = np.nonzero(face[min(int(mouth[:, 0].mean()), size - 1)])[0]
    if len(level) < 10 or chin - start < 15:
        return image, ids
    width = float(np.ptp(level)) / 2
    length = rng.choice([rng.uniform(0, 0.03), rng.uniform(0.03, 0.3)], p=[0.4, 0.6]) * size
    wave = _noise(size, 12, rng) * 0.03 * size
    # Cheeks and chin: below a curve from the ears to the upper lip.
    curve = start + np.abs(xs - centre) / max(width, 1) * rng.uniform(-0.5, 0.35) * (chin - start)
    # And below the chin, tapering.
    taper = width * np.clip(1 - 0.7 * (ys - chin) / max(length, 1), 0, 1)
    hanging = (
        (ys > start)
        & (ys < chin + length + wave)
        & (np.abs(xs - centre) < np.where(ys > chin - 8, taper, width) + wave)
    )
    area = (ys > curve + wave) & (
        ((ids == _ID["skin"]) & (ys > start))
        | (hanging & np.isin(ids, [_ID[n] for n in ("neck", "cloth", "background", "hair", "skin")]))
    )
    alpha = _soft(area, 2) * ~np.isin(ids, (_ID["mouth"], _ID["nose"]))
    # Strands: noise drawn out downwards, in two sizes.
    strands = _noise(size, max(size // 16, 2), rng, across=size)
    strands = strands + _noise(size, max(size // 24, 2), rng, across=size // 3)
    shift = (
        np.clip(ys + wave * 2, 0, size - 1).astype(int),
        np.clip(xs + (xs - centre) * -0.15 + wave, 0, size - 1).astype(int),
    )
    light = _light(image, face, size / 20)
    base = rng.uniform(150, 240) if rng.random() < 0.7 else rng.uniform(25, 140)
    hue = np.array([1.0, rng.uniform(0.86, 1.0), rng.uniform(0.7, 1.0)], np.float32)
    shade = np.clip(light, 0.3, 1.4) * (1 + rng.uniform(0.08, 0.3) * strands[shift])
    colour = np.clip(base * hue * shade[..., None], 0, 255)
    out = _blend(image, colour, alpha * rng.uniform(0.75, 1.0))
    return out, np.where((alpha > 0.5) & (ids != IGNORE), np.uint8(_ID["skin"]), ids)


def occluder(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> Face:
    """Put one or two things of any shape and colour in the way; they are background."""
    size = len(ids)
    out, new_ids = image, ids
    for _ in range(int(rng.integers(1, 3))):
        layer = Image.new("L", (size, size))
        x, y, radius = rng.uniform(0, size), rng.uniform(0.2 * size, size), rng.uniform(0.05, 0.17) * size
        turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(4, 12))))
        reach = radius * rng.uniform(0.5, 1.3, len(turns))
        stretch = rng.uniform(0.5, 1.8)
        across, down = x + reach * np.cos(turns) * stretch, y + reach * np.sin(turns)
        ImageDraw.Draw(layer).polygon(np.stack((across, down), axis=1).flatten().tolist(), fill=255)
        alpha = np.asarray(layer.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 2))), np.float32) / 255
        if rng.random() < 0.5:  # a piece of the picture itself, turned over: the hardest to tell
            texture = np.roll(image[::-1], tuple(rng.integers(0, size, 2)), (0, 1))
        else:
            colour = rng.uniform(0, 255, 3)
            texture = np.clip(colour * (1 + 0.4 * _noise(size, int(rng.integers(3, 40)), rng)[..., None]), 0, 255)
        out = _blend(out, texture, alpha)
        new_ids = np.where(alpha > 0.5, np.uint8(_ID["background"]), new_ids)
    return out, new_ids


COMPOSITES: dict[str, tuple[float, Composite]] = {
    "closed_eyes": (0.06, closed_eyes),
    "beard": (0.04, beard),
    "surgical_mask": (0.03, surgical_mask),
    "glasses": (0.06, glasses),
    "occluder": (0.08, occluder),
}
"""Chance and function of each, in the order in which they are put on."""


def dress(image: np.ndarray, ids: np.ndarray, rng: np.random.Generator, factor: float = 1.0) -> Face:
    """Draw for each of :data:`COMPOSITES`, its chance times ``factor``, whether it is applied, and apply it."""
    for chance, put in COMPOSITES.values():
        if rng.random() < factor * chance:
            image, ids = put(image, ids, rng)
    return image, ids
