"""Matting of hair: what is seen between strands is not hair."""

from __future__ import annotations

import numpy as np
import pytest

from memorygan.matting import matted
from memorygan.parts import FACE_PARTS

SIZE = 192
HAIR, SKIN, GROUND, CLOTH = map(FACE_PARTS.index, ("hair", "skin", "background", "cloth"))
DARK, BRIGHT = np.array([40.0, 30.0, 25.0]), np.array([170.0, 190.0, 90.0])
X = np.mgrid[:SIZE, :SIZE][1]
EDGE = 96


def share(strands: float = 8.0) -> np.ndarray:
    """(SIZE, SIZE) hair on the left, with gaps that widen towards its border."""
    gaps = 0.5 + 0.5 * np.sin(np.mgrid[:SIZE, :SIZE][0] * 1.1)
    return (X < EDGE) * (1.0 - np.clip((X - EDGE + strands) / strands, 0.0, 1.0) * (0.4 + 0.6 * gaps))


def mixed(hair: np.ndarray, colour: np.ndarray = DARK, beside: np.ndarray = BRIGHT) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 3, (*hair.shape, 1))
    picture = hair[..., None] * colour + (1.0 - hair[..., None]) * beside + noise
    return np.clip(picture, 0, 255).astype(np.uint8)


def claimed(other: int = GROUND) -> np.ndarray:
    """Masks that take all up to the border for hair."""
    masks = np.zeros((SIZE, SIZE, len(FACE_PARTS)), np.float32)
    masks[..., HAIR], masks[..., other] = X < EDGE, X >= EDGE
    return masks


def test_gaps_between_strands_belong_to_what_is_behind():
    true = share()
    before, after = claimed(), matted(mixed(true), claimed())
    near = np.abs(X - EDGE) < 8
    assert np.abs(before[..., HAIR] - true)[near].mean() > 0.15
    assert np.abs(after[..., HAIR] - true)[near].mean() < 0.08
    assert after.sum(axis=2) == pytest.approx(1.0, abs=1e-5)
    assert after.min() >= 0.0


def test_far_from_the_border_nothing_changes():
    after = matted(mixed(share()), claimed())
    far = np.abs(X - EDGE) > 32
    np.testing.assert_array_equal(after[far], claimed()[far])


def test_colours_that_are_alike_tell_nothing():
    after = matted(mixed(share(), BRIGHT - 12, BRIGHT), claimed())
    np.testing.assert_allclose(after, claimed(), atol=0.1)


def test_a_third_colour_is_no_mixture():
    pixels = mixed((X < EDGE).astype(float))
    ribbon = (X > EDGE - 6) & (X < EDGE)
    pixels[ribbon] = (200, 30, 160)
    after = matted(pixels, claimed())
    assert after[..., HAIR][ribbon].min() > 0.85


@pytest.mark.parametrize("other", [SKIN, CLOTH])
def test_what_hair_leaves_becomes_what_is_next_to_it(other):
    true = share()
    after = matted(mixed(true), claimed(other))
    assert after[..., other][X == EDGE - 2].mean() > 0.4
    assert not after[..., GROUND].any()


def test_of_a_lock_too_thin_to_show_its_colour_nothing_is_told():
    masks = claimed()
    masks[:, : EDGE - 6] = np.eye(len(FACE_PARTS), dtype=np.float32)[GROUND]
    np.testing.assert_array_equal(matted(mixed(masks[..., HAIR]), masks)[..., HAIR], masks[..., HAIR])


def test_a_picture_without_hair_stays_as_it_is():
    masks = np.zeros((SIZE, SIZE, len(FACE_PARTS)), np.float32)
    masks[..., GROUND] = 1.0
    assert matted(mixed(share()), masks) is masks
