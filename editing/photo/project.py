"""A project file: the photo as it was uploaded and the recipe of its edits, in one ZIP that opens by itself."""

from __future__ import annotations

import io
import zipfile

from editing.errors import EditingError
from editing.face.fields import MAX_BYTES
from editing.face.recipe import Recipe
from editing.photo.decode import Photo

_RECIPE, _PHOTO = "recipe.json", "photo"
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif", "HEIF": "heic", "AVIF": "avif", "GIF": "gif"}


def is_project(data: bytes | str) -> bool:
    """Whether this is a ZIP."""
    return isinstance(data, bytes) and data.startswith(b"PK\x03\x04")


def pack(photo: Photo, recipe: Recipe) -> bytes:
    """The bytes of a project file."""
    stream = io.BytesIO()
    # Nothing is compressed: photos are already.
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as file:
        file.writestr(_RECIPE, recipe.to_json())
        file.writestr(f"{_PHOTO}.{_SUFFIXES.get(photo.kept.format, 'bin')}", photo.data)
    return stream.getvalue()


def unpack(data: bytes, max_photo: int) -> tuple[bytes, Recipe]:
    """The photo's file and the recipe. Nothing is written to disk, and no more is unpacked than is allowed.

    Args:
        data: of a project file.
        max_photo: bytes of the photo's file.

    Raises:
        EditingError: if this is no project file, or it is damaged or too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            photos = [name for name in file.namelist() if name.startswith(f"{_PHOTO}.")]
            if _RECIPE not in file.namelist() or len(photos) != 1:
                raise EditingError("this ZIP is no project of this program; choose one that was saved here")
            return _read(file, photos[0], max_photo), Recipe.from_json(_read(file, _RECIPE, MAX_BYTES))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise EditingError("the project file is damaged; use another copy of it") from error


def _read(file: zipfile.ZipFile, name: str, limit: int) -> bytes:
    with file.open(name) as stream:
        found = stream.read(limit + 1)
    if len(found) > limit:
        raise EditingError(f"{name} in the project is larger than {limit / 2**20:g} MiB, which is not accepted")
    return found
