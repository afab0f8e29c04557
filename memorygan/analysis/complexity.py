"""``python -m memorygan.analysis.complexity``: Table 1 of the paper, parameters and multiplications against parts.

A multiply-accumulate (MAC) is one step of a matrix product or convolution; passes that only add, scale or interpolate
are not counted. Two counts are given for one face, from noise to picture:

- *by the paper's convention*: every learned layer at the size of its output, an up-convolution thus on the enlarged map
  (2s + 1 wide, before the blur), and every part on its own: mapping, Fourier features, ten layers, projection.
- *executed*: what this implementation runs. Up-convolutions multiply at the input size and are blurred afterwards,
  foreground parts of a new face share the base layers, Fourier features are projected once, and the shared projection
  to the feature comes once, after fusion.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from memorygan.analysis import charts
from memorygan.analysis.blocks import Bar, Block, Piece, Table, Text, markdown_table
from memorygan.analysis.lab import Lab
from memorygan.analysis.study import Study
from memorygan.checkpoint import GENERATORS
from memorygan.command import command
from memorygan.config import PRESETS, GeneratorConfig, get_preset, with_part_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"memorygan": "MemoryGAN", "semanticstylegan": "SemanticStyleGAN"}
PART_COUNTS = (1, 10, 100, 1000)
# Table 1 of the paper: K → millions of parameters, and K → thousand millions of MACs.
PAPER_PARAMETERS = {
    "memorygan": {1: 17.7, 10: 17.7, 100: 17.8, 1000: 19.1},
    "semanticstylegan": {1: 15.4, 10: 19.0, 100: 55.4, 1000: 419.8},
}
PAPER_MACS = {"memorygan": {1: 103.4, 10: 106.4, 100: 136.3, 1000: 435.4}}
COLORS = {"memorygan": "#c2410c", "semanticstylegan": "#1d4ed8"}
PAPER_PRESET = "paper-256"
FIGURE_DPI = 130
DEFAULT_FIGURE = Path("docs/complexity.png")


@dataclass(frozen=True)
class Complexity:
    """One generator for K parts.

    Attributes:
        kind: key of :data:`memorygan.checkpoint.GENERATORS`.
        parts: K.
        parameters: trainable numbers.
        paper_macs: MACs of one face by the paper's convention.
        executed_macs: MACs of one face as this implementation runs it.
    """

    kind: str
    parts: int
    parameters: int
    paper_macs: int
    executed_macs: int


def measure(kind: str, config: GeneratorConfig) -> Complexity:
    """Size and work of one generator."""
    return Complexity(
        kind, config.part_count, parameter_count(kind, config), paper_macs(kind, config), executed_macs(kind, config)
    )


def parameter_count(kind: str, config: GeneratorConfig) -> int:
    """Parameters of the real modules, built without memory for their values."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GENERATORS[kind](config).parameters())


def _mapping_macs(config: GeneratorConfig) -> int:
    return config.query_dim * config.style_dim + (config.mapping_layers - 1) * config.style_dim**2


def _lstm_macs(config: GeneratorConfig) -> int:
    """One step of the controller: four gates, and the layer that writes the moments."""
    hidden, queries = config.controller_hidden, 2 * config.query_dim
    return 4 * hidden * (queries + hidden) + hidden * queries


def _fourier_macs(config: GeneratorConfig) -> int:
    return config.coarse_size**2 * (2 + 4 * config.fourier_frequencies) * config.local_channels


def _render_macs(config: GeneratorConfig, enlarged: bool) -> int:
    """Render net with its heads.

    Args:
        enlarged: count up-convolutions on the enlarged map and leave out the blur, which learns nothing.
    """
    total, channels = 0, config.coarse_channels
    for side in config.render_sizes[:-1]:  # each block goes from a side to twice that side
        inputs = channels + (config.coarse_channels if side in (config.refine_sizes or ()) else 0)
        channels, pixels = config.render_channels(2 * side), (2 * side) ** 2
        up = 9 * inputs * channels
        total += up * (2 * side + 1) ** 2 if enlarged else up * side**2 + 16 * channels * pixels
        total += pixels * channels * (9 * channels + 3 + config.part_count)
    return total


