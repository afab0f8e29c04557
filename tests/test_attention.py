"""Hard attention against the full computation: a face whose parts lie in places, and an untrained one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from memorygan.analysis.layout import cells, lay_out
from memorygan.baseline import SemanticStyleGAN
from memorygan.config import get_preset
from memorygan.fast import attention, pieces
from memorygan.fast.attention import HardAttention, pays
from memorygan.fast.folding import fold
from memorygan.generator import MemoryGAN
from memorygan.latents import Latents
from memorygan.manifest import default_checkpoint
from memorygan.parts import numbered_parts

TINY = replace(get_preset("tiny-32").generator, local_channels=16, coarse_size=32)


@pytest.fixture(scope="module")
def placed() -> tuple[MemoryGAN, Latents]:
    """A generator whose parts lie in cells of the picture, and three faces with other textures."""
    torch.manual_seed(0)
    generator = MemoryGAN(replace(TINY, parts=numbered_parts(9))).eval().requires_grad_(False)
    codes = lay_out(generator.memory, cells(generator.config), 9, steps=150)
    for parameter in (generator.memory.to_depth.weight, generator.memory.to_depth.bias):
        parameter.mul_(4.0)  # as clear-cut as after a long training
    latents = codes.expand(generator.config)
    w = latents.w.repeat(3, 1, 1, 1)
    w[:, :, generator.config.depth_layers :] += torch.randn(3, 9, 1, w.shape[-1])
    return generator, replace(latents, w=w)


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(attention, "PAYS", dict.fromkeys(attention.PAYS, 0.0))


@pytest.mark.parametrize("shared_base", [True, False])
def test_faces_are_those_of_the_full_computation(placed, always, shared_base):
    generator, latents = placed
    latents = replace(latents, shared_base=shared_base)
    folded = fold(generator, torch.float32)
    hard = folded.attention
    seen = hard.see(latents)
    assert seen.work.depths < 0.7 * seen.work.full and seen.work.textures < 0.5 * seen.work.full
    face, small = folded.synthesize(latents), folded.synthesize(latents, size=16)
    folded.attention = None
    full = folded.synthesize(latents)
    for name in ("image", "mask", "coarse_mask"):
        mine, theirs = getattr(face, name), getattr(full, name)
        assert mine.shape == theirs.shape and (mine - theirs).norm() < 1e-3 * theirs.norm()
    # Where a part is seen, its depth is the true one.
    shown = full.coarse_mask > 0.1
    assert torch.allclose(face.depth[shown], full.depth[shown], atol=1e-3)
    assert small.image.shape == (3, 3, 16, 16)


def test_the_weight_of_transparent_parts_is_kept(placed, always):
    """Transparent parts push nothing aside: opaque ones weigh there as if they were alone."""
    generator, latents = placed
    glassy = (
        MemoryGAN(replace(generator.config, parts=numbered_parts(9, transparent=(4,)))).eval().requires_grad_(False)
    )
    glassy.load_state_dict(generator.state_dict())
    folded = fold(glassy, torch.float32)
    latents = replace(latents, config=glassy.config)
    face = folded.synthesize(latents)
    folded.attention = None
    full = folded.synthesize(latents)
    assert (face.image - full.image).norm() < 1e-3 * full.image.norm()


def test_an_untrained_memory_is_asked_in_full(always):
    """Its parts are everywhere: nothing can be left out, and the faces are the full computation's to the bit."""
    torch.manual_seed(1)
    generator = MemoryGAN(TINY).eval()
    folded = fold(generator, torch.float32)
    with torch.no_grad():
        latents = generator.sample([1])
        attention: Any = folded.attention
        assert attention.see(latents) is None
        face = folded.synthesize(latents)
        folded.attention = None
        assert torch.equal(face.image, folded.synthesize(latents).image)


