"""Dyed hair: the colour asked for in the hair, the same picture elsewhere, and a share of the faces."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from memorygan.colour import rgb_to_lab
from memorygan.training.distributed import Draws
from memorygan.training.dye import CLOTH, HAIR, LIGHTER, PALETTES, Palette, draw_colours, draw_dyes, dye

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


@pytest.mark.parametrize(
    ("palette", "kind"), [(palette, kind) for palette in (HAIR, CLOTH) for kind in range(len(palette))]
)
def test_colours_are_drawn_from_their_ranges(palette: Palette, kind: int):
    start = sum(colour[0] for colour in palette[:kind])
    chance = torch.rand(200, 4, generator=torch.Generator().manual_seed(2))
    chance[:, 0] = start + 1e-4 + (palette[kind][0] - 2e-4) * chance[:, 0]
    lightness, red, yellow = draw_colours(chance, palette).unbind(dim=1)
    _, light, chroma, hue = palette[kind]
    assert (lightness >= light[0]).all() and (lightness <= light[1]).all()
    length = torch.hypot(red, yellow)
    assert (length <= chroma[1] + 1e-3).all() and (length <= lightness + 1e-3).all()
    angle = torch.rad2deg(torch.atan2(yellow, red)) % 360.0
    assert (angle >= hue[0] - 0.1).all() and (angle <= hue[1] + 0.1).all()


PARTS = ("background", "hair", "cloth")


def some_draws() -> Draws:
    return Draws(0, SimpleNamespace(rank=0, world=1, device=torch.device("cpu")))  # type: ignore[arg-type]


def test_a_share_of_the_faces_is_dyed_each_part_for_itself():
    image, hair = faces(40)
    dyes = draw_dyes(some_draws(), 40, 0.5)
    assert set(dyes.chosen) == set(PALETTES) and not torch.equal(dyes.chosen["hair"], dyes.chosen["cloth"])
    for part in PALETTES:
        part_ids = hair.to(torch.uint8) * PARTS.index(part)
        changed = (dyes(image, part_ids, PARTS) != image).flatten(1).any(dim=1)
        assert torch.equal(changed, dyes.chosen[part]) and 8 < int(changed.sum()) < 32
    assert draw_dyes(some_draws(), 40, 1.0).chosen["hair"].all()
    assert dyes(image, torch.zeros_like(hair, dtype=torch.uint8), PARTS).equal(image), "no part, no dye"


def test_precision_and_layout_of_the_batch_stay():
    image, hair = faces()
    image = image.bfloat16().to(memory_format=torch.channels_last)
    dyed = draw_dyes(some_draws(), len(image), 1.0)(image, hair.to(torch.uint8), PARTS)
    assert not torch.equal(dyed, image)
    assert dyed.dtype == torch.bfloat16 and dyed.is_contiguous(memory_format=torch.channels_last)
