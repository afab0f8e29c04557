"""What a saved copy takes over from a photo's file beside its pixels; never where it was taken, nor a preview."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image, JpegImagePlugin

from editing.face.embedded import webp_chunks
from editing.photo.credits import credits_of

# Opaque blocks of the camera's maker can hold a place as well; the rest says nothing of a saved copy.
_DROPPED = (ExifTags.Base.MakerNote, ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
_GPS, _EXIF, _INTEROPERABILITY = ExifTags.IFD.GPSInfo, ExifTags.IFD.Exif, ExifTags.IFD.Interop
# Of the first directory: who, when, with what; not how the pixels of the old file are laid out.
_NAMES = ("ImageDescription", "Make", "Model", "DateTime", "Artist", "Copyright", "HostComputer")


@dataclass(frozen=True)
class Kept:
    """See above.

    Attributes:
        format: of the file, as Pillow calls it.
        exif: cleaned, as a block for Pillow, or empty.
        dpi: pixels per inch, or None.
        tables: of a JPEG, its quantisation; empty for other files.
        sampling: of a JPEG's colours: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0; −1 for others.
        lossless: of a WebP, whether it is.
        credits: who made it and what may be done with it, see :mod:`editing.photo.credits`.
    """

    format: str = "PNG"
    exif: bytes = b""
    dpi: tuple[float, float] | None = None
    tables: tuple[tuple[int, ...], ...] = ()
    sampling: int = -1
    lossless: bool = False
    credits: tuple[tuple[str, tuple[str, ...]], ...] = ()


def kept_of(image: Image.Image, data: bytes) -> Kept:
    """Reads it from an opened picture and its file."""
    kind = str(image.format)
    tables = getattr(image, "quantization", None) or {}
    return Kept(
        "JPEG" if kind == "MPO" else kind,
        _clean(image.getexif()),
        _dpi(image.info.get("dpi")),
        tuple(tuple(int(v) for v in tables[key]) for key in sorted(tables)),
        JpegImagePlugin.get_sampling(image) if isinstance(image, JpegImagePlugin.JpegImageFile) else -1,
        kind == "WEBP" and any(name == b"VP8L" for name, _ in webp_chunks(data)),
        tuple(credits_of(image).items()),
    )


def _clean(exif: Image.Exif) -> bytes:
    clean = Image.Exif()
    for name in _NAMES:
        tag = ExifTags.Base[name]
        if tag in exif:
            clean[tag] = exif[tag]
    details = {
        tag: value for tag, value in exif.get_ifd(_EXIF).items() if tag not in _DROPPED and tag != _INTEROPERABILITY
    }
    if details:
        clean.get_ifd(_EXIF).update(details)
    try:
        return clean.tobytes() if len(clean) or details else b""
    except (ValueError, TypeError, OverflowError, struct.error, UnicodeError, AttributeError):
        return b""  # a damaged block is not worth refusing a photo


def _dpi(value: Any) -> tuple[float, float] | None:
    try:
        x, y = (float(side) for side in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 1 <= x <= 10_000 and 1 <= y <= 10_000 else None