def test_gradients_and_chosen_parts_take_the_full_computation(placed, always, monkeypatch):
    generator, latents = placed
    folded = fold(generator, torch.float32)

    def refuse(*_):
        raise AssertionError("hard attention was asked")

    monkeypatch.setattr(folded.attention, "see", refuse)
    w = latents.w.clone().requires_grad_()
    folded.synthesize(replace(latents, w=w)).image.mean().backward()
    assert w.grad is not None and w.grad.abs().sum() > 0
    folded.synthesize(latents, parts=[0, 1])
    with pytest.raises(AssertionError, match="was asked"):
        folded.synthesize(latents)


def test_large_batches_come_in_pieces(placed, always, monkeypatch):
    generator, latents = placed
    folded = fold(generator, torch.float32)
    whole = folded.attention.see(latents)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1)
    single = folded.attention.see(latents)
    assert single.work == whole.work
    assert torch.allclose(single.fused.feature, whole.fused.feature, atol=1e-4)
    assert torch.allclose(single.depth, whole.depth, atol=1e-3)


def test_it_is_used_where_it_was_measured_to_pay():
    faces, cpu = get_preset("faces-128").generator, torch.device("cpu")
    assert pays(faces, cpu, torch.float32)
    assert not pays(faces, cpu, torch.bfloat16), "one face of 13 parts is as fast without"
    assert not pays(TINY, cpu, torch.float32)
    assert not pays(faces, torch.device("cuda"), torch.float32)
    assert fold(MemoryGAN(TINY)).attention is None


def test_the_baseline_has_none(always):
    torch.manual_seed(2)
    assert fold(SemanticStyleGAN(TINY), torch.float32).attention is None


def test_the_lattice_is_fine_enough_for_many_parts():
    """Several points of the first lattice for every part."""

    def strides(parts: int, side: int) -> list[int]:
        config = replace(
            get_preset("paper-256").generator, parts=numbered_parts(parts), coarse_size=side, refine_sizes=(32,)
        )
        torch.manual_seed(0)
        return HardAttention(MemoryGAN(replace(config, style_dim=8)).memory, config, torch.float32).strides

    assert strides(13, 32) == [2, 1]
    assert strides(13, 64) == [4, 2, 1]
    assert strides(100, 64) == [2, 1]
    assert strides(1000, 64) == [2, 1]


def test_what_interpolation_misses_of_a_bent_depth_is_known():
    line = torch.arange(16.0)
    fine = -0.3 * (line[:, None] - 9) ** 2 - 0.1 * (line - 4) ** 2
    coarse = fine[None, None, ::2, ::2]
    between = (fine - attention._finer(coarse)[0, 0])[2:13, 2:13]  # beyond the last point of the lattice it is constant
    missed = attention._missed(coarse)[0, 0, 2:13, 2:13]
    assert between.max() == pytest.approx(0.4, abs=1e-5) and between.max() <= missed.min() + 1e-5
    assert missed.max() == pytest.approx(0.4, abs=1e-5), "no more than it misses, or nothing would be saved"
    assert not attention._missed(torch.full((1, 1, 4, 4), 3.0)).any()


def test_more_is_asked_where_depths_bend(placed, always, monkeypatch):
    generator, latents = placed
    hard = HardAttention(generator.memory, generator.config, torch.float32)
    asked = hard.see(latents)
    monkeypatch.setattr(attention, "_missed", lambda depth: torch.zeros(()))
    flat = hard.see(latents)
    assert asked is not None and flat is not None
    assert flat.work.depths < asked.work.depths


@pytest.mark.slow
def test_pictures_of_the_bundled_checkpoint_are_exact_to_a_thousandth():
    from memorygan.checkpoint import load_generator

    path = default_checkpoint()
    assert path is not None
    generator = load_generator(path, "cpu").generator.requires_grad_(False)
    folded = fold(generator, torch.float32)
    assert folded.attention is not None
    hard = folded.attention
    with torch.inference_mode():
        for first in range(0, 32, 8):
            latents = generator.sample(range(first, first + 8), 1.0)
            folded.attention = hard
            face = folded.synthesize(latents)
            folded.attention = None
            full = folded.synthesize(latents)
            assert (face.image - full.image).abs().max() < 2e-3, "a thousandth of the range of 2"
