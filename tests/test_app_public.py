"""The page in public: fair shares, callers that went away, what is kept of calls, and requests of hostile sizes."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from gradio_client import Client  # type: ignore[import-untyped]
from test_app import Served, full_service, serve  # type: ignore[import-not-found]

from app.clients import client_of, owner_of
from app.presence import Presence
from app.server import Settings
from app.sizes import weight
from app.states import States

PATIENCE = 20.0
LONG = {"prompt": "red hair", "steps": 2000, "strength": "strong", "seed": 1}


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    settings = Settings(queue_size=6, first=1.0, grace=1.0)
    yield from serve(full_service(), tmp_path_factory.mktemp("gradio"), settings)


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
    answers = [describe(served, recipe).status_code for _ in range(72)]
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
        time.sleep(2.5)  # longer than grace and first together
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
    ended = []
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
