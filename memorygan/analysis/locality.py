"""Edit locality: how much a picture changes inside and outside a part when that part is taken from another face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memorygan.analysis import grids
from memorygan.analysis.blocks import Bar, Piece, Table, Text, number
from memorygan.analysis.lab import Lab
from memorygan.analysis.rarity import rarity_note
from memorygan.analysis.study import Study
from memorygan.generator import ComposedGenerator, Synthesis
from memorygan.latents import Latents
from memorygan.memory import Retrieved

BAR_PARTS = ("hair", "mouth", "nose", "eyes", "eyebrows")
OUTSIDE_BAR, INSIDE_BAR = 3.0, 8.0
# Rounding to 8 bits alone moves a pixel by one step; two is below what anyone sees.
TOLERANCE = 2.0
SHOWN = 3
# What is kept of every change: fields of Change, in the order of summarise().
MEASURES = ("inside", "outside", "preserved", "area")


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


def swap_part(
    generator: ComposedGenerator, face: Synthesis, retrieved: Retrieved, source: Latents, part: str
) -> Synthesis:
    """The face with one part of another, by the part's own rule; only that part is retrieved anew.

    Args:
        generator: of the faces.
        face: B faces.
        retrieved: all their parts, from :meth:`ComposedGenerator.retrieve`.
        source: latents of the B faces to take the part from.
        part: its name.
    """
    mixed = face.latents.mix(source, [part])
    fresh = generator.retrieve(mixed, [part])
    return generator.compose(retrieved.with_parts([generator.config.parts.index(part)], fresh), mixed)


def part_region(before: Tensor, after: Tensor, part: int) -> Tensor:
    """(B, H, W) bool: where the part is in either part map (B, H, W)."""
    return (before == part) | (after == part)


@dataclass(frozen=True)
class Summary:
    """All edits of one kind.

    Attributes:
        inside, outside: mean change in steps of 255; nan if no edit shows the part, or nothing lies outside.
        preserved: mean share of preserved pixels outside.
        area: mean share of the picture inside.
        edits: number of edits; shown: those in which the part shows at all.
    """

    inside: float
    outside: float
    preserved: float
    area: float
    edits: int
    shown: int

    def cells(self) -> tuple[str, str, str]:
        """Change inside, change outside and preserved share, for a table."""
        preserved = f"{100 * self.preserved:.1f} %" if np.isfinite(self.preserved) else "–"
        return number(self.inside), number(self.outside), preserved


def summarise(inside: np.ndarray, outside: np.ndarray, preserved: np.ndarray, area: np.ndarray) -> Summary:
    """Means over N edits; those that do not show the part count outside only.

    Args:
        inside, outside, preserved, area: (N,) as in :class:`Change`, nan where there is nothing to measure.
    """
    return Summary(_mean(inside), _mean(outside), _mean(preserved), _mean(area), len(area), int((area > 0).sum()))


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)].astype(np.float64)
    return float(known.mean()) if len(known) else float("nan")


def columns_of(changes: Sequence[Change]) -> dict[str, Tensor]:
    """The numbers of several changes of the same B faces: name → (B, number of changes), without the maps."""
    return {name: torch.stack([getattr(change, name) for change in changes], dim=1) for name in MEASURES}


@torch.no_grad()
def _swaps(lab: Lab, seeds: list[int], partners: int) -> Iterator[tuple[Synthesis, Synthesis, Change]]:
    """Faces, swapped faces and their difference for every part, which comes from the face ``partners`` seeds on."""
    generator, source = lab.drawing, lab.sample([seed + partners for seed in seeds])
    face = generator.synthesize(lab.sample(seeds))
    retrieved = generator.retrieve(face.latents)
    for name in lab.parts.names:
        swapped = swap_part(generator, face, retrieved, source, name)
        region = part_region(face.part_map, swapped.part_map, lab.parts.index(name))
        yield face, swapped, measure_change(face.image, swapped.image, region)


def _sheet(lab: Lab, partners: int) -> list[list[np.ndarray]]:
    """One row of pictures per part: face, swapped, change, for a few faces."""
    rows = []
    for face, swapped, change in _swaps(lab, lab.face_seeds(min(SHOWN, partners)), partners):
        triples = zip(grids.faces(face.image), grids.faces(swapped.image), grids.heat(change.map), strict=True)
        rows.append([picture for triple in triples for picture in triple])
    return rows


def run(lab: Lab, samples: int) -> Piece:
    """The table of all parts, and a sheet of swaps with their change maps."""
    found = lab.gather(
        "swaps",
        lab.face_seeds(samples),
        lambda seeds: columns_of([change for _, _, change in _swaps(lab, seeds, samples)]),
    )
    rows: list[tuple[str, ...]] = []
    numbers: dict[str, float] = {}
    bars: list[Bar] = []
    shares: dict[str, float] = {}
    for k, name in enumerate(lab.parts.names):
        of = summarise(*(found[key][:, k] for key in MEASURES))
        shares[name] = of.area
        numbers |= {f"swap_{name}_{key}": getattr(of, key) for key in ("inside", "outside", "preserved")}
        rows.append((lab.parts[name].label, *of.cells(), f"{100 * of.area:.1f} %", f"{of.shown:,}"))
        if name in BAR_PARTS:
            swap = f"swap of {name}: mean change"
            bars.append(Bar(f"{swap} outside the part, of 255", of.outside, OUTSIDE_BAR, False, of.edits))
            bars.append(Bar(f"{swap} inside the part, of 255", of.inside, INSIDE_BAR, True, of.shown))
    footer, of_sheet = (lab.footer(count, of="swaps per part") for count in (samples, min(SHOWN, samples)))
    labels, columns = [part.label for part in lab.parts.parts], ["face", "swapped", "change"] * min(SHOWN, samples)
    header = ("part", "change inside", "change outside", "preserved outside", "area", "swaps that show the part")
    caption = "Swaps per part with their change maps (white: 64 of 255 and more)"
    return Piece(
        (
            Text(
                "Every part is taken from another random face. Inside is where the part lies before or after the swap, "
                "by the generator's masks; a pixel is preserved if no channel moved by more than "
                f"{TOLERANCE:g} of 255. Swaps in which the part shows in neither face count outside only. Pictures are "
                f"those of the fast path, which the editor shows too ({lab.arithmetic}); its rounding counts as change."
            ),
            Table(header, tuple(rows), f"Mean absolute change in steps of 255 ({footer})."),
            *rarity_note(lab.parts, shares, "That swapping them changes nothing is no proof of locality."),
            lab.save(grids.grid(_sheet(lab, samples), labels, columns, of_sheet), "locality.webp", caption, of_sheet),
        ),
        numbers,
        tuple(bars),
    )


STUDY = Study("locality", "Locality of swaps", "beyond the paper", run, samples=1000, paper_samples=1000, version=2)
