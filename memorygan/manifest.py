"""The bundled weights: a manifest of names, hashes and licences, and which generator to open first."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from memorygan.checkpoint import GENERATORS, CheckpointError, kind_of, read_bytes, refuse_lfs_pointer, write_atomically

MANIFEST_NAME = "manifest.json"
CHECKPOINT_VARIABLE = "MEMORYGAN_CHECKPOINT"
WEIGHTS_DIR = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True)
class ManifestEntry:
    """One bundled file.

    Attributes:
        file: name inside the weights directory.
        kind: see :func:`load_module`.
        sha256: in hexadecimal.
        bytes: size of the file.
        title: the name a person sees.
        licence: licence of the weights.
        default: the one generator to use when nobody named another.
    """

    file: str
    kind: str
    sha256: str
    bytes: int
    title: str
    licence: str
    default: bool = False


def read_manifest(weights_dir: str | os.PathLike[str] = WEIGHTS_DIR) -> tuple[ManifestEntry, ...]:
    """The entries of ``manifest.json``; none if there is no such file. The files themselves are not opened.

    Raises:
        CheckpointError: if the manifest cannot be understood.
    """
    file = Path(weights_dir) / MANIFEST_NAME
    if not file.exists():
        return ()
    try:
        entries = tuple(ManifestEntry(**values) for values in json.loads(read_bytes(file)))
        for entry in entries:
            _check_entry(entry)
    except CheckpointError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be understood: {error}") from error
    return entries


def _check_entry(entry: ManifestEntry) -> None:
    texts = (entry.file, entry.kind, entry.sha256, entry.title, entry.licence)
    if not all(isinstance(text, str) for text in texts) or not isinstance(entry.default, bool):
        raise ValueError(f"the entry {entry.file!r} has a field of the wrong type")
    if not isinstance(entry.bytes, int):
        raise ValueError(f"the entry {entry.file!r} has no size")
    if not entry.file or Path(entry.file).name != entry.file:
        raise ValueError(f"the entry {entry.file!r} is not a plain file name")


def _verify(weights_dir: Path, entry: ManifestEntry) -> Path:
    file = weights_dir / entry.file
    data = read_bytes(file)
    refuse_lfs_pointer(file, data)
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256 or len(data) != entry.bytes:
        raise CheckpointError(
            f"{file} is not the file that was published: expected sha256 {entry.sha256} ({entry.bytes} bytes), "
            f"found {found} ({len(data)} bytes); download or copy it again"
        )
    return file


def update_manifest(
    weights_dir: str | os.PathLike[str], file: str, *, title: str, licence: str, default: bool = False
) -> ManifestEntry:
    """Adds a file of the weights directory to its manifest, or replaces its entry.

    Args:
        weights_dir: the directory.
        file: name of a checkpoint in it.
        title: the name a person sees.
        licence: licence of the weights.
        default: make this generator the default, instead of any other.

    Raises:
        CheckpointError: if the file is no valid checkpoint, or is no generator but shall be the default.
    """
    directory = Path(weights_dir)
    data = read_bytes(directory / file)
    kind = kind_of(directory / file, data)
    if default and kind not in GENERATORS:
        raise CheckpointError(f"{file} is of kind {kind!r}; only a generator can be the default")
    entry = ManifestEntry(file, kind, hashlib.sha256(data).hexdigest(), len(data), title, licence, default)
    try:
        _check_entry(entry)
    except ValueError as error:
        raise CheckpointError(f"cannot add to the manifest: {error}") from error
    others = [asdict(other) for other in read_manifest(directory) if other.file != file]
    if default:
        others = [{**other, "default": False} for other in others]
    text = json.dumps([*others, asdict(entry)], indent=2, ensure_ascii=False) + "\n"
    write_atomically(directory / MANIFEST_NAME, text.encode())
    return entry


def bundled_checkpoint(kind: str, weights_dir: str | os.PathLike[str] = WEIGHTS_DIR) -> Path | None:
    """The verified bundled file of a kind: the default one, else the first; None if there is none.

    Raises:
        CheckpointError: if that file is missing or differs from the manifest.
    """
    entries = [entry for entry in read_manifest(weights_dir) if entry.kind == kind]
    chosen = next((entry for entry in entries if entry.default), entries[0] if entries else None)
    return None if chosen is None else _verify(Path(weights_dir), chosen)


def default_checkpoint(weights_dir: str | os.PathLike[str] = WEIGHTS_DIR) -> Path | None:
    """The generator to use when nobody named one: ``MEMORYGAN_CHECKPOINT``, else the manifest's default, else None.

    Raises:
        CheckpointError: if that file is missing, or a bundled one differs from the manifest.
    """
    if named := os.environ.get(CHECKPOINT_VARIABLE):
        path = Path(named).expanduser()
        if not path.is_file():
            raise CheckpointError(f"{CHECKPOINT_VARIABLE} names {path}, but there is no such file")
        return path
    chosen = next((entry for entry in read_manifest(weights_dir) if entry.default), None)
    return None if chosen is None else _verify(Path(weights_dir), chosen)
