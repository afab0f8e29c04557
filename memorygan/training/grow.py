"""Growing: a trained run continues at double the size.

The memory is a network of coordinates, so its weights answer on a finer grid at once. The render net keeps its blocks
and gains one; where the fused feature is concatenated at a new side, the new inputs start at zero, so that the grown
generator begins as an enlarged version of the small one.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from memorygan.checkpoint import CheckpointError, load_module
from memorygan.config import GeneratorConfig, get_preset
from memorygan.training.config import TrainingConfig
from memorygan.training.state import KIND, TrainingState, load_weights


def grow(state: TrainingState, source: Path) -> None:
    """Fills a fresh state with the weights of a run at half the size; optimisers and position start anew.

    Args:
        state: a state that has not been trained yet.
        source: ``state.safetensors`` of the smaller run.

    Raises:
        CheckpointError: if the file is damaged or the two sizes do not follow each other.
    """
    tensors, meta = load_module(source, KIND)
    small = get_preset(TrainingConfig.from_dict(meta["config"]).preset)
    large = get_preset(state.config.preset)
    wanted = large.generator
    enlarged = replace(
        small.generator, size=wanted.size, coarse_size=wanted.coarse_size, refine_sizes=wanted.refine_sizes
    )
    if enlarged != wanted:
        raise CheckpointError(
            f"{source.name} holds {meta['config']['preset']}, which does not grow into {state.config.preset}"
        )
    if large.generator.size != 2 * small.generator.size:
        raise CheckpointError(
            f"{source.name} makes {small.generator.size}-pixel faces; a run can only grow to {2 * small.generator.size}"
        )
    for group, networks in (("network", state.networks), ("average", state.averages)):
        for name, network in networks.items():
            prefix = f"{group}.{name}."
            own = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
            if name == "generator":
                own = grow_generator(own, small.generator, large.generator, network.state_dict())
            if name == "discriminator":
                own = grow_discriminator(own, network.state_dict(), small.discriminator.size)
            load_weights(network, {prefix + key: value for key, value in own.items()}, prefix, source.name)
    # The filled codes stay valid, so growing may go straight to the stage the small run was in.
    state.progress.images = int(meta["progress"]["images"])
    state.progress.minutes = float(meta["progress"]["minutes"])


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
    grown["memory.position"] = _grow_position(small["memory.position"], after)
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
            grown[name + "weight"], grown[name + "modulation"] = _widen(
                small[name + "weight"], small[name + "modulation"], fresh[name + "weight"].shape[1]
            )
    return grown


def _grow_position(position: Tensor, after: GeneratorConfig) -> Tensor:
    """One more octave: its columns start at zero, the old ones are rescaled for the equalised learning rate."""
    inputs = 2 + 4 * after.fourier_frequencies
    grown = torch.zeros(position.shape[0], inputs)
    grown[:, : position.shape[1]] = position * math.sqrt(inputs / position.shape[1])
    return grown


def _widen(weight: Tensor, modulation: Tensor, inputs: int) -> tuple[Tensor, Tensor]:
    """More input channels that start at zero; demodulation makes the common scale irrelevant."""
    wide = torch.zeros(weight.shape[0], inputs, *weight.shape[2:])
    wide[:, : weight.shape[1]] = weight
    scale = torch.ones(inputs)
    scale[: modulation.shape[0]] = modulation
    return wide, scale


def grow_discriminator(small: dict[str, Tensor], fresh: dict[str, Tensor], size: int) -> dict[str, Tensor]:
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
