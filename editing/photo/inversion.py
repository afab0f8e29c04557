"""A photo becomes an editable face: encode, refine the codes (W+), optionally tune the render net to this photo."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing.device.renderer import with_render
from editing.errors import EditingError
from editing.face.codes import Codes
from editing.face.fields import read_whole
from editing.face.sources import CodesSource
from editing.face.state import Runner
from editing.results import CancelToken, InversionProgress, JobState
from memorygan.encoder import PartEncoder
from memorygan.generator import ComposedGenerator, MemoryGAN, Synthesis
from memorygan.latents import Latents
from memorygan.parser import FaceParser
from memorygan.parts import FACE_PARTS
from memorygan.picture import from_uint8, to_uint8
from memorygan.style_space import restyle, style_directions

IdentityJudge = Callable[[np.ndarray, np.ndarray], float]
MAX_STEPS = 2000
# Learning rates of the styles, which lie around 1, and of the render net.
_RATE, _TUNE_RATE = 0.15, 1e-3
# Steps from which on the rate is whole; fewer cannot mend what large ones disturb, lips and eyes first.
_MANY = 60
# Weights of the losses beside the pixel loss.
_POOLED, _GRADIENT, _MASK, _PERCEPTUAL, _WHO = 1.0, 0.5, 0.1, 0.3, 0.1
# Weight of the mean squared distance to the codes it started from; they are the ones that edit well.
_STAY = 0.1
_WARM_UP = 0.05
_STARTING_FACES = 16
# The fine mask is near ±1; four times that is a confident logit.
_MASK_LOGIT = 4.0


@dataclass(frozen=True)
class InversionSettings:
    """How a photo is reconstructed.

    Attributes:
        steps: Adam steps on the latent codes w of every part and layer (W+), along the memory's styles.
        tune_steps: further Adam steps on the render net, for this face alone (pivotal tuning).

    Raises:
        EditingError: for numbers out of range.
    """

    steps: int = 200
    tune_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "tune_steps"):
            read_whole(getattr(self, name), name, 0, MAX_STEPS)


@dataclass(frozen=True)
class Target:
    """What is to be reconstructed.

    Attributes:
        pixels: (S, S, 3) uint8, the aligned photo.
        part_ids: (S, S) uint8 part of every pixel, or None without a parser that knows the model's parts.
        parser: whose features have to be met as well, or None.
        guide: aligned faces (B, 3, H, W) in [−1, 1] → unit vectors (B, E) that say who it is, or None.
    """

    pixels: np.ndarray
    part_ids: np.ndarray | None
    parser: FaceParser | None = None
    guide: nn.Module | None = None

    def image(self, device: torch.device) -> Tensor:
        """(1, 3, S, S) float32 in [−1, 1]."""
        return from_uint8(self.pixels, device)

    def ids(self, device: torch.device) -> Tensor | None:
        """(1, S, S) int64."""
        return None if self.part_ids is None else torch.from_numpy(self.part_ids).to(device)[None].long()

    def perceptual(self, device: torch.device) -> Perceptual | None:
        """The loss of features."""
        return None if self.parser is None else Perceptual(self.parser.to(device), self.image(device))

    def resemblance(self, device: torch.device) -> Resemblance | None:
        """The loss of who it is."""
        return None if self.guide is None else Resemblance(self.guide.to(device), self.image(device))


@dataclass(frozen=True)
class InversionResult:
    """A reconstructed photo.

    Attributes:
        latents: (1, K, L, D) codes, on the CPU.
        queries: (1, 1 + K, Q) the encoder's query codes, or None.
        generator: with a render net of its own after tuning, else None.
        progress: the last one, phase "done", without a view.
    """

    latents: Latents
    queries: Tensor | None
    generator: ComposedGenerator | None
    progress: InversionProgress

    def source(self) -> CodesSource:
        """What a recipe keeps of the photo."""
        queries = None if self.queries is None else Codes.of(self.queries[0])
        return CodesSource(Codes.of(self.latents.w[0]), queries, None, "photo")


class Perceptual:
    """How far a parser's features of a picture are from those of one photo (perceptual loss, Johnson et al. 2016).

    A mean over pixels leaves small parts blurred, and it is by those that people are known: with these features a
    rebuild keeps more of the person at the same error, as a recognition network sees it.

    Args:
        parser: of whatever parts.
        image: (1, 3, S, S) in [−1, 1].
    """

    def __init__(self, parser: FaceParser, image: Tensor) -> None:
        self.parser = parser
        with torch.no_grad():
            self.wanted = self._features(image)

    def _features(self, image: Tensor) -> list[Tensor]:
        return [found.float() for found in self.parser.features(self.parser.resize(image))]

    def __call__(self, image: Tensor) -> Tensor:
        """Mean over the maps of |difference|, each in proportion to the mean of what is wanted there."""
        pairs = zip(self._features(image), self.wanted, strict=True)
        return torch.stack(
            [(found - wanted).abs().mean() / wanted.mean().clamp_min(1e-3) for found, wanted in pairs]
        ).mean()


class Resemblance:
    """How far a picture is from being the person of one photo: 1 − cosine, as pSp (Richardson et al. 2021) adds it.

    Of little weight: a picture that is led further pleases the guide with features that are nobody's.

    Args:
        guide: see :class:`Target`; not the judge that is asked about the result.
        image: (1, 3, S, S) in [−1, 1].
    """

    def __init__(self, guide: nn.Module, image: Tensor) -> None:
        self.guide = guide
        with torch.no_grad():
            self.wanted = guide(image)

    def __call__(self, image: Tensor) -> Tensor:
        """From 0 to 2."""
        return 1.0 - (self.guide(image) * self.wanted).sum(dim=1).mean()


def objective(
    synthesis: Synthesis,
    image: Tensor,
    ids: Tensor | None,
    perceptual: Perceptual | None = None,
    resemblance: Resemblance | None = None,
) -> Tensor:
    """Pixel L1 + 4×-pooled L1 (colours of areas) + L1 of differences (edges) + cross-entropy of the mask + features +
    who it is."""
    error = synthesis.image - image
    loss = error.abs().mean() + _POOLED * F.avg_pool2d(error, 4).abs().mean()
    edges = (error[..., :, 1:] - error[..., :, :-1]).abs().mean() + (
        error[..., 1:, :] - error[..., :-1, :]
    ).abs().mean()
    loss = loss + _GRADIENT * edges
    if ids is not None:
        loss = loss + _MASK * F.cross_entropy(_MASK_LOGIT * synthesis.mask, ids)
    if perceptual is not None:
        loss = loss + _PERCEPTUAL * perceptual(synthesis.image)
    if resemblance is not None:
        loss = loss + _WHO * resemblance(synthesis.image)
    return loss


class _Fit:
    """Adam on some tensors towards the target; remembers the best, refuses to remember a NaN.

    Attributes:
        begun: steps of the job that were taken elsewhere.
        betas: of Adam.
    """

    begun = 0
    betas = (0.9, 0.99)

    def __init__(self, generator: ComposedGenerator, target: Target, steps: int, rate: float) -> None:
        self.generator, self.target, self.steps, self.rate = generator, target, steps, rate
        self.done = 0
        self.loss = self.best_loss = math.inf
        self.best_image: np.ndarray = target.pixels
        self.best_map: np.ndarray | None = None
        self._build()

    def _build(self) -> None:
        """(Re)starts the optimiser on the generator's present device, from the best so far."""
        device = self.generator.device
        self.image, self.ids = self.target.image(device), self.target.ids(device)
        self.perceptual, self.resemblance = self.target.perceptual(device), self.target.resemblance(device)
        self.optimizer = torch.optim.Adam(self.tensors(), lr=self.rate, betas=self.betas)

    def tensors(self) -> list[Tensor]:
        raise NotImplementedError

    def synthesize(self) -> tuple[Synthesis, Tensor]:
        """The present picture, and a penalty that is part of the loss."""
        raise NotImplementedError

    def keep(self) -> None:
        raise NotImplementedError

    def go_back(self) -> None:
        raise NotImplementedError

    def measure(self) -> None:
        """Renders the present values, and keeps them if they are the best."""
        self._follow()
        with torch.no_grad():
            synthesis, penalty = self.synthesize()
            self._judge(synthesis, self._objective(synthesis) + penalty)

    def step(self) -> None:
        """Renders, judges, and takes one Adam step."""
        self._follow()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * _schedule(self.done / max(1, self.steps))
        self.optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            synthesis, penalty = self.synthesize()
            loss = self._objective(synthesis) + penalty
            if bool(torch.isfinite(loss)):
                loss.backward()
        self._judge(synthesis, loss)
        good = all(t.grad is None or bool(torch.isfinite(t.grad).all()) for t in self.tensors())
        if math.isfinite(self.loss) and good:
            self.optimizer.step()
        else:
            self.go_back()
            self.rate *= 0.5
        self.done += 1

    def _objective(self, synthesis: Synthesis) -> Tensor:
        return objective(synthesis, self.image, self.ids, self.perceptual, self.resemblance)

    def _follow(self) -> None:
        """To where the generator is: the service may have moved to another device meanwhile."""
        if self.image.device != self.generator.device:
            self._build()

    def _judge(self, synthesis: Synthesis, loss: Tensor) -> None:
        self.loss = float(loss.detach())
        if self.loss < self.best_loss or self.best_map is None:
            self.best_loss = min(self.loss, self.best_loss) if math.isfinite(self.loss) else self.best_loss
            self.best_image = to_uint8(synthesis.image)[0]
            self.best_map = synthesis.part_map[0].detach().cpu().numpy()
            self.keep()


