"""Everything a run has to remember, in one file: weights, averages, optimisers, random numbers, position."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memorygan.checkpoint import CheckpointError, parse_module, read_bytes, save_module
from memorygan.config import DiscriminatorConfig, Preset, get_preset
from memorygan.discriminator import Discriminator
from memorygan.encoder import EncoderConfig, PartEncoder
from memorygan.fast.hardware import best_dtype
from memorygan.generator import MemoryGAN
from memorygan.parser import DEFAULT_WEIGHTS, load_parser
from memorygan.training.config import TrainingConfig
from memorygan.training.data import ResumableSampler
from memorygan.training.distributed import Draws, Processes

KIND = "training-state"


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        stage: name of the current stage, or ``done``.
        images: images the generator was trained on, over all processes and stages.
        stage_images: images (or, while learning to query, steps) within the current stage.
        steps: optimiser steps within the current stage.
        augment: current augmentation probability.
        path_mean: running mean path length.
        best: best metric so far, None before the first measurement.
        best_of: what it was measured with; another judge or another number of samples does not compare. Empty in states
            written before this was kept.
        setbacks: how often the run had to step back from a value that was not finite.
        minutes: wall-clock time spent training.
    """

    stage: str
    images: int = 0
    stage_images: int = 0
    steps: int = 0
    augment: float = 0.0
    path_mean: float = 0.0
    best: float | None = None
    best_of: str = ""
    setbacks: int = 0
    minutes: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


