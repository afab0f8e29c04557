"""What people keep when a connection is cut, a page is loaded again, or the server is started anew."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send
from test_app import Served, full_service, photo_bytes, serve  # type: ignore[import-not-found]
from test_app_browser import (  # type: ignore[import-not-found]
    Desk,
    browser,  # noqa: F401
    chromium,  # noqa: F401
)
from wire import Wire, wired  # type: ignore[import-not-found]

from app.link import Link, Links, behind
from app.server import Settings

HAIR = "#sliders input[data-slider='hair.lightness']"
WORDS = "document.querySelector('#guided .progress-words')?.textContent"
SAID = "document.getElementById('studio-say')?.textContent"


# --- Streams ---------------------------------------------------------------------------------------------------------


class Connection:
    """One request for a stream, and what came of it."""

    def __init__(self, links: Links, query: str) -> None:
        self.messages: list[Message] = []
        self._gone, self._asked = asyncio.Event(), False
        scope: Scope = {
            "type": "http", "method": "GET", "path": "/gradio_api/queue/data", "query_string": query.encode(),
            "headers": [],
        }  # fmt: skip
        self.task = asyncio.create_task(links(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.messages.append(message)

    async def cut(self) -> None:
        self._gone.set()
        await self.task

    @property
    def said(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])


class Talker:
    """An application that says what it is told to say."""

    def __init__(self) -> None:
        self.words: asyncio.Queue[bytes] = asyncio.Queue()
        self.gone = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        leaving = asyncio.ensure_future(receive())
        while True:
            word = asyncio.ensure_future(self.words.get())
            await asyncio.wait({word, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                self.gone.set()
                word.cancel()
                return
            if word.result() == b"end":
                leaving.cancel()
                return
            await send({"type": "http.response.body", "body": word.result(), "more_body": True})


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


Held = dict[tuple[str, str], Link]


def test_a_stream_goes_on_where_it_was_cut():
    async def story() -> None:
        talker, held = Talker(), Held()
        links = Links(talker, 0.2, held)
        first = Connection(links, "session_hash=s&link=a&after=0")
        for word in (b"1", b"2", b"3"):
            talker.words.put_nowait(word)
        await settle()
        assert first.said == b"123"
        await first.cut()
        talker.words.put_nowait(b"4")
        await settle()
        assert behind(held, "s") == 1 and behind(held, "t") == 0
        # Two of the three had arrived.
        second = Connection(links, "session_hash=s&link=a&after=2")
        await settle()
        assert second.said == b"34" and behind(held, "s") == 0
        # A page that comes back before the server noticed that it had left.
        third = Connection(links, "session_hash=s&link=a&after=4")
        talker.words.put_nowait(b"5")
        await settle()
        assert third.said == b"5" and second.task.done()
        await asyncio.sleep(0.3)
        assert not talker.gone.is_set() and held
        await third.cut()
        await asyncio.sleep(0.3)
        assert talker.gone.is_set() and not held
        late = Connection(links, "session_hash=s&link=a&after=5")
        await late.task
        assert late.status == 410

    asyncio.run(story())


def test_a_stream_that_ended_is_told_to_its_end():
    async def story() -> None:
        talker, held = Talker(), Held()
        links = Links(talker, 5, held)
        first = Connection(links, "session_hash=s&link=a&after=0")
        await settle()
        await first.cut()
        for word in (b"last", b"end"):
            talker.words.put_nowait(word)
        await settle()
        second = Connection(links, "session_hash=s&link=a&after=0")
        await second.task
        assert second.said == b"last" and not second.messages[-1]["more_body"]
        wrong = Connection(links, "session_hash=s&link=a&after=7")
        await wrong.task
        assert wrong.status == 410, "it cannot have that many"

    asyncio.run(story())


def test_what_may_not_have_arrived_is_bounded():
    async def story() -> None:
        link = Link()
        for number in range(200):
            await link.send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
        assert len(link.later(0) or ()) == 200, "nothing was sent yet"
        link.sent = 200
        await link.send({"type": "http.response.body", "body": b"x", "more_body": True})
        assert link.later(0) is None and len(link.later(137) or ()) == 64
        link.sent = link.count
        await link.send({"type": "http.response.body", "body": b"x" * 70_000_000, "more_body": True})
        assert not link.gone.is_set(), "one picture, however large, is sent"
        await link.send({"type": "http.response.body", "body": b"x", "more_body": True})
        assert link.gone.is_set(), "too much waits"

    asyncio.run(story())


@pytest.mark.parametrize(
    "query", ["session_hash=s", "session_hash=s&link=a", "link=a&after=0", "session_hash=s&link=a&after=-1"]
)
def test_streams_of_programs_pass_unchanged(query):
    async def story() -> None:
        talker, held = Talker(), Held()
        connection = Connection(Links(talker, 5, held), query)
        talker.words.put_nowait(b"word")
        await settle()
        assert connection.said == b"word" and not held
        await connection.cut()
        assert talker.gone.is_set()

    asyncio.run(story())


# --- Pages -----------------------------------------------------------------------------------------------------------


class House:
    """A server that can be started anew at another port, behind a wire."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._wires = folder, None
        self._page: Iterator[Served] | None = None
        self.start()
        self._wired = wired(self.served.url)
        self.wire: Wire = self._wired.__enter__()
        self.url = f"http://127.0.0.1:{self.wire.port}"

    def start(self) -> None:
        self._page = serve(full_service(), self._folder, Settings(grace=20.0))
        self.served: Served = next(self._page)

    def again(self) -> None:
        """Everything the server knew is gone."""
        self.stop()
        self.start()
        self.wire.target = int(self.served.url.rsplit(":", 1)[1])
        self.wire.down = False

    def stop(self) -> None:
        self.wire.down = True
        self.wire.cut()
        self._page.close()  # type: ignore[union-attr]

    def forget(self) -> None:
        states = self.served.demo.state_holder
        for name in list(states.session_data):
            states.delete_state(name)

    def close(self) -> None:
        self._wired.__exit__(None, None, None)
        self._page.close()  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def house(tmp_path_factory, chromium_path) -> Iterator[House]:
    opened = House(tmp_path_factory.mktemp("gradio"))
    yield opened
    opened.close()


