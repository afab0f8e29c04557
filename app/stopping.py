"""Ctrl-C and SIGTERM: no new work is taken, what runs comes to an end, nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

# Seconds for calls that run, and after which the program ends come what may; containers are killed after 10.
DRAIN, LONGEST = 5.0, 8.5
STOPPING = "the program is being stopped; try again in a moment"


class Stop:
    """Whether the program was asked to end.

    Attributes:
        asked: becomes True, once.
        folder: is removed even when the program has to end at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self.folder: Path | None = None
        self._serving = False

    @contextmanager
    def signals(self) -> Iterator[Stop]:
        """Ctrl-C and SIGTERM ask for the end within the block.

        Before :meth:`serving` there is nothing to be brought to an end, and importing torch or loading weights cannot
        be interrupted in an orderly way: the program ends at once. So it does at the second signal.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self  # where signals cannot be listened to
            return
        before = {number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def serving(self) -> None:
        """There may be something to bring to an end from now on."""
        self._serving = True

    def wait(self, running: Callable[[], bool]) -> None:
        """Returns when the end was asked for, or the server is no longer running."""
        # A flag and short sleeps: what has locks may not be touched while a signal is handled.
        while running() and not self.asked:
            time.sleep(0.1)

    def end_in(self, seconds: float = LONGEST) -> None:
        """Ends the program then, should it still be there."""
        timer = threading.Timer(seconds, self.leave, [0])
        timer.daemon = True
        timer.start()

    def leave(self, status: int) -> None:
        """Ends the program without waiting for anything."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # the signal may have come while something was being printed
                stream.flush()
        os._exit(status)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self._serving and not self.asked:
            self.asked = True
        else:
            self.leave(0 if number == signal.SIGTERM else 128 + number)


def drain(demo: gr.Blocks, seconds: float = DRAIN) -> None:
    """Waits for the calls that run or wait, and until their answers had time to leave."""
    queue = demo._queue
    until = time.monotonic() + seconds
    while time.monotonic() < until and (any(queue.active_jobs) or len(queue)):
        time.sleep(0.05)
    time.sleep(0.3)
