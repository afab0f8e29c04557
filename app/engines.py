"""What computes: this process, a GPU that is lent for each long job, or a cluster. The page is the same with each."""

from __future__ import annotations

import importlib.util
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from app.surroundings import Unfit

if TYPE_CHECKING:
    from app.jobs import LongJobs
    from editing.service import EditingService


@contextmanager
def engine(options: Namespace) -> Iterator[tuple[EditingService, LongJobs]]:
    """The service of the page, and where its long jobs run, for as long as the block lasts; see :func:`app.cli.parse`.

    Raises:
        EditingError: if the checkpoint or the device cannot be used.
        Unfit: if there is no cluster, or not what it takes to ask one.
    """
    with (_ray if options.engine == "ray" else _here)(options) as found:
        yield found


@contextmanager
def _here(options: Namespace) -> Iterator[tuple[EditingService, LongJobs]]:
    from app.zero import ZeroJobs, import_spaces
    from editing.service import EditingService, Limits

    spaces = import_spaces()
    opened = partial(
        EditingService.open,
        options.checkpoint,
        limits=replace(Limits(), max_sessions=options.max_sessions),
        text_judge=options.text_judge,
        identity_judge=options.identity_judge,
    )
    # On ZeroGPU this process never has a GPU, though torch is made to believe so.
    with opened(options.device if spaces is None else "cpu") as service:
        yield service, service if spaces is None else ZeroJobs(service, partial(opened, "cuda"), spaces.GPU)


@contextmanager
def _ray(options: Namespace) -> Iterator[tuple[EditingService, LongJobs]]:
    if importlib.util.find_spec("ray") is None:
        raise Unfit("--engine ray needs Ray; install it with pip install '.[serve]', or use --engine local")
    from app.cluster.deploy import running
    from app.cluster.replicas import Model
    from app.cluster.service import ClusterJobs, ClusterService
    from editing.service import Limits

    model = Model.of(options.checkpoint, options.device, options.text_judge, options.identity_judge)
    with running(model, options.address, options.replicas) as (pictures, jobs):
        limits = replace(Limits(), max_sessions=options.max_sessions)
        with ClusterService(model, pictures, limits) as service:
            yield service, ClusterJobs(service, jobs)
