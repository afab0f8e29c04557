"""``python -m memorygan.analysis``: the paper's tables and figures for a checkpoint, one by one or as a report."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from memorygan.analysis import (
    complexity,
    composition,
    controller_study,
    hard_attention,
    latent_space,
    locality,
    memorisation,
    mixing,
    quality,
    reconstruction,
    render_time,
    samples,
    variety,
)
from memorygan.analysis.blocks import BAR_COLUMNS, Block, Figure, Piece, Table, Text
from memorygan.analysis.features import FEATURE_NETWORKS
from memorygan.analysis.lab import Lab, Settings, StudyUnavailable
from memorygan.analysis.report import Missing, write_report
from memorygan.analysis.study import Finished, Study, run_study, standing_study
from memorygan.command import add_threads, command
from memorygan.fast.hardware import choose_device
from memorygan.manifest import default_checkpoint

# Chapters from other rooms, by name: nothing here imports upward, and a generator without the editor still gets its
# report.
CONTRIBUTED = (
    "editing.studies.sliders",
    "editing.studies.refinement",
    "editing.studies.text",
    "editing.studies.preserved",
    "editing.studies.photo_chapter",
)


def contributed() -> Iterator[Study]:
    """The chapters of the rooms that are installed."""
    for name in CONTRIBUTED:
        try:
            yield importlib.import_module(name).STUDY
        except ModuleNotFoundError as error:
            # Anything else that is missing is a broken installation, and no reason to leave out a chapter silently.
            if error.name != name.partition(".")[0]:
                raise


# In the order of the report.
STUDIES: dict[str, Study] = {
    module.STUDY.name: module.STUDY
    for module in (
        samples,
        quality,
        composition,
        mixing,
        latent_space,
        locality,
        controller_study,
        memorisation,
        variety,
        reconstruction,
        complexity,
        hard_attention,
        render_time,
    )
} | {study.name: study for study in contributed()}


def make_parser() -> argparse.ArgumentParser:
    """All subcommands with the options they share."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--checkpoint", type=Path, help="generator; default: MEMORYGAN_CHECKPOINT, or the bundled one")
    shared.add_argument("--encoder", type=Path, help="default: encoder.safetensors beside it, or the bundled one")
    shared.add_argument("--data", type=Path, help="packed training faces (.pack)")
    shared.add_argument("--validation", type=Path, help="packed faces that were held out of training (.pack)")
    shared.add_argument("--out", type=Path, default=Settings.out, help="folder of the report (default: %(default)s)")
    shared.add_argument(
        "--private-out", type=Path, default=Settings.private,
        help="folder for sheets that show faces of the data set, not to be published, and for what an interrupted run "
        "continues from (default: %(default)s)",
    )  # fmt: skip
    shared.add_argument("--samples", type=int, help="faces per study; default: a count for CPUs, each study its own")
    shared.add_argument("--paper-counts", action="store_true", help="as many samples as the paper, for a GPU")
    shared.add_argument("--seed", type=int, default=Settings.seed, help="seed of the first face (default: %(default)s)")
    shared.add_argument("--temperature", type=float, default=Settings.temperature, help="of the controller's noise")
    shared.add_argument("--truncation", type=float, default=Settings.truncation, help="of shown and edited faces")
    shared.add_argument("--photos", type=Path, help="folder of framed photos that no training has seen, to be edited")
    shared.add_argument("--portraits", type=Path, help="folder of generated portraits, whose edits may be shown")
    shared.add_argument("--recognition", type=Path, help="weights of MobileFaceNet, which says who is in a photo")
    shared.add_argument(
        "--features", choices=sorted(FEATURE_NETWORKS), help="feature network; default: the best there is"
    )
    shared.add_argument("--labelled", type=Path, help="face set with an attributes.csv, for shares of rare traits")
    shared.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    add_threads(shared)
    shared.add_argument("--batch", type=int, default=Settings.batch, help="faces per pass (default: %(default)s)")
    shared.add_argument("--force", action="store_true", help="make finished pieces again")
    parser = argparse.ArgumentParser(prog="python -m memorygan.analysis", description=__doc__)
    commands = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    for study in STUDIES.values():
        commands.add_parser(study.name, parents=[shared], help=f"{study.title} ({study.paper})")
    everything = commands.add_parser("all", parents=[shared], help="everything, as a report in Markdown and HTML")
    everything.add_argument(
        "--count", action="append", default=[], type=_count, metavar="STUDY=FACES",
        help="another number of faces for one study, over --samples; may be repeated",
    )  # fmt: skip
    everything.add_argument(
        "--skip", action="append", default=[], choices=sorted(STUDIES), metavar="STUDY",
        help="leave a study out of this run; may be repeated",
    )  # fmt: skip
    everything.add_argument(
        "--only", action="append", default=[], choices=sorted(STUDIES), metavar="STUDY",
        help="make this study alone, and keep the other chapters as they stand in the report; may be repeated",
    )  # fmt: skip
    return parser


