"""Starting and stopping: whatever the surroundings are like, and whatever is running."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app import cli, probe, surroundings
from app.jobs import StoppableJobs
from app.middleware import TakeNoMore
from app.surroundings import Unfit, check_address, drop_unusable_proxies, mend_root_path, own_folder, spare_loopback
from editing.errors import EditingError
from editing.results import CancelToken

ROOT = Path(__file__).resolve().parents[1]
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")

# --- What is around ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [{}, {"NO_PROXY": "example.org"}, {"no_proxy": "example.org, localhost"}])
def test_this_machine_is_reached_without_a_proxy(said):
    environment = dict(said)
    spare_loopback("[fe80::1]", environment)
    assert environment["no_proxy"] == environment["NO_PROXY"]
    names = environment["no_proxy"].split(",")
    assert {"localhost", "127.0.0.1", "::1", "fe80::1"} <= set(names) and len(names) == len(set(names))
    assert ("example.org" in names) == bool(said)


@pytest.mark.parametrize("value", ["socks://127.0.0.1:1080/", "socks4://a:1", "ftp://a:1", "http://a:b:c"])
def test_a_proxy_that_would_end_the_program_is_left_out(value):
    environment = {"ALL_PROXY": value, "HTTPS_PROXY": "http://proxy.example:3128", "http_proxy": "proxy.example:3128"}
    assert ["ALL_PROXY" in sentence for sentence in drop_unusable_proxies(environment)] == [True]
    assert set(environment) == {"HTTPS_PROXY", "http_proxy"}


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("studio", "/studio"),
        ("/a/b/", "/a/b"),
        ("https://x.example/studio/", "https://x.example/studio"),
        ("", None),
        (" / ", None),
    ],
)
def test_a_path_gets_its_slash(said, means):
    environment = {"GRADIO_ROOT_PATH": said}
    mend_root_path(environment)
    assert environment.get("GRADIO_ROOT_PATH") == means


@posix
def test_uploads_lie_in_a_folder_for_this_run_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "gradio").write_text("somebody else's")
    environment: dict[str, str] = {}
    with own_folder(environment) as folder:
        assert {folder, tmp_path} <= set(Path(environment["GRADIO_TEMP_DIR"]).parents)
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "photo.png").write_bytes(b"private")
    assert not folder.exists() and not environment


def test_a_named_folder_stays_and_has_to_be_usable(tmp_path):
    named = tmp_path / "a" / "b"
    environment = {"GRADIO_TEMP_DIR": str(named)}
    with own_folder(environment):
        assert environment["GRADIO_TEMP_DIR"] == str(named)
        (named / "kept.png").write_bytes(b"")
    assert list(named.iterdir()) == [named / "kept.png"]
    with (
        pytest.raises(Unfit, match=r"kept\.png.*GRADIO_TEMP_DIR"),
        own_folder({"GRADIO_TEMP_DIR": str(named / "kept.png")}),
    ):
        pass


def test_without_any_folder_for_temporary_files_the_sentence_names_the_variable(monkeypatch):
    def none(prefix: str) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", none)
    with pytest.raises(Unfit, match="TMPDIR"), own_folder({}):
        pass


def test_an_address_that_cannot_be_used_is_named_with_a_way_out(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["--port", str(port), "--device", "cpu"]) == 2
        said = capsys.readouterr().err
        assert f"port {port} is taken" in said and "--port" in said and said.count("\n") == 1
    check_address("127.0.0.1", port)
    for host in ("192.0.2.1", "no such host", "256.1.1.1"):
        with pytest.raises(Unfit, match="no address of this machine"):
            check_address(host, None)
    privileged = surroundings._refusal(OSError(errno.EACCES, "Permission denied"), "127.0.0.1", 80)
    assert "port 80" in privileged and "--port" in privileged


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_addresses_of_ipv6_get_brackets(host):
    try:
        assert check_address(host, None) == "[::1]"
    except Unfit:
        pytest.skip("this machine has no IPv6")


# --- What runs when the end comes -------------------------------------------------------------------------------------


class Endless:
    """Jobs that run until they are cancelled."""

    def describe(self, *args: Any, cancel: CancelToken, **options: Any) -> Iterator[Any]:
        while not cancel.cancelled:
            yield "step"
        yield "best so far"

    invert = describe


def test_jobs_end_with_their_best_so_far_and_no_more_are_taken():
    jobs = StoppableJobs(Endless())
    running = [jobs.describe("session", "a smile"), jobs.invert("photo", cancel=CancelToken())]
    assert [next(job) for job in running] == ["step", "step"]
    jobs.stop()
    assert [list(job)[-1] for job in running] == ["best so far", "best so far"]
    with pytest.raises(EditingError, match="being stopped"):
        next(jobs.describe("session", "a smile"))


def test_new_work_is_refused_while_the_program_ends():
    stopping = False
    middleware = [Middleware(TakeNoMore, lambda: stopping)]
    paths = ("/health", "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/queue/data", "/")
    routes = [Route(path, lambda _: PlainTextResponse("as ever"), methods=["GET", "POST"]) for path in paths]
    asking = TestClient(Starlette(routes=routes, middleware=middleware))
    assert asking.get("/health").status_code == 200 and asking.post(paths[1]).status_code == 200
    stopping = True
    assert asking.get("/health").status_code == asking.get("/").status_code == 503
    refused = asking.post(paths[1])
    assert refused.status_code == 503 and "being stopped" in refused.json()["detail"]
    assert asking.post(paths[2]).text == "as ever", "what runs can still be cancelled"
    assert asking.get(paths[3]).text == "as ever", "answers still go out"


# --- The program itself -----------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def started(arguments: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_health(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    pytest.fail("the program did not start")


@posix
def test_sigterm_ends_what_runs_and_leaves_nothing(tmp_path, monkeypatch):
    port = free_port()
    surrounded = {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "socks://127.0.0.1:9",
        "GRADIO_ROOT_PATH": "studio",
        "TMPDIR": str(tmp_path),
        "MEMORYGAN_PORT": str(port),
        "MEMORYGAN_DEVICE": "cpu",
    }
    (tmp_path / "gradio").write_text("somebody else's")
    for name in ("GRADIO_TEMP_DIR", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with started(["-m", "app"], **surrounded) as process:
        wait_for_health(port, process)
        url = f"http://127.0.0.1:{port}"
        assert ("127.0.0.1", port) in list(probe.places())
        assert probe.well("127.0.0.1", port)
        assert '"root":"http://127.0.0.1:' in httpx.get(url, trust_env=False).text.replace("/studio", "")
        api = f"{url}/gradio_api/call"

        def call(name: str, *data: Any) -> str:
            answer = httpx.post(f"{api}/{name}", json={"data": data}, trust_env=False)
            return f"{api}/{name}/{answer.json()['event_id']}"

        with httpx.Client(trust_env=False, timeout=60) as asking:
            answer = asking.get(call("generate", 3, 0.7)).text
            recipe = json.loads(answer.split("data: ")[1])[1]
            asked = [recipe, "red hair", ["hair"], "normal", 2000, "", None, 1, None]
            with asking.stream("GET", call("describe", *asked)) as stream:
                deadline, steps = time.monotonic() + 120, 0
                while steps < 15:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                    steps = asking.get(f"{url}/health").json()["timings"].get("step", {}).get("count", 0)
                process.send_signal(signal.SIGTERM)
                told = time.monotonic()
                assert "event: complete" in "".join(stream.iter_text()), "the best so far, not an error"
        output, _ = process.communicate(timeout=15)
        assert process.returncode == 0, output
        assert time.monotonic() - told < 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["gradio"]
    assert "Traceback" not in output
    assert "ALL_PROXY" in output
    assert not probe.well("127.0.0.1", port)


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_an_end_during_the_start_is_quiet(tmp_path, number, status):
    code = (
        "import time\nfrom app import cli\nfrom editing.service import EditingService\n"
        "EditingService.open = lambda *_, **__: print('now', flush=True) or time.sleep(60)\n"
        f"cli.main(['--device', 'cpu', '--port', '{free_port()}'])"
    )
    with started(["-c", code], TMPDIR=str(tmp_path)) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline().strip()) != "now":
            assert line and process.poll() is None
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (status, "")
    assert not list(tmp_path.iterdir())
