"""The container image, built as the Dockerfile says, does its work as an unprivileged process 1 without a network."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from image import Container, Image, Unbuildable, build, instructions  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[1]
PORT = 8123
GENERATE = f"""
import json, urllib.request
url = "http://127.0.0.1:{PORT}/gradio_api/call/generate"
asked = urllib.request.Request(url, json.dumps({{"data": [3, 0.7]}}).encode(), {{"Content-Type": "application/json"}})
event = json.load(urllib.request.urlopen(asked))["event_id"]
told = urllib.request.urlopen(f"{{url}}/{{event}}").read().decode()
picture = json.loads(told.split("event: complete\\ndata: ")[1])[0]["path"]
print(open(picture, "rb").read(8))
"""


def test_the_dockerfile_is_read():
    steps = instructions(ROOT / "Dockerfile")
    assert [name for name, _ in steps][:2] == ["FROM", "RUN"] and steps[-1] == ("CMD", '["python", "-m", "app"]')
    assert dict(steps)["USER"] == "1000"
    assert all("\\" not in rest for _, rest in steps)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Image:
    folder = tmp_path_factory.mktemp("image")
    # What is installed is some 6 GB and takes minutes; a folder named here is used again.
    kept = Path(os.environ.get("MEMORYGAN_IMAGES", folder / "kept"))
    try:
        return build(ROOT, folder / "upper", kept)
    except Unbuildable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def container(image, tmp_path) -> Iterator[Container]:
    running = Container(image, tmp_path, GRADIO_SERVER_PORT=str(PORT), HTTP_PROXY="http://127.0.0.1:9")
    yield running
    running.close()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_image_holds_what_the_page_needs_and_no_more(image):
    files = image.files()
    size = sum(path.stat().st_size for path in files)
    ours = sum(path.stat().st_size for path in files if image.upper in path.parents)
    print(f"the image has {size / 1e9:.2f} GB, {ours / 1e6:.0f} MB of them the program itself")
    assert size < 7e9
    weights = [path for path in files if path.name == "people-128.safetensors"]
    assert len(weights) == 1
    packages = {path.name.split("-")[0].lower() for path in image.lower.rglob("*.dist-info")}
    others = {"matplotlib", "scipy", "scikit_learn", "torch_fidelity", "tensorboard", "pytest", "ruff"}
    assert "torch" in packages and packages.isdisjoint(others)
    copied = {path.name for path in (image.upper / "home/studio/app").iterdir()}
    assert {"app", "editing", "memorygan", "weights"} <= copied
    assert copied.isdisjoint({"tests", ".git", "runs", ".venv", "Dockerfile"})


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_program_runs_as_process_1_and_ends_when_told(container):
    deadline = time.monotonic() + 300
    while container.first == 0 or container.execute(container.image.health).returncode:
        assert container.process.poll() is None, container.process.communicate()[0]
        assert time.monotonic() < deadline, "it is not well"
        time.sleep(1)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{container.first}/status").read_text().splitlines())
    assert status["NSpid"].split()[-1] == "1"
    assert status["Uid"].split() == ["1000"] * 4
    interfaces = container.execute(["cat", "/proc/net/dev"]).stdout.splitlines()
    assert len(interfaces) == 3 and "lo:" in interfaces[2], "two lines of heading, and no way out"
    assert "Read-only" in container.execute(["touch", "/home/studio/app/file"]).stderr
    made = container.execute(["python", "-c", GENERATE])
    assert "PNG" in made.stdout, made.stderr
    os.kill(container.first, signal.SIGTERM)
    told = time.monotonic()
    output = container.process.communicate(timeout=30)[0]
    assert container.process.returncode == 0, output
    assert time.monotonic() - told < 10
    assert "Traceback" not in output
