"""The deployments, and how they come to run for the page of this process; :mod:`app.cluster.page` has all of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from app.cluster.replicas import JOBS_EACH, Jobs, Model, Pictures
from app.surroundings import Unfit

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("memorygan-pictures", "memorygan-jobs")
# Requests that one replica of pictures has in hand, of which more are asked to start another.
IN_HAND, BUSY = 32, 4
# How much of a GPU a replica takes. Pictures are small and quick; a long job keeps a GPU busy.
GPU_SHARES = {"Pictures": 0.25, "Jobs": 0.5}
_SAME_FACE = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


def deployments(model: Model, gpus: bool, most: int | None = None) -> tuple[serve.Application, serve.Application]:
    """Pictures and jobs, to be run or bound to a page.

    Args:
        model: what each replica opens.
        gpus: whether a replica asks for its share of a GPU.
        most: replicas of each kind; None for eight. As many are started as there is work and place for.
    """

    def options(name: str, in_hand: int, busy: float) -> dict[str, Any]:
        return {
            "name": name,
            "max_ongoing_requests": in_hand,
            "ray_actor_options": {"num_cpus": 1, **({"num_gpus": GPU_SHARES[name]} if gpus else {})},
            "autoscaling_config": {
                "min_replicas": 1,
                "max_replicas": most or 8,
                "target_ongoing_requests": busy,
                "upscale_delay_s": 5.0,
                "downscale_delay_s": 120.0,
            },
            # What a replica has in hand when it is no longer needed; longer jobs go on in another.
            "graceful_shutdown_timeout_s": 60.0,
        }

    # What a replica keeps of a face is of use to the next request of that face.
    same_face: Any = _SAME_FACE
    router = RequestRouterConfig(request_router_class=same_face)
    pictures = serve.deployment(
        **options("Pictures", IN_HAND, BUSY), request_router_config=router, max_queued_requests=1024
    )
    jobs = serve.deployment(**options("Jobs", JOBS_EACH, 1.0))
    return pictures(Pictures).bind(model), jobs(Jobs).bind(model)


@contextmanager
def running(
    model: Model, address: str | None = None, most: int | None = None, cores: int | None = None
) -> Iterator[tuple[DeploymentHandle[Any], DeploymentHandle[Any]]]:
    """The deployments in a cluster, for a page in this process; they end with the block.

    Args:
        model: what each replica opens.
        address: of the cluster; None for one of this machine alone, which ends with the block as well.
        most: replicas of each kind.
        cores: that a Ray of its own takes itself to have, one for each replica; None for those of this machine.

    Yields:
        Pictures and jobs.

    Raises:
        Unfit: if there is no cluster at the address.
    """
    options: dict[str, Any] = {"log_to_driver": False, "namespace": "memorygan"}
    if address is None:
        # Ray would have its processes give way to all others, but here people wait for them.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Replicas find this program where it is; in a cluster it is part of the image.
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        options["num_cpus"] = cores or max(2, os.cpu_count() or 1)
        options |= {"include_dashboard": False, "runtime_env": {"env_vars": {"PYTHONPATH": path}}}
    try:
        with _signals_kept():
            ray.init(address or "local", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Unfit(f"there is no Ray cluster at {address} ({str(error)[:200]}); see --address") from error
    try:
        gpus = model.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
        # Serve's own door stays shut: people come to the page of this process.
        serve.start(proxy_location="Disabled")
        pictures, jobs = (
            serve.run(application, name=name, route_prefix=None)
            for application, name in zip(deployments(model, gpus, most), NAMES, strict=True)
        )
        yield pictures, jobs
    finally:
        if address is None:
            serve.shutdown()
        else:
            for name in NAMES:
                serve.delete(name)
        ray.shutdown()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray ends the program at once at SIGTERM; whoever starts it may have better answers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
