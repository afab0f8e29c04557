"""The page without a browser: endpoints for programs, limits, state of a visit, command line."""

from __future__ import annotations

import base64
import copy
import io
import json
import logging
import math
import re
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file  # type: ignore[import-untyped]
from PIL import Image
from test_text import StandIns  # type: ignore[import-not-found]
from toy import toy_assets, toy_service  # type: ignore[import-not-found]

from app import cli, create_demo, figures, guard, pictures, uploads
from app.api import Programs
from app.curves import History
from app.desk import Desk
from app.jobs import LongJobs, StoppableJobs
from app.server import MAX_BODY, Settings, launch
from app.shell import Shell
from app.tabs.about import _facts
from app.tabs.describe import _progress as describe_progress
from app.tabs.photo import _progress as photo_progress
from app.tasks import Task
from app.visit import MAX_FACES, Description, Rebuilding, Visit, close_visit
from app.zero import ZeroJobs
from editing.device.loading import Assets
from editing.errors import EditingError
from editing.guidance.likeness import LikenessScale
from editing.photo.detect import Detection
from editing.results import Change, InversionProgress
from editing.service import EditingService, Limits
from editing.text.results import TextProgress
from memorygan.analysis.blocks import Bar, Piece

ROOT = Path(__file__).resolve().parents[1]
ENDPOINTS = {"/generate", "/edit", "/swap", "/describe", "/compose", "/invert", "/retouch", "/model"}


def one_face(pixels: np.ndarray) -> list[Detection]:
    """A detector that sees a face in the middle of every picture."""
    height, width = pixels.shape[:2]
    points = np.array([(0.4, 0.42), (0.6, 0.42), (0.5, 0.55), (0.42, 0.68), (0.58, 0.68)])
    box = (0.3 * width, 0.2 * height, 0.7 * width, 0.8 * height)
    return [Detection(box, 0.99, points * (width, height))]


@dataclass
class Served:
    """A page that is being served."""

    url: str
    service: EditingService
    folder: Path
    demo: gr.Blocks


