"""Edits by a sentence (StyleCLIP's optimisation): the codes of some parts move until picture and words agree.

Eq. 16 and 18 of the paper, as minimised here over the free codes w, with the source codes w_s::

    L = λ_clip · D_CLIP(G(w), t) + λ_L2 · ‖w − w_s‖²
      + λ_ID · (1 − ⟨R(G(w)), R(G(w_s))⟩) + λ_seg · ‖G(w)_seg − G(w_s)_seg‖² + λ_out · |G(w) − G(w_s)|_out

The last is not the paper's: the mean change of pixels outside the parts that may change, and of those inside parts that
may only help others to change. The masks do not see a background that turns red with the hair, or hair that turns black
with the eyes.

Squared norms are means over values, so that a weight means the same at every size. w moves in units of the spread that
codes have among sampled faces (see :func:`spread_of`), a layer group as one, within a trust region, so that the face
stays one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from editing.errors import EditingError, quoted
from editing.face.fields import read_number, read_whole
from editing.face.state import ALL_LAYERS, GROUPS, Runner
from editing.guidance.clip import ImageTextJudge
from editing.guidance.identity import IdentityNet
from editing.results import CancelToken, JobState
from editing.text.losses import (
    Words,
    change_loss,
    crop_boxes,
    crops,
    identity_loss,
    latent_loss,
    segmentation_loss,
    size_loss,
)
from editing.text.results import TextProgress
from editing.text.worn import DARK, NONE, PART, WORN, area, candidates, claimed, darkness, speaks_of_glasses
from memorygan.generator import ComposedGenerator, Synthesis
from memorygan.latents import Latents
from memorygan.memory import Retrieved
from memorygan.parts import LayerGroup
from memorygan.picture import to_uint8

MAX_STEPS = 2000
LOSSES = ("clip", "latent", "identity", "segmentation", "outside")
# Weights of the losses. "subtle" stays near the face, "strong" lets the words win.
STRENGTHS: Mapping[str, Mapping[str, float]] = {
    "subtle": {"clip": 1.0, "latent": 0.15, "identity": 0.2, "segmentation": 1.0, "outside": 2.0},
    "normal": {"clip": 1.0, "latent": 0.05, "identity": 0.06, "segmentation": 0.5, "outside": 1.0},
    "strong": {"clip": 1.0, "latent": 0.02, "identity": 0.02, "segmentation": 0.1, "outside": 0.5},
}
_REACH = {"subtle": 0.3, "normal": 0.45, "strong": 0.6}
# Learning rate in units of the codes' spread; random crops that the judge sees beside the whole picture, per step.
_RATE, _CROPS = 0.05, 3
_WARM_UP = 0.05
_BETTER = 0.002  # by which glasses have to be nearer to the words to be put on
_SPREAD_FACES, _SPREAD_BATCH, _DIRECTIONS = 256, 32, 48


@dataclass(frozen=True)
class TextSettings:
    """How a sentence is followed.

    Attributes:
        steps: of Adam.
        weights: of the losses, 0 to 1000.
        reach: how far the codes may go: root mean square over the directions of spread, in standard deviations.
        strength: name of the preset it came from.

    Raises:
        EditingError: for values out of range.
    """

    steps: int = 300
    weights: Mapping[str, float] = field(default_factory=lambda: STRENGTHS["normal"])
    reach: float = 0.45
    strength: str = "normal"

    def __post_init__(self) -> None:
        read_whole(self.steps, "steps", 1, MAX_STEPS)
        for name, weight in self.weights.items():
            read_number(weight, name, 0.0, 1000.0)

    @classmethod
    def preset(cls, name: str = "normal", steps: int = 300, **weights: float) -> TextSettings:
        """The settings of a strength, with some of the weights changed.

        Raises:
            EditingError: for an unknown strength, or a value out of range.
        """
        if name not in STRENGTHS:
            raise EditingError(f"the strength is {quoted(name)}; use one of {', '.join(STRENGTHS)}")
        return cls(steps, {**STRENGTHS[name], **weights}, _REACH[name], name)


# --- Where codes may go -----------------------------------------------------------------------------------------------


def spread_of(samples: Tensor) -> Tensor:
    """(N, D) codes of one part in one layer → (R, D): their principal directions, each one standard deviation long."""
    centred = samples.float() - samples.float().mean(dim=0)
    _, scale, rows = torch.linalg.svd(centred, full_matrices=False)
    count = min(_DIRECTIONS, len(scale))
    return rows[:count] * (scale[:count, None] / math.sqrt(max(1, len(samples) - 1)))


class Spreads:
    """The spreads of every part and layer of a generator, measured once. Call it where the generator may be used."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[torch.nn.Module, Tensor] = WeakKeyDictionary()

    @torch.no_grad()
    def samples(self, generator: ComposedGenerator) -> Tensor:
        """(N, K, L, D) codes of sampled faces, on the CPU."""
        sampled = self._known.get(generator.memory)
        if sampled is None:
            seeds = range(_SPREAD_FACES)
            faces = [generator.sample(seeds[i : i + _SPREAD_BATCH]).w.cpu() for i in seeds[::_SPREAD_BATCH]]
            sampled = self._known[generator.memory] = torch.cat(faces)
        return sampled

    def of(self, generator: ComposedGenerator, parts: Sequence[int]) -> Tensor:
        """(P, L, R, D) directions of the given parts, on the CPU."""
        sampled, found = self.samples(generator), []
        for part in parts:
            layers: list[Tensor] = []
            for layer in range(sampled.shape[2]):
                same = layer and torch.equal(sampled[:8, part, layer], sampled[:8, part, layer - 1])
                layers.append(layers[-1] if same else spread_of(sampled[:, part, layer]))
            found.append(torch.stack(layers))
        return torch.stack(found)