@pytest.fixture
def desk(house, browser) -> Iterator[Desk]:  # noqa: F811
    opened = Desk(browser, house.url).open()
    opened.start()
    opened.ask("window.here = true")  # gone if the page is loaded anew
    yield opened
    assert opened.problems == [] and opened.page.locator(".toast-body").count() == 0
    opened.close()


def lighter(desk: Desk, by: int = 4) -> None:
    """Moves a slider by the keyboard."""
    desk.page.locator(HAIR).focus()
    for _ in range(by):
        desk.page.keyboard.press("ArrowRight")


def lighter_hair(desk: Desk) -> None:
    """Makes the hair lighter, and waits until the server has answered."""
    desk.tab("edit")
    desk.page.check("#sliders input[value=hair]", force=True)
    lighter(desk)
    desk.edits(1)


def describe(desk: Desk, text: str) -> None:
    desk.tab("describe")
    desk.page.fill("#prompt textarea", text)
    desk.page.click("#describe")
    desk.wait(f"/^Step [1-9]/.test({WORDS})")


@pytest.mark.browser
def test_a_description_goes_on_when_its_connection_is_cut(desk, house):
    describe(desk, "red hair")
    for _ in range(3):
        house.wire.cut()
        step = desk.ask(f"{WORDS}.match(/\\d+/)[0]")
        desk.wait(f"/^Done/.test({WORDS}) || {WORDS}.match(/\\d+/)[0] > {step}")
    desk.wait(f"/^Done/.test({WORDS})")
    desk.page.click("#describe-apply")
    desk.edits(1)
    assert desk.ask("window.here") and desk.ask("Studio.face.undo")


