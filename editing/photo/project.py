"""A project file: the photo as it was uploaded and the recipe of its edits, in one ZIP that opens by itself.

Photos that parts were taken from are in it as well.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence

from editing.errors import EditingError
from editing.face.fields import MAX_BYTES
from editing.face.recipe import Recipe
from editing.photo.decode import Photo

# The largest photo, another that parts were taken from, and the recipe.
MAX_PROJECT = 64 * 2**20
_RECIPE, _PHOTO, _LENT = "recipe.json", "photo", "lent"
_MOST_LENT = 16
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif", "HEIF": "heic", "AVIF": "avif", "GIF": "gif"}


def is_project(data: bytes | str) -> bool:
    """Whether this is a ZIP."""
    return isinstance(data, bytes) and data.startswith(b"PK\x03\x04")


def pack(photos: Sequence[Photo], recipe: Recipe) -> bytes:
    """The bytes of a project file.

    Args:
        photos: the edited one, then those that parts were taken from.
        recipe: of the edits.

    Raises:
        EditingError: if it would be longer than can be opened.
    """
    stream = io.BytesIO()
    # Nothing is compressed: photos are already.
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as file:
        file.writestr(_RECIPE, recipe.to_json())
        for number, photo in enumerate(photos):
            name = f"{_LENT}-{number}" if number else _PHOTO
            file.writestr(f"{name}.{_SUFFIXES.get(photo.kept.format, 'bin')}", photo.data)
    if stream.tell() > MAX_PROJECT:
        raise EditingError(
            f"the project would have {math.ceil(stream.tell() / 2**20)} MiB, and at most {MAX_PROJECT >> 20} MiB can "
            "be opened again; save the recipe instead, and keep the photos"
        )
    return stream.getvalue()


def unpack(data: bytes, max_photo: int) -> tuple[list[bytes], Recipe]:
    """The photos' files, the edited one first, and the recipe. Nothing is written to disk, and no more is unpacked than
    is allowed.

    Args:
        data: of a project file.
        max_photo: bytes of a photo's file.

    Raises:
        EditingError: if this is no project file, or it is damaged or too large.
    """
    if len(data) > MAX_PROJECT:
        raise EditingError(f"the project is larger than {MAX_PROJECT >> 20} MiB, which is not accepted")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            photos = [name for name in file.namelist() if name.startswith(f"{_PHOTO}.")]
            lent = [name for name in file.namelist() if name.startswith(f"{_LENT}-")]
            if _RECIPE not in file.namelist() or len(photos) != 1 or len(lent) > _MOST_LENT:
                raise EditingError("this ZIP is no project of this program; choose one that was saved here")
            files: list[bytes] = []
            for name in (*photos, *lent):
                left = MAX_PROJECT - sum(map(len, files))  # what was packed small may be large
                files.append(_read(file, name, min(max_photo, left)))
            return files, Recipe.from_json(_read(file, _RECIPE, MAX_BYTES))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise EditingError("the project file is damaged; use another copy of it") from error


def _read(file: zipfile.ZipFile, name: str, limit: int) -> bytes:
    with file.open(name) as stream:
        found = stream.read(limit + 1)
    if len(found) > limit:
        raise EditingError(f"{name} in the project is larger than {limit / 2**20:g} MiB, which is not accepted")
    return found