# --- The optimisation -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextResult:
    """What a sentence led to.

    Attributes:
        w: (1, K, L, D) codes on the CPU; equal to the source bit by bit but for the free ones.
        progress: the last one, phase "done", without a proposal.
    """

    w: Tensor
    progress: TextProgress


class _Descent:
    """Adam on the free codes; remembers the best by the loss of the whole picture, refuses to remember a NaN.

    Attributes:
        done: steps taken; the first ``begun`` of them elsewhere.
        losses: of the present codes.
        best_image, best_map, best_w: of the best so far.
    """

    def __init__(
        self,
        provide: Callable[[], ComposedGenerator],
        spreads: Spreads,
        judge: ImageTextJudge,
        identity: IdentityNet | None,
        sentences: tuple[str, str],
        source: Latents,
        parts: Sequence[int],
        shown: Sequence[int],
        free: Tensor,
        settings: TextSettings,
        seed: int,
        resume: JobState | None = None,
        start: Latents | None = None,
    ) -> None:
        self.provide, self.judge, self.identity, self.sentences = provide, judge, identity, sentences
        self.source, self.parts, self.settings = source.to("cpu").detach(), list(parts), settings
        self.shown = list(shown)
        self.free = free[self.parts]  # (P, L)
        # Layers of one group move together, as in sampled faces; one by one they find pictures that are no faces.
        groups = [source.config.layer_range(group) for group in ALL_LAYERS]
        self.group_of = [number for number, layers in enumerate(groups) for _ in layers]
        self.directions = spreads.of(provide(), self.parts)  # (P, L, R, D)
        self.random = torch.Generator().manual_seed(seed % 2**63)
        self.rate, self.done, self.best_step = _RATE, 0, 0
        self.losses: dict[str, float] = {}
        self.begun = 0 if resume is None else resume.step
        self.best_shift = torch.zeros(len(self.parts), len(groups), self.directions.shape[2])
        if resume is not None:
            if resume.best.shape != tuple(self.best_shift.shape):
                raise EditingError("this state belongs to another job; begin this one anew")
            self.best_shift = torch.from_numpy(resume.best.astype(np.float32))
            self.done = self.begun
            self.random.manual_seed((seed + self.done) % 2**63)
        self.best_total = math.inf
        self.best_image: np.ndarray | None = None
        self.best_map: np.ndarray | None = None
        self.origin = self.source.w[0, self.parts]  # (P, L, D) that the shift begins from
        self._build()
        if start is not None and not self.words.fulfilled(self.source_image):
            self.origin = torch.where(self.free[..., None], start.w[0, self.parts].cpu(), self.origin)
        if speaks_of_glasses(sentences[0]):
            self._try_on(spreads)

    def _build(self) -> None:
        """(Re)starts on the generator's present device, from the best so far."""
        self.generator = self.provide()
        self.device = device = self.generator.device
        self.judge.to(device)
        self.words = Words(self.judge, *self.sentences)
        self.on_device = self.source.to(device)
        self.scale = self.directions.to(device)
        self.mask = self.free.to(device)
        with torch.no_grad():
            self.retrieved = self.generator.retrieve(self.on_device)
            made = self.generator.compose(self.retrieved, self.on_device)
        self.source_image, self.source_seg, self.source_map = made.image, made.mask, made.part_map
        # Where the change may show, and where any of it may be: the parts, and where they are in the source.
        wanted = (torch.tensor(parts, device=device) for parts in (self.shown, self.parts))
        self.places = [(parts, torch.isin(made.part_map, parts)) for parts in wanted]
        names = self.source.config.parts.names
        self.sizes = [(names.index(part), sign) for part, sign in self.words.sizes if part in names]
        if self.identity is not None:
            with torch.no_grad():
                self.person = self.identity.to(device).embed(made.image)
        self.shift = self.best_shift.to(device, copy=True).requires_grad_(True)
        self.optimizer = torch.optim.Adam([self.shift], lr=self.rate, betas=(0.9, 0.99))

    @torch.no_grad()
    def _try_on(self, spreads: Spreads) -> None:
        """Begins with the glasses of the sampled face that suits the words best, if that is better than as it is."""
        names = self.source.config.parts.names
        if PART not in [names[part] for part in self.parts]:
            return
        glasses, said = names.index(PART), claimed(self.sentences[0])
        worn = area(self.source_map, glasses) > WORN
        if said == NONE and not worn:
            return
        row, still, own = self.parts.index(glasses), torch.zeros_like(self.shift), self.origin
        sampled = spreads.samples(self.generator)[:, glasses]
        found = candidates(
            self.generator, self.on_device, self.retrieved.depth, sampled, self.free[row], glasses, said != NONE
        )
        # Where there have to be some and are none, as they are is not good enough, whatever the judge says of it.
        needed = said not in (None, NONE) and not worn
        as_it_is = math.inf if needed else float(self.words(self.source_image, self.source_image)[0]) - _BETTER
        dark = needed and said == DARK  # is measured more surely than judged
        distances = [as_it_is]
        for codes in found:
            self.origin = own.clone()
            self.origin[row] = codes
            made = self.synthesize(still)
            distances.append(-darkness(made) if dark else float(self.words(made.image, self.source_image)[0]))
        best = int(np.argmin(distances))
        self.origin = own.clone()
        if best:
            self.origin[row] = found[best - 1]
            # Their shape is one of glasses, and the words know little of that; a judge that sees glasses where there
            # are none would have them fade.
            texture = self.source.config.layer_range(LayerGroup.TEXTURE).start
            done = needed and self.judge.closed
            if done or self.free[row, texture:].any():
                self.free[row, : None if done else texture] = False
                self.mask = self.free.to(self.device)

    def _outside(self, made: Synthesis) -> Tensor:
        """How much the picture changes where it should not."""
        shown, allowed = (before | torch.isin(made.part_map, parts) for parts, before in self.places)
        outside, helping = ~(shown | allowed), allowed & ~shown
        before, after = self.source_image, made.image
        return change_loss(after, before, outside) + change_loss(after, before, helping)

    def _sizes(self, made: Synthesis) -> Tensor:
        """What the sentence says of the sizes of parts, as far as the model has them."""
        return sum((size_loss(made.mask, self.source_seg, *size) for size in self.sizes), made.mask.new_zeros(()))

    # --- codes and pictures

    def moved(self, shift: Tensor) -> Tensor:
        """(P, L, D) codes of the parts; frozen layers are those that it began with, bit by bit."""
        origin = self.origin.to(self.device)
        step = torch.einsum("plr,plrd->pld", shift[:, self.group_of], self.scale)
        return torch.where(self.mask[..., None], origin + step, origin)

    def synthesize(self, shift: Tensor) -> Synthesis:
        """Only the allowed parts are asked for; what was retrieved of the others stays."""
        w = self.on_device.w.clone()
        w[0, self.parts] = self.moved(shift)
        latents = self.on_device.with_w(w)
        new = self.generator.retrieve(latents, self.parts)
        index = torch.tensor(self.parts, device=self.device)
        hidden = self.retrieved.hidden.index_copy(1, index, new.hidden)
        depth = self.retrieved.depth.index_copy(1, index, new.depth)
        return self.generator.compose(Retrieved(hidden, depth), latents)

    @property
    def best_w(self) -> Tensor:
        """(1, K, L, D) on the CPU."""
        w = self.source.w.clone()
        step = torch.einsum("plr,plrd->pld", self.best_shift[:, self.group_of], self.directions)
        w[0, self.parts] = torch.where(self.free[..., None], self.origin + step, self.origin)
        return w

    # --- steps

    def measure(self) -> None:
        """Judges the present codes without a step."""
        with torch.no_grad():
            made = self.synthesize(self.shift)
            self._judge(made, self._losses(made, self.shift, 0)[1])

    def step(self) -> None:
        """Judges the present codes, and takes one Adam step."""
        if self.device != self.provide().device:
            self._build()  # the service moved to another device meanwhile
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * _schedule(self.done / self.settings.steps)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            made = self.synthesize(self.shift)
            objective, parts = self._losses(made, self.shift, _CROPS)
            if bool(torch.isfinite(objective)):
                objective.backward()
        self._judge(made, parts)
        gradient = self.shift.grad
        if gradient is not None and bool(torch.isfinite(gradient).all()) and math.isfinite(self.losses["total"]):
            self.optimizer.step()
            self._stay_near()
        else:
            with torch.no_grad():
                self.shift.copy_(self.best_shift)
            self.optimizer.state.clear()
            self.rate *= 0.5
        self.done += 1

    def _losses(self, made: Synthesis, shift: Tensor, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective over all views, and the single losses of the whole picture."""
        boxes = crop_boxes(count, self.random)
        source_views = crops(self.source_image, boxes) if self.words.directional else self.source_image
        distances = self.words(crops(made.image, boxes), source_views) + self._sizes(made)
        zero = distances.new_zeros(())
        single = {
            "clip": distances[0],
            "latent": latent_loss(shift[:, self.group_of], self.mask),
            "identity": zero if self.identity is None else identity_loss(self.identity.embed(made.image), self.person),
            "segmentation": segmentation_loss(made.mask, self.source_seg),
            "outside": self._outside(made),
        }
        weights = self.settings.weights
        rest = torch.stack([weights[name] * single[name] for name in LOSSES[1:]]).sum()
        single["total"] = weights["clip"] * single["clip"] + rest
        return weights["clip"] * distances.mean() + rest, single

    def _judge(self, made: Synthesis, single: Mapping[str, Tensor]) -> None:
        self.losses = {name: float(value.detach()) for name, value in single.items()}
        better = self.losses["total"] < self.best_total and bool(torch.isfinite(made.image).all())
        if better or self.best_image is None:
            self.best_image = to_uint8(made.image)[0]
            self.best_map = made.part_map[0].to(torch.uint8).cpu().numpy()
        if better:
            self.best_total, self.best_step = self.losses["total"], self.done
            self.best_shift = self.shift.detach().cpu().clone()

    @torch.no_grad()
    def _stay_near(self) -> None:
        """The trust region: no layer group of a part goes further than ``reach``."""
        length = self.shift.square().mean(dim=2, keepdim=True).sqrt()
        self.shift.mul_((self.settings.reach / length.clamp_min(1e-12)).clamp_max(1.0))


def optimize(
    provide: Callable[[], ComposedGenerator],
    judge: ImageTextJudge,
    identity: IdentityNet | None,
    source: Latents,
    parts: Sequence[str],
    prompt: str,
    neutral: str,
    settings: TextSettings,
    run: Runner,
    cancel: CancelToken,
    seed: int = 0,
    spreads: Spreads | None = None,
    notices: tuple[str, ...] = (),
    shown: Sequence[str] | None = None,
    layers: str = "all",
    resume: JobState | None = None,
    start: Latents | None = None,
) -> Generator[TextProgress, None, TextResult]:
    """Follows a sentence; yields after every step, and returns the best it found.

    Args:
        provide: gives the generator, parameters without gradients; asked again at every step, as it may move.
        judge, identity: moved to the generator's device; without an identity judge that loss is 0.
        source: (1, K, L, D) codes of the face, any device.
        parts: names of those that may change, each once.
        prompt, neutral: what the face should look like, and what it looks like now or "".
        settings: see there.
        run: how each step gets to the device.
        cancel: looked at before every step.
        seed: of the crops.
        spreads: what is known of the codes' spread already.
        notices: to be carried along.
        shown: names of the parts where the change may show, see :class:`editing.text.subjects.Subject`; None for
            ``parts``.
        layers: of the parts that may change, a key of :data:`editing.face.state.GROUPS`; "all" is the paper's rule of
            each part (section 4.5).
        resume: where the same job stood when it was cut off; it goes on from its best.
        start: (1, K, L, D) codes to begin with where they may change, see :func:`editing.text.led.led`; not taken for a
            face that is as the sentence says already. None for those of the face.

    Raises:
        EditingError: for sentences that mean the same, or the state of another job.
        ValueError: for an unknown part.
    """
    indices, visible = (sorted(map(source.config.parts.index, of)) for of in (parts, shown or parts))
    free = source.selection(parts, GROUPS[layers]).cpu()
    known = spreads if spreads is not None else Spreads()
    descent = run(
        lambda: _Descent(
            provide,
            known,
            judge,
            identity,
            (prompt, neutral),
            source,
            indices,
            visible,
            free,
            settings,
            seed,
            resume,
            start,
        )
    )
    run(descent.measure)
    if resume is not None:
        descent.best_step = resume.best_step
    started = time.monotonic()
    yield _progress(descent, "optimise", started, notices)
    while descent.done < settings.steps and bool(descent.free.any()) and not cancel.cancelled:
        run(descent.step)
        yield _progress(descent, "optimise", started, notices)
    if descent.done and not cancel.cancelled:
        run(descent.measure)  # what the last step led to
    last = _progress(descent, "done", started, notices)
    return TextResult(descent.best_w, replace(last, cancelled=cancel.cancelled, seconds_left=0.0))


def _progress(descent: _Descent, phase: str, started: float, notices: tuple[str, ...]) -> TextProgress:
    assert descent.best_image is not None and descent.best_map is not None
    total, done = descent.settings.steps, descent.done
    here = done - descent.begun
    left = (time.monotonic() - started) / here * (total - done) if here else None
    return TextProgress(
        phase,
        done,
        total,
        descent.best_image,
        descent.best_map,
        dict(descent.losses),
        descent.best_step,
        left,
        notices=notices,
        state=JobState(done, descent.best_step, descent.best_shift.numpy()),
    )


def _schedule(progress: float) -> float:
    """A short rise, then half a cosine down to a twentieth."""
    return min(1.0, (progress + 1e-3) / _WARM_UP) * (0.05 + 0.475 * (1.0 + math.cos(math.pi * min(1.0, progress))))
