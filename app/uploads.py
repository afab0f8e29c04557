"""Files people give to the page: read once, then taken off the server's disk."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from editing.errors import EditingError

MAX_BYTES = 25 * 2**20


def take(payload: Any) -> bytes:
    """The bytes of an uploaded file; the file is removed.

    Args:
        payload: what Gradio hands to a listener with ``preprocess=False``: a mapping with the file's path.

    Raises:
        EditingError: if there is no file, it is too large, or it was not uploaded here.
    """
    path = payload.get("path") if isinstance(payload, dict) else None
    if not isinstance(path, str) or not path:
        raise EditingError("no file arrived; choose it again")
    file, folder = Path(path).resolve(), Path(get_upload_folder()).resolve()
    # Gradio checks this as well; a path is the one thing here that must never be believed.
    if folder not in file.parents or not file.is_file():
        raise EditingError("this file is no longer here; choose it again")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise EditingError(f"the file is larger than {MAX_BYTES >> 20} MiB; choose a smaller one")
        return file.read_bytes()
    finally:
        with contextlib.suppress(OSError):
            file.unlink()
            file.parent.rmdir()
