"""Long jobs on Hugging Face's ZeroGPU, which lends a GPU to one call at a time.

The GPU exists only inside functions that ``spaces.GPU`` decorates, and these run in a forked process: no thread of the
program is there, and only plain data goes in and comes out. So the page and everything that is quick stay on the
processor, and each long job is carried out, see :mod:`app.remote`, by a service that is opened on the GPU in the forked
process.
"""

from __future__ import annotations

import importlib
import math
import mmap
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any

import gradio as gr
import torch

from app.remote import P, Refused, RemoteJobs, Step, carry_out
from editing.errors import EditingError
from editing.results import CancelToken
from editing.service import EditingService

# Seconds of GPU time to ask for: what opening the service takes, and a step of each kind, with room to spare. A job
# that needs less gives the rest back, but a visitor's quota has to cover what was asked for, so it is bounded; a job
# that would take longer ends in time, with its best so far.
OPENING = 15.0
PER_STEP = {"describe": 0.12, "invert": 0.08}
LONGEST = 120
# Before the end of that time, to hand over the result.
MARGIN = 3.0
# Jobs that can be told to stop at the same time; more wait.
SLOTS = 64


def import_spaces() -> Any:
    """The package ``spaces`` on a ZeroGPU Space, else None. To be called before anything touches CUDA."""
    if os.environ.get("SPACES_ZERO_GPU", "").lower() not in ("1", "t", "true"):
        return None
    try:
        return importlib.import_module("spaces")
    except ImportError:
        return None


def seconds(kind: str, slot: int, data: Any, options: Mapping[str, Any]) -> int:
    """How long a job may take; the arguments are those of the decorated function."""
    return min(LONGEST, math.ceil(OPENING + max(0, options["steps"]) * PER_STEP[kind]))


class ZeroJobs(RemoteJobs):
    """To be made before the page is launched, because Spaces looks for it then.

    Args:
        service: of the page, on the processor.
        open_service: opens the same checkpoint on the GPU; called in the forked process.
        gpu: the decorator ``spaces.GPU``.
    """

    lent = True  # see :class:`app.jobs.StoppableJobs`

    def __init__(
        self, service: EditingService, open_service: Callable[[], EditingService], gpu: Callable[..., Any]
    ) -> None:
        super().__init__(service)
        # Memory both processes see: one byte per job, 1 to stop it.
        stops = self._stops = mmap.mmap(-1, SLOTS)
        self._free = list(range(SLOTS))
        self._slots = threading.Condition()
        opened: list[EditingService] = []  # in the forked process, which may serve several jobs

        def work(kind: str, slot: int, data: Any, options: dict[str, Any]) -> Iterator[Any]:
            """Carries out a job in the forked process."""
            deadline = time.monotonic() + seconds(kind, slot, data, options) - MARGIN
            if not opened:
                # The pool of threads that the processor's work uses did not come along either.
                torch.set_num_threads(1)
                opened.append(open_service())
            yield from carry_out(opened[0], kind, data, options, _SharedToken(stops, slot, deadline))

        self._work = gpu(duration=seconds)(work)

    def _stream(
        self, kind: str, data: Any, options: dict[str, Any], cancel: CancelToken, waiting: P
    ) -> Generator[Step[P], None, None]:
        """What the forked process yields; stops it when asked to."""
        with self._slots:
            while not self._free:
                self._slots.wait()
            slot = self._free.pop()
        self._stops[slot] = 0
        try:
            with closing(self._work(kind, slot, data, options)) as items:
                try:
                    for item in items:
                        if isinstance(item, Refused):
                            raise EditingError(item.words)
                        if cancel.cancelled:
                            self._stops[slot] = 1
                        yield item
                finally:
                    # Also when nobody reads on.
                    self._stops[slot] = 1
        except gr.Error as error:
            # What Spaces says, of a quota that is used up for example; some of it is marked up.
            raise EditingError(re.sub(r"<[^>]*>", "", str(error.message))) from error
        finally:
            with self._slots:
                self._free.append(slot)
                self._slots.notify()


class _SharedToken(CancelToken):
    """A token that the other process sets, or time."""

    def __init__(self, stops: mmap.mmap, slot: int, deadline: float) -> None:
        super().__init__()
        self._stops, self._slot, self._deadline = stops, slot, deadline

    @property
    def cancelled(self) -> bool:
        return self._stops[self._slot] != 0 or time.monotonic() > self._deadline
