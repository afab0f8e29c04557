"""A JPEG too large to be unpacked at once comes back whole: it is edited row by row while it is saved."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from icc import rgb_profile  # type: ignore[import-not-found]
from PIL import ExifTags, Image, ImageOps
from toy import toy_service  # type: ignore[import-not-found]

from editing.errors import EditingError
from editing.face.embedded import read_recipe
from editing.face.recipe import Recipe
from editing.face.sources import SeedSource
from editing.photo import rows, unpacking
from editing.photo.align import square
from editing.photo.decode import Photo, decode
from editing.photo.face import PhotoFace, places
from editing.photo.rows import STRIP, LargeJpeg, edited, upright
from editing.photo.save import QUALITY, save, save_rows
from editing.photo.transfer.fields import Fields
from memorygan.parts import FACE_PARTS

RECIPE = Recipe("a" * 64, SeedSource(7, 0.7), ())
SIZE = (330, 2 * STRIP + 75)
TABLES = [[2] * 64, [3] * 64]

pytestmark = pytest.mark.skipif(rows.library() is None, reason="pyvips is not installed")


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    """What is large begins at a hundred thousand pixels."""
    monkeypatch.setattr(unpacking, "FULL_PIXELS", 100_000)


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    random = np.random.default_rng(1)
    small = Image.fromarray(random.integers(30, 220, (7, 5, 3), dtype=np.uint8))
    large = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray(np.clip(large + random.integers(-9, 10, large.shape), 0, 255).astype(np.uint8))


def jpeg(image: Image.Image | None = None, orientation: int = 1, **options) -> bytes:
    image, exif, stream = image or picture(), Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Artist] = orientation, "Somebody"
    image.save(stream, "JPEG", exif=exif, **{"qtables": TABLES[: len(image.getbands())], "subsampling": 2} | options)
    return stream.getvalue()


def pixels(data: bytes) -> np.ndarray:
    """As it is shown."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image))


def fields(grain: float = 0.0, size: int = 64, coloured: bool = True) -> Fields:
    """Movement, tone and something drawn within a frame."""
    line = np.linspace(-1, 1, size, dtype=np.float32)
    bump = np.exp(-4 * (line[:, None] ** 2 + line**2)) * (np.abs(line[:, None]) < 0.8) * (np.abs(line) < 0.8)
    bump = bump.astype(np.float32)
    shift = np.dstack([0.05 * bump, 0.11 * bump])
    offset = bump[..., None] * np.array([6, 9 * coloured, -7 * coloured], np.float32)
    drawn = np.broadcast_to(np.array([60, 20 * coloured, 10 * coloured], np.float32), (size, size, 3)).copy()
    return Fields(shift, 1 + 0.2 * bump, offset, drawn, np.clip(2 * bump - 1, 0, 1), grain)


def put_back(photo: Photo, frame, edit: Fields) -> np.ndarray:
    """The whole at once, (h, w, C), the right way up."""
    face = PhotoFace(photo, frame, lambda _: np.zeros((8, 8, 13), np.float32), FACE_PARTS)
    return face.put_back(edit, photo.original()).values


@pytest.mark.parametrize("sampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_strips_are_written_as_the_whole_is(sampling, mode):
    photo = decode(jpeg(picture().convert(mode), subsampling=sampling))
    assert photo.streamed and not any("comes back" in line for line in photo.notices)
    stream = io.BytesIO()
    steps = {"qtables": TABLES, "subsampling": sampling} if mode == "RGB" else {"quality": QUALITY}
    Image.open(io.BytesIO(photo.data)).save(stream, "JPEG", restart_marker_rows=1, **steps)
    data = save_rows(photo, [], RECIPE).data
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(Image.open(stream)))
    assert data[-2000:] == stream.getvalue()[-2000:]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("turns", [0, 1, 2])
def test_edits_are_those_of_the_whole_whichever_way_the_file_lies(orientation, turns):
    photo = decode(jpeg(orientation=orientation)).turned(turns)
    frame = square(photo.width, photo.height, 40, 30, 280, 12)
    whole = put_back(photo, frame, fields())
    found = LargeJpeg.of(photo.data, photo.turns)
    matrix = places(frame) @ np.vstack([found.upright(), [0, 0, 1]])
    strips = edited(found.rows(), found.size, fields(), matrix)
    lying = np.concatenate([strips(top, top + STRIP).values for top in range(0, strips.height, STRIP)])
    shown = upright(lying, found.orientation)
    assert shown.shape == (photo.height, photo.width, 3)
    # OpenCV takes pixels at 32nds of a pixel, rounded from the other side where the picture lies the other way.
    assert np.abs(shown.astype(int) - whole).max() <= 4 and np.abs(shown.astype(int) - whole).mean() < 0.1
    changed = (whole != photo.original().values).any(axis=2).astype(np.uint8)
    outside = cv2.dilate(changed, np.ones((9, 9), np.uint8)) == 0
    assert 0.2 < outside.mean() < 0.9 and np.array_equal(shown[outside], photo.original().values[outside])
    # The file says how it is to be turned.
    data = save_rows(photo, [(fields(), places(frame))], RECIPE).data
    near = pixels(data).astype(int)
    assert near.shape == shown.shape and np.abs(near - shown).mean() < 3


