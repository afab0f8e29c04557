"""Beards in photos."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from heads import MOUTH, NOSE, SKIN, ids, one_hot, painted  # type: ignore[import-not-found]

from editing.photo.transfer.beard import stubble
from editing.photo.transfer.fields import Fields
from editing.photo.transfer.looks import FramedPhoto, Look
from editing.photo.transfer.transfer import Plan, transfer

N, S = 256, 128
Y, X = (np.mgrid[:N, :N] + 0.5) / N - 0.5
JAW, FOREHEAD = Y > 0.1, Y < -0.08


def face(size: int) -> np.ndarray:
    part_ids = ids(size)
    part_ids[round(0.45 * size) : round(0.56 * size), round(0.46 * size) : round(0.54 * size)] = NOSE
    return part_ids


def looks(darker: dict[str, int]) -> tuple[Look, Look]:
    """The model without and with skin that is darker below and above the nose."""
    part_ids = face(S)
    before, after = (Look(painted(part_ids, {NOSE: (220, 170, 140)}), one_hot(part_ids)) for _ in range(2))
    y = np.mgrid[:S, :S][0]
    for place, by in darker.items():
        skin = (part_ids == SKIN) & ((y > 0.58 * S) if place == "jaw" else (y < 0.38 * S))
        after.image[skin] -= np.uint8(by)
    return before, after


def framed() -> FramedPhoto:
    part_ids = face(N)
    return FramedPhoto(painted(part_ids, {NOSE: (220, 170, 140)}), one_hot(part_ids), 0.0)


def test_a_beard_is_short_dark_hairs_on_jaw_and_lip_alone():
    hairs = stubble(framed(), *looks({"jaw": 60}))
    assert hairs is not None
    skin = face(N) == SKIN
    jaw = hairs[skin & JAW & (Y > 0.14)]
    assert jaw.max() <= 0.0
    assert jaw.mean() < -3.0
    assert jaw.std() > 2.0
    assert hairs[skin & FOREHEAD].min() > -0.5
    assert not hairs[face(N) == MOUTH].any()
    across, down = (np.abs(np.diff(hairs[180:194, 100:156], axis=axis)).mean() for axis in (1, 0))
    assert across > 1.3 * down, "hairs that hang"


def test_a_beard_grows_on_both_cheeks_of_a_face_that_looks_ahead():
    before, after = looks({"jaw": 60})
    after.image[:, : S // 2] = before.image[:, : S // 2]  # light falls from the left
    hairs = stubble(framed(), before, after)
    assert hairs is not None
    jaw = (face(N) == SKIN) & (Y > 0.14)
    left, right = (hairs[jaw & side].mean() for side in (X < -0.05, X > 0.05))
    assert left == pytest.approx(right, rel=0.25)


@pytest.mark.parametrize("darker", [{}, {"jaw": 60, "forehead": 60}, {"forehead": 60}, {"jaw": 8}])
def test_no_beard_where_skin_gets_darker_all_over_or_hardly(darker):
    assert stubble(framed(), *looks(darker)) is None


def test_a_face_without_a_nose_has_no_place_for_a_beard():
    part_ids = ids(S)
    look = Look(painted(part_ids), one_hot(part_ids))
    assert stubble(framed(), look, look) is None


def edited(plan: Plan) -> Fields:
    return transfer(framed(), *looks({"jaw": 60}), plan, side=S)


def test_the_transfer_draws_it_where_skin_alone_was_edited():
    def fine(fields: Fields) -> float:
        rest = fields.offset[..., 0] - cv2.GaussianBlur(fields.offset[..., 0], (0, 0), 2)
        return float(rest[(face(N) == SKIN) & (Y > 0.2) & (Y < 0.26)].std())

    assert fine(edited(Plan((SKIN,), ()))) > 1.5
    assert fine(edited(Plan((MOUTH,), ()))) < 0.5


def test_a_beard_grows_also_where_shapes_change():
    skin = framed().scheme.index("skin")
    fields = edited(Plan((skin,), (skin, framed().scheme.index("mouth"))))
    jaw = fields.offset[..., 0][(face(N) == SKIN) & JAW & (Y > 0.14)]
    plain = edited(Plan((skin,), ())).offset[..., 0][(face(N) == SKIN) & JAW & (Y > 0.14)]
    assert jaw.std() > 0.8 * plain.std() > 1.0
