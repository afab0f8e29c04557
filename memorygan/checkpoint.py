"""Checkpoints: one safetensors file that holds the tensors, the configuration and where they came from.

Nothing is ever unpickled, so opening a file from a stranger cannot run anything. What is loaded is checked before it
is used: the format, the kind, the format version, and name, shape, number type and values of every tensor.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from memorygan.baseline import SemanticStyleGAN
from memorygan.config import PRESETS, GeneratorConfig
from memorygan.controller import IDLE
from memorygan.finite import check_finite
from memorygan.generator import ComposedGenerator, MemoryGAN

Network = TypeVar("Network", bound=nn.Module)

FORMAT_VERSION = 1
# The one entry of the safetensors metadata; a single entry also keeps the file's bytes, and so its hash, reproducible.
METADATA_KEY = "memorygan"
GENERATORS: Mapping[str, Callable[[GeneratorConfig], ComposedGenerator]] = {
    "memorygan": MemoryGAN,
    "semanticstylegan": SemanticStyleGAN,
}
_PICKLE_START, _ZIP_START, _LFS_START = b"\x80", b"PK\x03\x04", b"version https://git-lfs"


class CheckpointError(ValueError):
    """A checkpoint cannot be read or written; the message is one sentence for the person who named the file."""


@dataclass(frozen=True)
class Provenance:
    """Where a checkpoint came from.

    Attributes:
        data: the data sets it was trained on.
        licence: licence of the weights.
        images_seen: images shown in training.
        recipe: name of the training recipe.
        command: the command that trained or converted it.
        date: ISO 8601 date.
        notes: anything else a user should know.
    """

    data: tuple[str, ...] = ()
    licence: str = ""
    images_seen: int = 0
    recipe: str = ""
    command: str = ""
    date: str = ""
    notes: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Provenance:
        """Builds a provenance from JSON types.

        Raises:
            ValueError: for an unknown field or one of the wrong type.
        """
        if unknown := sorted(set(values) - {item.name for item in fields(cls)}):
            raise ValueError(f"unknown provenance fields {', '.join(unknown)}")
        data, images = values.get("data", ()), values.get("images_seen", 0)
        texts = {name: values.get(name, "") for name in ("licence", "recipe", "command", "date", "notes")}
        if not isinstance(data, (list, tuple)) or not all(isinstance(text, str) for text in (*data, *texts.values())):
            raise ValueError("a provenance field that should be text is not")
        if not isinstance(images, int) or isinstance(images, bool) or images < 0:
            raise ValueError(f"images_seen is {images!r}, not a count")
        return cls(data=tuple(data), images_seen=images, **texts)


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator read from a checkpoint.

    Attributes:
        generator: in eval mode, float32 parameters, on the wanted device.
        kind: "memorygan" or "semanticstylegan".
        preset: name of the preset with the same configuration, or None.
        provenance: where the weights came from.
        images_seen: images shown in training.
        sha256: of the file, in hexadecimal.
    """

    generator: ComposedGenerator
    kind: str
    preset: str | None
    provenance: Provenance
    images_seen: int
    sha256: str


def save_module(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], meta: Mapping[str, Any], *, half: bool = False
) -> str:
    """Writes tensors and JSON metadata into one file; a crash leaves the old file or the new one, never half of one.

    Args:
        path: the file; its directory is made if needed.
        state: name → tensor of any shape, for example ``module.state_dict()``.
        meta: JSON types; must have "kind". "format_version" is added.
        half: store float32 tensors as float16; loading restores float32.

    Returns:
        The sha256 of the file, in hexadecimal.

    Raises:
        CheckpointError: for metadata that is not JSON, an entry that is no tensor, a value beyond the float16 range
            with ``half``, or a file that cannot be written.
    """
    target = Path(path)
    if not isinstance(meta.get("kind"), str) or not meta["kind"]:
        raise CheckpointError(f"cannot write {target}: its metadata needs a 'kind', for example 'memorygan'")
    try:
        text = json.dumps({**meta, "format_version": FORMAT_VERSION}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"cannot write {target}: its metadata is not plain JSON ({error})") from error
    tensors = {name: _storable(target, name, value, half) for name, value in state.items()}
    data = safetensors.torch.save(tensors, {METADATA_KEY: text})
    write_atomically(target, data)
    return hashlib.sha256(data).hexdigest()