def paper_macs(kind: str, config: GeneratorConfig) -> int:
    """MACs of one face by the paper's convention."""
    points, channels, layers = config.coarse_size**2, config.local_channels, config.local_layers
    part = _mapping_macs(config) + layers * config.style_dim * channels + _fourier_macs(config)
    part += points * (layers * channels**2 + channels)  # modulated layers, pseudo-depth
    part += points * config.coarse_channels * (channels + 1)  # projection, weighted sum
    if kind == "memorygan":
        part += _lstm_macs(config)
    return config.part_count * part + _render_macs(config, enlarged=True)


def executed_macs(kind: str, config: GeneratorConfig) -> int:
    """MACs of ``forward`` for a batch of one."""
    count, points, channels = config.part_count, config.coarse_size**2, config.local_channels
    layer = points * channels**2
    total = _render_macs(config, enlarged=False) + _fourier_macs(config)
    # Modulation and demodulation, then the pseudo-depth, of every part.
    total += count * (config.local_layers * channels * (config.style_dim + channels) + points * channels)
    if kind == "semanticstylegan":
        total += _mapping_macs(config)
        total += count * config.local_layers * layer
        return total + count * points * config.coarse_channels * (channels + 1)  # projections and their biases
    constant = config.controller_mlp * (config.controller_constant + 2 * config.query_dim)
    total += 2 * constant + (count - 1) * _lstm_macs(config) + (1 + count) * _mapping_macs(config)
    base_queries = 2 if count > 2 else count  # background, and once for all foreground parts
    total += (base_queries * config.base_layers + count * (config.local_layers - config.base_layers)) * layer
    total += count * points * channels  # fusion
    return total + points * channels * config.coarse_channels