class _Refinement(_Fit):
    """Of the latent codes, every part and layer free: how far their styles are from where the refinement began."""

    betas = (0.9, 0.9)  # few steps: step sizes have to follow soon

    def __init__(
        self, generator: ComposedGenerator, target: Target, start: Latents, steps: int, resume: JobState | None
    ) -> None:
        self.start = start.w.detach().cpu().clone()
        self.best, self.best_step = self.start.clone(), 0 if resume is None else resume.best_step
        if resume is not None:
            if resume.best.shape != tuple(self.start.shape):
                raise EditingError("this state belongs to another job; begin this one anew")
            self.best = torch.from_numpy(resume.best.astype(np.float32))
        super().__init__(generator, target, steps, _RATE * min(1.0, steps / _MANY))
        if resume is not None:
            self.begun = self.done = min(resume.step, steps)

    def _build(self) -> None:
        device = self.generator.device
        self.begin, self.origin = Latents(self.best.to(device), self.generator.config), self.start.to(device)
        self.directions = style_directions(self.generator.memory)
        self.moved = self.begin.w.new_zeros(*self.begin.w.shape[:3], self.directions.shape[-2]).requires_grad_(True)
        self.best_moved = self.moved.detach().clone()
        super()._build()

    def tensors(self) -> list[Tensor]:
        return [self.moved]

    @property
    def latents(self) -> Latents:
        return restyle(self.begin, self.moved, self.directions)

    def synthesize(self) -> tuple[Synthesis, Tensor]:
        latents = self.latents
        return self.generator.synthesize(latents), _STAY * (latents.w - self.origin).square().mean()

    def keep(self) -> None:
        self.best_moved = self.moved.detach().clone()
        self.best, self.best_step = self.latents.w.detach().cpu(), self.done

    @property
    def state(self) -> JobState:
        """To go on from elsewhere."""
        return JobState(self.done, self.best_step, self.best.numpy())

    def go_back(self) -> None:
        with torch.no_grad():
            self.moved.copy_(self.best_moved)


