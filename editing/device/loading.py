"""What the service works with: the generator, and what lies beside it: sliders, encoder, parser, good seeds."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from editing.errors import EditingError
from editing.results import MAX_SEED
from editing.sliders.directions import SliderSet
from memorygan import prior, super_resolution
from memorygan.checkpoint import CheckpointError, load_generator
from memorygan.closer_look import LOOKS, bundled
from memorygan.config import get_preset
from memorygan.encoder import PartEncoder, load_encoder
from memorygan.fast import hardware
from memorygan.generator import ComposedGenerator, MemoryGAN
from memorygan.manifest import WEIGHTS_DIR, default_checkpoint
from memorygan.parser import FaceParser, load_parser

SLIDERS_NAME, ENCODER_NAME, PARSER_NAME, GALLERY_NAME = (
    "sliders.safetensors",
    "encoder.safetensors",
    "parser.safetensors",
    "gallery.json",
)
UNTRAINED_PRESET = "tiny-32"
T = TypeVar("T")


@dataclass(frozen=True)
class Assets:
    """Everything that was loaded.

    Attributes:
        generator: in evaluation mode, parameters without gradients.
        sha256: of its checkpoint.
        name: a short name for messages.
        sliders, encoder, parser: None where missing; ``missing`` says why.
        gallery: seeds worth showing first.
        missing: capability → one sentence that says why it is off.
        trained: False for the untrained stand-in.
        notice: to be shown permanently, or None.
        prior: sha256 of what draws the generator's query codes, or "" if its controller does.
    """

    generator: ComposedGenerator
    sha256: str
    name: str
    sliders: SliderSet | None
    encoder: PartEncoder | None
    parser: FaceParser | None
    gallery: tuple[int, ...]
    missing: dict[str, str]
    trained: bool
    notice: str | None
    prior: str = ""


def choose_device(name: str) -> torch.device:
    """As :func:`memorygan.fast.hardware.choose_device`.

    Raises:
        EditingError: for what cannot be used here.
    """
    try:
        return hardware.choose_device(name)
    except ValueError as error:
        raise EditingError(str(error)) from None


def load_assets(checkpoint: Path | None, device: torch.device) -> Assets:
    """Loads the named checkpoint, else the bundled one, else an untrained stand-in; and what lies beside it.

    Raises:
        EditingError: if a checkpoint that was named cannot be used.
    """
    try:
        path = checkpoint or default_checkpoint()
        if path is None:
            return _untrained(device, None)
        loaded = load_generator(path, device)
    except CheckpointError as error:
        if checkpoint is not None:
            raise EditingError(str(error)) from error
        return _untrained(device, f"The bundled model cannot be used ({error}); an untrained one takes its place.")
    generator = loaded.generator.eval().requires_grad_(False)
    missing: dict[str, str] = {}
    config, folder = generator.config, path.parent
    sliders = _optional(
        missing,
        "sliders",
        folder / SLIDERS_NAME,
        "run 'python -m editing.sliders.fit'",
        lambda file: SliderSet.load(file, loaded.sha256, config.parts, config.style_dim),
    )
    encoder = _optional(
        missing,
        "encode",
        folder / ENCODER_NAME,
        "photos start from the nearest sampled face instead",
        lambda file: _fitting_encoder(file, generator, device),
    )
    if (larger := folder / super_resolution.FILE).is_file():  # a checkpoint of one's own need not have it
        _optional(missing, "enlarge", larger, "", lambda file: _enlarge(generator, file, device))
    drawing = None
    if (drawn := folder / prior.FILE).is_file():
        drawing = _optional(missing, "draw", drawn, "", lambda file: _draw(generator, file))
    return Assets(
        generator,
        loaded.sha256,
        path.stem,
        sliders,
        encoder,
        _parser(missing, folder, device),
        _gallery(folder / GALLERY_NAME, loaded.sha256, drawing or ""),
        {**missing, **_missing_packages()},
        True,
        None,
        drawing or "",
    )


def untrained_generator(device: torch.device | str = "cpu", preset: str = UNTRAINED_PRESET) -> tuple[MemoryGAN, str]:
    """An untrained generator that is the same on every start, and a hash that stands for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = MemoryGAN(get_preset(preset).generator)
    generator.eval().requires_grad_(False).to(device)
    return generator, hashlib.sha256(f"untrained {preset}".encode()).hexdigest()


