"""Writing a photo back: in the format it came in, with its profile, in full size, and with the recipe inside."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from editing.face.embedded import KEY, SOFTWARE, as_xmp, in_jpeg, text_of
from editing.face.recipe import Recipe
from editing.photo.credits import iptc_segment, rdf
from editing.photo.decode import Photo, give_back
from editing.photo.metadata import Kept
from editing.photo.original import Original

# What every program opens stands in for formats that few can write; the others come back as PNG, without loss.
_FORMATS = {"JPEG": "JPEG", "HEIF": "JPEG", "AVIF": "JPEG", "WEBP": "WEBP", "TIFF": "TIFF"}
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif"}
QUALITY = 95
# Mean step of light at quality 90 (the standard's example table, ITU T.81, K.1, scaled as libjpeg does).
_OWN_STEPS = 12.0
# Four times as fast as the usual 6, and hardly larger, since photos have noise.
_COMPRESSION = 1
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
    JPEG of quality 90 or more is written with its own steps and sampling, which gives nine of ten unedited pixels or
    more back to the bit and the others within a few steps of 255; other JPEGs, and HEIC and AVIF, become a JPEG of
    quality 95 with colours in full.

    Args:
        photo: what was uploaded.
        original: :meth:`Photo.original`, edited.
        recipe: put inside.

    Raises:
        EditingError: if the recipe is longer than 8 MiB.
    """
    kind = _FORMATS.get(photo.kept.format, "PNG")
    deep = original.white > 255
    if original.alpha is not None and kind == "JPEG":
        kind = "PNG"
    if deep and (original.space.mode == "RGB" or original.alpha is not None):
        kind = "PNG"  # which Pillow cannot write, but OpenCV can
    text = None if recipe is None else text_of(recipe)
    try:
        if kind == "PNG" and deep:
            data = _deep_png(original, photo.kept, text)
        else:
            data = _WRITERS[kind](_image(original), original, photo.kept, text)
    finally:
        give_back()
    return SavedPhoto(data, _SUFFIXES[kind])


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
    how: dict[str, Any] = {"quality": QUALITY, "subsampling": 0}
    if _is_fine(kept.tables) and kept.sampling >= 0:
        how = {"qtables": [list(table) for table in kept.tables], "subsampling": kept.sampling}
    credits = dict(kept.credits)
    xmp = as_xmp(None, rdf(credits))
    data = _written(image, "JPEG", original, kept, exif=kept.exif, **({"xmp": xmp} if xmp else {}), **how)
    return in_jpeg(data, text or "", iptc_segment(credits))


def _png(image: Image.Image, original: Original, kept: Kept, text: str | None) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", SOFTWARE)
    if text is not None:
        info.add_text(KEY, text)
    if xmp := as_xmp(None, rdf(dict(kept.credits))):
        info.add_itxt(_PNG_XMP, xmp.decode())
    return _written(image, "PNG", original, kept, pnginfo=info, exif=kept.exif, compress_level=_COMPRESSION)


def _webp(image: Image.Image, original: Original, kept: Kept, text: str | None) -> bytes:
    how: dict[str, Any] = {"lossless": True, "quality": 0, "method": 0, "exact": True}
    if not kept.lossless:
        how = {"quality": QUALITY, "method": 1}
    return _written(image, "WEBP", original, kept, exif=kept.exif, xmp=as_xmp(text, rdf(dict(kept.credits))), **how)


def _tiff(image: Image.Image, original: Original, kept: Kept, text: str | None) -> bytes:
    exif = Image.Exif()
    if kept.exif:
        exif.load(kept.exif)
    if xmp := as_xmp(text, rdf(dict(kept.credits))):
        exif[_TIFF_XMP] = xmp
    return _written(image, "TIFF", original, kept, exif=exif, compression="tiff_adobe_deflate")


_WRITERS = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "TIFF": _tiff}


def _written(image: Image.Image, kind: str, original: Original, kept: Kept, **how: Any) -> bytes:
    image.info = {}  # of no other picture
    if kept.dpi is not None and kind != "WEBP":
        how["dpi"] = kept.dpi
    stream = io.BytesIO()
    image.save(stream, kind, icc_profile=original.space.profile, **how)
    return stream.getvalue()


def _is_fine(tables: tuple[tuple[int, ...], ...]) -> bool:
    """Whether a JPEG's own steps are on average no coarser than those of quality 90."""
    return bool(tables) and len(tables) <= 2 and sum(tables[0]) <= _OWN_STEPS * len(tables[0])


def _deep_png(original: Original, kept: Kept, text: str | None) -> bytes:
    """PNG with 16 bits per channel."""
    values = original.values
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
    chunks = [(b"tEXt", b"Software\0" + SOFTWARE.encode())]
    if original.space.profile is not None and original.space.mode == "RGB":
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(original.space.profile)))
    if kept.exif:
        chunks.append((b"eXIf", kept.exif.removeprefix(b"Exif\0\0")))
    if text is not None:
        chunks.append((b"tEXt", KEY.encode() + b"\0" + text.encode("ascii")))
    if xmp := as_xmp(None, rdf(dict(kept.credits))):
        chunks.append((b"iTXt", _PNG_XMP.encode() + b"\0\0\0\0\0" + xmp))
    return data[:first] + b"".join(_chunk(name, body) for name, body in chunks) + data[first:]


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
