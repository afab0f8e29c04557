"""Real replicas: a local Ray with processes that compute, die in the middle of it, become more and fewer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import yaml
from visitors import Visitor  # type: ignore[import-not-found]

pytest.importorskip("ray", reason="Ray is not installed; pip install '.[serve]' brings it")

import ray
from ray import serve

from app.cluster.deploy import NAMES, deployments, running
from app.cluster.replicas import Model
from app.cluster.service import ClusterJobs, ClusterService
from editing.service import EditingService
from memorygan.checkpoint import Provenance, save_generator
from memorygan.config import get_preset
from memorygan.generator import MemoryGAN

ROOT = Path(__file__).resolve().parents[1]
# Starting Ray takes a while beside other programs.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
USERS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    generator = MemoryGAN(get_preset("tiny-32").generator)
    generator.update_mean_latents(64)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_generator(path, generator, provenance=Provenance(images_seen=1))
    return Model(str(path), "cpu", identity_judge="none")


@pytest.fixture(scope="module")
def handles(model):
    with running(model, most=3, cores=8) as found:
        scale(model, 2)
        yield found


@pytest.fixture
def page(model, handles):
    with ClusterService(model, handles[0]) as service:
        yield service


@pytest.fixture
def here(model):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as replicas have; sums over another number of them round differently
    with EditingService.open(model.checkpoint, "cpu") as service:
        yield service
    torch.set_num_threads(threads)


def scale(model: Model, count: int) -> None:
    """Has exactly so many replicas of each kind; returns when they are there."""
    for name, one in zip(NAMES, deployments(model, gpus=False), strict=True):
        fixed = one._bound_deployment.options(autoscaling_config=None, num_replicas=count)
        serve.run(fixed.bind(model), name=name, route_prefix=None)


def replicas(kind: str) -> list[str]:
    """Names of the processes of one deployment."""
    named = ray.util.list_named_actors(all_namespaces=True)
    return [one["name"] for one in named if one["namespace"] == "serve" and f"#{kind}#" in one["name"]]


def kill_one(kind: str) -> None:
    ray.kill(ray.get_actor(replicas(kind)[0], namespace="serve"))


def test_two_replicas_make_the_pictures_of_one_process(page, here, handles):
    for seed in range(8):
        views = []
        for service in (page, here):
            face, other = service.new_face(seed), service.new_face(seed + 100)
            shown = service.preview_swap(face.session, other.session, ["hair"])
            views.append([face.image, shown.image, service.swap(face.session, other.session, ["mouth"]).image])
            views[-1] += [frame.image for frame in service.compose(face.session)] if seed < 2 else []
        assert all(np.array_equal(one, other) for one, other in zip(*views, strict=True))
    figures = handles[0].broadcast("figures").results(timeout_s=60)
    assert len(figures) == 2
    assert all(one["timings"]["render"]["count"] for one in figures), "both had something to do"
    hits = sum(one["cache"]["hits"] for one in figures)
    assert hits > sum(one["cache"]["misses"] for one in figures), "a face keeps to the replica that knows its parts"


def test_a_replica_that_dies_takes_nobodys_work_along(page, handles):
    jobs, killed = ClusterJobs(page, handles[1]), threading.Event()
    middle = threading.Barrier(USERS + 1)

    def person(number: int) -> tuple[list[int], bool, list[str]]:
        face, other, done = page.new_face(number), page.new_face(number + 100), []
        middle.wait(600)
        if number < 2:
            photo_of_words = jobs.describe(face.session, "red hair", parts=["hair"], steps=60, seed=1)
            last = None
            for last in photo_of_words:
                if last.phase != "waiting":
                    done.append(last.step)
                if last.step == 12 and number == 0:
                    kill_one("Jobs")
                    killed.set()
            assert last is not None and last.phase == "done" and not last.cancelled
            if last.proposal is not None:
                page.apply_description(face.session, last.proposal)
        else:
            for turn in range(20):
                page.preview_swap(face.session, other.session, ["nose"])
                page.swap(face.session, other.session, ["hair" if turn % 2 else "mouth"], amount=0.05 * turn)
        history = list(page.view(face.session).history)
        return done, bool(page.view(face.session).image.any()), history

    with ThreadPoolExecutor(USERS) as people:
        asked = [people.submit(person, number) for number in range(USERS)]
        middle.wait(600)
        time.sleep(1.0)
        kill_one("Pictures")
        found = [one.result() for one in asked]
    assert killed.is_set()
    for number, (done, there, history) in enumerate(found):
        assert there
        if number < 2:
            assert done == sorted(done) and set(done) == set(range(61)), "a job goes on where it was"
        else:
            assert len(history) == 20, "nothing that was done is lost"


def test_one_replica_three_and_one_again_drop_no_request(page, handles, model):
    stop, counts, problems = threading.Event(), [0] * USERS, []

    def person(number: int) -> None:
        seed = 1000 * number
        try:
            while not stop.is_set():
                seed += 1
                face = page.new_face(seed)
                page.close_session(face.session)
                counts[number] += 1
        except Exception as error:
            problems.append(repr(error))

    scale(model, 1)
    people = [threading.Thread(target=person, args=(number,)) for number in range(USERS)]
    for one in people:
        one.start()
    seen = []
    for count in (3, 1):
        before = sum(counts)
        scale(model, count)
        until = time.monotonic() + 300
        while (len(replicas("Pictures")) != count or sum(counts) < before + 20) and time.monotonic() < until:
            time.sleep(0.5)
        seen.append((len(replicas("Pictures")), sum(counts) - before))
    stop.set()
    for one in people:
        one.join()
    assert problems == []
    assert [one for one, _ in seen] == [3, 1] and all(done >= 20 for _, done in seen), seen


def test_what_a_second_replica_brings(page, model):
    """One thread each. On two idle cores two replicas make nearly twice as many pictures; printed for the docs."""
    rates = {}
    for count in (1, 2):
        scale(model, count)
        with ThreadPoolExecutor(USERS) as people:
            faces = list(people.map(lambda seed: page.new_face(seed).session, range(USERS)))
            list(people.map(page.compose, faces))  # what is done only once
            begun = time.monotonic()
            done = sum(people.map(lambda one: len(page.compose(one)), faces * 8))
            rates[count] = done / (time.monotonic() - begun)
    print(f"steps of compositions per second: {rates[1]:.1f} with one replica, {rates[2]:.1f} with two")
    assert min(rates.values()) > 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_the_program_with_its_own_cluster(model):
    port = free_port()
    options = ["--replicas", "1", "--device", "cpu", "--no-open", "--port", str(port)]
    program = subprocess.Popen(
        [sys.executable, "-m", "app", "--engine", "ray", *options, "--checkpoint", str(model.checkpoint)], cwd=ROOT
    )
    try:
        visit(f"http://127.0.0.1:{port}", program)
        program.send_signal(signal.SIGTERM)
        assert program.wait(120) == 0
    finally:
        program.kill()


def test_the_config_file_shows_the_page_through_serves_own_door(model, tmp_path):
    config = yaml.safe_load((ROOT / "docs" / "serve.yaml").read_text(encoding="utf-8"))
    config["http_options"] = {"host": "127.0.0.1", "port": free_port()}
    config["applications"][0]["args"] |= {"device": "cpu", "gpus": False, "checkpoint": str(model.checkpoint)}
    for one in config["applications"][0]["deployments"]:
        one["autoscaling_config"] |= {"min_replicas": 1, "max_replicas": 1}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()", "run", str(tmp_path / "serve.yaml")]
    # Beside other programs Serve's door takes longer to open than Serve expects.
    patience = {"RAY_worker_niceness": "0", "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120"}
    program = subprocess.Popen(command, cwd=ROOT, env=os.environ | patience)
    try:
        visit(f"http://127.0.0.1:{config['http_options']['port']}", program)
    finally:
        program.terminate()
        with suppress(subprocess.TimeoutExpired):
            program.wait(60)
        program.kill()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def visit(address: str, program: subprocess.Popen[bytes]) -> None:
    """Waits for the page, opens it, and asks for a face, as a person and as a program."""
    health: dict[str, Any] = {}
    until = time.monotonic() + 1200
    while health.get("device") != "replicas" and time.monotonic() < until and program.poll() is None:
        try:
            health = httpx.get(f"{address}/health", timeout=10, trust_env=False).json()
        except (httpx.HTTPError, ValueError):
            time.sleep(1.0)
    assert health["status"] == "ok" and health["device"] == "replicas"
    visitor = Visitor(address).open()
    visitor.do("compose", None, None)
    visitor.close()
    asked = httpx.post(f"{address}/gradio_api/call/generate", json={"data": [7, 0.7]}, timeout=60).json()
    answer = httpx.get(f"{address}/gradio_api/call/generate/{asked['event_id']}", timeout=300).text
    assert "event: complete" in answer
