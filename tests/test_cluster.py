"""The page with Ray Serve behind it, here in one process; tests/test_cluster_replicas.py has real replicas."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
import yaml
from test_app import full_service, one_face, photo_bytes  # type: ignore[import-not-found]
from test_text import StandIns  # type: ignore[import-not-found]
from toy import stop_midway, toy_assets  # type: ignore[import-not-found]

from app import create_demo
from app.cli import parse
from app.jobs import StoppableJobs
from app.server import Settings, mounted
from editing.errors import EditingError
from editing.service import EditingService

pytest.importorskip("ray", reason="Ray is not installed; pip install '.[serve]' brings it")

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.schema import ServeDeploySchema

from app.cluster.deploy import deployments
from app.cluster.page import application
from app.cluster.replicas import Model
from app.cluster.service import TRIES, ClusterJobs, ClusterService

ROOT = Path(__file__).resolve().parents[1]


class Toy(Model):
    """The toy, as every process opens it."""

    def assets(self, device):
        return toy_assets()

    def guides(self):
        return StandIns()

    def service(self, limits):
        return EditingService(toy_assets(), limits, detector=one_face, guides=StandIns())


@pytest.fixture(scope="module")
def handles():
    with pytest.MonkeyPatch.context() as patch:
        # It asks for the replica that it runs in, and in this mode there is none.
        check = "ray.serve.batching._BatchQueue._warn_if_max_batch_size_exceeds_max_ongoing_requests"
        patch.setattr(check, lambda self: None)
        yield tuple(
            serve.run(one, name=f"test-{number}", _local_testing_mode=True)
            for number, one in enumerate(deployments(Toy(), gpus=False))
        )


@pytest.fixture
def page(handles):
    with ClusterService(Toy(), handles[0]) as service:
        service._detector = one_face
        yield service


@pytest.fixture
def jobs(page, handles):
    return ClusterJobs(page, handles[1])


@pytest.fixture
def here():
    with full_service() as service:
        yield service


def test_every_picture_is_the_one_that_this_process_makes(page, here):
    views = []
    for service in (page, here):
        face, other = service.new_face(3), service.new_face(4)
        previews = (
            service.preview_sliders(face.session, {"hair.lightness": 1.0}),
            service.preview_swap(face.session, other.session, ["nose"]),
        )
        service.set_sliders(face.session, {"hair.lightness": 1.0})
        service.swap(face.session, other.session, ["mouth"])
        frames = service.compose(face.session)
        variants = service.variants(face.session, "nose", 2, 5)
        whole = (face, other, *previews, service.undo(face.session))
        views.append([one.image for one in (*whole, *frames, *service.candidates(5, seed=1), *variants)])
    assert len(views[0]) == len(views[1]) > 20
    assert all(np.array_equal(one, other) for one, other in zip(*views, strict=True))


def test_previews_of_many_people_are_composed_together(page, handles):
    faces = [page.new_face(seed).session for seed in range(8)]
    start = threading.Barrier(len(faces))
    images = {}

    def person(session):
        start.wait()
        images[session] = page.preview_sliders(session, {"hair.lightness": 1.0}).image

    threads = [threading.Thread(target=person, args=(session,)) for session in faces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(images[one], page.preview_sliders(one, {"hair.lightness": 1.0}).image) for one in faces)
    timings = handles[0].figures.remote().result()["timings"]
    assert timings["preview"]["count"] < 2 * len(faces), "some of them were not alone"


def test_jobs_come_back_as_if_they_had_been_done_here(page, jobs, here):
    face, asked = page.new_face(3), {"prompt": "red hair", "steps": 12, "seed": 5}
    *_, wanted = here.describe(here.new_face(3).session, **asked)
    *steps, last = jobs.describe(face.session, **asked)
    assert [now.step for now in steps if now.phase != "waiting"][:3] == [0, 1, 2]
    assert np.array_equal(last.image, wanted.image)
    assert np.array_equal(page.apply_description(face.session, last.proposal).image, last.image)
    photo = page.open_photo(photo_bytes()).photo
    *_, rebuilt = jobs.invert(photo, steps=4)
    assert page.view(rebuilt.view.session).in_photo


def test_a_job_can_be_stopped_and_keeps_its_best(page, jobs):
    assert len(stop_midway(jobs, page.new_face(3).session)) < 60


def test_refusals_come_through_as_sentences(page, jobs, handles):
    face = page.new_face(3)
    with pytest.raises(EditingError, match="no loss 'style'"):
        list(jobs.describe(face.session, "red hair", weights={"style": 1.0}))
    with pytest.raises(EditingError, match="unknown part"):
        page.compose(face.session, ["beak"])

    class Other(Toy):
        def assets(self, device):
            return dataclasses.replace(toy_assets(), sha256="other")

    with pytest.raises(EditingError, match="opened another checkpoint"):
        ClusterService(Other(), handles[0])


class Failing:
    """A handle whose replicas go away: each stream after some items, each answer before it comes.

    Args:
        handle: the real one.
        after: items of each stream, one number for each replica that goes.
    """

    def __init__(self, handle, after):
        self.handle, self.after, self.asked = handle, list(after), []

    def options(self, **chosen):
        failing, handle = self, self.handle.options(**chosen)

        class Once:
            def remote(self, *arguments):
                failing.asked.append(arguments)
                response = handle.remote(*arguments)
                return Broken(response, failing.after.pop(0)) if failing.after else response

        return Once()

    def broadcast(self, *arguments):
        return self.handle.broadcast(*arguments)


class Broken:
    def __init__(self, response, after):
        self.response, self.after = response, after

    def __iter__(self):
        for _ in range(self.after):
            yield next(self.response)
        raise RayActorError()

    def result(self):
        raise RayActorError()

    def cancel(self):
        self.response.cancel()


@pytest.mark.parametrize("kind", ["describe", "invert"])
def test_a_job_goes_on_from_its_best_where_a_replica_is_gone(page, handles, monkeypatch, kind):
    monkeypatch.setattr("app.cluster.service.time.sleep", lambda seconds: None)
    failing: Any = Failing(handles[1], [9, 6])
    steps: list[Any]
    jobs = ClusterJobs(page, failing)
    if kind == "describe":
        steps = list(jobs.describe(page.new_face(3).session, "red hair", steps=20, seed=5))
        assert steps[-1].proposal is not None
    else:
        photo = page.open_photo(photo_bytes()).photo
        steps = list(jobs.invert(photo, steps=20))
        assert steps[-1].view is not None
    done = [now.step for now in steps if now.phase != "waiting"]
    assert done == sorted(done) and set(done) == set(range(21)), "no step is taken twice"
    states = [arguments[3]["resume"] for arguments in failing.asked]
    assert [state and state.step for state in states] == [None, 8, 13]
    assert np.any(states[1].best)
    losses = [now.losses["total"] if kind == "describe" else now.loss for now in steps if now.phase != "waiting"]
    assert losses[9] == pytest.approx(min(losses[:9]), rel=0.2), "what follows is as good as the best before"


def test_a_picture_is_asked_for_again_where_a_replica_is_gone(page, here, handles, monkeypatch):
    monkeypatch.setattr("app.cluster.service.time.sleep", lambda seconds: None)
    page._remote._pictures = Failing(handles[0], [0, 0])
    assert np.array_equal(page.new_face(9).image, here.new_face(9).image)
    page._remote._pictures = Failing(handles[0], [0] * TRIES)
    with pytest.raises(EditingError, match="try again in a moment"):
        page.new_face(10)


def test_another_server_can_show_the_page(page, jobs):
    demo = create_demo(page, StoppableJobs(jobs))
    server = uvicorn.Server(uvicorn.Config(mounted(demo, page, Settings()), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 120
        while not server.started and time.monotonic() < until:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as browser:
            assert browser.get("/health").json()["device"] == "replicas"
            assert "studio-first" in browser.get("/").text
            asked = browser.post("/gradio_api/call/generate", json={"data": [7, 0.7]}).json()
            answer = browser.get(f"/gradio_api/call/generate/{asked['event_id']}").text
            assert "event: complete" in answer, answer[:300]
    finally:
        server.should_exit = True
        thread.join(60)


def test_the_config_file_names_what_there_is():
    found = ServeDeploySchema.model_validate(yaml.safe_load((ROOT / "docs" / "serve.yaml").read_text(encoding="utf-8")))
    (only,) = found.applications
    assert only.import_path == "app.cluster.page:application"
    built = application(only.args)
    page: Any = built._bound_deployment
    names = {page.name} | {one._bound_deployment.name for one in page.init_args[1:]}
    assert {one.name for one in only.deployments} <= names == {"Page", "Pictures", "Jobs"}


def test_one_process_does_without_ray():
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "import app.cli, app.page, app.engines, app.server, app.zero\n"
        "from app.engines import engine\n"
        "with engine(app.cli.parse(['--device', 'cpu'])) as (service, jobs):\n"
        "    assert jobs is service and service.new_face(3).image.any()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_options_that_do_not_go_together_are_refused(capsys):
    assert parse(["--engine", "ray", "--address", "ray-head:6379", "--replicas", "3"]).replicas == 3
    for wrong, said in [
        (["--engine", "spark"], "use local or ray"),
        (["--address", "ray-head:6379"], "say --engine ray as well"),
        (["--engine", "ray", "--replicas", "0"], "use at least 1"),
    ]:
        with pytest.raises(SystemExit):
            parse(wrong)
        assert said in capsys.readouterr().err


def test_without_ray_a_sentence_says_what_to_install(monkeypatch):
    from app.engines import engine
    from app.surroundings import Unfit

    monkeypatch.setattr("app.engines.importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unfit, match=r"pip install '\.\[serve\]'"), engine(parse(["--engine", "ray"])):
        pass
