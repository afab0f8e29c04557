"""The Photo tab in a headless Chromium: any file that is a picture, faces to choose from, turning, the next photo."""

from __future__ import annotations

import io
import logging
import threading
import time

import numpy as np
import pytest
from PIL import Image
from pillow_heif import from_pillow  # type: ignore[import-untyped]
from test_app import full_service, photo_bytes, serve  # type: ignore[import-not-found]
from test_app_browser import OPEN_RECIPE, Desk, browser, chromium  # type: ignore[import-not-found]  # noqa: F401

from editing.photo.detect import Detection
from editing.results import InversionProgress

pytestmark = pytest.mark.browser
DROP = "#photo-drop input[type=file]"
# Dropped as another program would: the browser guesses the type from the name, and finds none for some.
DROPPED = """([name, type, bytes]) => {
  const bag = new DataTransfer();
  bag.items.add(new File([new Uint8Array(bytes)], name, { type }));
  const target = document.querySelector("#photo-drop input[type=file]").parentElement;
  for (const kind of ["dragenter", "dragover", "drop"])
    target.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: bag }));
}"""


def faces(pixels: np.ndarray) -> list[Detection]:
    """As many as the picture is wide in steps of 100 pixels; the first one leaves the photo."""
    height, width = pixels.shape[:2]
    shape = np.array([(-0.5, -0.4), (0.5, -0.4), (0, 0), (-0.4, 0.5), (0.4, 0.5)])
    found = []
    for index in range(width // 100):
        middle = np.array([100 * index + 50.0, height / 2]) if index else np.array([20.0, 20.0])
        points = shape * 30 + middle
        found.append(Detection((*(middle - 30), *(middle + 30)), 0.999, points))
    return found


def heic(side: int = 160) -> bytes:
    with Image.open(io.BytesIO(photo_bytes(side))) as image:
        stream = io.BytesIO()
        from_pillow(image).save(stream, quality=80)
    return stream.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory, chromium_path):
    yield from serve(full_service(), tmp_path_factory.mktemp("gradio"))


@pytest.fixture
def desk(browser, served, monkeypatch):  # noqa: F811
    monkeypatch.setattr(served.service, "_detector", faces)
    opened = Desk(browser, served.url).open()
    opened.tab("photo")
    opened.page.wait_for_selector(DROP, state="attached")
    yield opened
    assert opened.problems == []
    opened.close()


def shown(desk: Desk, width: int) -> None:
    desk.page.wait_for_function(f"document.querySelector('#photo img')?.naturalWidth === {width}")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("photo.HEIC", ""),
        ("photo.jpg", ""),
        ("photo.JPG", "application/octet-stream"),
        ("photo", ""),
        ("note.txt", "text/plain"),
    ],
)
def test_any_file_that_is_a_picture_is_taken_when_it_is_dropped(desk, name, kind):
    data = heic(170) if name.endswith("HEIC") else photo_bytes(170)
    desk.page.evaluate(DROPPED, [name, kind, list(data)])
    shown(desk, 170)
    assert desk.page.is_enabled("#rebuild")


def test_any_file_that_is_a_picture_is_taken_when_it_is_chosen(desk):
    for width, name in ((150, "IMG_1.HEIC"), (151, "IMG_1")):
        data = heic(width) if name.endswith("HEIC") else photo_bytes(width)
        desk.page.wait_for_selector(DROP, state="attached")
        desk.page.set_input_files(DROP, {"name": name, "mimeType": "", "buffer": data})
        shown(desk, width)
    desk.page.wait_for_selector(DROP, state="attached")
    desk.page.set_input_files(DROP, {"name": "letter.docx", "mimeType": "", "buffer": b"PK no picture"})
    assert "not a picture" in desk.message()
    with desk.page.expect_file_chooser() as chooser:
        desk.page.click("#photo-drop button:has(input[type=file])")
    assert ".heic" in chooser.value.element.get_attribute("accept")


def test_faces_are_counted_and_a_cut_one_says_so(desk):
    desk.page.set_input_files(DROP, {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo_bytes(1510)})
    desk.page.wait_for_selector("#photo .photo-face >> nth=14")
    assert "15 faces were found" in desk.page.inner_text("#photo .photo-said")
    assert "The photo ends within" in desk.page.inner_text("#photo .photo-said")
    desk.page.click("#photo .photo-face >> nth=7")
    assert "The photo ends within" not in desk.page.inner_text("#photo .photo-said")


