"""Figures for the About tab: Table 1 of the paper beside this program's, and what was measured on a checkpoint."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from memorygan.analysis.blocks import Piece, number
from memorygan.analysis.study import PIECES
from memorygan.config import GeneratorConfig, get_preset, with_part_count

if TYPE_CHECKING:
    from memorygan.analysis.complexity import Complexity

REPORT = Path(__file__).resolve().parents[1] / "docs" / "report"
NONE = "–"


def table(label: str, columns: tuple[str, ...], rows: list[tuple[str, ...]], caption: str = "") -> str:
    """An HTML table of plain text; the first cell of every row is its heading."""
    head = "".join(f"<th scope='col'>{escape(cell)}</th>" for cell in columns)
    body = "".join(
        f"<tr><th scope='row'>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return (
        f"<div class='studio-scroll' tabindex='0' role='group' aria-label='{escape(label, quote=True)}'>"
        f"<table class='facts figures'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        # Beside the table, not in it: a table may be wider than a phone, its explanation must not be.
        f"<p class='studio-help'>{escape(caption)}</p>"
    )


def complexity(kind: str, config: GeneratorConfig) -> str:
    """Table 1 of the paper for a kind of generator, the same sizes here, and a checkpoint's own size.

    Args:
        kind: key of :data:`memorygan.checkpoint.GENERATORS`.
        config: of the checkpoint.
    """
    # Imported here: it brings the studies along, which takes a while.
    from memorygan.analysis.complexity import PAPER_MACS, PAPER_PARAMETERS, PART_COUNTS, measure

    paper = get_preset("paper-256").generator
    rows: list[tuple[str, ...]] = []
    for count in PART_COUNTS:
        here = measure(kind, with_part_count(paper, count))
        known = (PAPER_PARAMETERS[kind].get(count), PAPER_MACS.get(kind, {}).get(count))
        rows.append((f"{count}", *(NONE if value is None else f"{value:.1f}" for value in known), *_sizes(here)))
    own = f"{config.part_count} (this checkpoint, {config.size} px)"
    rows.append((own, NONE, NONE, *_sizes(measure(kind, config))))
    return table(
        "Table 1 of the paper",
        ("Parts", "Paper: weights", "MACs", "Here: weights", "MACs", "executed"),
        rows,
        "Table 1 of the paper (256 × 256 pixels) beside the same sizes here. Weights in millions; multiplications "
        "(MACs) in thousand millions for one face, counted as the paper does. Fewer are executed: up-convolutions run "
        "at the size of their input.",
    )


def measured(checkpoint: str, report: Path = REPORT) -> str:
    """What studies found for a checkpoint, from the files they leave; "" if there are none for it.

    Args:
        checkpoint: sha256.
        report: folder that ``python -m memorygan.analysis all`` wrote.
    """
    rows: list[tuple[str, ...]] = []
    for file in sorted((report / PIECES).glob("*.json")):
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            bars = Piece.from_json(data["piece"]).bars if data["key"]["inputs"]["checkpoint"] == checkpoint else ()
        except (OSError, KeyError, TypeError, ValueError):
            continue  # of another version; the report says more
        for bar in bars:
            aim = f"{'at least' if bar.at_least else 'at most'} {bar.limit:g}"
            rows.append((bar.what, aim, number(bar.measured), f"{bar.samples:,}"))
    if not rows:
        return ""
    return "<h2>Measured on this checkpoint</h2>" + table(
        "Measured on this checkpoint",
        ("What", "Aim", "Measured", "Faces"),
        rows,
        "From the report that python -m memorygan.analysis wrote.",
    )


def _sizes(found: Complexity) -> tuple[str, ...]:
    """Millions of parameters, and thousand millions of MACs by the paper's convention and executed."""
    sizes = (found.parameters / 1e6, found.paper_macs / 1e9, found.executed_macs / 1e9)
    return tuple(f"{size:.{1 if size >= 1 else 3}f}" for size in sizes)