def _untrained(device: torch.device, notice: str | None) -> Assets:
    generator, sha256 = untrained_generator(device)
    missing = {
        "sliders": "This model is untrained, so it has no sliders.",
        "encode": "This model is untrained, so it has no photo encoder.",
    }
    parser = _parser(missing, WEIGHTS_DIR, device)
    notice = notice or (
        "No trained model was found, so an untrained one is in use and shows noise instead of faces; "
        "put a checkpoint into weights/ or name one with --checkpoint."
    )
    return Assets(
        generator, sha256, f"untrained {UNTRAINED_PRESET}", None, None, parser, (), {**missing, **_missing_packages()},
        False, notice,
    )  # fmt: skip


def _optional(missing: dict[str, str], name: str, file: Path, remedy: str, load: Callable[[Path], T]) -> T | None:
    if not file.is_file():
        missing[name] = f"There is no {file.name} beside the model; {remedy}."
        return None
    try:
        return load(file)
    except (CheckpointError, EditingError, ValueError) as error:
        missing[name] = f"{str(error)[:1].upper()}{str(error)[1:]}."
        return None


def _fitting_encoder(file: Path, generator: ComposedGenerator, device: torch.device) -> PartEncoder:
    encoder = load_encoder(file, device)
    config = generator.config
    if not isinstance(generator, MemoryGAN):
        raise EditingError("the photo encoder writes query codes, which this kind of model does not have")
    if (encoder.config.part_count, encoder.config.query_dim) != (config.part_count, config.query_dim):
        raise EditingError(f"{file.name} belongs to another model; photos start from the nearest sampled face instead")
    return encoder


def _enlarge(generator: ComposedGenerator, file: Path, device: torch.device) -> None:
    generator.enlarge_by(super_resolution.load_super_resolution(file, device))


def _draw(generator: ComposedGenerator, file: Path) -> str:
    if not isinstance(generator, MemoryGAN):
        raise EditingError("the prior draws query codes, which this kind of model does not have")
    generator.draw_by(prior.load_prior(file))
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _parser(missing: dict[str, str], folder: Path, device: torch.device) -> FaceParser | None:
    # The parser knows photos, not the generator: the bundled one serves every checkpoint.
    file = folder / PARSER_NAME
    if not file.is_file():
        file = WEIGHTS_DIR / PARSER_NAME
    closer = [file for file in map(bundled, LOOKS) if file.is_file()]
    remedy = "the parts of photos are not recognised"
    return _optional(missing, "parse", file, remedy, lambda found: load_parser(found, device, closer))


def _missing_packages() -> dict[str, str]:
    missing = {}
    if importlib.util.find_spec("facenet_pytorch") is None:
        missing["align"] = "facenet-pytorch is not installed, so faces are not found by themselves; crop by hand."
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        missing["mp4"] = "MP4 needs the package imageio-ffmpeg; export a GIF instead."
    return missing


def _gallery(file: Path, sha256: str, drawing: str) -> tuple[int, ...]:
    """Seeds from a JSON list, or from {"checkpoint": sha256, "prior": sha256, "seeds": [...]}; none if it is for
    another model or prior."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    if isinstance(data, dict):
        if data.get("checkpoint") not in (None, sha256) or data.get("prior", "") != drawing:
            return ()
        data = data.get("seeds")
    if not isinstance(data, list):
        return ()
    return tuple(s for s in data[:1000] if isinstance(s, int) and not isinstance(s, bool) and 0 <= s <= MAX_SEED)
