"""Numpy pictures → what a browser shows: data addresses, enlarged with a good filter, and the change map.

Pictures travel inside the answers, not as files, so that nothing of a visitor's face lies on the server's disk and no
address exists under which somebody else could ask for it.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, ImageDraw

from editing.results import Change

SHOWN = 512  # side of the large picture in CSS pixels
THUMB = 128
AS_IS = 1
_HEAT = np.array([0.0, 0.15, 0.4, 0.7, 1.0])
_HEAT_COLORS = np.array([(0, 0, 4), (66, 10, 104), (187, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float64)
# Below this mean |Δ| (8-bit steps) nothing is bright, so that rounding does not look like a change.
_HEAT_FLOOR = 24.0


def address(data: bytes, mime: str) -> str:
    """A ``data:`` address."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def enlarged(image: np.ndarray, side: int = SHOWN) -> Image.Image:
    """(H, W, 3) uint8 → at least ``side`` pixels on the longer side; a larger picture stays as it is."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    factor = side / max(picture.size)
    if factor <= 1:
        return picture
    # Bicubic: on 64-pixel faces Lanczos draws rings around edges, bilinear shows the pixel grid.
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.BICUBIC)


def jpeg(image: np.ndarray, side: int = SHOWN, quality: int = 92) -> str:
    """A picture to look at, never to keep."""
    stream = io.BytesIO()
    enlarged(image, side).save(stream, "JPEG", quality=quality, subsampling=0)
    return address(stream.getvalue(), "image/jpeg")


def thumb(image: np.ndarray, side: int = THUMB) -> str:
    """A small picture for grids."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return jpeg(np.asarray(picture), side, quality=86)


def reduced(image: np.ndarray, side: int = SHOWN) -> np.ndarray:
    """(H, W, 3) uint8 → at most ``side`` pixels on the longer side."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(picture)


def reduced_map(part_map: np.ndarray, side: int = SHOWN) -> np.ndarray:
    """(S, S) part ids → at most ``side`` pixels, ids unmixed."""
    picture = Image.fromarray(np.ascontiguousarray(part_map), "L")
    return np.asarray(picture.resize((min(side, picture.width),) * 2, Image.Resampling.NEAREST))


def outlined(image: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """A picture with a frame drawn over it: white between two dark lines, so that it shows on anything."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    outline = [(float(x), float(y)) for x, y in [*corners, corners[0]]]
    draw = ImageDraw.Draw(picture)
    draw.line(outline, fill=(15, 23, 42), width=4)
    draw.line(outline, fill=(255, 255, 255), width=2)
    return np.asarray(picture)


def ids(part_map: np.ndarray) -> str:
    """(S, S) part ids as a grey PNG, exact to the last value."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(part_map), "L").save(stream, "PNG", compress_level=3)
    return address(stream.getvalue(), "image/png")


def crisp(image: np.ndarray, side: int = 256) -> str:
    """A mask picture: flat colours, so PNG, enlarged without mixing colours."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    factor = max(1, side // max(picture.size))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    picture.quantize(64, dither=Image.Dither.NONE).save(stream, "PNG", compress_level=3)
    return address(stream.getvalue(), "image/png")


def heat(change: Change, face: np.ndarray) -> np.ndarray:
    """The change map as (S, S, 3) uint8: the face in dim grey, changed pixels from violet (little) to yellow (most)."""
    strength = np.clip(change.map / max(_HEAT_FLOOR, float(change.map.max())), 0.0, 1.0)
    colors = np.stack([np.interp(strength, _HEAT, _HEAT_COLORS[:, k]) for k in range(3)], axis=-1)
    grey = face.mean(axis=2, keepdims=True) * 0.3 + np.array([8.0, 10.0, 20.0])
    weight = np.clip(strength * 2.5, 0.0, 1.0)[..., None]
    return np.clip(np.round(colors * weight + grey * (1.0 - weight)), 0, 255).astype(np.uint8)
