"""Long jobs on ZeroGPU, with a stand-in for the package ``spaces``; and the program as a Space starts it."""

from __future__ import annotations

import json
import os
import pickle
import re
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file  # type: ignore[import-untyped]
from test_app import full_service, photo_bytes  # type: ignore[import-not-found]
from toy import stop_midway  # type: ignore[import-not-found]

from app import zero
from editing.errors import EditingError
from editing.results import CancelToken, JobState
from memorygan.checkpoint import Provenance, save_generator
from memorygan.config import get_preset
from memorygan.generator import MemoryGAN

ROOT = Path(__file__).resolve().parents[1]


class Gpu:
    """The decorator ``spaces.GPU``, without a fork: it records what was asked for, and that only plain data travels."""

    def __init__(self) -> None:
        self.durations: list[int] = []
        self.problem: Exception | None = None

    def __call__(self, *, duration: Callable[..., int]) -> Callable[..., Any]:
        def decorate(task: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
            def call(*args: Any) -> Iterator[Any]:
                self.durations.append(duration(*args))
                if self.problem is not None:
                    raise self.problem
                yield from task(*pickled(args))

            return call

        return decorate


def pickled(value: Any) -> Any:
    """What arrives in another process."""
    return pickle.loads(pickle.dumps(value))


@pytest.fixture
def page():
    with full_service() as service:
        yield service


@pytest.fixture
def gpu():
    return Gpu()


@pytest.fixture
def jobs(page, gpu):
    threads = torch.get_num_threads()
    opened = []

    def open_service():
        opened.append(full_service())
        return opened[-1]

    yield zero.ZeroJobs(page, open_service, gpu)
    torch.set_num_threads(threads)
    assert len(opened) <= 1, "a process that serves several jobs opens the service once"
    for service in opened:
        assert service.health()["sessions"] == service.health()["photos"] == 0, "nothing is left behind"
        service.close()


def test_a_description_comes_back_as_if_it_had_been_followed_here(page, jobs):
    face = page.new_face(3)
    asked = {"prompt": "red hair", "steps": 12, "seed": 5}
    *_, here = page.describe(face.session, **asked)
    *steps, there = jobs.describe(face.session, **asked)
    assert [now.step for now in steps][:3] == [0, 1, 2]
    assert np.array_equal(here.image, there.image)
    applied = page.apply_description(face.session, there.proposal)
    assert np.array_equal(applied.image, there.image) and len(applied.history) == 1
    assert page.undo(face.session).history == ()


@pytest.mark.parametrize("kind", ["describe", "invert"])
def test_a_job_goes_on_from_where_another_stood(page, jobs, kind):
    face, photo = page.new_face(3).session, page.open_photo(photo_bytes()).photo

    def begin(**options):
        if kind == "describe":
            return jobs.describe(face, "red hair", steps=20, seed=5, **options)
        return jobs.invert(photo, steps=20, **options)

    def worst(now):
        return now.losses["total"] if kind == "describe" else now.loss

    states, first = [], []
    for now in begin():
        states.append(now.state)
        first.append(worst(now))
        if now.step == 8:
            break
    *rest, last = begin(resume=pickled(states[-1]))
    assert [now.step for now in rest][:3] == [8, 9, 10] and last.step == 20 and last.phase == "done"
    assert worst(rest[0]) == pytest.approx(min(first), rel=0.05) and worst(rest[0]) < first[0]
    with pytest.raises(EditingError, match="another job"):
        list(begin(resume=JobState(8, 8, np.zeros((1, 2, 3), dtype=np.float32))))


def test_a_photo_comes_back_as_a_face_of_the_page(page, jobs):
    photo = page.open_photo(photo_bytes()).photo
    *_, last = jobs.invert(photo, crop=(10.0, 20.0, 120.0), steps=4, tune_steps=3)
    assert page.view(last.view.session).can_undo is False
    assert last.target.shape == last.image.shape == (page.size, page.size, 3)
    assert any("closer likeness" in notice for notice in last.notices)


def test_the_time_asked_for_grows_with_the_steps_and_is_bounded(page, jobs, gpu):
    face = page.new_face(3)
    for steps in (1, 101):
        list(jobs.describe(face.session, "red hair", steps=steps, cancel=stopped()))
    few, many = gpu.durations
    assert many - few == pytest.approx(100 * zero.PER_STEP["describe"], abs=1)
    assert zero.seconds("describe", 0, None, {"steps": 10**6}) == zero.LONGEST


def stopped() -> CancelToken:
    token = CancelToken()
    token.cancel()
    return token


def test_a_job_can_be_stopped_and_keeps_its_best(page, jobs):
    assert len(stop_midway(jobs, page.new_face(3).session)) < 20


def test_a_job_ends_before_its_time_is_up(page, jobs, monkeypatch):
    monkeypatch.setattr(zero, "MARGIN", 1e6)
    face = page.new_face(3)
    *_, last = jobs.describe(face.session, "red hair", steps=500)
    assert last.phase == "done" and last.cancelled and last.step < 10


def test_places_are_given_back_also_by_those_who_leave(page, jobs):
    face = page.new_face(3)
    for _ in range(2 * zero.SLOTS):
        job = jobs.describe(face.session, "red hair", steps=1, cancel=stopped())
        next(job)
        job.close()


def test_refusals_come_through_as_sentences(page, jobs, gpu):
    face = page.new_face(3)
    with pytest.raises(EditingError, match="no loss 'style'"):
        list(jobs.describe(face.session, "red hair", weights={"style": 1.0}))
    # What Spaces itself says is marked up.
    gpu.problem = gr.Error("You have used up your quota. <a href='x'>Log in</a> for more.")
    with pytest.raises(EditingError, match=r"used up your quota\. Log in for more"):
        list(jobs.describe(face.session, "red hair"))


def test_spaces_is_asked_for_only_where_it_lends_gpus(monkeypatch, tmp_path):
    (tmp_path / "spaces.py").write_text("GPU = 'lent'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "spaces", raising=False)
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    assert zero.import_spaces() is None
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert zero.import_spaces().GPU == "lent"
    monkeypatch.delitem(sys.modules, "spaces")


# What stands for the package in the program a Space starts: it really forks, as ZeroGPU does, and writes down what was
# asked for. In the forked process "cuda" is the processor, and CUDA was not touched before.
STAND_IN = """
import multiprocessing, os, pathlib, sys

import gradio

assert "torch" not in sys.modules or not sys.modules["torch"].cuda.is_initialized()
LOG = pathlib.Path(os.environ["STAND_IN_LOG"])


def GPU(*, duration):
    def decorate(task):
        def run(args, queue):
            import torch
            import editing.service

            editing.service.choose_device = lambda name: torch.device("cpu")
            for item in task(*args):
                queue.put(item)
            queue.put(None)

        def call(*args):
            context = multiprocessing.get_context("fork")
            queue = context.SimpleQueue()
            worker = context.Process(target=run, args=(args, queue), daemon=True)
            worker.start()
            with LOG.open("a") as log:
                log.write(f"{duration(*args)} {worker.pid}\\n")
            while (item := queue.get()) is not None:
                yield item
            worker.join()

        return call

    return decorate
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ZeroGPU forks, and runs on Linux")
def test_the_program_as_a_zero_gpu_space_starts_it(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "spaces.py").write_text(textwrap.dedent(STAND_IN))
    lent = {
        "PYTHONPATH": str(tmp_path / "site"),
        "SPACES_ZERO_GPU": "true",
        "STAND_IN_LOG": str(tmp_path / "log"),
        "MEMORYGAN_DEVICE": "cuda",
    }
    with started_as_a_space(tmp_path, lent) as (address, health, program):
        assert health["device"] == "cpu", "the process of the page has no GPU"
        studio = Client(address, verbose=False)
        (tmp_path / "photo.jpg").write_bytes(photo_bytes())
        for steps in (2, 52):
            _, recipe, _ = studio.predict(
                photo=handle_file(str(tmp_path / "photo.jpg")), steps=steps, crop=[5, 5, 100], api_name="/invert"
            )
            assert recipe["source"]["origin"] == "photo"
    asked = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [int(seconds) for seconds, _ in asked] == [zero.seconds("invert", 0, b"", {"steps": n}) for n in (2, 52)]
    assert all(int(pid) != program.pid for _, pid in asked)


def test_the_program_as_any_other_space_starts_it(tmp_path):
    with started_as_a_space(tmp_path, {"MEMORYGAN_DEVICE": "cpu"}) as (address, health, _):
        assert health["status"] == "ok" and health["model"] == "tiny" and health["device"] == "cpu"
        page = httpx.get(address)
        assert page.status_code == 200 and "studio-first" in page.text
        picture, recipe = Client(address, verbose=False).predict(seed=7, api_name="/generate")
        assert Path(picture).read_bytes().startswith(b"\x89PNG")
        assert recipe["checkpoint"]["sha256"] == health["checkpoint"]


@contextmanager
def started_as_a_space(
    folder: Path, more: dict[str, str]
) -> Iterator[tuple[str, dict[str, Any], subprocess.Popen[bytes]]]:
    """The file that the README names for Spaces, started as they do; gives its address, its health and the process."""
    torch.manual_seed(0)
    generator = MemoryGAN(get_preset("tiny-32").generator)
    generator.update_mean_latents(64)
    save_generator(folder / "tiny.safetensors", generator, provenance=Provenance(images_seen=1))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^app_file: (.+)$", readme, re.MULTILINE)
    assert found is not None
    own = {
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "MEMORYGAN_CHECKPOINT": str(folder / "tiny.safetensors"),
    }
    with (folder / "out").open("w") as out:
        program = subprocess.Popen(
            [sys.executable, str(ROOT / found[1])],
            cwd=ROOT,
            env=os.environ | own | more,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            yield address, answer(f"{address}/health", program, folder / "out"), program
        finally:
            program.terminate()
            program.wait(timeout=60)


def answer(address: str, program: subprocess.Popen[bytes], out: Path) -> dict[str, Any]:
    """What a program that is being started says at an address, as soon as it says something."""
    until = time.monotonic() + 200
    while time.monotonic() < until and program.poll() is None:
        try:
            return json.loads(httpx.get(address).text)
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError(f"the program did not answer:\n{out.read_text()[-2000:]}")
