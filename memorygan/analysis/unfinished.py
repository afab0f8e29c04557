"""What an interrupted study has measured so far: arrays on disk, batch by batch, until the study is done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


class Unfinished:
    """A folder of arrays that belong to one key.

    Args:
        folder: where the folders of all keys lie.
        key: everything the arrays depend on, of JSON types; another key has another folder.
    """

    def __init__(self, folder: Path, key: Any) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.folder = folder / digest[:16]

    def load(self, name: str) -> Arrays | None:
        """The arrays of a name, or None if they have to be made (again)."""
        try:
            with np.load(self.folder / f"{name}.npz") as stored:
                return {key: stored[key] for key in stored.files}
        except (OSError, ValueError, zipfile.BadZipFile):
            return None

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps arrays; a kill at any moment leaves them whole or absent."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{name}.tmp"
        with unfinished.open("wb") as stream:
            np.savez(stream, **dict[str, Any](arrays))
        os.replace(unfinished, self.folder / f"{name}.npz")

    def clear(self) -> None:
        """Forgets everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # absent, or other keys still have something there
            self.folder.parent.rmdir()
