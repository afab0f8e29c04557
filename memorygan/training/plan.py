"""A stage after all others: the controller learns to draw what encoded faces are, rare things included.

Its Gaussians are independent in every dimension (Eq. 9 and 10), and codes of real faces are not: fitted by maximum
likelihood alone, it samples beside the codes that the generator knows, and glasses never come. Two things mend that
without touching a picture. Codes are turned so that the base code's principal directions become dimensions of their
own, which the mapping network does not notice (its pixel norm is the same in every direction). And dimensions in which
an encoded part is nothing but noise, so that the generator has learned to overlook them, carry the next part's draw:
what the LSTM then writes is that part, on the codes of real faces.
"""

from __future__ import annotations

from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from memorygan.controller import carrier_of
from memorygan.encoder import PartEncoder, Posterior
from memorygan.generator import MemoryGAN
from memorygan.layers import EqualLinear
from memorygan.training.distributed import pick
from memorygan.training.innovations import Principal, innovations
from memorygan.training.stages import LearnToQuery, Losses

PLANNED = 24  # directions of a part that its draw decides; they hold all but a few percent of its variance
IDLE = 0.1  # variance of the means over the posteriors' own, below which a dimension says nothing


class LearnToPlan(LearnToQuery):
    """The last stage: the controller is fitted to codes whose idle dimensions say what comes next."""

    name, duration = "plan", "plan_steps"

    def step(self) -> Losses:
        if self.state.progress.steps == 0:
            self.state.continue_from_averages()
            self.turn_codes()
            for generator in (self.state.generator, self.state.average_generator):
                generator.controller.idle.copy_(self.idle)
        return super().step()

    def draw_codes(self, count: int) -> Tensor:
        """Codes of faces as often as they are shown, with the plan of every part in the one before it."""
        rows = pick(self.state.draws.uniform(count), self.shown)
        codes = self.codes()[rows].sample(self.query_noise(count))
        for slot, new in self.plan.items():
            carrier = carrier_of(slot)
            dimensions = self.idle[carrier].nonzero()[:, 0]
            codes[:, carrier, dimensions] = new[rows] * self.spread[carrier, dimensions]
        return codes

    @cached_property
    def shown(self) -> Tensor:
        """(N,) how often each training face is shown, mirrored ones included."""
        weights = self.state.sampler.weights
        once = torch.ones(len(self.faces)) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
        return once.repeat(2 if self.config.flip else 1).to(self.state.processes.device)

    @cached_property
    def spread(self) -> Tensor:
        """(1 + K, Q) typical deviation of a posterior."""
        return self.codes().log_variance.exp().mean(dim=0).sqrt()

    @cached_property
    def idle(self) -> Tensor:
        """(1 + K, Q) bool: dimensions of a code that carry the plan of the next: posteriors are all noise there."""
        silent = _silent(self.codes())
        idle = silent & (silent.cumsum(dim=1) <= PLANNED)
        carriers = {carrier_of(slot) for slot in range(2, len(idle))}
        idle[[slot for slot in range(len(idle)) if slot not in carriers]] = False
        return idle

    @cached_property
    def plan(self) -> dict[int, Tensor]:
        """Slot → (N, P) what its code says beyond those before it, as far as the idle dimensions hold it."""
        means = self.codes().mean
        rooms = {slot: int(self.idle[carrier_of(slot)].sum()) for slot in range(2, means.shape[1])}
        rooms = {slot: room for slot, room in rooms.items() if room}
        return innovations(means, self.shown, rooms, min(PLANNED, means.shape[2]))

    def turn_codes(self) -> None:
        """Makes the principal directions of base and background codes dimensions; no picture changes.

        The base code comes first; the background's directions are those that it leaves.
        """
        codes = self.codes()
        variance = codes.log_variance.exp().mean(dim=0)  # (1 + K, Q)
        active = (~_silent(codes)[:2]).any(dim=0).nonzero()[:, 0]
        if len(active) < 2:
            return
        base, background = codes.mean[:, 0, active], codes.mean[:, 1, active]
        first = Principal.of(base, self.shown, min(PLANNED, len(active) // 2)).axes
        rest = background - background @ first @ first.T
        second = Principal.of(rest, self.shown, first.shape[1]).axes
        directions, _ = torch.linalg.qr(torch.cat((first, second, torch.eye(len(active)).to(first)), dim=1))
        rotation = torch.eye(variance.shape[1]).to(directions)
        rotation[active[:, None], active] = directions.T
        state = self.state
        turn(state.generator, state.encoder, rotation, variance)
        turn(state.average_generator, state.average_encoder, rotation, variance)
        self.forget_codes()


def _silent(codes: Posterior) -> Tensor:
    """(1 + K, Q) bool: dimensions in which the means of many faces say next to nothing beside the posteriors' noise."""
    return codes.mean.var(dim=0) < IDLE * codes.log_variance.exp().mean(dim=0)


@torch.no_grad()
def turn(generator: MemoryGAN, encoder: PartEncoder, rotation: Tensor, variance: Tensor) -> None:
    """Turns the space of query codes: the encoder writes R·q, and the mapping network, whose pixel norm no rotation
    changes, reads it as it read q. Posteriors stay independent in every dimension, with the turned variances where they
    are typical.

    Args:
        generator: whose mapping network reads the codes.
        encoder: with or without a residual encoder.
        rotation: (Q, Q) orthogonal R.
        variance: (1 + K, Q) typical variances of the posteriors.
    """
    reading = cast(EqualLinear, generator.mapping.layers[0]).weight
    reading.copy_(reading @ rotation.T)
    size, mixed = len(rotation), rotation.square()
    for network in [each for each in (encoder, encoder.residual, encoder.deep) if each is not None]:
        for head, slots in ((network.base_out, slice(0, 1)), (network.part_out, slice(1, None))):
            last = cast(EqualLinear, head[-1])
            weight, bias = last.weight, last.bias  # of the means, then of the log variances
            typical = variance[slots].mean(dim=0)
            weight[:size], bias[:size] = rotation @ weight[:size], rotation @ bias[:size]
            weight[size:], bias[size:] = mixed @ weight[size:], mixed @ bias[size:]
            if network is not encoder.deep:  # it adds to what the encoder writes
                bias[size:] += (mixed @ typical).log() - mixed @ typical.log()
