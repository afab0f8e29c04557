"""Colours: known values of CIELAB, and the way back."""

from __future__ import annotations

import torch

from memorygan.colour import lab_to_rgb, rgb_to_lab


def test_lab_of_known_colours():
    rgb = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).T[None]
    white, red, blue = rgb_to_lab(rgb)[0].T
    assert torch.allclose(white, torch.tensor([100.0, 0.0, 0.0]), atol=0.1)
    assert torch.allclose(red, torch.tensor([53.24, 80.09, 67.20]), atol=0.2)
    assert torch.allclose(blue, torch.tensor([32.30, 79.19, -107.86]), atol=0.3)


def test_lab_and_back_is_the_same_picture():
    rgb = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(lab_to_rgb(rgb_to_lab(rgb)), rgb, atol=1e-4)


def test_what_no_screen_shows_is_clipped():
    rgb = lab_to_rgb(torch.tensor([[50.0, 150.0, 0.0], [110.0, 0.0, 0.0]]).T[None])
    assert rgb.min() >= 0.0 and rgb.max() <= 1.0
