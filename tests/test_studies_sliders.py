"""The chapters on sliders and on refinement: their arithmetic by hand, and quick ways against slow ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from editing.device.loading import SLIDERS_NAME
from editing.sliders.directions import BASE, Slider, SliderSet
from editing.sliders.properties import COLOURS, properties_of
from editing.studies import refinement
from editing.studies.refinement import error_of
from editing.studies.sliders import effect_of, indices_of, moved, property_of, run, sliders_of, summary_of
from memorygan.analysis.blocks import Table
from memorygan.analysis.lab import Lab, Settings, StudyUnavailable
from memorygan.checkpoint import Provenance, save_generator
from memorygan.config import get_preset
from memorygan.generator import MemoryGAN
from memorygan.latents import Latents
from memorygan.parts import FACE_PARTS, LayerGroup

LIGHTNESS = COLOURS[0]


@pytest.fixture
def lab(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    save_generator(path, MemoryGAN(get_preset("tiny-32").generator), provenance=Provenance())
    return Lab(Settings(path, out=tmp_path / "out", private=tmp_path / "private"))


def test_effect_is_the_mean_change_from_low_to_high_where_there_is_something_to_measure():
    low, high = np.array([10.0, 20.0, math.nan, 5.0]), np.array([16.0, 19.0, 3.0, 11.0])
    effect = effect_of(LIGHTNESS, low, high)
    # +6, −1, nothing, +6.
    assert effect.mean == pytest.approx(11 / 3)
    assert effect.right == pytest.approx(2 / 3)
    assert effect.faces == 3
    nothing = effect_of(LIGHTNESS, low[2:3], high[2:3])
    assert math.isnan(nothing.mean) and nothing.faces == 0


def test_a_part_is_summed_up_over_its_sliders_both_values_and_all_faces():
    # Two faces; three sliders, each at −2 and at +2.
    found = {
        "inside": np.array([[4.0, 8.0, 1.0, 1.0, 10.0, 20.0], [math.nan, 6.0, 1.0, 1.0, 30.0, 40.0]]),
        "outside": np.array([[1.0, 2.0, 9.0, 9.0, 3.0, 4.0], [1.0, 2.0, 9.0, 9.0, 3.0, 4.0]]),
        "preserved": np.array([[1.0, 0.5, 0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0, 0.5, 1.0]]),
        "area": np.array([[0.1, 0.1, 0.3, 0.3, 0.2, 0.2], [0.0, 0.1, 0.3, 0.3, 0.2, 0.2]]),
    }
    summary = summary_of(found, [0, 2])
    assert summary.inside == pytest.approx((4 + 8 + 6 + 10 + 20 + 30 + 40) / 7)
    assert summary.outside == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert summary.preserved == pytest.approx(0.75)
    assert (summary.edits, summary.shown) == (8, 7)
    assert summary_of(found, [1]).outside == 9.0


def test_the_base_moves_everything_but_the_background():
    assert indices_of(BASE, FACE_PARTS) == list(range(1, 13))
    assert indices_of("nose", FACE_PARTS) == [FACE_PARTS.index("nose")]
    named = Slider("nose.lightness", "nose", "Lightness", LayerGroup.TEXTURE, measured="lightness")
    assert property_of(named) in properties_of("nose")
    assert property_of(Slider("nose.a", "nose", "A", LayerGroup.TEXTURE)) is None


@pytest.mark.parametrize(("part", "group"), [("hair", LayerGroup.SHAPE), (BASE, LayerGroup.BASE)])
@torch.no_grad()
def test_a_slider_that_retrieves_its_parts_equals_one_that_retrieves_all(lab, part, group):
    face = lab.generator.synthesize(lab.sample([0, 1]))
    retrieved = lab.generator.retrieve(face.latents)
    step = torch.randn(lab.config.style_dim)
    slider = Slider("x.y", part, "Y", group)
    quick = moved(lab.generator, face, retrieved, SliderSet([slider], step[None], lab.sha256), slider.id, 1.0)

    w, layers = face.latents.w.clone(), lab.config.layer_range(group)
    for k in indices_of(part, lab.parts):
        w[:, k, layers.start : layers.stop] += step
    slow = lab.generator.synthesize(Latents(w, lab.config))
    torch.testing.assert_close(quick.image, slow.image, atol=1e-4, rtol=1e-4)
    assert not torch.equal(quick.image, face.image)


def test_the_chapter_has_a_row_per_part_and_one_per_slider(lab, tmp_path):
    sliders = [
        Slider("hair.lightness", "hair", "Lightness", LayerGroup.TEXTURE, measured="lightness", unit="L*"),
        Slider("hair.a", "hair", "A", LayerGroup.SHAPE),
        Slider("nose.a", "nose", "A", LayerGroup.SHAPE),
    ]
    path = tmp_path / SLIDERS_NAME
    SliderSet(sliders, torch.randn(3, lab.config.style_dim), lab.sha256).save(path)
    piece = run(lab, 2)
    parts, every = (block for block in piece.blocks if isinstance(block, Table))
    assert [row[:2] for row in parts.rows] == [("Hair", "2"), ("Nose", "1")]
    assert [row[:2] for row in every.rows] == [("Hair", "Lightness"), ("Hair", "A"), ("Nose", "A")]
    assert [row[-1] for row in every.rows][1:] == ["–", "–"]
    assert (lab.settings.out / "sliders.webp").is_file()
    assert {"sliders_hair_outside", "slider_hair.lightness_effect"} <= set(piece.numbers)

    SliderSet(sliders, torch.randn(3, lab.config.style_dim), "of another").save(path)
    with pytest.raises(StudyUnavailable, match="another checkpoint"):
        sliders_of(lab)
    path.unlink()
    with pytest.raises(StudyUnavailable, match=r"sliders\.fit"):
        run(lab, 2)


def test_the_error_of_a_reconstruction_is_the_mean_absolute_difference():
    first = np.zeros((1, 2, 3), dtype=np.uint8)
    second = np.array([[[0, 3, 6], [255, 0, 0]]], dtype=np.uint8)
    assert error_of(first, second) == pytest.approx((3 + 6 + 255) / 6)


def test_the_chapter_on_refinement_is_about_a_hundred_steps():
    assert refinement.STEPS == 100
    assert "100 refinement steps" in refinement.BAR
    assert refinement.ERROR_BAR == 6.5