def _count(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if name not in STUDIES or not count.isdecimal() or int(count) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not STUDY=FACES; the studies are {', '.join(STUDIES)}")
    return name, int(count)


def make_settings(options: argparse.Namespace) -> Settings:
    """What was asked for, checked.

    Raises:
        ValueError: for an impossible value, or if there is no checkpoint.
    """
    checkpoint = options.checkpoint or default_checkpoint()
    if checkpoint is None:
        raise ValueError("there is no bundled checkpoint; name one with --checkpoint")
    for name, low, high in (
        ("samples", 1, None),
        ("seed", 0, None),
        ("batch", 1, None),
        ("truncation", 0, 1),
        ("temperature", 0, None),
    ):
        value = getattr(options, name)
        if value is not None and (not value >= low or (high is not None and value > high)):
            raise ValueError(f"--{name} is {value}; use {f'{low} to {high}' if high else f'at least {low}'}")
    asked = {item.name: getattr(options, item.name) for item in fields(Settings) if hasattr(options, item.name)}
    asked |= {"checkpoint": checkpoint, "private": options.private_out, "device": str(choose_device(options.device))}
    return Settings(**asked)


def show(piece: Piece, private: Path) -> None:
    """Prints a piece for a terminal."""
    bars = [Table(BAR_COLUMNS, tuple(bar.row() for bar in piece.bars))] if piece.bars else []
    for block in [*piece.blocks, *bars]:
        print(_terminal(block), end="\n\n")
    for name in piece.private:
        print(f"shows faces of the data set, keep it to yourself: {private / name}")


def _terminal(block: Block) -> str:
    if isinstance(block, Text):
        return block.text
    if isinstance(block, Figure):
        return f"{block.file}: {block.caption}"
    rows = [block.columns, *block.rows]
    widths = [max(len(row[k]) for row in rows) for k in range(len(block.columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines + [block.caption] if block.caption else lines)


def sample_count(study: Study, options: argparse.Namespace) -> int:
    """The wanted count; sheets keep their own unless they are named or run alone."""
    named = dict(getattr(options, "count", ()))
    if study.name in named:
        return int(named[study.name])
    if options.samples is not None and (options.study != "all" or not study.sheet):
        return int(options.samples)
    return study.paper_samples if options.paper_counts else study.samples


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    options = make_parser().parse_args(arguments)
    lab = Lab(make_settings(options))
    if options.study != "all":
        study = STUDIES[options.study]
        finished = run_study(study, lab, sample_count(study, options), options.force)
        lab.forget()
        show(finished.piece, lab.settings.private)
        return
    results: list[Finished | Missing] = []
    pages: tuple[Path, ...] = ()
    for place, study in enumerate(STUDIES.values(), start=1):
        try:
            if study.name in options.skip:
                raise StudyUnavailable("it was left out of this run")
            if options.only and study.name not in options.only:
                result, state = standing_study(study, lab), "as it stands"
            else:
                result = run_study(study, lab, sample_count(study, options), options.force)
                state = "unchanged, taken from the last run" if result.reused else "done"
            results.append(result)
        except StudyUnavailable as error:
            results.append(Missing(study, str(error)))
            state = f"not measured: {error}"
        print(f"[{place}/{len(STUDIES)}] {study.title}: {state}", flush=True)
        # After every chapter: an interrupted run leaves a report of what there is.
        pages = write_report(lab, results)
    lab.forget()
    print(*pages, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
