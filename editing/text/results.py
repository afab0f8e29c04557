"""What comes of a sentence: how far the work is, and what may be taken over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from editing.face.edits import Edit, TextEdit
from editing.results import Change, JobState


@dataclass(frozen=True)
class TextProposal:
    """What a sentence led to; :meth:`EditingService.apply_description` takes it over.

    Attributes:
        session: the face it was made for.
        since: the edits in force when it was made; it fits no other face.
        edit: what is added to them.
        image: (S, S, 3) uint8 RGB, exactly what taking it over shows.
        part_map: (S, S) uint8 part ids of it.
        change: against the face as it was.
    """

    session: str
    since: tuple[Edit, ...]
    edit: TextEdit
    image: np.ndarray
    part_map: np.ndarray
    change: Change


@dataclass(frozen=True)
class TextProgress:
    """How far the edit by a sentence is.

    Attributes:
        phase: "waiting", "optimise" or "done".
        step, total: Adam steps done and asked for; ``position`` counts the jobs ahead while waiting.
        image: (S, S, 3) uint8 RGB, the best so far.
        part_map: (S, S) uint8 part ids of it.
        losses: "clip", "latent", "identity", "segmentation", "outside" (unweighted) and "total" (their weighted sum) of
            the present codes; empty while waiting.
        best_step: after how many steps the best picture was made.
        seconds_left: an estimate, None while unknown.
        position: jobs ahead.
        cancelled: the job was stopped; ``proposal`` still holds the best so far.
        notices: plain sentences.
        proposal: only in the last progress (phase "done"); None if nothing better than the face as it was turned up.
        state: to go on from; None while waiting.
    """

    phase: str
    step: int
    total: int
    image: np.ndarray
    part_map: np.ndarray
    losses: Mapping[str, float] = field(default_factory=dict)
    best_step: int = 0
    seconds_left: float | None = None
    position: int = 0
    cancelled: bool = False
    notices: tuple[str, ...] = ()
    proposal: TextProposal | None = None
    state: JobState | None = None
