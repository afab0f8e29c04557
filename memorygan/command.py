"""What the command lines share: how they end, and the options that every one of them has."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence

import torch

Main = Callable[[Sequence[str] | None], None]


def command(status: int = 2, interrupted: str = "") -> Callable[[Main], Callable[..., int]]:
    """Makes ``main(arguments)`` return an exit status: 0, or ``status`` after one sentence on what cannot be done.

    Args:
        status: of a failure.
        interrupted: what to say when a person stops it, with status 130; "" leaves that to Python.
    """

    def ending(main: Main) -> Callable[..., int]:
        @functools.wraps(main)
        def run(arguments: Sequence[str] | None = None) -> int:
            try:
                main(arguments)
            except (ValueError, OSError) as error:
                print(f"error: {error}", file=sys.stderr)
                return status
            except ModuleNotFoundError as error:
                print(
                    f"error: this needs {error.name}, which the page does without; `make train` installs it, or "
                    "`pip install -r requirements-train.lock`",
                    file=sys.stderr,
                )
                return status
            except KeyboardInterrupt:
                if not interrupted:
                    raise
                print(interrupted, file=sys.stderr)
                return 130
            return 0

        return run

    return ending


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Adds ``--threads``, which takes effect as it is read."""
    parser.add_argument("--threads", type=_use_threads, help="CPU threads; default: what PyTorch takes")


def _use_threads(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"there is at least 1 thread, not {count}")
    torch.set_num_threads(count)
    return count
