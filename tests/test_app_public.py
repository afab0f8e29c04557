"""The page in public: fair shares, callers that went away, what is kept of calls, and requests of hostile sizes."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio_client import Client  # type: ignore[import-untyped]
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from test_app import Served, full_service, photo_bytes, serve  # type: ignore[import-not-found]
from toy import toy_service  # type: ignore[import-not-found]

from app import guard, uploads
from app.api import Programs
from app.clients import client_of, owner_of
from app.doors import FREE, Patience
from app.presence import Presence
from app.server import Settings
from app.sizes import weight
from app.states import States
from editing.errors import EditingError, quoted
from editing.service import EditingService

PATIENCE = 20.0
LONG = {"prompt": "red hair", "steps": 2000, "strength": "strong", "seed": 1}


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    settings = Settings(queue_size=6, first=4.0, grace=1.0)
    yield from serve(full_service(), tmp_path_factory.mktemp("gradio"), settings)


@pytest.fixture(scope="module")
def service() -> Iterator[EditingService]:
    with full_service() as opened:
        yield opened


@pytest.fixture
def recipe(served) -> dict[str, Any]:
    view = served.service.new_face(7)
    try:
        return dict(served.service.recipe(view.session).to_dict())
    finally:
        served.service.close_session(view.session)


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def describe(page: Served, recipe: dict[str, Any]) -> httpx.Response:
    """Asks for a description and does not wait for it."""
    data = [recipe, LONG["prompt"], [], LONG["strength"], LONG["steps"], "", None, LONG["seed"], None]
    return httpx.post(f"{page.url}/gradio_api/call/describe", json={"data": data}, timeout=30)


def idle(page: Served) -> bool:
    queue = page.demo._queue
    return page.service.health()["jobs"] == 0 and not queue.event_ids_to_events and not len(queue)


# --- Fair shares -----------------------------------------------------------------------------------------------------


def test_a_flood_of_long_jobs_leaves_others_their_share(served, recipe):
    """More calls than there is room for, and nobody opens their streams."""
    with ThreadPoolExecutor(16) as callers:  # all within the time a stream may take to be opened, on any machine
        answers = [answer.status_code for answer in callers.map(lambda _: describe(served, recipe), range(72))]
    assert set(answers) <= {200, 503} and 503 in answers
    # Another page of the same machine: quick work is done at once, and a long job of its own has a place.
    program = Client(served.url, verbose=False)
    _, mine = program.predict(seed=3, api_name="/generate")
    assert mine["source"]["seed"] == 3
    _, described, _ = program.predict(mine, "red hair", steps=3, seed=1, api_name="/describe")
    assert described["edits"]
    assert httpx.get(f"{served.url}/health", timeout=5).json()["status"] == "ok"
    until(lambda: idle(served), "jobs that nobody waits for go on")


def test_a_stream_that_was_opened_keeps_its_job(served, recipe):
    event = describe(served, recipe).json()["event_id"]
    with httpx.stream("GET", f"{served.url}/gradio_api/call/describe/{event}", timeout=30):
        until(lambda: served.service.health()["jobs"] == 1, "the job begins")
        time.sleep(5.5)  # longer than grace and first together
        assert served.service.health()["jobs"] == 1
    until(lambda: idle(served), "the job goes on after the connection was dropped")


def test_a_cancelled_call_and_a_closed_client_end_their_jobs(served, recipe):
    program = Client(served.url, verbose=False)
    asked = program.submit(recipe, **LONG, api_name="/describe")
    until(lambda: served.service.health()["jobs"] == 1, "the job begins")
    session = next(iter(served.demo._queue.event_ids_to_events.values()))
    body = {"session_hash": session.session_hash, "fn_index": session.fn._id, "event_id": session._id}
    assert httpx.post(f"{served.url}/gradio_api/cancel", json=body, timeout=30).status_code == 200
    until(lambda: idle(served), "a cancelled job goes on")
    asked.cancel()


def test_whoever_asks_is_told_apart():
    page = SimpleNamespace(client=SimpleNamespace(host="203.0.113.9"))
    assert owner_of(page, None, "abc") == "203.0.113.9/abc"
    assert owner_of(page, "ada/b", "abc") == "login ada b/abc"
    assert owner_of(SimpleNamespace(client=None)) == "unknown/"
    assert client_of("2001:db8:1:2:3:4:5:6") == client_of("2001:db8:1:2::1") == "2001:db8:1:2::"
    assert client_of("::ffff:203.0.113.9") == "203.0.113.9"


def test_a_stream_may_come_back_for_a_while():
    now = [0.0]
    presence = Presence(grace=30, first=10, clock=lambda: now[0])
    ended: list[str] = []
    presence.on_end(ended.append)
    assert presence.attended(["a"], since=0)
    now[0] = 11
    assert not presence.attended(["a"], since=0)
    with presence.listening("a"), presence.listening("a"):
        now[0] = 500
        assert presence.attended(["a", "b"], since=0) and not presence.attended(["b"], since=0)
    assert ended == ["a"]
    now[0] = 529
    assert presence.attended(["a"], since=0)
    now[0] = 531
    assert not presence.attended(["a"], since=0)


# --- What is kept ----------------------------------------------------------------------------------------------------


def test_nothing_is_kept_of_calls(served):
    states, queue = served.demo.state_holder, served.demo._queue
    program = Client(served.url, verbose=False)
    for seed in range(5):
        program.predict(seed=seed, api_name="/generate")
        with pytest.raises(Exception, match="recipe"):
            program.predict({"format": "x" * 100_000}, {}, api_name="/edit")
    until(lambda: idle(served), "calls go on")
    assert isinstance(states, States) and not states.session_data
    until(lambda: not queue.pending_messages_per_session, "messages that were read are kept")
    assert not queue.pending_event_ids_session and not queue._weights and not queue._tokens
    assert len(queue.event_analytics) <= 100


def test_messages_that_nobody_reads_are_forgotten(served):
    queue = served.demo._queue
    for _ in range(3):
        assert httpx.post(f"{served.url}/gradio_api/call/model", json={"data": []}).status_code == 200
    until(lambda: not queue.pending_messages_per_session, "messages are kept for nobody")


def load(page: Served, session: str) -> None:
    """What a browser asks for when the page is opened, as far as the server keeps something of it."""
    config = httpx.get(f"{page.url}/config").json()
    on_load = next(
        one
        for one in config["dependencies"]
        if [None, "load"] in [t[-2:] for t in one["targets"]] or any(target[1] == "load" for target in one["targets"])
    )
    body = {"data": [None] * len(on_load["inputs"]), "fn_index": on_load["id"], "session_hash": session}
    assert httpx.post(f"{page.url}/gradio_api/queue/join", json=body).status_code == 200
    with httpx.stream("GET", f"{page.url}/gradio_api/queue/data?session_hash={session}", timeout=30) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:") and json.loads(line[5:])["msg"] == "process_completed":
                return


def test_pages_that_were_closed_are_forgotten_the_oldest_first(served):
    states = served.demo.state_holder
    states._max_closed = 3
    before = served.service.health()["sessions"]
    for number in range(6):
        load(served, f"page-{number}")
    until(lambda: len(states.session_data) <= 3, "closed pages are kept without end")
    assert list(states.session_data) == ["page-3", "page-4", "page-5"]
    assert served.service.health()["sessions"] == before + 3, "their faces go along"
    with states.page("page-3"):
        for number in range(6, 9):
            load(served, f"page-{number}")
        until(lambda: len(states.session_data) <= 4, "closed pages are kept without end")
        assert "page-3" in states.session_data, "a page that is open stays"


# --- Sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "data", "words"),
    [
        ("generate", ["7" * 7_000_000, 0.7], "Seed"),
        ("generate", "7" * 7_000_000, "data"),
        ("edit", [{"format": "memorygan"}, {"hair.lightness": "x" * 1_000_000}], "Slider"),
        ("describe", [{}, "red " * 100_000, [], "normal", 1, "", None, None, None], "Prompt"),
        ("describe", [{}, "red", ["hair"] * 100_000, "normal", 1, "", None, None, None], "Parts"),
        ("swap", ["x" * 9_000_000, {}, [], "all", 1], "Recipe"),
    ],
)
def test_values_of_hostile_length_never_reach_the_state(served, endpoint, data, words):
    answer = httpx.post(f"{served.url}/gradio_api/call/{endpoint}", json={"data": data}, timeout=30)
    assert answer.status_code in (413, 422) and len(answer.text) < 300
    assert answer.json()["detail"].startswith(words)
    assert not served.demo._queue.event_ids_to_events


def test_weights_are_counted_no_further_than_needed():
    assert weight({"a": [1, 2.5, None, "xyz"]}, 100) < 60
    assert 100 < weight(["x" * 60] * 10**6, 100) < 10**8
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert weight(deep, 10**6) >= 200_000
    del deep
    gc.collect()


# --- Files -----------------------------------------------------------------------------------------------------------


def upload(page: Served, data: bytes) -> str:
    answer = httpx.post(f"{page.url}/gradio_api/upload", files={"files": ("photo.jpg", data)}, timeout=30)
    return str(answer.json()[0])


def invert(page: Served, path: str) -> str:
    """The end of a call with a file by its path: "complete" or "error"."""
    body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, 0, 1, [0, 0, 100]]}
    event = httpx.post(f"{page.url}/gradio_api/call/invert", json=body, timeout=30).json()["event_id"]
    text = httpx.get(f"{page.url}/gradio_api/call/invert/{event}", timeout=60).text
    return "complete" if "event: complete" in text else "error"


def test_two_people_who_upload_the_same_photo_do_not_share_a_file(served):
    data = photo_bytes(160)
    mine, yours = upload(served, data), upload(served, data)
    assert mine != yours
    assert [invert(served, path) for path in (mine, yours)] == ["complete", "complete"]
    assert not Path(mine).exists() and not Path(yours).exists()
    assert invert(served, mine) == "error", "it was read"


def test_nobody_removes_or_reads_what_somebody_else_was_given(served):
    program = Client(served.url, verbose=False, download_files=False)
    first, second = (program.predict(seed=7, api_name="/generate")[0] for _ in range(2))
    paths = [Path(found["path"] if isinstance(found, dict) else found) for found in (first, second)]
    assert paths[0] != paths[1], "the same picture, but a file of their own for each"
    assert invert(served, str(paths[0])) == "error" and paths[0].exists()


def test_files_are_not_fetched_from_addresses(served):
    address = "http://example.com/photo.jpg"
    recipe = {"path": address, "meta": {"_type": "gradio.FileData"}}
    for endpoint, data in (("invert", [recipe, 0, 1, None]), ("edit", [recipe, {}])):
        answer = httpx.post(f"{served.url}/gradio_api/call/{endpoint}", json={"data": data}, timeout=30)
        assert answer.status_code == 422 and "upload" in answer.json()["detail"]
    assert httpx.get(f"{served.url}/gradio_api/file={address}", timeout=30).status_code == 404
    assert httpx.get(f"{served.url}/gradio_api/deep_link?session_hash=x", timeout=30).status_code == 404


def test_results_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(uploads, "MAX_RESULTS", 250)
    results = uploads.Results()
    given = [Path(results.give(b"x" * 100, "face.png")) for _ in range(4)]
    assert [path.exists() for path in given] == [False, False, True, True]
    assert not given[0].parent.exists()
    monkeypatch.setattr(uploads, "RESULT_AGE", 0.0)
    results.tidy()
    assert not any(path.exists() for path in given)
    known = {str(given[0]), str(tmp_path)}
    uploads.forget_removed(known)
    assert known == {str(tmp_path)}


# --- Words -----------------------------------------------------------------------------------------------------------


HOSTILE = {
    "text": "7" * 7_000_000,
    "number": 10**400,
    "large": 10**5000,
    "list": ["x" * 1000],
    "record": {"a": "b" * 1000},
    "bytes": b"x" * 1000,
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_sentences_quote_little_of_what_came_in(service, value):
    assert len(quoted(value)) <= 65
    recipe = {"format": "memorygan-recipe", "version": 1, "checkpoint": {}, "source": {"kind": value}, "edits": []}
    for call in (
        lambda: service.new_face(value),
        lambda: service.set_sliders(
            service.new_face(1).session, {str(value)[:2000] if isinstance(value, str) else "x": 1}
        ),
        lambda: service.candidates(value),
        lambda: Programs(service, service).generate(value),
        lambda: Programs(service, service).compose(recipe, kind=value),
    ):
        with pytest.raises(EditingError) as caught:
            call()
        assert len(str(caught.value)) < 800


def test_what_a_toast_says_is_text(monkeypatch):
    said = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: said.append(text))
    monkeypatch.setattr(gr, "Info", lambda text, **_: said.append(text))
    guard.refuse(EditingError("made with another model (<img src=//example.com/a.png>)"))
    guard.tell("made with <b>another</b> model & sliders")
    assert not any("<" in text for text in said) and "&lt;img" in said[0] and "&amp;" in said[1]
    assert len(guard.sentence("word " * 5000)) < 900


# --- Logins ----------------------------------------------------------------------------------------------------------


def test_wrong_logins_are_slowed_down(tmp_path):
    for page in serve(toy_service(), tmp_path, Settings(auth=(("ada", "my secret "),))):

        def log_in(word: str, client: str = "203.0.113.9", url: str = page.url) -> int:
            form = {"username": "ada", "password": word}
            return httpx.post(f"{url}/login", data=form, headers={"x-forwarded-for": client}).status_code

        assert [log_in(f"guess {number}") for number in range(8)] == [400] * 5 + [429] * 3
        assert log_in("my secret ") == 429, "whoever guesses has to wait, even if right at last"
        assert log_in("my secret ", "203.0.113.10") == 200, "others need not"


def test_patience_grows_and_ends():
    now = [0.0]
    patience = Patience(lambda: now[0])
    for _ in range(FREE):
        assert patience.wait("a") == 0
        patience.wrong("a")
    assert patience.wait("a") == 1 and patience.wait("b") == 0
    now[0] = 2
    for _ in range(30):
        patience.wrong("a")
    assert patience.wait("a") == 300
    patience.right("a")
    assert patience.wait("a") == 0


async def tool(page: Served, name: str, arguments: dict[str, Any], headers: dict[str, str]) -> Any:
    async with (
        streamablehttp_client(f"{page.url}/gradio_api/mcp/", headers=headers) as (receive, send, _),
        ClientSession(receive, send) as session,
    ):
        await session.initialize()
        return await session.call_tool(name, arguments)


def test_mcp_needs_the_login_and_keeps_no_photo(tmp_path):
    photo = "data:image/jpeg;base64," + base64.b64encode(photo_bytes(160)).decode("ascii")
    asked = {"photo": photo, "face": 0, "steps": 1, "crop": [0, 0, 100]}
    for page in serve(full_service(), tmp_path / "files", Settings(auth=(("ada", "my secret"),), mcp=True)):
        for path in ("mcp", "mcp/", "mcp/schema", "mcp/sse", "mcp/messages/"):
            assert httpx.get(f"{page.url}/gradio_api/{path}").status_code == 401, path
        basic = "Basic " + base64.b64encode(b"ada:my secret").decode("ascii")
        wrong = "Basic " + base64.b64encode(b"ada:secret").decode("ascii")
        answers = [
            httpx.get(f"{page.url}/gradio_api/mcp/schema", headers={"authorization": value}).status_code
            for value in ("Basic ???", wrong, basic)
        ]
        assert answers == [401, 401, 200]
        program = Client(page.url, auth=("ada", "my secret"), verbose=False)
        cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in program.cookies.items())}
        for headers in ({"authorization": basic}, cookie):
            answer = asyncio.run(tool(page, "invert", asked, headers))
            assert not answer.isError, answer.content
        refused = asyncio.run(tool(page, "invert", {**asked, "photo": "http://example.com/a.jpg"}, cookie))
        assert refused.isError and "upload" in refused.content[0].text
        left = [path for path in (tmp_path / "files").rglob("*") if path.is_file() and "results" not in path.parts]
        assert left == [], "photos stay on the disk"
