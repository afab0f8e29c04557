"""Charts of numbers, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from memorygan.parts import PartScheme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110


def _figure(figsize: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure  # may not be installed; the command says so

    return Figure(figsize=figsize)


def _finish(figure: Figure, footer: str) -> Image.Image:
    figure.text(0.005, 0.005, footer, fontsize=7, color="#6e727c", va="bottom")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    return picture(figure)


def picture(figure: Figure, dpi: int = DPI) -> Image.Image:
    """A figure as pixels."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    stream.seek(0)
    return Image.open(stream).convert("RGB")


def _color(parts: PartScheme, name: str) -> tuple[float, float, float]:
    if name not in parts.names:
        return (0.55, 0.55, 0.55)
    r, g, b = parts[name].color
    return (r / 255, g / 255, b / 255)


def matrices(values: Mapping[str, np.ndarray], names: Sequence[str], footer: str) -> Image.Image:
    """Square matrices side by side, each with its title, its own colour scale, and the numbers in the cells.

    Args:
        values: title → (n, n).
        names: n row and column names.
    """
    figure = _figure(figsize=(0.42 * len(names) * len(values) + 2.5, 0.36 * len(names) + 1.4))
    for place, (title, matrix) in enumerate(values.items()):
        axes = figure.add_subplot(1, len(values), place + 1)
        low, high = min(0.0, float(matrix.min())), max(float(matrix.max()), 1e-6)
        shown = axes.imshow(matrix, vmin=low, vmax=high, cmap="viridis")
        axes.set_title(title, fontsize=9)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        middle = (low + high) / 2
        for (row, column), value in np.ndenumerate(matrix):
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=5, color="w" if value < middle else "k"
            )
        figure.colorbar(shown, ax=axes, fraction=0.046)
    return _finish(figure, footer)


def scatters(
    points: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str], parts: PartScheme, footer: str
) -> Image.Image:
    """Clouds of points side by side, coloured by part.

    Args:
        points: title → (N, 2).
        labels: (N,) index into ``names``.
        names: slot names; those of parts get the part's colour.
    """
    figure = _figure(figsize=(5.2 * len(points) + 1.2, 5.2))
    for place, (title, cloud) in enumerate(points.items()):
        axes = figure.add_subplot(1, len(points), place + 1)
        for index, name in enumerate(names):
            chosen = cloud[labels == index]
            axes.scatter(chosen[:, 0], chosen[:, 1], s=4, color=_color(parts, name), label=name)
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.axes[-1].legend(fontsize=7, markerscale=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _finish(figure, footer)


def part_boxes(values: Mapping[str, np.ndarray], parts: PartScheme, label: str, footer: str) -> Image.Image:
    """One box per part: quartiles, whiskers at the 5th and 95th percentile, and the mean as a diamond."""
    figure = _figure(figsize=(max(5.0, 0.55 * len(values) + 1.8), 3.4))
    axes = figure.add_subplot()
    boxes = axes.boxplot(
        [cloud[np.isfinite(cloud)] for cloud in values.values()],
        whis=(5, 95),
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        medianprops={"color": "k"},
        meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "w", "markeredgecolor": "k"},
    )
    for box, name in zip(boxes["boxes"], values, strict=True):
        box.set_facecolor(_color(parts, name))
    axes.set_xticks(range(1, len(values) + 1), list(values), rotation=45, ha="right", fontsize=8)
    axes.set_ylabel(label, fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    return _finish(figure, footer)


def paired_bars(
    series: Mapping[str, Sequence[float]],
    names: Sequence[str],
    label: str,
    footer: str,
    errors: Mapping[str, Sequence[float]] | None = None,
) -> Image.Image:
    """Groups of bars, one group per name and one bar per series, with error bars where given."""
    figure = _figure(figsize=(max(5.0, 0.7 * len(names) + 2.2), 3.4))
    axes = figure.add_subplot()
    width = 0.8 / len(series)
    for place, (title, values) in enumerate(series.items()):
        x = np.arange(len(names)) + (place - (len(series) - 1) / 2) * width
        axes.bar(x, values, width, label=title, yerr=None if errors is None else errors[title], error_kw={"lw": 0.8})
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_ylabel(label, fontsize=8)
    axes.legend(fontsize=7)
    axes.grid(axis="y", alpha=0.3)
    return _finish(figure, footer)


def courses(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]], x_label: str, y_label: str, footer: str
) -> Image.Image:
    """Two quantities over the course of N runs: means with their spread as a line, the runs' ends as points.

    Args:
        series: title → x (N, M) and y (N, M), values of N runs at M moments.
    """
    figure = _figure(figsize=(6.4, 4.2))
    axes = figure.add_subplot()
    for title, (x, y) in series.items():
        line = axes.errorbar(
            x.mean(axis=0), y.mean(axis=0), y.std(axis=0), x.std(axis=0), marker="o", ms=4, lw=1.4, elinewidth=0.6,
            label=title,
        )  # fmt: skip
        axes.scatter(x[:, -1], y[:, -1], s=14, alpha=0.45, color=line.lines[0].get_color(), linewidths=0)
    axes.set_xlabel(x_label, fontsize=8)
    axes.set_ylabel(y_label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    return _finish(figure, footer)
