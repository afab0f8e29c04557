"""Writing a photo back: in the format it came in, with its profile, in full size, and with the recipe inside."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, TiffTags

from editing.face.embedded import KEY, SOFTWARE, as_xmp, in_jpeg, jpeg_segments, png_chunk, text_of
from editing.face.recipe import Recipe
from editing.photo.colour import ColourSpace
from editing.photo.credits import iptc_segment, rdf
from editing.photo.decode import Photo, give_back
from editing.photo.metadata import Kept, exif_of, fitting
from editing.photo.original import Original
from editing.photo.rows import STRIP, LargeJpeg, edited
from editing.photo.transfer.fields import Fields

# What every program opens stands in for formats that few can write; the others come back as PNG, without loss.
_FORMATS = {"JPEG": "JPEG", "HEIF": "JPEG", "AVIF": "JPEG", "WEBP": "WEBP", "TIFF": "TIFF"}
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif"}
QUALITY = 95
# Mean step of light at quality 90 (the standard's example table, ITU T.81, K.1, scaled as libjpeg does).
_OWN_STEPS = 12.0
# Four times as fast as the usual 6, and hardly larger, since photos have noise.
_COMPRESSION = 1
_SEGMENT = 65_533  # bytes of a JPEG's segment
_TIFF_XMP = 700
_PNG_XMP = "XML:com.adobe.xmp"


@dataclass(frozen=True)
class SavedPhoto:
    """A file.

    Attributes:
        data: its bytes.
        suffix: "jpg", "png", "webp" or "tif".
    """

    data: bytes
    suffix: str

    @property
    def mime(self) -> str:
        """Its media type."""
        return {"jpg": "image/jpeg", "tif": "image/tiff"}.get(self.suffix, f"image/{self.suffix}")


def save(photo: Photo, original: Original, recipe: Recipe | None = None) -> SavedPhoto:
    """The file of an edited photo.

    PNG, TIFF, lossless WebP and what comes back as PNG (GIF, BMP, JPEG 2000 …) keep every unedited pixel to the bit. A
    JPEG of quality 90 or more is written with its own steps and sampling, turned as the picture is, which gives most
    unedited pixels back to the bit and the others within a few steps of 255; other JPEGs, and HEIC and AVIF, become a
    JPEG of quality 95 with colours in full.

    Args:
        photo: what was uploaded.
        original: :meth:`Photo.original`, edited.
        recipe: put inside.

    Raises:
        EditingError: if the recipe is longer than 8 MiB.
    """
    kept = photo.kept.transposed() if photo.kept.lying != bool(photo.turns % 2) else photo.kept
    kind = _FORMATS.get(kept.format, "PNG")
    deep = original.white > 255
    if original.alpha is not None and kind == "JPEG":
        kind = "PNG"
    if deep and (original.space.mode == "RGB" or original.alpha is not None):
        kind = "PNG"  # which Pillow cannot write, but OpenCV can
    text = None if recipe is None else text_of(recipe)
    try:
        if kind == "PNG" and deep:
            data = _deep_png(original, kept, text)
        else:
            data = _WRITERS[kind](_image(original), original, kept, text)
    finally:
        give_back()
    return SavedPhoto(data, _SUFFIXES[kind])


def save_rows(photo: Photo, layers: Sequence[tuple[Fields, np.ndarray]], recipe: Recipe | None = None) -> SavedPhoto:
    """The file of an edited photo too large to be unpacked, see :attr:`Photo.streamed`; otherwise as :func:`save`.

    Its rows stay as they lie in the file; how it is to be turned is said in EXIF.

    Args:
        photo: what was uploaded.
        layers: edits, one after the other: what they do, and (2, 3) places in the upright photo → in the frame.
        recipe: put inside.

    Raises:
        EditingError: if the file is damaged, or the recipe is longer than 8 MiB.
    """
    whole = LargeJpeg.of(photo.data, photo.turns)
    upright = np.vstack([whole.upright(), [0.0, 0.0, 1.0]])
    space = whole.space
    coloured = space.mode == "L" and any(fields.has_colour() for fields, _ in layers)
    try:
        rows = whole.rows(coloured)
        for fields, frame in layers:
            rows = edited(rows, whole.size, fields, frame @ upright)
        space = rows(0, 1).space
        exif = exif_of(photo.kept.exif)
        exif[ExifTags.Base.Orientation] = whole.orientation
        kept = replace(photo.kept, exif=fitting(exif.tobytes(), _SEGMENT))
        text = None if recipe is None else text_of(recipe)
        strips = (_image(rows(top, top + STRIP)) for top in range(0, rows.height, STRIP))
        return SavedPhoto(_jpeg_of(strips, rows.height, space, kept, text), _SUFFIXES["JPEG"])
    finally:
        give_back()


def _image(original: Original) -> Image.Image:
    values = original.values
    if original.space.mode == "L":
        values = values[..., 0]
    if original.alpha is not None:
        values = np.dstack([values, original.alpha])
        return Image.fromarray(values, "LA" if original.space.mode == "L" else "RGBA")
    if values.dtype == np.uint16:
        return Image.fromarray(np.ascontiguousarray(values))
    return Image.fromarray(np.ascontiguousarray(values), original.space.mode)


def _jpeg(image: Image.Image, original: Original, kept: Kept, text: str | None) -> bytes:
    exif = fitting(kept.exif, _SEGMENT)
    data = _written(image, "JPEG", original.space, kept, exif=exif, **_steps(kept), **_xmp(kept))
    return in_jpeg(data, text or "", iptc_segment(dict(kept.credits)))


def _jpeg_of(strips: Iterable[Image.Image], height: int, space: ColourSpace, kept: Kept, text: str | None) -> bytes:
    """A JPEG whose rows come in strips of :data:`STRIP`, the last one of less, to the bit as if written at once.

    Every row of blocks begins anew (restart intervals, ITU T.81, E.1.4), so that what strips are coded as can stand one
    after the other: the tables are the same, and the marks between rows count to eight, which a strip's rows do too.
    """
    how = {**_steps(kept), "restart_marker_rows": 1}
    written = io.BytesIO()
    for number, image in enumerate(strips):
        if number:
            data = _written(image, "JPEG", space, replace(kept, dpi=None), **how)
            written.write(b"\xff\xd7")
        else:
            data = _written(image, "JPEG", space, kept, exif=kept.exif, **how, **_xmp(kept))
        head = _coded(data)
        if not number:
            segments = _with_height(data[:head], height)
            written.write(in_jpeg(segments, text or "", iptc_segment(dict(kept.credits))))
        written.write(memoryview(data)[head:-2])
    written.write(b"\xff\xd9")
    return written.getvalue()


def _steps(kept: Kept) -> dict[str, Any]:
    if _is_fine(kept.tables) and kept.sampling >= 0:
        return {"qtables": [list(table) for table in kept.tables], "subsampling": kept.sampling}
    return {"quality": QUALITY, "subsampling": 0}


def _xmp(kept: Kept) -> dict[str, Any]:
    xmp = as_xmp(None, rdf(dict(kept.credits)))
    return {"xmp": xmp} if xmp else {}


def _coded(data: bytes) -> int:
    """Where the coded pixels of a JPEG begin."""
    at = 2 + sum(4 + len(content) for _, _, content in jpeg_segments(data))
    return at + 2 + int(struct.unpack_from(">H", data, at + 2)[0])


def _with_height(head: bytes, height: int) -> bytes:
    """The segments of a JPEG before its pixels, for another number of rows."""
    at = next(at for marker, at, _ in jpeg_segments(head) if marker in (0xC0, 0xC1))
    return head[: at + 5] + struct.pack(">H", height) + head[at + 7 :]


def _png(image: Image.Image, original: Original, kept: Kept, text: str | None) -> bytes:
    info = _info(kept, text)
    return _written(image, "PNG", original.space, kept, pnginfo=info, exif=kept.exif, compress_level=_COMPRESSION)


def _info(kept: Kept, text: str | None) -> PngImagePlugin.PngInfo:
    """What a PNG says beside its pixels, but for profile, EXIF and resolution."""
    info = PngImagePlugin.PngInfo()
    for name, body in kept.meanings:
        info.add(name, body)
    info.add_text("Software", SOFTWARE)
    for keyword, said in kept.texts:
        info.add_text(keyword, said)
    if text is not None:
        info.add_text(KEY, text)
    if xmp := as_xmp(None, rdf(dict(kept.credits))):
        info.add_itxt(_PNG_XMP, xmp.decode())
    return info


def _webp(image: Image.Image, original: Original, kept: Kept, text: str | None) -> bytes:
    how: dict[str, Any] = {"lossless": True, "quality": 0, "method": 0, "exact": True}
    if not kept.lossless:
        how = {"quality": QUALITY, "method": 1}
    return _written(
        image, "WEBP", original.space, kept, exif=kept.exif, xmp=as_xmp(text, rdf(dict(kept.credits))), **how
    )


def _tiff(image: Image.Image, original: Original, kept: Kept, text: str | None) -> bytes:
    known = exif_of(kept.exif)
    exif = Image.Exif()
    exif.update({tag: value for tag, value in known.items() if tag != ExifTags.IFD.Exif})
    if xmp := as_xmp(text, rdf(dict(kept.credits))):
        exif[_TIFF_XMP] = xmp
    data = _written(image, "TIFF", original.space, kept, exif=exif, compression="tiff_adobe_deflate")
    return _with_details(data, known.get_ifd(ExifTags.IFD.Exif))


def _with_details(data: bytes, details: Mapping[int, Any]) -> bytes:
    """A TIFF with EXIF's own directory, which libtiff does not write: it and a new first one stand behind the rest."""
    if not details:
        return data
    order = "<" if data.startswith(b"II") else ">"
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, first)
    start, end = first + 2, first + 2 + 12 * count
    block = TiffImagePlugin.ImageFileDirectory_v2(data[:8], group=ExifTags.IFD.Exif)
    for tag, value in details.items():
        block[tag] = value
    at = len(data) + len(data) % 2
    body = block.tobytes(at)
    body += bytes(len(body) % 2)
    entries = [data[place : place + 12] for place in range(start, end, 12)]
    entries.append(struct.pack(f"{order}HHII", ExifTags.IFD.Exif, TiffTags.LONG, 1, at))
    entries.sort(key=lambda entry: int(struct.unpack_from(f"{order}H", entry)[0]))
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + data[end : end + 4]
    head = data[:4] + struct.pack(f"{order}I", at + len(body))
    return head + data[8:] + bytes(len(data) % 2) + body + directory


