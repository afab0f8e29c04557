"""Hair of somebody beside the person who is edited is part of the background."""

from __future__ import annotations

import numpy as np
import pytest
from heads import HAIR, WHOLE, N, S, ids, look, one_hot, painted  # type: ignore[import-not-found]

from editing.photo.transfer.fields import apply
from editing.photo.transfer.looks import FramedPhoto
from editing.photo.transfer.neighbours import without_neighbours
from editing.photo.transfer.transfer import Plan, transfer
from memorygan.parts import FACE_PARTS

BESIDE = np.s_[30:70, 114:128]  # as far from the head as a neighbour is


def share(part_ids: np.ndarray) -> np.ndarray:
    found = without_neighbours(one_hot(part_ids), FACE_PARTS)
    assert found.sum(axis=2) == pytest.approx(1.0)
    return found[..., HAIR]


def test_hair_beside_a_head_is_a_neighbours():
    part_ids = ids(N, hair=0.31)
    own = part_ids == HAIR
    part_ids[BESIDE] = HAIR
    found = share(part_ids)
    assert not found[BESIDE].any()
    assert found[own].all()


def test_soft_borders_go_with_the_patch_that_they_belong_to():
    parts = one_hot(ids(N, hair=0.31))
    parts[BESIDE] = np.eye(len(FACE_PARTS), dtype=np.float32)[HAIR]
    parts[30:70, 111:114] = 0.6 * parts[30:70, 111:114] + 0.4 * parts[30, 120]
    found = without_neighbours(parts, FACE_PARTS)
    assert not found[30:70, 108:, HAIR].any()
    assert found.sum(axis=2) == pytest.approx(1.0)


def test_locks_that_touch_the_head_and_wisps_stay():
    part_ids = ids(N, hair=0.0)
    part_ids[:20, 40:90] = HAIR  # most of the hair
    lock = np.s_[70:110, 100:106]  # lies apart from it, at the cheek
    part_ids[lock] = HAIR
    wisp = np.s_[10:14, 120:124]
    part_ids[wisp] = HAIR
    found = share(part_ids)
    for place in (np.s_[:20, 40:90], lock, wisp):
        assert found[place].all()


def test_where_there_is_no_other_hair_nothing_changes():
    parts = one_hot(ids(N))
    assert without_neighbours(parts, FACE_PARTS) is parts
    bald = one_hot(ids(N, hair=0.0))
    assert without_neighbours(bald, FACE_PARTS) is bald


def test_shorter_hair_leaves_the_neighbours_where_it_is():
    part_ids, close = ids(N), np.s_[30:70, 118:128]
    part_ids[close] = HAIR
    pixels = painted(part_ids)
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    made = transfer(framed, look(ids(S)), look(ids(S, hair=0.3)), Plan((), (HAIR,)))
    result, _ = apply(pixels, made, WHOLE)
    assert np.array_equal(result[close], pixels[close])
    assert not np.array_equal(result, pixels)


def test_a_hat_beside_a_head_is_a_neighbours_however_small():
    hat = FACE_PARTS.index("hat")
    part_ids = ids(N)
    part_ids[:20, 40:90] = hat
    part_ids[4:7, 120:123] = hat
    found = without_neighbours(one_hot(part_ids), FACE_PARTS)
    assert found[:20, 40:90, hat].all() and not found[4:7, 120:123, hat].any()
    assert found[4:7, 120:123, FACE_PARTS.index("background")].all()
