"""Edit locality: how much a picture changes inside and outside a part when that part is taken from another face."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from memorygan.analysis import grids
from memorygan.analysis.blocks import Bar, Piece, Table, Text, number
from memorygan.analysis.lab import Lab
from memorygan.analysis.study import Study
from memorygan.generator import Synthesis
from memorygan.latents import Latents
from memorygan.memory import Retrieved

BAR_PARTS = ("hair", "mouth", "nose", "eyes", "eyebrows")
OUTSIDE_BAR, INSIDE_BAR = 3.0, 8.0
# Rounding to 8 bits alone moves a pixel by one step; two is below what anyone sees.
TOLERANCE = 2.0
SHOWN = 3


@dataclass(frozen=True)
class Change:
    """How B pictures changed, in steps of 255.

    Attributes:
        map: (B, H, W) mean |Δ| over the colour channels.
        inside, outside: (B,) mean of the map inside and outside the region; nan where that is empty.
        preserved: (B,) share of the pixels outside of which no channel changed by more than the tolerance; nan if none.
        area: (B,) share of the picture inside.
    """

    map: Tensor
    inside: Tensor
    outside: Tensor
    preserved: Tensor
    area: Tensor


def measure_change(before: Tensor, after: Tensor, inside: Tensor, tolerance: float = TOLERANCE) -> Change:
    """Compares pictures as a person sees them: clamped, and rounded to 8 bits.

    Args:
        before, after: (B, 3, H, W) in [−1, 1].
        inside: (B, H, W) bool, where change is wanted.
        tolerance: change of a channel, in steps of 255, at which a pixel counts as preserved.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if before.shape != after.shape or inside.shape != before[:, 0].shape:
        raise ValueError(f"shapes {tuple(before.shape)}, {tuple(after.shape)} and {tuple(inside.shape)} do not fit")
    delta = (_steps(after) - _steps(before)).abs()
    change, largest = delta.mean(dim=1), delta.amax(dim=1)
    outside = ~inside
    return Change(
        change,
        _mean_where(change, inside),
        _mean_where(change, outside),
        _mean_where((largest <= tolerance).float(), outside),
        inside.float().mean(dim=(1, 2)),
    )


def _steps(image: Tensor) -> Tensor:
    return ((image.float().clamp(-1, 1) + 1.0) * 127.5).round()


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """(B,) mean of (B, H, W) values over the chosen pixels; nan where none is chosen."""
    count = chosen.sum(dim=(1, 2))
    total = torch.where(chosen, values, 0.0).sum(dim=(1, 2))
    return torch.where(count > 0, total / count.clamp_min(1), torch.nan)


def swap_part(lab: Lab, face: Synthesis, retrieved: Retrieved, source: Latents, part: str) -> Synthesis:
    """The face with one part of another, by the part's own rule; only that part is retrieved anew.

    Args:
        lab: the bench.
        face: B faces.
        retrieved: all their parts, from :meth:`ComposedGenerator.retrieve`.
        source: latents of the B faces to take the part from.
        part: its name.
    """
    mixed = face.latents.mix(source, [part])
    fresh = lab.generator.retrieve(mixed, [part])
    return lab.generator.compose(retrieved.with_part(lab.parts.index(part), fresh), mixed)


def part_region(before: Tensor, after: Tensor, part: int) -> Tensor:
    """(B, H, W) bool: where the part is in either part map (B, H, W)."""
    return (before == part) | (after == part)


@dataclass(frozen=True)
class SwapSummary:
    """All swaps of one part.

    Attributes:
        inside, outside: mean change in steps of 255; nan if no swap shows the part, or nothing lies outside.
        preserved: mean share of preserved pixels outside.
        area: mean share of the picture inside.
        swaps: number of swaps; shown: those in which the part shows at all.
    """

    inside: float
    outside: float
    preserved: float
    area: float
    swaps: int
    shown: int


