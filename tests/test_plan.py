"""The controller learns to draw what faces are: innovations, turned codes, idle dimensions, and the stage itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from memorygan.checkpoint import Provenance, load_generator, load_module, save_generator, save_module
from memorygan.config import get_preset
from memorygan.controller import Controller, carrier_of
from memorygan.encoder import EncoderConfig, PartEncoder, Posterior
from memorygan.generator import MemoryGAN
from memorygan.training import plan
from memorygan.training.config import recipe_config
from memorygan.training.distributed import start_processes
from memorygan.training.innovations import Principal, gaussianised, innovations
from memorygan.training.plan import PLANNED, LearnToPlan, turn
from memorygan.training.state import TrainingState

TINY = get_preset("tiny-32").generator
SLOTS = 1 + TINY.part_count
WORN = 11  # glasses


def test_principal_directions_of_weighed_vectors() -> None:
    x = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0], [90.0, 90.0]])
    found = Principal.of(x, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]), 2)
    assert torch.allclose(found.mean, torch.zeros(2)) and torch.allclose(found.variance, torch.tensor([4.5, 0.5]))
    assert torch.allclose(found.axes.abs(), torch.eye(2))
    assert torch.allclose(found.whiten(x[:1]).abs(), torch.tensor([[3.0 / 4.5**0.5, 0.0]]))


def test_two_clusters_become_one_gaussian_in_the_same_order() -> None:
    random = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(4000, 1, generator=random) + (torch.rand(4000, 1, generator=random) < 0.1) * 5.0
    made = gaussianised(x, torch.ones(4000), rounds=1)
    ranks = torch.linspace(-2.0, 2.0, 9)
    wanted = torch.distributions.Normal(0.0, 1.0).cdf(ranks)
    below = (made <= ranks).float().mean(dim=0)
    assert (below - wanted).abs().max() < 1e-3
    order = x[:, 0].argsort()
    steps = made[order, 0].diff()
    assert bool((steps >= 0).all()) or bool((steps <= 0).all())


def test_weights_count_as_repetition() -> None:
    x, weight = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), torch.ones(50)
    weight[:10] = 2.0
    once, twice = Principal.of(x, weight, 3), Principal.of(torch.cat((x, x[:10])), torch.ones(60), 3)
    torch.testing.assert_close(once.mean, twice.mean)
    torch.testing.assert_close(once.variance, twice.variance)


def test_innovations_do_not_repeat_what_came_before() -> None:
    random = torch.Generator().manual_seed(2)
    codes = torch.randn(3000, 4, 3, generator=random)
    codes[:, 2] = 2.0 * codes[:, 0] + codes[:, 1].square() + 0.1 * codes[:, 2]  # mostly known, and new by a tenth
    found = innovations(codes, torch.ones(3000), {2: 3, 3: 3}, count=3)
    assert innovations(codes, torch.ones(3000), {3: 2}, count=3)[3].shape == (3000, 2)
    assert set(found) == {2, 3} and found[2].shape == (3000, 3)
    for new in found.values():
        assert torch.allclose(new.mean(dim=0), torch.zeros(3), atol=0.05)
        assert torch.allclose(new.T @ new / 3000, torch.eye(3), atol=0.1)
    before = torch.cat((codes[:, 0], codes[:, 1]), dim=1)
    before = (before - before.mean(dim=0)) / before.std(dim=0)
    assert (found[2].T @ before / 3000).abs().max() < 0.08


def turned_networks(**changes: Any) -> tuple[MemoryGAN, PartEncoder, torch.Tensor]:
    torch.manual_seed(3)
    config = EncoderConfig(TINY.part_count, TINY.query_dim, size=32, looks=1, **changes)
    generator, encoder = MemoryGAN(TINY), PartEncoder(config)
    for parameter in (*generator.parameters(), *encoder.parameters()):
        parameter.data += 0.05 * torch.randn_like(parameter)
    rotation, _ = torch.linalg.qr(torch.randn(TINY.query_dim, TINY.query_dim))
    return generator.eval(), encoder.eval(), rotation


@pytest.mark.parametrize("deep", [None, (4, 6, 8, 10)])
def test_turned_codes_draw_the_same_pictures(deep: tuple[int, ...] | None) -> None:
    generator, encoder, rotation = turned_networks(deep=deep, deep_size=32, deep_hidden=16)
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    one_hot = torch.nn.functional.one_hot(torch.randint(0, 13, (1, 32, 32)), 13).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        before = encoder(image, one_hot)
        codes = encoder.read(generator, image, one_hot).codes
        drawn = generator.draw(codes)
        turn(generator, encoder, rotation, before.log_variance.exp().mean(dim=0))
        after = encoder(image, one_hot)
        again = encoder.read(generator, image, one_hot).codes
        redrawn = generator.draw(again)
    torch.testing.assert_close(after.mean, before.mean @ rotation.T, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(again, codes @ rotation.T, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(redrawn.image, drawn.image, atol=1e-4, rtol=1e-3)
    # Variances: those of the turned Gaussian, exactly where they are what they mostly are.
    wanted = (before.log_variance.exp() @ rotation.square().T).log()
    torch.testing.assert_close(after.log_variance[:, 0], wanted[:, 0], atol=1e-4, rtol=1e-4)


def test_the_code_before_carries_the_plan() -> None:
    assert [carrier_of(slot) for slot in (2, 3, 13)] == [0, 2, 12]
    for slot in (0, 1):
        with pytest.raises(ValueError, match="drawn on its own"):
            carrier_of(slot)


def test_a_proposal_draws_its_plan_anew_and_keeps_that_of_the_next_part() -> None:
    torch.manual_seed(4)
    controller = Controller(TINY)
    controller.idle[4, :3] = controller.idle[5, 3:6] = True
    codes, noise = torch.randn(1, SLOTS, TINY.query_dim).expand(6, -1, -1), torch.randn(6, 2, TINY.query_dim)
    with torch.no_grad():
        whole = controller.propose(codes, 5, noise)
        planned = controller.propose(codes, 5, torch.stack((noise[:, 0], torch.zeros_like(noise[:, 1])), dim=1))
        other = codes.clone()
        other[:, 4, :3] += 1.0  # the face's own plan of the slot is not looked at
        assert torch.equal(controller.propose(other, 5, noise), whole)
        other[:, 4, 3] += 1.0
        assert not torch.equal(controller.propose(other, 5, noise), whole)
    assert torch.equal(whole[:, 3:6], codes[:, 5, 3:6])
    assert len({tuple(row.tolist()) for row in planned}) == 6, "the plan alone makes them differ"
    controller.idle.zero_()
    with torch.no_grad():
        prior = controller.condition(codes)
        plain = prior.mean[:, 5] + torch.exp(0.5 * prior.log_variance[:, 5]) * noise[:, 1]
        assert torch.equal(controller.propose(codes, 5, noise), plain)


def idle_of(path: Path) -> torch.Tensor:
    generator = load_generator(path).generator
    assert isinstance(generator, MemoryGAN)
    return generator.controller.idle


def test_a_file_without_idle_dimensions_has_none(tmp_path: Path) -> None:
    model = MemoryGAN(TINY)
    model.controller.idle[3, 2] = True
    save_generator(tmp_path / "new.safetensors", model, provenance=Provenance())
    assert torch.equal(idle_of(tmp_path / "new.safetensors"), model.controller.idle)
    tensors, meta = load_module(tmp_path / "new.safetensors", "memorygan")
    del tensors["controller.idle"]
    save_module(tmp_path / "old.safetensors", tensors, meta)
    assert not idle_of(tmp_path / "old.safetensors").any()


class Faces:
    """As many training faces as there are codes."""

    def __init__(self, count: int) -> None:
        self.count, self.frequencies = count, torch.full((13,), 1 / 13)

    def __len__(self) -> int:
        return self.count


def planner(steps: int) -> LearnToPlan:
    """A stage whose encoder saw two kinds of people: one in ten wears something that the parts before do not tell."""
    config = recipe_config("memory-first", {"preset": "faces-64", "precision": "float32", "plan_steps": steps,
                                            "flip": False, "query_batch": 64, "query_lr": 3e-3})  # fmt: skip
    state = TrainingState(config, 600, start_processes("cpu"), "", None)
    stage = LearnToPlan(state, Faces(600))  # type: ignore[arg-type]
    random, (slots, size) = torch.Generator().manual_seed(5), (SLOTS, state.generator.config.query_dim)
    mean, log_variance = torch.zeros(600, slots, size), torch.full((600, slots, size), -6.0)
    mean[:, :, :8] = 0.1 * torch.randn(600, slots, 8, generator=random)
    shared = torch.randn(600, 1, generator=random)  # base codes lie on a line that no dimension follows
    mean[:, 0, :8] = shared * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
    worn = (torch.arange(600) % 10 == 0).float()[:, None]
    mean[:, WORN, :8] = 4.0 * worn - 2.0
    log_variance[:, :, 8:] = 0.0  # nothing but noise: idle
    stage._codes = Posterior(mean, log_variance)
    stage.forget_codes = lambda: None  # type: ignore[method-assign]  # there is no encoder behind these codes
    state.optimizers = stage.make_optimizers()
    return stage


def test_the_code_before_tells_what_comes_and_the_controller_reads_it() -> None:
    stage = planner(150)
    stage.turn_codes = lambda: None  # type: ignore[method-assign]
    while not stage.finished():
        stage.step()
    controller = stage.state.average_generator.controller
    assert int(controller.idle[WORN - 1].sum()) == PLANNED, "the code before has 56 idle dimensions"
    assert not controller.idle[1].any() and not controller.idle[-1].any(), "nothing is planned there"
    codes = stage.draw_codes(400)
    worn, told = codes[:, WORN, 0] > 0, codes[:, WORN - 1][:, controller.idle[WORN - 1]]
    assert 0.05 < float(worn.float().mean()) < 0.2
    # A line divides those who wear it, although every number told is as likely as noise.
    weights = torch.linalg.lstsq(torch.cat((told, torch.ones(400, 1)), dim=1), worn.float()[:, None]).solution
    score = (torch.cat((told, torch.ones(400, 1)), dim=1) @ weights)[:, 0]
    assert float(score[worn].mean() - score[~worn].mean()) > 2 * float(score[~worn].std())
    assert float(told.mean().abs()) < 0.1 and float(told.std()) == pytest.approx(1.0, abs=0.1)
    # Told of somebody else, the controller expects the wrong part.
    lied = codes.clone()
    lied[:, WORN - 1, controller.idle[WORN - 1]] = told.roll(1, dims=0)
    with torch.no_grad():
        right, wrong = (controller.condition(given).log_likelihood()[worn, WORN].mean() for given in (codes, lied))
    assert float(right - wrong) > 0.3


def test_base_codes_are_turned_onto_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, seen = planner(1), list[torch.Tensor]()
    monkeypatch.setattr(plan, "turn", lambda generator, encoder, rotation, variance: seen.append(rotation))
    stage.turn_codes()
    rotation = seen[0]
    assert torch.allclose(rotation @ rotation.T, torch.eye(64), atol=1e-5)
    assert torch.equal(rotation[8:, 8:], torch.eye(56)), "idle dimensions stay where they are"
    spread = (stage.codes().mean[:, 0] @ rotation.T).var(dim=0)
    assert float(spread.max() / spread.sum()) > 0.999
