"""The page as people use it, in a headless Chromium: every tab, and what can go wrong."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator

import pytest
from gradio_client import Client  # type: ignore[import-untyped]
from test_app import full_service, photo_bytes, serve  # type: ignore[import-not-found]

from app import queue
from app.server import Settings
from app.tabs import photo
from editing.errors import EditingError
from editing.guidance.likeness import LikenessScale
from editing.service import EditingService
from editing.text.optimize import STRENGTHS

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

pytestmark = pytest.mark.browser
TABS = ("face", "edit", "swap", "describe", "compose", "photo", "about")
# A loaded machine takes its time; nothing here waits longer than it has to.
PATIENCE = 60_000


@pytest.fixture(scope="module")
def served(tmp_path_factory, chromium_path):
    yield from serve(full_service(), tmp_path_factory.mktemp("gradio"))


# For containers: no sandbox without privileges, no GPU, little shared memory.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@pytest.fixture(scope="module")
def chromium(chromium_path):
    with sync_api.sync_playwright() as playwright:
        yield lambda *flags: playwright.chromium.launch(executable_path=chromium_path, args=[*FLAGS, *flags])


@pytest.fixture(scope="module")
def browser(chromium):
    opened = chromium()
    yield opened
    opened.close()


class Desk:
    """A page and what one does with it."""

    def __init__(self, browser, url: str, width: int = 1280, height: int = 900, theme: str = "light") -> None:
        self.problems: list[str] = []
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, accept_downloads=True
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.url = url

    def open(self) -> Desk:
        self.page.goto(self.url, wait_until="commit")
        self.ready()
        return self

    def start(self) -> None:
        """Opens face 3 anew."""
        self.tab("face")
        self.page.uncheck("#lock input")
        for _ in range(4):
            now = self.ask("Studio.face.face")
            if self.page.input_value("#truncation input[type=number]") != "0.7":
                # That draws the face anew as well, and its answer must not come after the one waited for below.
                self.page.fill("#truncation input[type=number]", "0.7")
                self.page.press("#truncation input[type=number]", "Tab")
                with contextlib.suppress(sync_api.TimeoutError):
                    self.wait(f"Studio.face.face !== {now}", PATIENCE / 4)
                now = self.ask("Studio.face.face")
            self.page.fill("#seed input", "3")
            self.page.press("#seed input", "Enter")
            # A late answer to what was done before may have put another number into the field.
            with contextlib.suppress(sync_api.TimeoutError):
                self.wait(f"Studio.face.face !== {now} && Studio.face.title === 'Face 3'", PATIENCE / 4)
                return
        raise AssertionError("face 3 does not come")

    def ready(self) -> None:
        self.wait("window.Studio && Studio.face && Studio.face.face > 0")

    def wait(self, condition: str, patience: float = PATIENCE) -> None:
        self.page.wait_for_function(condition, timeout=patience)

    def ask(self, expression: str):
        return self.page.evaluate(expression)

    def tab(self, name: str) -> None:
        if self.ask("Studio.tab") != name:
            self.page.click(f"#tab-{name}-button")
            self.wait(f"Studio.tab === '{name}'")

    def click_face(self, x: float, y: float, figure: str = "#stage .stage-figure") -> None:
        """Clicks at a place of the picture, given in shares of its side."""
        self.page.wait_for_function("Studio.map")
        box = self.page.locator(figure).bounding_box()
        self.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])

    def drag(self, slider: str, start: float, end: float, steps: int = 6, release: bool = True) -> None:
        """Drags the thumb of a range input between two shares of its width."""
        self.page.locator(slider).scroll_into_view_if_needed()  # and waits until it stays where it is
        box = self.page.locator(slider).bounding_box()
        x, y, width = box["x"], box["y"] + box["height"] / 2, box["width"]
        self.page.mouse.move(x + start * width, y)
        self.page.mouse.down()
        for step in range(1, steps + 1):
            self.page.mouse.move(x + (start + (end - start) * step / steps) * width, y)
            self.page.wait_for_timeout(30)
        if release:
            self.page.mouse.up()

    def drag_on(self, slider: str, end: float) -> None:
        """Goes on with a drag that was not released."""
        box = self.page.locator(slider).bounding_box()
        self.page.mouse.move(box["x"] + end * box["width"], box["y"] + box["height"] / 2, steps=4)

    def edits(self, count: int) -> None:
        self.wait(f"Studio.face.edits === {count}")

    def picture(self) -> str:
        return self.page.get_attribute("#stage .stage-image", "src")

    def message(self) -> str:
        """The newest message, which is then closed."""
        toast = self.page.locator(".toast-body").last
        text = toast.inner_text()
        for close in self.page.locator(".toast-close").all():
            close.click()
        self.page.wait_for_selector(".toast-body", state="detached")
        return text

    def close(self) -> None:
        self.context.close()


@pytest.fixture(scope="module")
def opened(browser, served) -> Iterator[Desk]:
    """One page for all: loading it takes longer than most of what is tried on it."""
    page = Desk(browser, served.url)
    yield page.open()
    page.close()


@pytest.fixture
def desk(opened) -> Iterator[Desk]:
    """The page with face 3 on show, not edited, and the Face tab in front."""
    opened.problems.clear()
    opened.start()
    yield opened
    assert opened.problems == []


OPEN_RECIPE = "input[data-testid='Open a saved face-upload-button']"
HAIR = "#sliders input[data-slider='hair.lightness']"


def test_a_face_is_there_before_gradio_has_started(browser, served):
    page = Desk(browser, served.url)
    # What Gradio itself needs never arrives.
    page.page.route("**/assets/*.js", lambda route: None)
    started = time.perf_counter()
    page.page.goto(served.url, wait_until="commit")
    picture = page.page.wait_for_selector("#studio-splash i")
    assert "data:image/jpeg" in picture.get_attribute("style")
    assert time.perf_counter() - started < 3
    page.close()


def test_face(desk, served):
    page = desk.page
    assert page.locator("#studio-splash").count() == 0
    page.wait_for_function("document.querySelectorAll('#strip .grid-item').length > 0")
    assert page.get_attribute("#stage .stage-image", "alt") == "Face 3, not edited"
    first = desk.picture()

    page.click("#new-face")
    desk.wait("Studio.face.title !== 'Face 3'")
    assert desk.picture() != first
    seed = page.input_value("#seed input")
    assert desk.ask("Studio.face.title") == f"Face {seed}"

    # The number can be written, and kept while the variety changes.
    page.fill("#seed input", "11")
    page.press("#seed input", "Enter")
    desk.wait("Studio.face.title === 'Face 11'")
    ordinary = desk.picture()
    page.check("#lock input")
    page.fill("#truncation input[type=number]", "0.1")
    page.click("#new-face")
    page.wait_for_function("old => Studio.face.image !== old", arg=ordinary)
    assert desk.ask("Studio.face.title") == "Face 11"

    page.click("#more-faces")
    page.wait_for_function("document.querySelectorAll('#candidates .grid-item').length === 12")
    page.click("#candidates .grid-item >> nth=4")
    chosen = page.inner_text("#candidates .grid-item >> nth=4").strip()
    desk.wait(f"Studio.face.title === 'Face {chosen}'")

    # The strip leads back, and so does undo.
    # Exactly: a random number may begin with a 3 as well.
    page.locator("#strip .grid-item").filter(has_text=re.compile(r"^\s*Face 3\s*$")).last.click()
    desk.wait("Studio.face.title === 'Face 3'")
    assert desk.picture() == first
    page.click(".tool-undo")
    desk.wait(f"Studio.face.title === 'Face {chosen}'")


def test_edit(desk, served):
    page = desk.page
    # A click on the face brings the tab and the sliders of what was clicked.
    desk.click_face(0.5, 0.25)
    page.wait_for_selector(HAIR)
    assert desk.ask("Studio.tab") == "edit"
    assert page.inner_text("#sliders .panel-heading") == "Hair"
    original = desk.picture()

    # Small previews while dragging, the full picture of the last value on release.
    desk.drag(HAIR, 0.5, 0.8, release=False)
    page.wait_for_selector("#stage .stage-badge:not([hidden])")
    assert desk.ask("Studio.face.edits") == 0
    page.mouse.up()
    desk.edits(1)
    value = float(page.input_value(HAIR))
    assert value > 1 and desk.ask("Studio.face.sliders['hair.lightness']") == value
    page.wait_for_timeout(400)  # a late preview would come now
    assert desk.picture() == desk.ask("Studio.face.image") != original
    assert page.is_hidden("#stage .stage-badge")
    caption = page.inner_text("#stage .stage-caption")
    assert re.search(r"changed the hair\. Changed outside: \d", caption)

    # One step of history for a held arrow. Its six changes come at once here: a busy browser may let half a second pass
    # between two keys, after which they are two steps.
    page.focus("#sliders input[data-slider='hair.width']")
    desk.ask(
        """() => {
            for (let count = 0; count < 6; count++) {
                document.activeElement.stepUp();
                document.activeElement.dispatchEvent(new Event("input", { bubbles: true }));
            }
        }"""
    )
    desk.edits(2)
    assert desk.ask("Studio.face.sliders['hair.width']") == pytest.approx(0.3)
    page.keyboard.press("Control+z")
    desk.edits(1)
    assert page.input_value("#sliders input[data-slider='hair.width']") == "0"
    page.keyboard.press("Control+Shift+z")
    desk.edits(2)

    # Looking: parts, before and after, change map.
    page.click("#stage [data-mode=parts]")
    page.wait_for_selector("#stage .stage-overlay:not([hidden])")
    page.click("#stage [data-mode=compare]")
    page.focus("#stage .stage-slider")
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.querySelector('.stage-before').style.clipPath") == "inset(0px 60% 0px 0px)"
    page.click("#stage [data-mode=change]")
    assert desk.picture() == desk.ask("Studio.face.change")
    page.click("[data-since=all]")
    assert desk.picture() == desk.ask("Studio.face.change_all")
    assert page.get_attribute("#stage .stage-image", "alt").startswith("Change map: All edits together")
    page.click("#stage [data-mode=face]")

    # Resetting: one slider, one part, everything; each can be undone.
    page.click("#sliders [aria-label='Reset Width']")
    desk.edits(1)
    page.click("#sliders .reset-part")
    desk.edits(0)
    assert page.input_value(HAIR) == "0"
    page.click(".tool-undo")
    desk.edits(1)
    page.click(".tool-reset")
    desk.edits(0)

    # The list of parts works without a mouse.
    page.focus("#sliders input[value=hair]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert desk.ask("Studio.part") == "hair"
    page.check("#sliders input[value=base]", force=True)
    assert page.inner_text("#sliders .panel-heading") == "Pose and framing"
    page.check("#sliders input[value=nose]", force=True)
    assert "no sliders" in page.inner_text("#sliders .studio-empty")


def test_a_thumb_that_is_pressed_or_put_back_changes_nothing_and_lets_go(desk):
    page = desk.page
    desk.tab("edit")
    page.check("#sliders input[value=hair]", force=True)
    desk.drag(HAIR, 0.5, 0.8)
    desk.edits(1)
    shown, value = desk.picture(), page.input_value(HAIR)
    desk.drag("#sliders input[data-slider='hair.width']", 0.5, 0.5, steps=1)
    # Dragged away, with previews, and back again.
    desk.drag("#sliders input[data-slider='hair.width']", 0.5, 0.8, release=False)
    page.wait_for_selector("#stage .stage-badge:not([class*=side]):not([hidden])")
    desk.drag_on("#sliders input[data-slider='hair.width']", 0.5)
    page.mouse.up()
    page.wait_for_selector("#stage .stage-badge:not([class*=side])", state="hidden")
    page.wait_for_timeout(300)  # a late preview would come now
    assert desk.picture() == shown and desk.ask("Studio.face.edits") == 1
    assert page.input_value(HAIR) == value

    # Another face has its own values; none of those before gets into its edits.
    page.click(".tool-undo")
    desk.edits(0)
    desk.wait(f"document.querySelector(\"{HAIR}\").value === '0'")
    desk.drag("#sliders input[data-slider='hair.width']", 0.5, 0.7)
    desk.edits(1)
    assert desk.ask("Object.keys(Studio.face.sliders)") == ["hair.width"]


def test_keys_are_committed_before_whatever_is_done_next(desk):
    page = desk.page
    width = "#sliders input[data-slider='hair.width']"
    desk.tab("edit")
    page.check("#sliders input[value=hair]", force=True)
    # All at once, long before the pause after which a key counts.
    at_once = """(what) => {
        const slider = document.querySelector("#sliders input[data-slider='hair.width']");
        slider.focus();
        slider.value = Number(slider.value) + 0.5;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        const undo = new KeyboardEvent("keydown", { key: "z", ctrlKey: true, bubbles: true });
        if (what === "undo") slider.dispatchEvent(undo);
        else document.querySelector(what).click();
    }"""
    page.evaluate(at_once, "undo")
    desk.wait("Studio.face.redo && Studio.face.edits === 0")
    assert page.input_value(width) == "0"
    with page.expect_download() as download:
        page.evaluate(at_once, ".tool-recipe")
    edits = json.loads(download.value.path().read_text())["edits"]
    assert [(edit["slider"], edit["value"]) for edit in edits] == [("hair.width", 0.5)]

    # A face that is opened meanwhile gets nothing of it; the one before keeps it.
    page.evaluate(at_once, "#new-face")
    desk.wait("Studio.face.title !== 'Face 3'")
    page.wait_for_timeout(700)
    assert desk.ask("Studio.face.edits") == 0
    page.click(".tool-undo")
    desk.wait("Studio.face.title === 'Face 3' && Studio.face.sliders['hair.width'] === 1")


def test_swap_takes_from_the_pages_own_faces(desk):
    page, titles = desk.page, [desk.ask("Studio.face.title")]
    for _ in range(2):
        page.click("#new-face")
        desk.wait(f"Studio.face.title !== {titles[-1]!r}")
        titles.append(desk.ask("Studio.face.title"))
    desk.tab("swap")
    for title in (titles[1], titles[0]):  # the last one first
        page.click("#other-mine")
        page.wait_for_selector(f"#card-other >> text=The other face: {title}")
    assert desk.ask("Studio.face.title") == titles[2]


def test_swap(desk, served):
    page = desk.page
    desk.tab("swap")
    page.wait_for_selector("#other-new")
    assert page.is_disabled("#swap-panel button:has-text('Apply')")
    page.click("#other-new")
    page.wait_for_selector("#card-other img:not([hidden])")
    before = desk.picture()

    # Parts can be clicked on the other face.
    box = page.locator("#card-other .stage-figure").bounding_box()
    while page.is_hidden("#card-other .stage-tip"):  # its map of parts comes after its picture
        for across in (0.4, 0.5):
            page.mouse.move(box["x"] + across * box["width"], box["y"] + 0.25 * box["height"])
        page.wait_for_timeout(20)
    desk.click_face(0.5, 0.25, "#card-other .stage-figure")
    page.wait_for_selector("#swap-panel input[value=hair]:checked")
    page.check("#swap-panel input[value=mouth]", force=True)
    page.wait_for_selector("#stage .stage-badge:not([hidden])")
    mixed = desk.picture()
    assert mixed != before

    page.check("#swap-panel input[value=texture]", force=True)
    page.wait_for_function("old => Studio.live && Studio.live.image !== old", arg=mixed)
    page.click("#swap-panel button:has-text('Apply')")
    desk.edits(1)
    assert page.locator("#swap-panel input[type=checkbox]:checked").count() == 0
    assert "hair" in page.inner_text("#stage .stage-caption")

    # After an undo the mixture is of the face as it is then.
    page.check("#swap-panel input[value=mouth]", force=True)
    page.wait_for_selector("#stage .stage-badge:not([hidden])")
    assert "only when it is applied" in page.inner_text("#stage .stage-caption")
    page.click(".tool-undo")
    desk.edits(0)
    desk.wait("Studio.live && Studio.live.revision === Studio.face.revision")
    assert desk.picture() not in (before, desk.ask("Studio.face.image"))
    page.click(".tool-redo")
    desk.edits(1)
    page.uncheck("#swap-panel input[value=mouth]", force=True)
    page.wait_for_selector("#stage .stage-badge", state="hidden")

    # Discarding shows the face as it is.
    page.check("#swap-panel input[value=skin]", force=True)
    page.wait_for_selector("#stage .stage-badge:not([hidden])")
    page.click("#swap-panel button:has-text('Discard')")
    page.wait_for_selector("#stage .stage-badge", state="hidden")
    assert desk.picture() == desk.ask("Studio.face.image")

    page.click("#surprise")
    page.wait_for_function("document.querySelectorAll('#variants .grid-item').length === 6")
    page.click("#variants .grid-item >> nth=2")
    desk.edits(2)
    page.click(".tool-undo")
    desk.edits(1)


WORDS = "document.querySelector('#guided .progress-words')?.innerText"


def describe(desk: Desk, text: str, steps: int) -> None:
    """Brings the Describe tab to the front and starts a description."""
    page = desk.page
    desk.tab("describe")
    if not page.is_visible("#describe-steps input[type=number]"):
        page.click("#describe-advanced >> text=Advanced")
    page.fill("#describe-steps input[type=number]", str(steps))
    page.fill("#prompt textarea", text)
    # What an earlier description ended with must not be taken for the end of this one.
    desk.ask("document.querySelectorAll('#guided .progress-words').forEach((words) => { words.textContent = ''; })")
    page.click("#describe")


def test_describe(desk, served, monkeypatch):
    # However late the page gets to see it, it is stopped before it ends.
    judge = served.service._guides.judge._model
    monkeypatch.setattr(judge, "broken", lambda call: time.sleep(0.05))
    page = desk.page
    original = desk.picture()
    desk.tab("describe")
    # An example fills the field, and the words point to a part.
    page.click(".studio-example:has-text('gray hair')")
    desk.wait("document.querySelector('#prompt textarea').value === 'a man with gray hair'")
    page.wait_for_selector("#allowed .studio-chip-hint input[value=hair]")
    assert "the words decide: hair (texture only)." in page.inner_text("#allowed .studio-help")
    page.click(".studio-example:has-text('blue eyes')")
    page.wait_for_selector("#allowed .studio-chip-hint input[value=eyes]")
    assert "the words decide: eyes, with the help of skin and hair." in page.inner_text("#allowed .studio-help")
    # A click on the face allows a part, and swaps nothing elsewhere.
    desk.click_face(0.5, 0.25)
    page.wait_for_selector("#allowed input[value=hair]:checked", state="attached")
    assert desk.ask("Studio.tab") == "describe"
    page.click("#allowed button")
    page.wait_for_selector("#allowed input[value=hair]:not(:checked)", state="attached")

    describe(desk, "red hair", 1000)
    desk.wait(f"/^Step [1-9]/.test({WORDS})")
    assert page.is_disabled("#describe") and page.is_disabled("#describe-apply")
    page.wait_for_selector("#stage .stage-badge:not([hidden])")
    # Other tabs show the face as it is; the preview is back with this one.
    desk.tab("edit")
    assert desk.picture() == original
    desk.tab("describe")
    page.wait_for_selector("#stage .stage-badge:not([hidden])")
    page.click("#describe-stop")
    desk.wait(f"/^Stopped; the best is from step/.test({WORDS})")
    proposed = desk.picture()
    assert proposed != original and desk.ask("Studio.face.edits") == 0
    assert page.locator("#guided .curve-line").count() == 6  # five losses and their sum
    assert "lowest" in page.get_attribute("#guided .curve-total svg", "aria-label")
    assert "of 255" in page.inner_text("#guided .scores")

    page.click("#describe-apply")
    desk.edits(1)
    assert desk.picture() == desk.ask("Studio.face.image") == proposed
    assert "changed the hair" in page.inner_text("#stage .stage-caption")
    page.wait_for_selector("#guided .panel", state="hidden")
    page.click(".tool-undo")
    desk.edits(0)
    assert desk.picture() == original
    page.click(".tool-redo")
    desk.edits(1)

    # It is part of the work that a reload brings back.
    page.wait_for_function("localStorage.getItem('memorygan-studio')?.length > 10")
    page.reload()
    desk.ready()
    assert desk.picture() == proposed
    assert desk.ask("Studio.face.undo")
    assert served.service.health()["jobs"] == 0


def test_a_description_runs_to_its_end_and_can_be_discarded(desk, served, monkeypatch):
    page, seen, original_describe = desk.page, [], served.service.describe

    def spy(*args, **named):
        seen.append(named["layers"])
        return original_describe(*args, **named)

    monkeypatch.setattr(served.service, "describe", spy)
    original = desk.picture()
    describe(desk, "green hair", 20)
    desk.wait(f"/^Done/.test({WORDS})")
    assert seen == [None]
    assert page.get_attribute("#guided [role=progressbar]", "aria-valuenow") == "100"
    assert desk.picture() != original
    page.click("#describe-discard")
    page.wait_for_selector("#guided .panel", state="hidden")
    page.wait_for_selector("#stage .stage-badge", state="hidden")
    assert desk.picture() == original and page.is_disabled("#describe-apply")
    assert desk.ask("document.querySelector('#guided .progress-words').textContent") == ""
    page.check("#describe-layers input[value=texture]")
    describe(desk, "green hair", 10)
    desk.wait(f"/^Done/.test({WORDS})")
    assert seen == [None, "texture"]


def test_a_description_that_begins_is_not_mistaken_for_the_one_before(desk, served, monkeypatch):
    page, gate, original_describe = desk.page, threading.Event(), served.service.describe
    original = desk.picture()
    describe(desk, "green hair", 20)
    desk.wait(f"/^Done/.test({WORDS})")

    def slow(*args, **named):  # as when the judges are loaded first
        gate.wait(120)
        return original_describe(*args, **named)

    monkeypatch.setattr(served.service, "describe", slow)
    try:
        page.click("#describe")
        desk.wait(f"{WORDS} === 'Starting.'")
        assert page.get_attribute("#guided [role=progressbar]", "aria-valuenow") == "0"
        assert page.is_hidden("#guided .scores > *")
        page.wait_for_selector("#describe-apply:disabled")
        # The picture is enlarged for the page in the same way, wherever it comes from.
        assert desk.picture() == original
    finally:
        gate.set()
    desk.wait(f"/^Done/.test({WORDS})")


def test_a_proposal_for_a_face_that_was_edited_meanwhile_waits_for_an_undo(desk):
    page = desk.page
    describe(desk, "red hair", 10)
    desk.wait(f"/^Done/.test({WORDS})")
    desk.tab("edit")
    page.check("#sliders input[value=hair]", force=True)
    page.locator(HAIR).fill("1")
    desk.edits(1)
    desk.tab("describe")
    assert page.is_hidden("#stage .stage-badge"), "the preview is of another face"
    page.click("#describe-apply")
    assert "has changed" in desk.message()
    page.click(".tool-undo")
    desk.edits(0)
    page.click("#describe-apply")
    desk.edits(1)
    assert "changed the hair" in page.inner_text("#stage .stage-caption")
    assert page.is_disabled("#describe-apply")


def test_a_description_that_cannot_be_followed_is_refused_with_a_sentence(desk, served, monkeypatch):
    page = desk.page
    describe(desk, "", 10)
    assert "There is no description yet" in desk.message()
    describe(desk, "xyzzy", 10)
    assert "Traceback" not in desk.message()
    page.wait_for_selector("#describe:enabled")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("inner workings")

    monkeypatch.setattr(served.service, "describe", broken)
    describe(desk, "red hair", 10)
    message = desk.message()
    assert "Something went wrong" in message and "inner workings" not in message
    page.wait_for_selector("#describe:enabled")
    assert page.is_disabled("#describe-stop")


def test_a_strength_sets_the_weights(desk):
    page = desk.page
    desk.tab("describe")
    if not page.is_visible("#weight-latent input"):
        page.click("#describe-advanced >> text=Advanced")
    page.check("#strength input[value=subtle]")
    for loss, weight in STRENGTHS["subtle"].items():
        desk.wait(f"Number(document.querySelector('#weight-{loss} input').value) === {weight}")
    page.check("#strength input[value=normal]")
    desk.wait(f"Number(document.querySelector('#weight-latent input').value) === {STRENGTHS['normal']['latent']}")


def test_compose(desk, served):
    page = desk.page
    desk.tab("compose")
    page.wait_for_selector(".player-step >> nth=12")
    assert page.get_attribute(".player-step >> nth=12", "aria-pressed") == "true"
    page.fill("#compose-speed input[type=number]", "500")

    page.click(".player-play")
    # A busy browser may not look in time for one certain step.
    page.wait_for_function("/^Step ([3-9]|1[012]) /.test(document.querySelector('.player-words').innerText)")
    page.click(".player-play")
    paused = page.inner_text(".player-words")
    page.wait_for_timeout(800)
    assert page.inner_text(".player-words") == paused
    page.click("[aria-label='One step forward']")
    assert page.inner_text(".player-words") != paused
    page.locator(".player-bar input").fill("0")
    assert page.inner_text(".player-words") == "Step 1 of 13: background"
    assert "Composition, step 1" in page.inner_text("#stage .stage-title")

    page.click("text=Order of the parts")
    page.click("[data-part=hair] [data-by='-1']")
    page.wait_for_function(
        "[...document.querySelectorAll('.player-step span')].map((step) => step.innerText).indexOf('Hair') === 6"
    )
    page.uncheck("[data-part=cloth] input")
    page.wait_for_function("document.querySelectorAll('.player-step').length === 12")

    with page.expect_download() as download:
        page.click("#save-gif")
    assert download.value.path().read_bytes().startswith(b"GIF8")
    if not served.service.capabilities["mp4"]:
        with page.expect_download() as download:
            page.click("#save-mp4")
        assert b"ftyp" in download.value.path().read_bytes()[:16]

    # The face comes back with another tab, and a click on it still works.
    desk.tab("edit")
    assert page.inner_text("#stage .stage-title") == "Face 3"


def test_a_composition_that_was_asked_for_twice_plays_on(desk, served, monkeypatch):
    page, gates = desk.page, [threading.Event(), threading.Event()]
    done: list[int] = []
    original_compose = served.service.compose

    def slow(*args, **named):
        gates[min(len(done), 1)].wait(120)
        frames = original_compose(*args, **named)
        done.append(len(frames))
        return frames

    monkeypatch.setattr(served.service, "compose", slow)
    try:
        desk.start()  # whatever was asked for before must not have composed this face
        desk.tab("compose")
        desk.tab("edit")
        desk.tab("compose")
        desk.ask("document.querySelector('.player-strip').replaceChildren()")
        gates[0].set()
        page.wait_for_selector(".player-step")
        page.fill("#compose-speed input[type=number]", "1500")
        page.click(".player-play")
    finally:
        gates[1].set()
    page.wait_for_timeout(1000)  # the second answer would come now
    assert len(done) >= 2 and page.inner_text(".player-play") == "Pause"
    page.click(".player-play")


def test_a_composition_that_is_refused_says_so_and_can_be_asked_for_again(desk, served, monkeypatch):
    page = desk.page

    def refused(*_: object, **__: object) -> None:
        raise EditingError("too much is waiting; try again in a moment")

    with monkeypatch.context() as patch:
        patch.setattr(served.service, "compose", refused)
        # Whatever was asked for before may by now have composed the face that is there.
        desk.start()
        desk.tab("compose")
        page.wait_for_selector(".player-said button:not([hidden])")
        assert page.inner_text(".player-words") == "Too much is waiting; try again in a moment."
        assert "too much is waiting" in desk.message().lower()
    page.click(".player-said button")
    page.wait_for_selector(".player-step >> nth=11")
    assert page.is_hidden(".player-said button")
    assert "other tabs" in page.inner_text("#stage .stage-caption") and page.is_disabled("#stage [data-mode=parts]")


def test_photo(desk, served, monkeypatch):
    page = desk.page
    desk.tab("photo")
    drop = "#photo-drop input[type=file]"
    page.wait_for_selector(drop, state="attached")
    assert page.is_enabled("#photo-drop [aria-label='Capture from camera']")

    page.set_input_files(drop, {"name": "bad.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n nonsense"})
    message = desk.message()
    assert "damaged" in message and "Traceback" not in message
    assert page.is_disabled("#rebuild")

    page.wait_for_selector(drop, state="attached")
    page.set_input_files(drop, {"name": "me.jpg", "mimeType": "image/jpeg", "buffer": photo_bytes(181)})
    page.wait_for_selector("#photo .photo-face")
    assert list(served.folder.rglob("me.jpg")) == [], "the upload is taken off the disk at once"
    page.check("#photo .studio-check input")
    page.wait_for_selector("#photo .photo-square")
    page.uncheck("#photo .studio-check input")
    page.click("#photo .photo-face")

    page.check("#effort input[value=careful]")
    gate, original_invert = threading.Event(), served.service.invert

    def slow(*args, **named):  # as when the judges are loaded first
        gate.wait(120)
        return original_invert(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(served.service, "invert", slow)
        page.click("#rebuild")
        try:
            page.wait_for_function("document.querySelector('#progress .progress-words')?.innerText === 'Starting.'")
        finally:
            gate.set()
    page.wait_for_function("/step [1-9]/.test(document.querySelector('#progress .progress-words')?.innerText)")
    assert page.is_disabled("#rebuild")
    page.click("#stop")
    page.wait_for_function("document.querySelector('#progress .progress-words').innerText.startsWith('Stopped')")
    assert "of 255" in page.inner_text("#progress .scores")
    assert page.is_hidden("#nearer"), "a judge whose scale is not known says nothing"
    scale = LikenessScale(same=0.9, similar=-0.9, strangers=-1.0, another_photo=1.0, measured="")
    words = "document.querySelector('#progress .progress-words').innerText"
    with monkeypatch.context() as patch:
        patch.setattr(served.service, "likeness", lambda cosine: scale.read(0.0))
        patch.setitem(photo.STEPS, "careful", 1)
        patch.setattr(photo, "TUNE_STEPS", 0)  # there is nothing to tune in the toy
        page.click("#rebuild")
        page.wait_for_function(f"{words}.includes('only similar to the person')")
        assert "similar, 0.00" in page.inner_text("#progress .scores")
        page.click("#nearer")
        page.wait_for_function(f"{words}.includes('may not get nearer')")
        assert page.is_checked("#tune input") and page.is_hidden("#nearer")
    page.click("#send")
    desk.wait("Studio.tab === 'edit' && Studio.face.title === 'Photo'")
    page.click(".tool-undo")
    desk.wait("Studio.face.title === 'Face 3'")
    assert served.service.health()["jobs"] == 0


def test_a_photo_can_be_taken_with_the_webcam(served, chromium):
    # Chromium's stand-in for a camera, with its question for leave answered.
    with contextlib.closing(
        chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    ) as browser:
        desk = Desk(browser, served.url).open()
        page = desk.page
        desk.tab("photo")
        page.click("#photo-drop [aria-label='Capture from camera']")
        page.click("#photo-drop button:has-text('Click to Access Webcam')")
        page.wait_for_function("document.querySelector('#photo-drop video')?.videoWidth > 0")
        page.click("#photo-drop [aria-label='capture photo']")
        page.wait_for_selector("#photo .photo-face")
        page.check("#effort input[value=quick]")
        page.click("#rebuild")
        page.wait_for_function("document.querySelector('#progress .progress-words')?.innerText.startsWith('Done')")
        page.click("#send")
        desk.wait("Studio.tab === 'edit' && Studio.face.title === 'Photo'")
        assert desk.problems == []
        desk.close()


def test_two_visitors_have_nothing_of_each_other(desk, browser, served):
    other = Desk(browser, served.url).open()
    page = other.page
    other.tab("face")
    page.fill("#seed input", "11")
    page.press("#seed input", "Enter")
    other.wait("Studio.face.title === 'Face 11'")
    theirs = other.picture()
    desk.page.fill("#seed input", "12")
    desk.page.press("#seed input", "Enter")
    desk.wait("Studio.face.title === 'Face 12'")
    desk.tab("edit")
    desk.page.check("#sliders input[value=hair]", force=True)
    desk.drag(HAIR, 0.5, 0.8)
    desk.edits(1)
    mine = desk.picture()
    assert other.picture() == theirs and other.ask("Studio.face.edits") == 0
    # Neither undo nor the strip leads to somebody else's face, and a reload brings back one's own.
    labels = page.locator("#strip .grid-label").all_inner_texts()
    assert "Face 11" in labels and "Face 12" not in labels
    page.click(".tool-undo")
    other.wait("Studio.face.title !== 'Face 11'")
    page.click(".tool-redo")
    other.wait("Studio.face.title === 'Face 11'")
    page.wait_for_function("localStorage.getItem('memorygan-studio')?.length > 10")
    page.reload()
    other.ready()
    assert other.ask("Studio.face.title") == "Face 11" and other.picture() == theirs
    assert desk.picture() == mine
    assert other.problems == []
    other.close()


def test_a_full_queue_refuses_with_a_sentence_on_the_page(browser, tmp_path, monkeypatch):
    monkeypatch.setitem(queue.CONCURRENT, queue.QUICK, 1)
    service = full_service()
    gate, begun, real = threading.Event(), threading.Semaphore(0), service.new_face

    def slow(*args, **kwargs):
        begun.release()
        gate.wait(120)
        return real(*args, **kwargs)

    for page in serve(service, tmp_path, Settings(queue_size=1)):
        desk = Desk(browser, page.url).open()
        monkeypatch.setattr(service, "new_face", slow)
        try:
            # One is at work, one waits, and one is refused. Programs have a line of their own.
            desk.page.click("#new-face")
            assert begun.acquire(timeout=60)
            other = Desk(browser, page.url)
            other.page.goto(page.url, wait_until="commit")
            other.wait("window.Studio && window.StudioLink")
            until = time.monotonic() + 60
            while len(page.demo._queue) < 1 and time.monotonic() < until:
                time.sleep(0.1)
            desk.page.press("#seed input", "Enter")
            assert "currently busy. Please try again." in desk.message()
            assert Client(page.url, verbose=False).predict(api_name="/model")["parts"]
        finally:
            gate.set()
        desk.close()
        other.close()


def test_a_page_that_is_closed_takes_its_job_and_its_faces_along(browser, tmp_path):
    for served in serve(full_service(), tmp_path, Settings(grace=1.0, closed_age=1.0)):
        leaving = Desk(browser, served.url).open()
        page = leaving.page
        leaving.tab("photo")
        page.wait_for_selector("#photo-drop input[type=file]", state="attached")
        photo = {"name": "gone.jpg", "mimeType": "image/jpeg", "buffer": photo_bytes(191)}
        page.set_input_files("#photo-drop input[type=file]", photo)
        page.wait_for_selector("#photo .photo-face")
        page.check("#effort input[value=careful]")
        page.click("#rebuild")
        page.wait_for_function("/step [1-9]/.test(document.querySelector('#progress .progress-words')?.innerText)")
        assert served.service.health()["sessions"] > 0
        leaving.close()

        def left(service: EditingService = served.service) -> tuple[int, int]:
            health = service.health()
            return health["jobs"], health["sessions"]

        until = time.monotonic() + 60
        while left() != (0, 0) and time.monotonic() < until:
            time.sleep(0.2)
        assert left() == (0, 0)


def test_about(desk, served):
    desk.tab("about")
    facts = desk.page.inner_text("#facts")
    assert served.service.model in facts and served.service.device in facts
    assert desk.page.is_visible("text=Do not edit pictures of people without their consent")
    desk.page.wait_for_selector("#paper .figures")
    assert "435.4" in desk.page.inner_text("#paper .figures")


def test_saving_opening_and_reloading(desk, served, tmp_path):
    page = desk.page
    desk.click_face(0.5, 0.25)
    desk.drag(HAIR, 0.5, 0.75)
    desk.edits(1)
    desk.drag(HAIR, 0.75, 0.9)
    desk.wait("Studio.face.sliders['hair.lightness'] > 2")
    face = desk.picture()

    saved = {}
    for kind, tool in (("png", ".tool-picture"), ("json", ".tool-recipe")):
        with page.expect_download() as download:
            page.click(tool)
        assert download.value.suggested_filename == f"face-3.{kind}"
        saved[kind] = tmp_path / f"saved.{kind}"
        download.value.save_as(saved[kind])

    page.reload()
    desk.ready()
    assert desk.picture() == face
    page.click(".tool-undo")
    desk.wait("Studio.face.image !== ''")

    desk.tab("face")
    page.click("#new-face")
    desk.wait("Studio.face.title !== 'Face 3'")
    for file in saved.values():
        page.set_input_files(OPEN_RECIPE, str(file))
        page.wait_for_function("face => Studio.face.image === face", arg=face)
        page.click(".tool-undo")
        page.wait_for_function("face => Studio.face.image !== face", arg=face)

    page.set_input_files(
        OPEN_RECIPE,
        {"name": "other.png", "mimeType": "image/png", "buffer": photo_bytes()},
    )
    assert "recipe" in desk.message()


def test_an_unexpected_error_is_one_sentence(desk, served, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("inner workings")

    monkeypatch.setattr(served.service, "new_face", broken)
    desk.page.click("#new-face")
    message = desk.message()
    assert "Something went wrong" in message and "inner workings" not in message


def test_light_and_dark(desk):
    page = desk.page
    assert not desk.ask("document.body.classList.contains('dark')")
    page.click(".studio-theme")
    assert desk.ask("document.body.classList.contains('dark')")
    page.reload()
    desk.ready()
    page.wait_for_function("document.body.classList.contains('dark')")
    page.click(".studio-theme")


def test_nothing_is_wider_than_a_phone(desk):
    page = desk.page
    page.set_viewport_size({"width": 360, "height": 700})
    try:
        for name in TABS:
            desk.tab(name)
            if name == "compose":
                page.wait_for_selector(".player-step >> nth=11")
            if name == "describe":
                describe(desk, "red hair", 5)
                desk.wait(f"/^Done/.test({WORDS})")
            if name == "about":
                page.wait_for_selector("#paper .figures")
            width = desk.ask("document.documentElement.scrollWidth")
            assert width <= 360, f"{name} is {width} pixels wide"
        # Where the face is scrolled away, a small copy of it stays in view.
        desk.tab("swap")
        desk.ask("document.querySelector('#surprise').scrollIntoView()")
        page.wait_for_selector(".stage-mini-on")
        # It hides nothing for good: the last thing of the page ends above it.
        desk.ask("scrollTo(0, document.documentElement.scrollHeight)")
        page.wait_for_timeout(200)
        ends = "document.querySelector('{}').getBoundingClientRect().{}"
        assert desk.ask(ends.format("#variants", "bottom")) <= desk.ask(ends.format(".stage-mini", "top"))
        # And the names of the tabs stand apart.
        gaps = desk.ask(
            """() => {
                const range = document.createRange();
                const boxes = [...document.querySelectorAll('#tabs button[role=tab]')].map((tab) => {
                    range.selectNodeContents(tab);
                    return range.getBoundingClientRect();
                }).filter((box) => box.width > 0);
                return boxes.slice(1).map((box, index) => [box.top - boxes[index].top, box.left - boxes[index].right]);
            }"""
        )
        assert len(gaps) == len(TABS) - 1 and all(down > 5 or apart >= 6 for down, apart in gaps), gaps
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})


def test_accessibility(desk):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = []

    def look(name: str, **options: object) -> None:
        for problem in axe.run(desk.page, options=options).response["violations"]:
            where = [node["html"][:120] for node in problem["nodes"][:3]]
            found.append((name, problem["impact"], problem["id"], where))

    def rest() -> None:  # colours fade
        desk.wait("document.getAnimations().every((one) => !(one instanceof CSSTransition))")

    for name in TABS:
        desk.tab(name)
        if name == "edit":
            desk.page.check("#sliders input[value=hair]", force=True)
        if name == "compose":
            desk.page.wait_for_selector(".player-step >> nth=11")
        if name == "describe":
            describe(desk, "red hair", 5)
            desk.wait(f"/^Done/.test({WORDS})")
        if name == "about":
            desk.page.wait_for_selector("#paper .figures")
        rest()
        look(name)
        # Dark differs in nothing but colours.
        desk.page.click(".studio-theme")
        rest()
        look(f"{name}, dark", runOnly=["color-contrast"])
        desk.page.click(".studio-theme")
        rest()
    assert found == []