class _Tuning(_Fit):
    """Of the render net, with the codes fixed (the pivot)."""

    def __init__(self, generator: ComposedGenerator, target: Target, pivot: Latents, steps: int) -> None:
        self.pivot = pivot
        generator.render.requires_grad_(True)
        self.best = _copied(generator.render.state_dict())
        super().__init__(generator, target, steps, _TUNE_RATE)

    def _build(self) -> None:
        self.generator.render.to(self.generator.device)
        with torch.no_grad():
            self.on_device = self.pivot.to(self.generator.device)
            self.retrieved = self.generator.retrieve(self.on_device)
        super()._build()

    def tensors(self) -> list[Tensor]:
        return list(self.generator.render.parameters())

    def synthesize(self) -> tuple[Synthesis, Tensor]:
        return self.generator.compose(self.retrieved, self.on_device), self.image.new_zeros(())

    def keep(self) -> None:
        self.best = _copied(self.generator.render.state_dict())

    def go_back(self) -> None:
        self.generator.render.load_state_dict(self.best)


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _schedule(progress: float) -> float:
    """A short rise, then half a cosine down to 0."""
    return min(1.0, (progress + 1e-3) / _WARM_UP) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def with_own_render(generator: ComposedGenerator) -> ComposedGenerator:
    """The same generator with a copy of its render net; everything else is shared."""
    return with_render(generator, copy.deepcopy(generator.render))


