"""Faces edited in their photo: views, previews, history, several faces of one photo, recipes."""

from __future__ import annotations

import io
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image
from test_text import StandIns  # type: ignore[import-not-found]
from toy import toy_service  # type: ignore[import-not-found]

from editing.device.renderer import Rendered
from editing.errors import EditingError
from editing.face.edits import SliderEdit
from editing.face.photo_ref import PhotoRef, read_photo_ref
from editing.face.recipe import Recipe
from editing.photo.align import Frame, frame_of
from editing.photo.decode import decode
from editing.photo.face import PhotoFace, places, within
from editing.photo.faces import coloured_parts
from editing.photo.project import unpack
from editing.photo.transfer.transfer import Plan
from memorygan.parts import FACE_PARTS

SQUARES = ((40, 30, 150), (210, 60, 120))


@pytest.fixture(scope="module")
def service():
    with toy_service(detector=lambda pixels: []) as found:
        yield found


@pytest.fixture(scope="module")
def two_people(service) -> np.ndarray:
    """Two of the model's faces in a photo with noise."""
    photo = np.random.default_rng(0).integers(90, 130, (220, 360, 3), dtype=np.uint8)
    for seed, (left, top, side) in zip((3, 8), SQUARES, strict=True):
        face = service.new_face(seed).image
        photo[top : top + side, left : left + side] = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
    return photo


