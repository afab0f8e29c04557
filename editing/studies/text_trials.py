"""The trials behind the report's chapter on sentences: one edit after the other, measured from pixels and masks.

The image-text judge leads an edit and so cannot say whether it succeeded. Whether hair became redder is read off the
picture (:mod:`editing.guidance.measures`); whether anything else moved, off the pixels outside the edited parts.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from editing.errors import EditingError
from editing.face.measure import measure_change, region
from editing.face.state import run_here
from editing.guidance.clip import ImageTextJudge
from editing.guidance.identity import IdentityNet
from editing.guidance.measures import DIRECTIONS, measure
from editing.guidance.registry import Guides
from editing.results import CancelToken
from editing.sliders.directions import SliderSet
from editing.studies.sliders import sliders_of
from editing.text.led import led
from editing.text.optimize import Spreads, TextResult, TextSettings, optimize
from editing.text.results import TextProgress
from editing.text.subjects import Subject, read_subject
from memorygan.analysis.lab import Lab, StudyUnavailable
from memorygan.fast.folding import fold
from memorygan.latents import Latents
from memorygan.parts import FACE_PARTS
from memorygan.picture import from_uint8, to_uint8

# Faces that a measure's spread is taken from.
SPREAD_FACES = 64


@dataclass(frozen=True)
class Wish:
    """A sentence and how to tell, without the judge, that it came true.

    Attributes:
        prompt: the sentence.
        word: key of :data:`editing.guidance.measures.DIRECTIONS`.
        group: what the report sums it up under.
        compared: is also followed with all codes free, and without the identity loss.
    """

    prompt: str
    word: str
    group: str
    compared: bool = False

    @property
    def aim(self) -> tuple[str, int]:
        """Measure, and the sign of the change asked for."""
        return DIRECTIONS[self.word]


# The four sentences of the paper's Figure 17 are among them.
WISHES: tuple[Wish, ...] = (
    Wish("a person with red hair", "red hair", "hair colour", compared=True),
    Wish("a person with blond hair", "blond hair", "hair colour"),
    Wish("a man with gray hair", "gray hair", "hair colour", compared=True),
    Wish("a person with black hair", "black hair", "hair colour"),
    Wish("a person with long hair", "long hair", "hair form"),
    Wish("a person with bangs", "bangs", "hair form"),
    Wish("a bald man", "bald", "hair form"),
    Wish("a smiling woman", "smile", "smile", compared=True),
    Wish("a person showing teeth", "teeth", "mouth"),
    Wish("a person with an open mouth", "open mouth", "mouth"),
    Wish("a woman wearing red lipstick", "lipstick", "lipstick"),
    Wish("a man with a beard", "beard", "beard", compared=True),
    Wish("a man with a moustache", "moustache", "moustache"),
    Wish("a person with pale skin", "pale skin", "skin"),
    Wish("a person with dark skin", "dark skin", "skin"),
    Wish("a woman with a big nose", "big nose", "nose", compared=True),
    Wish("a person with thick eyebrows", "thick brows", "eyebrows"),
    Wish("a person with blue eyes", "blue eyes", "eyes", compared=True),
    Wish("a person with big eyes", "big eyes", "eyes"),
    Wish("a person wearing glasses", "glasses", "glasses"),
)


@dataclass(frozen=True)
class Way:
    """How a sentence is followed.

    Attributes:
        name: for results.
        title: for people.
        every: whether all layers of all parts may change, instead of those of the parts that the sentence speaks of.
        identity: whether the identity loss counts.
    """

    name: str
    title: str
    every: bool = False
    identity: bool = True


PARTS = Way("parts", "only the parts of the sentence")
FREE = Way("free", "all codes free", every=True)
ANYONE = Way("anyone", "without the identity loss", identity=False)


@dataclass(frozen=True)
class Face:
    """A face before any edit.

    Attributes:
        seed: of the generator.
        latents: (1, K, L, D).
        image: (S, S, 3) uint8.
        part_map: (S, S) uint8 ids of the generator's own mask.
        measures: of :data:`editing.guidance.measures.MEASURES`, None where there is nothing to measure.
    """

    seed: int
    latents: Latents
    image: np.ndarray
    part_map: np.ndarray
    measures: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """One edit.

    Attributes:
        image: (S, S, 3) uint8 after it.
        map: (S, S) mean |Δ| over the colour channels, in steps of 255.
        gain: (M,) how much the judge's cosine of picture and sentence rose, at each moment of the course.
        preserved: (M,) share of the whole picture's pixels that kept their colour, at the same moments.
        unchanged: (M,) complement of the L1 loss between the pictures, with values in 0–1, at the same moments.
        inside, outside: mean |Δ| inside and outside the parts that the sentence is about.
        before, after: the measure that the wish aims at; nan where there is nothing to measure.
        identity: cosine of the two faces' identity vectors; nan without an identity judge.
        moved: (K, L) bool, codes that differ from the source.
    """

    image: np.ndarray
    map: np.ndarray
    gain: np.ndarray
    preserved: np.ndarray
    unchanged: np.ndarray
    inside: float
    outside: float
    before: float
    after: float
    identity: float
    moved: np.ndarray


def judges_for(lab: Lab, guides: Guides) -> tuple[ImageTextJudge, IdentityNet | None]:
    """The judges that lead and watch the edits of a study.

    Raises:
        StudyUnavailable: without a judge of picture and words, or for a generator of other parts.
    """
    if lab.parts.names != FACE_PARTS.names:
        raise StudyUnavailable(
            f"it measures faces of the parts {', '.join(FACE_PARTS.names)}, and this model has others"
        )
    try:
        return guides.text(), guides.identity()
    except EditingError as error:
        raise StudyUnavailable(str(error).rstrip(".")) from error


class Bench:
    """A generator with its judges, on which sentences are tried.

    Args:
        lab: gives the generator and the masks that measures refer to: the face parser's where it is on this machine,
            since nothing in the optimisation looks at it, else the generator's own.
        judge, identity: as in :func:`editing.text.optimize.optimize`.
        steps: of Adam.
        moments: steps at which the course of an edit is recorded, ascending; the last is ``steps``.
    """

    def __init__(
        self, lab: Lab, judge: ImageTextJudge, identity: IdentityNet | None, steps: int, moments: Sequence[int]
    ) -> None:
        self.lab, self.judge, self.identity = lab, judge.to(lab.settings.device), identity
        self.steps, self.moments = steps, tuple(moments)
        # Folded as in the editor, but in an arithmetic that is the same on every machine.
        self.generator = fold(lab.generator, torch.float32)
        self._spreads, self._sliders = Spreads(), _sliders(lab)

    # --- faces

    def face(self, seed: int) -> Face:
        """The face of a seed."""
        return self._faces([seed])[0]

    def spread(self) -> dict[str, float]:
        """Standard deviation of every wish's measure among sampled faces; nan if fewer than two show it."""
        known = [face.measures for seeds in self.lab.seeds(SPREAD_FACES, "spread of measures") for face in
                 self._faces(seeds)]  # fmt: skip
        found = {}
        for name in dict.fromkeys(wish.aim[0] for wish in WISHES):
            values = np.array([_number(measures[name]) for measures in known])
            values = values[np.isfinite(values)]
            found[name] = float(values.std()) if len(values) > 1 else math.nan
        return found

    @torch.no_grad()
    def _faces(self, seeds: Sequence[int]) -> list[Face]:
        latents = self.lab.sample(seeds)
        made = self.generator.synthesize(latents)
        images, maps = to_uint8(made.image), made.part_map.to(torch.uint8).cpu().numpy()
        return [
            Face(seed, latents[[k]], images[k], maps[k], self._measures(images[k], maps[k]))
            for k, seed in enumerate(seeds)
        ]

    def _measures(self, image: np.ndarray, part_map: np.ndarray) -> Mapping[str, Any]:
        read = self.lab.reader.read(self._picture(image), self.lab.parts).ids
        return measure(image, part_map if read is None else read[0].to(torch.uint8).cpu().numpy())

    # --- edits

    def subject(self, wish: Wish) -> Subject:
        """What a sentence is about."""
        return read_subject(wish.prompt, lambda part: part in self.lab.parts.names)

    def follow(self, wish: Wish, face: Face, way: Way) -> Outcome:
        """One edit, as the editor would do it by default but for the number of steps."""
        subject = self.subject(wish)
        weights: dict[str, float] = {} if way.identity else {"identity": 0.0}
        settings = TextSettings.preset("normal", steps=self.steps, **weights)
        steps = optimize(
            lambda: self.generator,
            self.judge,
            self.identity,
            face.latents,
            self.lab.parts.names if way.every else subject.parts,
            wish.prompt,
            "",
            settings,
            run_here,
            CancelToken(),
            face.seed,
            self._spreads,
            shown=None if way.every else subject.shown,
            layers="every" if way.every else subject.layers,
            start=led(face.latents, self._sliders, self.judge, wish.prompt, "", settings),
        )
        course, result = _recorded(steps)
        return self._outcome(wish, face, subject.shown, course, result)

    def _outcome(
        self, wish: Wish, face: Face, shown: Sequence[str], course: Mapping[int, np.ndarray], result: TextResult
    ) -> Outcome:
        after = result.progress
        # What has nothing left to move ends before the last moments.
        course = {step: course.get(step, after.image) for step in self.moments}
        scores = self._scores(wish.prompt, [face.image, *(course[step] for step in self.moments)])
        inside = region((face.part_map, after.part_map), shown, self.lab.parts)
        change = measure_change(face.image, after.image, inside, shown)
        course_changes = [measure_change(face.image, course[step]) for step in self.moments]
        name, _ = wish.aim
        return Outcome(
            image=after.image,
            map=change.map,
            gain=scores[1:] - scores[0],
            preserved=np.array([moment.preserved for moment in course_changes]),
            unchanged=np.array([1.0 - moment.map.mean() / 255.0 for moment in course_changes]),
            inside=change.inside,
            outside=change.outside,
            before=_number(face.measures[name]),
            after=_number(self._measures(after.image, after.part_map)[name]),
            identity=math.nan if self.identity is None else self.identity(face.image, after.image),
            moved=(result.w != face.latents.w.cpu()).any(dim=3)[0].numpy(),
        )

    @torch.no_grad()
    def _scores(self, prompt: str, images: Sequence[np.ndarray]) -> np.ndarray:
        """(N,) cosine of pictures and sentence."""
        pictures = torch.cat([self._picture(image) for image in images])
        said = self.judge.encode_text([prompt])[0]
        return (self.judge.encode_image(pictures) @ said).double().cpu().numpy()

    def _picture(self, image: np.ndarray) -> torch.Tensor:
        """(S, S, 3) uint8 → (1, 3, S, S) in [−1, 1]."""
        return from_uint8(image, self.lab.settings.device)


