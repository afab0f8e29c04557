"""The report: the same chapters as Markdown and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memorygan.analysis.blocks import BAR_COLUMNS, Block, Figure, Table, Text
from memorygan.analysis.lab import Lab
from memorygan.analysis.study import Finished, Study

MARKDOWN, HTML = "README.md", "index.html"
PAPER = "https://doi.org/10.3390/electronics12132927"

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1c1e24; background: #fff; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; }
figure { margin: 1.5rem 0; }
figcaption, caption { color: #565a64; font-size: .875rem; }
caption { caption-side: bottom; text-align: left; padding-top: .4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #e2e4ea; overflow-wrap: break-word; }
td + td { font-variant-numeric: tabular-nums; }
"""


@dataclass(frozen=True)
class Missing:
    """A study that could not be run, and why."""

    study: Study
    reason: str


@dataclass(frozen=True)
class Chapter:
    """A heading with what stands below it."""

    title: str
    blocks: tuple[Block, ...]


def _opening(lab: Lab) -> Chapter:
    """What the report is about."""
    loaded, settings, size = lab.loaded, lab.settings, lab.config.size
    trained = f"trained on {loaded.images_seen:,} images" if loaded.images_seen else "untrained"
    rows = (
        ("checkpoint (sha256)", loaded.sha256),
        ("kind, preset", f"{loaded.kind}, {loaded.preset or 'of its own'}"),
        ("picture", f"{size} × {size} pixels"),
        ("training", trained + (f"; {loaded.provenance.notes}" if loaded.provenance.notes else "")),
        ("data", "; ".join(loaded.provenance.data) or "not recorded"),
        ("first seed, truncation, temperature", f"{settings.seed}, {settings.truncation:g}, {settings.temperature:g}"),
    )
    return Chapter(
        "Analysis of a MemoryGAN checkpoint",
        (
            Text(
                "Tables and figures of the paper (Wang, Peng, Liu: MemoryGAN, Electronics 2023, 12, 2927, "
                f"{PAPER}) for one checkpoint, and some beyond it. Made by `python -m memorygan.analysis all`; every "
                "table and figure says how many faces, which seed and which checkpoint it was made from."
            ),
            Table(("", ""), rows),
            Text(
                "How to read it beside the paper. The paper trains at 256 × 256 pixels on 28,000 photos of "
                "CelebAMask-HQ and measures on 10,000 samples. Where this checkpoint is smaller, has seen fewer or "
                "other faces, or is measured on fewer samples (all of which stand above and under every figure), its "
                "numbers do not compare with the paper's printed ones, whose layout this report follows."
            ),
        ),
    )


def _promises(results: Sequence[Finished | Missing]) -> Chapter:
    bars = [bar for result in results if isinstance(result, Finished) for bar in result.piece.bars]
    missed = [bar for bar in bars if not bar.met]
    absent = [f"{result.study.title} ({result.reason})" for result in results if isinstance(result, Missing)]
    blocks: list[Block] = []
    if bars:
        verdict = (
            f"This checkpoint falls short of {len(missed)} of the {len(bars)} promised figures below."
            if missed
            else f"All {len(bars)} promised figures that were measured are met."
        )
        verdict += (
            " Whether a sheet of samples shows faces in order, and whether a nearest neighbour is a copy, is for a "
            "person to judge."
        )
        blocks += [
            Text(verdict),
            Table(BAR_COLUMNS, tuple(bar.row() for bar in bars), "What the project promises, and what was measured."),
        ]
    if absent:
        blocks.append(Text("Not measured: " + "; ".join(absent) + "."))
    return Chapter(
        "Where it stands, and where it falls short", tuple(blocks) or (Text("No promised figure was measured."),)
    )


def _chapter(result: Finished | Missing) -> Chapter:
    study = result.study
    title = f"{study.title} ({study.paper})"
    if isinstance(result, Missing):
        return Chapter(title, (Text(f"Not measured: {result.reason}."),))
    reduced: tuple[Block, ...] = ()
    if result.samples < study.paper_samples:
        reduced = (Text(f"Measured on {result.samples:,} samples; the full count is {study.paper_samples:,}."),)
    return Chapter(title, (*result.piece.blocks, *reduced))


def to_markdown(report: Sequence[Chapter]) -> str:
    """The report as Markdown, figures linked by their file names."""
    lines: list[str] = []
    for place, chapter in enumerate(report):
        lines += [f"{'#' if place == 0 else '##'} {chapter.title}", ""]
        for block in chapter.blocks:
            lines += [*_markdown(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def _markdown(block: Block) -> list[str]:
    if isinstance(block, Text):
        return [block.text]
    if isinstance(block, Figure):
        return [f"![{_cell(block.caption)}]({block.file})", "", f"*{block.caption}*"]
    rows = [block.columns, tuple("---" for _ in block.columns), *block.rows]
    table = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return [*table, "", f"*{block.caption}*"] if block.caption else table


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("[", "(").replace("]", ")").replace("\n", " ")


def to_html(report: Sequence[Chapter]) -> str:
    """The report as one HTML page beside its figures; needs nothing from the network."""
    body: list[str] = []
    for place, chapter in enumerate(report):
        level = 1 if place == 0 else 2
        body.append(f"<h{level}>{html.escape(chapter.title)}</h{level}>")
        body += [_html(block) for block in chapter.blocks]
    title = html.escape(report[0].title) if report else ""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    style = " ".join(STYLE.split())
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{style}</style></head>\n<body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _html(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{_inline(block.text)}</p>"
    if isinstance(block, Figure):
        file, alt = html.escape(block.file, quote=True), html.escape(block.caption, quote=True)
        return f'<figure><img src="{file}" alt="{alt}"><figcaption>{_inline(block.caption)}</figcaption></figure>'
    header = "".join(f"<th>{_inline(cell)}</th>" for cell in block.columns)
    rows = "".join("<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in block.rows)
    caption = f"<caption>{_inline(block.caption)}</caption>" if block.caption else ""
    top = f"<thead><tr>{header}</tr></thead>" if any(block.columns) else ""
    return f'<div class="wide"><table>{caption}{top}<tbody>{rows}</tbody></table></div>'


def _inline(text: str) -> str:
    """Escaped text with the few Markdown marks that the studies use: code, bold, links that stand as addresses."""
    text = html.escape(text, quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"(https?://[^\s,)]+)", r'<a href="\1">\1</a>', text)


def write_report(lab: Lab, results: Sequence[Finished | Missing]) -> tuple[Path, Path]:
    """Writes both forms, an opening and one chapter per study, in order; returns their paths."""
    report = [_opening(lab), _promises(results), *map(_chapter, results)]
    lab.settings.out.mkdir(parents=True, exist_ok=True)
    markdown, page = lab.settings.out / MARKDOWN, lab.settings.out / HTML
    markdown.write_text(to_markdown(report), encoding="utf-8")
    page.write_text(to_html(report), encoding="utf-8")
    return markdown, page
