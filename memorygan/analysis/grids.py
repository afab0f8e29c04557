"""Labelled grids of faces, each with a line that says what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from memorygan.parts import PartScheme
from memorygan.picture import to_uint8

INK, PAPER, GREY = (28, 30, 36), (255, 255, 255), (110, 114, 124)
GAP = 3
TEXT_HEIGHT = 18
# Small faces are shown enlarged; a person judges them at this side.
SHOWN_SIZE = 96


def faces(images: Tensor) -> list[np.ndarray]:
    """(B, 3, H, W) in [−1, 1] → B pictures (H, W, 3) uint8."""
    return list(to_uint8(images))


def masks(ids: Tensor, parts: PartScheme) -> list[np.ndarray]:
    """(B, H, W) part ids → B pictures (H, W, 3) uint8 in the parts' colours."""
    return list(parts.colorize(ids.cpu().numpy()))


def heat(change: Tensor, top: float = 64.0) -> list[np.ndarray]:
    """(B, H, W) change in steps of 255 → B pictures, black for none to white for ``top`` and more."""
    scaled = (change / top).clamp(0, 1)
    red, green, blue = (3 * scaled).clamp(0, 1), (3 * scaled - 1).clamp(0, 1), (3 * scaled - 2).clamp(0, 1)
    return faces(torch.stack((red, green, blue), dim=1) * 2 - 1)


def grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    footer: str = "",
    side: int | None = None,
) -> Image.Image:
    """Pictures in rows with labels and a footer line.

    Args:
        rows: square pictures (H, W, 3) uint8; None leaves a place empty.
        row_labels: one per row, on the left; none for no label column.
        column_labels: one per column, on top.
        footer: the line below.
        side: shown size of a picture in pixels; None for :data:`SHOWN_SIZE` or the pictures' own, whichever is larger.

    Raises:
        ValueError: if there is no picture.
    """
    given = [picture for row in rows for picture in row if picture is not None]
    if not given:
        raise ValueError("a grid needs at least one picture")
    side = side or max(SHOWN_SIZE, given[0].shape[0])
    font = label_font()
    left = max((round(font.getlength(label)) for label in row_labels), default=-8) + 8
    top = TEXT_HEIGHT if column_labels else 0
    columns = max(len(row) for row in rows)
    width = left + columns * (side + GAP) - GAP
    height = top + len(rows) * (side + GAP) - GAP + (TEXT_HEIGHT if footer else 0)
    canvas = Image.new("RGB", (max(width, round(font.getlength(footer)) + 4), height), PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, label in enumerate(column_labels):
        text = _fit(label, font, side)
        draw.text((left + column * (side + GAP) + side / 2, top / 2), text, INK, font, anchor="mm")
    for r, row in enumerate(rows):
        y = top + r * (side + GAP)
        if r < len(row_labels):
            draw.text((left - 6, y + side / 2), row_labels[r], INK, font, anchor="rm")
        for c, picture in enumerate(row):
            if picture is not None:
                canvas.paste(_scaled(picture, side), (left + c * (side + GAP), y))
    if footer:
        draw.text((2, height - TEXT_HEIGHT / 2), footer, GREY, font, anchor="lm")
    return canvas


@lru_cache
def label_font() -> ImageFont.FreeTypeFont:
    """The charts' own font; Pillow's has no minus sign."""
    import matplotlib  # may not be installed; the command says so

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size=11)


def _scaled(picture: np.ndarray, side: int) -> Image.Image:
    image = Image.fromarray(picture)
    return image if image.width == side else image.resize((side, side), Image.Resampling.LANCZOS)


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip() + "…" if len(text) > 2 else ""
    return text
