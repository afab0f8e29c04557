"""Starting from trained networks: at the same size with fresh optimisers, wider there, or growing to double the size.

The memory is a network of coordinates, so its weights answer on a finer grid at once. The render net keeps its blocks
and gains one; where the fused feature is concatenated at a new side, the new inputs start at zero, so that the grown
generator begins as an enlarged version of the small one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from memorygan.checkpoint import CheckpointError, kind_of, load_generator, load_module, read_bytes
from memorygan.config import GeneratorConfig, Preset, get_preset
from memorygan.encoder import load_encoder
from memorygan.training.config import TrainingConfig
from memorygan.training.state import KIND, TrainingState, load_weights
from memorygan.training.widen import LATER, columns, is_wider, pad, widen_encoder, widen_generator

ENCODER_FILE = "encoder.safetensors"
StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Origin:
    """Trained networks to start from.

    Attributes:
        name: of the file, for messages.
        preset_name, preset: their size.
        networks: network name → state dict.
        averages: the same of the averaged networks; what a checkpoint holds is both.
        images, minutes: how long they were trained.
        data: what they were trained on.
    """

    name: str
    preset_name: str
    preset: Preset
    networks: dict[str, StateDict]
    averages: dict[str, StateDict]
    images: int
    minutes: float = 0.0
    data: tuple[str, ...] = ()

    @classmethod
    def read(cls, source: Path) -> Origin:
        """Reads a run's ``state.safetensors``, or a generator checkpoint with ``encoder.safetensors`` beside it.

        Raises:
            CheckpointError: if a file is missing or damaged, or the generator's size is none of the presets.
        """
        if kind_of(source, read_bytes(source)) == KIND:
            return cls._of_state(source)
        loaded = load_generator(source)
        if loaded.preset is None or loaded.kind != "memorygan":
            raise CheckpointError(f"{source.name} is no MemoryGAN of a named preset, so no run can start from it")
        networks = {"generator": loaded.generator.state_dict()}
        if (encoder := source.with_name(ENCODER_FILE)).exists():
            networks["encoder"] = load_encoder(encoder).state_dict()
        preset = get_preset(loaded.preset)
        seen, data = loaded.images_seen, loaded.provenance.data
        return cls(source.name, loaded.preset, preset, networks, networks, seen, data=data)

    @classmethod
    def _of_state(cls, source: Path) -> Origin:
        tensors, meta = load_module(source, KIND)
        groups: dict[str, dict[str, StateDict]] = {"network": {}, "average": {}}
        for key, value in tensors.items():
            group, _, rest = key.partition(".")
            if group in groups:
                name, _, rest = rest.partition(".")
                groups[group].setdefault(name, {})[rest] = value
        preset = TrainingConfig.from_dict(meta["config"]).preset
        progress = meta["progress"]
        images, minutes = int(progress["images"]), float(progress["minutes"])
        data = tuple(meta.get("origins", ()))
        return cls(source.name, preset, get_preset(preset), groups["network"], groups["average"], images, minutes, data)


def start_from(state: TrainingState, source: Path) -> None:
    """Fills a fresh state with trained weights of the same size; optimisers and position start anew.

    Networks that the source does not hold (a checkpoint has no discriminator) keep their initial weights. Those of a
    preset with shorter codes or a narrower memory are widened and begin as the same function, see
    :mod:`memorygan.training.widen`.

    Raises:
        CheckpointError: if a file is damaged or of another preset that is not merely narrower.
    """
    origin, wanted = Origin.read(source), get_preset(state.config.preset).generator
    narrow = origin.preset.generator
    wider = is_wider(narrow, wanted)
    if origin.preset_name != state.config.preset and not wider:
        raise CheckpointError(
            f"{origin.name} holds {origin.preset_name}, this run has preset {state.config.preset!r}; "
            "use the same preset, a wider one, or --grow-from to double the size"
        )

    def adapt(name: str, own: StateDict, fresh: StateDict) -> StateDict:
        if name == "generator":
            return widen_generator(own, narrow, fresh)
        return widen_encoder(own, narrow.query_dim, fresh) if name == "encoder" else own

    _fill(state, origin, adapt if wider else lambda name, own, fresh: own)


def grow(state: TrainingState, source: Path) -> None:
    """Fills a fresh state with weights of half the size; optimisers and position start anew.

    Args:
        state: a state that has not been trained yet.
        source: see :meth:`Origin.read`.

    Raises:
        CheckpointError: if a file is damaged or the two sizes do not follow each other.
    """
    origin = Origin.read(source)
    small, large = origin.preset, get_preset(state.config.preset)
    wanted = large.generator
    enlarged = replace(
        small.generator, size=wanted.size, coarse_size=wanted.coarse_size, refine_sizes=wanted.refine_sizes
    )
    if enlarged != wanted:
        raise CheckpointError(
            f"{origin.name} holds {origin.preset_name}, which does not grow into {state.config.preset}"
        )
    if large.generator.size != 2 * small.generator.size:
        raise CheckpointError(
            f"{origin.name} makes {small.generator.size}-pixel faces; a run can only grow to {2 * small.generator.size}"
        )

    def adapt(name: str, own: StateDict, fresh: StateDict) -> StateDict:
        if name == "generator":
            return grow_generator(own, small.generator, large.generator, fresh)
        return grow_discriminator(own, fresh) if name == "discriminator" else own

    _fill(state, origin, adapt)


def _fill(state: TrainingState, origin: Origin, adapt: Callable[[str, StateDict, StateDict], StateDict]) -> None:
    for group, held in ((state.networks, origin.networks), (state.averages, origin.averages)):
        for name, network in group.items():
            if name in held:
                fresh = network.state_dict()
                adapted = adapt(name, held[name], fresh)
                # Parts of an encoder, or heads of them, that the origin does not have are fresh, and silent.
                adapted = {key: value for key, value in fresh.items() if key.startswith(LATER)} | adapted
                load_weights(network, adapted, "", origin.name)
    # The filled codes stay valid, so a run may go straight to the stage the other one was in.
    state.progress.images, state.progress.minutes, state.origins = origin.images, origin.minutes, origin.data


def grow_generator(
    small: dict[str, Tensor], before: GeneratorConfig, after: GeneratorConfig, fresh: dict[str, Tensor]
) -> dict[str, Tensor]:
    """State dict of the larger generator.

    Args:
        small: state dict of the smaller generator.
        before, after: their configurations.
        fresh: state dict of an untrained larger generator, which gives the new block.
    """
    grown = dict(small)
    old, new = small["memory.position"], fresh["memory.position"]  # one more octave
    grown["memory.position"] = columns(old, new) * math.sqrt(new.shape[1] / old.shape[1])  # as its scale shrinks
    new_block = len(before.render_sizes) - 1
    for key, value in fresh.items():
        if key.startswith(f"render.blocks.{new_block}."):
            # Heads add residuals: at zero the grown picture is exactly the enlarged one.
            is_head = ".to_rgb.weight" in key or ".to_mask.weight" in key
            grown[key] = torch.zeros_like(value) if is_head else value
    for side in set(after.refine_sizes or ()) - set(before.refine_sizes or ()):
        block = after.render_sizes.index(side)
        name = f"render.blocks.{block}.up."
        if block < new_block:
            # Demodulation makes the common scale irrelevant.
            grown[name + "weight"] = columns(small[name + "weight"], fresh[name + "weight"])
            grown[name + "modulation"] = pad(small[name + "modulation"], fresh[name + "modulation"], 0)
    return grown


def grow_discriminator(small: StateDict, fresh: StateDict) -> StateDict:
    """State dict of the larger discriminator: old blocks move one place down, stem and first block are new."""
    grown = {}
    for key, value in fresh.items():
        parts = key.split(".")
        if "blocks" in parts:
            position = parts.index("blocks") + 1
            index = int(parts[position])
            parts[position] = str(index - 1)
            previous = ".".join(parts)
            reusable = index > 0 and previous in small and small[previous].shape == value.shape
            grown[key] = small[previous] if reusable else value
        elif "stem" in parts:
            grown[key] = value
        else:
            grown[key] = small[key]
    return grown
