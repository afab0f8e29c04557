"""``python -m memorygan.training.prepare``: turn a face set into one packed file per split.

An interrupted preparation continues when the same command is run again; finished files are never overwritten.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from memorygan.command import command
from memorygan.training.mixture import MixedSource
from memorygan.training.packfile import DataError, PackReader
from memorygan.training.packing import DEFAULT_HOLDOUT, Holdout, prepare
from memorygan.training.sources import Source, open_source


def summary(path: Path) -> str:
    """A few lines on a packed file: faces, bytes, part frequencies, what was left out."""
    header = PackReader(path, verify=False).header
    megabytes = path.stat().st_size / 2**20
    plan = header.plan
    lines = [f"{path}: {len(header.names)} faces at {plan.resolution} px, {megabytes:.1f} MiB ({plan.encoding})"]
    for part, share, seen in zip(plan.parts, header.frequency, header.presence, strict=True):
        lines.append(f"  {part:<12}{share:8.2%} of pixels, in {seen:7.1%} of faces")
    lines += [f"  left out {name}: {reason}" for name, reason in header.skipped]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m memorygan.training.prepare", description=__doc__)
    parser.add_argument(
        "source", nargs="*", type=Path,
        help="CelebAMask-HQ, images/ with or without masks/, or images alone; several folders make one pack",
    )  # fmt: skip
    parser.add_argument("--procedural", type=int, metavar="N", help="draw N cartoon faces instead of reading a folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawn faces (default 0)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the packed files")
    parser.add_argument("--name", help="how the file names begin (default: the folder's name)")
    parser.add_argument("--size", type=int, default=256, help="side in pixels (default 256)")
    parser.add_argument("--kind", choices=("auto", "celebamask", "pairs", "images"), default="auto")
    parser.add_argument(
        "--holdout",
        type=_holdout,
        nargs="+",
        default=[],
        metavar="N",
        help="faces of the val split: the last N names, or R/N for those whose number leaves R when divided by N; for "
        f"several folders one value or one each (default: CelebAMask-HQ's own, else {DEFAULT_HOLDOUT} or a tenth)",
    )
    parser.add_argument(
        "--balance", action="store_true", help="show rare faces (glasses, hats, gray hair, old age) more often"
    )
    parser.add_argument("--quality", default="auto", help="auto, lossless, or WebP quality 1-100")
    parser.add_argument("--skip-bad", action="store_true", help="leave out faces without a usable mask or of odd size")
    parser.add_argument("--workers", type=int, default=2, help="decoding threads (default 2)")
    return parser


def _holdout(text: str) -> Holdout:
    rest, slash, divisor = text.partition("/")
    if not (rest.isdecimal() and (divisor.isdecimal() or not slash)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of faces nor a remainder such as 7/20")
    if not slash:
        return int(text)
    if not int(rest) < int(divisor):
        raise argparse.ArgumentTypeError(f"{text!r}: the remainder must be below the divisor, as in 7/20")
    return int(rest), int(divisor)


def _open(roots: Sequence[Path], kind: str, holdouts: Sequence[Holdout]) -> tuple[Source, Holdout]:
    """One folder as it is, several as a mixture that holds out its own faces."""
    if len(roots) > 1:
        mixture = MixedSource(roots, holdouts, kind)
        return mixture, None if mixture.held_out else 0
    if len(holdouts) > 1:
        raise DataError(f"--holdout has {len(holdouts)} values for one folder; give one")
    return open_source(roots[0], kind), next(iter(holdouts), None)


def _encoding(quality: str) -> str | None:
    if quality == "auto":
        return None
    if quality == "lossless" or (quality.isdigit() and 1 <= int(quality) <= 100):
        return f"webp {quality}"
    raise DataError(f"--quality must be auto, lossless or a number from 1 to 100, got {quality!r}")


@command(interrupted="interrupted; run the same command again to continue")
def main(arguments: Sequence[str] | None = None) -> None:
    """Packs faces; see ``--help``."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if bool(args.source) == (args.procedural is not None):
        parser.error("give either source folders or --procedural N")
    if len(args.source) > 1 and not args.name:
        parser.error("several folders make one pack; choose a --name for it")
    source: Source
    if args.procedural is None:
        source, holdout = _open(args.source, args.kind, args.holdout)
        name = args.name or args.source[0].resolve().name
    else:
        from memorygan.training.procedural import ProceduralSource

        source = ProceduralSource(args.procedural, args.seed, args.size)
        name, holdout = args.name or "procedural", next(iter(args.holdout), None)
    paths = prepare(
        source,
        args.out,
        name,
        args.size,
        holdout=holdout,
        encoding=_encoding(args.quality),
        skip_bad=args.skip_bad,
        workers=args.workers,
        balance=args.balance,
    )
    for path in paths.values():
        print(summary(path))


if __name__ == "__main__":
    sys.exit(main())
