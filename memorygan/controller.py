"""Working memory: a recurrent controller that writes one query code per part (Eq. 1, 9–11, 13)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memorygan.config import GeneratorConfig

# The range in which a variance is neither zero nor explosive in float32 arithmetic.
LOG_VARIANCE_RANGE = (-12.0, 6.0)


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

    @property
    def base(self) -> Tensor:
        """(B, Q)."""
        return self.codes[:, 0]

    @property
    def parts(self) -> Tensor:
        """(B, K, Q)."""
        return self.codes[:, 1:]

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


class Controller(nn.Module):
    """Writes the query codes of a face: base and background from constants, the other parts one after another.

    q_k depends on every part before it through the LSTM state, so hair can follow skin and eyebrows can follow hair.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.part_count, self.query_dim = config.part_count, config.query_dim
        self.base = ConstantQuery(config)
        self.background = ConstantQuery(config)
        self.lstm = nn.LSTMCell(2 * config.query_dim, config.controller_hidden)
        self.out = nn.Linear(config.controller_hidden, 2 * config.query_dim)

    def forward(self, noise: Tensor) -> QueryCodes:
        """Samples the codes of B faces.

        Args:
            noise: (B, 1 + K, Q) standard normal; scale it below 1 for safer faces, 0 gives the mode.

        Raises:
            ValueError: if the noise has another shape.
        """
        return self._unroll(noise, None)

    def condition(self, codes: Tensor) -> QueryCodes:
        """The Gaussian of every code given the true codes before it (teacher forcing).

        Args:
            codes: (B, 1 + K, Q), slot 0 the base code.

        Raises:
            ValueError: if the codes have another shape.
        """
        return self._unroll(None, codes)

    def _unroll(self, noise: Tensor | None, given: Tensor | None) -> QueryCodes:
        source = noise if noise is not None else given
        expected = (1 + self.part_count, self.query_dim)
        if source is None or source.ndim != 3 or tuple(source.shape[1:]) != expected:
            shape = None if source is None else tuple(source.shape)
            raise ValueError(f"expected codes or noise of shape (B, {expected[0]}, {expected[1]}), got {shape}")
        batch, codes, moments = source.shape[0], [], []

        def write(slot: int, mean: Tensor, log_variance: Tensor) -> Tensor:
            # Eq. 11: the reparameterised sample, or the given code.
            code = given[:, slot] if noise is None and given is not None else None
            if code is None:
                code = mean + torch.exp(0.5 * log_variance) * source[:, slot]
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
