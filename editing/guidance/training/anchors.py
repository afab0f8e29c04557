"""One direction among the image vectors per word, at right angles to those of all other attributes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing.guidance.captions import Caption
from editing.guidance.training.faces import ATTRIBUTES
from editing.guidance.words import WORDS


class Anchors(nn.Module):
    """One direction per word; those of an attribute sum to nothing, so none is near a face just by being common."""

    weight: Tensor

    def __init__(self, start: Tensor) -> None:
        """From (words of all attributes, E): the nearest such that no two attributes share a direction."""
        super().__init__()
        ends = np.cumsum([len(words) for words in WORDS.values()]).tolist()
        self.runs = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        frames, places = [], []
        for place in self.runs:
            count = place.stop - place.start
            # The corners of a simplex in one dimension less than it has words, and the frame that lies nearest to them.
            corners = torch.linalg.svd(torch.eye(count) - 1 / count)[0][:, : count - 1]  # (words, words - 1)
            frames.append(corners.T @ F.normalize(start[place] - start[place].mean(dim=0), dim=-1))
            places.append(corners)
        left, _, right = torch.linalg.svd(torch.cat(frames), full_matrices=False)
        square = (left @ right).split([place.stop - place.start - 1 for place in self.runs])
        self.register_buffer("weight", torch.cat([at @ axes for at, axes in zip(places, square, strict=True)]))

    def forward(self) -> list[Tensor]:
        """(words, E) unit vectors of each attribute."""
        return [F.normalize(self.weight[run] - self.weight[run].mean(dim=0), dim=-1) for run in self.runs]

    def of(self, captions: Sequence[Caption]) -> Tensor:
        """(T, E) unit vectors: the sum of what each caption claims."""
        anchors = dict(zip(ATTRIBUTES, self(), strict=True))
        rows = [torch.stack([anchors[a][WORDS[a].index(w)] for a, w in c.claims.items()]).sum(0) for c in captions]
        return F.normalize(torch.stack(rows), dim=-1)
