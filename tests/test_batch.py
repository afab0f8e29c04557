"""The same edits over a folder of photos: in full, resumable, and what cannot be done is said."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from toy import toy_service  # type: ignore[import-not-found]

from editing.batch import photos_of, run
from editing.errors import EditingError
from editing.face.recipe import Recipe
from editing.photo.detect import Detection

SHAPE = np.array([(-0.5, -0.4), (0.5, -0.4), (0, 0), (-0.4, 0.5), (0.4, 0.5)])


def faces(pixels: np.ndarray) -> list[Detection]:
    """One for every 100 pixels of width; none in a dark picture."""
    if pixels.mean() < 20:
        return []
    middles = [np.array([100 * index + 50.0, 60.0]) for index in range(pixels.shape[1] // 100)]
    return [Detection((*(middle - 20), *(middle + 20)), 0.99, SHAPE * 25 + middle) for middle in middles]


@pytest.fixture(scope="module")
def service():
    with toy_service(detector=faces) as found:
        yield found


@pytest.fixture
def recipe(service) -> Recipe:
    view = service.new_face(3)
    service.set_sliders(view.session, {"hair.lightness": 2.5, "skin.lightness": -2})
    return service.recipe(view.session)


def picture(service, width: int, seed: int = 3) -> np.ndarray:
    face = np.asarray(Image.fromarray(service.new_face(seed).image).resize((100, 100)))
    return np.tile(np.pad(face, ((10, 10), (0, 0), (0, 0)), mode="edge"), (1, width // 100, 1))


def write(path, pixels: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    path.write_bytes(stream.getvalue())
    return stream.getvalue()


def test_photos_come_back_and_what_cannot_be_done_is_said(service, recipe, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    before = picture(service, 200)
    write(folder / "a.png", before, "PNG")
    write(folder / "a.jpg", before, "JPEG")
    write(folder / "dark.png", np.zeros((80, 80, 3), np.uint8), "PNG")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not looked at")
    assert [file.name for file in photos_of(folder)] == ["a.jpg", "a.png", "broken.png", "dark.png"]
    outcomes = {outcome.file: outcome for outcome in run(service, folder, recipe, out, steps=1)}
    assert outcomes["a.png"].result == out / "a.png.png"
    assert outcomes["a.jpg"].result == out / "a.jpg.jpg"
    assert outcomes["broken.png"].result is None and outcomes["broken.png"].problem
    assert "no face" in outcomes["dark.png"].problem
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg.jpg", "a.png.png"]
    with Image.open(out / "a.png.png") as image:
        after = np.asarray(image.convert("RGB"))
    changed = (after != before).any(axis=2)
    assert changed[:, :100].any()
    assert not changed[:, 150:].any(), "the other face stays"
    both = {one.file: one for one in run(service, folder, recipe, tmp_path / "all", steps=1, every=True)}
    assert both["a.png"].result is not None
    with Image.open(both["a.png"].result) as image:
        assert (np.asarray(image.convert("RGB")) != before).any(axis=2)[:, 150:].any()
    assert service.health()["sessions"] <= 64 and service.health()["photos"] == 0


def test_names_of_photos_end_as_any_program_writes_them(tmp_path):
    names = ["1.JPG", "2.jfif", "3.HIF", "4.jpe", "5.HEIC", "6.tif", "7.avif", "8.j2k"]
    for name in [*names, "notes.txt", "film.mov"]:
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in photos_of(tmp_path)] == names


def test_a_run_goes_on_where_it_was_stopped(service, recipe, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("[1].png", "2.png"):
        write(folder / name, picture(service, 100), "PNG")
    steps = run(service, folder, recipe, out, steps=1)
    first = next(steps)
    steps.close()
    (made,) = out.iterdir()
    stamp = made.stat().st_mtime_ns
    again = list(run(service, folder, recipe, out, steps=1))
    assert [one.file for one in again] == ["2.png", "[1].png"]
    assert again[0].result == first.result == made
    assert made.stat().st_mtime_ns == stamp
    assert len(list(out.iterdir())) == 2


def test_a_recipe_of_another_model_is_refused(service, tmp_path):
    with pytest.raises(EditingError, match="another model"):
        next(run(service, tmp_path, Recipe("ab" * 32, service.recipe(service.new_face(1).session).source), tmp_path))