# Keeps back what ends a stream until `window.late` is taken away, as a slow network may.
LATE = """
const plain = window.fetch.bind(window);
window.fetch = async (input, init) => {
  const answer = await plain(input, init);
  if (!String(input.url ?? input).includes("/queue/data")) return answer;
  const last = new TransformStream({
    async transform(chunk, controller) {
      const text = new TextDecoder().decode(chunk);
      const end = text.search(/data: *{[^}]*close_stream/);
      if (end < 0) return controller.enqueue(chunk);
      controller.enqueue(new TextEncoder().encode(text.slice(0, end)));
      while (window.late) {
        window.held = true;
        await new Promise((done) => setTimeout(done, 10));
      }
      controller.enqueue(new TextEncoder().encode(text.slice(end)));
    },
  });
  return new Response(answer.body.pipeThrough(last), { status: answer.status, headers: answer.headers });
};
"""


@pytest.mark.browser
def test_what_is_asked_for_while_a_stream_ends_is_done(browser, house):  # noqa: F811
    desk = Desk(browser, house.url)
    desk.context.add_init_script(LATE)
    desk.open()
    desk.start()
    lighter_hair(desk)
    desk.wait("StudioLink.pending.size === 0")
    desk.ask("window.late = true")
    desk.page.click(".tool-undo")
    desk.edits(0)
    desk.wait("window.held")
    desk.page.click(".tool-redo")
    desk.wait("StudioLink.pending.size > 0")
    desk.ask("window.late = false")
    desk.edits(1)
    assert desk.problems == [] and desk.page.locator(".toast-body").count() == 0
    desk.close()


@pytest.mark.browser
def test_what_was_done_without_a_server_is_done_when_it_is_back(desk, house):
    desk.tab("edit")
    desk.page.check("#sliders input[value=hair]", force=True)
    house.wire.down = True
    house.wire.cut()
    lighter(desk)
    desk.wait(f"/cannot be reached/.test({SAID})")
    assert desk.ask("Studio.face.edits") == 0
    house.wire.down = False
    desk.edits(1)
    assert desk.ask("Studio.face.sliders['hair.lightness']") == pytest.approx(0.2)
    desk.wait(f"/is back/.test({SAID})")
    assert desk.ask("window.here")


@pytest.mark.browser
def test_a_page_that_the_server_forgot_does_what_it_was_asked(desk, house):
    lighter_hair(desk)
    house.forget()
    lighter(desk)
    desk.wait("Studio.face.sliders['hair.lightness'] > 0.35")
    assert "forgotten this page" in desk.ask(SAID)
    assert desk.ask("Studio.face.title") == "Face 3" and desk.ask("window.here")


@pytest.mark.browser
def test_a_server_that_was_started_anew_takes_over(desk, house):
    lighter_hair(desk)
    house.stop()
    lighter(desk)
    house.again()
    desk.wait("Studio.face.sliders['hair.lightness'] > 0.35")
    assert desk.page.inner_text("#sliders .slider-value >> nth=0") == "+0.40"
    # A description that was under way begins anew, with the same words and on the same face.
    describe(desk, "green hair")
    house.again()
    desk.wait(f"/^Done/.test({WORDS})")
    desk.page.click("#describe-apply")
    desk.wait("/green hair/.test(Studio.face.alt) && /Lightness \\+0.4/.test(Studio.face.alt)")
    assert desk.ask("window.here")


@pytest.mark.browser
def test_an_idle_page_notices_by_itself(desk, house):
    desk.ask("window.before = Studio.face.n")
    house.again()
    desk.wait(f"/forgotten this page/.test({SAID})")
    desk.wait("Studio.face.n > window.before && Studio.face.title === 'Face 3'")


