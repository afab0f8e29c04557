"""Codes move along the memory's styles: one style by exactly as much as asked, the others not at all."""

from __future__ import annotations

import math

import pytest
import torch

from memorygan.baseline import SemanticStyleGAN
from memorygan.config import get_preset
from memorygan.encoder import Reading
from memorygan.fast.graphs import GraphedMemory
from memorygan.fast.pieces import PiecewiseMemory
from memorygan.generator import MemoryGAN
from memorygan.latents import Latents
from memorygan.style_space import restyle, style_directions

CONFIG = get_preset("tiny-32").generator


@pytest.mark.parametrize("kind", [MemoryGAN, SemanticStyleGAN])
def test_a_style_moves_alone(kind) -> None:
    torch.manual_seed(0)
    generator = kind(CONFIG).eval().requires_grad_(False)
    directions = style_directions(generator.memory)
    scale = generator.memory.style_weight / math.sqrt(CONFIG.style_dim)
    before = generator.sample([0, 1])
    moved = torch.zeros(2, CONFIG.part_count, CONFIG.local_layers, CONFIG.local_channels)
    moved[1, 3, 5, 2] = 0.7
    after = restyle(before, moved, directions)
    change = (after.w - before.w)[..., None, :]
    styles = (change @ scale.transpose(-1, -2))[..., 0, :]
    torch.testing.assert_close(styles, moved, atol=1e-5, rtol=0)
    assert torch.equal(after.w[0], before.w[0])
    # No other change of the code does the same with less.
    row = scale.expand(CONFIG.part_count, -1, -1, -1)[3, 5]
    assert float(change[1, 3, 5].norm()) == pytest.approx(float((torch.linalg.pinv(row)[:, 2] * 0.7).norm()), rel=1e-4)


def test_faster_memories_have_the_same_styles() -> None:
    torch.manual_seed(0)
    memory = MemoryGAN(CONFIG).memory
    directions = style_directions(memory)
    for faster in (PiecewiseMemory(memory, 256, CONFIG.local_channels), GraphedMemory(memory)):
        assert torch.equal(style_directions(faster), directions)


def test_base_layers_of_moved_styles_are_no_longer_shared() -> None:
    torch.manual_seed(0)
    generator = MemoryGAN(CONFIG).eval().requires_grad_(False)
    face = generator.sample([3])
    assert face.shared_base
    moved = torch.zeros(1, CONFIG.part_count, CONFIG.local_layers, CONFIG.local_channels)
    moved[0, 4, 0] = 0.5  # a base layer of one part
    after = restyle(face, moved, style_directions(generator.memory))
    made = generator.synthesize(after)
    exact = generator.synthesize(Latents(after.w, CONFIG))
    assert torch.equal(made.image, exact.image)
    assert not torch.equal(made.depth[:, 4], generator.synthesize(face).depth[:, 4])


def test_readings_add_up() -> None:
    torch.manual_seed(0)
    generator = MemoryGAN(CONFIG).eval().requires_grad_(False)
    codes = torch.randn(2, 1 + CONFIG.part_count, CONFIG.query_dim)
    styles = torch.randn(2, CONFIG.part_count, CONFIG.local_layers, CONFIG.local_channels)
    plain, both = Reading(codes), Reading(codes, styles)
    assert torch.equal(plain.latents(generator).w, generator.map(codes).expand(CONFIG).w)
    assert (plain + plain).styles is None
    twice = plain + both + Reading(torch.zeros_like(codes), styles)
    torch.testing.assert_close(twice.codes, 2 * codes)
    assert twice.styles is not None
    torch.testing.assert_close(twice.styles, 2 * styles)
    expected = restyle(generator.map(twice.codes).expand(CONFIG), twice.styles, style_directions(generator.memory))
    assert torch.equal(twice.latents(generator).w, expected.w)
