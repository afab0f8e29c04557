"""What an encoder reads from all faces of a set."""

from __future__ import annotations

from collections.abc import Callable

import torch

from memorygan.encoder import PartEncoder, Posterior
from memorygan.training.batches import FaceBatch, ResidentFaces

_TOGETHER = 64


@torch.no_grad()
def encoded(
    encoder: PartEncoder,
    faces: ResidentFaces,
    flip: bool,
    change: Callable[[FaceBatch], FaceBatch] = lambda batch: batch,
) -> Posterior:
    """Posteriors of all faces, and after them of all mirrored ones.

    Args:
        encoder: reads them, once each.
        faces: N of them.
        flip: whether to mirror them too.
        change: what is done to every batch first.

    Returns:
        N posteriors, or 2·N.
    """
    read = []
    for flipped in (False, True) if flip else (False,):
        for rows in torch.arange(len(faces)).split(_TOGETHER):
            batch = change(faces.batch(rows, torch.full((len(rows),), flipped)))
            read.append(encoder(batch.image, batch.one_hot))
    return Posterior(torch.cat([each.mean for each in read]), torch.cat([each.log_variance for each in read]))