def serve(service: EditingService, folder: Path, settings: Settings | None = None) -> Iterator[Served]:
    """Serves a page until the generator is closed; uploads and files for programs lie in ``folder``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        # Gradio's heartbeat is quicker in its tests.
        patch.setenv("GRADIO_IS_E2E_TEST", "1")
        demo = create_demo(service)
        address = launch(demo, service, settings or Settings(), prevent_thread_lock=True, quiet=True)
        try:
            yield Served(address.rstrip("/"), service, folder, demo)
        finally:
            demo.close(verbose=False)
            service.close()


def photo_bytes(side: int = 160) -> bytes:
    """A JPEG with smooth colours."""
    line = np.linspace(0, 255, side)
    pixels = np.stack([np.add.outer(line, 0 * line), np.add.outer(0 * line, line), np.full((side, side), 128)], axis=-1)
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def full_service() -> EditingService:
    """The toy with everything a service can have; its judge of words knows red, green and grey."""
    return toy_service(detector=one_face, guides=StandIns())


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    yield from serve(full_service(), tmp_path_factory.mktemp("gradio"))


@pytest.fixture(scope="module")
def client(served):
    return Client(served.url, verbose=False)


@pytest.fixture
def service():
    with full_service() as opened:
        yield opened


@pytest.fixture
def desk(service):
    return Desk(service)


@pytest.fixture
def visit(desk, service):
    here = Visit()
    view = service.new_face(3)
    desk.enter(here, view, desk.label_of(view))
    return here


# --- Endpoints for programs ------------------------------------------------------------------------------------------


def test_programs_see_the_named_endpoints_and_nothing_else(client):
    described = client.view_api(return_format="dict")
    assert set(described["named_endpoints"]) == ENDPOINTS
    assert described["unnamed_endpoints"] == {}
    for name, endpoint in described["named_endpoints"].items():
        assert endpoint["description"], f"{name} has no description"


def test_generate_gives_the_same_face_for_the_same_seed_and_another_for_none(client):
    picture, recipe = client.predict(seed=7, api_name="/generate")
    again, _ = client.predict(seed=7, api_name="/generate")
    other, _ = client.predict(api_name="/generate")
    assert Path(picture).read_bytes() == Path(again).read_bytes() != Path(other).read_bytes()
    assert recipe["source"] == {"kind": "seed", "seed": 7, "truncation": 0.7}


def test_a_picture_for_programs_carries_its_recipe(client, served):
    picture, recipe = client.predict(seed=7, api_name="/generate")
    view = served.service.open_recipe(Path(picture).read_bytes())
    assert served.service.recipe(view.session).to_dict() == recipe


def test_edit_and_swap_say_how_local_they_were(client):
    _, recipe = client.predict(seed=7, api_name="/generate")
    _, other = client.predict(seed=8, api_name="/generate")
    _, edited, change = client.predict(recipe, {"hair.lightness": 2}, api_name="/edit")
    assert change["parts"] == ["hair"] and change["inside"] > 10 > change["outside"]
    _, swapped, change = client.predict(edited, other, parts=["mouth"], group="texture", api_name="/swap")
    assert [edit["op"] for edit in swapped["edits"]] == ["slider", "swap"]
    assert change["parts"] == ["mouth"]


def test_describe_changes_what_it_may_and_says_how_local_it_was(client):
    _, recipe = client.predict(seed=7, api_name="/generate")
    asked = {"recipe": recipe, "prompt": "red hair", "strength": "strong", "steps": 15, "seed": 1}
    picture, described, change = client.predict(**asked, api_name="/describe")
    assert [(edit["op"], edit["parts"]) for edit in described["edits"]] == [("text", ["hair"])]
    assert change["parts"] == ["hair"] and change["inside"] > 1 > change["outside"]
    again, *_ = client.predict(**asked, api_name="/describe")
    assert Path(again).read_bytes() == Path(picture).read_bytes()
    _, described, change = client.predict(**asked | {"parts": ["skin"]}, api_name="/describe")
    assert change["parts"] == ["skin"]
    _, described, _ = client.predict(**asked, weights={"clip": 3}, api_name="/describe")
    assert described["edits"][0]["weights"]["clip"] == 3
    assert described["edits"][0]["layers"] == "texture", "what red hair is about"
    _, described, _ = client.predict(**asked, layers="all", api_name="/describe")
    assert described["edits"][0]["layers"] == "all"


def test_invert_takes_a_square_and_leaves_no_upload_behind(client, served, tmp_path):
    file = tmp_path / "photo.jpg"
    file.write_bytes(photo_bytes(171))
    _, recipe, scores = client.predict(handle_file(str(file)), steps=2, crop=[10, 10, 140], api_name="/invert")
    assert recipe["source"]["origin"] == "photo"
    assert 0 <= scores["error"] <= 255
    assert list(served.folder.rglob("photo.jpg")) == []


@pytest.mark.parametrize(
    ("arguments", "endpoint", "words"),
    [
        ({"seed": -1}, "/generate", "Seed"),
        ({"recipe": {"format": "else"}, "sliders": {}}, "/edit", "recipe"),
        ({"recipe": None, "sliders": [1]}, "/edit", "object"),
        ({"recipe": None, "prompt": "red hair", "weights": [1]}, "/describe", "object"),
        ({"recipe": {"format": "else"}, "prompt": "red hair"}, "/describe", "recipe"),
    ],
)
def test_programs_are_refused_with_one_sentence(client, arguments, endpoint, words):
    with pytest.raises(Exception, match=words) as caught:
        client.predict(**arguments, api_name=endpoint)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and "Traceback" not in message


@pytest.mark.parametrize(
    ("arguments", "endpoint", "words"),
    [
        ({"frame_ms": "slow"}, "compose", "frame_ms is 'slow'; use a number"),
        ({"frame_ms": math.inf}, "compose", "frame_ms is inf; use a number"),
        ({"frame_ms": 1}, "compose", "20"),
    ],
)
def test_values_that_are_no_numbers_are_refused(service, arguments, endpoint, words):
    view = service.new_face(3)
    with pytest.raises(EditingError, match=words):
        getattr(Programs(service, service), endpoint)(service.recipe(view.session).to_dict(), **arguments)
    assert service.health()["sessions"] == 1, "what was opened for the call is closed"


@pytest.mark.parametrize("crop", [[1, 2, None], ["a", 2, 3], [math.nan, 2, 3]])
def test_a_square_that_is_none_is_refused(service, crop, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    file = tmp_path / ("a" * 64) / "photo.jpg"
    file.parent.mkdir()
    file.write_bytes(photo_bytes())
    with pytest.raises(EditingError, match=r"each value of crop is .*; use a number"):
        Programs(service, service).invert({"path": str(file)}, crop=crop, steps=1)


def test_the_examples_in_the_readme_run(served, tmp_path, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = [text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "gradio_client" in text]
    used = set(re.findall(r'api_name="(/\w+)"', "".join(examples)))
    assert used == ENDPOINTS
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(photo_bytes())
    Path("other.jpg").write_bytes(photo_bytes(160))
    for text in examples:
        assert "http://127.0.0.1:7860" in text
        exec(compile(text.replace("http://127.0.0.1:7860", served.url), "README.md", "exec"), {})


def test_the_page_is_an_mcp_server_when_asked(tmp_path):
    pytest.importorskip("mcp")
    for page in serve(toy_service(), tmp_path, Settings(mcp=True)):
        tools = httpx.get(f"{page.url}/gradio_api/mcp/schema").json()
        assert {tool["name"].split("_")[-1] for tool in tools} == {name.strip("/") for name in ENDPOINTS}
        for tool in tools:
            assert tool["description"]
            for name, field in tool["inputSchema"]["properties"].items():
                assert isinstance(field["type"], str) and field["description"], f"{tool['name']}: {name}"


# --- Safety ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/etc/passwd", str(ROOT / "README.md"), str(ROOT / "app" / "__main__.py")])
def test_no_file_of_the_server_can_be_fetched(served, path):
    for address in (f"{served.url}/gradio_api/file={path}", f"{served.url}/file={path}"):
        assert httpx.get(address).status_code in (403, 404)


@pytest.mark.parametrize("meta", [{"meta": {"_type": "gradio.FileData"}}, {}])
def test_a_path_in_place_of_an_upload_is_refused(served, meta):
    secret = served.folder.parent / "secret.jpg"
    secret.write_bytes(photo_bytes())
    body = {"data": [{"path": str(secret), **meta}, 0, 1, [0, 0, 100]]}
    started = httpx.post(f"{served.url}/gradio_api/call/invert", json=body)
    assert started.status_code == 200
    answer = httpx.get(f"{served.url}/gradio_api/call/invert/{started.json()['event_id']}", timeout=30).text
    assert "event: error" in answer and "data:image" not in answer
    assert secret.exists()


def test_uploads_that_were_not_uploaded_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"secret")
    inside = tmp_path / "uploads" / ("a" * 64) / "photo.png"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(b"photo")
    for payload in (
        None,
        {},
        {"path": 3},
        {"path": str(outside)},
        {"path": str(inside / ".." / ".." / ".." / "outside.png")},
    ):
        with pytest.raises(EditingError):
            uploads.take(payload)
    assert uploads.take({"path": str(inside)}) == b"photo"
    assert not inside.parent.exists() and outside.exists()


def test_requests_that_are_too_large_are_refused(served):
    large = b"x" * (MAX_BODY + 1)
    answer = httpx.post(f"{served.url}/gradio_api/queue/join", content=large)
    assert answer.status_code == 413 and "MiB" in answer.text

    def unannounced() -> Iterator[bytes]:
        for start in range(0, len(large), 2**20):
            yield large[start : start + 2**20]

    try:
        status = httpx.post(f"{served.url}/gradio_api/queue/join", content=unannounced()).status_code
    except httpx.HTTPError:
        status = 0  # hung up on
    assert status != 200
    file = {"files": ("photo.jpg", b"x" * (uploads.MAX_SAVED + 1))}
    assert httpx.post(f"{served.url}/gradio_api/upload", files=file, timeout=60).status_code == 413


def test_health_answers_without_a_login_and_the_page_does_not(tmp_path):
    for page in serve(toy_service(), tmp_path, Settings(auth=(("ada", "secret"),))):
        health = httpx.get(f"{page.url}/health")
        assert health.status_code == 200 and health.json()["status"] == "ok"
        assert httpx.get(f"{page.url}/config").status_code == 401
        assert "studio-first" not in httpx.get(page.url).text


def test_a_flood_is_refused_with_a_sentence(tmp_path, monkeypatch):
    service = toy_service()
    gate, real = threading.Event(), service.new_face

    def slow(*args, **kwargs):
        gate.wait(30)
        return real(*args, **kwargs)

    for page in serve(service, tmp_path, Settings(queue_size=1)):
        program = Client(page.url, verbose=False)
        monkeypatch.setattr(service, "new_face", slow)
        try:
            jobs = [program.submit(seed=3, api_name="/generate") for _ in range(14)]
            # Eight are at work and one waits; which of them is a matter of luck.
            ended, _ = wait([job.future for job in jobs], timeout=20, return_when=FIRST_COMPLETED)
            problems = [str(future.exception()) for future in ended]
        finally:
            gate.set()
        assert problems and all("full" in problem for problem in problems)


def test_tokens_of_sessions_never_reach_the_browser(desk, visit, service):
    view = service.view(visit.here().token)
    told = json.dumps([desk.face(visit, view), desk.live(visit, view, 1), desk.strip(visit), desk.stored(visit)])
    assert view.session not in told


# --- A visit ---------------------------------------------------------------------------------------------------------


def lighter(desk: Desk, visit: Visit, value: float, seq: int = 1) -> dict:
    return desk.commit(visit, lambda token: desk.service.set_sliders(token, {"hair.lightness": value}), seq)[0]


def test_undo_goes_on_to_the_face_before(desk, visit, service):
    lighter(desk, visit, 2.0)
    first = visit.here()
    view = service.new_face(5)
    desk.enter(visit, view, desk.label_of(view))
    assert desk.step(visit, -1).history == ("Hair: Lightness +2",) and visit.here() is first
    assert desk.step(visit, -1).history == ()
    assert desk.step(visit, -1).session == first.token, "nothing lies before"
    assert desk.step(visit, 1).history == ("Hair: Lightness +2",)
    assert desk.step(visit, 1).session == view.session
    assert not desk.face(visit, service.view(view.session))["redo"]


def test_an_edit_after_undo_cuts_the_way_forward(desk, visit, service):
    view = service.new_face(5)
    desk.enter(visit, view, desk.label_of(view))
    desk.step(visit, -1)
    assert not lighter(desk, visit, 1.0)["redo"]


def test_a_face_the_server_forgot_is_opened_again_from_its_recipe(desk, visit, service, monkeypatch):
    told = []
    monkeypatch.setattr(gr, "Info", lambda text, **_: told.append(text))
    before = lighter(desk, visit, 2.0)
    service.close_session(visit.here().token)
    after = lighter(desk, visit, 1.0)
    assert after["sliders"] == {"hair.lightness": 1.0} and after["undo"]
    assert after["face"] != before["face"], "late previews of the old session must not be taken for its own"
    assert len(told) == 1


def test_a_refused_edit_leaves_the_face_as_it_was(desk, visit, monkeypatch):
    told = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: told.append(text))
    face, _ = desk.commit(visit, lambda token: desk.service.set_sliders(token, {"nose.length": 1.0}))
    assert face["edits"] == 0 and face["seq"] is None
    assert len(told) == 1 and told[0].endswith(".")


def test_an_edit_of_a_face_that_was_left_does_not_replace_the_one_on_show(desk, visit, service):
    old = visit.here().token
    view = service.new_face(5)
    desk.enter(visit, view, desk.label_of(view))
    face, _ = desk.commit(visit, lambda token: service.set_sliders(old, {"hair.lightness": 1.0}))
    assert face["title"] == "Face 5" and service.view(old).history


def test_an_edit_meant_for_a_face_that_was_left_is_kept_with_its_own(desk, visit, service):
    old = visit.here()
    view = service.new_face(5)
    desk.enter(visit, view, desk.label_of(view))
    face, _ = desk.commit(visit, lambda token: service.set_sliders(token, {"hair.lightness": 1.0}), 4, old.id)
    assert face["title"] == "Face 5" and face["edits"] == 0
    assert service.view(old.token).sliders == {"hair.lightness": 1.0}
    assert "hair.lightness" in old.recipe
    # A face keeps its id when the server had to open it anew.
    service.close_session(visit.here().token)
    again, _ = desk.commit(visit, lambda token: service.set_sliders(token, {"hair.lightness": 2.0}), 5, visit.here().id)
    assert again["title"] == "Face 5" and again["sliders"] == {"hair.lightness": 2.0}
    # One that is gone takes the edit along.
    gone, _ = desk.commit(visit, lambda token: service.set_sliders(token, {"hair.lightness": 3.0}), 6, 999)
    assert gone["sliders"] == {"hair.lightness": 2.0}


def test_the_strip_is_bounded_and_closes_what_it_drops(desk, visit, service):
    oldest = visit.here().token
    for seed in range(100, 100 + MAX_FACES):
        view = service.new_face(seed)
        desk.enter(visit, view, desk.label_of(view))
    assert len(desk.strip(visit)["items"]) == MAX_FACES
    assert oldest not in visit.tokens()
    with pytest.raises(EditingError):
        service.view(oldest)


def test_a_visit_that_ends_takes_everything_along(desk, visit, service):
    lighter(desk, visit, 1.0)
    visit.photo = service.open_photo(photo_bytes()).photo
    visit.other = desk.opened(visit, service.new_face(9), "other")
    visit.rebuilding = Rebuilding("photo", Task(lambda: iter(()), lambda step: None))
    visit.description = Description("red hair", Task(lambda: iter(()), lambda step: None), {}, History([]))
    tokens = visit.tokens()
    assert len(tokens) == 2
    close_visit(service, visit)
    assert visit.rebuilding.task.cancel.cancelled and visit.description.task.cancel.cancelled
    for token in tokens:
        with pytest.raises(EditingError):
            service.view(token)
    assert service.health()["photos"] == 0
    close_visit(service, None)


def test_what_the_browser_keeps_restores_the_face_and_its_history(desk, visit, service):
    lighter(desk, visit, 1.0)
    shown = lighter(desk, visit, 2.5)
    view = service.open_recipe(desk.stored(visit)["recipe"])
    again = Visit()
    desk.enter(again, view, "Face 3")
    assert desk.face(again, view)["image"] == shown["image"]
    assert view.can_undo


# --- Photos of a page


def two_faces(service: EditingService) -> tuple[bytes, bytes]:
    """A photo, and the project of two faces that were edited in it."""
    data = photo_bytes(320)
    token = service.open_photo(data).photo
    views = []
    for left in (0.0, 160.0):
        *_, last = service.invert(token, crop=(left, 40.0, 150.0), steps=1)
        assert last.view is not None
        views.append(service.set_sliders(last.view.session, {"hair.lightness": 2.0}))
    project = service.export_project(views[0].session)
    for view in views:
        service.close_session(view.session)
    service.close_photo(token)
    return data, project


def test_a_project_brings_its_photo_and_all_its_faces(desk, visit, service):
    data, project = two_faces(service)
    assert service.health()["photos"] == 0
    view = desk.open_file(visit, project)
    assert view.in_photo and visit.photo == service.photos_of(view.session)[0]
    labels = [face.label for face in visit.faces]
    assert len(set(labels)) == 3 and labels[0] == "Face 3" and visit.here().label == labels[2]
    assert all(label.startswith("Photo, face ") for label in labels[1:])
    face = desk.face(visit, view)
    assert face["photo"] == visit.photo_shown["id"] > 0
    assert visit.photo_shown["width"] == 320
    assert service.open_photo(data, visit.held_photos()).photo == visit.photo, "it is known when it is uploaded"
    assert service.health()["photos"] == 1
    close_visit(service, visit)
    assert service.health()["photos"] == 0 and service.health()["sessions"] == 0


def test_faces_that_are_not_on_show_find_their_photo_again_as_well(desk, visit, service, monkeypatch):
    told = []
    monkeypatch.setattr(gr, "Info", lambda text, **_: told.append(text))
    data, project = two_faces(service)
    with zipfile.ZipFile(io.BytesIO(project)) as file:
        desk.open_file(visit, file.read("recipe.json"))
    assert visit.here().label == "Opened face"
    visit.go(visit.faces[0])
    told.clear()
    assert not desk.reunite(visit, service.open_photo(photo_bytes(300)).photo)
    assert desk.reunite(visit, service.open_photo(data).photo)
    labels = [face.label for face in visit.faces]
    assert len(set(labels)) == 3 and all(label.startswith("Photo, face ") for label in labels[1:])
    assert all(service.view(face.token).in_photo for face in visit.faces[1:])
    assert len(told) == 1 and "faces of this visit" in told[0]
    assert not desk.reunite(visit, visit.held_photos()[0]), "nothing is missing any more"


# --- Figures of the About tab


def test_the_figures_of_the_paper_stand_beside_ours(service):
    text = figures.complexity(service.kind, service.config)
    rows = [re.sub(r"<[^>]*>", " ", row).split() for row in re.findall(r"<tr>(.*?)</tr>", text)]
    known = {row[0]: row[1:] for row in rows[1:]}
    paper = {"1": ("17.7", 103.4), "10": ("17.7", 106.4), "100": ("17.8", 136.3), "1000": ("19.1", 435.4)}
    for count, (weights, macs) in paper.items():
        assert known[count][:2] == [weights, str(macs)], "as the paper prints them"
        assert known[count][2] == weights
        assert float(known[count][3]) == pytest.approx(macs, rel=0.02)
        assert float(known[count][4]) < float(known[count][3])
    assert known["13"][-5:-3] == ["–", "–"], "the paper says nothing of this checkpoint"


def test_what_was_measured_is_shown_for_its_own_checkpoint_only(tmp_path):
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    piece = Piece((), bars=(Bar("outside the part, of 255", 0.31, 1.0, False, 64),))
    for name, sha in (("locality", "mine"), ("quality", "other")):
        (pieces / f"{name}.json").write_text(
            json.dumps({"key": {"inputs": {"checkpoint": sha}}, "piece": piece.to_json()})
        )
    (pieces / "broken.json").write_text("{")
    shown = figures.measured("mine", tmp_path)
    assert shown.count("outside the part") == 1 and "at most 1" in shown and "0.31" in shown
    assert figures.measured("nobody's", tmp_path) == figures.measured("mine", tmp_path / "none") == ""


# --- Words and pictures ----------------------------------------------------------------------------------------------


def test_the_caption_says_what_changed_outside_the_part(desk, visit):
    face = lighter(desk, visit, 2.0)
    assert re.search(r"changed the hair\. Changed outside: \d+\.\d of 255", face["caption"])
    assert "Hair: Lightness +2" in face["alt"]


def test_the_caption_counts_many_parts_and_says_when_nothing_shows(desk, visit):
    face = lighter(desk, visit, 2.0)
    assert "the " not in desk.names(["hair"] * 5)
    assert desk.names(["hair", "nose"]) == "the hair and nose"
    assert desk.names([]) == ""
    view = desk.run(visit, desk.service.view)
    nothing = replace(view.change, map=np.zeros_like(view.change.map))
    assert desk._caption("The last step", nothing, view) == (
        "The last step changed nothing that can be seen. Try a stronger setting."
    )
    assert desk._caption("The last step", nothing, replace(view, in_photo=True)).endswith("from another face.")
    assert face["caption"] == desk._caption("The last step", view.change, view)
    hidden = replace(view.change, parts=("hair",), inside=0.05)
    assert "changed nothing that can be seen" in desk._caption("The last step", hidden, view)
    assert "changed the hair" in desk._caption("The last step", replace(hidden, inside=0.5), view)
    nowhere = replace(hidden, area=0.0, inside=0.0)
    assert "changed the hair" in desk._caption("The last step", nowhere, view), "what is on no part map may be seen"


def test_long_jobs_are_said_to_run_on_a_lent_gpu_only_where_they_do(desk):
    for jobs, lent in ((desk.service, False), (cast(LongJobs, SimpleNamespace(lent=ZeroJobs.lent)), True)):
        shell = cast(Shell, SimpleNamespace(service=desk.service, jobs=StoppableJobs(jobs)))
        assert ("ZeroGPU" in _facts(shell)) is lent


def test_a_description_that_found_nothing_better_shows_no_preview():
    found = TextProgress("done", 3, 5, np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8))
    history = History(["total"])
    assert describe_progress(found, history)["image"] == ""
    assert describe_progress(replace(found, phase="optimise"), history)["image"].startswith("data:image/jpeg")


def test_part_ids_survive_the_way_to_the_browser():
    ids = np.arange(64, dtype=np.uint8).reshape(8, 8)
    data = base64.b64decode(pictures.ids(ids).partition(",")[2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), ids)


def test_a_change_map_does_not_make_rounding_look_like_a_change():
    face = np.full((8, 8, 3), 128, dtype=np.uint8)
    faint, strong = np.zeros((8, 8), dtype=np.float32), np.zeros((8, 8), dtype=np.float32)
    faint[0, 0], strong[0, 0] = 1.0, 200.0
    maps = [pictures.heat(Change(values, 1.0, 0.0, 0.0, 0.5), face) for values in (faint, strong)]
    quiet = maps[0][4, 4].astype(int)
    assert np.abs(maps[0][0, 0].astype(int) - quiet).max() < 12
    assert np.abs(maps[1][0, 0].astype(int) - quiet).max() > 150


def test_an_unexpected_error_becomes_a_sentence_and_goes_to_the_log(monkeypatch, caplog):
    told = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: told.append(text))

    @guard.guarded
    def handler() -> None:
        raise KeyError("inner workings")

    with caplog.at_level(logging.ERROR):
        assert handler() == gr.skip()
    assert told == [guard.UNEXPECTED]
    assert "inner workings" in caplog.text


# --- What is off -----------------------------------------------------------------------------------------------------


def blocks_of(demo: gr.Blocks) -> dict:
    return {block.elem_id: block for block in demo.blocks.values() if getattr(block, "elem_id", None)}


def test_what_is_not_available_is_disabled_and_says_why():
    with EditingService(toy_assets_without()) as service:
        found = blocks_of(create_demo(service))
    assert found["sliders"].props["reason"] == "This model has no sliders at all."
    assert not found["save-mp4"].interactive
    assert found["save-gif"].interactive


def toy_assets_without() -> Assets:
    """The toy without sliders and MP4."""
    missing = {"sliders": "this model has no sliders at all", "mp4": "There is no ffmpeg."}
    return replace(toy_assets(sliders=False), missing=missing, notice="This is a toy.")


def test_the_notice_is_on_the_page():
    with EditingService(toy_assets_without()) as service:
        found = blocks_of(create_demo(service))
    assert "This is a toy." in found["notice"].value


# --- Command line ----------------------------------------------------------------------------------------------------


def test_defaults_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7861")
    monkeypatch.setenv("MEMORYGAN_DEVICE", "cpu")
    monkeypatch.setenv("MEMORYGAN_AUTH", "ada:secret bob:word:with:colons")
    monkeypatch.setenv("MEMORYGAN_MCP", "true")
    options = cli.parse([])
    assert not options.open, "nobody sits at a terminal"
    assert (options.host, options.port, options.device, options.mcp) == ("0.0.0.0", 7861, "cpu", True)
    assert options.auth == (("ada", "secret"), ("bob", "word:with:colons"))
    assert not options.share
    monkeypatch.setenv("MEMORYGAN_AUTH", "")
    assert cli.parse([]).auth == ()
    assert cli.parse(["--auth", "ada:my secret", "--auth", "bob:b c:d"]).auth == (
        ("ada", "my secret"),
        ("bob", "b"),
        ("c", "d"),
    )
    given = cli.parse(["--host", "127.0.0.1", "--port", "8000", "--no-mcp", "--queue-size", "3"])
    assert (given.host, given.port, given.mcp, given.queue_size) == ("127.0.0.1", 8000, False, 3)


@pytest.mark.parametrize(
    ("variable", "said", "name", "found"),
    [
        ("MEMORYGAN_MAX_SESSIONS", "5", "max_sessions", 5),
        ("MEMORYGAN_QUEUE_SIZE", "9", "queue_size", 9),
        ("MEMORYGAN_CHECKPOINT", "some/face.safetensors", "checkpoint", Path("some/face.safetensors")),
        ("MEMORYGAN_SHARE", "true", "share", True),
        ("MEMORYGAN_SHARE", "0", "share", False),
    ],
)
def test_what_a_variable_says_reaches_the_service_and_the_server(monkeypatch, variable, said, name, found):
    monkeypatch.setenv(variable, said)
    assert getattr(cli.parse([]), name) == found
    seen: dict[str, Any] = {}

    def opened(checkpoint, device, *, limits, **_):
        seen.update(checkpoint=checkpoint, max_sessions=limits.max_sessions)
        return toy_service(limits)

    def launched(demo, service, settings, **_):
        seen.update(queue_size=settings.queue_size, share=settings.share)
        raise OSError("no further")

    monkeypatch.setattr(EditingService, "open", opened)
    monkeypatch.setattr("app.server.launch", launched)
    assert cli.main(["--device", "cpu"]) == 2
    assert seen[name] == found


def test_as_many_sessions_as_asked_for_are_kept_ready():
    with toy_service(Limits(max_sessions=2)) as service:
        for seed in range(4):
            service.new_face(seed)
        assert service.health()["sessions"] == 2 and service.health()["archived"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "99999"],
        ["--queue-size", "0"],
        ["--auth", "nameonly"],
        ["--auth", ""],
        ["--auth", "ada:"],
        ["--max-sessions", "many"],
    ],
)
def test_unusable_options_end_with_a_sentence(arguments, capsys):
    with pytest.raises(SystemExit):
        cli.parse(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there_ends_with_a_sentence(tmp_path, capsys):
    assert cli.main(["--checkpoint", str(tmp_path / "none.safetensors"), "--device", "cpu"]) == 2
    problem = capsys.readouterr().err
    assert "cannot start" in problem and problem.count("\n") == 1


def test_a_judge_that_does_not_exist_ends_with_a_sentence(capsys):
    assert cli.main(["--text-judge", "oracle", "--device", "cpu"]) == 2
    problem = capsys.readouterr().err
    assert "oracle" in problem and problem.count("\n") == 1


def test_the_page_has_nothing_gradio_cannot_copy(desk):
    """It copies the configuration for every visitor, and is slow and noisy about what it cannot copy."""
    copy.deepcopy(create_demo(desk.service).get_config_file())


def test_nothing_writes_beside_the_sources():
    """Gradio leaves a stub file beside every module that subclasses one of its components."""
    assert list((ROOT / "app").rglob("*.pyi")) == []


@pytest.mark.parametrize(
    ("cosine", "more", "told"),
    [
        (0.9, True, []),
        (0.45, True, ["only similar to the person", "Rebuild closer"]),
        (0.1, True, ["someone other than the person", "Rebuild closer"]),
        (0.1, False, ["someone other than the person", "may not get nearer"]),
    ],
)
def test_a_reconstruction_that_lost_the_person_says_so(service, cosine, more, told):
    view = service.new_face(3)
    likeness = LikenessScale(same=0.6, similar=0.4, strangers=0.0, another_photo=0.7, measured="").read(cosine)
    picture = np.zeros((8, 8, 3), np.uint8)
    done = InversionProgress("done", 5, 5, picture, picture, identity=cosine, view=view)
    shown = photo_progress(done, likeness, more)
    assert all(words in shown["words"] for words in told)
    assert told or "person" not in shown["words"]
    (score,) = [score for score in shown["scores"] if score[0] == "Likeness"]
    assert score[1] == f"{likeness.word}, {cosine:.2f}" and "strangers" in score[2]
    under_way = photo_progress(replace(done, phase="refine", view=None), likeness)
    assert "person" not in under_way["words"], "nothing is lost before it is done"


def test_a_photo_comes_back_in_full_from_edits_that_are_given_it(client, tmp_path):
    before = np.random.default_rng(0).integers(0, 256, (180, 240, 3), dtype=np.uint8)
    file = tmp_path / "photo.png"
    Image.fromarray(before).save(file)
    framed, recipe, _ = client.predict(handle_file(str(file)), steps=1, crop=[20, 10, 140], api_name="/invert")
    with Image.open(framed) as image:
        assert image.size == (512, 512)
    asked = {"recipe": recipe, "sliders": {"hair.lightness": 2}, "photo": handle_file(str(file))}
    whole, edited, _ = client.predict(**asked, api_name="/edit")
    with Image.open(whole) as image:
        after = np.asarray(image.convert("RGB"))
    assert after.shape == before.shape
    assert np.array_equal(after[155:], before[155:])
    assert edited["photo"] == recipe["photo"]
    alone, *_ = client.predict(**asked, face_only=True, api_name="/edit")
    with Image.open(alone) as image:
        assert image.size == (512, 512)
    Image.fromarray(255 - before).save(file)
    with pytest.raises(Exception, match="another photo"):
        client.predict(**{**asked, "photo": handle_file(str(file))}, api_name="/edit")
    picture, recipe = client.predict(handle_file(str(file)), edited, steps=1, api_name="/retouch")
    with Image.open(picture) as image:
        assert image.size == (240, 180)
    assert [edit["slider"] for edit in recipe["edits"]] == ["hair.lightness"]
    assert recipe["photo"]["sha256"] != edited["photo"]["sha256"]
    square = {"photo": handle_file(str(file)), "recipe": edited, "steps": 1, "crop": [100, 10, 120]}
    _, recipe = client.predict(**square, api_name="/retouch")
    assert recipe["photo"]["frame"] == [100, 10, 120, 0]
    with pytest.raises(Exception, match="no square"):
        client.predict(**{**square, "crop": [100]}, api_name="/retouch")


def test_sliders_go_as_far_as_is_of_use(desk):
    assert {slider["most"] for slider in desk.sliders if slider["id"] != "eyeglass.worn"} == {3}
    assert all(slider["most"] == 6 for slider in desk.sliders if slider["id"] == "eyeglass.worn")