_WRITERS = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "TIFF": _tiff}


def _written(image: Image.Image, kind: str, space: ColourSpace, kept: Kept, **how: Any) -> bytes:
    image.info = {}  # of no other picture
    if kept.dpi is not None and kind != "WEBP":
        how["dpi"] = kept.dpi
    stream = io.BytesIO()
    image.save(stream, kind, icc_profile=space.profile, **how)
    return stream.getvalue()


def _is_fine(tables: tuple[tuple[int, ...], ...]) -> bool:
    """Whether a JPEG's own steps are on average no coarser than those of quality 90."""
    return bool(tables) and len(tables) <= 2 and sum(tables[0]) <= _OWN_STEPS * len(tables[0])


def _deep_png(original: Original, kept: Kept, text: str | None) -> bytes:
    """PNG with 16 bits per channel."""
    values, space = original.values, original.space
    if original.alpha is not None:
        if original.space.mode == "L":
            values = np.repeat(values, 3, axis=-1)
        opacity = original.alpha.astype(np.uint32) * 65535 // original.white
        values = np.dstack([values, opacity.astype(np.uint16)])
    if values.shape[2] >= 3:
        values = cv2.cvtColor(
            np.ascontiguousarray(values), cv2.COLOR_RGBA2BGRA if values.shape[2] == 4 else cv2.COLOR_RGB2BGR
        )
    good, coded = cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, _COMPRESSION])
    if not good:
        raise RuntimeError("OpenCV could not write a PNG")
    data = coded.tobytes()
    first = 8 + 25  # behind the header
    chunks = []
    if space.profile is not None and (space.mode == "L") == (values.ndim == 2 or values.shape[2] == 1):
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(space.profile)))
    chunks += [(name, body) for name, body, *_ in _info(kept, text).chunks]
    if kept.exif:
        chunks.append((b"eXIf", kept.exif.removeprefix(b"Exif\0\0")))
    if kept.dpi is not None:
        x, y = (round(side / 0.0254) for side in kept.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", x, y, 1)))  # per metre
    return data[:first] + b"".join(png_chunk(name, body) for name, body in chunks) + data[first:]
