"""An edit by a sentence, seen in the photo while it is made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from editing.device.renderer import Rendered
from editing.photo.transfer.transfer import Plan
from editing.text.results import TextProgress

_PAUSE = 0.7  # seconds between two pictures; each costs about as much as a step


def in_photo(
    steps: Iterator[TextProgress],
    plan: Plan,
    part_count: int,
    preview: Callable[[Rendered, Plan], Rendered],
    finish: Callable[[TextProgress], TextProgress],
) -> Iterator[TextProgress]:
    """The same steps, with the photo's face instead of the model's.

    Args:
        steps: of :func:`editing.text.wish.follow`.
        plan: what has been edited once the sentence is followed.
        part_count: K.
        preview: (what the model shows, plan) → what the photo shows.
        finish: of the last step, with its proposal.
    """
    shown: Rendered | None = None
    best, due = -1, 0.0
    try:
        for now in steps:
            if now.phase == "done":
                yield finish(now)
                continue
            if now.phase != "waiting" and (shown is None or (now.best_step != best and time.monotonic() >= due)):
                shares = np.eye(part_count, dtype=np.uint8)[now.part_map] * np.uint8(255)
                shown = preview(Rendered(now.image, now.part_map, shares), plan)
                best, due = now.best_step, time.monotonic() + _PAUSE
            yield now if shown is None else replace(now, image=shown.image, part_map=shown.part_map)
    finally:
        close = getattr(steps, "close", None)
        if close is not None:
            close()
