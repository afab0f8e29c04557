"""The edit transfer: tone, warp and drawing on pictures made by hand."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from heads import (  # type: ignore[import-not-found]
    BROWS,
    CLOTH,
    COLOURS,
    GLASSES,
    HAIR,
    MOUTH,
    NOSE,
    PARTS,
    SKIN,
    WHOLE,
    N,
    S,
    ids,
    look,
    one_hot,
    painted,
    photo,
)

from editing.photo.transfer import fields as fields_module
from editing.photo.transfer.borrow import Lent, fitting, lends
from editing.photo.transfer.fields import Fields, apply
from editing.photo.transfer.looks import FramedPhoto, Look, noise_level, to_lab
from editing.photo.transfer.membrane import met
from editing.photo.transfer.outline import regrown, rooted
from editing.photo.transfer.planes import SIDE
from editing.photo.transfer.register import registered
from editing.photo.transfer.spread import smooth, spread
from editing.photo.transfer.texture import continued
from editing.photo.transfer.tone import tone
from editing.photo.transfer.transfer import Plan, transfer
from editing.photo.transfer.uncovered import uncovered
from editing.photo.transfer.warp import motion, unfolded
from memorygan.parts import FACE_PARTS


def test_fields_that_change_nothing_give_the_same_picture():
    pixels, _ = photo()
    result, mask = apply(pixels, Fields.nothing(32), WHOLE)
    assert np.array_equal(result, pixels)
    assert not mask.any()


@pytest.mark.parametrize("angle", [0.0, 30.0])
def test_outside_the_change_the_photo_is_the_same_to_the_bit(angle):
    _, framed = photo()
    lighter = look(ids(S), {HAIR: (160, 120, 90)})
    made = transfer(framed, look(ids(S)), lighter, Plan((HAIR,), ()))
    big = np.random.default_rng(1).integers(0, 256, (300, 420, 3), dtype=np.uint8)
    # A frame of 150 pixels, turned, in the middle of the photo.
    turn = cv2.getRotationMatrix2D((210.0, 150.0), angle, 1 / 150)
    turn[:, 2] += np.array([0.5, 0.5]) - turn[:, :2] @ (210.0, 150.0) - turn[:, 2]
    turn[:, 2] = np.array([0.5, 0.5]) - turn[:, :2] @ (210.0, 150.0)
    result, mask = apply(big, made, turn)
    assert 0.02 < mask.mean() < 0.2
    assert np.array_equal(result[~mask], big[~mask])
    assert (result[mask] != big[mask]).any(axis=1).mean() > 0.8
    y, x = np.mgrid[:300, :420] + 0.5
    inside = np.einsum("ij,jhw->ihw", turn[:, :2], np.stack([x, y])) + turn[:, 2, None, None]
    assert not mask[((inside < -0.02) | (inside > 1.02)).any(axis=0)].any()


def test_strips_fit_together(monkeypatch):
    pixels, framed = photo()
    made = transfer(framed, look(ids(S)), look(ids(S, hair=0.47)), Plan((), (HAIR,)))
    whole, mask = apply(pixels, made, WHOLE)
    assert mask.any()
    monkeypatch.setattr(fields_module, "_STRIP", 700)
    parts, again = apply(pixels, made, WHOLE)
    assert np.array_equal(mask, again)
    assert np.abs(whole.astype(int) - parts).max() <= 1


def test_a_part_takes_the_change_of_tone_and_keeps_its_grain():
    pixels, framed = photo()
    before, after = look(ids(S)), look(ids(S), {HAIR: (140, 100, 70)})
    result, mask = apply(pixels, transfer(framed, before, after, Plan((HAIR,), ())), WHOLE)
    hair = cv2.erode((ids(N) == HAIR).astype(np.uint8), np.ones((7, 7))).astype(bool)
    wanted = (after.lab - before.lab)[ids(S) == HAIR].mean(axis=0)
    moved = (to_lab(result) - to_lab(pixels))[hair].mean(axis=0)
    assert moved == pytest.approx(wanted, abs=2.0)
    fine = [(p - cv2.GaussianBlur(p, (0, 0), 2))[hair].std() for p in (to_lab(pixels)[..., 0], to_lab(result)[..., 0])]
    assert 0.9 < fine[1] / fine[0] < 2.0
    assert not mask[cv2.dilate((ids(N) == HAIR).astype(np.uint8), np.ones((21, 21))) == 0].any()


def test_light_hair_made_dark_keeps_its_strands():
    pixels, hair = painted(ids(N), {HAIR: (180, 150, 110)}), ids(N) == HAIR
    strands = np.random.default_rng(3).normal(0, 12, (N, N, 1)).astype(int)
    pixels = np.where(hair[..., None], np.clip(pixels.astype(int) + strands, 0, 255), pixels).astype(np.uint8)
    framed = FramedPhoto.of(pixels, one_hot(ids(N)), N)
    before, after = look(ids(S), {HAIR: (180, 150, 110)}), look(ids(S), {HAIR: (70, 55, 40)})
    result, _ = apply(pixels, transfer(framed, before, after, Plan((HAIR,), ())), WHOLE)
    inside = cv2.erode(hair.astype(np.uint8), np.ones((7, 7))).astype(bool)
    first, then = (to_lab(p)[..., 0] for p in (pixels, result))
    assert then[inside].mean() < first[inside].mean() - 25
    fine = [(light - cv2.GaussianBlur(light, (0, 0), 2))[inside].std() for light in (first, then)]
    assert 0.8 < fine[1] / fine[0] < 1.1


def test_light_hair_made_lighter_keeps_its_strands_and_is_not_burnt_out():
    pixels, hair = painted(ids(N), {HAIR: (190, 165, 130)}), ids(N) == HAIR
    strands = np.random.default_rng(3).normal(0, 22, (N, N, 1)).astype(int)
    pixels = np.where(hair[..., None], np.clip(pixels.astype(int) + strands, 0, 255), pixels).astype(np.uint8)
    framed = FramedPhoto.of(pixels, one_hot(ids(N)), N)
    before, after = look(ids(S), {HAIR: (190, 165, 130)}), look(ids(S), {HAIR: (253, 246, 235)})
    result, _ = apply(pixels, transfer(framed, before, after, Plan((HAIR,), ())), WHOLE)
    inside = cv2.erode(hair.astype(np.uint8), np.ones((7, 7))).astype(bool)
    first, then = (to_lab(p)[..., 0][inside] for p in (pixels, result))
    assert then.mean() > first.mean() + 10
    assert (then > 98).mean() < 0.03
    assert then.std() > 0.4 * first.std()
    shade = first < first.mean() - 8
    assert then[shade].std() > 0.8 * first[shade].std()


def test_black_stays_within_the_range():
    dark = painted(ids(N), {HAIR: (6, 5, 5)})
    framed = FramedPhoto.of(dark, one_hot(ids(N)), N)
    after = look(ids(S), {HAIR: (0, 0, 0)})
    result, _ = apply(dark, transfer(framed, look(ids(S)), after, Plan((HAIR,), ())), WHOLE)
    assert result[ids(N) == HAIR].max() < 40


def test_skin_takes_the_rest_of_the_complexion_along_but_no_edited_part():
    part_ids = ids(N)
    neck, nose = FACE_PARTS.index("neck"), FACE_PARTS.index("nose")
    part_ids[90:, 48:80] = neck
    pixels = painted(part_ids, {neck: COLOURS[SKIN]})
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    before, after = look(ids(S)), look(ids(S), {SKIN: (150, 110, 90)})
    result, _ = apply(pixels, transfer(framed, before, after, Plan((SKIN,), ())), WHOLE)
    assert result[118:, 54:74, 0].mean() < 180
    result, _ = apply(pixels, transfer(framed, before, after, Plan((SKIN, neck, nose), ())), WHOLE)
    assert np.array_equal(result[118:], pixels[118:])


def test_a_wider_mouth_moves_the_photos_own_pixels():
    pixels, framed = photo()
    made = transfer(framed, look(ids(S)), look(ids(S, mouth=(0.16, 0.05))), Plan((), (MOUTH,)))
    result, mask = apply(pixels, made, WHOLE)
    row = int(0.64 * N)
    red = [int((p[row, :, 1].astype(int) < 115)[20:-20].sum()) for p in (pixels, result)]
    assert red[1] - red[0] >= 0.5 * 0.08 * N
    assert np.array_equal(result[: N // 4], pixels[: N // 4])
    assert np.array_equal(result[~mask], pixels[~mask])


def test_longer_hair_is_drawn_in_the_colour_of_the_photos():
    blond = painted(ids(N), {HAIR: (200, 170, 110)})
    framed = FramedPhoto.of(blond, one_hot(ids(N)), N)
    result, _ = apply(blond, transfer(framed, look(ids(S)), look(ids(S, hair=0.48)), Plan((), (HAIR,))), WHOLE)
    new = (ids(N, hair=0.47) == HAIR) & (ids(N, hair=0.42) != HAIR)
    assert np.abs(result[new].mean(axis=0) - (200, 170, 110)).max() < 25


def test_what_hair_uncovers_is_the_photos_background():
    blue = {0: (40, 60, 200)}
    pixels = painted(ids(N), blue)
    framed = FramedPhoto.of(pixels, one_hot(ids(N)), N)
    result, _ = apply(pixels, transfer(framed, look(ids(S)), look(ids(S, hair=0.32)), Plan((), (HAIR,))), WHOLE)
    bare = (ids(N, hair=0.39) == HAIR) & (ids(N, hair=0.34) != HAIR)
    assert np.abs(result[bare].mean(axis=0) - blue[0]).max() < 25


def test_what_hair_uncovers_is_not_darkened_by_parts_that_the_model_is_unsure_of():
    blue = {0: (40, 60, 200)}
    pixels = painted(ids(N), blue)
    framed = FramedPhoto.of(pixels, one_hot(ids(N)), N)
    cloth = np.eye(PARTS, dtype=np.float32)[FACE_PARTS.index("cloth")]
    before, after = (Look(one.image, 0.7 * one.parts + 0.3 * cloth) for one in (look(ids(S)), look(ids(S, hair=0.32))))
    result, _ = apply(pixels, transfer(framed, before, after, Plan((), (HAIR,))), WHOLE)
    bare = (ids(N, hair=0.39) == HAIR) & (ids(N, hair=0.34) != HAIR)
    assert np.abs(result[bare].mean(axis=0) - blue[0]).max() < 25


def test_what_lies_behind_goes_on_to_the_side():
    sofa, wall = (30, 60, 160), (160, 120, 60)
    y = np.mgrid[:N, :N][0]
    pixels = painted(ids(N))
    pixels[(ids(N) == 0) & (y >= 50)], pixels[(ids(N) == 0) & (y < 50)] = sofa, wall
    framed = FramedPhoto.of(pixels, one_hot(ids(N)), N)
    result, _ = apply(pixels, transfer(framed, look(ids(S)), look(ids(S, hair=0.3)), Plan((), (HAIR,))), WHOLE)
    bare = (ids(N, hair=0.39) == HAIR) & (ids(N, hair=0.34) != HAIR)
    for place, colour in ((y > 58, sofa), (y < 40, wall)):
        assert np.abs(result[bare & place].mean(axis=0) - colour).max() < 25


def test_whether_cloth_or_wall_is_behind_hair_the_photo_tells_where_the_model_errs():
    part_ids = ids(N)
    part_ids[110:] = CLOTH
    colours = {0: (40, 60, 200), CLOTH: (200, 30, 30)}
    pixels = painted(part_ids, colours)
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    after = ids(S, hair=0.32)
    after[(ids(S) == HAIR) & (after == 0)] = CLOTH  # up to the crown
    result, _ = apply(pixels, transfer(framed, look(ids(S)), look(after), Plan((), (HAIR,))), WHOLE)
    bare = (ids(N, hair=0.39) == HAIR) & (ids(N, hair=0.34) != HAIR)
    assert np.abs(result[bare].mean(axis=0) - colours[0]).max() < 25


def test_what_shows_where_hair_goes_is_one_thing_or_the_other():
    framed = photo()[1]
    beside = np.zeros((S, S, PARTS), np.float32)
    beside[..., SKIN], beside[..., 0], beside[..., HAIR] = 0.4, 0.2, 0.4
    found = uncovered(framed, beside, HAIR)
    assert found.sum(axis=2) == pytest.approx(1.0, abs=1e-4)
    assert found[..., SKIN].min() > 0.85
    assert not found[..., HAIR].any()


def test_a_part_of_unknown_colour_is_not_drawn():
    pixels, framed = photo()
    after, ears = look(ids(S, hair=0.32)), np.eye(PARTS, dtype=np.float32)[FACE_PARTS.index("ears")]
    bare = ((ids(S) == HAIR) & (ids(S, hair=0.32) != HAIR))[..., None]
    parts = np.where(bare, 0.55 * ears + 0.45 * np.eye(PARTS, dtype=np.float32)[HAIR], after.parts)
    result, _ = apply(
        pixels, transfer(framed, look(ids(S)), Look(after.image, parts.astype(np.float32)), Plan((), (HAIR,))), WHOLE
    )
    uncovered = (ids(N, hair=0.39) == HAIR) & (ids(N, hair=0.34) != HAIR)
    assert result[uncovered].mean() > 0.8 * pixels[uncovered].mean(), "no black patch"


def test_what_hair_uncovers_of_clothes_has_the_photos_colour_and_neither_shade_nor_strands():
    def dressed(size: int, hair: float) -> np.ndarray:
        found = ids(size, hair=hair)
        found[(found == 0) & (np.mgrid[:size, :size][1] > size // 2)] = CLOTH
        return found

    green = (20, 160, 120)
    was = dressed(N, 0.42)
    pixels = painted(was, {CLOTH: green})
    halo = (was == CLOTH) & (cv2.dilate((was == HAIR).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
    pixels[halo] = COLOURS[HAIR]
    framed = FramedPhoto.of(pixels, one_hot(was), N)
    before, after = look(dressed(S, 0.42), {CLOTH: (20, 60, 200)}), look(dressed(S, 0.34), {CLOTH: (20, 60, 200)})
    after.image[(dressed(S, 0.42) == HAIR) & (dressed(S, 0.34) == CLOTH)] = (5, 5, 20)  # in the shade that hair casts
    result, _ = apply(pixels, transfer(framed, before, after, Plan((), (HAIR,))), WHOLE)
    bare = (dressed(N, 0.4) == HAIR) & (dressed(N, 0.36) == CLOTH)
    assert np.abs(result[bare].mean(axis=0) - green).max() < 25


def test_glasses_and_hats_stay_when_hair_changes():
    part_ids = ids(N)
    part_ids[36:44, 12:40] = GLASSES
    part_ids[:20] = FACE_PARTS.index("hat")
    colours = {GLASSES: (220, 200, 20), FACE_PARTS.index("hat"): (180, 30, 30)}
    pixels = painted(part_ids, colours)
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    for hair in (0.32, 0.47):
        result, mask = apply(pixels, transfer(framed, look(ids(S)), look(ids(S, hair=hair)), Plan((), (HAIR,))), WHOLE)
        worn = np.isin(part_ids, list(colours))
        assert mask.any() and not mask[worn].any()
        assert np.array_equal(result[worn], pixels[worn])


def test_a_faint_outline_moves_as_far_as_the_models():
    # The nose of both pictures has the colour of the skin around it: only the masks know where it is.
    def nose(size: int, half: float) -> np.ndarray:
        y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
        found = ids(size)
        found[(np.abs(x) < half) & (np.abs(y) < 0.1)] = NOSE
        return found

    colours = {NOSE: COLOURS[SKIN]}
    pixels = painted(nose(N, 0.06), {NOSE: (0, 255, 0)})
    framed = FramedPhoto.of(pixels, one_hot(nose(N, 0.06)), N)
    made = transfer(framed, look(nose(S, 0.06), colours), look(nose(S, 0.075), colours), Plan((), (NOSE,)))
    result, _ = apply(pixels, made, WHOLE)
    green = [float((p[N // 2 - 5 : N // 2 + 5, :, 1] > 210).sum(axis=1).mean()) / N for p in (pixels, result)]
    assert green[1] - green[0] == pytest.approx(0.03, abs=0.012)


def test_hair_grows_from_the_photos_own_outline():
    # The rebuild's hair reaches less far than the photo's, as if it were another head.
    framed = FramedPhoto.of(painted(ids(N, hair=0.42)), one_hot(ids(N, hair=0.42)), N)
    found = regrown(framed, look(ids(N, hair=0.36)), look(ids(N, hair=0.4)), np.ones((N, N), np.float32), HAIR)
    assert found is not None
    grown = (found.grown > 0.5) & (np.mgrid[:N, :N][0] < N // 2)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    far = np.hypot(x, y)[grown]
    assert far.min() > 0.38 and far.max() == pytest.approx(0.46, abs=0.015)
    assert found.shrunk.max() < 0.5
    back = regrown(framed, look(ids(N, hair=0.4)), look(ids(N, hair=0.36)), np.ones((N, N), np.float32), HAIR)
    assert back is not None
    gone = (back.shrunk > 0.5) & (np.mgrid[:N, :N][0] < N // 2)
    assert np.hypot(x, y)[gone].min() == pytest.approx(0.38, abs=0.015)
    assert back.parts[gone][:, 0].mean() > 0.9, "the background shows there"
    assert regrown(framed, look(ids(N, hair=0.0)), look(ids(N)), np.ones((N, N), np.float32), HAIR) is None


def test_waves_of_the_models_outline_do_not_come_along():
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    far, around = np.hypot(x, y), np.arctan2(y, x)
    after = ids(N, hair=0.34)
    ring = (far > 0.33) & (y < 0.1)
    after[ring] = np.where(far[ring] < 0.37 + 0.015 * np.sin(24 * around[ring]), HAIR, 0)
    framed = FramedPhoto.of(painted(ids(N, hair=0.42)), one_hot(ids(N, hair=0.42)), N)
    found = regrown(framed, look(ids(N, hair=0.42)), look(after), np.ones((N, N), np.float32), HAIR)
    assert found is not None
    columns = slice(N // 2 - 20, N // 2 + 20)
    wanted, ends = (
        np.array([far[: N // 2, k][hair[: N // 2, k]].max() for k in range(N)[columns]])
        for hair in ((after == HAIR), (ids(N, hair=0.42) == HAIR) & (found.shrunk < 0.5))
    )
    assert ends.mean() == pytest.approx(wanted.mean(), abs=0.015)
    assert ends.std() < 0.42 * wanted.std()


def test_strands_go_as_a_whole_where_hair_recedes_and_stay_where_it_does_not():
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    parts = one_hot(ids(N))
    strands = (np.hypot(x, y) > 0.4) & (np.hypot(x, y) < 0.44) & (y < 0.1)
    parts[strands] = 0.7 * parts[strands] + 0.3 * np.eye(PARTS, dtype=np.float32)[HAIR]
    framed = FramedPhoto(painted(ids(N)), parts, 0.0)
    window = np.ones((N, N), np.float32)
    for hair, share in ((0.34, 1.0), (0.4, 0.0)):
        found = regrown(framed, look(ids(N)), look(ids(N, hair=hair)), window, HAIR)
        assert found is not None
        assert found.shrunk[strands & (y < 0.0)].mean() == pytest.approx(share, abs=0.1)


def test_no_lock_is_left_hanging_in_the_air():
    wanted = np.zeros((N, N), bool)
    wanted[20:80, 30:90] = True
    own = wanted.copy()
    wanted[90:110, 30:50] = True  # was never there
    wanted[100:104, 80:84] = own[100:104, 80:84] = True  # what is left of a long one
    kept = rooted(wanted, own)
    assert kept[20:80, 30:90].all() and not kept[95, 40] and not kept[101, 81] and kept[0, 0]
    assert rooted(np.zeros((N, N), bool), own).all()


def test_glasses_add_to_what_is_seen_through_them():
    pixels, framed = photo()
    worn = ids(S)
    worn[26:30, 18:46] = GLASSES
    dark = painted(worn, {GLASSES: (20, 20, 20)})
    made = transfer(framed, look(ids(S)), Look(dark, one_hot(worn)), Plan((), (GLASSES,)))
    result, _ = apply(pixels, made, WHOLE)
    assert result[54:58, 50:78].mean() < 0.6 * pixels[54:58, 50:78].mean()
    assert np.array_equal(result[: N // 4], pixels[: N // 4])


def test_pieces_of_glasses_are_not_put_on():
    pixels, framed = photo()
    worn = ids(S)
    worn[26:30, 18:28] = GLASSES
    piece = Look(painted(worn, {GLASSES: (20, 20, 20)}), one_hot(worn))
    made = transfer(framed, look(ids(S)), piece, Plan((GLASSES,), (GLASSES, MOUTH)))
    assert np.array_equal(apply(pixels, made, WHOLE)[0], pixels)
    there = one_hot(ids(N))
    there[52:60, 36:92] = np.eye(PARTS)[GLASSES]
    wearer = FramedPhoto.of(pixels, there, N)
    dark = transfer(wearer, look(ids(S)), piece, Plan((), (GLASSES,)))
    assert not np.array_equal(apply(pixels, dark, WHOLE)[0], pixels), "who wears some may have smaller ones"
    worn[22:40, 12:52] = GLASSES
    large = Look(painted(worn, {GLASSES: (20, 20, 20)}), one_hot(worn))
    second = transfer(wearer, look(ids(S)), large, Plan((GLASSES,), (GLASSES,)))
    assert np.array_equal(apply(pixels, second, WHOLE)[0], pixels), "nobody puts glasses on over glasses"


HAT = FACE_PARTS.index("hat")
RED, BLUE = (180, 30, 30), (30, 30, 180)


def _wearer(low, wide, colour, top=0.0):
    """A picture of a head in a hat down to some height, so wide and from so far below the border, and what is prepared
    of it."""
    part_ids = ids(N)
    part_ids[int(top * N) : int(low * N), N // 2 - int(wide * N / 2) : N // 2 + int(wide * N / 2)] = HAT
    part_ids[52:64, 60:68] = NOSE
    pixels = painted(part_ids, {HAT: colour, NOSE: COLOURS[SKIN]})
    return pixels, part_ids, FramedPhoto.of(pixels, one_hot(part_ids), N)


def test_a_hat_of_another_photo_takes_the_place_of_the_one_that_is_worn():
    pixels, part_ids, wearer = _wearer(0.2, 0.9, RED)
    _, other_ids, other = _wearer(0.2, 0.4, BLUE)
    rebuild, after = (look(one[::2, ::2], {HAT: RED, NOSE: COLOURS[SKIN]}) for one in (part_ids, other_ids))
    made = transfer(wearer, rebuild, after, Plan((HAT,), (HAT,)), [Lent(other, (HAT,))])
    result, _ = apply(pixels, made, WHOLE)
    new, old = other_ids == HAT, (part_ids == HAT) & (other_ids != HAT)
    inside = cv2.erode(new.astype(np.uint8), np.ones((5, 5))).astype(bool)
    assert (result[inside][:, 2] > result[inside][:, 0]).mean() > 0.95, "the other's hat is there"
    red = result[..., 0].astype(int) - result[..., 2] > 80
    assert red[part_ids == HAT].mean() < 0.05 < (pixels[..., 0].astype(int) - pixels[..., 2] > 80)[old].mean()
    ground = result[4:16, 8:24].reshape(-1, 3).astype(float).mean(0)
    assert np.abs(ground - COLOURS[0]).max() < 12, "and beside it what is behind them"
    assert np.array_equal(result[80:], pixels[80:])


def test_there_is_no_hair_above_a_hat_that_is_put_on():
    part_ids = ids(N)
    pixels = painted(part_ids)
    lent_ids = ids(N, hair=0.0)
    lent_ids[34:46, 40:88] = HAT  # lower, and less wide, than the hair
    other = FramedPhoto(painted(lent_ids, {HAT: RED}), one_hot(lent_ids), 0.0)
    framed = FramedPhoto(pixels, one_hot(part_ids), 0.0)
    after = look(lent_ids[::2, ::2], {HAT: RED})
    made = transfer(framed, look(ids(S)), after, Plan((HAT,), (HAT,)), [Lent(other, (HAT,))])
    result, _ = apply(pixels, made, WHOLE)
    assert np.abs(result[36:44, 44:84].astype(int) - RED).mean() < 12
    for above in (np.s_[16:30, 44:84], np.s_[26:32, 28:36], np.s_[26:32, 92:100]):
        assert np.abs(result[above].astype(int) - COLOURS[0]).mean() < 12
    for below in (np.s_[60:72, 16:24], np.s_[60:72, 104:112]):
        assert np.array_equal(result[below], pixels[below])


def test_of_a_hat_that_is_too_small_to_see_nothing_goes():
    lent_ids = ids(N)
    lent_ids[40, 60] = HAT
    other = FramedPhoto(painted(lent_ids, {HAT: RED}), one_hot(lent_ids), 0.0)
    pixels, framed = photo()
    made = transfer(framed, look(ids(S)), look(ids(S)), Plan((HAT,), (HAT,)), [Lent(other, (HAT,))], side=S)
    result, _ = apply(pixels, made, WHOLE)
    changed = np.argwhere((result != pixels).any(axis=2))
    assert np.abs(changed - (40, 60)).max() < 8


@pytest.mark.parametrize("top", [0.0, 0.06])
def test_a_hat_is_pulled_down_as_far_as_the_one_that_it_replaces(top):
    wearer, other = _wearer(0.3, 0.8, RED)[2], _wearer(0.2, 0.8, BLUE, top)[2]
    (pulled,) = fitting(wearer, [Lent(other, (HAT,))])
    rows = np.flatnonzero(pulled.photo.parts[:, N // 2, HAT] > 0.5)
    assert rows[-1] + 1 == pytest.approx(0.3 * N, abs=1.5)
    assert rows[0] == (0 if top == 0.0 else pytest.approx(0.16 * N, abs=1.5)), "one that is cut off stays cut off"
    nose = fitting(wearer, [Lent(other, (NOSE, HAT))])
    assert [one.parts for one in nose] == [(HAT,), (NOSE,)] and nose[1].photo is other
    (lower,) = fitting(_wearer(0.1, 0.8, RED)[2], [Lent(other, (HAT,))])
    (first,) = fitting(photo()[1], [Lent(other, (HAT,))])
    assert lower.photo is other and first.photo is other


def test_hair_under_a_hat_is_not_lent():
    pixels, framed = photo()
    _, other_ids, other = _wearer(0.3, 0.8, RED)
    assert lends(FACE_PARTS.names, HAIR, other) and fitting(framed, [Lent(other, (HAIR,))]) == []
    bald = look(ids(S, hair=0.3), {HAIR: (240, 240, 240)})
    made = transfer(framed, look(ids(S)), bald, Plan((HAIR,), (HAIR,)), [Lent(other, (HAIR,))])
    assert np.array_equal(apply(pixels, made, WHOLE)[0], pixels)
    both = transfer(framed, look(ids(S)), look(other_ids[::2, ::2]), Plan((), (HAIR, HAT)), [Lent(other, (HAIR, HAT))])
    result, _ = apply(pixels, both, WHOLE)
    there = cv2.erode((other_ids == HAT).astype(np.uint8), np.ones((7, 7))).astype(bool)
    assert (result[there][:, 0] > result[there][:, 1] + 60).all(), "the hat is"
    assert np.array_equal(result[44:60, 14:22], pixels[44:60, 14:22]), "and beside it one's own hair stays"


@pytest.mark.parametrize("off", [False, True])
def test_hair_lies_under_a_hat_that_is_worn_or_takes_its_place(off):
    pixels, part_ids, wearer = _wearer(0.25, 0.5, RED)
    long = ids(N, hair=0.46)
    other = FramedPhoto.of(painted(long, {HAIR: (40, 160, 60)}), one_hot(long), N)
    before = look(part_ids[::2, ::2], {HAT: RED, NOSE: COLOURS[SKIN]})
    after = look(ids(S, hair=0.46), {HAIR: (40, 160, 60)})
    parts = (HAIR, HAT) if off else (HAIR,)
    made = transfer(wearer, before, after, Plan(parts, parts), [Lent(other, (HAIR,))])
    result, _ = apply(pixels, made, WHOLE)
    hat = cv2.erode((part_ids == HAT).astype(np.uint8), np.ones((5, 5))).astype(bool)
    red = (result[..., 0].astype(int) - result[..., 1] > 60)[hat]
    assert red.mean() < 0.02 if off else red.mean() > 0.95
    assert (result[44:60, 12:18, 1].astype(int) > result[44:60, 12:18, 0]).mean() > 0.9, "the other's hair is beside it"


@pytest.mark.parametrize(("rows", "changes"), [(18, False), (2, False), (0, False), (11, True)])
def test_a_hat_that_somebody_wears_neither_grows_nor_goes(rows, changes):
    colours = {HAT: RED}

    def wearing(size, high):
        found = ids(size)
        found[: high * size // S, size // 6 : -size // 6] = HAT
        return found

    pixels = painted(wearing(N, 10), colours)
    wearer = FramedPhoto.of(pixels, one_hot(wearing(N, 10)), N)
    after = look(wearing(S, rows), {HAT: BLUE})
    made = transfer(wearer, look(wearing(S, 10), colours), after, Plan((HAT,), (HAT,)))
    assert bool((apply(pixels, made, WHOLE)[0] != pixels).any()) == changes


def test_spread_keeps_what_is_known_and_fills_the_rest():
    values, weights = np.zeros((50, 70), np.float32), np.zeros((50, 70), np.float32)
    values[10:20, 10:20], weights[10:20, 10:20] = 5.0, 1.0
    values[30:40, 50:60], weights[30:40, 50:60] = 9.0, 1.0
    found = spread(values, weights)
    assert found[weights == 1] == pytest.approx(values[weights == 1], abs=1e-4)
    assert found.min() >= 5.0 - 1e-3
    assert found.max() <= 9.0 + 1e-3
    assert found[0, 0] < 6.5 < found[45, 65]
    assert np.array_equal(spread(values, np.zeros_like(weights)), np.zeros_like(values))
    assert smooth(values, weights, 2.0).max() <= 9.0 + 1e-3


def test_texture_is_continued_by_whole_shifts():
    stripes = np.zeros((N, N, 1), np.float32)
    stripes[:, ::4] = 1.0
    known, wanted = np.zeros((N, N), bool), np.zeros((N, N), bool)
    known[:60], wanted[64:120] = True, True
    found = continued(stripes * known[..., None], known, wanted)
    assert not found[~wanted].any()
    laid = found[70:110, 10:-10, 0]
    assert laid.std() == pytest.approx(stripes[:60].std(), rel=0.1)
    few = np.zeros((N, N), bool)
    few[:6, :6] = True
    assert not continued(stripes, few, wanted).any()


def test_the_level_of_noise_is_measured():
    rng = np.random.default_rng(0)
    grey = np.clip(128 + rng.normal(0, 5, (200, 200, 1)).repeat(3, axis=2), 0, 255).astype(np.uint8)
    assert noise_level(grey) == pytest.approx(to_lab(grey)[..., 0].std(), rel=0.15)
    assert noise_level(np.full((64, 64, 3), 90, np.uint8)) == 0.0


HAT = FACE_PARTS.index("hat")


def test_a_hat_of_another_photo_is_its_own_pixels():
    worn = ids(N)
    worn[8:40, 30:98] = HAT
    stripes = painted(worn)
    stripes[8:40, 30:98] = np.where(np.arange(30, 98)[None, :, None] % 8 < 4, (200, 40, 160), (60, 160, 40))
    other = FramedPhoto.of(stripes, one_hot(worn), N)
    pixels, framed = photo()
    model = ids(S)
    model[4:20, 15:49] = HAT
    made = transfer(framed, look(ids(S)), look(model, {HAT: (90, 90, 90)}), Plan((HAT,), (HAT,)), [Lent(other, (HAT,))])
    result, mask = apply(pixels, made, WHOLE)
    assert np.abs(result[14:34, 40:88].astype(int) - stripes[14:34, 40:88]).mean() < 8
    assert np.array_equal(result[100:], pixels[100:])
    assert np.array_equal(result[~mask], pixels[~mask])
    edited = look(model, {HAT: (90, 90, 90)})
    darker = look(model, {HAT: (40, 40, 40)})
    made = transfer(framed, look(ids(S)), darker, Plan((HAT,), (HAT,)), [Lent(other, (HAT,), edited)])
    again, _ = apply(pixels, made, WHOLE)
    assert again[14:34, 40:88].mean() < result[14:34, 40:88].mean() - 15, "later edits of the part go on working"


def test_a_mouth_of_another_photo_is_blended_into_the_skin_around_it():
    pale = {SKIN: (240, 215, 200), MOUTH: (200, 90, 110)}
    other = FramedPhoto.of(painted(ids(N), pale), one_hot(ids(N)), N)
    pixels, framed = photo()
    made = transfer(framed, look(ids(S)), look(ids(S)), Plan((), (MOUTH,)), [Lent(other, (MOUTH,))])
    result, _ = apply(pixels, made, WHOLE)
    row = int(0.64 * N)
    beside = result[row - 12 : row - 9, 52:76].mean(axis=(0, 1))
    assert np.abs(beside - COLOURS[SKIN]).max() < 12, "no pale patch of the other skin"
    assert result[row - 2 : row + 2, 56:72, 2].mean() != pytest.approx(
        pixels[row - 2 : row + 2, 56:72, 2].mean(), abs=1
    )


def test_hair_of_another_photo_goes_under_a_hat_that_stays_on():
    worn, bare, model = ids(N), ids(N), ids(S)
    worn[8:40, 30:98] = HAT
    model[4:20, 15:49] = HAT
    green = {HAIR: (60, 200, 60)}
    other = FramedPhoto.of(painted(bare, green), one_hot(bare), N)
    pixels = painted(worn, {HAT: (90, 90, 90)})
    framed = FramedPhoto.of(pixels, one_hot(worn), N)
    made = transfer(framed, look(model), look(model), Plan((HAIR,), (HAIR,)), [Lent(other, (HAIR,))])
    result, _ = apply(pixels, made, WHOLE)
    assert np.abs(result[14:34, 40:88].astype(int) - pixels[14:34, 40:88]).max() < 12
    hair = (bare == HAIR) & (worn != HAT)
    assert result[hair][:, 1].mean() > 150
    off = transfer(framed, look(model), look(bare[::2, ::2]), Plan((HAIR, HAT), (HAIR, HAT)), [Lent(other, (HAIR,))])
    assert apply(pixels, off, WHOLE)[0][20:34, 50:78, 1].mean() > 150


def turned(by: int) -> np.ndarray:
    """(N, N) a head whose mouth is some pixels to the right."""
    found = ids(N)
    found[found == MOUTH] = SKIN
    found[78:88, 49 + by : 79 + by] = MOUTH
    return found


def test_nothing_is_taken_from_a_face_that_is_turned_further():
    pixels, framed = photo()
    assert framed.facing == pytest.approx(0.0, abs=0.02)
    results = []
    for by in (4, 20):
        other = FramedPhoto.of(painted(turned(by), {MOUTH: (60, 200, 60)}), one_hot(turned(by)), N)
        assert other.facing == pytest.approx(by / 68, abs=0.05)
        made = transfer(framed, look(ids(S)), look(ids(S)), Plan((), (MOUTH,)), [Lent(other, (MOUTH,))])
        results.append(apply(pixels, made, WHOLE)[0])
    assert np.abs(results[0].astype(int) - pixels).max() > 30
    assert np.array_equal(results[1], pixels)
    nobody = FramedPhoto.of(np.zeros((N, N, 3), np.uint8), one_hot(np.zeros((N, N), np.uint8)), N)
    assert nobody.facing == 0.0


def test_only_what_a_photo_has_is_lent():
    _, framed = photo()
    assert lends(FACE_PARTS.names, HAIR, framed)
    assert not lends(FACE_PARTS.names, HAT, framed)
    assert not lends(FACE_PARTS.names, SKIN, framed)


def moved_by(part_ids: np.ndarray, part: int, x: int, y: int) -> np.ndarray:
    """Ids with one part elsewhere, on skin."""
    found = np.where(part_ids == part, SKIN, part_ids)
    found[np.roll(part_ids == part, (y, x), (0, 1))] = part
    return found


def middle(share: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: share.shape[0], : share.shape[1]]
    return np.array([(share * x).sum(), (share * y).sum()]) / share.sum()


def test_a_rebuild_is_laid_onto_the_photo_unless_it_shows_something_else():
    _, framed = photo()
    before, after = (look(moved_by(ids(S, mouth), MOUTH, 1, -2)) for mouth in ((0.12, 0.05), (0.16, 0.05)))
    first, last = registered(framed, before, after)
    where = middle(one_hot(ids(S))[..., MOUTH])
    for one in (first, last):
        assert middle(one.parts[..., MOUTH]) == pytest.approx(where, abs=1.1), "it was 2.2 pixels away"
    assert last.parts[..., MOUTH].sum() > 1.2 * first.parts[..., MOUTH].sum(), "the edit is still there"
    assert np.array_equal(first.parts[: S // 4], before.parts[: S // 4]), "nothing moves far from there"
    far, _ = registered(framed, look(moved_by(ids(S), MOUTH, 0, -9)), after)
    assert np.array_equal(far.parts, look(moved_by(ids(S), MOUTH, 0, -9)).parts), "this is no matter of place"
    same, _ = registered(framed, look(ids(S)), after)
    assert np.abs(same.parts - look(ids(S)).parts).max() < 0.2


def test_of_a_strand_only_the_end_is_cut_off():
    def strands(length: float) -> np.ndarray:
        part_ids = ids(256)
        y, x = (np.mgrid[:256, :256] + 0.5) / 256 - 0.5
        part_ids[(np.abs(x + 0.34) < 0.03) & (y > -0.1) & (y < length)] = HAIR
        return part_ids

    framed = FramedPhoto.of(painted(strands(0.45)), one_hot(strands(0.45)), 256)
    before, after = look(strands(0.4)), look(strands(0.3))
    found = regrown(framed, before, after, np.ones((256, 256), np.float32), HAIR)
    assert found is not None
    column = found.shrunk[:, int((0.5 - 0.34) * 256)]
    gone = np.flatnonzero(column > 0.5)
    assert gone.max() == pytest.approx(0.95 * 256, abs=4) and 18 <= len(gone) <= 34, "a tenth of the side, from below"


def test_lipstick_leaves_teeth_white():
    part_ids, teeth = ids(N), np.zeros((N, N), bool)
    teeth[79:85, 54:74] = True
    pixels = painted(part_ids)
    pixels[teeth] = (235, 230, 215)
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    redder = look(ids(S), {MOUTH: (200, 40, 60)})
    result, _ = apply(pixels, transfer(framed, look(ids(S)), redder, Plan((MOUTH,), ())), WHOLE)
    moved = np.abs(to_lab(result) - to_lab(pixels)).max(axis=2)
    inner = cv2.erode((part_ids == MOUTH).astype(np.uint8), np.ones((3, 3))).astype(bool)
    assert moved[inner & ~teeth].mean() > 3.5 * moved[teeth].mean() > 0.0


def test_lips_whose_shares_fade_at_their_border_take_the_whole_change():
    pixels = painted(ids(N))
    shares = one_hot(ids(N))
    shares[..., MOUTH] *= 0.8  # as a guided filter leaves a thin lip
    shares[..., SKIN] += 0.2 * (ids(N) == MOUTH)
    redder = look(ids(S), {MOUTH: (200, 40, 60)})
    framed = replace(FramedPhoto.of(pixels, one_hot(ids(N)), N), parts=shares)
    made = transfer(framed, look(ids(S)), redder, Plan((MOUTH,), ()))
    inner = cv2.erode((ids(N) == MOUTH).astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    moved = (to_lab(apply(pixels, made, WHOLE)[0]) - to_lab(pixels))[inner][:, 1].mean()
    assert moved == pytest.approx((redder.lab - look(ids(S)).lab)[ids(S) == MOUTH][:, 1].mean(), rel=0.07)


def test_lips_change_as_the_models_lips_do_and_not_as_its_teeth():
    def smiling(size: int, lips: tuple[int, int, int], teeth: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        pixels, inside = painted(ids(size), {MOUTH: lips}), np.zeros((size, size), bool)
        inside[79 * size // N : 85 * size // N, 50 * size // N : 78 * size // N] = True
        pixels[inside] = teeth
        return pixels, (ids(size) == MOUTH) & ~inside

    white, paler = (235, 230, 215), (215, 230, 235)
    pixels, lips = smiling(N, COLOURS[MOUTH], white)
    framed = FramedPhoto.of(pixels, one_hot(ids(N)), N)
    before, there = smiling(S, COLOURS[MOUTH], white)
    after, _ = smiling(S, (200, 40, 60), paler)
    plan = Plan((MOUTH,), ())
    result, _ = apply(
        pixels, transfer(framed, Look(before, one_hot(ids(S))), Look(after, one_hot(ids(S))), plan), WHOLE
    )
    wanted = (to_lab(after) - to_lab(before))[there][:, 1].mean()
    inner = lips & (cv2.erode((ids(N) == MOUTH).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
    assert (to_lab(result) - to_lab(pixels))[inner][:, 1].mean() == pytest.approx(wanted, rel=0.3)


def test_teeth_that_newly_show_are_as_white_behind_lips_that_are_redder_than_the_models():
    pixels = painted(ids(N), {MOUTH: (190, 20, 50)})
    framed = FramedPhoto.of(pixels, one_hot(ids(N)), N)
    shown = painted(ids(S), {MOUTH: (170, 100, 95)})
    smiling = shown.copy()
    teeth = np.zeros((S, S), bool)
    teeth[39:43, 26:38] = True
    smiling[teeth] = (230, 222, 212)
    before, after = (Look(image, one_hot(ids(S))) for image in (shown, smiling))
    result, _ = apply(pixels, transfer(framed, before, after, Plan((), (MOUTH,))), WHOLE)
    inner = np.kron(cv2.erode(teeth.astype(np.uint8), np.ones((3, 3), np.uint8)), np.ones((2, 2))) > 0
    assert to_lab(result)[inner][:, 1].mean() < to_lab(smiling)[teeth][:, 1].mean() + 6


def test_teeth_that_are_as_red_as_the_models_lips_are_no_pink_lips():
    """Of small ones the model's picture hardly shows the colour: they are lighter than they were, and that is told."""
    pixels = painted(ids(N), {MOUTH: (150, 70, 75)})
    framed = FramedPhoto.of(pixels, one_hot(ids(N)), N)
    shown = painted(ids(S), {MOUTH: (150, 80, 80)})
    smiling, teeth = shown.copy(), np.zeros((S, S), bool)
    teeth[39:43, 32:38] = True
    smiling[teeth] = (225, 170, 168)
    before, after = (Look(image, one_hot(ids(S))) for image in (shown, smiling))
    result, _ = apply(pixels, transfer(framed, before, after, Plan((MOUTH,), (MOUTH,))), WHOLE)
    far = np.kron(cv2.dilate(teeth.astype(np.uint8), np.ones((5, 5), np.uint8)), np.ones((2, 2))) > 0
    lips = (ids(N) == MOUTH) & ~far & (cv2.erode((ids(N) == MOUTH).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
    assert np.abs(to_lab(result) - to_lab(pixels))[lips].mean() < 0.4, "lips take nothing of what teeth change"
    inner = np.kron(cv2.erode(teeth.astype(np.uint8), np.ones((3, 3), np.uint8)), np.ones((2, 2))) > 0
    assert to_lab(result)[inner][:, 0].mean() > to_lab(pixels)[inner][:, 0].mean() + 20
    assert to_lab(result)[inner][:, 1].mean() < to_lab(smiling)[teeth][:, 1].mean() / 2


def test_frames_of_glasses_stay_when_brows_move_behind_them():
    part_ids = ids(N)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    part_ids[(np.abs(np.abs(x) - 0.12) < 0.07) & (np.abs(y + 0.1) < 0.03)] = BROWS
    rim = (np.abs(np.abs(x) - 0.12) < 0.1) & (np.abs(y) < 0.085)
    part_ids[rim] = GLASSES
    pixels = painted(part_ids, {BROWS: (60, 40, 30), GLASSES: (20, 20, 60)})
    bare = np.where(part_ids == GLASSES, SKIN, part_ids)[::2, ::2]
    before, after = (look(one, {BROWS: (60, 40, 30)}) for one in (bare, moved_by(bare, BROWS, 0, -2)))
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    made = transfer(framed, before, after, Plan((), (BROWS,)))
    assert np.abs(made.shift).max() > 0.005, "brows move"
    upper = np.abs(y + 0.085) < 0.01
    assert np.abs(made.shift[upper & rim]).max() < 0.004
    bald = FramedPhoto.of(painted(np.where(rim, SKIN, part_ids)), one_hot(np.where(rim, SKIN, part_ids)), N)
    assert np.abs(transfer(bald, before, after, Plan((), (BROWS,))).shift[upper & rim]).max() > 0.005


def test_teeth_of_another_photo_are_as_light_in_any_skin():
    part_ids, teeth = ids(N), np.zeros((N, N), bool)
    teeth[79:85, 54:74] = True
    dark = painted(part_ids, {SKIN: (110, 75, 55), MOUTH: (90, 40, 40)})
    dark[teeth] = (225, 220, 205)
    pixels, framed = photo()
    other = FramedPhoto.of(dark, one_hot(part_ids), N)
    made = transfer(framed, look(ids(S)), look(ids(S)), Plan((), (MOUTH,)), (Lent(other, (MOUTH,)),))
    result, _ = apply(pixels, made, WHOLE)
    inner = cv2.erode(teeth.astype(np.uint8), np.ones((3, 3))).astype(bool)
    moved = (to_lab(result) - to_lab(dark))[inner].mean(axis=0)
    assert abs(moved[0]) < 13 and np.abs(moved[1:]).max() < 6
    around = (part_ids == SKIN) & (cv2.dilate((part_ids == MOUTH).astype(np.uint8), np.ones((5, 5))) > 0)
    assert np.abs((to_lab(result) - to_lab(pixels))[around].mean(axis=0)).max() < 6, "the skin around is the photo's"


def test_hair_that_hardly_shows_does_not_grow_by_what_a_rebuild_makes_up():
    part_ids = np.where(ids(N) == HAIR, 0, ids(N)).astype(np.uint8)
    part_ids[60:64, 24:30] = HAIR
    pixels = painted(part_ids)
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    longer, other = look(ids(S, hair=0.44)), look(ids(S, hair=0.4))
    made = transfer(framed, other, longer, Plan((), (HAIR,)))
    result, _ = apply(pixels, made, WHOLE)
    hair = (np.abs(result.astype(int) - COLOURS[HAIR]).max(axis=2) < 30) & (part_ids == 0)
    assert hair.mean() < 0.005
    bald = look(np.where(ids(S) == HAIR, 0, ids(S)).astype(np.uint8))
    given, _ = apply(pixels, transfer(framed, bald, longer, Plan((), (HAIR,))), WHOLE)
    assert ((np.abs(given.astype(int) - COLOURS[HAIR]).max(axis=2) < 30) & (part_ids == 0)).mean() > 0.1


def test_what_a_rebuild_has_far_from_the_photos_part_changes_nothing():
    eyes = FACE_PARTS.index("eyes")
    part_ids = ids(N)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    part_ids[(np.abs(np.abs(x) - 0.1) < 0.04) & (np.abs(y + 0.03) < 0.02)] = eyes
    pixels = painted(part_ids, {eyes: (40, 50, 60)})
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    looks = []
    for radius in (0.03, 0.06):
        wrong = part_ids[::2, ::2].copy()
        v, u = (np.mgrid[:S, :S] + 0.5) / S - 0.5
        wrong[np.hypot(u - 0.3, v - 0.25) < radius] = eyes
        looks.append(look(wrong, {eyes: (40, 50, 60)}))
    made = transfer(framed, looks[0], looks[1], Plan((), (eyes,)))
    result, _ = apply(pixels, made, WHOLE)
    temple = np.hypot(x - 0.3, y - 0.25) < 0.12
    assert np.array_equal(result[temple], pixels[temple])


def test_other_brows_and_eyes_stay_where_one_kind_moves():
    eyes, part_ids = FACE_PARTS.index("eyes"), ids(N)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    part_ids[(np.abs(np.abs(x) - 0.12) < 0.07) & (np.abs(y + 0.1) < 0.02)] = BROWS
    eye = (np.abs(np.abs(x) - 0.12) < 0.05) & (np.abs(y + 0.04) < 0.02)
    part_ids[eye] = eyes
    colours = {BROWS: (60, 40, 30), eyes: (40, 50, 60)}
    framed = FramedPhoto.of(painted(part_ids, colours), one_hot(part_ids), N)
    small = part_ids[::2, ::2]
    made = transfer(framed, look(small, colours), look(moved_by(small, BROWS, 0, -3), colours), Plan((), (BROWS,)))
    assert np.abs(made.shift).max() > 0.01 and np.abs(made.shift[eye]).max() < 0.15 * np.abs(made.shift).max()


def test_complexion_changes_evenly_and_colour_goes_with_light():
    part_ids = ids(N)
    shadow = (np.abs(np.mgrid[:N, :N][1] - 50) < 4) & (part_ids == SKIN)
    pixels = painted(part_ids)
    pixels[shadow] = (30, 22, 18)
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    after = look(ids(S), {SKIN: (150, 110, 130)})
    patch = after.image.copy()
    patch[24:28, 30:34] = (90, 90, 200)  # a mistake of the model's
    gain, offset = tone(framed, look(ids(S)), Look(patch, after.parts), [SKIN])
    del gain
    skin = cv2.erode(((part_ids == SKIN) & ~shadow).astype(np.uint8), np.ones((5, 5))).astype(bool)
    assert np.ptp(offset[skin][:, 2]) < 16 < np.abs(Look(patch, after.parts).lab - look(ids(S)).lab)[26, 32, 2]
    lit = np.abs(offset[skin][:, 2]).mean()
    assert np.abs(offset[shadow][:, 2]).mean() < 0.5 * lit, "no blue shows in shadows"


def test_a_face_that_looks_the_other_way_lends_as_in_a_mirror():
    right, left = turned(20), turned(-20)
    green = painted(left, {MOUTH: (60, 200, 60)})
    green[:, :44][left[:, :44] == MOUTH] = (60, 60, 200)  # of the other's mouth the outer side is blue
    other = FramedPhoto.of(green, one_hot(left), N)
    pixels = painted(right)
    framed = FramedPhoto.of(pixels, one_hot(right), N)
    model = look(right[::2, ::2])
    made = transfer(framed, model, model, Plan((), (MOUTH,)), [Lent(other, (MOUTH,))])
    result, _ = apply(pixels, made, WHOLE)
    outer = result[80:86, 86:94].mean(axis=(0, 1))
    assert outer[2] > outer[1] + 40
    assert np.array_equal(other.mirrored.mirrored.parts, other.parts)


def test_hair_of_another_photo_takes_the_place_of_hair_that_reaches_farther():
    long, short = ids(N, hair=0.46), ids(N, hair=0.36)
    other = FramedPhoto.of(painted(short, {HAIR: (60, 200, 60)}), one_hot(short), N)
    pixels = painted(ids(N, hair=0.47))  # its ends are too fine for a mask
    framed = FramedPhoto(pixels, one_hot(long), 0.0)
    # The model's rebuild has less hair than the photo, and hardly loses any.
    made = transfer(
        framed, look(ids(S, hair=0.4)), look(ids(S, hair=0.39)), Plan((HAIR,), (HAIR,)), [Lent(other, (HAIR,))]
    )
    result, _ = apply(pixels, made, WHOLE)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    far, above = np.hypot(x, y), y < 0.05
    assert np.abs(result[(far > 0.38) & above].astype(int) - COLOURS[0]).max() < 12
    assert result[(far > 0.3) & (far < 0.345) & above][:, 1].mean() > 150


def test_ears_and_clothes_that_the_photo_does_not_show_are_not_taken_from_the_other():
    long, short = ids(N, hair=0.46), ids(N, hair=0.36)
    short[(np.mgrid[:N, :N][0] > 0.45 * N) & (short == 0)] = CLOTH
    other = FramedPhoto.of(painted(short, {CLOTH: (250, 0, 0), HAIR: (60, 200, 60)}), one_hot(short), N)
    pixels = painted(long)
    framed = FramedPhoto.of(pixels, one_hot(long), N)
    before = look(ids(S, hair=0.46))
    made = transfer(framed, before, before, Plan((HAIR,), (HAIR,)), [Lent(other, (HAIR,))])
    result, _ = apply(pixels, made, WHOLE)
    gone = np.mgrid[:N, :N][0] == int(0.53 * N)
    gone &= (long == HAIR) & (short == CLOTH)
    assert gone.any()
    assert np.abs(result[gone].astype(int) - COLOURS[0]).mean() < 12


def test_the_old_edge_of_hair_that_grows_is_not_left_as_a_line():
    part_ids = ids(N)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    far, above = np.hypot(x, y), y < 0.05
    rim = (far > 0.39) & (far < 0.41) & above
    pixels = painted(part_ids)
    pixels[rim] = (230, 230, 240)  # half of it is a bright sky
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    made = transfer(framed, look(ids(S)), look(ids(S, hair=0.47)), Plan((), (HAIR,)))
    result, _ = apply(pixels, made, WHOLE)
    assert result[rim].mean() < 110


@pytest.mark.parametrize(("before", "after", "part"), [(0.48, 0.44, 0), (0.4, 0.47, HAIR)])
def test_what_is_drawn_fades_out_in_its_own_colours(before, after, part):
    """Hair of a rebuild may lie farther out than the photo's, so that the model shows hair where the photo's goes."""
    framed = FramedPhoto(painted(ids(N)), one_hot(ids(N)), 0.0)
    made = transfer(framed, look(ids(S, hair=before)), look(ids(S, hair=after)), Plan((), (HAIR,)))
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    outer = (made.alpha > 0.02) & (np.hypot(x, y) > max(0.4, 0.4 + after - before)) & (y < 0.0)
    assert outer.sum() > 40
    light = to_lab(np.array(COLOURS[part], np.uint8)[None, None])[0, 0, 0]
    assert np.abs(made.drawn[..., 0][outer] - light).max() < 3


def test_single_hairs_around_hair_that_recedes_are_not_left_as_a_line():
    part_ids = ids(N)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    rim = (np.hypot(x, y) > 0.421) & (np.hypot(x, y) < 0.433) & (y < 0.0)
    pixels = painted(part_ids)
    pixels[rim] = (70, 70, 80)  # no mask holds them
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    made = transfer(framed, look(ids(S)), look(ids(S, hair=0.33)), Plan((), (HAIR,)))
    result, _ = apply(pixels, made, WHOLE)
    assert result[rim].mean(axis=0) == pytest.approx(COLOURS[0], abs=4)


def test_gaps_in_the_old_border_of_hair_that_grows_are_closed_and_give_it_no_colour():
    part_ids = ids(N)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    fringe = (np.hypot(x, y) > 0.34) & (np.hypot(x, y) < 0.4) & (part_ids == HAIR)
    parts = one_hot(part_ids)
    parts[fringe] = 0.6 * np.eye(PARTS, dtype=np.float32)[HAIR] + 0.4 * np.eye(PARTS, dtype=np.float32)[0]
    pixels = painted(part_ids)
    pixels[fringe] = (160, 220, 60)
    framed = FramedPhoto(pixels, parts, 0.0)
    made = transfer(framed, look(ids(S)), look(ids(S, hair=0.48)), Plan((), (HAIR,)))
    result, _ = apply(pixels, made, WHOLE)
    own = to_lab(painted(part_ids))[part_ids == HAIR].mean(axis=0)
    for place in (fringe, (np.hypot(x, y) > 0.42) & (np.hypot(x, y) < 0.46)):
        assert np.abs(to_lab(result)[place & (y < 0.0)].mean(axis=0) - own).max() < 12


def test_a_framed_photo_sees_what_is_behind_between_strands():
    part_ids = ids(N)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    fringe = (np.hypot(x, y) > 0.37) & (part_ids == HAIR)
    pixels = painted(part_ids, {0: (200, 220, 230)})
    gaps = fringe & (np.mgrid[:N, :N][1] % 4 < 2)
    pixels[gaps] = (200, 220, 230)
    share = FramedPhoto.of(pixels, one_hot(part_ids), N).parts[..., HAIR]
    assert share[gaps & (y < -0.1)].mean() < 0.35
    assert share[fringe & ~gaps & (y < -0.1)].mean() > 0.65


def test_hair_does_not_grow_where_the_photos_is_already_as_far_as_the_models_is_to_be():
    own = ids(N)
    own[40:70, 108:120] = HAIR  # a lock that the rebuild has not got, until it grows
    after = ids(S)
    after[20:35, 50:60] = HAIR
    framed = FramedPhoto.of(painted(own), one_hot(own), N)
    found = regrown(framed, look(ids(S)).at(N), look(after).at(N), np.ones((N, N), np.float32), HAIR)
    assert found is not None
    assert not (found.grown[:, 124:] > 0.3).any()


def test_hair_that_grows_has_the_colour_of_most_of_it_and_not_of_a_light_on_it():
    part_ids = ids(N)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    pixels = painted(part_ids)
    pixels[(part_ids == HAIR) & (x > 0.25)] = (240, 190, 120)
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    made = transfer(framed, look(ids(S)), look(ids(S, hair=0.48)), Plan((), (HAIR,)))
    result, _ = apply(pixels, made, WHOLE)
    new = (np.hypot(x, y) > 0.42) & (np.hypot(x, y) < 0.46) & (y < 0.05)
    sides = [to_lab(result)[new & side][:, 0].mean() for side in (x > 0.3, x < -0.3)]
    assert sides[0] - sides[1] < 20, "40 between the hair in the light and the other"


def test_a_part_that_nowhere_shows_moves_nothing():
    pixels, framed = photo()
    made = transfer(framed, look(ids(S)), look(ids(S)), Plan((GLASSES,), (GLASSES,)))
    assert np.array_equal(apply(pixels, made, WHOLE)[0], pixels)


@pytest.mark.parametrize(("things", "most"), [(True, 2.0), (False, 40.0)])
def test_leaves_are_continued_where_hair_goes_and_things_before_a_wall_are_not(things, most):
    part_ids, rng = ids(N), np.random.default_rng(5)
    pixels = painted(part_ids)
    ground = part_ids == 0
    noise = rng.normal(0, 18, (N, N))
    if things:
        rows, columns = np.mgrid[:N, :N]
        away = np.hypot(rows - N / 2, columns - N / 2) > 0.45 * N
        noise = np.where(away & (columns % 9 < 3) & (rows % 9 < 3), 90.0, noise / 30)
    pixels[ground] = np.clip(pixels[ground] + noise[ground][:, None], 0, 255).astype(np.uint8)
    framed = FramedPhoto.of(pixels, one_hot(part_ids), N)
    made = transfer(framed, look(ids(S)), look(ids(S, hair=0.3)), Plan((), (HAIR,)))
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    gone = (np.hypot(x, y) > 0.33) & (np.hypot(x, y) < 0.38) & (y < 0.05)
    light = made.drawn[..., 0]
    rough = float((light - cv2.GaussianBlur(light, (0, 0), 2.0))[gone].std())
    assert rough < most if things else 2.0 < rough < most


def test_a_flow_that_folds_is_bridged_and_one_that_does_not_stays():
    y, x = np.mgrid[:N, :N].astype(np.float32)
    bump = np.exp(-(np.square(x - 64) + np.square(y - 64)) / 800)
    smile = np.dstack([6.0 * bump, 3.0 * bump]).astype(np.float32)
    assert np.abs(unfolded(smile, SIDE) - smile).max() < 0.05
    torn = smile.copy()
    torn[50:60, 50:60] = (-25.0, 20.0)
    mended = unfolded(torn, SIDE)
    steps = [np.abs(np.diff(flow, axis=1)).max() for flow in (torn, mended)]
    assert steps[1] < 0.25 * steps[0]
    assert np.abs(mended - smile)[40:70, 40:70].mean() < 0.25 * np.abs(torn - smile)[40:70, 40:70].mean()


def test_skin_that_is_drawn_has_pores_and_no_strands_that_lie_over_the_face():
    long, short = ids(N, hair=0.4), ids(N, hair=0.4)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    fringe = (np.hypot(x, y) < 0.28) & (y < -0.08)
    long[fringe] = HAIR
    other = FramedPhoto.of(painted(short), one_hot(short), N)
    noise = np.random.default_rng(2).normal(0, 3, (N, N, 1))
    pixels = np.clip(painted(long) + noise, 0, 255).astype(np.uint8)
    pixels[(long == SKIN) & (np.arange(N) % 16 == 0)] = (90, 60, 40)
    framed = FramedPhoto.of(pixels, one_hot(long), N)
    made = transfer(framed, look(long[::2, ::2]), look(ids(S)), Plan((HAIR,), (HAIR,)), [Lent(other, (HAIR,))])
    drawn = made.drawn[..., 0][cv2.erode(fringe.astype(np.uint8), np.ones((11, 11))) > 0]
    assert 0.3 < drawn.std() < 6.0
    assert drawn.min() > to_lab(painted(ids(N)))[N // 2, N // 2, 0] - 20


def bared_forehead() -> tuple[np.ndarray, np.ndarray]:
    """A fringe makes room for other hair, above brows in a shade: the picture after that, and where the fringe was."""
    whole, cut = ids(N), ids(N)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    fringe = (np.hypot(x, y) < 0.28) & (y < -0.08)
    cut[fringe] = HAIR
    pixels = painted(cut)
    brow, shade = (y > -0.065) & (y < -0.04) & (np.abs(x) < 0.26), (y > -0.08) & (y < -0.03) & (cut == SKIN)
    cut[brow] = whole[brow] = BROWS
    pixels[shade] = (120, 80, 60)
    framed = FramedPhoto(pixels, one_hot(cut), 0.0)
    other = FramedPhoto(painted(whole), one_hot(whole), 0.0)
    model = painted(ids(S))
    model[cv2.resize(fringe.astype(np.uint8), (S, S), interpolation=cv2.INTER_NEAREST) > 0] = (90, 50, 40)
    before, after = look(cut[::2, ::2]), Look(model, one_hot(whole[::2, ::2]))
    made = transfer(framed, before, after, Plan((HAIR,), (HAIR,)), [Lent(other, (HAIR,))])
    return apply(pixels, made, WHOLE)[0], fringe


def test_skin_behind_hair_is_the_photos_without_the_shade_of_brows_and_whatever_the_models_is():
    result, fringe = bared_forehead()
    forehead = cv2.erode(fringe.astype(np.uint8), np.ones((7, 7))).astype(bool)
    assert np.abs(result[forehead].astype(int) - COLOURS[SKIN]).mean() < 12


@pytest.mark.parametrize(("glasses", "middle"), [(0.0, 20.0), (1.0, 0.0)])
def test_skin_that_is_drawn_meets_the_skin_beside_it_and_behind_glasses_all_the_way(glasses, middle):
    framed = FramedPhoto(painted(np.full((N, N), SKIN, np.uint8)), one_hot(np.full((N, N), SKIN)), 0.0)
    alpha = np.zeros((N, N), np.float32)
    alpha[24:104, 24:104] = 1.0
    skin = cv2.resize(alpha, (S, S), interpolation=cv2.INTER_AREA)
    met_by = met(framed, framed.lab, framed.lab + np.array([20, 0, 0], np.float32), alpha, skin, glasses * skin)
    off = met_by[..., 0] - framed.lab[..., 0]
    assert off[26, 30:98].max() < 6
    assert off[64, 64] == pytest.approx(middle, abs=1.0)


def wearer(size: int, lens: tuple[int, int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A face with two eyes behind round glasses, as pixels and as part ids; with lenses of a colour if there is one."""
    part_ids = ids(size, mouth=(0.0, 0.0))
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    pixels = painted(part_ids)
    for middle in (-0.12, 0.12):
        far = np.hypot(x - middle, y + 0.02)
        eye = (np.abs(x - middle) < 0.035) & (np.abs(y + 0.02) < 0.02)
        part_ids[(far < 0.1) & ~eye] = GLASSES
        part_ids[eye] = EYES
        pixels[eye] = (60, 90, 60)
        if lens is not None:
            pixels[far < 0.1] = lens
            part_ids[eye] = GLASSES
        pixels[(far < 0.1) & (far > 0.08)] = (20, 20, 20)
    return pixels, part_ids


EYES = FACE_PARTS.index("eyes")


def bared(pixels: np.ndarray, worn: np.ndarray) -> np.ndarray:
    """The photo after the model has taken its glasses off, behind which it shows blue eyes."""
    framed = FramedPhoto(pixels, one_hot(worn), 0.0)
    _, model = wearer(S)
    bare = np.where(model == GLASSES, SKIN, model)
    colours = {EYES: (60, 60, 120), GLASSES: (40, 40, 40)}
    made = transfer(framed, look(model, colours), look(bare, colours), Plan((GLASSES,), (GLASSES,)))
    return apply(pixels, made, WHOLE)[0]


@pytest.mark.parametrize("lens", [None, (30, 25, 25)])
def test_glasses_that_are_taken_off_leave_the_eyes_behind_clear_lenses(lens):
    pixels, worn = wearer(N, lens)
    result = bared(pixels, worn)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    for middle in (-0.12, 0.12):
        far = np.hypot(x - middle, y + 0.02)
        frame = (far < 0.1) & (far > 0.08)
        assert np.abs(result[frame].astype(int) - COLOURS[SKIN]).mean() < 12
        eye = (np.abs(x - middle) < 0.03) & (np.abs(y + 0.02) < 0.015)
        if lens is None:
            assert np.array_equal(result[eye], pixels[eye])
        else:
            assert result[eye][:, 2].mean() > result[eye][:, 1].mean() + 20, "the model's, behind what was dark"


@pytest.mark.parametrize(("tint", "most"), [(0, 6), (-25, 13)])
def test_skin_where_glasses_were_meets_the_skin_around_it_and_behind_their_lenses(tint, most):
    pixels, worn = wearer(N)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    far = np.minimum(np.hypot(x - 0.12, y + 0.02), np.hypot(x + 0.12, y + 0.02))
    shaded = pixels * (1.0 - 0.9 * np.abs(x)[..., None])  # light from the front
    shaded[far < 0.08] += tint
    result = bared(shaded.clip(0, 255).astype(np.uint8), worn).mean(axis=2)
    across = (far > 0.07) & (far < 0.115) & (np.abs(y + 0.02) < 0.06) & (np.hypot(x, y) < 0.25)
    assert np.abs(np.diff(result, axis=1))[across[:, 1:]].max() < most, "no line is left of a rim"


def test_where_glasses_stood_out_beside_the_face_is_what_is_behind_it():
    pixels, worn = wearer(N)
    pixels[worn == HAIR], worn[worn == HAIR] = COLOURS[0], 0
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    lens = np.hypot(x - 0.26, y + 0.02)
    worn[lens < 0.1] = GLASSES
    pixels[(lens < 0.1) & (lens > 0.08)] = (20, 20, 20)
    result = bared(pixels, worn).astype(int)
    far, near = np.hypot(x, y), (lens < 0.12)
    beside, within = near & (far > 0.3), near & (far < 0.26) & (x > 0.23)
    assert np.abs(result[beside] - COLOURS[0]).mean() < 12
    assert np.abs(result[within] - COLOURS[SKIN]).mean() < 12


def test_temples_that_no_mask_holds_go_and_hair_that_looks_alike_stays():
    pixels, worn = wearer(N)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    line = np.abs(y + 0.03) < 0.012
    temple, strand = line & (x > 0.215) & (x < 0.265), line & (x < -0.215) & (x > -0.265)
    pixels[temple | strand] = (20, 20, 20)
    worn[strand] = HAIR
    result = bared(pixels, worn).astype(int)
    assert np.abs(result[temple] - COLOURS[SKIN]).mean() < 20
    far = np.hypot(x + 0.12, y + 0.02)
    assert result[strand & (far > 0.125)].mean() < 40
    assert result[strand & (far > 0.105) & (far < 0.113)].mean() < 80, "close to them as well"


def test_eyes_in_the_dark_half_of_a_lens_are_drawn_by_the_model():
    pixels, worn = wearer(N)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    for middle in (-0.12, 0.12):
        inside = (np.hypot(x - middle, y + 0.02) < 0.08) & (y < 0.02)  # below it is clear
        pixels[inside] = (25, 20, 20)
    result = bared(pixels, worn)
    eye = (np.abs(x - 0.12) < 0.03) & (np.abs(y + 0.02) < 0.015)
    assert result[eye][:, 2].mean() > result[eye][:, 1].mean() + 20


def test_glasses_that_stay_are_not_painted_over():
    pixels, worn = wearer(N)
    framed = FramedPhoto(pixels, one_hot(worn), 0.0)
    _, model = wearer(S)
    before, after = look(model, {GLASSES: (40, 40, 40)}), look(model, {GLASSES: (90, 40, 40)})
    result, _ = apply(pixels, transfer(framed, before, after, Plan((GLASSES,), (GLASSES,))), WHOLE)
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    far = np.hypot(x - 0.12, y + 0.02)
    assert result[(far < 0.095) & (far > 0.085)].mean() < 80


def test_glasses_of_another_photo_take_the_place_of_the_photos_and_shade_nothing():
    worn_pixels, worn = wearer(N)
    lent_ids, lent_pixels = ids(N, mouth=(0.0, 0.0)), painted(ids(N, mouth=(0.0, 0.0)))
    lent_ids[44:64, 26:102] = GLASSES
    lent_pixels[44:47, 26:102] = lent_pixels[61:64, 26:102] = (200, 30, 30)
    other = FramedPhoto(lent_pixels, one_hot(lent_ids), 0.0)
    framed = FramedPhoto(worn_pixels, one_hot(worn), 0.0)
    _, model = wearer(S)
    dark = look(model, {GLASSES: (40, 40, 40), SKIN: (120, 90, 70), EYES: (0, 0, 0)})
    before = look(model, {GLASSES: (150, 120, 100)})
    lent = [Lent(other, (GLASSES,))]
    result, _ = apply(worn_pixels, transfer(framed, before, dark, Plan((GLASSES,), (GLASSES,)), lent), WHOLE)
    assert result[45, 40:90, 0].mean() > result[45, 40:90, 1].mean() + 80, "the other frame"
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    far = np.hypot(x - 0.12, y + 0.02)
    below = (far < 0.095) & (far > 0.085) & (np.mgrid[:N, :N][0] > 66)
    assert below.any() and result[below].mean() > 140, "none of the photo's own"
    eye = (np.abs(x - 0.12) < 0.03) & (np.abs(y + 0.02) < 0.015)
    assert np.abs(result[eye].astype(int) - worn_pixels[eye]).mean() < 45, "seen through the other's lens"
    lens = (far < 0.06) & (np.mgrid[:N, :N][0] > 66)
    assert np.abs(result[lens].astype(int) - COLOURS[SKIN]).mean() < 12, "and their tint goes with them"


def test_the_shade_of_the_models_glasses_does_not_show_behind_those_of_another_photo():
    lent_ids, lent_pixels = ids(N, mouth=(0.0, 0.0)), painted(ids(N, mouth=(0.0, 0.0)))
    lent_ids[44:80, 26:102] = GLASSES
    lent_pixels[44:47, 26:102] = lent_pixels[77:80, 26:102] = (200, 30, 30)
    other = FramedPhoto(lent_pixels, one_hot(lent_ids), 0.0)
    pixels = painted(ids(N, mouth=(0.0, 0.0)))
    framed = FramedPhoto(pixels, one_hot(ids(N, mouth=(0.0, 0.0))), 0.0)
    before = look(ids(S, mouth=(0.0, 0.0)))
    worn = ids(S, mouth=(0.0, 0.0))
    worn[22:40, 13:51] = GLASSES
    through = 0.5 * one_hot(worn) + 0.5 * before.parts  # half of what a lens shows is skin
    after = Look(painted(worn, {GLASSES: (90, 60, 50)}), through.astype(np.float32))
    made = transfer(framed, before, after, Plan((GLASSES,), (GLASSES,)), [Lent(other, (GLASSES,))])
    result, _ = apply(pixels, made, WHOLE)
    assert np.abs(result[52:72, 40:88].astype(int) - pixels[52:72, 40:88]).mean() < 3


def _lent_glasses(pixels: np.ndarray, part_ids: np.ndarray, colours: dict[int, tuple[int, int, int]]) -> np.ndarray:
    """A photo of a face with a part map, in the red frames of a bald one that stand out beside the face."""
    lent_ids = ids(N, mouth=(0.0, 0.0), hair=0.0)
    lent_pixels = painted(lent_ids, colours)
    lent_pixels[48:51, 14:114] = lent_pixels[64:67, 30:98] = (200, 30, 30)
    lent_ids[48:67, 14:114] = GLASSES
    framed, other = (
        FramedPhoto(image, one_hot(found), 0.0) for image, found in ((pixels, part_ids), (lent_pixels, lent_ids))
    )
    before, worn = look(part_ids[::2, ::2]), part_ids[::2, ::2].copy()
    worn[24:33, 7:57] = GLASSES
    after = look(worn, {GLASSES: (120, 60, 60)})
    result, _ = apply(
        pixels, transfer(framed, before, after, Plan((GLASSES,), (GLASSES,)), [Lent(other, (GLASSES,))]), WHOLE
    )
    return result


def test_what_is_behind_the_other_beside_its_face_does_not_come_along_with_glasses():
    bald = ids(N, mouth=(0.0, 0.0), hair=0.0)
    pixels = painted(bald, {0: (230, 220, 210)})
    result = _lent_glasses(pixels, bald, {0: (60, 140, 150)})
    assert result[49, 50:80, 0].mean() > result[49, 50:80, 1].mean() + 80, "the frame"
    for beside in (np.s_[55:62, 16:24], np.s_[55:62, 104:112]):
        assert np.abs(result[beside].astype(int) - pixels[beside]).max() < 25


def test_glasses_come_onto_a_face_of_whose_eyes_one_column_is_seen():
    part_ids = ids(N, mouth=(0.0, 0.0), hair=0.0)
    part_ids[54:58, 60] = EYES
    result = _lent_glasses(painted(part_ids, {EYES: (60, 60, 120)}), part_ids, {})
    assert (result[49, 20:110, 0].astype(int) - result[49, 20:110, 1]).min() > 80


def test_hair_beside_the_eyes_lies_over_temples():
    part_ids = ids(N, mouth=(0.0, 0.0))
    part_ids[54:58, 44:52] = part_ids[54:58, 76:84] = EYES
    pixels = painted(part_ids, {EYES: (60, 60, 120)})
    result = _lent_glasses(pixels, part_ids, {})
    assert result[49, 50:80, 0].mean() > result[49, 50:80, 1].mean() + 80, "the frame"
    for temple in (np.s_[48:51, 17:24], np.s_[48:51, 104:111]):
        assert np.abs(result[temple].astype(int) - COLOURS[HAIR]).max() < 25


def test_hair_that_the_picture_cuts_off_recedes_from_its_border():
    def locks(size: int, to: float) -> np.ndarray:
        found = ids(size)
        y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
        found[(x > 0.25) & (y < to) & (found != SKIN)] = HAIR  # as far as the right border
        return found

    framed = FramedPhoto(painted(locks(N, 0.6)), one_hot(locks(N, 0.6)), 0.0)
    window = np.ones((N, N), np.float32)
    before, after = (look(locks(S, to)).at(N) for to in (0.6, 0.2))
    found = regrown(framed, before, after, window, HAIR)
    assert found is not None
    y, x = (np.mgrid[:N, :N] + 0.5) / N - 0.5
    assert found.shrunk[(x > 0.3) & (y > 0.25)].mean() > 0.6
    assert found.shrunk[(x > 0.3) & (y < 0.1)].max() < 0.1
    kept = regrown(framed, before, before, window, HAIR)
    assert kept is not None and kept.shrunk.max() < 0.1


def test_hair_of_a_head_that_turns_moves_as_a_whole_also_where_its_strands_match_nothing():
    rng = np.random.default_rng(2)
    before, after = look(ids(S).repeat(4, 0).repeat(4, 1)), look(np.roll(ids(S), 2, 1).repeat(4, 0).repeat(4, 1))
    for one in (before, after):  # the model draws other strands with every pose
        noise = cv2.GaussianBlur(rng.normal(0, 90, (*one.image.shape[:2], 1)).astype(np.float32), (0, 0), 2)
        hair = one.parts[..., HAIR] > 0
        one.image[hair] = np.clip(one.image[hair] + noise[hair][:, None], 0, 255)
    shift, _ = motion(before, after, FACE_PARTS.names, [k for k in range(PARTS) if FACE_PARTS.names[k] != "background"])
    within = cv2.erode((after.parts[..., HAIR] > 0).astype(np.uint8), np.ones((21, 21), np.uint8)).astype(bool)
    across = shift[..., 0][within] * S
    assert across.mean() == pytest.approx(-2, abs=0.8)
    assert across.std() < 0.6
    jumps = np.abs(np.diff(shift[..., 0] * 4 * S, axis=0))[within[1:] & within[:-1]]
    assert jumps.max() < 0.3, "a strand that is bent from one pixel to the next"
    other, _ = motion(before, after, FACE_PARTS.names, [HAIR, SKIN, MOUTH])
    assert not np.allclose(other[within], shift[within]), "other hair and another chin are no turn"


def test_hair_does_not_grow_over_a_face_farther_than_the_models():
    def head(size: int, face: float) -> np.ndarray:
        y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
        found = np.where((np.hypot(x, y) < 0.4) & (y < 0.1), HAIR, 0).astype(np.uint8)
        found[np.hypot(x, y) < face] = SKIN
        return found

    framed = FramedPhoto(painted(head(256, 0.24)), one_hot(head(256, 0.24)), 0.0)
    before, after = look(head(256, 0.28)), look(head(256, 0.25))
    found = regrown(framed, before, after, np.ones((256, 256), np.float32), HAIR)
    assert found is not None
    y, x = (np.mgrid[:256, :256] + 0.5) / 256 - 0.5
    assert found.grown[(np.hypot(x, y) < 0.225) & (y < 0.0)].max() < 0.1


def test_dark_skin_that_gets_darker_stays_brown():
    part_ids = ids(N)
    pixels = painted(part_ids, {SKIN: (70, 45, 32)})
    framed = FramedPhoto(pixels, one_hot(part_ids), 0.0)
    after = look(ids(S), {SKIN: (185, 150, 165)})  # a beard's shade on pale skin is blue
    result, _ = apply(pixels, transfer(framed, look(ids(S)), after, Plan((SKIN,), ())), WHOLE)
    skin = cv2.erode((part_ids == SKIN).astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert (to_lab(result)[skin][:, 1:].mean(axis=0) > 0.3 * to_lab(pixels)[skin][:, 1:].mean(axis=0)).all()


def test_frames_of_a_head_that_turns_are_stiff():
    def worn(size: int) -> np.ndarray:
        found = ids(size)
        y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
        found[(np.abs(np.hypot(np.abs(x) - 0.11, y + 0.02) - 0.08) < 0.015)] = GLASSES
        return found

    rng = np.random.default_rng(4)
    before = look(worn(256), {GLASSES: (40, 40, 40)})
    moved = np.roll(worn(256), 6, 1)
    after = look(moved, {GLASSES: (40, 40, 40)})
    for one in (before, after):  # what lenses show differs
        noise = cv2.GaussianBlur(rng.normal(0, 250, (256, 256, 1)).astype(np.float32), (0, 0), 3)
        near = cv2.dilate((one.parts[..., GLASSES] > 0).astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
        one.image[near] = np.clip(one.image[near] + noise[near][:, None], 0, 255)
    parts = [k for k in range(PARTS) if FACE_PARTS.names[k] != "background"]
    shift, _ = motion(before, after, FACE_PARTS.names, parts)
    frames = shift[moved == GLASSES] * 256
    assert frames[:, 0].mean() == pytest.approx(-6, abs=1.5)
    assert frames.std(axis=0).max() < 0.27
