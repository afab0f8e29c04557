"""Hair that goes on beyond the photo's: where it is taken from, and what is drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from heads import HAIR, ids, look, one_hot, painted  # type: ignore[import-not-found]

from editing.photo.transfer.draw import _colour, _hair
from editing.photo.transfer.looks import FramedPhoto, follow, to_lab
from editing.photo.transfer.mirrored import going_on
from editing.photo.transfer.strands import Strands
from editing.photo.transfer.transfer import Plan, transfer
from memorygan.parts import FACE_PARTS

SIDE = 256


def block(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    own = np.zeros((SIDE, SIDE), np.float32)
    own[top:bottom, left:right] = 1.0
    return own


def test_beside_hair_it_is_the_hair_of_the_same_row_and_never_what_is_next_to_it():
    own = block(40, 220, 30, 90) + block(40, 220, 170, 230)
    _, (right, right_sure), (left, left_sure) = going_on(own)
    for away, sure, where in ((left, left_sure, np.s_[80:180, 10:28]), (right, right_sure, np.s_[80:180, 232:246])):
        assert sure[where].min() > 0.8
        assert not away[where][..., 1].any(), "in its row"
        assert follow(own, away)[where].min() > 0.99
        assert np.abs(np.diff(away[where][..., 0], axis=1)).max() > 0.5, "not one column all the way"
    assert not left_sure[:, 100:].any() and not right_sure[:, :160].any()
    assert left_sure[236:].max() < 0.1, "below it nothing is beside it"


def test_below_hair_it_is_the_hair_above():
    own = block(40, 160, 60, 200)
    (away, sure), *_ = going_on(own)
    below = np.s_[164:200, 90:170]
    assert sure[below].min() > 0.8
    assert not away[below][..., 0].any() and away[below][..., 1].max() < 0
    assert follow(own, away)[below].min() > 0.99


@pytest.mark.parametrize("own", [block(0, 0, 0, 0), block(100, 104, 100, 104), block(40, 220, 40, 46)])
def test_of_hair_that_is_not_there_or_is_a_wisp_nothing_is_taken_beside_it(own):
    for _, sure in going_on(own)[1:]:
        assert not sure.any()


def test_the_farther_it_goes_the_less_sure_and_within_the_hair_there_is_always_some():
    own = block(40, 220, 110, 140) + block(40, 220, 60, 90)
    *_, (away, sure) = going_on(own)
    row = sure[128, :58]
    assert row[50] > 0.8 > row[2] + 0.2
    assert follow(own, away)[128, 8:56].min() > 0.9


def test_hair_that_grows_beside_the_photos_shows_its_locks():
    part_ids, random = ids(256), np.random.default_rng(1)
    pixels = painted(part_ids).astype(int)
    locks = np.repeat(random.normal(0, 14, (32, 1, 3)), 8, axis=0).astype(int)  # waves across, as curls have
    pixels = np.clip(pixels + np.where((part_ids == HAIR)[..., None], locks, 0), 0, 255).astype(np.uint8)
    framed = FramedPhoto.of(pixels, one_hot(part_ids), 256)
    wider = ids(128, hair=0.5)
    made = transfer(framed, look(ids(128)), look(wider), Plan((), (HAIR,)), side=128)
    beside = np.s_[122:150, 16:22]
    assert made.alpha[beside].min() > 0.8
    drawn, there = made.drawn[beside][..., 0].mean(axis=1), framed.lab[122:150, 36:42, 0].mean(axis=1)
    assert np.corrcoef(drawn, there)[0, 1] > 0.8


def test_new_hair_has_the_colour_of_what_is_surely_hair():
    part_ids = ids(256)
    hair = (part_ids == HAIR).astype(np.uint8)
    fringe = (hair - cv2.erode(hair, np.ones((7, 7), np.uint8))).astype(bool)
    pixels = painted(part_ids)
    pixels[fringe] = (90, 110, 50)  # strands with leaves behind them
    before, after = look(part_ids), look(ids(256, hair=0.5))
    everywhere = np.ones((256, 256), np.float32)
    colour = _colour(FACE_PARTS, to_lab(pixels), one_hot(part_ids), before, after, HAIR, everywhere)
    assert colour is not None
    brown = to_lab(painted(part_ids))[hair > 0].mean(axis=0)
    assert np.abs(colour[50:70, 6:10] - brown).max() < 5.0


def test_no_jewels_and_no_leaves_come_along():
    side = 64
    toned = np.full((side, side, 3), (30.0, 5.0, 10.0), np.float32)
    toned += np.random.default_rng(0).normal(0, 2, (side, side, 1)).astype(np.float32)
    toned[30, 20] = (95.0, 0.0, 0.0)
    known, wanted, low = np.ones((side, side), bool), np.zeros((side, side), bool), np.ones((side, 1), np.float32)
    known[:, 40:], wanted[:, 40:] = False, True
    away = np.zeros((side, side, 2), np.float32)
    away[..., 0] = -25.0
    green, nothing = np.full_like(toned, (40.0, -30.0, 40.0)), np.zeros_like(toned)
    for sources in ([], [(away, np.ones((side, side), np.float32))]):
        colour, _ = _hair(Strands(nothing, away), sources, toned, green, nothing, known, known, wanted, low)
        assert np.abs(colour[:, 40:60] - (30.0, 5.0, 10.0)).max() < 8.0
