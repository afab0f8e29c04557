"""Takes pictures of every tab, light, dark and on a phone, into ``docs/screenshots``.

    python docs/make_screenshots.py --checkpoint weights/people-128.safetensors

Needs Playwright and an installed Chromium or Chrome. The photo it uploads is a face the model made itself.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it can be started from anywhere

from app import create_demo  # noqa: E402
from app.server import Settings, launch  # noqa: E402
from editing.service import EditingService  # noqa: E402

TABS = ("face", "edit", "swap", "describe", "compose", "photo", "about")
# A wide window is as high as its page, up to this.
TALLEST = 2000
# What stands at the top of the window on a phone, where it is not the beginning of the tab.
TOPS = {"describe": "#strength", "photo": "#photo", "about": "#measured"}
LOOKS = {"light": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (360, 740, "light")}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SEED, PHOTO_SEED = 70, 278
ENDED = "/^(Done|Stopped)/.test(document.querySelector('{} .progress-words')?.innerText)"
# Milliseconds for a job of many steps on a slow machine.
PATIENCE = 900_000
# Of the description; more bring it nearer to the words.
STEPS = 120


@contextmanager
def served(service: EditingService) -> Iterator[str]:
    """The page, as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        demo = create_demo(service)
        try:
            yield launch(demo, service, Settings(), prevent_thread_lock=True, quiet=True)
        finally:
            demo.close(verbose=False)


def photo(service: EditingService, seed: int) -> bytes:
    """A sampled face on a wider ground, as a JPEG."""
    view = service.new_face(seed, 0.6)
    face = Image.fromarray(view.image).resize((384, 384), Image.Resampling.BICUBIC)
    service.close_session(view.session)
    ground = Image.new("RGB", (640, 448), face.resize((1, 1)).getpixel((0, 0)))
    ground.paste(face, (128, 32))
    stream = io.BytesIO()
    ground.save(stream, "JPEG", quality=92)
    return stream.getvalue()


def open_page(browser: Browser, address: str, width: int, height: int, theme: str, seed: int) -> Page:
    """A new page with a face on show."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if theme == "dark" else "light"
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(address)
    page.wait_for_function("window.Studio && Studio.face && Studio.face.face > 0")
    page.fill("#seed input", str(seed))
    page.press("#seed input", "Enter")
    page.wait_for_function(f"Studio.face.title === 'Face {seed}' && Studio.face.face > 1")
    return page


def prepare(page: Page, tab: str, upload: bytes) -> None:
    """Brings a tab to the front, with something in it."""
    if tab != "face":
        page.click(f"#tab-{tab}-button")
        page.wait_for_function(f"Studio.tab === '{tab}'")
    if tab == "edit":
        page.check("#sliders input[value=hair]", force=True)
        sliders = page.locator("#sliders input[type=range]")
        for index, value in ((0, 2.0), (min(3, sliders.count() - 1), 2.4)):
            if sliders.count():
                edits = page.evaluate("Studio.face.edits")
                sliders.nth(index).fill(str(value))
                page.wait_for_function(f"Studio.face.edits !== {edits}")
        page.click("#stage [data-mode=compare]")
    elif tab == "swap":
        page.click("#stage [data-mode=face]")
        page.click("#other-new")
        page.wait_for_selector("#card-other img:not([hidden])")
        for part in ("hair", "mouth"):
            page.check(f"#swap-panel input[value={part}]", force=True)
        page.wait_for_selector("#stage .stage-badge:not([hidden])")
        page.click("#surprise")
        page.wait_for_selector("#variants .grid-item >> nth=5")
    elif tab == "describe":
        page.click("#stage [data-mode=face]")
        if page.is_enabled("#describe"):
            page.click("#describe-advanced >> text=Advanced")
            page.fill("#describe-steps input[type=number]", str(STEPS))
            page.click("#describe-advanced >> text=Advanced")
            page.click(".studio-example:has-text('gray hair')")
            page.wait_for_selector("#allowed .studio-chip-hint")
            page.click("#describe")
            page.wait_for_function(ENDED.format("#guided"), timeout=PATIENCE)
    elif tab == "compose":
        page.wait_for_selector(".player-step >> nth=12")
        page.click("text=Order of the parts")
        page.locator(".player-bar input").fill("7")
    elif tab == "about":
        page.wait_for_selector("#paper .figures")
    elif tab == "photo":
        drop = "#photo-drop input[type=file]"
        page.wait_for_selector(drop, state="attached")
        page.set_input_files(drop, {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": upload})
        page.wait_for_selector("#photo .photo-box img:not([hidden])")
        if page.locator("#photo .photo-face").count() == 0:
            page.locator("#photo [data-name=left]").fill("0.5")
            page.locator("#photo [data-name=side]").fill("0.85")
            page.locator("#photo [data-name=top]").fill("0.5")
        page.check("#effort input[value=quick]")
        page.click("#rebuild")
        page.wait_for_function(ENDED.format("#progress"), timeout=PATIENCE)
    # Messages are not what these pictures are about.
    for close in page.locator(".toast-close").all():
        close.click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(1200)


def scroll(page: Page, tab: str, phone: bool) -> None:
    """Makes the window as high as the tab needs; on a phone the tab's own part lies below the face."""
    if not phone:
        width, height, _ = LOOKS["light"]
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(300)
        whole = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": width, "height": min(max(height, whole), TALLEST)})
    page.evaluate("document.activeElement?.blur(); window.scrollTo(0, 0)")
    if phone and tab != "face":
        top = next(place for place in (TOPS.get(tab), "#tab-column") if place and page.locator(place).count())
        page.evaluate(f"document.querySelector('{top}').scrollIntoView()")
    page.wait_for_timeout(300)


def main() -> None:
    """Takes them all."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--checkpoint", type=Path, help="the generator; the bundled one if left out")
    options.add_argument("--browser", help="path of Chromium or Chrome; one that is installed if left out")
    options.add_argument("--out", type=Path, default=ROOT / "docs" / "screenshots")
    options.add_argument("--only", choices=LOOKS, nargs="*", default=list(LOOKS), help="which looks")
    options.add_argument("--seed", type=int, default=SEED, help="number of the face on show")
    values = options.parse_args()
    path = values.browser or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        options.error("no Chromium or Chrome is installed; name one with --browser")
    values.out.mkdir(parents=True, exist_ok=True)
    service = EditingService.open(values.checkpoint, "cpu")
    with service, served(service) as address, sync_playwright() as play:
        upload = photo(service, PHOTO_SEED)
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for look in values.only:
            width, height, theme = LOOKS[look]
            page = open_page(browser, address, width, height, theme, values.seed)
            for tab in TABS:
                prepare(page, tab, upload)
                scroll(page, tab, look == "phone")
                picture = Image.open(io.BytesIO(page.screenshot()))
                picture.convert("RGB").save(values.out / f"{tab}-{look}.webp", "WEBP", quality=82, method=6)
            page.context.close()
        browser.close()


if __name__ == "__main__":
    main()
