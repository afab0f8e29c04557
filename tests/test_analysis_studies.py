"""The arithmetic of the studies against hand-computed cases: cosine matrices, locality, plausibility, controller."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from memorygan.analysis.controller_study import resample_given_others
from memorygan.analysis.lab import Lab, Settings
from memorygan.analysis.latent_space import cosine_matrices, tsne
from memorygan.analysis.locality import measure_change, part_region, summarise, swap_part
from memorygan.analysis.plausibility import Plausibility, paired_difference
from memorygan.analysis.rarity import rarely_drawn, rarity_note, unrecognised
from memorygan.analysis.readings import Reader
from memorygan.analysis.reconstruction import part_errors
from memorygan.analysis.unfinished import Unfinished
from memorygan.checkpoint import Provenance, save_generator
from memorygan.config import get_preset
from memorygan.controller import QueryCodes
from memorygan.generator import MemoryGAN, Synthesis
from memorygan.latents import Latents
from memorygan.parts import FACE_PARTS
from memorygan.training.sheets import depth_picture

# --- Cosine matrices --------------------------------------------------------------------------------------------------


def test_cosine_matrices_of_two_faces_with_three_slots():
    codes = torch.tensor(
        [
            [[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]],
            [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]],
        ]
    )
    mean, std = cosine_matrices(codes)

    # Face 1: 0 between slots 0 and 1, 1 between 0 and 2, 0 between 1 and 2; face 2: 1, −1, −1.
    expected = [[1.0, 0.5, 0.0], [0.5, 1.0, -0.5], [0.0, -0.5, 1.0]]
    np.testing.assert_allclose(mean, expected, atol=1e-12)
    np.testing.assert_allclose(std, [[0.0, 0.5, 1.0], [0.5, 0.0, 0.5], [1.0, 0.5, 0.0]], atol=1e-12)


def test_cosine_matrices_do_not_depend_on_the_blocks_they_are_summed_in():
    codes = torch.randn(1100, 3, 4)
    unit = torch.nn.functional.normalize(codes.double(), dim=-1)
    every = unit @ unit.transpose(1, 2)
    mean, std = cosine_matrices(codes)
    torch.testing.assert_close(mean, every.mean(dim=0))
    torch.testing.assert_close(std, every.std(dim=0, unbiased=False), atol=1e-7, rtol=1e-6)


def test_tsne_keeps_two_clusters_apart_and_repeats_itself():
    clusters = np.random.default_rng(0).normal(size=(40, 8)) + np.repeat([[0.0], [50.0]], 20, axis=0)
    points = tsne(clusters, seed=3)
    assert points.shape == (40, 2)
    between = np.linalg.norm(points[:20].mean(axis=0) - points[20:].mean(axis=0))
    assert between > 2 * np.linalg.norm(points[:20] - points[:20].mean(axis=0), axis=1).mean()
    np.testing.assert_array_equal(points, tsne(clusters, seed=3))


# --- Locality ---------------------------------------------------------------------------------------------------------


def test_change_of_a_synthetic_edit_inside_and_outside():
    before = torch.full((1, 3, 2, 4), -1.0)
    after = before.clone()
    after[0, :, 0, 0] += 30 / 127.5  # inside: all channels by 30
    after[0, 0, 1, 3] += 9 / 127.5  # outside: one channel by 9
    inside = torch.zeros(1, 2, 4, dtype=torch.bool)
    inside[0, 0, :2] = True

    change = measure_change(before, after, inside)

    assert float(change.inside) == pytest.approx(30 / 2)
    assert float(change.outside) == pytest.approx(9 / 3 / 6)
    assert float(change.preserved) == pytest.approx(5 / 6)
    assert float(change.area) == pytest.approx(2 / 8)
    assert change.map.shape == (1, 2, 4)


def test_change_is_that_of_the_picture_a_person_sees():
    before, after = torch.full((1, 3, 1, 2), 1.0), torch.full((1, 3, 1, 2), 7.0)
    assert float(measure_change(before, after, torch.tensor([[[True, False]]])).inside) == 0.0
    nearly = before - 0.4 / 127.5  # rounds to the same byte
    assert float(measure_change(before, nearly, torch.tensor([[[True, False]]])).outside) == 0.0


def test_an_empty_region_has_no_change_inside():
    change = measure_change(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool))
    assert math.isnan(float(change.inside))
    assert float(change.outside) == pytest.approx(255 - 128)
    with pytest.raises(ValueError, match="do not fit"):
        measure_change(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2), torch.zeros(1, 4, 4, dtype=torch.bool))


def test_swaps_that_do_not_show_the_part_count_outside_only():
    nan = math.nan
    inside, outside = np.array([10.0, nan]), np.array([2.0, 4.0])
    preserved, area = np.array([0.5, 1.0]), np.array([0.2, 0.0])

    summary = summarise(inside, outside, preserved, area)

    assert (summary.inside, summary.outside, summary.preserved) == (10.0, 3.0, 0.75)
    assert (summary.edits, summary.shown) == (2, 1)
    assert summary.area == pytest.approx(0.1)
    assert summary.cells() == ("10", "3", "75.0 %")
    absent = summarise(inside[1:], outside[1:], preserved[1:], area[1:])
    assert math.isnan(absent.inside) and absent.cells()[0] == "–"


def test_the_region_of_a_swap_is_where_the_part_was_or_is():
    before, after = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[0, 1, 1, 2]]])
    assert part_region(before, after, 1).tolist() == [[[True, True, True, False]]]


@pytest.fixture
def lab(tmp_path):
    torch.manual_seed(0)
    save_generator(tmp_path / "tiny.safetensors", MemoryGAN(get_preset("tiny-32").generator), provenance=Provenance())
    return Lab(Settings(tmp_path / "tiny.safetensors", out=tmp_path / "out", private=tmp_path / "private"))


@pytest.mark.parametrize("part", ["background", "hair", "eyes"])
@torch.no_grad()
def test_a_swap_that_retrieves_one_part_equals_one_that_retrieves_all(lab, part):
    face, source = lab.generator.synthesize(lab.sample([0, 1])), lab.sample([2, 3])
    retrieved = lab.generator.retrieve(face.latents)
    quick = swap_part(lab.generator, face, retrieved, source, part)
    slow = lab.generator.synthesize(face.latents.mix(source, [part]))
    torch.testing.assert_close(quick.image, slow.image, atol=1e-4, rtol=1e-4)
    assert not torch.equal(quick.image, face.image)


# --- Plausibility and the controller ----------------------------------------------------------------------------------


def test_plausibility_is_the_distance_in_standard_deviations():
    # Standard deviation 2 and 4 along the axes, mean (1, 0), both exactly.
    x = np.tile([-2.0, 2.0], 10) * np.sqrt(19 / 20) + 1
    y = np.repeat([-4.0, 4.0], 10) * np.sqrt(19 / 20)
    judge = Plausibility.fit(np.stack((x, y), axis=1), directions=2)

    scores = judge.score(np.array([[1.0, 0.0], [3.0, 0.0], [1.0, 8.0], [3.0, 8.0]]))

    np.testing.assert_allclose(scores, [0.0, np.sqrt(1 / 2), np.sqrt(4 / 2), np.sqrt(5 / 2)], atol=1e-9)


def test_real_faces_have_a_plausibility_of_about_one():
    real = np.random.default_rng(0).normal(size=(400, 6)) * [1, 2, 3, 4, 5, 6]
    judge = Plausibility.fit(real)
    assert np.square(judge.score(real)).mean() == pytest.approx(1.0, rel=0.01)
    assert judge.score(3 * real).mean() > 2


@pytest.mark.parametrize("features", [np.zeros((20, 3)), np.ones((5, 3)), np.zeros(20)])
def test_plausibility_needs_varied_real_faces(features):
    with pytest.raises(ValueError, match="real faces"):
        Plausibility.fit(features)


def test_paired_difference_and_its_standard_error():
    mean, error = paired_difference(np.array([1.0, 2.0, 6.0]), np.array([0.0, 2.0, 1.0]))
    assert mean == pytest.approx(2.0)
    # Differences 1, 0, 5: variance ((1)² + 2² + 3²) / 2 = 7, over 3 faces.
    assert error == pytest.approx(math.sqrt(7 / 3))
    assert math.isnan(paired_difference(np.array([1.0]), np.array([0.0]))[1])


class ChainController:
    """Slot 2 is N(0, 1); slot 3 is slot 2 plus N(0, 0.1²); everything else is independent."""

    def condition(self, codes):
        mean, log_variance = torch.zeros_like(codes), torch.zeros_like(codes)
        mean[:, 3] = codes[:, 2]
        log_variance[:, 3] = 2 * math.log(0.1)
        return QueryCodes(codes, mean, log_variance)

    def propose(self, codes, slot, noise):
        own = self.condition(codes)
        return own.mean[:, slot] + torch.exp(0.5 * own.log_variance[:, slot]) * noise[:, 1]


CHAIN: Any = ChainController()


def test_a_part_drawn_given_the_others_fits_what_comes_after_it():
    codes = torch.zeros(200, 5, 1)
    codes[:100, 3], codes[100:, 3] = 1.0, -0.5
    drawn = resample_given_others(CHAIN, codes, 2, torch.Generator().manual_seed(0), candidates=400)

    # Posterior of a unit Gaussian seen with noise 0.1: mean q₃ / 1.01, standard deviation about 0.1.
    assert float(drawn[:100].mean()) == pytest.approx(1.0 / 1.01, abs=0.05)
    assert float(drawn[100:].mean()) == pytest.approx(-0.5 / 1.01, abs=0.05)
    assert float(drawn[:100].std()) == pytest.approx(0.1, abs=0.04)


def test_the_last_part_is_simply_drawn_from_the_controller():
    drawn = resample_given_others(CHAIN, torch.zeros(500, 5, 1), 4, torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(0.0, abs=0.15)
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.1)


# --- Reconstruction ---------------------------------------------------------------------------------------------------


def test_errors_are_summed_where_the_part_is():
    change, ids = torch.tensor([[[1.0, 2.0], [3.0, 10.0]]]), torch.tensor([[[0, 0], [0, 2]]])
    total, pixels = part_errors(change, ids, 3)
    assert total.tolist() == [6.0, 0.0, 10.0]
    assert pixels.tolist() == [3.0, 0.0, 1.0]


# --- Parts that are hardly drawn --------------------------------------------------------------------------------------


def test_parts_without_pixels_are_named_and_so_are_those_the_parser_does_not_see():
    shares = {"skin": 0.3, "hat": 0.0, "eyeglass": 0.0004, "earring": 0.002}
    assert rarely_drawn(shares) == ["hat", "eyeglass"]
    assert unrecognised(shares, {"skin": 0.9, "hat": 0.0, "eyeglass": math.nan, "earring": 0.01}) == ["earring"]
    (note,) = rarity_note(FACE_PARTS, shares, "So what.")
    assert "Hat (0.000 %), Glasses (0.040 %). So what." in note.text
    assert rarity_note(FACE_PARTS, {"skin": 0.3}, "So what.") == ()


# --- Depth strips -----------------------------------------------------------------------------------------------------


TINY = get_preset("tiny-32").generator
NO_CODES = Latents(torch.zeros(1, TINY.part_count, TINY.local_layers, TINY.style_dim), TINY)


def still(depth: list[list[float]]) -> Synthesis:
    """A face of one part with these depths, shown at their own size."""
    depths = torch.tensor(depth)[None, None]
    return Synthesis(torch.zeros(1, 3, *depths.shape[2:]), depths, torch.ones_like(depths), depths, NO_CODES)


def test_the_steps_of_a_strip_share_one_scale_of_depth():
    finished = still([[0.0, 2.0], [4.0, 1.0]])
    early = still([[0.0, 1.0], [1.0, 9.0]])

    assert depth_picture(early, finished)[0, :, :, 0].tolist() == [[0, 64], [64, 255]]
    # On its own, a nearly empty step would fill the whole scale.
    assert depth_picture(still([[0.0, 0.01], [0.01, 0.01]]))[0].max() > 250
    assert depth_picture(still([[0.0, 0.01], [0.01, 0.01]]), finished)[0].max() <= 1


# --- Interruptions ----------------------------------------------------------------------------------------------------


def test_an_interrupted_study_goes_on_where_it_stopped(lab):
    asked: list[list[int]] = []

    def make(seeds: list[int]) -> dict[str, torch.Tensor | np.ndarray]:
        asked.append(seeds)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return {"double": 2 * torch.tensor(seeds), "batch": np.array([[len(seeds)]])}

    faces = list(range(5, 12))
    with pytest.raises(KeyboardInterrupt), lab.studying({"toy": 1}):
        lab.gather("a toy", faces, make, batch=2)
    with lab.studying({"toy": 1}):
        found = lab.gather("a toy", faces, make, batch=2)
    assert asked == [[5, 6], [7, 8], [9, 10], [9, 10], [11]]
    assert found["double"].tolist() == [10, 12, 14, 16, 18, 20, 22]
    assert found["batch"].tolist() == [[2], [2], [2], [1]]
    with lab.studying({"toy": 2}):  # depends on something else
        lab.gather("a toy", faces[:2], make, batch=2)
    assert asked[-1] == [5, 6]
    lab.forget()
    assert not list(lab.settings.private.rglob("*.npz"))


def test_broken_and_absent_arrays_are_made_again(tmp_path):
    store = Unfinished(tmp_path, ["key"])
    assert store.load("a") is None
    store.save("a", {"x": np.arange(3)})
    np.testing.assert_equal(store.load("a"), {"x": np.arange(3)})
    (store.folder / "a.npz").write_bytes(b"PK half of a file")
    assert store.load("a") is None
    assert Unfinished(tmp_path, ["other"]).folder != store.folder


def test_generated_faces_survive_an_interruption(lab, monkeypatch):
    monkeypatch.setattr(Lab, "reader", Reader(None, None))
    lab.settings = dataclasses.replace(lab.settings, batch=2)
    whole = Lab(dataclasses.replace(lab.settings, private=lab.settings.private / "other")).generated(5)
    drawn = []
    synthesize = lab.drawing.synthesize

    def interrupted(latents):
        drawn.append(len(latents.w))
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return synthesize(latents)

    monkeypatch.setattr(lab.drawing, "synthesize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.generated(5)
    again = lab.generated(5)
    assert drawn == [2, 2, 2, 1]
    torch.testing.assert_close(again[0].pixels, whole[0].pixels, rtol=0, atol=0)
