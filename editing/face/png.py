"""Recipes inside a PNG, small enough to ride along."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from PIL import Image, PngImagePlugin

from editing.errors import EditingError
from editing.face.fields import MAX_BYTES
from editing.face.recipe import Recipe

PNG_KEY = "memorygan-recipe"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def embed(image: Image.Image, recipe: Recipe) -> bytes:
    """PNG bytes of the picture with the recipe in a text chunk.

    Raises:
        EditingError: if the recipe is longer than 8 MiB.
    """
    text = recipe.to_json()
    if len(text) > MAX_BYTES:
        raise EditingError("this recipe is too long to be kept; duplicate the face and go on from there")
    info = PngImagePlugin.PngInfo()
    info.add_text(PNG_KEY, text)  # the codes in it are compressed already
    info.add_text("Software", "MemoryGAN Studio")
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def extract(data: bytes) -> Recipe:
    """The recipe inside a PNG. Only chunk headers are walked: no picture is decoded.

    Raises:
        EditingError: if this is no PNG or has no recipe; see also :meth:`Recipe.from_json`.
    """
    if not data.startswith(_PNG_SIGNATURE):
        raise EditingError("only a PNG that was saved here carries a recipe; choose one, or the JSON file")
    prefix = PNG_KEY.encode("ascii") + b"\0"
    for kind, body in _png_chunks(data):
        if kind == b"tEXt" and body.startswith(prefix):
            return Recipe.from_json(body[len(prefix) :])
    raise EditingError("this picture carries no recipe; it was not saved here, or another program removed it")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        if len(body) < length:
            return
        yield kind, body
        position += 12 + length


def read_recipe(data: bytes | str) -> Recipe:
    """A recipe from PNG bytes, JSON bytes or JSON text.

    Raises:
        EditingError: see :func:`extract` and :meth:`Recipe.from_json`.
    """
    if isinstance(data, bytes):
        if data.startswith(_PNG_SIGNATURE):
            return extract(data)
        if data.startswith((b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")):
            raise EditingError("only a PNG that was saved here carries a recipe; choose one, or the JSON file")
    return Recipe.from_json(data)
