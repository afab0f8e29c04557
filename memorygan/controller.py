"""Working memory: a recurrent controller that writes one query code per part (Eq. 1, 9–11, 13)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memorygan.config import GeneratorConfig

# The range in which a variance is neither zero nor explosive in float32 arithmetic.
LOG_VARIANCE_RANGE = (-12.0, 6.0)
IDLE = "idle"  # the one tensor of a controller that files from before it need not hold


@dataclass(frozen=True)
class QueryCodes:
    """Query codes with the Gaussians they came from; slot 0 is the base code, slot 1 + k is part k.

    Attributes:
        codes: (B, 1 + K, Q) sampled codes q.
        mean: (B, 1 + K, Q) μ.
        log_variance: (B, 1 + K, Q) log σ².
    """

    codes: Tensor
    mean: Tensor
    log_variance: Tensor

    def kl_to_unit_gaussian(self) -> Tensor:
        """Eq. 13 (minimised): KL(N(μ, σ²) ‖ N(0, 1)) in nats, (B, 1 + K)."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1.0 - self.log_variance).sum(dim=-1)

    def log_likelihood(self) -> Tensor:
        """log p(q) of the codes under their own Gaussians in nats, (B, 1 + K)."""
        z = (self.codes - self.mean).square() * torch.exp(-self.log_variance)
        return -0.5 * (z + self.log_variance + math.log(2.0 * math.pi)).sum(dim=-1)


class ConstantQuery(nn.Module):
    """Learnable constant → two-layer MLP → (μ, log σ²): the background and base distributions (Eq. 9)."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(config.controller_constant))
        self.hidden = nn.Linear(config.controller_constant, config.controller_mlp)
        self.out = nn.Linear(config.controller_mlp, 2 * config.query_dim)

    def forward(self, batch: int) -> tuple[Tensor, Tensor]:
        """μ and log σ², each (B, Q)."""
        moments = self.out(torch.relu(self.hidden(self.constant)))
        mean, log_variance = moments.expand(batch, -1).chunk(2, dim=-1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)


def carrier_of(slot: int) -> int:
    """The slot whose code the LSTM reads just before it writes ``slot``; the base code for the first that it writes.

    Raises:
        ValueError: for a slot that the LSTM does not write.
    """
    if slot < 2:
        raise ValueError(f"slot {slot} is drawn on its own; the controller makes those from 2 on depend")
    return 0 if slot == 2 else slot - 1


class Controller(nn.Module):
    """Writes the query codes of a face: base and background from constants, the other parts one after another.

    q_k depends on every part before it through the LSTM state, so hair can follow skin and eyebrows can follow hair.

    Attributes:
        idle: (1 + K, Q) bool, dimensions of a code that no picture shows and in which the draw of the next part lies;
            see :mod:`memorygan.training.plan`. None in a controller that was not taught so.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.part_count, self.query_dim = config.part_count, config.query_dim
        self.base = ConstantQuery(config)
        self.background = ConstantQuery(config)
        self.lstm = nn.LSTMCell(2 * config.query_dim, config.controller_hidden)
        self.out = nn.Linear(config.controller_hidden, 2 * config.query_dim)
        self.idle: Tensor
        self.register_buffer(IDLE, torch.zeros(1 + config.part_count, config.query_dim, dtype=torch.bool))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(prefix + IDLE, torch.zeros_like(self.idle))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, noise: Tensor) -> QueryCodes:
        """Samples the codes of B faces.

        Args:
            noise: (B, 1 + K, Q) standard normal; scale it below 1 for safer faces, 0 gives the mode.

        Raises:
            ValueError: if the noise has another shape.
        """
        return self._unroll(noise, sampled=True)

    def condition(self, codes: Tensor) -> QueryCodes:
        """The Gaussian of every code given the true codes before it (teacher forcing).

        Args:
            codes: (B, 1 + K, Q), slot 0 the base code.

        Raises:
            ValueError: if the codes have another shape.
        """
        return self._unroll(codes, sampled=False)

    def propose(self, codes: Tensor, slot: int, noise: Tensor) -> Tensor:
        """Other codes for one slot, given those before it; what they carry of the next part stays as it is.

        Args:
            codes: (B, 1 + K, Q) of faces; one face serves all rows of noise.
            slot: which to draw.
            noise: (B, 2, Q) standard normal, for the plan of the slot and for its code.

        Returns:
            (B, Q).
        """
        prior = self.condition(codes)
        if slot >= 2:  # the plan of its own that the code before carries is drawn anew
            codes, carrier = codes.expand(len(noise), -1, -1).clone(), carrier_of(slot)
            planned = prior.mean[:, carrier] + torch.exp(0.5 * prior.log_variance[:, carrier]) * noise[:, 0]
            codes[:, carrier] = torch.where(self.idle[carrier], planned, codes[:, carrier])
            prior = self.condition(codes)
        drawn = prior.mean[:, slot] + torch.exp(0.5 * prior.log_variance[:, slot]) * noise[:, 1]
        return torch.where(self.idle[slot], codes[:, slot], drawn)

    def _unroll(self, source: Tensor, sampled: bool) -> QueryCodes:
        expected = (1 + self.part_count, self.query_dim)
        if source.ndim != 3 or tuple(source.shape[1:]) != expected:
            raise ValueError(
                f"expected codes or noise of shape (B, {expected[0]}, {expected[1]}), got {tuple(source.shape)}"
            )
        batch, codes, moments = source.shape[0], [], []

        def write(slot: int, mean: Tensor, log_variance: Tensor) -> Tensor:
            code = source[:, slot]
            if sampled:  # Eq. 11
                code = mean + torch.exp(0.5 * log_variance) * code
            codes.append(code)
            moments.append((mean, log_variance))
            return code

        q_base = write(0, *self.base(batch))  # (B, Q)
        q = write(1, *self.background(batch))
        state = None
        for slot in range(2, 1 + self.part_count):
            state = self.lstm(torch.cat((q_base, q), dim=-1), state)  # Eq. 10
            mean, log_variance = self.out(state[0]).chunk(2, dim=-1)
            q = write(slot, mean, log_variance.clamp(*LOG_VARIANCE_RANGE))
        means, log_variances = zip(*moments, strict=True)
        return QueryCodes(torch.stack(codes, 1), torch.stack(means, 1), torch.stack(log_variances, 1))