def _sliders(lab: Lab) -> SliderSet | None:
    try:
        return sliders_of(lab)
    except StudyUnavailable:
        return None


def _recorded(steps: Generator[TextProgress, None, TextResult]) -> tuple[dict[int, np.ndarray], TextResult]:
    """The best picture after each step, and the result."""
    course: dict[int, np.ndarray] = {}
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            result: TextResult = stop.value
            course[result.progress.step] = result.progress.image  # what the last step led to
            return course, result
        course[progress.step] = progress.image


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def moved_right(sign: int, before: float, after: float) -> bool | None:
    """Whether a measure moved in the direction asked for; None if the face did not show what is measured.

    Where the edit made it unmeasurable, it did not succeed.
    """
    if math.isnan(before):
        return None
    return not math.isnan(after) and sign * (after - before) > 0


@dataclass(frozen=True)
class Verdict:
    """Several edits as the pixels show them.

    Attributes:
        right: how many moved the right way.
        judged: how many could be measured before.
        shift: mean change of the measure, positive in the direction asked for, in standard deviations among sampled
            faces; nan if none could be measured before and after.
    """

    right: int
    judged: int
    shift: float

    @property
    def share(self) -> float:
        """Percent of those judged; nan if there are none."""
        return 100.0 * self.right / self.judged if self.judged else math.nan


def verdict(edits: Sequence[tuple[Wish, Outcome]], spread: Mapping[str, float]) -> Verdict:
    """Sums up edits, of one wish or several.

    Args:
        edits: each with its wish.
        spread: measure → standard deviation, see :meth:`Bench.spread`.
    """
    found = [moved_right(wish.aim[1], edit.before, edit.after) for wish, edit in edits]
    shifts = np.array([wish.aim[1] * (edit.after - edit.before) / (spread[wish.aim[0]] or math.nan)
                       for wish, edit in edits])  # fmt: skip
    shifts = shifts[np.isfinite(shifts)]
    judged = [value for value in found if value is not None]
    return Verdict(sum(judged), len(judged), float(shifts.mean()) if len(shifts) else math.nan)
