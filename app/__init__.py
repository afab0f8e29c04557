"""The web page and the command line of MemoryGAN Studio. Run it with ``python -m app``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import memorygan  # noqa: F401 (sets how OpenMP waits, before torch is imported)

if TYPE_CHECKING:
    import gradio as gr

    from app.jobs import LongJobs
    from editing.service import EditingService

__all__ = ["create_demo"]


def create_demo(service: EditingService, jobs: LongJobs | None = None) -> gr.Blocks:
    """The page for a service. :func:`app.server.launch` shows it with its theme, limits and ``/health``.

    Args:
        service: does everything.
        jobs: runs what takes long, where that is not the service itself, see :mod:`app.zero`.
    """
    # Imported here, so that `python -m app --help` need not wait for Gradio and torch.
    from app.page import build

    return build(service, jobs)