def load_module(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what :func:`save_module` wrote.

    Args:
        path: the file.
        kind: the kind the file must be of.

    Returns:
        name → CPU tensor, float16 restored to float32; and the metadata.

    Raises:
        CheckpointError: if the file is missing, empty, a directory, cut short, a pickle, made by another program,
            of another kind, or of a newer format.
    """
    return parse_module(Path(path), read_bytes(Path(path)), kind)


def parse_module(file: Path, data: bytes, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """As :func:`load_module`, from bytes that were read already; ``file`` is for the messages alone."""
    tensors, meta, _ = _parse(file, data, (kind,))
    return tensors, meta


def save_generator(
    path: str | os.PathLike[str], generator: ComposedGenerator, *, half: bool = True, provenance: Provenance
) -> str:
    """Writes a generator with its configuration, part scheme, mean latents and provenance.

    Args:
        path: the file.
        generator: a :class:`MemoryGAN` or another class of :data:`GENERATORS`.
        half: store float16, half the size; loading restores float32.
        provenance: where the weights came from.

    Returns:
        The sha256 of the file, in hexadecimal.

    Raises:
        CheckpointError: see :func:`save_module`, or a generator class that has no kind.
    """
    kind = next((name for name, cls in GENERATORS.items() if type(generator) is cls), None)
    if kind is None:
        raise CheckpointError(f"cannot write {path}: a {type(generator).__name__} has no checkpoint kind")
    meta = {"kind": kind, "config": asdict(generator.config), "provenance": asdict(provenance)}
    return save_module(path, generator.state_dict(), meta, half=half)


def load_generator(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> LoadedGenerator:
    """Reads a generator and checks every tensor of it.

    Args:
        path: the file.
        device: where the generator shall compute.

    Raises:
        CheckpointError: see :func:`load_module`; also for a configuration that is unknown or impossible, for
            missing, unexpected or mis-shaped tensors, and for values that are not finite.
    """
    file = Path(path)
    tensors, meta, sha256 = _parse(file, read_bytes(file), tuple(GENERATORS))
    try:
        config = GeneratorConfig.from_dict(_mapping(meta, "config"))
        provenance = Provenance.from_dict(_mapping(meta, "provenance"))
    except ValueError as error:
        raise CheckpointError(f"{file} cannot be used: {error}") from error
    if config.mapping_layers > len(tensors):
        raise CheckpointError(f"{file} is damaged: it names more mapping layers than it holds tensors")
    build = GENERATORS[meta["kind"]]
    generator = restore(file, tensors, lambda: build(config)).eval().to(device)
    preset = next((name for name, preset in PRESETS.items() if preset.generator == config), None)
    return LoadedGenerator(generator, meta["kind"], preset, provenance, provenance.images_seen, sha256)


def restore(file: Path, tensors: Mapping[str, Tensor], build: Callable[[], Network]) -> Network:
    """A network with the tensors of a file, which are compared first with what it asks for.

    Args:
        file: for the messages.
        tensors: what was found in it.
        build: makes the network.

    Raises:
        CheckpointError: if the network cannot be made, tensors are missing, unexpected or of another shape or number
            type, or a value is not finite.
    """
    _check_tensors(file, tensors, build)
    # The initial values are overwritten at once; the caller's random numbers must not depend on that.
    with torch.random.fork_rng(devices=[]):
        network = build()
    network.load_state_dict(tensors, strict=True)
    return network


def _check_tensors(file: Path, tensors: Mapping[str, Tensor], build: Callable[[], nn.Module]) -> None:
    """Compares tensors with what a network asks for, before any memory is spent on it."""
    try:
        with torch.device("meta"):
            wanted = build().state_dict()
    except ValueError as error:
        raise CheckpointError(f"{file} cannot be used: {error}") from error
    except (TypeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{file} cannot be used: its configuration is impossible ({error})") from error
    if missing := sorted(set(wanted) - set(tensors) - {f"controller.{IDLE}"}):
        raise CheckpointError(f"{file} lacks {_some(missing)}, which its configuration needs")
    if unexpected := sorted(set(tensors) - set(wanted)):
        raise CheckpointError(f"{file} holds {_some(unexpected)}, which its configuration has no use for")
    for name in set(wanted) & set(tensors):
        value, found = wanted[name], tensors[name]
        if found.shape != value.shape or found.dtype != value.dtype:
            raise CheckpointError(f"{file} holds {name} as {_kind(found)}, but its configuration needs {_kind(value)}")
    try:
        check_finite(tensors)
    except ValueError as error:
        raise CheckpointError(f"{file} cannot be used: {error}") from error


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more tensors"


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _mapping(meta: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = meta.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"its metadata has no {name}")
    return value


def _storable(file: Path, name: str, value: Any, half: bool) -> Tensor:
    """A contiguous CPU copy that shares memory with no other entry."""
    if not isinstance(value, Tensor):
        raise CheckpointError(f"cannot write {file}: {name} is a {type(value).__name__}, not a tensor")
    tensor = value.detach().to("cpu", copy=True).contiguous()
    if half and tensor.dtype == torch.float32:
        limit = torch.finfo(torch.float16).max
        largest = float(tensor.abs().max()) if tensor.numel() else 0.0
        if math.isfinite(largest) and largest > limit:
            raise CheckpointError(
                f"cannot write {file} in half precision: {name} reaches {largest:.3g}, beyond {limit:.0f}; "
                "store it in full precision"
            )
        tensor = tensor.half()
    return tensor


def _parse(file: Path, data: bytes, kinds: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Tensors, metadata and sha256."""
    header = _header(file, data)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file} is damaged or cut short ({error}); download or copy it again") from error
    meta = _metadata(file, header)
    _check_kind(file, meta, kinds)
    restored = {name: value.float() if value.dtype == torch.float16 else value for name, value in tensors.items()}
    return restored, meta, hashlib.sha256(data).hexdigest()


