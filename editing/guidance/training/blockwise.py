"""Block by block: every block of the judge learns to give what the same block of its teacher gives.

Each gets the teacher's maps before it, so all learn at once and none waits for those before it (hints, Romero et al.
2015; blockwise supervision, Li et al. 2020). What small errors of many blocks add up to is mended by training the whole
from these weights (:mod:`editing.guidance.training.identity`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing.guidance.face_net import Bottleneck, FaceEmbedder, FaceNetConfig, standardised
from memorygan.training.teacher import DIM, SIZE, STAGES, STEM, MobileFaceNet

# Maps of this side are shown of every picture, those of twice the side of every second: neighbouring cells are alike.
_SIDE = 7


def check_blocks(config: FaceNetConfig) -> None:
    """Raises a ValueError if such a judge has other blocks than its teacher, but for what is inside of them."""
    own = (config.size, config.stem, config.dim, [stage[1:] for stage in config.stages])
    if own != (SIZE, STEM, DIM, [stage[1:] for stage in STAGES]):
        raise ValueError("the judge's blocks have other widths than its teacher's; give FaceNetConfig the same")


def block_errors(net: FaceEmbedder, teacher: MobileFaceNet, crops: Tensor, step: int) -> Tensor:
    """How far every block is from its teacher's, as a share of the variance of what that adds to its input.

    Args:
        net: the judge in training.
        teacher: its teacher.
        crops: (B, 3, 112, 112) in [−1, 1].
        step: which pictures are shown to the blocks that do not see all of them.

    Returns:
        (2 + blocks,): stem, blocks, head.
    """
    pictures = standardised(crops)
    with torch.no_grad():
        maps = [teacher.dw_conv(teacher.conv1(pictures))]
        for block in teacher.features:
            maps.append(block(maps[-1]))
        code = teacher.code_of(maps[-1])
    errors = [_error(net.stem, pictures, maps[0], step)]
    blocks = cast(Iterable[Bottleneck], net.blocks)
    for block, before, after in zip(blocks, maps, maps[1:], strict=False):
        errors.append(_error(block.change, before, after - before if block.adds else after, step))
    return torch.stack([*errors, _error(net.head, maps[-1], code, step)])


def _error(block: nn.Module, before: Tensor, wanted: Tensor, step: int) -> Tensor:
    side = wanted.shape[-1] if wanted.dim() == 4 else 1
    every = max(min(side // _SIDE, len(before) // 4), 1)
    before, wanted = before[step % every :: every], wanted[step % every :: every]
    spread = wanted.var([0, *range(2, wanted.dim())]).mean()
    return F.mse_loss(block(before.contiguous(memory_format=torch.channels_last)), wanted) / spread
