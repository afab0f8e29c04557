"""A memory that has learned nothing but where its parts lie, for studies of scale: no one has faces of 1000 parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.config import GeneratorConfig
from memorygan.latents import PartLatents
from memorygan.memory import LongTermMemory, memory_layer

LEARNING_RATE, CODE_RATE = 3e-3, 3e-2
BETAS = (0.9, 0.99)
STEPS = 600
# Points and parts that a step looks at.
POINTS, PARTS = 128, 128


def cells(config: GeneratorConfig, seed: int = 0) -> Tensor:
    """(P,) the nearest of K random places, for every point of the grid."""
    random = torch.Generator().manual_seed(seed)
    places = torch.rand(config.part_count, 2, generator=random)
    line = torch.linspace(0.0, 1.0, config.coarse_size)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.cdist(torch.stack((x, y), dim=-1).flatten(0, 1), places).argmin(dim=1)


def lay_out(memory: LongTermMemory, labels: Tensor, parts: int, steps: int = STEPS, seed: int = 0) -> PartLatents:
    """Trains codes of one face, and the layers that decide depths, until each part lies where it should (Eq. 5).

    Args:
        memory: is changed.
        labels: (P,) part of every grid point.
        parts: K.
        steps: of Adam.

    Returns:
        codes (1, 1 + K, D).
    """
    random = torch.Generator().manual_seed(seed)
    codes = torch.randn(1, 1 + parts, memory.style_weight.shape[-1], generator=random).requires_grad_()
    network = [parameter for name, parameter in memory.named_parameters() if not name.startswith("to_feature")]
    for parameter in network:
        parameter.requires_grad_(True)
    groups = [{"params": [codes], "lr": CODE_RATE}, {"params": network, "lr": LEARNING_RATE}]
    optimizer = torch.optim.Adam(groups, betas=BETAS)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1.0 / steps))
    for _ in range(steps):
        point = torch.randint(len(labels), (POINTS,), generator=random)
        # The parts of these points, and some others to tell them from.
        others = torch.randperm(parts, generator=random)[:PARTS]
        chosen = torch.unique(torch.cat((torch.zeros(1, dtype=torch.long), labels[point], others)))
        depth = _depth(memory, codes, chosen, point)
        loss = F.cross_entropy(depth.T, torch.searchsorted(chosen, labels[point]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for parameter in network:
        parameter.requires_grad_(False)
    return PartLatents(codes.detach())


def _depth(memory: LongTermMemory, codes: Tensor, chosen: Tensor, point: Tensor) -> Tensor:
    """(K', N) pseudo-depths of some parts, the background first, at some points."""
    shape, count = memory.depth_layers - memory.base_layers, len(chosen) - 1
    x = memory.inputs(torch.float32)[point].expand(1, -1, -1)
    base = codes[:, :1, None].expand(-1, -1, memory.local_layers, -1)
    for weight, bias in zip(*memory.modulated(base, torch.float32, 0, memory.base_layers), strict=True):
        x = memory_layer(x, weight, bias)
    x = x.expand(count, -1, -1)
    own = codes[:, 1 + chosen[1:], None].expand(-1, -1, memory.base_layers + shape, -1)
    own = F.pad(own, (0, 0, 0, memory.local_layers - own.shape[2]))
    layers = memory.modulated(own, torch.float32, memory.base_layers, memory.depth_layers)
    for weight, bias in zip(*layers, strict=True):
        x = memory_layer(x, weight, bias)
    weight, bias = memory.to_depth.folded()
    return F.pad(x @ weight.flatten() + bias, (0, 0, 1, 0))
