"""What can be done to trained parsers without training: averaging them, and setting right how often they say a part.

    python -m memorygan.training.parser_average old.safetensors a.safetensors --shares 1 3 --out new.safetensors
    python -m memorygan.training.parser_average old.safetensors --drawn hat=2.35 --out new.safetensors

Runs with different seeds and data are averaged as model soups (Wortsman et al. 2022), and the weights before them are
mixed in to keep what hard training photos cost on easy ones (Wortsman et al., *Robust fine-tuning*, 2022).

Faces with rare parts are drawn more often in training, and a parser expects them as often in photos. Where that makes
it see a part that is not there, the factor is taken back out of its probabilities (:func:`correct_prior`).
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from memorygan.checkpoint import Provenance, load_module
from memorygan.command import command
from memorygan.parser import KIND, FaceParser, load_parser, save_parser
from memorygan.training.average import average


@torch.no_grad()
def average_parsers(parsers: Sequence[FaceParser], shares: Sequence[float]) -> FaceParser:
    """A parser whose weights are the mean of others', in proportion to ``shares``.

    Raises:
        ValueError: for none, shares that do not fit, or networks that differ in more than their size.
    """
    if any(other.config.widths != parsers[-1].config.widths for other in parsers):
        raise ValueError("the parsers have different widths; average those that were trained on from one another")
    result = FaceParser(parsers[-1].config).eval()
    result.load_state_dict(average(parsers, shares))
    return result


@torch.no_grad()
def correct_prior(parser: FaceParser, drawn: Mapping[str, float]) -> None:
    """Divide a parser's odds of parts by how many times more often training drew them than photos show them, in place.

    Raises:
        ValueError: for an unknown part or a factor that is not above 0.
    """
    odds = torch.zeros_like(parser.head.weight[:, 0, 0, 0])
    for part, factor in drawn.items():
        if not 0 < factor < math.inf:
            raise ValueError(f"the factor of {part} must be above 0, got {factor}; 1 changes nothing")
        odds[parser.parts.index(part)] = -math.log(factor)
    state = parser.state_dict()
    parser.load_state_dict({**state, "head.bias": state["head.bias"] + odds})


def _factor(text: str) -> tuple[str, float]:
    part, _, factor = text.partition("=")
    try:
        return part, float(factor)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected PART=FACTOR, as in hat=2.35, got {text}") from None


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m memorygan.training.parser_average", description="Average face parsers, correct their priors."
    )
    parser.add_argument("parsers", type=Path, nargs="+", help="weights, the last trained ones last")
    parser.add_argument("--shares", type=float, nargs="+", help="share of each (default equal)")
    parser.add_argument(
        "--drawn", type=_factor, nargs="+", default=[], metavar="PART=FACTOR", help="how much oftener than it is shown"
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args(arguments)
    shares = options.shares or [1.0] * len(options.parsers)
    mean = average_parsers([load_parser(path) for path in options.parsers], shares)
    correct_prior(mean, dict(options.drawn))
    of = [Provenance.from_dict(load_module(path, KIND)[1].get("provenance", {})) for path in options.parsers]
    averaged = f"mean of the weights of {len(of)} parsers, shares {shares}" if len(of) > 1 else ""
    corrected = ", ".join(f"odds of {part} divided by {factor:g}" for part, factor in options.drawn)
    provenance = Provenance(
        data=tuple(dict.fromkeys(name for one in of for name in one.data)),
        licence=of[-1].licence,
        images_seen=max(one.images_seen for one in of),
        recipe=of[-1].recipe,
        command="python -m memorygan.training.parser_average",
        date=datetime.date.today().isoformat(),
        notes="; ".join(filter(None, (averaged, corrected, of[-1].notes))),
    )
    print(f"wrote {options.out}, sha256 {save_parser(options.out, mean, provenance)}")


if __name__ == "__main__":
    sys.exit(main())