def upload(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def rebuilt(service, token: str, number: int):
    *_, last = service.invert(token, crop=SQUARES[number], steps=2)
    return last.view


def test_a_face_of_a_photo_shows_the_photos_pixels(service, two_people):
    token = service.open_photo(upload(two_people)).photo
    view = rebuilt(service, token, 0)
    assert view.in_photo
    assert view.image.shape == (512, 512, 3)
    assert view.part_map.shape == (512, 512)
    left, top, side = SQUARES[0]
    own = cv2.resize(two_people[top : top + side, left : left + side], (512, 512), interpolation=cv2.INTER_LINEAR)
    assert np.abs(view.image.astype(float) - own).mean() < 4
    assert np.array_equal(service.before(view.session).image, view.image)
    model = service.model_view(view.session)
    assert model.image.shape == (service.size, service.size, 3)
    assert not model.in_photo


def test_a_sentence_is_seen_in_the_photo_or_said_not_to_be(two_people, monkeypatch):
    with toy_service(detector=lambda pixels: [], guides=StandIns()) as service:
        view = rebuilt(service, service.open_photo(upload(two_people)).photo, 0)
        *_, last = service.describe(view.session, "red hair", ["hair"], steps=20)
        assert last.proposal is not None and last.image.shape == (512, 512, 3)
        assert last.proposal.change.inside > 1.0
        monkeypatch.setattr("editing.core.SEEN", 256.0)
        *_, last = service.describe(view.session, "red hair", ["hair"], steps=20)
        assert last.proposal is None and "Nothing of it would be seen in the photo" in last.notices[-1]
        assert np.array_equal(last.image, view.image)


def test_edits_previews_and_history_are_of_the_photo(service, two_people):
    view = rebuilt(service, service.open_photo(upload(two_people)).photo, 0)
    preview = service.preview_sliders(view.session, {"hair.lightness": 2.5})
    assert preview.image.shape == (512, 512, 3)
    edited = service.set_sliders(view.session, {"hair.lightness": 2.5})
    assert edited.change.inside > 3
    assert edited.change.outside < 0.5
    assert np.abs(preview.image.astype(float) - edited.image).mean() < 3
    assert np.array_equal(service.undo(view.session).image, view.image)
    assert np.array_equal(service.redo(view.session).image, edited.image)
    assert np.array_equal(service.duplicate(view.session).image, edited.image)
    assert np.array_equal(service.reset_all(view.session).image, view.image)


def test_a_picture_that_was_just_shown_is_not_drawn_again(service, two_people, monkeypatch):
    view = rebuilt(service, service.open_photo(upload(two_people)).photo, 0)
    drawn, shown = [], PhotoFace.shown

    def counted(face, *rest):
        drawn.append(face)
        return shown(face, *rest)

    monkeypatch.setattr(PhotoFace, "shown", counted)
    service.set_sliders(view.session, {"hair.lightness": 2.0})
    assert len(drawn) == 1, "how it differs from before needs no second picture of before"
    service.undo(view.session)
    assert len(drawn) == 1


def test_every_pixel_that_no_edit_reaches_is_the_same_to_the_bit(service, two_people):
    token = service.open_photo(upload(two_people)).photo
    first, second = rebuilt(service, token, 0), rebuilt(service, token, 1)
    assert np.array_equal(service.edited_photo(first.session).srgb(), two_people)
    service.set_sliders(first.session, {"hair.lightness": 2.5})
    service.set_sliders(second.session, {"skin.lightness": -2})
    result = service.edited_photo(second.session).srgb()
    changed = (result != two_people).any(axis=2)
    inside = np.zeros_like(changed)
    for number, (left, top, side) in enumerate(SQUARES):
        inside[top : top + side, left : left + side] = True
        assert changed[top : top + side, left : left + side].any(), f"the edit of face {number} is there"
    assert not changed[~inside].any()
    whole, corners = service.whole(second.session)
    assert np.array_equal(whole, result)
    left, top, side = SQUARES[1]
    assert corners[0] == pytest.approx((left, top))
    assert corners[2] == pytest.approx((left + side, top + side))


def test_a_recipe_names_its_photo_and_replays_in_it(service, two_people):
    token = service.open_photo(upload(two_people)).photo
    first, second = rebuilt(service, token, 0), rebuilt(service, token, 1)
    service.set_sliders(first.session, {"hair.lightness": 2.5})
    edited = service.set_sliders(second.session, {"skin.lightness": -2})
    result = service.edited_photo(second.session).srgb()
    recipe = service.recipe(second.session)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.photo is not None
    assert (recipe.photo.width, recipe.photo.height) == (360, 220)
    assert len(recipe.others) == 1
    service.close_session(first.session)
    again = service.open_recipe(recipe.to_json())
    assert not again.in_photo
    assert "360 × 220" in again.notice
    assert service.awaits(again.session) == (recipe.photo,)
    other = service.open_photo(upload(255 - two_people)).photo
    with pytest.raises(EditingError, match="another photo"):
        service.give_photo(again.session, other)
    with pytest.raises(EditingError, match="not here"):
        service.edited_photo(again.session)
    there = service.give_photo(again.session, service.open_photo(upload(two_people)).photo)
    assert np.array_equal(there.image, edited.image)
    assert service.awaits(there.session) == ()
    assert np.array_equal(service.edited_photo(there.session).srgb(), result)
    (beside,) = service.beside(there.session)
    assert service.view(beside).sliders == {"hair.lightness": 2.5}
    numbers = [service.number_in_photo(session) for session in (there.session, beside)]
    assert sorted(numbers) == [(1, 2), (2, 2)]
    assert service.number_in_photo(service.new_face(1).session) == (0, 0)
    with pytest.raises(EditingError, match="does not come from a photo"):
        service.give_photo(service.new_face(1).session, token)


def test_a_face_whose_photo_is_gone_shows_the_model_and_says_so(service, two_people):
    token = service.open_photo(upload(two_people)).photo
    view = rebuilt(service, token, 0)
    service.close_photo(token)
    assert service.view(view.session).in_photo, "it stays as long as a face is edited in it"
    service._photos.close(token)  # as after an hour
    now = service.view(view.session)
    assert not now.in_photo
    assert "open that photo again" in now.notice
    assert len(service.awaits(view.session)) == 1


def test_a_black_and_white_photo_stays_so_unless_a_colour_is_asked_for(service, two_people):
    grey = two_people.mean(axis=2, keepdims=True).astype(np.uint8).repeat(3, axis=2)
    view = rebuilt(service, service.open_photo(upload(grey)).photo, 0)
    edited = service.set_sliders(view.session, {"hair.lightness": 2.5})
    assert not np.array_equal(edited.image, view.image)
    assert np.ptp(edited.image.astype(int), axis=2).max() <= 1
    assert coloured_parts(()) == coloured_parts((SliderEdit("hair.length", 1.0),)) == frozenset()
    assert coloured_parts((SliderEdit("skin.warmth", 1.0),)) == {"skin", "nose", "ears", "neck"}


def test_places_and_frames_agree():
    frame = Frame(10.0, 20.0, 30.0, 40.0)
    matrix = places(frame)
    corners = frame.corners() @ matrix[:, :2].T + matrix[:, 2]
    assert corners == pytest.approx(np.array([[0, 0], [1, 0], [1, 1], [0, 1]]), abs=1e-9)


@pytest.mark.parametrize(
    ("frame", "open_sides"),
    [
        (Frame(0, 0, 100, 0), ""),
        (Frame(-20, -20, 140, 0), ""),
        (Frame(30, 20, 40, 0), "top bottom left right"),
        (Frame(0, 0, 60, 0), "bottom right"),
        (Frame(0, -50, 100, 0), "bottom"),
        (Frame(100, 0, 0, 100), ""),  # turned by a right angle
        (Frame(100, 0, 0, 60), "bottom right"),
        (Frame(0.2, 0.2, 99.6, 0), ""),
    ],
)
def test_edits_fade_where_the_photo_goes_on_beyond_the_frame(frame, open_sides):
    share = within(frame, 100, 100, 64)
    if not open_sides:
        assert share is None
        return
    assert share is not None
    middle = {"top": share[0, 32], "bottom": share[-1, 32], "left": share[32, 0], "right": share[32, -1]}
    for side, value in middle.items():
        assert value == pytest.approx(0.0, abs=0.08) if side in open_sides.split() else value == 1.0
    assert share[4:-4, 4:-4].min() == 1.0


def test_edits_fade_over_no_more_than_the_photo_goes_on():
    slightly, far = within(Frame(2, 0, 98, 0), 100, 98, 512), within(Frame(30, 0, 70, 0), 100, 70, 512)
    assert slightly is not None and far is not None
    assert [int((one[256] < 1.0).sum()) for one in (slightly, far)] == pytest.approx([0.02 * 512, 0.05 * 512], abs=2)


def test_an_edit_of_all_of_a_face_leaves_no_edge_at_its_frame():
    photo, size = decode(upload(np.full((256, 256, 3), 120, np.uint8))), 64
    hair = np.zeros((size, size, len(FACE_PARTS)), np.uint8)
    hair[..., FACE_PARTS.index("hair")] = 255
    part_map = hair.argmax(axis=2).astype(np.uint8)
    before, after = (Rendered(np.full((size, size, 3), tone, np.uint8), part_map, hair) for tone in (120, 180))
    face = PhotoFace(photo, Frame(64, 64, 128, 0), lambda _: hair.astype(np.float32) / 255, FACE_PARTS)
    edit = face.fields(before, after, Plan((FACE_PARTS.index("hair"),), ()), 512)
    result = face.put_back(edit, photo.original()).values[..., 0].astype(int)
    assert result[128, 128] > 165
    across, down = np.abs(np.diff(result, axis=1)), np.abs(np.diff(result, axis=0))
    assert max(across.max(), down.max()) <= 16  # of 60
    assert (result[:64] == 120).all() and (result[192:] == 120).all() and result[68, 128] < result[80, 128]


def test_a_small_face_of_a_large_photo_is_framed_from_the_original():
    rng = np.random.default_rng(0)
    pixels = cv2.resize(
        rng.integers(0, 256, (150, 200, 3), dtype=np.uint8), (4000, 3000), interpolation=cv2.INTER_CUBIC
    )
    pixels[::2, ::2] = pixels[::2, ::2] // 2
    photo = decode(upload(pixels))
    frame = frame_of(np.array([[2000, 1500], [2150, 1500], [2075, 1580], [2010, 1660], [2140, 1660]]))
    parse = lambda picture: np.ones((8, 8, len(FACE_PARTS)), np.float32)  # noqa: E731
    sharp = PhotoFace(photo, frame, parse, FACE_PARTS, photo.part)
    soft = PhotoFace(photo, frame, parse, FACE_PARTS)
    assert sharp.size == soft.size == round(frame.side)
    energy = [cv2.Laplacian(face.pixels.astype(np.float32), -1).std() for face in (sharp, soft)]
    assert energy[0] > 2 * energy[1]
    x, y = (int(v) for v in (frame.left, frame.top))
    assert np.abs(cv2.blur(sharp.pixels, (40, 40)).astype(int) - cv2.blur(soft.pixels, (40, 40))).max() < 20
    assert 0 < x < 4000
    assert 0 < y < 3000


@pytest.mark.parametrize(
    "damage",
    [
        {"sha256": "no hash"},
        {"frame": [1, 2, 3]},
        {"frame": [0, 0, 0, 0]},
        {"frame": [0, 0, float("inf"), 0]},
        {"turns": 4},
        {"width": 0},
        {"height": "many"},
    ],
)
def test_a_damaged_reference_is_refused(damage):
    good = PhotoRef("ab" * 32, 40, 30, 0, (1.0, 2.0, 20.0, 0.0))
    assert read_photo_ref(good.to_dict()) == good
    with pytest.raises(EditingError):
        read_photo_ref(good.to_dict() | damage)


def test_a_photo_is_saved_in_full_with_its_recipe_and_a_project_opens_by_itself(service, two_people):
    data = upload(two_people)
    token = service.open_photo(data).photo
    view = rebuilt(service, token, 0)
    edited = service.set_sliders(view.session, {"hair.lightness": 2.5})
    saved = service.export_photo(view.session)
    assert (saved.suffix, saved.mime) == ("png", "image/png")
    with Image.open(io.BytesIO(saved.data)) as image:
        result = np.asarray(image.convert("RGB"))
    assert np.array_equal(result, service.edited_photo(view.session).srgb())
    again = service.open_recipe(saved.data)
    assert again.history == edited.history
    assert len(service.awaits(again.session)) == 1
    project = service.export_project(view.session)
    with zipfile.ZipFile(io.BytesIO(project)) as file:
        assert sorted(file.namelist()) == ["photo.png", "recipe.json"]
        assert file.read("photo.png") == data
    opened = service.open_recipe(project)
    assert opened.in_photo
    assert np.array_equal(opened.image, edited.image)


def test_a_part_of_another_photo_is_named_and_replayed(service, two_people):
    token = service.open_photo(upload(two_people)).photo
    first, second = rebuilt(service, token, 0), rebuilt(service, token, 1)
    swapped = service.swap(first.session, second.session, ["hair"])
    (edit,) = service.recipe(first.session).edits
    assert edit.face.photo == service.recipe(second.session).photo
    again = service.open_recipe(service.export_project(first.session))
    assert np.array_equal(again.image, swapped.image)
    service.set_sliders(second.session, {"hair.lightness": 2})
    service.swap(first.session, second.session, ["hair"])
    assert service.recipe(first.session).edits[-1].face.photo is None, "edited hair is no longer the photo's"


def test_a_part_of_a_second_photo_travels_in_the_project_and_can_be_given_later(service, two_people, monkeypatch):
    pictures = two_people, np.flip(two_people, 2)
    first, second = (rebuilt(service, service.open_photo(upload(pixels)).photo, 0) for pixels in pictures)
    swapped = service.swap(first.session, second.session, ["hair"])
    project, text = service.export_project(first.session), service.export_json(first.session)
    again = service.open_recipe(project)
    assert np.array_equal(again.image, swapped.image)
    assert len(service.photos_of(again.session)) == 2
    # Without a parser a part is the model's in any case.
    monkeypatch.setattr(type(service), "_parses", True)
    waiting = service.open_recipe(text)
    assert [ref.sha256 for ref in service.awaits(waiting.session)] == [
        service.recipe(face.session).photo.sha256 for face in (first, second)
    ]
    own, there = (service.give_photo(waiting.session, service.open_photo(upload(pixels)).photo) for pixels in pictures)
    assert "taken from a photo of 360 × 220" in own.notice
    assert there.notice is None and service.awaits(waiting.session) == ()


def test_a_file_that_is_open_already_is_not_opened_again(service, two_people):
    first = service.open_photo(upload(two_people))
    count = service.health()["photos"]
    assert service.open_photo(upload(two_people), ["gone", first.photo]).photo == first.photo
    assert np.array_equal(service.show_photo(first.photo).image, first.image)
    assert service.health()["photos"] == count
    assert service.open_photo(upload(two_people)).photo != first.photo, "of others nobody hears"


def test_a_project_that_could_not_be_opened_again_is_not_saved(service, two_people, monkeypatch):
    from editing.photo import project

    view = rebuilt(service, service.open_photo(upload(two_people)).photo, 0)
    size = len(service.export_project(view.session))
    monkeypatch.setattr(project, "MAX_PROJECT", size)
    assert service.open_recipe(service.export_project(view.session)).in_photo
    monkeypatch.setattr(project, "MAX_PROJECT", size - 1)
    with pytest.raises(EditingError, match="save the recipe instead"):
        service.export_project(view.session)


def test_a_zip_that_is_no_project_is_refused(service):
    def packed(**files: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in files.items():
                file.writestr(name.replace("_", "."), content)
        return stream.getvalue()

    with pytest.raises(EditingError, match="no project"):
        service.open_recipe(packed(recipe_json=b"{}"))
    with pytest.raises(EditingError, match="damaged"):
        service.open_recipe(packed(recipe_json=b"{}", photo_png=b"x")[:60])
    with pytest.raises(EditingError, match="larger than"):
        unpack(packed(recipe_json=b"{}", photo_png=bytes(2**20)), 1000)
