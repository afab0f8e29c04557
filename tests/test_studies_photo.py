"""The study of edits in photos: what its figures say of pictures made by hand, and one photo of the toy generator."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image
from toy import toy_service  # type: ignore[import-not-found]

from editing.studies import photo as study_module
from editing.studies import photo_chapter as chapter
from editing.studies.photo import (
    Measured,
    around,
    coloured,
    movement,
    of_model,
    of_model_error,
    property_of,
    rows,
    scene_of,
    seam,
    sharpness,
    study,
)
from memorygan.analysis.blocks import Table
from memorygan.analysis.lab import Lab, Settings, StudyUnavailable
from memorygan.analysis.study import run_study
from memorygan.manifest import default_checkpoint
from memorygan.parser import FaceParser, ParserConfig
from memorygan.parts import FACE_PARTS


def test_sharpness_and_seams_are_measured_against_the_photo():
    photo = np.random.default_rng(0).integers(100, 140, (64, 64, 3), dtype=np.uint8)
    changed = np.zeros((64, 64), bool)
    changed[16:48, 16:48] = True
    assert sharpness(photo, photo, changed) == seam(photo, photo, changed) == 1.0
    flat = photo.copy()
    flat[changed] = 120
    assert sharpness(photo, flat, changed) < 0.1
    patch = photo.copy()
    patch[changed] += 60
    assert seam(photo, patch, changed) > 1.3
    assert sharpness(photo, patch, changed) == pytest.approx(1.0, abs=0.01)
    nothing = np.zeros((64, 64), bool)
    assert sharpness(photo, flat, nothing) == seam(photo, flat, nothing) == 1.0


def test_a_photo_is_measured_like_a_generated_face():
    shares = np.zeros((32, 32, len(FACE_PARTS)), np.float32)
    shares[..., 0] = 1.0
    scene = scene_of(np.full((64, 64, 3), 51, np.uint8), shares)
    assert scene.rgb.shape == (1, 3, 32 * 32)
    assert float(scene.rgb.mean()) == pytest.approx(0.2)
    assert scene.weight.shape == (1, len(FACE_PARTS), 32 * 32)


def test_every_edit_the_model_has_a_slider_for_is_studied(monkeypatch):
    parser = FaceParser(ParserConfig(32, (4, 8))).eval().requires_grad_(False)
    monkeypatch.setattr(study_module, "_STEPS", 1)
    with toy_service(detector=lambda pixels: []) as service:
        sliders = {slider.id for slider in service.sliders()}
        found = study(service, parser, Image.fromarray(service.new_face(3).image), lambda before, after: 0.9)
        assert service.health()["photos"] == 0
    assert set(found) == {name for name, values in study_module.EDITS.items() if set(values) <= sliders}
    assert all(one.identical == 1.0 and one.identity == 0.9 for one in found.values())
    lines = rows([found, {}])
    assert [line[0] for line in lines] == list(found)
    assert all(line[1] == "100.0%" and line[2] == "0.900" for line in lines)


def test_the_colour_of_lips_is_measured_without_teeth():
    mouth = FACE_PARTS.index("mouth")
    pixels = np.full((32, 32, 3), (170, 60, 60), np.uint8)
    pixels[12:16] = (235, 230, 215)
    shares = np.zeros((32, 32, len(FACE_PARTS)), np.float32)
    shares[8:24, :, mouth] = 1.0
    (lips,) = coloured("mouth", [pixels], [shares])
    assert lips[12:16, :, mouth].max() < 0.05 and lips[16:24, :, mouth].min() > 0.95
    assert shares[12:16, :, mouth].min() == 1.0, "the shares of other edits stay"
    (hair,) = coloured("hair", [pixels], [shares])
    assert np.array_equal(hair, shares)


def test_movement_is_measured_by_how_far_pixels_go_along():
    random = np.random.default_rng(0)
    model, photo = (
        np.repeat(cv2.GaussianBlur(random.uniform(0, 255, (96, 96, 1)).astype(np.float32), (0, 0), 3)[..., None], 3, 2)
        for _ in range(2)
    )
    model, photo = (np.clip((one - one.mean()) * 8 + 128, 0, 255).astype(np.uint8) for one in (model, photo))
    where = np.zeros((96, 96), bool)
    where[24:72, 24:72] = True
    for share, shift in ((1.0, 2), (0.0, 0), (-1.0, -2)):
        wanted, moved = movement((model, np.roll(model, 2, 1)), (photo, np.roll(photo, shift, 1)), where)
        assert wanted > 0 and moved / wanted == pytest.approx(share, abs=0.15)
    shares = np.zeros((2, 56, 56, len(FACE_PARTS)), np.float32)
    shares[1, 20:30, 20:30, FACE_PARTS.index("nose")] = 1.0
    assert around(list(shares), "nose").sum() == 12**2


def test_changes_are_summed_so_that_faces_that_hardly_moved_say_little():
    some = [
        Measured(1.0, None, wanted, moved, 1.0, 1.0, 0.1) for wanted, moved in ((2.0, 1.8), (-0.01, 0.2), (-1.0, -1.0))
    ]
    (line,) = rows([{"hair shorter": one} for one in some])
    assert line[3].split(" ± ")[0] == f"{(1.8 - 0.2 + 1.0) / 3.01:.0%}"


def test_the_error_of_a_share_is_that_of_repeating_it_with_other_photos():
    random = np.random.default_rng(0)

    def some(count: int) -> list[dict[str, Measured]]:
        wanted = random.uniform(-3.0, 1.0, count)
        moved = 0.8 * wanted + random.normal(0.0, 0.5, count)
        return [
            {"smile": Measured(1.0, None, float(a), float(b), 1.0, 1.0, 0.1)}
            for a, b in zip(wanted, moved, strict=True)
        ]

    again = [some(16) for _ in range(400)]
    shares = np.array([of_model(photos, "smile") for photos in again])
    errors = np.array([of_model_error(photos, "smile") for photos in again])
    assert shares.mean() == pytest.approx(0.8, abs=0.02)
    assert errors.mean() == pytest.approx(shares.std(), rel=0.15)
    assert of_model_error(again[0][:1], "smile") is None


def test_hair_made_shorter_is_measured_by_its_area():
    # The lower half of what hangs below the chin is gone but for a strand, which reaches as low as before.
    skin, hair = FACE_PARTS.index("skin"), FACE_PARTS.index("hair")
    masks = []
    for end in (50, 40):
        shares = np.zeros((56, 56, len(FACE_PARTS)), np.float32)
        shares[10:30, 20:36, skin] = 1.0
        for columns in (np.s_[10:20], np.s_[36:46]):
            shares[10:end, columns, hair] = 1.0
        shares[30:50, 42:46, hair] = 1.0
        shares[..., 0] = 1.0 - shares.sum(axis=2)
        masks.append(shares)
    parser = FaceParser(ParserConfig(32, (4, 8))).eval()
    pixels = np.full((56, 56, 3), 128, np.uint8)
    (slider,) = study_module.EDITS["hair shorter"]
    ends, areas = (
        [property_of(parser, pixels, "hair", measured, shares) for shares in masks]
        for measured in ("length", study_module.AREAS[slider])
    )
    assert abs(ends[1] - ends[0]) < 0.5 * 100 * 10 / 56, "where hair ends has hardly moved"
    assert areas[1] - areas[0] == pytest.approx(-100 * 10 * 16 / 56**2, rel=0.01)


def test_what_was_not_judged_or_not_moved_is_said():
    one = Measured(1.0, None, 0.0, 1.0, 0.9, 1.1, 0.1)
    assert rows([{"smile": one}]) == [("smile", "100.0%", "not judged", "not measured", "90%", "1.10")]


def test_the_chapter_of_the_report_shows_generated_portraits_and_measures_photos(tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "_STEPS", 1)
    monkeypatch.setattr(chapter, "recognition", lambda path: lambda before, after: 0.9)
    few = {name: study_module.EDITS[name] for name in ("hair lighter", "smile")}
    for module in (study_module, chapter):
        monkeypatch.setattr(module, "EDITS", few)
    random = np.random.default_rng(0)
    for name, count in (("photos", 3), ("portraits", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            pixels = cv2.resize(random.integers(0, 255, (6, 6, 3), dtype=np.uint8), (96, 96))
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    checkpoint = default_checkpoint()
    assert checkpoint is not None
    settings = Settings(
        checkpoint,
        out=tmp_path / "out",
        private=tmp_path / "private",
        photos=tmp_path / "photos",
        portraits=tmp_path / "portraits",
        recognition=tmp_path / "weights",
    )
    lab = Lab(settings)
    finished = run_study(chapter.STUDY, lab, 2)
    lines = next(block for block in finished.piece.blocks if isinstance(block, Table)).rows
    assert [line[:2] for line in lines] == [(name, "100.0%") for name in few]
    assert [file.name for file in settings.out.glob("*.webp")] == ["edits-in-photos.webp"]
    assert finished.piece.bars[0].met and finished.piece.bars[-1].measured == pytest.approx(0.9)
    assert run_study(chapter.STUDY, lab, 2).reused
    (tmp_path / "photos" / "9.png").write_bytes((tmp_path / "photos" / "0.png").read_bytes())
    assert chapter.STUDY.depends(lab) != chapter.STUDY.depends(Lab(replace(settings, photos=tmp_path / "portraits")))
    with pytest.raises(StudyUnavailable, match="name a folder of them with --photos"):
        run_study(chapter.STUDY, Lab(replace(settings, photos=None)), 2)
