"""An edit by a sentence, seen as something else than the model's pictures while it is made."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np

from editing.device.renderer import Rendered
from editing.text.results import TextProgress

_PAUSE = 0.7  # seconds between two pictures; each costs about as much as a step


def seen(
    steps: Generator[TextProgress, None, None],
    part_count: int,
    preview: Callable[[Rendered], Rendered],
    finish: Callable[[TextProgress], TextProgress],
) -> Iterator[TextProgress]:
    """The same steps with other pictures.

    Args:
        steps: of an edit by a sentence, waiting included.
        part_count: K.
        preview: what the model shows → what is to be seen; of the part shares only the largest is known.
        finish: of the last step, with its proposal.
    """
    shown: Rendered | None = None
    best, due = -1, 0.0
    with closing(steps):
        for now in steps:
            if now.phase == "done":
                yield finish(now)
                continue
            if now.phase != "waiting" and (shown is None or (now.best_step != best and time.monotonic() >= due)):
                shares = np.eye(part_count, dtype=np.uint8)[now.part_map] * np.uint8(255)
                shown = preview(Rendered(now.image, now.part_map, shares))
                best, due = now.best_step, time.monotonic() + _PAUSE
            yield now if shown is None else replace(now, image=shown.image, part_map=shown.part_map)