def test_two_faces_one_after_the_other_and_noise_that_does_not_know_of_strips():
    photo = decode(jpeg())
    frames = square(*SIZE, 20, 60, 250, 0), square(*SIZE, 60, 300, 200, 30)
    whole = photo.original()
    for frame in frames:
        face = PhotoFace(photo, frame, lambda _: np.zeros((8, 8, 13), np.float32), FACE_PARTS)
        whole = face.put_back(fields(3.0), whole)
    found = LargeJpeg.of(photo.data)
    strips = found.rows()
    for frame in frames:
        strips = edited(strips, found.size, fields(3.0), places(frame))
    values = np.concatenate([strips(top, top + 100).values for top in range(0, SIZE[1], 100)])
    assert np.array_equal(values, whole.values)


def test_the_profile_and_who_made_it_come_back_and_the_recipe_is_inside():
    profile = rgb_profile("Display P3")
    photo = decode(jpeg(orientation=6, icc_profile=profile, dpi=(300, 300)))
    saved = save_rows(photo, [(fields(), places(square(photo.width, photo.height, 40, 30, 280, 0)))], RECIPE)
    assert saved.suffix == "jpg" and read_recipe(saved.data) == RECIPE
    image = Image.open(io.BytesIO(saved.data))
    assert image.info["icc_profile"] == profile and image.info["dpi"] == (300, 300)
    exif = image.getexif()
    assert exif[ExifTags.Base.Orientation] == 6 and exif[ExifTags.Base.Artist] == "Somebody"
    assert [list(table) for table in image.quantization.values()] == TABLES  # type: ignore[attr-defined]
    again = decode(saved.data)
    assert (again.width, again.height) == (photo.width, photo.height)


@pytest.mark.parametrize("coloured", [False, True])
def test_a_grey_photo_gets_colours_only_from_an_edit_that_has_some(coloured):
    photo = decode(jpeg(picture().convert("L")))
    frame = square(*SIZE, 20, 60, 250, 0)
    data = save_rows(photo, [(fields(coloured=coloured), places(frame))]).data
    assert Image.open(io.BytesIO(data)).mode == ("RGB" if coloured else "L")


@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_a_part_is_read_in_full(orientation):
    photo = decode(jpeg(orientation=orientation))
    box = (50, 70, 260, 300)
    assert np.array_equal(photo.part(box), photo.original().srgb(box))


def test_a_large_photo_that_is_cut_short_comes_back_as_far_as_it_goes():
    data = jpeg(quality=95, subsampling=0)
    photo = decode(data[: len(data) * 2 // 3])
    assert photo.streamed and any("cut short" in line for line in photo.notices)
    again = pixels(save_rows(photo, []).data).astype(int)
    whole = pixels(data).astype(int)
    assert again.shape == whole.shape and np.abs(again[:300] - whole[:300]).mean() < 2


def test_what_cannot_be_read_row_by_row_comes_back_smaller(monkeypatch):
    inks = decode(jpeg(picture().convert("CMYK")))
    monkeypatch.setattr(unpacking, "MEMORY", 2**20)
    monkeypatch.setattr(unpacking, "_ROWS", 2**19)
    fine = {"quality": 95, "subsampling": 0}
    progressive, plain = (decode(jpeg(picture((400, 350)), progressive=p, **fine)) for p in (True, False))
    monkeypatch.setattr(unpacking, "library", lambda: None)
    without = decode(jpeg())
    for photo in (inks, progressive, without):
        assert not photo.streamed and any("comes back with" in line for line in photo.notices)
        assert photo.original().size == (photo.width, photo.height)
        assert decode(save(photo, photo.original(), RECIPE).data).width == photo.width
    assert plain.streamed


def test_a_photo_that_does_not_fit_at_once_can_still_be_saved(monkeypatch):
    photo = decode(jpeg())
    monkeypatch.setattr(unpacking, "MEMORY", SIZE[0] * SIZE[1] * 2)
    monkeypatch.setattr(unpacking, "_ROWS", 0)
    with pytest.raises(EditingError, match="save it instead"):
        photo.original()
    assert pixels(save_rows(photo, []).data).shape == (SIZE[1], SIZE[0], 3)


def test_two_faces_of_a_large_photo_are_edited_through_the_service():
    with toy_service(detector=lambda pixels: []) as service:
        token = service.open_photo(jpeg(orientation=6)).photo
        slider = next(slider.id for slider in service.sliders() if slider.id.startswith("hair."))
        session = ""
        for square_ in ((20, 20, 150), (330, 90, 170)):
            *_, last = service.invert(token, crop=square_, steps=1)
            assert last.view is not None and last.view.in_photo
            session = last.view.session
            service.set_sliders(session, {slider: 2.0})
        saved = service.export_photo(session)
        whole = service.edited_photo(session).values
        recipe = read_recipe(saved.data)
        assert recipe is not None and len(recipe.others) == 1
        again = service.open_photo(saved.data)
    shown, before = pixels(saved.data).astype(int), pixels(jpeg(orientation=6)).astype(int)
    assert shown.shape == whole.shape == before.shape == (again.height, again.width, 3)
    assert np.abs(shown - whole).mean() < 3
    changed = (whole != before).any(axis=2)
    assert changed[:, :200].any() and changed[:, 330:].any() and not changed[:, 215:320].any()