def encode(
    generator: ComposedGenerator, encoder: PartEncoder | None, target: Target, run: Runner
) -> tuple[Latents, Tensor | None]:
    """Codes to start from: the encoder's, or else the nearest of the mean face and some sampled ones.

    Returns:
        (1, K, L, D) codes and (1, 1 + K, Q) query codes, both on the CPU; no query codes without an encoder.
    """
    if encoder is not None and target.part_ids is not None and isinstance(generator, MemoryGAN):
        return run(lambda: _encoded(generator, encoder, target))

    @torch.no_grad()
    def nearness(seed: int, truncation: float) -> tuple[float, Latents]:
        face = generator.sample([seed], truncation)
        image, ids = target.image(generator.device), target.ids(generator.device)
        loss = float(objective(generator.synthesize(face), image, ids))
        return loss if math.isfinite(loss) else math.inf, face.to("cpu")

    faces = [(0, 0.0), *((seed, 0.7) for seed in range(_STARTING_FACES))]
    # One face at a time, so that other users get their turn in between.
    tried = [run(functools.partial(nearness, *face)) for face in faces]
    return min(tried, key=lambda pair: pair[0])[1], None


@torch.no_grad()
def _encoded(generator: MemoryGAN, encoder: PartEncoder, target: Target) -> tuple[Latents, Tensor | None]:
    there = generator.device
    one_hot = F.one_hot(torch.from_numpy(target.part_ids).long(), generator.config.part_count)
    reading = encoder.to(there).read(generator, target.image(there), one_hot.permute(2, 0, 1)[None].float().to(there))
    return reading.latents(generator).to("cpu"), reading.codes.cpu()


def find_parts(parser: FaceParser, pixels: np.ndarray, device: torch.device) -> np.ndarray:
    """(S, S, 3) uint8 → (S, S) uint8 part ids."""
    return parser.parse(from_uint8(pixels, device)).ids[0].cpu().numpy()


