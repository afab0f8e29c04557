"""What the transfer calculates with: planes, boxes, wide means, work side by side, and pictures of half the size."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
from heads import COLOURS, GLASSES, HAIR, MOUTH, NOSE, SKIN, WHOLE, N, S, ids, look, one_hot, painted, photo  # type: ignore[import-not-found]

from editing.photo.transfer.borrow import Lent
from editing.photo.transfer.fields import apply
from editing.photo.transfer.looks import FramedPhoto, Look
from editing.photo.transfer.planes import (
    SIDE,
    box_of,
    chosen_by,
    clipped,
    disc,
    largest,
    same_place,
    square,
    squared,
    times,
    total,
)
from editing.photo.transfer.spread import smooth
from editing.photo.transfer.texture import continued
from editing.photo.transfer.threads import side_by_side
from editing.photo.transfer.tone import tone, without_others
from editing.photo.transfer.transfer import Plan, transfer
from memorygan.parts import FACE_PARTS

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("planes", [1, 2, 3, 4, 13])
def test_arithmetic_on_planes_is_that_of_numpy(planes):
    many = RNG.standard_normal((20, 30, planes)).astype(np.float32)
    weight = RNG.random((20, 30)).astype(np.float32)
    assert times(many, weight) == pytest.approx(many * weight[..., None], rel=1e-5)
    assert times(many, weight > 0.5) == pytest.approx(many * (weight > 0.5)[..., None], rel=1e-5)
    assert largest(many) == pytest.approx(np.abs(many).max(axis=2), rel=1e-6)
    assert squared(many) == pytest.approx(np.square(many).sum(axis=2), rel=1e-4)
    for chosen in ([0], list(range(planes)), []):
        assert total(many, chosen) == pytest.approx(many[..., chosen].sum(axis=2), abs=1e-5)
    other = np.zeros_like(many)
    assert np.array_equal(chosen_by(weight > 0.5, many, other), np.where((weight > 0.5)[..., None], many, other))
    assert not other.any(), "what is given stays as it was"


@pytest.mark.parametrize("planes", [2, 3, 4])
def test_planes_are_kept_between_bounds_of_their_own(planes):
    many = RNG.standard_normal((20, 30, planes)).astype(np.float32)
    low = np.linspace(-1.0, 0.0, planes, dtype=np.float32)
    high = low + np.linspace(0.2, 1.0, planes, dtype=np.float32)
    for size in ((20, 30), (1, 1), (1, 4), (4, 1), (2, 2), (4, 4), (1, 5), (5, 1)):
        some = many[: size[0], : size[1]]
        assert clipped(some, low, high) == pytest.approx(np.clip(some, low, high))


def test_one_plane_that_is_asked_for_can_be_written_to():
    many = np.ones((4, 4, 3), np.float32)
    total(many, [1])[:] = 0.0
    assert many.all()


def test_boxes_hold_all_that_is_set_and_lie_in_the_picture():
    mask = np.zeros((64, 64), bool)
    mask[10:20, 50:63] = True
    assert box_of(mask) == np.s_[10:20, 50:63]
    assert box_of(mask, 3) == np.s_[7:23, 47:64]
    assert box_of(mask, 2, 8) == np.s_[8:24, 48:64]
    assert mask[box_of(np.zeros_like(mask))].size == 0
    small, large = same_place(mask, 128)
    assert (large[0].start, large[1].stop) == (2 * small[0].start, 2 * small[1].stop)
    assert same_place(mask, 100) == (np.s_[:64, :64], np.s_[:100, :100]), "there are no whole pixels"


def test_windows_are_as_wide_in_every_picture():
    assert square(9, SIDE).shape == disc(9, SIDE).shape == (9, 9)
    assert square(9, 2 * SIDE).shape == (17, 17)
    assert square(9, SIDE // 2).shape == (5, 5)
    assert square(3, SIDE // 8).shape == (1, 1)


@pytest.mark.parametrize("sigma", [2.0, 7.0, 15.0])
def test_a_wide_mean_is_found_at_a_smaller_size(sigma):
    values = cv2.GaussianBlur(RNG.standard_normal((96, 128, 3)).astype(np.float32), (0, 0), 2.0) * 10.0
    weights = np.zeros((96, 128), np.float32)
    weights[20:80, 30:110] = 1.0
    many, weight = (
        cv2.GaussianBlur(one, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
        for one in (values * weights[..., None], weights)
    )
    mean = many / np.maximum(weight, 1e-4)[..., None]
    inside = np.s_[24:76, 34:106]
    spreads = float(mean[inside].std())
    assert np.abs(smooth(values, weights, sigma)[inside] - mean[inside]).max() < 0.15 * spreads


def test_what_is_known_in_a_box_is_all_that_a_mean_looks_at():
    values, weights = RNG.random((64, 64)).astype(np.float32), np.zeros((64, 64), np.float32)
    weights[16:48, 16:40] = 1.0
    box = np.s_[16:48, 16:40]
    assert smooth(values[box], weights[box], 3.0) == pytest.approx(smooth(values, weights, 3.0)[box], abs=1e-4)


def test_tone_is_found_where_it_is_needed_alone():
    _, framed = photo()
    darker = look(ids(S), {SKIN: (180, 130, 100)})
    everywhere = tone(framed, look(ids(S)), darker, [SKIN], fine=True)
    below = np.zeros((S, S), bool)
    below[40:48, 24:40] = True
    there = tone(framed, look(ids(S)), darker, [SKIN], fine=True, within=below)
    middle = np.s_[2 * 41 : 2 * 47, 2 * 25 : 2 * 39]
    assert there[1][middle] == pytest.approx(everywhere[1][middle], abs=0.5)
    assert everywhere[1][40, 64].any()
    assert not there[1][40, 64].any(), "far from it nothing is calculated"


def test_lips_of_a_covered_mouth_have_nothing_to_tone():
    pixels, _ = photo()
    covered = FramedPhoto(pixels, one_hot(np.full((N, N), SKIN)), 1.0)
    redder = look(ids(S), {MOUTH: (220, 30, 30)})
    for plan in (Plan((MOUTH,), ()), Plan((MOUTH,), (MOUTH,))):
        made = transfer(covered, look(ids(S)), redder, plan)
        assert np.isfinite(made.offset).all()
    assert not tone(covered, look(ids(S)), redder, [MOUTH])[1].any()


def test_of_a_black_and_white_photo_only_what_was_asked_for_gets_colours():
    _, framed = photo()
    after = look(ids(S, mouth=(0.17, 0.05)), {HAIR: (150, 40, 30), SKIN: (200, 190, 120)})
    made = transfer(framed, look(ids(S)), after, Plan((HAIR,), (MOUTH,)))
    hair, below = np.s_[16:24, 58:70], np.s_[74:90, 45:83]  # the mouth, and what is about it
    assert np.abs(made.offset[hair][..., 1:]).mean() > 5
    assert np.abs(made.offset[below][..., 1:]).max() > 1
    part = made.coloured([HAIR])
    assert part.offset[hair] == pytest.approx(made.offset[hair], abs=0.2)
    assert np.abs(part.offset[below][..., 1:]).max() < 0.2
    assert np.abs(part.drawn[below][..., 1:]).max() < 0.2
    assert np.array_equal(part.offset[..., 0], made.offset[..., 0])
    assert not made.coloured([]).has_colour()


def test_a_nose_is_lent_without_the_glasses_on_it():
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    nose = (np.abs(x) < 0.05) & (np.abs(y) < 0.09)
    bridge = (np.abs(y + 0.05) < 0.015) & (np.abs(x) < 0.2)
    own, other = (np.where(nose, NOSE, ids(N)) for _ in range(2))
    other[bridge] = GLASSES
    red = {NOSE: (200, 120, 110)}
    lender = FramedPhoto(painted(other, red | {GLASSES: (10, 10, 10)}), one_hot(other), 0.0)
    pixels = painted(own, {NOSE: COLOURS[SKIN]})
    small = own[::2, ::2]
    made = transfer(
        FramedPhoto(pixels, one_hot(own), 0.0), look(small), look(small), Plan((), (NOSE,)), [Lent(lender, (NOSE,))]
    )
    result = apply(pixels, made, WHOLE)[0].astype(int)
    assert result[bridge].min() > 100, "no dark bridge"
    below = nose & (y > 0.02) & (y < 0.06) & (np.abs(x) < 0.02)
    assert (result[below][:, 0] - result[below][:, 1]).mean() > 60, "but the nose itself"


@pytest.mark.parametrize("side", [64, 128, 256])
def test_a_part_that_is_hardly_in_the_picture_can_move(side):
    pixels, _ = photo()
    corner = [np.full((size, size), SKIN) for size in (N, S, S)]
    corner[0][:4, :4] = corner[1][:2, :2] = corner[2][:3, :3] = MOUTH
    framed = FramedPhoto(pixels, one_hot(corner[0]), 1.0)
    made = transfer(framed, look(corner[1]), look(corner[2]), Plan((), (MOUTH,)), side=side)
    assert np.isfinite(made.shift).all()
    assert not made.changed()[64:, 64:].any()


def test_texture_comes_from_inside_the_picture_alone():
    texture, known = np.ones((N, N, 1), np.float32), np.zeros((N, N), bool)
    known[:, :60] = True
    wanted = np.zeros_like(known)
    wanted[20:100, 70:128] = True
    found = continued(texture * known[..., None], known, wanted)
    assert found[wanted].min() > 0.5
    assert not found[~wanted].any()


def test_work_side_by_side_comes_back_in_order_and_on_other_threads():
    others_began = threading.Event()

    def work(number):
        assert number or others_began.wait(20)
        others_began.set()
        return threading.current_thread().name

    names = side_by_side(work, range(4))
    assert names[0] == threading.current_thread().name != names[1]
    assert side_by_side(lambda number: number**2, range(20)) == [number**2 for number in range(20)]
    assert side_by_side(lambda number: number, [7]) == [7]
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda number: 1 / number, range(3))


def test_pieces_are_cut_into_pieces_and_none_waits_for_what_nobody_has_begun():
    def row(number):
        return sum(side_by_side(lambda column: number * column, range(5)))

    for _ in range(50):
        assert side_by_side(row, range(6)) == [10 * number for number in range(6)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_gets_threads_of_its_own():
    side_by_side(abs, range(4))
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # it would wait for ever
        os._exit(0 if side_by_side(abs, range(-3, 0)) == [3, 2, 1] else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("after", "plan"),
    [
        (look(ids(S, mouth=(0.17, 0.05))), Plan((), (MOUTH,))),
        (look(ids(S, hair=0.34)), Plan((), (HAIR,))),
        (look(ids(S, hair=0.46)), Plan((), (HAIR,))),
    ],
    ids=["wider mouth", "shorter hair", "longer hair"],
)
def test_half_the_side_shows_about_the_same_while_a_slider_moves(after, plan):
    pixels, framed = photo()
    shown = [apply(pixels, transfer(framed, look(ids(S)), after, plan, side=side), WHOLE)[0] for side in (256, 128)]
    changed, off = (np.abs(one.astype(np.float32) - two).mean() for one, two in ((shown[0], pixels), shown))
    assert changed > 0.5
    assert off < 0.35 * changed


def test_a_neighbours_hair_goes_with_its_soft_rim_and_ones_own_keeps_it():
    share, shown = np.zeros((128, 128), np.float32), np.zeros((128, 128), np.float32)
    for y, x in ((70, 10), (10, 90)):
        share[y - 2 : y + 22, x - 2 : x + 22], share[y : y + 20, x : x + 20] = 0.05, 1.0
    shown[68:92, 8:32] = 1.0
    left = without_others(share, shown)
    assert np.array_equal(left[:, :64], share[:, :64]) and not left[:, 64:].any()
    assert np.array_equal(without_others(share, np.ones_like(shown)), share)
    assert not without_others(np.zeros_like(share), shown).any()


def test_parts_move_along_as_they_are_and_are_not_mixed():
    _, framed = photo()
    wider = transfer(framed, look(ids(S)), look(ids(S, mouth=(0.18, 0.05))), Plan((), (MOUTH,)))
    assert wider.part_map is not None and np.abs(wider.shift).max() > 0.02
    assert set(np.unique(wider.part_map)) <= set(np.unique(framed.part_map))
    assert (wider.part_map == MOUTH).sum() > 1.2 * (framed.part_map == MOUTH).sum()


def wearing(sure: float, dark: int = 30) -> tuple[Look, Look]:
    """A head without and with glasses that reach beyond it, as the model shows them: not sure of any pixel."""
    worn = ids(S)
    worn[24:32, 4:60] = GLASSES
    shares = one_hot(worn) * sure + one_hot(ids(S)) * (1.0 - sure)
    return look(ids(S)), Look(painted(worn, {GLASSES: (dark, dark, dark)}), shares)


def test_glasses_that_are_put_on_move_nothing_and_are_seen_on_the_face_alone():
    pixels, framed = photo()
    before, after = wearing(0.7)
    made = transfer(framed, before, after, Plan((GLASSES,), (GLASSES,)))
    assert not made.shift.any() and not made.alpha.any()
    assert made.part_map is not None
    assert (made.part_map[50:62, 44:84] == GLASSES).all(), "where they can be clicked"
    assert (framed.part_map[made.part_map == GLASSES] == SKIN).all()
    face = framed.parts[..., SKIN]
    result, _ = apply(pixels, made, WHOLE)
    assert result[50:62, 44:84].mean() < 0.6 * pixels[50:62, 44:84].mean()
    assert np.array_equal(result[face == 0.0], pixels[face == 0.0]) and (face == 0.0).mean() > 0.3


def test_glasses_and_hats_of_which_the_model_is_not_sure_are_not_put_on():
    pixels, framed = photo()
    before, after = wearing(0.52)
    assert not apply(pixels, transfer(framed, before, after, Plan((GLASSES,), (GLASSES,))), WHOLE)[1].any()
    worn, hat = ids(S), FACE_PARTS.index("hat")
    worn[2:20, 10:54] = hat
    for sure, some in ((0.55, False), (0.9, True)):
        shares = one_hot(worn) * sure + one_hot(ids(S)) * (1.0 - sure)
        smoke = Look(painted(worn, {hat: (200, 40, 40)}), shares)
        assert apply(pixels, transfer(framed, before, smoke, Plan((hat,), (hat,))), WHOLE)[1].any() == some


def test_eyes_behind_glasses_that_are_put_on_stay_as_sharp_as_they_are():
    eyes, part_ids = FACE_PARTS.index("eyes"), ids(N)
    part_ids[52:58, 46:56] = part_ids[52:58, 72:82] = eyes
    framed = FramedPhoto.of(painted(part_ids), one_hot(part_ids), N)
    before, after = wearing(0.8)
    random = np.random.default_rng(0).normal(0, 25, (S, S, 1))
    after = replace(after, image=np.clip(after.image + random, 0, 255).astype(np.uint8))
    made = transfer(framed, before, after, Plan((), (GLASSES,)))
    assert np.abs(made.offset[72:80, 50:78]).max() < 0.5, "below them nothing"
    light = made.offset[..., 0] - cv2.GaussianBlur(made.offset[..., 0], (0, 0), 3)
    assert light[53:57, 48:54].std() < 0.3 * light[53:57, 60:68].std()


def test_what_glasses_make_darker_is_no_shade_when_more_is_edited():
    _, framed = photo()
    before, after = wearing(0.7)
    alone = transfer(framed, before, after, Plan((GLASSES,), (GLASSES,)))
    longer = transfer(framed, before, after, Plan((GLASSES,), (GLASSES, SKIN)))
    lens = np.s_[50:62, 44:84]
    dark = [made.offset[lens][..., 0] + (made.gain[lens] - 1.0) * framed.lab[lens][..., 0] for made in (alone, longer)]
    assert dark[0].mean() < -15.0
    assert np.quantile(np.abs(dark[1] - dark[0]), 0.8) < 2.0
