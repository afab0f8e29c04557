"""The standard judges: where their libraries keep the weights, how to read them safely, and where to fetch them.

Nothing is unpickled: safetensors, pickles reduced to tensors (``weights_only``), or, for OpenAI's TorchScript archive,
a file whose published sha256 was checked before it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import tempfile
import urllib.request
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

GUIDANCE_DIR_VARIABLE = "MEMORYGAN_GUIDANCE_DIR"
_TIMEOUT = 20.0
_CHUNK = 1 << 20
_DAMAGED = (safetensors.SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class StandardWeights:
    """A well-known judge.

    Attributes:
        name, title: as in the registry.
        model: what is built: an open_clip model name, or "InceptionResnetV1".
        file: name of the published file.
        url: where it is published.
        sha256: of that file, where its publisher names it; else "".
        hub: Hugging Face repository that has the same weights as safetensors, and the file in it; else "".
        safe_file: further name under which a safetensors copy is looked for in the guidance folder.
    """

    name: str
    title: str
    model: str
    file: str
    url: str
    sha256: str = ""
    hub: tuple[str, str] | None = None
    safe_file: str = ""

    @property
    def home(self) -> Path:
        """Where its library keeps the published file."""
        if self.name == "openai":
            return Path("~/.cache/clip").expanduser()  # open_clip does not ask XDG_CACHE_HOME
        return Path(os.environ.get("TORCH_HOME") or _cache_home() / "torch").expanduser() / "checkpoints"

    def present(self) -> tuple[Path, ...]:
        """Its files that are there, the safer format first."""
        found: list[Path] = []
        if folder := os.environ.get(GUIDANCE_DIR_VARIABLE):
            names = dict.fromkeys(name for name in (self.safe_file, self.hub and self.hub[1], self.file) if name)
            found += [Path(folder).expanduser() / name for name in names]
        if self.hub:
            repository, name = self.hub
            snapshots = _hub_home() / f"models--{repository.replace('/', '--')}" / "snapshots"
            found += sorted(snapshots.glob(f"*/{name}"))
        return tuple(path for path in (*found, self.home / self.file) if path.is_file())

    def fetch(self) -> Path:
        """Downloads the published file to where its library looks for it.

        Raises:
            OSError: if that fails; nothing is left behind then.
            ValueError: if the file is not the published one.
        """
        target = self.home / self.file
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as output, urllib.request.urlopen(self.url, timeout=_TIMEOUT) as stream:
                while chunk := stream.read(_CHUNK):
                    output.write(chunk)
            self.check(Path(temporary))
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        return target

    def check(self, path: Path) -> None:
        """Compares a published file with its published hash, where there is one.

        Raises:
            ValueError: if they differ.
        """
        if self.sha256 and file_hash(path) != self.sha256:
            raise ValueError("its sha256 is not the published one")

    def read(self, path: Path) -> dict[str, Tensor]:
        """The state dict in one of :meth:`present`.

        Raises:
            ValueError: if the file is damaged, or is not what was published.
        """
        try:
            if path.suffix == ".safetensors":
                return safetensors.torch.load_file(path)
            if self.sha256:
                self.check(path)
                with warnings.catch_warnings():  # the format is old, but it is the one that was published
                    warnings.simplefilter("ignore", DeprecationWarning)
                    archive = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
                state: dict[str, Tensor] = dict(archive.state_dict())
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
        except _DAMAGED as error:
            raise ValueError("it is damaged or of another kind") from error
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("it is not a list of tensors")
        # OpenAI's archive keeps three numbers about the model, facenet-pytorch's file the training's classifier.
        extra = ("input_resolution", "context_length", "vocab_size", "logits.weight", "logits.bias")
        return {key: value for key, value in state.items() if key not in extra}


OPENAI_CLIP = StandardWeights(
    name="openai",
    title="OpenAI CLIP ViT-B/32",
    model="ViT-B-32-quickgelu",
    file="ViT-B-32.pt",
    url="https://openaipublic.azureedge.net/clip/models/"
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    hub=("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"),
    safe_file="ViT-B-32.safetensors",
)
VGGFACE2 = StandardWeights(
    name="vggface2",
    title="VGGFace2 InceptionResnetV1",
    model="InceptionResnetV1",
    file="20180402-114759-vggface2.pt",
    url="https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",
    safe_file="vggface2.safetensors",
)


def file_hash(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _hub_home() -> Path:
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("HF_HOME") or _cache_home() / "huggingface").expanduser() / "hub"
