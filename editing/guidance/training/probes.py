"""Small probes: logistic regressions on image features, which tell the words of labelled faces to unlabelled ones.

A label that a service gave is wrong for one face in ten or so. A probe that has not seen a face is a second opinion on
it, so labelled faces get the mean of both; faces without a label get what the probe says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from editing.guidance.training.opinions import Opinion
from editing.guidance.words import WORDS

_FOLDS = 3
_STEPS, _DECAY = 30, 2e-3
# A word of which fewer faces are known cannot be probed.
_LEAST = 12


def consult(
    features: Sequence[np.ndarray], told: Sequence[Sequence[Opinion]], held: Sequence[np.ndarray]
) -> tuple[list[list[Opinion]], dict[str, float]]:
    """Opinions on all faces of some sets.

    Args:
        features: (N, D) of each set.
        told: an opinion per face of each set; may be silent on anything.
        held: (N,) bool of each set: held-out faces, whose opinions stay as they are told.

    Returns:
        opinions like ``told``, and by attribute how often a probe agrees with the labels of faces it has not seen: the
        mean over the words, among faces whose label is sure.
    """
    opinions = [[dict(opinion) for opinion in rows] for rows in told]
    where = [(s, i) for s, rows in enumerate(opinions) for i in range(len(rows)) if not held[s][i]]
    x = torch.from_numpy(np.concatenate([f[~h] for f, h in zip(features, held, strict=True)])).float()
    x = (x - x.mean(dim=0)) / x.std(dim=0).clamp_min(1e-3)
    agreement = {}
    for attribute in WORDS:
        labels = {row: told[s][i][attribute] for row, (s, i) in enumerate(where) if attribute in told[s][i]}
        probed = len(WORDS[attribute]) - (attribute == "hair colour")  # of white hair, labels know nothing
        if not labels or min(np.sum(list(labels.values()), axis=0)[:probed]) < _LEAST:
            continue
        rows, y = torch.tensor(list(labels)), torch.tensor(list(labels.values()), dtype=torch.float32)
        guesses, agreement[attribute] = _guess(x, rows, y)
        for row, guess in enumerate(guesses.tolist()):
            s, i = where[row]
            label = labels.get(row)
            opinions[s][i][attribute] = tuple(
                guess if label is None else ((a + b) / 2 for a, b in zip(label, guess, strict=True))
            )
    return opinions, agreement


def _guess(x: Tensor, rows: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """(N, W) guesses of faces with features ``x``, those of labelled rows by probes that have not seen them."""
    fold = torch.arange(len(rows)) % _FOLDS
    every, own = torch.zeros(len(x), y.shape[1]), torch.zeros_like(y)
    for k in range(_FOLDS):
        weight, bias = _fit(x[rows[fold != k]], y[fold != k])
        answer = (x @ weight + bias).softmax(dim=1)
        every += answer / _FOLDS
        own[fold == k] = answer[rows[fold == k]]
    every[rows] = own
    sure, labels = y.amax(dim=1) > 0.8, y.argmax(dim=1)
    right = own.argmax(dim=1) == labels
    shares = [right[sure & (labels == w)].float().mean() for w in range(y.shape[1]) if (sure & (labels == w)).any()]
    return every, float(torch.stack(shares).mean())


def _fit(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logistic regression (D, W), (W,) on soft labels (N, W)."""
    weight, bias = torch.zeros(x.shape[1], y.shape[1], requires_grad=True), torch.zeros(y.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y) + _DECAY * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[arg-type, no-untyped-call]
    return weight.detach(), bias.detach()