def _check_kind(file: Path, meta: Mapping[str, Any], kinds: tuple[str, ...]) -> None:
    if meta["kind"] not in kinds:
        wanted = " or ".join(repr(kind) for kind in kinds)
        raise CheckpointError(f"{file} holds a checkpoint of kind {meta['kind']!r}, but {wanted} is needed")


def read_metadata(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """What a checkpoint says about itself, without reading its tensors.

    Raises:
        CheckpointError: see :func:`load_module`; that the tensors are whole is not checked.
    """
    file = Path(path)
    try:
        with open(file, "rb") as stream:
            start = stream.read(8)
            length = min(int.from_bytes(start, "little"), file.stat().st_size)
            data = start + stream.read(length)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    meta = _metadata(file, _header(file, data))
    _check_kind(file, meta, (kind,))
    return meta


def read_bytes(file: Path) -> bytes:
    if file.is_dir():
        raise CheckpointError(f"{file} is a directory; name the checkpoint file in it")
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {file}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    if not data:
        raise CheckpointError(f"{file} is empty; download or copy it again")
    return data


def _header(file: Path, data: bytes) -> dict[str, Any]:
    """The JSON header of a safetensors file: eight bytes of length, then as many of JSON."""
    length = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{":
        # Only after the check above: a safetensors length may begin with the same byte as a pickle.
        if data.startswith((_ZIP_START, _PICKLE_START)):
            raise CheckpointError(
                f"{file} is a pickled file (.pt, .pth), which can run code and is never loaded here; convert a "
                "published SemanticStyleGAN checkpoint with 'python -m memorygan.convert in.pt out.safetensors'"
            )
        refuse_lfs_pointer(file, data)
        raise CheckpointError(f"{file} is not a safetensors file")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged or cut short; download or copy it again") from error
    return header if isinstance(header, dict) else {}


def refuse_lfs_pointer(file: Path, data: bytes) -> None:
    """Raises CheckpointError if the bytes are the text that Git LFS leaves in place of a file."""
    if data.startswith(_LFS_START):
        raise CheckpointError(f"{file} is only a Git LFS pointer; fetch the real file with 'git lfs pull'")


def kind_of(file: Path, data: bytes) -> str:
    """The kind that a checkpoint's bytes declare.

    Raises:
        CheckpointError: if they are no checkpoint of this program.
    """
    return str(_metadata(file, _header(file, data))["kind"])


def _metadata(file: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    entries = header.get("__metadata__")
    text = entries.get(METADATA_KEY) if isinstance(entries, dict) else None
    if not isinstance(text, str):
        raise CheckpointError(f"{file} was made by another program: it has no MemoryGAN Studio metadata")
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict) or not isinstance(meta.get("kind"), str):
        raise CheckpointError(f"{file} is damaged: its metadata cannot be read")
    version = meta.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise CheckpointError(f"{file} is damaged: its format version is {version!r}")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{file} has format version {version}, but this program reads up to {FORMAT_VERSION}; update the program"
        )
    return meta


def write_atomically(target: Path, data: bytes) -> None:
    """Temporary file in the same directory, flushed to disk, then renamed over the target."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        _sync_directory(target.parent)
    except OSError as error:
        raise CheckpointError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(directory: Path) -> None:
    """Deletes what killed calls of :func:`write_atomically` left behind; for directories that nobody else writes to."""
    for temporary in directory.glob(".*.????????.tmp"):
        temporary.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    """Makes the rename itself durable, where the system lets a directory be opened."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
