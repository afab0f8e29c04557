"""Faces are found whichever way up they are, listed best first, and framed without inventing a second head."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from editing.photo.align import Frame, frame_of, framed, square
from editing.photo.decode import decode
from editing.photo.detect import Detection, MtcnnDetector, ranked, shape_error
from editing.photo.store import PhotoStore

# Eyes, nose and mouth as the training pictures have them, of 256 pixels.
POINTS = np.array([[96.0, 121.6], [160.0, 121.6], [128.0, 157.0], [101.0, 185.6], [157.0, 185.6]])


@pytest.fixture(scope="module")
def faces(two_bundled_faces) -> list[Image.Image]:
    """The two, of 256 pixels."""
    return [Image.fromarray(face).resize((256, 256), Image.Resampling.BICUBIC) for face in two_bundled_faces]


@pytest.fixture(scope="module")
def detector() -> MtcnnDetector:
    pytest.importorskip("facenet_pytorch", exc_type=ImportError)
    return MtcnnDetector()


def pasted(face: Image.Image, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """A photo of 640 pixels with the face in its middle turned clockwise, and where its landmarks are."""
    photo = Image.new("RGB", (640, 640), (128, 128, 128))
    photo.paste(face, (192, 192))
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(photo.rotate(-degrees, Image.Resampling.BICUBIC)), (POINTS - 128) @ turn.T + 320


@pytest.mark.parametrize("degrees", [0, 40, 90, 135, 180, 270])
def test_a_face_is_found_whichever_way_up(faces, detector, degrees):
    photo, points = pasted(faces[0], degrees)
    (found,) = detector(photo)
    assert np.abs(found.landmarks - points).max() < 0.12 * 256
    upright = framed(photo, frame_of(found.landmarks), 128).astype(int)
    wanted = np.asarray(faces[0].resize((128, 128))).astype(int)
    inner = np.s_[24:104, 24:104]
    assert np.abs(upright - wanted)[inner].mean() < 0.6 * np.abs(np.rot90(upright, 2) - wanted)[inner].mean()
    left, top, right, bottom = found.box
    assert 192 - 60 < left < right < 448 + 60 and 192 - 60 < top < bottom < 448 + 60


def detection(middle: tuple[float, float], side: float, score: float = 1.0) -> Detection:
    points = (POINTS - 128) / 256 * side + middle
    half = side / 2
    return Detection((middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half), score, points)


def test_sharp_faces_come_first_by_size_and_what_is_none_is_left_out(faces):
    photo = Image.new("RGB", (1200, 600), (128, 128, 128))
    photo.paste(faces[0].resize((240, 240)), (100, 100))
    photo.paste(faces[1].resize((400, 400)).filter(ImageFilter.GaussianBlur(12)), (500, 100))
    photo.paste(faces[1].resize((160, 160)), (1000, 100))
    sharp, small = detection((220, 220), 240), detection((1080, 180), 160)
    blurred = detection((700, 300), 400)
    outside = detection((-20, 300), 120)  # all but one landmark beyond the left border
    squeezed = Detection(
        (500, 400, 560, 460), 0.99, np.array([[510, 410], [511, 412], [550, 411], [510, 413], [511, 414]])
    )
    found = ranked(np.asarray(photo), [small, outside, blurred, squeezed, sharp])
    assert found == [sharp, small, blurred]


def test_a_face_that_fills_the_photo_is_framed_beyond_it(faces, detector):
    cut = np.asarray(faces[0].crop((48, 56, 208, 216)).resize((480, 480), Image.Resampling.BICUBIC))
    (found,) = detector(cut)
    wanted = (POINTS - [48, 56]) * 3
    assert np.abs(found.landmarks - wanted).max() < 0.12 * 256 * 3
    frame = frame_of(found.landmarks)
    assert frame.side == pytest.approx(768, rel=0.15) and frame.outside(480, 480) > 0.4


def test_more_than_a_dozen_faces_are_listed():
    pixels = np.random.default_rng(0).integers(0, 255, (400, 1500, 3), dtype=np.uint8)
    many = [detection((60 + 58 * i, 200), 50) for i in range(24)]
    assert len(ranked(pixels, many)) == 24
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    view = PhotoStore().add(decode(stream.getvalue()), lambda pixels: many)
    assert len(view.faces) == 24 and any("24 faces were found" in line for line in view.notices)


def test_faces_are_told_in_pixels_of_the_full_photo():
    stream = io.BytesIO()
    Image.new("RGB", (8192, 4096), (90, 120, 90)).save(stream, "JPEG")
    photo = decode(stream.getvalue())
    assert (photo.width, photo.height) == (8192, 4096) and photo.pixels.shape == (1024, 2048, 3)
    store = PhotoStore()
    view = store.add(photo, lambda pixels: [detection((500, 400), 200)])
    assert view.faces[0].box == pytest.approx((1600, 1200, 2400, 2000))
    frame = store.frame(view.photo, 0, None)
    assert frame.side == pytest.approx(800, rel=0.01)
    assert (view.width, view.height) == (8192, 4096)


def test_shapes_of_faces():
    assert shape_error(POINTS) < 0.01
    for turn in (1j, -1, 0.3 + 0.8j):
        turned = ((POINTS @ np.array([1, 1j])) * turn)[:, None] * np.array([1, -1j])
        assert shape_error(turned.real * 3 + 7) < 0.01
    assert shape_error(POINTS * [1, -1]) > 0.4, "mirrored top to bottom: a mouth above the eyes"
    assert shape_error(np.zeros((5, 2))) == float("inf")


# --- beyond the border ------------------------------------------------------------------------------------------------


def test_beyond_the_border_nothing_is_mirrored():
    """Red stripes inside; outside their colour fades into the mean of the border, without a pattern or a step."""
    pixels = np.full((200, 200, 3), (60, 120, 60), dtype=np.uint8)
    pixels[40:160, 10:20] = (220, 40, 40)  # would come back mirrored at -10 … -20
    found = framed(pixels, square(200, 200, -100, 0, 200), 200).astype(int)
    assert np.array_equal(found[:, 100:], pixels[:, :100])
    beyond = found[:, :100]
    assert np.abs(beyond - (60, 120, 60)).max() <= 2
    edge = np.full((200, 200, 3), 50, dtype=np.uint8)
    edge[100:] = 200
    found = framed(edge, square(200, 200, -100, 0, 200), 200).astype(int)
    assert abs(found[20, 90, 0] - 50) < 25 and abs(found[180, 90, 0] - 200) < 25, "near the border its own colours"
    assert np.ptp(found[:, 2, 0]) < 12, "far away their mean"
    assert np.abs(np.diff(found[20, :, 0])).max() < 12, "without a step"


def test_a_cut_face_says_so():
    stream = io.BytesIO()
    Image.new("RGB", (400, 300), (128, 140, 128)).save(stream, "PNG")
    photo = decode(stream.getvalue())
    inside, cut = detection((200, 150), 150), detection((40, 150), 240)
    view = PhotoStore().add(photo, lambda pixels: [inside, cut])
    assert view.faces[0].notice == "" and "ends within" in view.faces[1].notice
    assert "never gets into the photo" in view.faces[1].notice


def test_frames_say_how_they_lie():
    frame = Frame(10.0, 20.0, 30.0, 40.0)
    assert frame.side == 50
    corners = frame.corners()
    assert corners.tolist() == [[10, 20], [40, 60], [0, 90], [-30, 50]]
    assert np.allclose(frame.scaled(2).corners(), 2 * corners)
    # The middle of the first pixel of a picture of one pixel is the middle of the square.
    assert np.allclose(frame.matrix(1) @ [0, 0, 1] + 0.5, corners.mean(axis=0))
    assert square(100, 100, 10, 10, 40).outside(100, 100) == pytest.approx(0, abs=1e-6)
    assert square(100, 100, -20, 10, 40).outside(100, 100) == pytest.approx(0.5, abs=1e-6)
    assert square(100, 100, 30, 30, 40, 45).outside(100, 100) == pytest.approx(0, abs=1e-6)
