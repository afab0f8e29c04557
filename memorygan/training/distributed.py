"""Several processes as one: the same random numbers everywhere, each process using its own slice of the batch."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from memorygan.fast.hardware import choose_device

# The main process measures and draws sheets alone; the others wait for it.
TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank, world: 0-based index and number of processes.
        device: where this process computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over all processes, in one message."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over all processes."""
        if self.world == 1:
            return value
        value = value.detach().clone()
        dist.all_reduce(value)
        return value / self.world

    def any(self, flag: bool) -> bool:
        """True everywhere if it is true anywhere (time is up, a loss is not finite)."""
        if self.world == 1:
            return flag
        value = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def share(self, data: bytes | None) -> bytes | None:
        """The main process's bytes (or None), everywhere; what the others pass is ignored."""
        if self.world == 1:
            return data
        size = torch.tensor(-1 if data is None else len(data), device=self.device)
        dist.broadcast(size, 0)
        if size.item() < 0:
            return None
        content = torch.empty(int(size.item()), dtype=torch.uint8, device=self.device)
        if self.is_main and data:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(content, 0)
        return content.cpu().numpy().tobytes()

    def leave(self) -> None:
        """Ends the communication; nothing may be averaged afterwards."""
        if self.world > 1:
            dist.destroy_process_group()

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.world > 1:
            dist.barrier()


def start_processes(device: str | None = None) -> Processes:
    """Joins the processes that ``torchrun`` started, or runs alone.

    Args:
        device: ``cpu`` or ``cuda``; None takes CUDA where it is available.

    Raises:
        ValueError: if CUDA was asked for and is not there, or there are fewer GPUs than processes.
    """
    chosen = choose_device(device or "auto")
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if str(chosen) == "cuda":
        chosen = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(chosen)
    if world > 1 and not dist.is_initialized():
        # Its functions keep the default group as a default argument. The first optimiser step would import it, with our
        # group; that would then outlive `leave`, and its threads would run into the end of the interpreter (SIGABRT).
        importlib.import_module("torch.distributed.nn.functional")
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=TIMEOUT)
    return Processes(rank, world, chosen)


def pick(chance: Tensor, weights: Tensor) -> Tensor:
    """(B,) indices into weights (N,), each as often as it weighs; ``chance`` (B,) lies in [0, 1)."""
    edges = weights.cumsum(0)
    return torch.searchsorted(edges / edges[-1], chance.contiguous()).clamp_max(len(edges) - 1)


class Draws:
    """The random numbers of a run.

    Every process draws the numbers of the whole batch from the same CPU stream and keeps its own slice, so that two
    processes of batch B see what one process of batch 2B would have seen, on any device.
    """

    def __init__(self, seed: int, processes: Processes) -> None:
        self.processes = processes
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, batch: int, *shape: int) -> Tensor:
        """(batch, *shape) standard normal, float32."""
        return self._own(torch.randn(batch * self.processes.world, *shape, generator=self.generator))

    def uniform(self, batch: int, *shape: int) -> Tensor:
        """(batch, *shape) in [0, 1), float32."""
        return self._own(torch.rand(batch * self.processes.world, *shape, generator=self.generator))

    def integers(self, batch: int, high: int) -> Tensor:
        """(batch,) int64 in [0, high)."""
        return self._own(torch.randint(high, (batch * self.processes.world,), generator=self.generator))

    def _own(self, rows: Tensor) -> Tensor:
        return rows.chunk(self.processes.world)[self.processes.rank].to(self.processes.device)
