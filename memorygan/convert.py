"""Converts a published SemanticStyleGAN checkpoint (.pt) into a safetensors file for :mod:`memorygan.baseline`.

A .pt file is a pickle. It is read with torch's restricted unpickler: tensors, plain containers and, allowed here by
name, ``argparse.Namespace``. Anything else in the file is refused, and nothing of it is executed.

    python -m memorygan.convert in.pt out.safetensors
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import pickle
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memorygan.baseline import SemanticStyleGAN
from memorygan.checkpoint import CheckpointError, Provenance, save_generator
from memorygan.command import command
from memorygan.config import GeneratorConfig
from memorygan.parts import FACE_PARTS, numbered_parts

PUBLISHED_LICENCE = "CC BY-NC-SA 4.0"
MEAN_SAMPLES = 10_000
_NUMBERS = (
    "size", "latent", "n_mlp", "channel_multiplier", "seg_dim", "local_layers", "local_channel", "base_layers",
    "depth_layers", "coarse_size", "coarse_channel", "min_feat_size",
)  # fmt: skip
_STYLED = (("weight", "conv.weight"), ("bias", "activate.bias"))
_STYLE = (("style_weight", "conv.modulation.weight"), ("style_bias", "conv.modulation.bias"))
_TO_FEATURE = (("weight", "conv.weight"), ("modulation", "conv.modulation"), ("bias", "bias"))
_RENDER_CONV = (("weight", "weight"), ("modulation", "modulation"), ("bias", "activate.bias"))


def config_from_args(args: Mapping[str, Any]) -> GeneratorConfig:
    """The configuration of a published checkpoint.

    Thirteen parts with the published transparent ones are the face parts of this program; any other number is kept as
    numbered parts.

    Raises:
        ValueError: for a missing or impossible setting, or one that the baseline does not have.
    """
    numbers: dict[str, int] = {}
    for name in _NUMBERS:
        value = args.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65536:
            raise ValueError(f"its setting {name} is {value!r}, not a positive whole number")
        numbers[name] = value
    transparent = args.get("transparent_dims")
    if not isinstance(transparent, (list, tuple)) or not all(
        isinstance(i, int) and 0 <= i < numbers["seg_dim"] for i in transparent
    ):
        raise ValueError(f"its setting transparent_dims is {transparent!r}, not a list of part numbers")
    if args.get("residual_refine") is not True:
        raise ValueError("it was made without residual_refine, which this program's render net always has")
    count, coarse = numbers["seg_dim"], numbers["coarse_size"]
    known = count == len(FACE_PARTS) and tuple(sorted(transparent)) == FACE_PARTS.transparent
    return GeneratorConfig(
        size=numbers["size"],
        parts=FACE_PARTS if known else numbered_parts(count, tuple(transparent)),
        query_dim=numbers["latent"],
        style_dim=numbers["latent"],
        mapping_layers=numbers["n_mlp"],
        local_layers=numbers["local_layers"],
        base_layers=numbers["base_layers"],
        depth_layers=numbers["depth_layers"],
        local_channels=numbers["local_channel"],
        coarse_size=coarse,
        coarse_channels=numbers["coarse_channel"],
        min_feature_size=numbers["min_feat_size"],
        channel_base=16384 * numbers["channel_multiplier"],
        refine_sizes=(coarse,) if coarse < numbers["size"] else (),
    )


def convert_state(source: Mapping[str, Tensor], config: GeneratorConfig) -> SemanticStyleGAN:
    """Published ``g_ema`` tensors → the same generator here, in eval mode, with its mean latent code measured.

    Raises:
        ValueError: for a missing, unexpected or mis-shaped tensor, naming it.
    """
    if config.part_count * config.local_layers + config.mapping_layers > len(source):
        raise ValueError("its settings name more layers than it holds tensors")
    sources = _source_names(config)
    wanted = {name for names in sources.values() for name in names}
    given = {name for name in source if not name.endswith(".kernel")}
    if missing := sorted(wanted - given):
        raise ValueError(f"it lacks {missing[0]}" + (f" and {len(missing) - 1} more tensors" if missing[1:] else ""))
    if unexpected := sorted(given - wanted):
        raise ValueError(f"it holds {unexpected[0]}, which no SemanticStyleGAN of its settings has")
    with torch.device("meta"):
        shapes = SemanticStyleGAN(config).state_dict()
    for name, names in sources.items():
        _check_shapes(source, names, shapes[name].shape[_stacked(name) :])
    with torch.random.fork_rng(devices=[]):
        generator = SemanticStyleGAN(config)
    state = generator.state_dict()
    for name, names in sources.items():
        # A stacked tensor takes one source per row; the others have one source.
        depth = _stacked(name)
        rows = state[name].flatten(0, depth - 1) if depth else state[name][None]
        for row, key in zip(rows, names, strict=True):
            row.copy_(source[key].reshape(row.shape))
    generator.eval().update_mean_latents(MEAN_SAMPLES)
    return generator


def convert(path: str | os.PathLike[str], target: str | os.PathLike[str], *, half: bool = False) -> str:
    """Reads a published .pt file and writes a checkpoint for :func:`memorygan.checkpoint.load_generator`.

    Args:
        path: the .pt file.
        target: the safetensors file to write.
        half: store float16, half the size, a little less exact.

    Returns:
        The sha256 of the written file, in hexadecimal.

    Raises:
        CheckpointError: for a file that is missing, damaged, unsafe or no SemanticStyleGAN checkpoint.
    """
    file = Path(path)
    content = _load(file)
    if Path(target).exists() and file.samefile(target):
        raise CheckpointError(f"{target} is the source itself; name another file to write")
    args, state = content.get("args"), content.get("g_ema")
    settings = vars(args) if isinstance(args, argparse.Namespace) else args
    if not isinstance(settings, dict) or not isinstance(state, dict):
        raise CheckpointError(f"{file} is no SemanticStyleGAN checkpoint: it lacks 'g_ema' or 'args'")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise CheckpointError(f"{file} is no SemanticStyleGAN checkpoint: 'g_ema' holds more than named tensors")
    try:
        generator = convert_state(state, config_from_args(settings))
    except ValueError as error:
        raise CheckpointError(f"{file} cannot be converted: {error}") from error
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        sha256 = hashlib.sha256(whole).hexdigest()
    provenance = Provenance(
        licence=PUBLISHED_LICENCE,
        recipe="SemanticStyleGAN",
        command=f"python -m memorygan.convert {file.name} {Path(target).name}",
        notes=f"converted from {file.name}, sha256 {sha256}",
    )
    return save_generator(target, generator, half=half, provenance=provenance)


@command(1)
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m memorygan.convert", description="Convert a published SemanticStyleGAN .pt checkpoint, safely."
    )
    parser.add_argument("source", help="the published .pt file")
    parser.add_argument("target", help="the safetensors file to write")
    parser.add_argument("--half", action="store_true", help="store 16-bit numbers: half the size, a little less exact")
    options = parser.parse_args(arguments)
    sha256 = convert(options.source, options.target, half=options.half)
    print(f"wrote {options.target} (sha256 {sha256})")
    print(f"The published weights are licensed {PUBLISHED_LICENCE}: no commercial use; share alike.")


def _load(file: Path) -> dict[str, Any]:
    if file.is_dir():
        raise CheckpointError(f"{file} is a directory; name the .pt file in it")
    try:
        if file.stat().st_size == 0:
            raise CheckpointError(f"{file} is empty; download it again")
        # Mapped, so that the discriminator and optimiser of a training file are never read from disk.
        mapped = zipfile.is_zipfile(file)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {file}") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds something other than tensors and settings, or is no .pt file; nothing of it was executed"
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    except (RuntimeError, ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError) as error:
        # What a damaged archive or a broken pickle raises depends on where the damage is.
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file} is damaged or no .pt file; download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is no SemanticStyleGAN checkpoint: it holds a {type(content).__name__}")
    return content


def _source_names(config: GeneratorConfig) -> dict[str, list[str]]:
    """Our tensor → the published tensors of its rows, in order; one name for a tensor that is not stacked."""
    parts, layers = range(config.part_count), range(config.local_layers)
    names = {"memory.position": ["pos_embed.weights"]}
    for i in range(config.mapping_layers):
        names |= {f"mapping.layers.{i}.{leaf}": [f"style.{i + 1}.{leaf}"] for leaf in ("weight", "bias")}
    for ours, theirs in _STYLED + _STYLE:
        names[f"memory.{ours}"] = [f"local_nets.{k}.linears.{i}.{theirs}" for k in parts for i in layers]
    for ours, theirs in _TO_FEATURE:
        names[f"memory.feature_{ours}"] = [f"local_nets.{k}.to_feat.{theirs}" for k in parts]
        names[f"memory.depth_{ours}"] = [f"local_nets.{k}.to_depth.{theirs}" for k in parts[1:]]
    for j in range(len(config.render_sizes) - 1):
        block = f"render.blocks.{j}"
        for i, conv in ((2 * j, "up"), (2 * j + 1, "conv")):
            names |= {f"{block}.{conv}.{ours}": [f"render_net.convs.{i}.{theirs}"] for ours, theirs in _RENDER_CONV}
            names[f"{block}.{conv}.noise_strength"] = [f"render_net.convs.{i}.noise.weight"]
            names[f"{block}.{conv}.noise"] = [f"render_net.noises.noise_{i}"]
        for head, theirs in (("to_rgb", "to_rgbs"), ("to_mask", "to_segs")):
            names |= {f"{block}.{head}.{ours}": [f"render_net.{theirs}.{j}.{leaf}"] for ours, leaf in _TO_FEATURE}
    return names


def _stacked(name: str) -> int:
    """How many leading dimensions count sources: none, the part, or part and layer."""
    if not name.startswith("memory.") or name == "memory.position":
        return 0
    return 1 if name.startswith(("memory.depth_", "memory.feature_")) else 2


def _check_shapes(source: Mapping[str, Tensor], names: Sequence[str], shape: Sequence[int]) -> None:
    """Published tensors may differ from ours only in dimensions of length 1."""
    for name in names:
        value = source[name]
        if not value.is_floating_point() or [n for n in value.shape if n != 1] != [n for n in shape if n != 1]:
            raise ValueError(f"its {name} has shape {tuple(value.shape)}, but its settings need {tuple(shape)}")


if __name__ == "__main__":
    sys.exit(main())
