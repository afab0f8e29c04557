"""What a study hands back: text, tables, figures and bars, as plain data that can be stored and rendered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of formatted cells under a header.

    Raises:
        ValueError: if a row has another number of cells than the header.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"every row needs {len(self.columns)} cells: {', '.join(self.columns)}")


@dataclass(frozen=True)
class Figure:
    """A picture beside the report; ``file`` is its name in the report's folder."""

    file: str
    caption: str


Block = Text | Table | Figure
_BLOCKS: dict[str, type[Text] | type[Table] | type[Figure]] = {"text": Text, "table": Table, "figure": Figure}


@dataclass(frozen=True)
class Bar:
    """A number that the project promises.

    Attributes:
        what: what was measured, with its unit.
        measured: nan where it could not be measured.
        limit: the promise.
        at_least: whether ``measured`` has to reach the limit from above, or stay below it.
        samples: how many faces it was measured on.
    """

    what: str
    measured: float
    limit: float
    at_least: bool
    samples: int

    @property
    def met(self) -> bool:
        """False too where nothing was measured."""
        if math.isnan(self.measured):
            return False
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def row(self) -> tuple[str, ...]:
        """Cells under :data:`BAR_COLUMNS`."""
        verdict = "not measured" if math.isnan(self.measured) else "met" if self.met else "**missed**"
        return (
            self.what,
            f"{'≥' if self.at_least else '≤'} {self.limit:g}",
            number(self.measured),
            verdict,
            f"{self.samples:,}",
        )


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column is text, and whose others are numbers, to the right."""
    lines = [columns, ("---", *("---:" for _ in columns[1:])), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


BAR_COLUMNS = ("bar", "promised", "measured", "", "faces")


@dataclass(frozen=True)
class Piece:
    """One finished study.

    Attributes:
        blocks: what the report shows, in order.
        numbers: the results for programs; names in snake case, units in the study's text.
        bars: promises it can judge.
        private: names of files that show faces of the data set, written outside the report.
    """

    blocks: tuple[Block, ...]
    numbers: dict[str, float] = field(default_factory=dict)
    bars: tuple[Bar, ...] = ()
    private: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; inverse of :meth:`from_json`. Numbers that are not finite become null."""
        names = {cls: name for name, cls in _BLOCKS.items()}
        return {
            "blocks": [{"kind": names[type(block)], **asdict(block)} for block in self.blocks],
            "numbers": {key: _finite(value) for key, value in self.numbers.items()},
            # An infinite factor misses a promise, which is another thing than not being measured.
            "bars": [
                {**asdict(bar), "measured": str(bar.measured) if math.isinf(bar.measured) else _finite(bar.measured)}
                for bar in self.bars
            ],
            "private": list(self.private),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Piece:
        """Builds a piece from JSON types.

        Raises:
            KeyError, TypeError, ValueError: if something is missing or of another type.
        """
        blocks: list[Block] = []
        for raw in data["blocks"]:
            values = dict(raw)
            kind = values.pop("kind")
            if kind == "table":
                values["columns"] = tuple(values["columns"])
                values["rows"] = tuple(tuple(row) for row in values["rows"])
            blocks.append(_BLOCKS[kind](**values))
        return cls(
            tuple(blocks),
            {key: _number(value) for key, value in data["numbers"].items()},
            tuple(Bar(**{**bar, "measured": _number(bar["measured"])}) for bar in data["bars"]),
            tuple(data["private"]),
        )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def number(value: float, digits: int = 3) -> str:
    """A number for a table: ``digits`` significant digits, thousands grouped, – where there is none."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    return f"{value:.{digits - 1}e}" if "e" in text else text
