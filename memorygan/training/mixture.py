"""Several face sets as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from memorygan.training.packfile import DataError
from memorygan.training.packing import Holdout, split_names
from memorygan.training.sources import FolderSource, Source, open_source

SEPARATOR = "/"  # between folder and face in a name; no file's own name can hold it


class MixedSource(Source):
    """The faces of several folders, named ``folder/face``; each folder has a validation split of its own.

    Args:
        roots: folders of face sets, see :func:`memorygan.training.sources.open_source`.
        holdouts: one rule for each folder, or one for all, or none: see
            :func:`memorygan.training.packing.split_names`.
        kind: of the folders, ``auto`` to look.

    Attributes:
        sources: folder name → its faces.
        held_out: names of the faces that validate.

    Raises:
        DataError: if a folder holds no faces, two have the same name, or the rules do not match the folders.
    """

    def __init__(self, roots: Sequence[Path], holdouts: Sequence[Holdout] = (), kind: str = "auto") -> None:
        sources = {root.resolve().name: open_source(root, kind) for root in roots}
        if len(sources) != len(roots):
            raise DataError("two of the folders have the same name, so that their faces could not be told apart")
        rules = list(holdouts) * len(roots) if len(holdouts) == 1 else list(holdouts) or [None] * len(roots)
        if len(rules) != len(roots):
            raise DataError(f"--holdout has {len(rules)} values for {len(roots)} folders; give one, or one for each")
        self.sources: dict[str, FolderSource] = sources
        kinds = {source.kind for source in sources.values()}
        self.kind = kinds.pop() if len(kinds) == 1 else "mixture"
        self.description = "; ".join(source.description for source in sources.values())
        self.held_out = {
            f"{label}{SEPARATOR}{name}"
            for (label, source), rule in zip(sources.items(), rules, strict=True)
            for name in split_names(source, rule).get("val", [])
        }

    def _of(self, name: str) -> tuple[FolderSource, str]:
        label, _, face = name.partition(SEPARATOR)
        return self.sources[label], face

    def names(self) -> list[str]:
        return [f"{label}{SEPARATOR}{name}" for label, source in self.sources.items() for name in source.names()]

    def stamp(self, name: str) -> list[object]:
        source, face = self._of(name)
        return source.stamp(face)

    def problems(self, size: int) -> dict[str, str]:
        return {
            f"{label}{SEPARATOR}{name}": reason
            for label, source in self.sources.items()
            for name, reason in source.problems(size).items()
        }

    def load(self, name: str) -> tuple[Image.Image, np.ndarray]:
        """See :class:`memorygan.training.sources.Source`."""
        source, face = self._of(name)
        return source.load(face)

    def official_val(self, name: str) -> bool:
        return name in self.held_out

    def labels(self, name: str) -> dict[str, str]:
        source, face = self._of(name)
        return source.labels(face)
