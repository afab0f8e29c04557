"""``python -m memorygan.training.average``: networks that continue one another, averaged weight by weight.

Beside the faces themselves a critic drives a generator to thin lines and coloured rims, and these are other ones with
every critic. Networks of one descent, trained against different critics, keep the faces in their mean, not the
lines (stochastic weight averaging, Izmailov et al. 2018; model soups, Wortsman et al. 2022).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from memorygan.checkpoint import load_generator, save_generator
from memorygan.command import command
from memorygan.encoder import load_encoder, save_encoder

GENERATOR, ENCODER = "generator.safetensors", "encoder.safetensors"


@torch.no_grad()
def average(networks: Sequence[nn.Module], shares: Sequence[float] | None = None) -> dict[str, Tensor]:
    """The mean of their states, in proportion to ``shares``; what is not a floating-point number is the last one's.

    Raises:
        ValueError: if they do not have the same tensors, or the shares do not fit.
    """
    if not networks:
        raise ValueError("there is nothing to average; name one network or more")
    shares = [1.0] * len(networks) if shares is None else shares
    if len(shares) != len(networks) or min(shares) < 0 or sum(shares) <= 0:
        raise ValueError(f"need a share of 0 or more for each network, not all 0; got {shares} for {len(networks)}")
    states = [network.state_dict() for network in networks]
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            "the networks differ in shape; average networks of one preset, of which one continues the other"
        )
    exact = {name: value for name, value in states[-1].items() if not value.is_floating_point()}
    if any(not torch.equal(state[name], value) for state in states for name, value in exact.items()):
        raise ValueError(
            "the controllers plan in different dimensions, which have no mean; average networks before the stage plan"
        )
    weights = torch.tensor(shares) / sum(shares)
    return {
        name: value
        if name in exact
        else torch.tensordot(weights.to(value), torch.stack([state[name] for state in states]), dims=1)
        for name, value in states[-1].items()
    }


def average_runs(checkpoints: Sequence[Path], out: Path) -> None:
    """Writes the mean of several generators and of the encoders beside them.

    Args:
        checkpoints: two or more generator files, the one that was trained last at the end; each has its
            ``encoder.safetensors`` beside it.
        out: folder for ``generator.safetensors`` and ``encoder.safetensors``, which training can start from.

    Raises:
        ValueError: if there are fewer than two, or they do not fit together.
        CheckpointError: if a file is missing or damaged, or cannot be written.
    """
    if len(checkpoints) < 2:
        raise ValueError("one checkpoint has no average; name two or more")
    loaded = [load_generator(path) for path in checkpoints]
    encoders = [load_encoder(path.parent / ENCODER) for path in checkpoints]
    last, encoder = loaded[-1], encoders[-1]
    if any(other.generator.config != last.generator.config for other in loaded):
        raise ValueError("the generators have different configurations; average those of one preset")
    if any(other.config != encoder.config for other in encoders):
        raise ValueError("the encoders have different configurations; average those of one preset")
    last.generator.load_state_dict(average([other.generator for other in loaded]))
    encoder.load_state_dict(average(encoders))
    notes = "; ".join(filter(None, (last.provenance.notes, f"mean of the weights of {len(loaded)} networks")))
    provenance = replace(last.provenance, images_seen=max(other.images_seen for other in loaded), notes=notes)
    out.mkdir(parents=True, exist_ok=True)
    save_generator(out / GENERATOR, last.generator, provenance=provenance)
    save_encoder(out / ENCODER, encoder, provenance.images_seen)


@command(1)
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m memorygan.training.average", description=__doc__)
    parser.add_argument(
        "checkpoints",
        type=Path,
        nargs="+",
        help=f"generators, each with {ENCODER} beside it; the last trained one last",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the averaged networks")
    options = parser.parse_args(arguments)
    average_runs(options.checkpoints, options.out)
    print(f"wrote {options.out / GENERATOR} and {options.out / ENCODER}")


if __name__ == "__main__":
    sys.exit(main())