def table(config: GeneratorConfig, part_counts: Sequence[int] = PART_COUNTS, paper: bool = True) -> Table:
    """Table 1, both models.

    Args:
        config: any preset; its parts are replaced by anonymous ones.
        part_counts: values of K.
        paper: show the paper's figures too; they hold for paper-256.
    """
    columns = ["Model", "K", "Parameters (M)", "MACs, paper's convention (G)", "MACs executed (G)"]
    if paper:
        columns[3:3], columns[5:5] = ["in the paper"], ["in the paper"]
    rows = []
    for kind in GENERATORS:
        for count in part_counts:
            row = measure(kind, with_part_count(config, count))
            cells = [NAMES[kind], f"{count}", f"{row.parameters / 1e6:.1f}", f"{row.paper_macs / 1e9:.1f}"]
            cells.append(f"{row.executed_macs / 1e9:.1f}")
            if paper:
                known = (PAPER_PARAMETERS[kind].get(count), PAPER_MACS.get(kind, {}).get(count))
                parameters, macs = (f"{value:.1f}" if value else "–" for value in known)
                cells[3:3], cells[5:5] = [parameters], [macs]
            rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def figure(config: GeneratorConfig, paper: bool = True, footer: str = "") -> Figure:
    """Parameters and MACs against K, both axes logarithmic, with the paper's figures as points if ``paper``."""
    # Imported here: the page counts with this module, and does without what draws.
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    counts = sorted({round(10 ** (i / 6)) for i in range(19)})  # 1 to 1000
    drawing = Figure(figsize=(10.0, 4.2), layout="constrained")
    left, right = drawing.subplots(1, 2)
    # By the paper's convention the two lie on top of each other: the wide line goes below.
    for kind, width in (("semanticstylegan", 4.0), ("memorygan", 1.6)):
        rows = [measure(kind, with_part_count(config, count)) for count in counts]
        name, color = NAMES[kind], COLORS[kind]
        left.plot(counts, [row.parameters / 1e6 for row in rows], label=name, color=color)
        macs = [row.paper_macs / 1e9 for row in rows]
        right.plot(counts, macs, label=f"{name}, paper's convention", color=color, lw=width)
        right.plot(counts, [row.executed_macs / 1e9 for row in rows], "--", label=f"{name}, executed", color=color)
        for axes, known in ((left, PAPER_PARAMETERS), (right, PAPER_MACS)):
            if paper and kind in known:
                label, points = f"{name}, as printed in the paper", known[kind]
                axes.plot(list(points), list(points.values()), "o", label=label, color=color, ms=6, mec="white")
    for axes, title, unit in ((left, "Parameters", "millions"), (right, "Work per face", "G MACs")):
        axes.set(xscale="log", yscale="log", xlabel="parts K", ylabel=unit, title=title)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.grid(True, which="both", color="#e2e4ea", lw=0.6)
        axes.set_axisbelow(True)
        axes.legend(fontsize=7.5, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    if footer:
        drawing.supxlabel(footer, x=0.005, ha="left", fontsize=7, color="#6e727c")
    return drawing


def bars(config: GeneratorConfig) -> tuple[Bar, ...]:
    """How far the counts of paper-256 are from Table 1: parameters to the printed digit, MACs within 2 %."""
    wrong = [
        (kind, count)
        for kind, known in PAPER_PARAMETERS.items()
        for count, printed in known.items()
        if round(parameter_count(kind, with_part_count(config, count)) / 1e6, 1) != printed
    ]
    deviations = [
        abs(paper_macs(kind, with_part_count(config, count)) / 1e9 / printed - 1.0)
        for kind, known in PAPER_MACS.items()
        for count, printed in known.items()
    ]
    return (
        Bar("parameter counts of paper-256 that differ from Table 1 as printed", len(wrong), 0, False, 0),
        Bar("largest deviation of paper-256's MACs from Table 1", max(deviations), 0.02, False, 0),
    )


def run(lab: Lab, samples: int) -> Piece:
    """Table 1 for the paper's preset and for the checkpoint's own; nothing is sampled, so ``samples`` has no effect."""
    paper, own = get_preset(PAPER_PRESET).generator, lab.config
    footer = lab.plain_footer(len(PART_COUNTS), "part counts")
    mine, drawing = measure(lab.loaded.kind, own), charts.picture(figure(paper, footer=footer), FIGURE_DPI)
    blocks: list[Block] = [
        Text(
            "Multiply-accumulates (MACs) of one face are counted twice: by the paper's convention, which takes "
            "up-convolutions on the enlarged map and every part on its own, and as this implementation executes them."
        ),
        replace(table(paper), caption=f"Table 1 for {PAPER_PRESET}, beside the figures printed in the paper."),
        lab.save(drawing, "complexity.png", "Parameters and MACs against K", footer),
        Text(
            f"This checkpoint, {NAMES[mine.kind]} with {mine.parts} parts at {own.size} pixels: "
            f"{mine.parameters / 1e6:.1f} M parameters, {mine.paper_macs / 1e9:.1f} G MACs by the paper's convention, "
            f"{mine.executed_macs / 1e9:.1f} G executed."
        ),
        replace(table(own, paper=False), caption="The same for the checkpoint's configuration."),
    ]
    numbers = {"parameters": mine.parameters, "paper_macs": mine.paper_macs, "executed_macs": mine.executed_macs}
    return Piece(tuple(blocks), {name: float(value) for name, value in numbers.items()}, bars(paper))


STUDY = Study("complexity", "Size and work", "Table 1", run, samples=1, paper_samples=1, sheet=True)


@command()
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table and saves the figure."""
    parser = argparse.ArgumentParser(prog="python -m memorygan.analysis.complexity", description="Table 1 of the paper")
    parser.add_argument("--preset", choices=sorted(PRESETS), default=PAPER_PRESET, help="default: %(default)s")
    parser.add_argument("--parts", type=int, nargs="+", default=PART_COUNTS, metavar="K", help="default: 1 10 100 1000")
    parser.add_argument("--figure", type=Path, default=DEFAULT_FIGURE, help="PNG to write (default: %(default)s)")
    options = parser.parse_args(arguments)
    if min(options.parts) < 1:
        parser.error(f"K is {min(options.parts)}; a generator has at least one part")
    config = get_preset(options.preset).generator
    paper = options.preset == PAPER_PRESET
    shown = table(config, options.parts, paper)
    print(markdown_table(shown.columns, shown.rows))
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure(config, paper=paper).savefig(options.figure, dpi=FIGURE_DPI)
    print(f"\nfigure: {options.figure}")


if __name__ == "__main__":
    sys.exit(main())