def summarise(changes: list[Change]) -> SwapSummary:
    """Means over all swaps of one part; those that do not show it count outside only.

    Raises:
        ValueError: if there is no swap.
    """
    if not changes:
        raise ValueError("there is no swap to summarise")
    inside, outside, preserved, area = (
        torch.cat([getattr(change, name) for change in changes]).double()
        for name in ("inside", "outside", "preserved", "area")
    )
    shown = int((area > 0).sum())
    return SwapSummary(_nanmean(inside), _nanmean(outside), _nanmean(preserved), float(area.mean()), len(area), shown)


@torch.no_grad()
def _swap_all(lab: Lab, samples: int) -> tuple[dict[str, SwapSummary], list[list[np.ndarray]]]:
    """Summaries by part, and one row of pictures per part: face, swapped, change."""
    found: dict[str, list[Change]] = {name: [] for name in lab.parts.names}
    sheet: list[list[np.ndarray]] = [[] for _ in lab.parts.names]
    for seeds in lab.seeds(samples, "swaps"):
        source = lab.sample([seed + samples for seed in seeds])
        face = lab.generator.synthesize(lab.sample(seeds))
        retrieved = lab.generator.retrieve(face.latents)
        for row, name in zip(sheet, lab.parts.names, strict=True):
            swapped = swap_part(lab, face, retrieved, source, name)
            region = part_region(face.part_map, swapped.part_map, lab.parts.index(name))
            change = measure_change(face.image, swapped.image, region)
            found[name].append(replace(change, map=change.map[:0]))
            for k in range(min(len(seeds), SHOWN - len(row) // 3)):
                row += [grids.faces(face.image)[k], grids.faces(swapped.image)[k], grids.heat(change.map)[k]]
    return {name: summarise(changes) for name, changes in found.items()}, sheet


def run(lab: Lab, samples: int) -> Piece:
    """The table of all parts, and a sheet of swaps with their change maps."""
    summaries, sheet = _swap_all(lab, samples)
    rows: list[tuple[str, ...]] = []
    numbers: dict[str, float] = {}
    bars: list[Bar] = []
    for name, of in summaries.items():
        numbers |= {f"swap_{name}_{key}": getattr(of, key) for key in ("inside", "outside", "preserved")}
        preserved = f"{100 * of.preserved:.1f} %" if np.isfinite(of.preserved) else "–"
        means = (number(of.inside), number(of.outside), preserved)
        rows.append((lab.parts[name].label, *means, f"{100 * of.area:.1f} %", f"{of.shown:,}"))
        if name in BAR_PARTS:
            swap = f"swap of {name}: mean change"
            bars.append(Bar(f"{swap} outside the part, of 255", of.outside, OUTSIDE_BAR, False, of.swaps))
            bars.append(Bar(f"{swap} inside the part, of 255", of.inside, INSIDE_BAR, True, of.shown))
    footer, of_sheet = (lab.footer(count, of="swaps per part") for count in (samples, min(SHOWN, samples)))
    labels, columns = [part.label for part in lab.parts.parts], ["face", "swapped", "change"] * SHOWN
    header = ("part", "change inside", "change outside", "preserved outside", "area", "swaps that show the part")
    caption = "Swaps per part with their change maps (white: 64 of 255 and more)"
    return Piece(
        (
            Text(
                "Every part is taken from another random face. Inside is where the part lies before or after the swap, "
                "by the generator's masks; a pixel is preserved if no channel moved by more than "
                f"{TOLERANCE:g} of 255. Swaps in which the part shows in neither face count outside only."
            ),
            Table(header, tuple(rows), f"Mean absolute change in steps of 255 ({footer})."),
            lab.save(grids.grid(sheet, labels, columns, of_sheet), "locality.png", caption, of_sheet),
        ),
        numbers,
        tuple(bars),
    )


def _nanmean(values: Tensor) -> float:
    return float(values.nanmean()) if bool(values.isfinite().any()) else float("nan")


STUDY = Study("locality", "Locality of swaps", "beyond the paper", run, samples=100, paper_samples=1000)
