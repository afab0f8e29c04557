"""Drawing a part anew given the others: against a distribution whose answer is known."""

from __future__ import annotations

import torch
from toy import toy_generator  # type: ignore[import-not-found]

from editing.face.swap import draw_variants, resample_given_others
from memorygan.baseline import SemanticStyleGAN
from memorygan.config import get_preset
from memorygan.controller import QueryCodes


class Pair:
    """q_1 ~ N(0, 1) and q_2 | q_1 ~ N(q_1, 0.1²), in two dimensions."""

    def condition(self, codes):
        mean = torch.zeros_like(codes)
        mean[:, 1] = codes[:, 0]
        log_variance = torch.zeros_like(codes)
        log_variance[:, 1] = 2 * torch.log(torch.tensor(0.1))
        return QueryCodes(codes, mean, log_variance)

    def propose(self, codes, slot, noise):
        own = self.condition(codes)
        return own.mean[:, slot] + torch.exp(0.5 * own.log_variance[:, slot]) * noise[:, 1]


def test_draws_follow_the_parts_after_them(monkeypatch):
    """Given q_2 = 1.5, q_1 is near 1.5, although p(q_1) alone is centred at 0."""
    monkeypatch.setattr("editing.face.swap.PROPOSALS", 4096)
    codes = torch.zeros(1, 2, 2)
    codes[:, 1] = 1.5
    draws = resample_given_others(Pair(), codes, 0, 8, seed=1)  # type: ignore[arg-type]
    assert draws[0].shape == (8, 2)
    assert (draws[0] - 1.5).abs().mean() < 0.35
    assert (draws[1] <= 0).all()
    alone = resample_given_others(Pair(), codes, 1, 64, seed=1)  # type: ignore[arg-type]
    assert (alone[0] - 0.0).abs().mean() < 0.3, "the last part follows those before it: here q_1 = 0"


def test_draws_are_varied_and_repeatable():
    generator = toy_generator()
    queries = generator.sample_queries([3]).codes
    first = draw_variants(generator, queries, 5, 6, seed=2)
    again = draw_variants(generator, queries, 5, 6, seed=2)
    other = draw_variants(generator, queries, 5, 6, seed=3)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert len({tuple(code.tolist()) for code in first[0]}) == 6


def test_without_query_codes_and_without_a_controller():
    generator = toy_generator()
    assert draw_variants(generator, None, 5, 3, seed=2)[0].shape == (3, generator.config.query_dim)
    baseline = SemanticStyleGAN(get_preset("tiny-32").generator).eval()
    assert draw_variants(baseline, None, 5, 3, seed=2)[0].shape == (3, baseline.config.query_dim)
