"""Traits that fade while faces are read, and how much more often a prior sees the faces in which they did not.

Most people over sixty look younger in what their codes draw. A prior that sees them as often as they are draws too few
old people, and one that sees all of them more often draws more of those who look younger. So a linear probe tells from
the codes in which of them a trait is still plain, and those are shown more often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memorygan.analysis.probes import Probe
from memorygan.training.packfile import DataError
from memorygan.training.rarity import LABELS


@dataclass(frozen=True)
class Fading:
    """A trait of :data:`memorygan.training.rarity.LABELS`, and how many times as often faces show it plainly."""

    column: str
    times: float


FADING = (Fading("age", 8.0), Fading("hair_red", 8.0), Fading("bald", 4.0))
PLAIN = 0.5  # as many faces show a trait plainly, of as many as have it


def shown_more(codes: Tensor, labels: Sequence[Mapping[str, str]], fading: Sequence[Fading] = FADING) -> Tensor:
    """(N,) how many times as often each face is to be shown: 1, or the largest factor of what it shows plainly.

    Args:
        codes: (N, F) of all faces.
        labels: of each face: column → text; empty where nothing is known of it.
        fading: traits.

    Raises:
        DataError: if nothing, or everything, is labelled with one of the traits.
    """
    times = torch.ones(len(codes))
    known = np.array([bool(row) for row in labels])
    features = codes.float().cpu().numpy()
    for trait in fading:
        label = next(label for label in LABELS if label.column == trait.column)
        holds = np.array([label.seen(row) for row in labels])[known]
        if not 0 < holds.sum() < len(holds):
            raise DataError(f"labels of {trait.column} are needed, of faces with and without; name another folder")
        probe = Probe.fit(features[known], holds)
        scores = probe.read(torch.from_numpy(features)).numpy()
        plain = scores >= np.quantile(scores[known], 1.0 - PLAIN * holds.mean())
        times = torch.maximum(times, torch.from_numpy(np.where(plain, trait.times, 1.0)).float())
    return times
