"""Files people give to the page, and files programs get: each under a name nobody else can know.

Gradio names both by a hash of what is in them, so that two people who send the same photo share one file, and whoever
knows the content knows the name.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from gradio import route_utils
from gradio.utils import get_upload_folder

from editing.errors import EditingError
from editing.photo.decode import too_long
from editing.photo.project import MAX_PROJECT

MAX_BYTES = 64 * 2**20
# What was saved here: a photo without loss, or a project.
MAX_SAVED = MAX_PROJECT
SAVED = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".json", ".zip")  # names of what was saved here
# Files for programs: for how many seconds they are kept, and how many bytes of them at most.
RESULT_AGE, MAX_RESULTS = 3600.0, 512 * 2**20
_NAME = 64  # letters of the names of Gradio's folders


class _Unique(route_utils.GradioUploadFile):
    """An upload whose hash nobody can foretell, and that no other upload has."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sha.update(secrets.token_bytes(32))


def separate() -> None:
    """Has Gradio give every upload a folder of its own from now on."""
    route_utils.GradioUploadFile = _Unique  # type: ignore[misc]


def own_file(path: Any) -> Path | None:
    """A file that was uploaded here and is still there, or None."""
    if not isinstance(path, str) or not path or "\0" in path:
        return None
    file, folder = Path(path).resolve(), Path(get_upload_folder()).resolve()
    # Gradio checks this as well; a path is the one thing here that must never be believed.
    uploaded = file.parent.parent == folder and len(file.parent.name) == _NAME
    return file if uploaded and file.is_file() else None


def take(payload: Any, limit: int = MAX_BYTES) -> bytes:
    """The bytes of an uploaded file; the file is removed.

    Args:
        payload: what Gradio hands to a listener with ``preprocess=False``: a mapping with the file's path.
        limit: of its bytes.

    Raises:
        EditingError: if there is no file, it is too large, or it was not uploaded here.
    """
    path = payload.get("path") if isinstance(payload, dict) else None
    if not isinstance(path, str) or not path:
        raise EditingError("no file arrived; choose it again")
    file = own_file(path)
    if file is None:
        raise EditingError("this file is no longer here; choose it again")
    try:
        if file.stat().st_size > limit:
            raise EditingError(too_long(file.stat().st_size, limit))
        return file.read_bytes()
    finally:
        _remove(file)


class Results:
    """Files for programs to fetch; only whoever is told a path can, and nobody else can remove it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: deque[tuple[float, int, Path]] = deque()
        self._bytes = 0

    def give(self, data: bytes, name: str) -> str:
        """Writes a file and returns its path; those that are too old or too many go.

        Args:
            data: what is in it.
            name: how it is called.
        """
        folder = Path(get_upload_folder()) / "results" / secrets.token_hex(16)
        folder.mkdir(parents=True)
        file = folder / name
        file.write_bytes(data)
        with self._lock:
            self._given.append((time.monotonic(), len(data), file))
            self._bytes += len(data)
        self.tidy()
        return str(file)

    def tidy(self) -> None:
        """Removes what is older than :data:`RESULT_AGE`, and the oldest of more than :data:`MAX_RESULTS`."""
        gone = []
        with self._lock:
            while self._given:
                at, size, file = self._given[0]
                if self._bytes <= MAX_RESULTS and time.monotonic() - at < RESULT_AGE:
                    break
                self._given.popleft()
                self._bytes -= size
                gone.append(file)
        for file in gone:
            _remove(file)


def forget_removed(*sets: set[str]) -> None:
    """Takes the paths of files that are gone out of sets, in which Gradio keeps them for ever."""
    for paths in sets:
        paths -= {path for path in list(paths) if not os.path.exists(path)}


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()
        file.parent.rmdir()
