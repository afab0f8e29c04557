"""What the replicas do: codes become pictures in :class:`Pictures`, long jobs are carried out in :class:`Jobs`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import memorygan  # noqa: F401 (sets how OpenMP waits, before torch is imported)

# isort: split
import numpy as np
import torch
from ray import serve

from app.remote import carry_out
from editing.device.loading import Assets, choose_device, load_assets
from editing.device.renderer import PreviewRequest, Rendered, Renderer
from editing.device.worker import Worker
from editing.face.sequence import frames_of
from editing.guidance.registry import Guides
from editing.results import CancelToken, CompositionFrame
from editing.service import EditingService, Limits
from memorygan.generator import ComposedGenerator
from memorygan.latents import Latents
from memorygan.memory import Retrieved

# Previews that one replica composes together, and how long the first of them waits for others.
MAX_BATCH, BATCH_WAIT = 8, 0.003
# Long jobs that take turns in one replica; more wait for another.
JOBS_EACH = 2


@dataclass(frozen=True)
class Model:
    """What every process opens; see :meth:`editing.service.EditingService.open`.

    Attributes:
        checkpoint: path of it, on each machine; None for the bundled one.
        device: of the replicas.
        text_judge, identity_judge: that guide long jobs.
    """

    checkpoint: str | None = None
    device: str = "auto"
    text_judge: str = "auto"
    identity_judge: str = "auto"

    @classmethod
    def of(cls, checkpoint: Path | str | None, device: str, text_judge: str, identity_judge: str) -> Model:
        """With the whole path of the checkpoint, as replicas start in folders of their own."""
        path = None if checkpoint is None else str(Path(checkpoint).absolute())
        return cls(path, device, text_judge, identity_judge)

    def assets(self, device: str) -> Assets:
        """What there is, on a device."""
        return load_assets(None if self.checkpoint is None else Path(self.checkpoint), choose_device(device))

    def guides(self) -> Guides:
        """The judges, which are loaded when they are first needed."""
        return Guides(self.text_judge, self.identity_judge)

    def service(self, limits: Limits) -> EditingService:
        """All of it in one process."""
        return EditingService(self.assets(self.device), limits, guides=self.guides())


@dataclass(frozen=True)
class Codes:
    """Latent codes on their way: of a tensor that is a part of another one, all of it would travel.

    Attributes:
        w: (B, K, L, D) float32.
        shared_base: see :class:`memorygan.latents.Latents`.
    """

    w: np.ndarray
    shared_base: bool

    @classmethod
    def of(cls, latents: Latents) -> Codes:
        """To be sent."""
        return cls(latents.w.detach().cpu().numpy(), latents.shared_base)


@dataclass(frozen=True)
class Preview:
    """A :class:`editing.device.renderer.PreviewRequest` on its way."""

    owner: str
    committed: Codes
    codes: Codes
    size: int | None


class Pictures:
    """Codes become pictures, byte for byte those of one process: previews in batches, compositions in turns.

    What the memory returned for the parts of a face is kept here, so that requests of one face do well to come to one
    replica.

    Args:
        model: to open.
    """

    def __init__(self, model: Model) -> None:
        assets = model.assets(model.device)
        self._sha256, self._config = assets.sha256, assets.generator.config
        self._renderer = Renderer(assets.generator)
        # Serve collects the batches.
        self._worker = Worker(lambda asked: asked, free_memory=self._renderer.cache.clear, max_batch=1)

    def checkpoint(self) -> str:
        """sha256 of it."""
        return self._sha256

    def figures(self) -> dict[str, Any]:
        """How long each kind of work took, and how the cache is used."""
        cache = self._renderer.cache
        return {"timings": self._worker.timings(), "cache": {"hits": cache.hits, "misses": cache.misses}}

    def render(self, owner: str, codes: Codes, size: int | None) -> Rendered:
        """See :meth:`editing.device.renderer.Renderer.render`."""
        latents = self._latents(codes)
        return self._worker.call("render", lambda: self._renderer.render(owner, latents, size))

    def faces(self, codes: Codes, size: int | None) -> list[Rendered]:
        """See :meth:`editing.device.renderer.Renderer.render_batch`."""
        latents = self._latents(codes)
        return self._worker.call("batch_render", lambda: self._renderer.render_batch(latents, size))

    def frames(
        self, owner: str, codes: Codes, names: tuple[str, ...], size: int | None
    ) -> tuple[CompositionFrame, ...]:
        """See :func:`editing.face.sequence.frames_of`."""
        latents = self._latents(codes)

        def provide() -> tuple[ComposedGenerator, Retrieved]:
            return self._renderer.generator, self._renderer.retrieve(owner, latents)

        return frames_of(provide, latents, names, size, lambda work: self._worker.step(owner, work))

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT)
    async def preview(self, asked: list[Preview]) -> list[Rendered]:
        """See :meth:`editing.device.renderer.Renderer.preview_batch`; each caller sends one."""
        return await asyncio.to_thread(self._previews, asked)

    def _previews(self, asked: Sequence[Preview]) -> list[Rendered]:
        made: dict[int, Rendered] = {}
        for size in dict.fromkeys(one.size for one in asked):
            rows = [row for row, one in enumerate(asked) if one.size == size]
            requests = [
                PreviewRequest(one.owner, self._latents(one.committed), self._latents(one.codes), size, None)
                for one in (asked[row] for row in rows)
            ]

            def together(requests: list[PreviewRequest] = requests) -> list[Rendered]:
                return self._renderer.preview_batch(requests)

            made.update(zip(rows, self._worker.call("preview", together), strict=True))
        return [made[row] for row in range(len(asked))]

    def _latents(self, codes: Codes) -> Latents:
        # What arrives may not be written to.
        return Latents(torch.from_numpy(np.array(codes.w)), self._config, codes.shared_base)


class Jobs:
    """Carries out reconstructions and edits by sentences, a few in turn.

    Args:
        model: to open.
    """

    def __init__(self, model: Model) -> None:
        self._service = model.service(Limits(max_jobs=JOBS_EACH))
        self._tokens: dict[str, CancelToken] = {}

    async def work(self, job: str, kind: str, data: Any, options: dict[str, Any], stopped: bool) -> AsyncIterator[Any]:
        """What :func:`app.remote.carry_out` yields.

        Args:
            job: its name, for :meth:`stop`.
            kind, data, options: see there.
            stopped: end it at once, with the best so far.
        """
        token = self._tokens[job] = CancelToken()
        if stopped:
            token.cancel()
        steps, turn = carry_out(self._service, kind, data, options, token), threading.Lock()

        def step() -> Any:
            with turn:
                return next(steps, None)

        def end() -> None:
            with turn:
                for _ in steps:
                    pass

        try:
            while (item := await asyncio.to_thread(step)) is not None:
                yield item
        finally:
            # Also when nobody reads on, in the middle of a step.
            token.cancel()
            self._tokens.pop(job, None)
            asyncio.get_running_loop().run_in_executor(None, end)

    def stop(self, job: str) -> None:
        """Ends a job within a step, with its best so far; nothing happens where it is not known."""
        token = self._tokens.get(job)
        if token is not None:
            token.cancel()
