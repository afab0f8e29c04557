"""What a saved copy takes over from a photo's file beside its pixels; never where it was taken, nor a preview."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

from PIL import ExifTags, Image, JpegImagePlugin

from editing.face.embedded import png_chunks, webp_chunks
from editing.photo.credits import credits_of

# Opaque blocks of the camera's maker can hold a place as well; the rest says nothing of a saved copy.
_DROPPED = (ExifTags.Base.MakerNote, ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
_EXIF, _INTEROPERABILITY = ExifTags.IFD.Exif, ExifTags.IFD.Interop
# There cameras that make Adobe RGB say so, instead of with a profile (DCF 2.0).
_COLOURS = (ExifTags.Interop.InteropIndex, ExifTags.Interop.InteropVersion)
# Of the first directory: who, when, with what; not how the pixels of the old file are laid out.
_NAMES = ("ImageDescription", "Make", "Model", "DateTime", "Artist", "Copyright", "HostComputer")
# Of a PNG without a profile: what its values mean to programs that follow it (PNG, third edition, 11.3.2).
_MEANINGS = {b"gAMA": 4, b"cHRM": 32, b"cICP": 4}
# The standard's keywords of a PNG that say who, what and when, and how long such a text may be.
_KEYWORDS = ("Title", "Author", "Description", "Copyright", "Creation Time", "Disclaimer", "Source")
_TEXT = 2000


@dataclass(frozen=True)
class Kept:
    """See above.

    Attributes:
        format: of the file, as Pillow calls it.
        exif: cleaned, as a block for Pillow, or empty.
        dpi: pixels per inch, or None.
        tables: of a JPEG, its quantisation, row by row; empty for other files.
        sampling: of a JPEG's colours: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0; −1 for others.
        lossless: of a WebP, whether it is.
        credits: who made it and what may be done with it, see :mod:`editing.photo.credits`.
        meanings: of a PNG without a profile, chunks that say what its values mean.
        texts: of a PNG, keywords and what they say.
        lying: EXIF says that the rows of the file are columns of the picture.
    """

    format: str = "PNG"
    exif: bytes = b""
    dpi: tuple[float, float] | None = None
    tables: tuple[tuple[int, ...], ...] = ()
    sampling: int = -1
    lossless: bool = False
    credits: tuple[tuple[str, tuple[str, ...]], ...] = ()
    meanings: tuple[tuple[bytes, bytes], ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    lying: bool = False

    def transposed(self) -> Kept:
        """For the picture with rows for columns: a block's finest steps lie along its other side then."""
        tables = tuple(tuple(table[i % 8 * 8 + i // 8] for i in range(64)) for table in self.tables)
        # Pillow cannot write colours that are halved from top to bottom alone.
        sampling = 0 if self.sampling == 1 else self.sampling
        return replace(self, tables=tables, sampling=sampling, dpi=self.dpi and self.dpi[::-1], lying=not self.lying)


def kept_of(image: Image.Image, data: bytes) -> Kept:
    """Reads it from an opened picture and its file."""
    kind, exif = str(image.format), read_exif(image)
    tables = getattr(image, "quantization", None) or {}
    return Kept(
        "JPEG" if kind == "MPO" else kind,
        _clean(exif),
        _dpi(image.info.get("dpi")),
        tuple(tuple(int(v) for v in tables[key]) for key in sorted(tables)),
        JpegImagePlugin.get_sampling(image) if isinstance(image, JpegImagePlugin.JpegImageFile) else -1,
        kind == "WEBP" and any(name == b"VP8L" for name, _ in webp_chunks(data)),
        tuple(credits_of(image).items()),
        _meanings(data) if kind == "PNG" and not image.info.get("icc_profile") else (),
        _texts(image) if kind == "PNG" else (),
        exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8),
    )


def read_exif(image: Image.Image) -> Image.Exif:
    """What an opened picture says in EXIF; nothing of a damaged block, which is not worth refusing a photo."""
    try:
        return image.getexif()
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error):
        return Image.Exif()


def exif_of(block: bytes) -> Image.Exif:
    """The EXIF of :attr:`Kept.exif`, to be written again."""
    exif = Image.Exif()
    if block:
        exif.load(block)
        for tag, value in list(exif.items()):
            exif[tag] = _as_read(value)
        details = exif.get_ifd(_EXIF)
        details.update({tag: _as_read(value) for tag, value in details.items()})
        if _INTEROPERABILITY in details:
            details[_INTEROPERABILITY] = exif.get_ifd(_INTEROPERABILITY)
    return exif


def fitting(block: bytes, most: int) -> bytes:
    """An EXIF block of at most that many bytes; what takes most goes first, such as a program's long notes."""
    if len(block) <= most:
        return block
    exif = exif_of(block)
    while len(block) > most:
        found = [(len(str(value)), place, tag) for place in (exif, exif.get_ifd(_EXIF)) for tag, value in place.items()]
        known = [(size, place, tag) for size, place, tag in found if tag != _EXIF]
        if not known:
            return b""
        _, place, tag = max(known, key=lambda one: one[0])
        del place[tag]
        block = exif.tobytes()
    return block


class _Text(str):
    """A text of EXIF, whose bytes Pillow reads as Latin-1 whatever they are, and would write as ASCII."""

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        """The bytes that were read, whatever is asked for."""
        return super().encode("latin-1", "replace")


def _as_read(value: Any) -> Any:
    return _Text(value) if isinstance(value, str) else value


def _meanings(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    found = {name: body for name, body in png_chunks(data) if len(body) == _MEANINGS.get(name)}
    return tuple(found.items())


def _texts(image: Image.Image) -> tuple[tuple[str, str], ...]:
    said = ((name, image.info.get(name)) for name in _KEYWORDS)
    return tuple((name, str(text)[:_TEXT]) for name, text in said if isinstance(text, str) and text)


def _clean(exif: Image.Exif) -> bytes:
    clean = Image.Exif()
    for name in _NAMES:
        tag = ExifTags.Base[name]
        if tag in exif:
            clean[tag] = _as_read(exif[tag])
    given = exif.get_ifd(_EXIF)
    details = {tag: _as_read(value) for tag, value in given.items() if tag not in _DROPPED and tag != _INTEROPERABILITY}
    interoperability = exif.get_ifd(_INTEROPERABILITY) if _INTEROPERABILITY in given else {}
    if colours := {tag: interoperability[tag] for tag in _COLOURS if tag in interoperability}:
        details[_INTEROPERABILITY] = colours
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