class TrainingState:
    """Networks, their averages, optimisers and random streams of one run.

    Args:
        config: the hyper-parameters.
        faces: number of faces in the training set.
        processes: this process among all.
        data: sha256 of the training set; empty for faces that come from no file.
        weights: how often each face is shown; None for alike.
    """

    def __init__(
        self,
        config: TrainingConfig,
        faces: int,
        processes: Processes,
        data: str = "",
        weights: Sequence[float] | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        preset = get_preset(config.preset)
        self.config, self.processes, self.data = config, processes, data
        self.origins: tuple[str, ...] = ()  # the data sets that the networks have seen
        dtypes = {"bf16": torch.bfloat16, "float32": torch.float32}
        self.dtype = dtypes.get(config.precision) or best_dtype(processes.device)
        self.generator = MemoryGAN(preset.generator).to(processes.device)
        self.generator.compute_dtype = self.dtype
        self.discriminator = make_discriminator(config.recipe, preset.discriminator).to(processes.device)
        self.networks: dict[str, nn.Module] = {"generator": self.generator, "discriminator": self.discriminator}
        self.average_generator = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.averages: dict[str, nn.Module] = {"generator": self.average_generator}
        if config.reconstructs:
            self.networks["encoder"] = self.encoder = _make_encoder(preset, config.looks).to(processes.device)
            self.averages["encoder"] = self.average_encoder = copy.deepcopy(self.encoder).eval().requires_grad_(False)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.draws = Draws(config.seed, processes)
        self.sampler = ResumableSampler(faces, config.seed, processes.rank, processes.world, config.flip, weights)
        self.progress = Progress(stage="fill" if config.reconstructs else "paper")

    @torch.no_grad()
    def update_averages(self, images: int) -> None:
        """Moves the averaged weights; half-life in images, shorter at the start so that noise is forgotten."""
        half_life = min(self.config.ema_half_life, max(1.0, 0.05 * self.progress.images))
        amount = 1.0 - 0.5 ** (images / half_life)
        for name, average in self.averages.items():
            torch._foreach_lerp_(list(average.parameters()), list(self.networks[name].parameters()), amount)

    def continue_from_averages(self) -> None:
        """Networks become their averages, which are what is exported and looked at."""
        for name, average in self.averages.items():
            self.networks[name].load_state_dict(average.state_dict())

    def measure_mean_latents(self) -> None:
        """Keeps the mean latent codes of the averaged generator beside its weights.

        Weights move on and their means with them: truncation towards an old mean leaves the faces that the generator
        knows, so that every checkpoint needs its own. No random number of the run is drawn.
        """
        self.average_generator.update_mean_latents()
        self.generator.mean_w.copy_(self.average_generator.mean_w)

    def is_finite(self) -> bool:
        """Whether every number that a checkpoint would hold is finite."""
        networks = [*self.networks.values(), *self.averages.values()]
        values = [value for network in networks for value in network.state_dict().values()]
        for optimizer in self.optimizers.values():
            values += [v for slots in optimizer.state.values() for v in slots.values() if isinstance(v, Tensor)]
        return all(bool(torch.isfinite(value).all()) for value in values)

    def save(self, path: Path) -> None:
        """Writes the whole state atomically; the main process only."""
        tensors: dict[str, Tensor] = {}
        for group, networks in (("network", self.networks), ("average", self.averages)):
            for name, network in networks.items():
                for key, value in network.state_dict().items():
                    tensors[f"{group}.{name}.{key}"] = value
        for name, optimizer in self.optimizers.items():
            for index, slots in optimizer.state_dict()["state"].items():
                for key, value in slots.items():
                    tensors[f"optimizer.{name}.{index}.{key}"] = torch.as_tensor(value)
        tensors["random.draws"] = self.draws.generator.get_state()
        tensors["random.torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        contiguous = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        meta = {
            "kind": KIND,
            "config": self.config.to_dict(),
            "sampler": self.sampler.state_dict(),
            "data": self.data,
            "origins": list(self.origins),
            "progress": vars(self.progress),
            "optimizers": {name: len(o.param_groups) for name, o in self.optimizers.items()},
        }
        save_module(path, contiguous, meta)

    def load(self, path: Path, make_optimizers: Any) -> None:
        """Continues exactly where :meth:`save` was called.

        The main process reads the file for all: only its host needs to have it.

        Args:
            path: a state file of the same preset and recipe.
            make_optimizers: called with this state after the stage is known; fills ``optimizers``.

        Raises:
            CheckpointError: if the file is damaged, foreign, or belongs to another preset or another training set.
        """
        data = self.processes.share(read_bytes(path) if self.processes.is_main else None)
        if data is None:
            raise CheckpointError(f"there is no checkpoint {path}")
        tensors, meta = parse_module(path, data, KIND)
        saved = meta["config"]
        for name in ("preset", "recipe"):
            if saved[name] != getattr(self.config, name):
                raise CheckpointError(
                    f"{path.name} was trained with {name} {saved[name]!r}, this run has "
                    f"{getattr(self.config, name)!r}; use the same {name}, or --grow-from to change the size"
                )
        if self.data and meta.get("data", self.data) not in ("", self.data):
            raise CheckpointError(
                f"{path.name} was trained on other faces than --data holds; pass the file it was trained on, "
                "or start a new run with --start-from"
            )
        for group, networks in (("network", self.networks), ("average", self.averages)):
            for name, network in networks.items():
                load_weights(network, tensors, f"{group}.{name}.", path.name)
        self.progress = Progress(**meta["progress"])
        self.origins = tuple(meta.get("origins", ()))
        self.sampler.load_state_dict(meta["sampler"])
        self.draws.generator.set_state(tensors["random.draws"])
        torch.set_rng_state(tensors["random.torch"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        make_optimizers(self)
        for name, optimizer in self.optimizers.items():
            load_optimizer(optimizer, tensors, f"optimizer.{name}.")


def make_discriminator(recipe: str, config: DiscriminatorConfig) -> nn.Module:
    """The critic that a recipe trains against."""
    if recipe != "projected":
        return Discriminator(config)
    from memorygan.training.projected import ProjectedDiscriminator  # it builds on this module

    return ProjectedDiscriminator(config)


def load_weights(network: nn.Module, tensors: dict[str, Tensor], prefix: str, source: str) -> None:
    """Strictly loads the tensors whose names start with ``prefix``.

    Raises:
        CheckpointError: if a tensor is missing, left over, or has another shape.
    """
    own = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    try:
        network.load_state_dict(own, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{source} does not fit this run: {str(error).splitlines()[-1].strip()}") from error


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """Gives an optimiser the state whose tensors are named ``prefix``, number of the parameter, slot."""
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, slot = key[len(prefix) :].split(".", 1)
            slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def trainable(networks: Iterable[nn.Module]) -> list[nn.Parameter]:
    """All parameters of some networks."""
    return [p for network in networks for p in network.parameters()]


def _make_encoder(preset: Preset, looks: int) -> PartEncoder:
    """An untrained encoder, whose deep look begins as the bundled face parser's where that is of its shape."""
    shape, deep = preset.generator, preset.deep
    styles = (shape.local_layers, shape.local_channels) if looks else None
    config = EncoderConfig(
        shape.part_count,
        shape.query_dim,
        looks=looks,
        styles=styles,
        residual_size=preset.residual_size,
        residual_channels=preset.residual_channels,
        deep=deep,
    )
    encoder = PartEncoder(config)
    if encoder.deep is not None and DEFAULT_WEIGHTS.is_file():
        parser = load_parser()
        if parser.config.widths == config.deep:
            encoder.deep.begin_as(parser)
    return encoder
