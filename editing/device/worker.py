"""The thread that computes: batches previews, takes turns between users, keeps figures of time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from editing.errors import BusyError, EditingError

T = TypeVar("T")
_REMEMBERED_TIMES = 500
_TOGETHER = 1.0  # seconds after another slot's preview in which companions are waited for


@dataclass
class _Call:
    """One function to run."""

    kind: str
    run: Callable[[], Any]
    futures: list[Future[Any]]


@dataclass
class _Preview:
    """One item of a batch; ``futures`` are all that wait for the newest version of it."""

    slot: Hashable
    key: Hashable
    payload: Any
    futures: list[Future[Any]]


class Worker:
    """Runs everything that touches the device, in one thread; in several only where others do the computing.

    Interactive work comes first in, first out; previews with equal keys are taken together; a newer preview of the same
    slot replaces one that still waits, and both callers get the newer result. Background steps (optimisation) go round
    robin between their owners, and alternate with interactive work, so that neither starves.

    What does not fit into memory is tried again: a batch in two halves, a single item after ``free_memory``, and once
    more after ``on_out_of_memory``.

    Args:
        run_batch: computes a list of preview payloads with equal keys.
        on_out_of_memory: called when even a single item did not fit; True if trying again makes sense.
        free_memory: gives back what is only kept for speed.
        max_queue: interactive requests that may wait.
        max_batch: previews computed together.
        batch_window: seconds to wait for companions of a preview, while previews of more than one slot are asked for.
        threads: that run things at the same time.
    """

    def __init__(
        self,
        run_batch: Callable[[Sequence[Any]], Sequence[Any]],
        on_out_of_memory: Callable[[], bool] = lambda: False,
        free_memory: Callable[[], None] = lambda: None,
        max_queue: int = 256,
        max_batch: int = 8,
        batch_window: float = 0.003,
        threads: int = 1,
    ) -> None:
        self._run_batch, self._on_out_of_memory, self._free_memory = run_batch, on_out_of_memory, free_memory
        self.max_queue, self.max_batch, self.batch_window = max_queue, max_batch, batch_window
        self._condition = threading.Condition()
        self._interactive: deque[_Call | _Preview] = deque()
        self._background: OrderedDict[str, deque[_Call]] = OrderedDict()
        self._times: dict[str, deque[float]] = {}
        self._batches: deque[int] = deque(maxlen=_REMEMBERED_TIMES)
        self._latest: Hashable = None  # slot that was previewed last
        self._company = 0.0  # until when others may be moving sliders too
        self._closed = False
        self._background_next = False
        names = [f"editing-device-{number}" for number in range(threads)]
        self._threads = [threading.Thread(target=self._loop, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    # --- asking for work

    def call(self, kind: str, run: Callable[[], T]) -> T:
        """Runs a function on the device thread and returns what it returns; nested calls run at once.

        Raises:
            BusyError: if too much is waiting.
            EditingError: if the worker was closed.
        """
        if threading.current_thread() in self._threads:
            return run()
        future: Future[T] = Future()
        with self._condition:
            self._check(len(self._interactive))
            self._interactive.append(_Call(kind, run, [future]))
            self._condition.notify_all()
        return future.result()

    def preview(self, slot: Hashable, key: Hashable, payload: Any) -> Future[Any]:
        """Queues a preview; see the class for how it is batched and replaced.

        Args:
            slot: of two waiting previews with the same, only the newer one is computed.
            key: previews with the same may be computed together.
            payload: what to compute.

        Raises:
            BusyError: if too much is waiting.
            EditingError: if the worker was closed.
        """
        future: Future[Any] = Future()
        with self._condition:
            if slot != self._latest:
                self._latest, self._company = slot, time.monotonic() + _TOGETHER
            for waiting in self._interactive:
                if isinstance(waiting, _Preview) and waiting.slot == slot:
                    waiting.key, waiting.payload = key, payload
                    waiting.futures.append(future)
                    return future
            self._check(len(self._interactive))
            self._interactive.append(_Preview(slot, key, payload, [future]))
            self._condition.notify_all()
        return future

    def step(self, owner: str, run: Callable[[], T]) -> T:
        """Runs one step of a long job, in turn with those of other owners.

        Raises:
            EditingError: if the worker was closed.
        """
        future: Future[T] = Future()
        with self._condition:
            self._check(0)
            self._background.setdefault(owner, deque()).append(_Call("step", run, [future]))
            self._condition.notify_all()
        return future.result()

    def _check(self, waiting: int) -> None:
        if self._closed:
            raise EditingError("the service was closed; start the program again")
        if waiting >= self.max_queue:
            raise BusyError("too many requests are waiting; try again in a moment")

    # --- figures

    def waiting(self) -> tuple[int, int]:
        """Interactive requests and background steps that wait."""
        with self._condition:
            return len(self._interactive), sum(len(queue) for queue in self._background.values())

    def timings(self) -> dict[str, dict[str, float]]:
        """Per kind of work: count, median and 95th percentile in milliseconds, of the last 500."""
        with self._condition:
            times = {kind: sorted(values) for kind, values in self._times.items()}
            batches = list(self._batches)
        figures = {
            kind: {
                "count": float(len(values)),
                "median_ms": round(1e3 * values[len(values) // 2], 3),
                "p95_ms": round(1e3 * values[min(len(values) - 1, int(0.95 * len(values)))], 3),
            }
            for kind, values in times.items()
        }
        if batches:
            figures["batch"] = {"count": float(len(batches)), "mean_size": round(sum(batches) / len(batches), 2)}
        return figures

    def close(self) -> None:
        """Ends the thread; whoever still waits gets an error."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=30)

    # --- the thread

    def _loop(self) -> None:
        while True:
            with self._condition:
                while not (self._closed or self._interactive or self._background):
                    self._condition.wait()
                if self._closed:
                    left = [*self._interactive, *(call for queue in self._background.values() for call in queue)]
                    return _fail(left, EditingError("the service was closed; start the program again"))
                task = self._next()
            if isinstance(task, _Preview):
                self._previews(task)
            else:
                self._call(task)

    def _next(self) -> _Call | _Preview:
        """Interactive and background work in turns while there is both; the lock is held."""
        if self._background and (self._background_next or not self._interactive):
            self._background_next = False
            owner, queue = self._background.popitem(last=False)
            task = queue.popleft()
            if queue:
                self._background[owner] = queue  # at the end of the round
            return task
        self._background_next = True
        return self._interactive.popleft()

    def _call(self, task: _Call) -> None:
        started = time.perf_counter()
        try:
            result = self._retrying(task.run)
        except BaseException as error:
            # KeyboardInterrupt does not reach this thread; whatever comes belongs to the caller.
            _fail([task], error)
        else:
            self._record(task.kind, started)
            task.futures[0].set_result(result)

    def _previews(self, first: _Preview) -> None:
        with self._condition:
            if self.batch_window > 0 and self.max_batch > 1 and time.monotonic() < self._company:
                deadline = time.monotonic() + self.batch_window
                while self._companions(first) + 1 < self.max_batch and not self._closed:
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._condition.wait(left):
                        break
            batch = [first]
            for task in list(self._interactive):
                if len(batch) == self.max_batch:
                    break
                if isinstance(task, _Preview) and task.key == first.key:
                    self._interactive.remove(task)
                    batch.append(task)
            self._batches.append(len(batch))
        started = time.perf_counter()
        self._batch(batch)
        self._record("preview", started)

    def _companions(self, first: _Preview) -> int:
        return sum(isinstance(task, _Preview) and task.key == first.key for task in self._interactive)

    def _batch(self, batch: list[_Preview]) -> None:
        payloads = [task.payload for task in batch]
        try:
            if len(batch) == 1:
                results = self._retrying(lambda: self._run_batch(payloads))
            else:
                results = self._run_batch(payloads)
        except torch.OutOfMemoryError:
            half = len(batch) // 2
        except BaseException as error:
            return _fail(batch, error)
        else:
            for task, result in zip(batch, results, strict=True):
                for future in task.futures:
                    future.set_result(result)
            return
        # Only here, where the error is gone, are the tensors that its traceback held free as well.
        self._free()
        self._batch(batch[:half])
        self._batch(batch[half:])

    def _retrying(self, run: Callable[[], Any]) -> Any:
        for remedy in (self._free, self._on_out_of_memory):
            try:
                return run()
            except torch.OutOfMemoryError:
                pass  # and leave this block, as the error's traceback holds the tensors that did not fit
            if not remedy():
                raise _no_memory()
        try:
            return run()
        except torch.OutOfMemoryError:
            raise _no_memory() from None

    def _free(self) -> bool:
        self._free_memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True

    def _record(self, kind: str, started: float) -> None:
        seconds = time.perf_counter() - started
        with self._condition:
            self._times.setdefault(kind, deque(maxlen=_REMEMBERED_TIMES)).append(seconds)


def _fail(tasks: Sequence[_Call | _Preview], error: BaseException) -> None:
    for task in tasks:
        for future in task.futures:
            future.set_exception(error)


def _no_memory() -> EditingError:
    return EditingError("the device ran out of memory; close other faces or start the program with --device cpu")
