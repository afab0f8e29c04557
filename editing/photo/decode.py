"""Guarded decoding of uploaded pictures: any file → one upright 8-bit RGB picture, or one clear sentence."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from editing.errors import EditingError

# What Pillow's own decoders read without help of outside programs; never EPS, PDF or the like.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO", "JPEG2000", "PPM")
MIN_SIDE = 32
# Detection and alignment gain nothing from more.
WORKING_SIDE = 2048
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


@dataclass(frozen=True)
class PhotoLimits:
    """What is accepted.

    Attributes:
        max_bytes: of the file.
        max_pixels: width × height before decoding.
    """

    max_bytes: int = 25 * 2**20
    max_pixels: int = 80_000_000


@dataclass(frozen=True)
class Photo:
    """A decoded picture.

    Attributes:
        pixels: (h, w, 3) uint8 RGB, upright, at most 2048 pixels on its longer side.
        notices: what was done to it, in plain sentences.
    """

    pixels: np.ndarray
    notices: tuple[str, ...] = ()


def decode(data: bytes, limits: PhotoLimits | None = None) -> Photo:
    """Decodes an uploaded file.

    Raises:
        EditingError: for a file that is empty, too large, no picture, damaged, too small, or of a format such as HEIC.
    """
    limits = limits or PhotoLimits()
    if not data:
        raise EditingError("the file is empty; choose a JPEG, PNG or WebP picture")
    if len(data) > limits.max_bytes:
        raise EditingError(
            f"the file has {len(data) / 2**20:.0f} MiB; choose one of at most {limits.max_bytes / 2**20:.0f} MiB"
        )
    if data[4:8] == b"ftyp" and (data[8:12] in _HEIC_BRANDS) and b"avif" not in data[8:64]:
        raise EditingError("this is a HEIC picture, which cannot be read here; save it as JPEG or PNG first")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in _known()]) as image:
                return _convert(image, limits)
    except EditingError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise EditingError(_too_many(limits)) from None
    except UnidentifiedImageError:
        raise EditingError(
            "this file is not a picture that can be read here; choose a JPEG, PNG or WebP file"
        ) from None
    # Decoders of damaged files raise almost anything; none of it may reach the page.
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise EditingError("the picture is damaged or cut short; choose another copy of it") from error
    except MemoryError:
        raise EditingError(_too_many(limits)) from None


def _known() -> set[str]:
    Image.init()
    return set(Image.OPEN)


def _too_many(limits: PhotoLimits) -> str:
    return f"the picture has too many pixels; choose one of at most {limits.max_pixels // 1_000_000} megapixels"


def _convert(image: Image.Image, limits: PhotoLimits) -> Photo:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise EditingError(_too_many(limits))
    if min(width, height) < MIN_SIDE:
        raise EditingError(
            f"the picture has only {width} × {height} pixels; choose one of at least {MIN_SIDE} × {MIN_SIDE}"
        )
    notices = []
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        image.seek(0)
        notices.append("The picture is animated; only its first frame is used.")
    # A JPEG is decoded at a fraction of its size when that is enough.
    image.draft("RGB", (WORKING_SIDE, WORKING_SIDE))
    deep = _is_deep(image)  # the tiles are gone once they are loaded
    image.load()
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    upright = _reduced(image)
    upright.getexif()[ExifTags.Base.Orientation] = orientation
    upright = ImageOps.exif_transpose(upright)
    if deep:
        notices.append("The picture has more than 8 bits per channel; it was reduced to 8.")
    if upright.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
            rgba = Image.alpha_composite(white, rgba)
            notices.append("Transparent areas were filled with white.")
        upright = rgba
    if upright.mode == "CMYK":
        notices.append("The picture was converted from print colours (CMYK); its colours may differ a little.")
    elif upright.mode in ("1", "L"):
        notices.append("The picture is black and white; so will be the reconstruction.")
    rgb = upright.convert("RGB")
    rgb.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    if min(rgb.size) < MIN_SIDE:
        raise EditingError(f"the picture is too narrow ({width} × {height} pixels); crop it around the face first")
    return Photo(np.asarray(rgb).copy(), tuple(notices))


def _is_deep(image: Image.Image) -> bool:
    """Whether a channel has more than 8 bits. Pillow reads 16-bit colour as 8-bit without a word; its tiles tell."""
    if image.mode.startswith("I") or image.mode == "F":
        return True
    for tile in getattr(image, "tile", ()):
        for value in tile[3] if isinstance(tile[3], tuple) else (tile[3],):
            if isinstance(value, str) and re.search(";16[BLN]", value):
                return True
            if image.format == "PPM" and isinstance(value, int) and value > 255:
                return True
    return False


def _reduced(image: Image.Image) -> Image.Image:
    """By a whole number, to 8 bits, before anything else makes copies: a picture may have 80 megapixels."""
    factor = max(1, max(image.size) // WORKING_SIDE)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image, factor)
    if factor == 1:
        return image
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("P", "PA") or "transparency" in image.info:  # numbers of colours cannot be averaged
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    return image.reduce(factor)


def _from_deep(image: Image.Image, factor: int) -> Image.Image:
    """16-bit, 32-bit integer or float grey → 8 bits, by the full range of the type, or the picture's own if unknown.

    Squares of ``factor`` pixels become one; what is left over at the right and bottom border is cut off.
    """
    values = np.array(image)
    if values.dtype.kind == "f":
        np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and 255 < high <= 65535 and image.mode != "F":
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1.0:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    height, width = (max(1, side // factor) for side in values.shape)
    values = values[: height * factor, : width * factor]
    blocks = values.reshape(height, values.shape[0] // height, width, values.shape[1] // width)
    scaled = (blocks.mean(axis=(1, 3), dtype=np.float32) - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(np.clip(np.round(scaled), 0, 255).astype(np.uint8))
