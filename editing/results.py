"""What the service answers with: plain frozen data, pictures as numpy arrays."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

MAX_SEED = 2**53 - 1  # JSON numbers beyond it do not survive a browser


SEEN = 0.2  # of 255: less of a change cannot be seen; hair under a hat changes by less


@dataclass(frozen=True)
class Change:
    """How one picture differs from another.

    Attributes:
        map: (S, S) float32, mean |Δ| over RGB per pixel in 8-bit steps, 0 to 255.
        preserved: share of pixels, 0 to 1, in which no channel moved by more than two 8-bit steps.
        inside: mean |Δ| in 8-bit steps inside the edited parts (where they are, before or after).
        outside: the same outside them.
        area: share of the picture, 0 to 1, that counts as inside.
        parts: names of the edited parts; empty when nothing or everything counts as edited.
    """

    map: np.ndarray
    preserved: float
    inside: float
    outside: float
    area: float
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class FaceView:
    """A face as it looks now.

    Attributes:
        session: the session's token; whoever holds it may edit the face.
        image: (S, S, 3) uint8 RGB.
        part_map: (S, S) uint8 part ids; index into :attr:`EditingService.parts`.
        revision: grows with every committed change of this session, so that late previews can be told and dropped.
        preview: not committed, and usually smaller than the full size.
        seed, truncation: of the sampled face this one started from; None for a photo.
        sliders: slider id → value, only those that are not 0.
        history: one plain sentence per edit in force, oldest first.
        can_undo, can_redo: whether these would do something.
        change: against the face before the last committed edit; None if there was none, and on previews.
        notice: something a person should know, or None.
        in_photo: the picture is a photo's face with the edits in it, not what the model makes of it.
    """

    session: str
    image: np.ndarray
    part_map: np.ndarray
    revision: int
    preview: bool = False
    seed: int | None = None
    truncation: float | None = None
    sliders: Mapping[str, float] = field(default_factory=dict)
    history: tuple[str, ...] = ()
    can_undo: bool = False
    can_redo: bool = False
    change: Change | None = None
    notice: str | None = None
    in_photo: bool = False


@dataclass(frozen=True)
class Candidate:
    """A face that was not opened yet.

    Attributes:
        seed, truncation: :meth:`EditingService.new_face` with these opens it.
        image: (s, s, 3) uint8 RGB, a small picture.
    """

    seed: int
    truncation: float
    image: np.ndarray


@dataclass(frozen=True)
class Variant:
    """Another version of one part of a face; :meth:`EditingService.apply_variant` takes it.

    Attributes:
        session, revision: the face it was drawn for.
        part: name of the part.
        seed: what it was drawn with.
        group: "all", "shape" or "texture": what of the part is replaced.
        code: (Q,) float32 query code of the part.
        likelihood: log-likelihood in nats of the later parts given this one, relative to the best variant (0 or less);
            0 for all that are drawn by a prior, in sight of all other parts.
        image: (s, s, 3) uint8 RGB, a small picture of the whole face with it.
    """

    session: str
    revision: int
    part: str
    seed: int
    group: str
    code: np.ndarray
    likelihood: float
    image: np.ndarray


@dataclass(frozen=True)
class FoundFace:
    """A face found in a photo.

    Attributes:
        index: its number for :meth:`EditingService.invert`.
        box: left, top, right, bottom in pixels of the upright photo.
        score: the detector's confidence, 0 to 1.
        image: (s, s, 3) uint8 RGB, the aligned face.
        notice: a plain sentence, for example that the photo's border cuts the face; or "".
    """

    index: int
    box: tuple[float, float, float, float]
    score: float
    image: np.ndarray
    notice: str = ""


@dataclass(frozen=True)
class PhotoView:
    """A decoded photo.

    Attributes:
        photo: its token for :meth:`EditingService.invert`.
        image: (h, w, 3) uint8 RGB, upright; at most 1024 pixels on its longer side.
        width, height: of the full photo in pixels; boxes and crops refer to it.
        faces: the best to edit first; empty if none was found, then choose a square crop.
        notices: plain sentences, for example that only the first picture of an animation is used.
        grey: the photo is black and white.
    """

    photo: str
    image: np.ndarray
    width: int
    height: int
    faces: tuple[FoundFace, ...]
    notices: tuple[str, ...] = ()
    grey: bool = False


@dataclass(frozen=True)
class JobState:
    """Where a long job stands, as plain data, so that another process can go on from its best so far.

    Attributes:
        step: steps taken.
        best_step: after how many of them the best was made.
        best: float32, what is optimised, at its best: of a sentence (P, G, R) shifts in units of the codes' spread, of
            a photo (1, K, L, D) codes.
    """

    step: int
    best_step: int
    best: np.ndarray


@dataclass(frozen=True)
class InversionProgress:
    """How far the reconstruction of a photo is.

    Attributes:
        phase: "waiting", "encode", "refine", "tune" or "done".
        step, steps: within the whole job; ``position`` counts those ahead while waiting.
        seconds_left: an estimate, None while unknown.
        loss: objective of the current step; NaN before the first.
        error: mean |Δ| between photo and best reconstruction in 8-bit steps.
        mask_agreement: share of pixels, 0 to 1, whose part is the same in photo and reconstruction.
        identity: cosine similarity in [−1, 1] of the two faces' identities; None without an identity judge.
        image: (S, S, 3) uint8 RGB, the best reconstruction so far.
        target: (S, S, 3) uint8 RGB, the aligned photo.
        view: the opened session, only in the last progress of a job (phase "done").
        cancelled: the job was stopped; ``view`` still holds the best so far.
        notices: plain sentences.
        state: of the refinement, to go on from; None while waiting.
    """

    phase: str
    step: int
    steps: int
    image: np.ndarray
    target: np.ndarray
    loss: float = float("nan")
    error: float = float("nan")
    mask_agreement: float = float("nan")
    identity: float | None = None
    seconds_left: float | None = None
    position: int = 0
    view: FaceView | None = None
    cancelled: bool = False
    notices: tuple[str, ...] = ()
    state: JobState | None = None


@dataclass(frozen=True)
class CompositionFrame:
    """The face after one more part was added.

    Attributes:
        step: 1-based; ``steps`` in all.
        part: name of the part that was added.
        present: names of all parts that are there, in order.
        image: (S, S, 3) uint8 RGB.
        mask: (S, S, 3) uint8 RGB, the fine mask in part colours.
        depth: (S, S, 3) uint8 RGB, the pseudo-depth of the nearest part, dark is far.
        smse: Eq. 15 against the step before, for pictures in [−1, 1], see :mod:`memorygan.analysis.smse`; NaN on the
            first step.
    """

    step: int
    steps: int
    part: str
    present: tuple[str, ...]
    image: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    smse: float


@dataclass(frozen=True)
class Likeness:
    """How much two faces look like one person.

    Attributes:
        word: "same person", "similar" or "someone else".
        cosine: of the two identity vectors, in [−1, 1].
        meaning: what that number means on the judge's scale, a plain phrase.
    """

    word: str
    cosine: float
    meaning: str


@dataclass(frozen=True)
class JudgeInfo:
    """A network that judges pictures while a face is edited.

    Attributes:
        kind: "text" (does the picture fit the words?) or "identity" (is it the same person?).
        name: "openai", "vggface2" or "bundled".
        title: what a person calls it.
        source: the file it was loaded from, or will be.
        sha256: of that file; empty until it is loaded.
    """

    kind: str
    name: str
    title: str
    source: str
    sha256: str = ""


@dataclass(frozen=True)
class GuidanceInfo:
    """Which judges are in use.

    Attributes:
        text, identity: None where there is none.
        notes: plain sentences on how the choice came about, and on what is missing.
    """

    text: JudgeInfo | None
    identity: JudgeInfo | None
    notes: tuple[str, ...] = ()


class CancelToken:
    """Stops a long job from any thread: the job ends within one step and returns its best so far."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()
