"""Dyed hair: the colour asked for in the hair, the same picture elsewhere, and a share of the faces."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from memorygan.colour import rgb_to_lab
from memorygan.training.distributed import Draws
from memorygan.training.dye import COLOURS, LIGHTER, draw_colours, dye, dye_some

SIDE = 32


def faces(count: int = 2, lightness: float = -0.7) -> tuple[torch.Tensor, torch.Tensor]:
    """Dark strands in the upper half of a light picture."""
    dice = torch.Generator().manual_seed(1)
    image = torch.full((count, 3, SIDE, SIDE), 0.6)
    strands = lightness + 0.05 * torch.randn(count, 1, SIDE // 2, SIDE, generator=dice)
    image[:, :, : SIDE // 2] = strands
    hair = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    hair[:, : SIDE // 2] = True
    return image, hair


def mean_lab(image: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    lab = rgb_to_lab((image + 1) / 2)
    return (lab * where[:, None]).sum(dim=(2, 3)) / where.sum(dim=(1, 2))[:, None]


def test_hair_gets_the_colour_and_the_rest_stays():
    image, hair = faces()
    wanted = torch.tensor([[30.0, 25.0, 20.0], [34.0, 0.0, 2.0]])
    dyed = dye(image, hair, wanted)
    found = mean_lab(dyed, hair)
    assert torch.allclose(found, wanted, atol=3.0)
    below = slice(SIDE // 2 + 3, None)
    assert torch.equal(dyed[:, :, below], image[:, :, below])
    light = rgb_to_lab((dyed + 1) / 2)[:, 0, : SIDE // 2 - 3]
    assert (light.flatten(1).std(dim=1) > 1.0).all(), "strands keep light and shade"


def test_the_light_surroundings_of_dark_hair_do_not_shine():
    image, hair = faces()
    hair[:, SIDE // 2 : SIDE // 2 + 1] = True  # a mask that takes in a row of the background
    dyed = dye(image, hair, torch.tensor([[40.0, 0.0, 0.0]]).repeat(2, 1))
    assert (dyed[:, :, SIDE // 2] - image[:, :, SIDE // 2]).abs().max() < 0.05


def test_black_hair_becomes_lighter_only_as_far_as_it_can():
    image, hair = faces()
    before = mean_lab(image, hair)[:, 0]
    after = mean_lab(dye(image, hair, torch.tensor([[95.0, 0.0, 0.0]]).repeat(2, 1)), hair)[:, 0]
    assert (after > before + 0.7 * LIGHTER).all() and (after < before + 1.2 * LIGHTER).all()


def test_a_bald_face_stays_as_it_is():
    image, hair = faces()
    hair[0] = False
    dyed = dye(image, hair, torch.tensor([[30.0, 25.0, 20.0]]).repeat(2, 1))
    assert torch.equal(dyed[0], image[0])
    assert not torch.equal(dyed[1], image[1])


@pytest.mark.parametrize("kind", range(len(COLOURS)))
def test_colours_are_drawn_from_their_ranges(kind: int):
    start = sum(colour[0] for colour in COLOURS[:kind])
    chance = torch.rand(200, 4, generator=torch.Generator().manual_seed(2))
    chance[:, 0] = start + 1e-4 + (COLOURS[kind][0] - 2e-4) * chance[:, 0]
    lightness, red, yellow = draw_colours(chance).unbind(dim=1)
    _, light, chroma, hue = COLOURS[kind]
    assert (lightness >= light[0]).all() and (lightness <= light[1]).all()
    length = torch.hypot(red, yellow)
    assert (length <= chroma[1] + 1e-3).all() and (length <= lightness + 1e-3).all()
    angle = torch.rad2deg(torch.atan2(yellow, red))
    assert (angle >= hue[0] - 0.1).all() and (angle <= hue[1] + 0.1).all()


def test_a_share_of_the_faces_is_dyed_and_none_takes_no_random_numbers():
    image, hair = faces(40)
    draws = Draws(0, SimpleNamespace(rank=0, world=1, device=torch.device("cpu")))  # type: ignore[arg-type]
    before = draws.generator.get_state()
    assert dye_some(image, hair, draws, 0.0) is image
    assert torch.equal(draws.generator.get_state(), before)
    changed = (dye_some(image, hair, draws, 0.5) != image).flatten(1).any(dim=1)
    assert 8 < int(changed.sum()) < 32
    assert (dye_some(image, hair, draws, 1.0) != image).flatten(1).any(dim=1).all()


def test_precision_and_layout_of_the_batch_stay():
    image, hair = faces()
    draws = Draws(0, SimpleNamespace(rank=0, world=1, device=torch.device("cpu")))  # type: ignore[arg-type]
    dyed = dye_some(image.bfloat16().to(memory_format=torch.channels_last), hair, draws, 1.0)
    assert dyed.dtype == torch.bfloat16 and dyed.is_contiguous(memory_format=torch.channels_last)