def test_the_photo_and_the_square_can_be_turned(desk, served):
    wide = io.BytesIO()
    with Image.open(io.BytesIO(photo_bytes(300))) as image:
        image.crop((0, 0, 300, 150)).save(wide, "JPEG")
    desk.page.set_input_files(DROP, {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": wide.getvalue()})
    shown(desk, 300)
    photos = served.service.health()["photos"]
    desk.page.click("#photo .photo-tools button")
    shown(desk, 150)
    assert served.service.health()["photos"] == photos, "the photo as it stood before is forgotten"
    desk.page.check("#photo .studio-check input")
    desk.page.locator("#photo [data-name=turn]").evaluate(
        "(i) => { i.value = 30; i.dispatchEvent(new Event('input')); }"
    )
    assert "rotate(30deg)" in desk.page.get_attribute("#photo .photo-square", "style")
    assert desk.ask("Studio.choices.photo.crop[3]") == 30
    desk.page.check("#effort input[value=quick]")
    desk.page.click("#rebuild")
    desk.page.wait_for_function("document.querySelector('#progress .progress-words')?.innerText.startsWith('Done')")


def test_a_photo_that_comes_while_another_is_rebuilt_takes_its_place(desk, served, monkeypatch, caplog):
    gate, rebuilt, original = threading.Event(), [], served.service.invert

    def slow(photo, *args, **named):
        rebuilt.append(photo)
        if len(rebuilt) == 1:
            gate.wait(60)
        return original(photo, *args, **named)

    monkeypatch.setattr(served.service, "invert", slow)
    desk.page.check("#effort input[value=quick]")
    desk.page.set_input_files(DROP, {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo_bytes(160)})
    shown(desk, 160)
    with caplog.at_level(logging.WARNING):
        desk.page.click("#rebuild")
        desk.page.wait_for_function("document.querySelector('#progress .progress-words')?.innerText === 'Starting.'")
        desk.page.wait_for_selector(DROP, state="attached")
        desk.page.set_input_files(DROP, {"name": "b.jpg", "mimeType": "image/jpeg", "buffer": photo_bytes(161)})
        shown(desk, 161)
        assert desk.page.is_disabled("#send")
        desk.page.click("#rebuild")
        desk.page.wait_for_function("document.querySelector('#progress .progress-words')?.innerText.startsWith('Done')")
        sessions = served.service.health()["sessions"]
        gate.set()
        desk.page.wait_for_timeout(1500)
    assert len(rebuilt) == 2 and rebuilt[0] != rebuilt[1]
    assert desk.page.inner_text("#progress .progress-words").startswith("Done"), "the first job says nothing any more"
    assert served.service.health()["sessions"] == sessions and served.service.health()["jobs"] == 0
    desk.page.click("#send")
    desk.wait("Studio.tab === 'edit' && Studio.face.title === 'Photo'")
    photos = served.service.health()["photos"]
    desk.tab("photo")
    desk.page.wait_for_selector(DROP, state="attached")
    desk.page.set_input_files(DROP, {"name": "c.jpg", "mimeType": "image/jpeg", "buffer": photo_bytes(162)})
    shown(desk, 162)
    assert served.service.health()["photos"] == photos + 1, "the photo of a face that is being edited stays"
    assert "FileNotFoundError" not in caplog.text and "Traceback" not in caplog.text


def test_what_is_taken_to_be_edited_is_the_face_that_is_chosen(desk):
    desk.page.set_input_files(DROP, {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo_bytes(310)})
    desk.page.wait_for_selector("#photo .photo-face >> nth=2")
    assert "choose one" in desk.message()
    desk.page.check("#effort input[value=quick]")
    desk.page.click("#photo .photo-face >> nth=1")
    desk.page.click("#rebuild")
    ended = "document.querySelector('#progress .progress-words')?.innerText.startsWith('Done')"
    desk.page.wait_for_function(ended)
    desk.page.click("#photo .photo-face >> nth=2")
    desk.page.click("#send")
    assert "ace 3 is not rebuilt yet" in desk.message()
    desk.page.reload()
    desk.ready()
    desk.wait("Studio.tab === 'photo'")
    desk.page.wait_for_selector("#photo .photo-face[aria-label='Face 2 of 3'][aria-pressed=true]")
    desk.page.wait_for_function(ended)
    desk.page.click("#send")
    desk.wait("Studio.tab === 'edit' && Studio.face.title === 'Photo, face 2'")
    # What was rebuilt is being edited: a page that is loaded again does not go back to the photo.
    desk.page.reload()
    desk.ready()
    desk.wait("Studio.face.title === 'Photo, face 2'")
    assert desk.ask("Studio.face.job") == "" and desk.ask("Studio.tab") != "photo"


def test_every_view_and_every_tool_of_a_photo_can_be_reached(desk):
    desk.page.set_input_files(DROP, {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo_bytes(160)})
    shown(desk, 160)
    desk.page.check("#effort input[value=quick]")
    desk.page.click("#rebuild")
    desk.page.wait_for_function("document.querySelector('#progress .progress-words')?.innerText.startsWith('Done')")
    desk.page.click("#send")
    desk.wait("Studio.tab === 'edit' && Studio.face.in_photo")
    for width, rows in ((360, 2), (768, 2), (1280, 1)):
        desk.page.set_viewport_size({"width": width, "height": 900})
        desk.page.wait_for_timeout(300)
        for group, count, lines in ((".stage-modes button", 6, 2), (".stage-tools button", 6, rows)):
            boxes = [button.bounding_box() for button in desk.page.locator(f"#stage {group}").all()]
            assert len(boxes) == count
            assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes), (width, group)
            assert len({round(box["y"]) for box in boxes}) <= lines, (width, group)


def test_a_stopped_face_is_not_taken_for_the_one_before(desk, served, monkeypatch):
    original, asked = served.service.invert, []

    def stopped(photo, face=0, *args, cancel=None, **named):
        asked.append(face)
        if len(asked) == 1:
            yield from original(photo, face, *args, cancel=cancel, **named)
            return
        pixels = served.service.framed(photo, face)
        while not cancel.cancelled:
            yield InversionProgress("waiting", 0, 60, pixels, pixels)
            time.sleep(0.05)
        yield InversionProgress("done", 0, 60, pixels, pixels, cancelled=True)

    monkeypatch.setattr(served.service, "invert", stopped)
    desk.page.set_input_files(DROP, {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo_bytes(320)})
    desk.page.wait_for_selector("#photo .photo-face >> nth=2")
    assert "choose one" in desk.message()
    desk.page.check("#effort input[value=quick]")
    words = "document.querySelector('#progress .progress-words')?.innerText"
    desk.page.click("#photo .photo-face >> nth=1")
    desk.page.click("#rebuild")
    desk.page.wait_for_function(f"{words}?.startsWith('Done')")
    desk.page.click("#photo .photo-face >> nth=2")
    desk.page.click("#rebuild")
    desk.page.wait_for_function(f"{words}?.startsWith('Waiting')")
    desk.page.click("#stop")
    desk.page.wait_for_function(f"{words}?.startsWith('Stopped before')")
    desk.page.click("#send")
    assert "ace 3 is not rebuilt yet" in desk.message()
    desk.page.click("#photo .photo-face >> nth=1")
    desk.page.click("#send")
    desk.wait("Studio.tab === 'edit' && Studio.face.title === 'Photo, face 2'")


def test_a_project_opens_with_its_photo(desk, browser, served, tmp_path, monkeypatch):  # noqa: F811
    photo = {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": photo_bytes(230)}
    desk.page.set_input_files(DROP, photo)
    desk.page.wait_for_selector("#photo .photo-face >> nth=1")
    desk.page.check("#effort input[value=quick]")
    desk.page.click("#photo .photo-face >> nth=1")
    desk.page.click("#rebuild")
    desk.page.wait_for_function("document.querySelector('#progress .progress-words')?.innerText.startsWith('Done')")
    desk.page.click("#send")
    desk.wait("Studio.tab === 'edit' && Studio.face.title === 'Photo, face 2'")
    desk.page.click("#stage .stage-modes button:has-text('Whole photo')")
    desk.page.wait_for_selector("#stage .stage-whole")
    desk.page.wait_for_function("[...document.querySelectorAll('#stage img')].some((one) => one.naturalWidth === 230)")
    with desk.page.expect_download() as download:
        desk.page.click(".tool-project")
    assert download.value.suggested_filename == "photo-face-2.zip"
    project = tmp_path / "saved.zip"
    download.value.save_as(project)

    other = Desk(browser, served.url).open()
    try:
        other.tab("face")
        other.page.set_input_files(OPEN_RECIPE, project)
        other.wait("Studio.face.title === 'Photo, face 2' && Studio.face.in_photo")
        other.tab("photo")
        shown(other, 230)
        other.page.wait_for_selector("#photo .photo-face[aria-label='Face 2 of 2'][aria-pressed=true]")
        photos = served.service.health()["photos"]
        other.page.set_input_files(DROP, photo)
        assert "open already" in other.message()
        assert served.service.health()["photos"] == photos
        assert other.problems == []
    finally:
        other.close()
