"""All of it as one Serve application, the page as its ingress: ``serve deploy docs/serve.yaml`` runs it."""

from __future__ import annotations

from dataclasses import replace
from tempfile import mkdtemp
from typing import Any

from pydantic import BaseModel
from ray import serve
from ray.serve.handle import DeploymentHandle

from app.cluster.deploy import deployments
from app.cluster.replicas import Model


class Arguments(BaseModel, extra="forbid"):
    """What the config file may say under ``args``; everything else about replicas stands under ``deployments``.

    Attributes:
        checkpoint, device, text_judge, identity_judge: see :class:`app.cluster.replicas.Model`.
        gpus: whether replicas ask for their share of a GPU.
        replicas: of each kind, at most.
        max_sessions, queue_size, auth, trusted_proxies: as on the command line; ``auth`` is a list of name:password.
    """

    checkpoint: str | None = None
    device: str = "auto"
    text_judge: str = "auto"
    identity_judge: str = "auto"
    gpus: bool = False
    replicas: int = 8
    max_sessions: int = 64
    queue_size: int = 64
    auth: list[str] = []
    trusted_proxies: str = "127.0.0.1,::1"


class Page:
    """The page. There is one: it remembers the faces of those who look at it, as their browsers do.

    Args:
        asked: see there.
        pictures, jobs: the deployments.
    """

    def __init__(self, asked: Arguments, pictures: DeploymentHandle[Any], jobs: DeploymentHandle[Any]) -> None:
        # Uploads lie in a folder of this replica alone. Read when Gradio is imported.
        import os

        os.environ.setdefault("GRADIO_TEMP_DIR", mkdtemp(prefix="memorygan-"))
        self._asked, self._pictures, self._jobs = asked, pictures, jobs

    def __serve_build_asgi_app__(self) -> Any:
        from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

        from app import create_demo
        from app.cli import persons
        from app.cluster.service import ClusterJobs, ClusterService
        from app.jobs import StoppableJobs
        from app.server import Settings, mounted
        from editing.service import Limits

        asked = self._asked
        service = ClusterService(model_of(asked), self._pictures, replace(Limits(), max_sessions=asked.max_sessions))
        demo = create_demo(service, StoppableJobs(ClusterJobs(service, self._jobs)))
        people = persons(asked.auth)
        if people is None:
            raise ValueError("auth needs entries of the form name:password")
        settings = Settings(auth=people, queue_size=asked.queue_size, trusted_proxies=asked.trusted_proxies)
        shown: Any = mounted(demo, service, settings)
        return ProxyHeadersMiddleware(shown, asked.trusted_proxies)


def model_of(asked: Arguments) -> Model:
    """What each process opens."""
    return Model.of(asked.checkpoint, asked.device, asked.text_judge, asked.identity_judge)


def application(args: dict[str, Any]) -> serve.Application:
    """The page and what stands behind it, for :class:`Arguments`."""
    asked = Arguments.model_validate(args)
    deployed = serve.deployment(
        name="Page",
        num_replicas=1,
        # A page that is open holds two streams; what is too much, the page itself refuses.
        max_ongoing_requests=10_000,
        ray_actor_options={"num_cpus": 0},  # it has others compute
        graceful_shutdown_timeout_s=10.0,
    )
    return deployed(serve.ingress()(Page)).bind(asked, *deployments(model_of(asked), asked.gpus, asked.replicas))
