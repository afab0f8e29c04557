"""Recipes inside pictures, small enough to ride along: PNG, JPEG, WebP and TIFF, told apart by content."""

from __future__ import annotations

import html
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from itertools import takewhile

from PIL import Image, PngImagePlugin

from editing.errors import EditingError
from editing.face.fields import MAX_BYTES
from editing.face.recipe import Recipe

KEY = "memorygan-recipe"
SOFTWARE = "MemoryGAN Studio"
_PNG, _JPEG, _WEBP, _TIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", (b"II*\0", b"MM\0*")
_OTHERS = (b"GIF8", b"BM", b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51")
_TIFF_XMP = 700
# A JPEG's segment holds 65,533 bytes; a marker that no other program uses, with a name as the standard asks for.
_APP = 0xEC
_NAME = KEY.encode("ascii") + b"\0"
_SEGMENT = 65_000
_NAMESPACE = "urn:memorygan-studio:recipe"
_IN_XMP = re.compile(rb'memorygan:recipe="([^"]*)"')


def embed(image: Image.Image, recipe: Recipe) -> bytes:
    """PNG bytes of the picture with the recipe in a text chunk.

    Raises:
        EditingError: if the recipe is longer than 8 MiB.
    """
    info = PngImagePlugin.PngInfo()
    info.add_text(KEY, text_of(recipe))  # the codes in it are compressed already
    info.add_text("Software", SOFTWARE)
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def text_of(recipe: Recipe) -> str:
    """The recipe as it stands in a picture.

    Raises:
        EditingError: if it is longer than 8 MiB.
    """
    text = recipe.to_json()
    if len(text) > MAX_BYTES:
        raise EditingError("this recipe is too long to be kept; duplicate the face and go on from there")
    return text


def in_jpeg(data: bytes, text: str, more: bytes = b"") -> bytes:
    """The same JPEG with a text in segments of their own, behind those that say what the file is; ``more`` first."""
    heads = takewhile(lambda segment: 0xE0 <= segment[0] <= 0xEF, jpeg_segments(data))
    position = 2 + sum(4 + len(content) for _, _, content in heads)
    body = text.encode("utf-8")
    pieces = [body[start : start + _SEGMENT] for start in range(0, len(body), _SEGMENT)]
    segments = b"".join(
        struct.pack(">BBH", 0xFF, _APP, 2 + len(_NAME) + 1 + len(piece)) + _NAME + bytes([index]) + piece
        for index, piece in enumerate(pieces)
    )
    return data[:position] + more + segments + data[position:]


def as_xmp(text: str | None, more: str = "") -> bytes:
    """A packet of metadata; empty if there is nothing to say.

    Args:
        text: of a recipe, for WebP and TIFF.
        more: further descriptions in RDF.
    """
    own = ""
    if text:
        own = f'<rdf:Description rdf:about="" xmlns:memorygan="{_NAMESPACE}" memorygan:recipe="{html.escape(text)}"/>'
    if not (own or more):
        return b""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f"{own}{more}</rdf:RDF></x:xmpmeta>"
    ).encode()


def extract(data: bytes) -> Recipe:
    """The recipe inside a picture. Only headers are walked: no picture is decoded.

    Raises:
        EditingError: if this is no such picture or has no recipe; see also :meth:`Recipe.from_json`.
    """
    if data.startswith(_PNG):
        prefix = KEY.encode("ascii") + b"\0"
        found = (body[len(prefix) :] for kind, body in png_chunks(data) if kind == b"tEXt" and body.startswith(prefix))
        text = next(found, b"")
    elif data.startswith(_JPEG):
        pieces = [
            body[len(_NAME) :] for kind, _, body in jpeg_segments(data) if kind == _APP and body.startswith(_NAME)
        ]
        text = b"".join(piece[1:] for piece in sorted(pieces, key=lambda piece: piece[:1]))
    elif data.startswith(_WEBP):
        text = _from_xmp(next((body for name, body in webp_chunks(data) if name == b"XMP "), b""))
    elif data.startswith(_TIFF):
        text = _from_xmp(_tiff_xmp(data))
    else:
        raise EditingError("only a picture that was saved here carries a recipe; choose one, or the JSON file")
    if not text:
        raise EditingError("this picture carries no recipe; it was not saved here, or another program removed it")
    return Recipe.from_json(text)


def read_recipe(data: bytes | str) -> Recipe:
    """A recipe from the bytes of a picture, JSON bytes or JSON text.

    Raises:
        EditingError: see :func:`extract` and :meth:`Recipe.from_json`.
    """
    if isinstance(data, bytes) and data.startswith((_PNG, _JPEG, _WEBP, *_TIFF, *_OTHERS)):
        return extract(data)
    return Recipe.from_json(data)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of a PNG's chunks, as far as it is whole."""
    position = len(_PNG)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        if len(body) < length:
            return
        yield kind, body
        position += 12 + length


def png_chunk(name: bytes, body: bytes) -> bytes:
    """A PNG's chunk."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of a WebP's chunks, as far as it is whole."""
    position = 12
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        yield name, data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Marker, place and content of the segments that stand before a JPEG's picture."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        length = int(struct.unpack_from(">H", data, position + 2)[0])
        yield data[position + 1], position, data[position + 4 : position + 2 + length]
        position += 2 + length


def _from_xmp(packet: bytes) -> bytes:
    found = _IN_XMP.search(packet[: 6 * MAX_BYTES])
    return html.unescape(found.group(1).decode("utf-8", "replace")).encode() if found else b""


def _tiff_xmp(data: bytes) -> bytes:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
                found = image.getexif().get(_TIFF_XMP, b"")
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, Image.DecompressionBombError):
        return b""
    return found if isinstance(found, bytes) else b""
