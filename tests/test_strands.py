"""Strands of hair: which way they run, where they come from, and the lines that are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from heads import HAIR, N, ids, look, one_hot, painted, photo  # type: ignore[import-not-found]

from editing.photo.transfer.looks import FramedPhoto
from editing.photo.transfer.planes import fitted
from editing.photo.transfer.strands import combed, falling, frayed, hanging, lines, ways
from editing.photo.transfer.transfer import Plan, transfer
from memorygan.parts import FACE_PARTS

SIDE = 64
EVERYWHERE = np.ones((SIDE, 1), np.float32)


def leaning(slant: float, side: int = SIDE) -> np.ndarray:
    """(side, side, 2) lines that go ``slant`` to the right for one down."""
    way = np.array([slant, 1.0], np.float32) / np.hypot(slant, 1.0)
    return np.broadcast_to(way, (side, side, 2)).astype(np.float32)


@pytest.mark.parametrize("slant", [-1.0, 0.0, 0.5])
def test_the_way_is_along_the_strands_that_are_there(slant):
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    light = 50.0 + 10.0 * np.sin(1.3 * (x - slant * y))
    way = ways(light, np.ones((SIDE, SIDE), np.float32), np.full((SIDE, SIDE), 99.0, np.float32))
    found = way[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4].reshape(-1, 2)
    assert np.abs(found[:, 0] / found[:, 1] - slant).max() < 0.15


def test_where_nothing_is_known_hair_hangs_down_and_beside_a_slanting_side_it_follows_it():
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    nothing = np.zeros((SIDE, SIDE), np.float32)
    assert ways(nothing, nothing, nothing - 99.0)[..., 1].min() > 0.99
    reach = (SIDE / 2 - x + 0.5 * y) / np.hypot(1.0, 0.5)  # inside on the left of a line that goes right
    way = ways(nothing, nothing, reach.astype(np.float32))
    border = np.abs(reach) < 1
    assert np.median((way[..., 0] / way[..., 1])[border]) == pytest.approx(0.5, abs=0.12)
    # An end, whose border runs across, tells nothing.
    assert ways(nothing, nothing, SIDE / 2 - y)[..., 1].min() > 0.99


@pytest.mark.parametrize("slant", [0.0, 1.0])
def test_lines_run_along_the_way(slant):
    drawn = combed(leaning(slant, 256), np.ones((256, 1), np.float32))
    down, right = 10, round(10 * slant)

    def alike(plane: np.ndarray, down: int, right: int) -> float:
        shifted = np.roll(plane, (-down, -right), (0, 1))
        return float(np.corrcoef(plane[64:-64, 64:-64].ravel(), shifted[64:-64, 64:-64].ravel())[0, 1])

    for plane in np.moveaxis(drawn, 2, 0):
        assert alike(plane, down, right) > 0.6
    assert abs(alike(drawn[..., 0], -right, down)) < 0.2
    assert drawn.std(axis=(0, 1)) == pytest.approx(1.0, abs=0.02)


def test_a_preview_shows_the_strands_that_the_released_slider_will():
    small, large = combed(leaning(0.3, 128), np.ones((128, 1))), combed(leaning(0.3, 256), np.ones((256, 1)))
    for k in (1, 2):  # single hairs are too fine for a preview
        assert np.corrcoef(small[32:, :, k].ravel(), fitted(large, (128, 128))[32:, :, k].ravel())[0, 1] > 0.8


def test_above_where_hair_hangs_nothing_is_drawn():
    low = np.zeros((SIDE, 1), np.float32)
    low[20:] = 1.0
    drawn = combed(leaning(0.0), low)
    assert not drawn[:20].any()
    assert drawn[20:].any(axis=(1, 2)).all()


def test_strands_come_from_hair_and_not_out_of_the_air():
    own, wanted = np.zeros((2, SIDE, SIDE), np.float32)
    own[:20, 10:30] = 1.0
    wanted[:20, 10:30] = wanted[20:50, 10:30] = 1.0  # below the hair
    wanted[20:50, 40:56] = 1.0  # beside it
    found, roots = falling(leaning(0.0), own, wanted)
    assert found[24:48, 14:26].min() > 0.9
    assert found[28:44, 44:52].max() < 0.1
    assert np.abs(roots[40, 14:26, 1] + 20).max() < 6, "the hair above"
    assert not roots[:16, 14:26].any()


def test_ends_differ_from_strand_to_strand_and_sides_do_not():
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    way = leaning(0.0)
    strands = combed(way, EVERYWHERE)
    ends, sides = (frayed(strands, way, reach.astype(np.float32)) for reach in (40.0 - y, 40.0 - x))
    assert ends[40].std() > 2.0
    assert sides.std() < 0.25 * ends.std()


def test_drawn_lines_are_as_strong_and_as_rarely_bright_as_the_hair_that_is_there():
    random = np.random.default_rng(0)
    light = np.full((SIDE, SIDE), 20.0, np.float32)
    light += np.where(random.random((SIDE, SIDE)) < 0.1, 30.0, 0.0)  # black hair that shines here and there
    known = np.zeros((SIDE, SIDE), bool)
    known[:, : SIDE // 2] = True
    drawn = lines(light, known, ~known, combed(leaning(0.0), EVERYWHERE))
    assert not drawn[known].any()
    drawn = drawn[~known]
    assert drawn.std() == pytest.approx(light[known].std(), rel=0.25)
    assert np.percentile(drawn, 99) > 2.5 * abs(np.percentile(drawn, 1))


def test_hair_hangs_from_above_the_eyes_on():
    part_ids = np.zeros((N, N), np.uint8)
    part_ids[60:64, 40:50] = FACE_PARTS.index("eyes")
    framed = FramedPhoto(painted(part_ids), one_hot(part_ids), 0.0)
    low = hanging(framed, N)
    assert low.shape == (N, 1)
    assert not low[:35].any()
    assert (low[64:] == 1).all()
    assert (np.diff(low[:, 0]) >= 0).all()


def longer() -> tuple[FramedPhoto, np.ndarray]:
    """A photo of a head whose hair grows downwards in the model's picture, and its part map after that."""
    framed = photo(256)[1]
    before, after = ids(128), ids(128)
    y, x = (np.mgrid[:128, :128] + 0.5) / 128 - 0.5
    after[(np.abs(x) > 0.28) & (np.abs(x) < 0.4) & (y > -0.1) & (y < 0.35)] = HAIR
    fields = transfer(framed, look(before), look(after), Plan((), (HAIR,)), side=128)
    assert fields.part_map is not None
    return framed, fields.part_map


