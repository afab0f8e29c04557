"""The page's side: a service whose pictures are made, and whose long jobs are carried out, by replicas.

A replica may end at any moment, be it that its machine fails or that fewer are needed. Pictures are then asked for
again, and long jobs go on from their best so far, which every step brings along.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from app.cluster.replicas import Codes, Model, Preview
from app.remote import P, Refused, RemoteJobs, Step
from editing.device.renderer import PreviewRequest, Rendered, Renderer
from editing.errors import BusyError, EditingError
from editing.results import CancelToken, CompositionFrame, JobState
from editing.service import EditingService, Limits
from memorygan.generator import ComposedGenerator
from memorygan.latents import Latents

log = logging.getLogger("memorygan.app")
# What says that a replica is gone, and not that the work failed.
GONE = (RayActorError, NodeDiedError, WorkerCrashedError, ObjectLostError, ReplicaUnavailableError)
# In a row, with growing pauses; some ten seconds in all, in which a replica is started anew.
TRIES = 7
# Requests for pictures that are under way at the same time.
THREADS = 32
_LOST = "the machine that worked on this is gone, and so is each that was asked instead; try again in a moment"


class RemoteRenderer(Renderer):
    """Has replicas make the pictures. Faces with a render net of their own are rendered here.

    Args:
        original: the same generator, for what is asked of its codes alone.
        pictures: the deployment of :class:`app.cluster.replicas.Pictures`.
    """

    def __init__(self, original: ComposedGenerator, pictures: DeploymentHandle[Any]) -> None:
        super().__init__(original)
        self._pictures = pictures

    def render(
        self, owner: str, latents: Latents, size: int | None = None, generator: ComposedGenerator | None = None
    ) -> Rendered:
        if generator is not None:
            return super().render(owner, latents, size, generator)
        return self.ask("render", owner, owner, Codes.of(latents), size)

    def render_batch(
        self, latents: Latents, size: int | None = None, generator: ComposedGenerator | None = None
    ) -> list[Rendered]:
        if generator is not None:
            return super().render_batch(latents, size, generator)
        return self.ask("faces", secrets.token_hex(8), Codes.of(latents), size)

    def preview_batch(self, requests: Sequence[PreviewRequest]) -> list[Rendered]:
        if requests[0].generator is not None:
            return super().preview_batch(requests)
        return [
            self.ask("preview", one.owner, Preview(one.owner, Codes.of(one.committed), Codes.of(one.latents), one.size))
            for one in requests
        ]

    def ask(self, method: str, owner: str, *arguments: Any) -> Any:
        """What a replica answers, of those of one owner the same one as long as it is there.

        Raises:
            EditingError: what the replica raised, or that there is none.
        """
        handle = self._pictures.options(method_name=method, session_id=owner)
        for failures in range(TRIES):
            try:
                return handle.remote(*arguments).result()
            except GONE as error:
                log.warning("a replica is gone, %s is asked for again: %s", method, type(error).__name__)
                time.sleep(0.1 * 2**failures)
            except BackPressureError:
                raise BusyError("too many requests are waiting; try again in a moment") from None
            except RayTaskError as error:
                if isinstance(error.cause, EditingError):
                    raise error.cause from None
                raise
        raise EditingError(_LOST)


class ClusterService(EditingService):
    """A service whose pictures are made elsewhere.

    Args:
        model: what the replicas opened; here it is opened on the processor.
        pictures: the deployment.
        limits: what to take on.

    Raises:
        EditingError: if the replicas opened another checkpoint.
    """

    def __init__(self, model: Model, pictures: DeploymentHandle[Any], limits: Limits | None = None) -> None:
        assets = model.assets("cpu")
        self._remote = RemoteRenderer(assets.generator, pictures)
        # Serve collects the batches.
        chosen = replace(limits or Limits(), max_batch=1, batch_window=0.0)
        super().__init__(assets, chosen, guides=model.guides(), renderer=self._remote, threads=THREADS)
        # In a thread of its own: as a part of a cluster, the page is made where nobody may wait.
        theirs = self._worker.call("checkpoint", lambda: self._remote.ask("checkpoint", ""))
        if theirs != assets.sha256:
            self.close()
            raise EditingError(
                f"the replicas opened another checkpoint ({theirs[:12]}) than the page ({assets.sha256[:12]}); "
                "give every machine the same"
            )

    def health(self) -> dict[str, Any]:
        return {**super().health(), "device": "replicas"}

    def _frames(
        self, session: str, latents: Latents, own: ComposedGenerator | None, names: tuple[str, ...], side: int | None
    ) -> tuple[CompositionFrame, ...]:
        if own is not None:
            return super()._frames(session, latents, own, names, side)
        return self._remote.ask("frames", session, session, Codes.of(latents), names, side)


class ClusterJobs(RemoteJobs):
    """Long jobs in replicas; those that a replica leaves undone go on in another.

    Args:
        service: of the page.
        jobs: the deployment of :class:`app.cluster.replicas.Jobs`.
    """

    def __init__(self, service: EditingService, jobs: DeploymentHandle[Any]) -> None:
        super().__init__(service)
        self._jobs = jobs
        self._lock = threading.Lock()
        self._line: list[str] = []  # jobs that have not begun

    def _stream(
        self, kind: str, data: Any, options: dict[str, Any], cancel: CancelToken, waiting: P
    ) -> Generator[Step[P], None, None]:
        state: JobState | None = options["resume"]
        job, failures = secrets.token_hex(8), 0
        with self._lock:
            self._line.append(job)
        try:
            while failures < TRIES:
                try:
                    for item in self._attempt(job, kind, data, {**options, "resume": state}, cancel, waiting):
                        if item[0].state is not None:
                            state, failures = item[0].state, 0
                        yield item
                    return
                except GONE as error:
                    done = 0 if state is None else state.step
                    log.warning("a replica is gone, a job goes on from step %d: %s", done, type(error).__name__)
                    time.sleep(0.1 * 2**failures)
                    failures += 1
            raise EditingError(_LOST)
        finally:
            self._begun(job)

    def _attempt(
        self, job: str, kind: str, data: Any, options: dict[str, Any], cancel: CancelToken, waiting: P
    ) -> Generator[Step[P], None, None]:
        """The job's steps from one replica, and before them how many are ahead."""
        response: Any = self._jobs.options(method_name="work", stream=True).remote(
            job, kind, data, options, cancel.cancelled
        )
        arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def read() -> None:
            try:
                for item in response:
                    arrived.put(item)
                arrived.put(None)
            except BaseException as error:
                arrived.put(error)

        threading.Thread(target=read, name="job-steps", daemon=True).start()
        begun = False
        try:
            while True:
                try:
                    item = arrived.get(timeout=0.25)
                except queue.Empty:
                    if begun or options["resume"] is not None:
                        continue
                    if cancel.cancelled:
                        yield cast(P, replace(cast(Any, waiting), phase="done", cancelled=True)), None
                        return
                    yield cast(P, replace(cast(Any, waiting), position=self._ahead(job))), None
                    continue
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                if isinstance(item, Refused):
                    raise EditingError(item.words)
                if not begun:
                    begun = True
                    self._begun(job)
                if cancel.cancelled:
                    # The replica that has it is not known here. Again with each step, until it ends.
                    with suppress(Exception):
                        self._jobs.broadcast("stop", job).results(timeout_s=5)
                yield item
        finally:
            response.cancel()

    def _ahead(self, job: str) -> int:
        with self._lock:
            return self._line.index(job) + 1 if job in self._line else 0

    def _begun(self, job: str) -> None:
        with self._lock:
            if job in self._line:
                self._line.remove(job)