@pytest.mark.browser
def test_a_page_that_is_loaded_again_finds_its_description(desk, house):
    describe(desk, "red hair")
    desk.page.reload()
    desk.ready()
    desk.wait("Studio.tab === 'describe'")
    desk.wait(f"/^(Step [1-9]|Done)/.test({WORDS})")
    assert desk.page.input_value("#prompt textarea") == "red hair"
    desk.wait(f"/^Done/.test({WORDS})")
    assert house.served.service.health()["jobs"] == 0
    desk.page.reload()
    desk.ready()
    desk.wait(f"/^Done/.test({WORDS})")
    desk.page.click("#describe-apply")
    desk.edits(1)
    desk.page.click(".tool-undo")
    desk.edits(0)
    assert desk.ask("Studio.face.redo"), "a reload takes nothing from the history"


@pytest.mark.browser
def test_a_page_that_is_loaded_again_finds_its_photo(desk, house):
    step = "Number(document.querySelector('#progress .progress-words')?.innerText.match(/step (\\d+)/)?.[1] ?? 0)"
    desk.tab("photo")
    desk.page.wait_for_selector("#photo-drop input[type=file]", state="attached")
    photo = {"name": "mine.jpg", "mimeType": "image/jpeg", "buffer": photo_bytes(191)}
    desk.page.set_input_files("#photo-drop input[type=file]", photo)
    desk.page.wait_for_selector("#photo .photo-face")
    desk.page.check("#effort input[value=careful]")
    desk.page.click("#rebuild")
    desk.wait(f"{step} > 0")
    house.wire.cut()
    desk.wait(f"{step} > 20")
    desk.page.reload()
    desk.ready()
    desk.wait("Studio.tab === 'photo'")
    desk.page.wait_for_selector("#photo .photo-face")
    desk.wait(f"{step} > 20")
    desk.page.click("#stop")
    desk.wait("/best so far/.test(document.querySelector('#progress .progress-words')?.innerText)")
    desk.page.click("#send")
    desk.wait("Studio.face.title === 'Photo'")


@pytest.mark.browser
def test_every_tab_keeps_a_face_of_its_own(desk, house):
    kept = "JSON.parse(sessionStorage.getItem('memorygan-studio'))?.label"
    desk.wait(f"{kept} === 'Face 3'")
    other = desk.context.new_page()
    other.goto(house.url, wait_until="commit")
    other.wait_for_function("window.Studio && Studio.face && Studio.face.face > 0")
    assert other.evaluate("Studio.face.title") == "Face 3", "the last one for a new tab"
    other.fill("#seed input", "11")
    other.press("#seed input", "Enter")
    other.wait_for_function(f"{kept} === 'Face 11'")
    house.forget()
    for page, title in ((desk.page, "Face 3"), (other, "Face 11")):
        page.reload()
        page.wait_for_function("window.Studio && Studio.face && Studio.face.face > 0")
        assert page.evaluate("Studio.face.title") == title
    assert desk.ask("Studio.kept().tab") != other.evaluate("Studio.kept().tab")


def test_the_state_of_a_page_is_asked_for_first(house):
    config = httpx.get(f"{house.served.url}/config").json()
    undo = next(one for one in config["dependencies"] if any(target[1] == "undo" for target in one["targets"]))
    body: dict[str, Any] = {"data": [None], "fn_index": undo["id"], "session_hash": "nobody"}
    assert httpx.post(f"{house.served.url}/gradio_api/queue/join", json=body).status_code == 410
    body = {"data": [None], "session_hash": "nobody"}
    answer = httpx.post(f"{house.served.url}/gradio_api/run/alive", json=body)
    assert answer.json()["data"] == [{"known": False}]
    body = {"data": [None, {"recipe": "x" * 3_000_000}], "session_hash": "nobody"}
    assert httpx.post(f"{house.served.url}/gradio_api/run/restore", json=body, timeout=60).status_code == 200
    assert httpx.post(
        f"{house.served.url}/gradio_api/run/alive", json={"data": [None], "session_hash": "nobody"}
    ).json()["data"] == [{"known": True}]