def test_longer_hair_hangs_below_the_photos_and_ends_unevenly():
    framed, part_map = longer()
    grown = (part_map == HAIR) & (framed.part_map != HAIR)
    for side in (grown[:, :128], grown[:, 128:]):
        columns = np.flatnonzero(side[170:].sum(axis=0) > 5)[4:-4]  # within the lock
        assert len(columns) > 15
        assert np.std([np.flatnonzero(side[:, column]).max() for column in columns]) > 1.5


def test_hair_that_hangs_has_the_colour_of_what_it_grows_from():
    part_ids = ids(256)
    pixels = painted(part_ids)
    pixels[:, 128:][part_ids[:, 128:] == HAIR] = (170, 130, 90)
    framed = FramedPhoto.of(pixels, one_hot(part_ids), 256)
    after = ids(128)
    y, x = (np.mgrid[:128, :128] + 0.5) / 128 - 0.5
    after[(np.abs(x) > 0.28) & (np.abs(x) < 0.4) & (y > -0.1) & (y < 0.35)] = HAIR
    made = transfer(framed, look(ids(128)), look(after), Plan((), (HAIR,)), side=128)
    left, right = (made.drawn[165:195, columns, 0] for columns in (slice(34, 50), slice(206, 222)))
    assert right.mean() - left.mean() > 22, "30 between the two halves, and nothing between those of the model"


def test_no_hair_comes_out_of_the_air_beside_the_head():
    framed = photo(256)[1]
    after = ids(128)
    y, x = (np.mgrid[:128, :128] + 0.5) / 128 - 0.5
    after[(np.abs(x) > 0.38) & (np.abs(x) < 0.47) & (y > 0.0) & (y < 0.35)] = HAIR
    made = transfer(framed, look(ids(128)), look(after), Plan((), (HAIR,)), side=128)
    y, x = (np.mgrid[:256, :256] + 0.5) / 256 - 0.5
    assert made.alpha[(np.abs(x) > 0.44) & (np.abs(x) < 0.46) & (y > 0.04) & (y < 0.12)].mean() < 0.3


def test_hair_that_grows_is_lined_as_the_photos():
    part_ids = ids(256)
    pixels = painted(part_ids).astype(int)
    pixels += np.random.default_rng(0).normal(0, 12, (1, 256, 1)).astype(int)  # upright strands
    framed = FramedPhoto.of(np.clip(pixels, 0, 255).astype(np.uint8), one_hot(part_ids), 256)
    after = ids(128)
    y, x = (np.mgrid[:128, :128] + 0.5) / 128 - 0.5
    after[(np.abs(x) > 0.28) & (np.abs(x) < 0.4) & (y > -0.1) & (y < 0.35)] = HAIR
    made = transfer(framed, look(ids(128)), look(after), Plan((), (HAIR,)), side=128)
    light = made.drawn[165:195, 32:52, 0]
    assert made.alpha[165:195, 32:52].min() > 0.9
    assert light.std() > 2.0
    assert np.abs(np.diff(light, axis=0)).mean() < 0.5 * np.abs(np.diff(light, axis=1)).mean()
