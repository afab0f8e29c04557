"""What a recipe keeps of a photo: enough to know it again and to find the face in it, and nothing of the picture."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from editing.errors import EditingError
from editing.face.fields import read_mapping, read_number, read_text, read_whole

_MAX_SIDE = 10**6


@dataclass(frozen=True)
class PhotoRef:
    """A face in a photo.

    Attributes:
        sha256: of the photo's file, in hexadecimal.
        width, height: of the upright photo in pixels.
        turns: right angles by which a person turned it anticlockwise, 0 to 3.
        frame: left, top, across, down of :class:`editing.photo.align.Frame`, in pixels.
    """

    sha256: str
    width: int
    height: int
    turns: int
    frame: tuple[float, float, float, float]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "frame": list(self.frame)}

    def describe(self) -> str:
        return f"a photo of {self.width} × {self.height} pixels"


def read_photo_ref(data: Any) -> PhotoRef:
    """From JSON types.

    Raises:
        EditingError: if it is damaged.
    """
    fields = read_mapping(data, "photo")
    sha256, frame = read_text(fields.get("sha256"), "photo hash"), fields.get("frame")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not isinstance(frame, list) or len(frame) != 4:
        raise EditingError("the recipe's photo is missing or damaged; use another copy of the file")
    left, top, across, down = (read_number(value, "the frame", -_MAX_SIDE, _MAX_SIDE) for value in frame)
    if across == down == 0.0:
        raise EditingError("the recipe's frame in the photo has no size; use another copy of the file")
    return PhotoRef(
        sha256,
        read_whole(fields.get("width"), "width", 1, _MAX_SIDE),
        read_whole(fields.get("height"), "height", 1, _MAX_SIDE),
        read_whole(fields.get("turns"), "turns", 0, 3),
        (left, top, across, down),
    )
