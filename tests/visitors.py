"""People at the page without a browser: what one sends, and how long the answers take."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300.0


class Program:
    """The program in a process of its own, as it is started from a terminal."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url, self._process = url, psutil.Process(process.pid)

    @property
    def mebibytes(self) -> float:
        """Memory it holds, of its children too."""
        found = [self._process, *self._process.children(recursive=True)]
        return sum(one.memory_info().rss for one in found) / 2**20

    def call(self, endpoint: str, *data: Any, address: str = "") -> Any:
        """What an endpoint for programs answers, to somebody at an address."""
        url, headers = f"{self.url}/gradio_api/call/{endpoint}", at_address(address)
        event = httpx.post(url, json={"data": data}, headers=headers, timeout=PATIENCE)
        event.raise_for_status()
        text = httpx.get(f"{url}/{event.json()['event_id']}", headers=headers, timeout=PATIENCE).text
        kind, _, answer = text.strip().rpartition("\n")
        if "event: complete" not in kind:
            raise AssertionError(text[-300:])
        return json.loads(answer.removeprefix("data: "))


@contextmanager
def running(*arguments: str) -> Iterator[Program]:
    """The program on a port that is free, on the processor, with its own checkpoint."""
    command = [sys.executable, "-u", "-m", "app", "--device", "cpu", "--no-open", *arguments]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": ""}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if "http://" in line), "")
        assert line, "the program did not start"
        url = line[line.index("http://") :].split()[0].rstrip("/")
        threading.Thread(target=lambda: [None for _ in process.stdout or ()], daemon=True).start()
        yield Program(url, process)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


class Visitor:
    """One page that is open.

    Args:
        url: of the program.
        times: seconds that answers took, by what was asked.
        address: where the person is, as a proxy would tell; "" on this machine.
    """

    def __init__(self, url: str, times: dict[str, list[float]] | None = None, address: str = "") -> None:
        self.url, self.session = url, secrets.token_hex(6)
        self.times = times if times is not None else defaultdict(list)
        self._http = httpx.Client(base_url=url, timeout=PATIENCE, headers=at_address(address))
        self._config = self._http.get("/config").json()
        self._heartbeat = threading.Event()
        self.face: dict[str, Any] = {}

    def open(self, heartbeat: bool = True) -> Visitor:
        """Loads the page."""
        self._http.get("/")
        if heartbeat:
            threading.Thread(target=self._beat, daemon=True).start()
        self._show(self.do("load", None, None))
        return self

    def close(self) -> None:
        """Closes the page."""
        self._heartbeat.set()
        self._http.close()

    def do(self, event: str, *data: Any) -> list[Any]:
        """What the page is answered to an event; the first that is bound under this name."""
        function = next(one for one in self._config["dependencies"] if any(hit[1] == event for hit in one["targets"]))
        begun = time.monotonic()
        body = {"data": list(data), "fn_index": function["id"], "session_hash": self.session}
        answer = self._http.post("/gradio_api/queue/join", json=body)
        answer.raise_for_status()
        asked, result = answer.json()["event_id"], None
        with self._http.stream("GET", f"/gradio_api/queue/data?session_hash={self.session}") as stream:
            for line in stream.iter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("event_id") == asked and message["msg"] == "process_completed":
                    assert message["success"], message["output"]
                    result = message["output"]["data"]
                if message.get("msg") == "close_stream":
                    break
        assert result is not None, f"no answer to {event}"
        self.times[event].append(time.monotonic() - begun)
        return result

    def slide(self, values: dict[str, float]) -> None:
        """Moves sliders and lets go."""
        self._show(self.do("commit", None, {"seq": 1, "face": self.face["id"], "values": values}))

    def _show(self, data: list[Any]) -> None:
        self.face = next(item for item in data if isinstance(item, dict) and "revision" in item)

    def _beat(self) -> None:
        with (
            contextlib.suppress(httpx.HTTPError),
            self._http.stream("GET", f"/gradio_api/heartbeat/{self.session}", timeout=None) as stream,
        ):
            for _ in stream.iter_lines():
                if self._heartbeat.is_set():
                    return


def at_address(address: str) -> dict[str, str]:
    """What a proxy on this machine says of somebody at an address."""
    return {"X-Forwarded-For": address} if address else {}


def at(share: float, seconds: list[float]) -> float:
    """A percentile, NaN of nothing."""
    found = sorted(seconds)
    return found[min(len(found) - 1, int(share * len(found)))] if found else float("nan")