def invert(
    generator: ComposedGenerator,
    encoder: PartEncoder | None,
    parser: FaceParser | None,
    pixels: np.ndarray,
    settings: InversionSettings,
    run: Runner,
    cancel: CancelToken,
    identity: IdentityJudge | None = None,
    resume: JobState | None = None,
    guide: nn.Module | None = None,
) -> Generator[InversionProgress, None, InversionResult]:
    """Reconstructs an aligned photo; yields after every step and returns the best it found.

    Args:
        generator: parameters without gradients; they are not changed.
        encoder, parser: or None; without them it takes more steps to get as far.
        pixels: (S, S, 3) uint8 at the generator's size.
        settings: see there.
        run: how each step gets to the device.
        cancel: looked at before every step.
        identity: judges two (S, S, 3) uint8 faces, cosine similarity in [−1, 1].
        resume: where the same job stood when it was cut off; it goes on from its best. The render net is tuned anew.
        guide: see :class:`Target`.

    Raises:
        EditingError: for the state of another job.
    """
    notices: list[str] = []
    ids = None
    if parser is not None and generator.config.parts.names != FACE_PARTS.names:
        notices.append("This model has other parts than the face parser, so the photo's parts are not used.")
    elif parser is not None:
        ids = run(lambda: find_parts(parser, pixels, generator.device))
    target = Target(pixels, ids, parser, guide)
    total = settings.steps + settings.tune_steps
    started = time.monotonic()
    progress = InversionProgress("encode", 0, total, pixels, pixels, notices=tuple(notices))
    latents, queries = encode(generator, encoder, target, run)
    refinement = run(lambda: _Refinement(generator, target, latents, settings.steps, resume))
    run(refinement.measure)
    progress = _progress(
        progress, "encode", refinement.done, refinement, started, _similarity(refinement, identity, run)
    )
    yield progress
    while refinement.done < settings.steps and not cancel.cancelled:
        run(refinement.step)
        progress = _progress(progress, "refine", refinement.done, refinement, started, progress.identity)
        yield progress
    if refinement.done and not cancel.cancelled:
        run(refinement.measure)  # what the last step led to
    # As a recipe keeps them, so that the picture shown is the picture replayed.
    latents = Latents(refinement.best.half().float(), generator.config)
    own: ComposedGenerator | None = None
    fit: _Fit = refinement
    if settings.tune_steps and not cancel.cancelled:
        own = run(lambda: with_own_render(generator))
        tuning = run(lambda: _Tuning(own, target, latents, settings.tune_steps))
        tuning.begun = refinement.begun
        run(tuning.measure)
        fit = tuning
        while tuning.done < settings.tune_steps and not cancel.cancelled:
            run(tuning.step)
            step = settings.steps + tuning.done
            progress = _progress(progress, "tune", step, tuning, started, progress.identity)
            yield progress
        if not cancel.cancelled:
            run(tuning.measure)
        run(tuning.go_back)
        own.render.requires_grad_(False)
    progress = _progress(progress, "done", progress.step, fit, started, _similarity(fit, identity, run))
    return InversionResult(latents, queries, own, replace(progress, cancelled=cancel.cancelled, seconds_left=0.0))


def _similarity(fit: _Fit, identity: IdentityJudge | None, run: Runner) -> float | None:
    """Asked when a phase ends: once a step it would cost as much as the step. On the device thread, like all of it."""
    return None if identity is None else run(lambda: identity(fit.best_image, fit.target.pixels))


def _progress(
    last: InversionProgress, phase: str, step: int, fit: _Fit, started: float, similarity: float | None
) -> InversionProgress:
    error = float(np.abs(fit.best_image.astype(np.float32) - fit.target.pixels.astype(np.float32)).mean())
    agreement = float("nan")
    here = step - fit.begun
    if fit.best_map is not None and fit.target.part_ids is not None:
        agreement = float((fit.best_map == fit.target.part_ids).mean())
    left = (time.monotonic() - started) / here * (last.steps - step) if here else None
    return replace(
        last,
        phase=phase,
        step=step,
        image=fit.best_image,
        loss=fit.loss,
        error=error,
        mask_agreement=agreement,
        identity=similarity,
        seconds_left=left,
        state=fit.state if isinstance(fit, _Refinement) else last.state,
    )
