"""The weighted mean of parsers that were trained on from the same weights, with those weights if wanted.

    python -m memorygan.training.parser_average old.safetensors a.safetensors --shares 1 3 --out new.safetensors

Runs with different seeds and data are averaged as model soups (Wortsman et al. 2022), and the weights before them are
mixed in to keep what hard training photos cost on easy ones (Wortsman et al., *Robust fine-tuning*, 2022).
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from memorygan.checkpoint import Provenance, load_module
from memorygan.command import command
from memorygan.parser import KIND, FaceParser, load_parser, save_parser


@torch.no_grad()
def average_parsers(parsers: Sequence[FaceParser], shares: Sequence[float]) -> FaceParser:
    """A parser whose weights are the mean of others', in proportion to ``shares``.

    Raises:
        ValueError: for fewer than two, shares that do not fit, or networks that differ in more than their size.
    """
    if len(parsers) < 2 or len(shares) != len(parsers) or min(shares) < 0 or sum(shares) <= 0:
        raise ValueError(f"need two or more parsers and a share of 0 or more for each, got {len(parsers)} and {shares}")
    last = parsers[-1]
    if any(other.config.widths != last.config.widths for other in parsers):
        raise ValueError("the parsers have different widths; average those that were trained on from one another")
    states, total = [parser.state_dict() for parser in parsers], sum(shares)
    mean = {
        name: sum((state[name] * (share / total) for state, share in zip(states, shares, strict=True)), torch.zeros(()))
        if value.is_floating_point()
        else value
        for name, value in states[-1].items()
    }
    result = FaceParser(last.config).eval()
    result.load_state_dict(mean)
    return result


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m memorygan.training.parser_average", description="Average the weights of face parsers."
    )
    parser.add_argument("parsers", type=Path, nargs="+", help="weights, the last trained ones last")
    parser.add_argument("--shares", type=float, nargs="+", help="share of each (default equal)")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args(arguments)
    shares = options.shares or [1.0] * len(options.parsers)
    mean = average_parsers([load_parser(path) for path in options.parsers], shares)
    of = [Provenance.from_dict(load_module(path, KIND)[1].get("provenance", {})) for path in options.parsers]
    provenance = Provenance(
        data=tuple(dict.fromkeys(name for one in of for name in one.data)),
        licence=of[-1].licence,
        images_seen=max(one.images_seen for one in of),
        recipe=of[-1].recipe,
        command="python -m memorygan.training.parser_average",
        date=datetime.date.today().isoformat(),
        notes=f"mean of the weights of {len(of)} parsers, shares {shares}; {of[-1].notes}",
    )
    print(f"wrote {options.out}, sha256 {save_parser(options.out, mean, provenance)}")


if __name__ == "__main__":
    sys.exit(main())
