"""What one optimiser step does in every stage of a run."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.encoder import Posterior
from memorygan.generator import Synthesis
from memorygan.training import losses
from memorygan.training.backbone import Backbone, load_backbone, relative_difference
from memorygan.training.batches import FaceBatch, ResidentFaces
from memorygan.training.dye import draw_dyes
from memorygan.training.encoded import encoded
from memorygan.training.likeness import Likeness
from memorygan.training.state import TrainingState, trainable

Losses = dict[str, Tensor]
TRUNK_RATE = 0.2  # of the deep look's trunk, in learning rates of what is new
PERCEPTUAL_LEVELS = 3  # at 1/2, 1/4 and 1/8 of the size; coarser ones say what is shown rather than how


def mean_over(batches: Sequence[Losses]) -> Losses:
    """Mean of every term over micro-batches, so that no loss goes unseen."""
    if len(batches) == 1:
        return batches[0]
    return {key: torch.stack([terms[key].float() for terms in batches]).mean(dim=0) for key in batches[0]}


class Stage(ABC):
    """A part of a recipe: its optimisers, its step, and its length.

    Args:
        state: the run; the stage changes its weights and its progress.
        faces: the training faces.
    """

    name: str
    duration: str  # the setting that says how long it is
    counts_images = True  # rather than steps

    def __init__(self, state: TrainingState, faces: ResidentFaces) -> None:
        self.state, self.config, self.faces = state, state.config, faces
        self.length: int = getattr(self.config, self.duration)
        self.weights = losses.part_weights(faces.frequencies)
        self.world = state.processes.world
        if self.config.finest_only:
            for network in (state.generator, state.encoder):
                network.requires_grad_(False)
            state.generator.render.blocks[-1].requires_grad_(True)

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Fresh optimisers over the parameters that this stage trains."""
        return {self.name: self.adam(self.drawing(), self.config.generator_lr)}

    @abstractmethod
    def step(self) -> Losses:
        """One optimiser step; returns detached losses and advances the progress."""

    def descend(self, learn: Callable[[FaceBatch], Losses], by_generator: bool = True) -> Losses:
        """A step of the stage's only optimiser by the gradients that ``learn`` leaves for every micro-batch."""
        optimizer = self.state.optimizers[self.name]
        self.set_learning_rate(optimizer, self.config.generator_lr * self.decay())
        seen = [learn(batch) for batch in self.micro_batches()]
        self.apply(optimizer)
        self.advance(self.images_per_step, by_generator)
        return mean_over(seen)

    def finished(self) -> bool:
        return self.state.progress.stage_images >= self.length

    def micro_batches(self) -> Iterator[FaceBatch]:
        """The next ``accumulate`` batches of the data stream."""
        for _ in range(self.config.accumulate):
            yield self.dyed(self.faces.batch(*self.state.sampler.take(self.config.batch)))

    def dyed(self, batch: FaceBatch) -> FaceBatch:
        """The same faces, some of them with hair or clothes of another colour."""
        if not self.config.dyed:
            return batch
        dyes = draw_dyes(self.state.draws, len(batch.image), self.config.dyed)
        return replace(batch, image=dyes(batch.image, batch.part_ids, self.state.generator.config.parts.names))

    def drawing(self) -> list[dict[str, Any]]:
        """What learns to draw faces and to read them, in groups of an optimiser: from photo to picture, or a block.

        A trunk that has learned to see faces, with convolutions that are not equalised, goes slowly.
        """
        generator, encoder = self.state.generator, self.state.encoder
        if self.config.finest_only:
            return [{"params": trainable([generator.render.blocks[-1]]), "multiplier": 1.0}]
        learned = [] if encoder.deep is None else trainable([encoder.deep.trunk])
        known = {id(parameter) for parameter in learned}
        whole = trainable([generator.mapping, generator.memory, generator.render, encoder])
        groups = [{"params": [p for p in whole if id(p) not in known], "multiplier": 1.0}]
        return [*groups, {"params": learned, "multiplier": TRUNK_RATE}] if learned else groups

    def adam(self, parameters: Any, rate: float, ratio: float = 1.0) -> torch.optim.Optimizer:
        """Adam in one fused kernel per parameter: one pass over memory, where its formula written out takes ten.

        With lazy regularisation ``ratio`` is the share of the steps that are not its own, as in StyleGAN2.
        """
        betas = (self.config.beta1**ratio, self.config.beta2**ratio)
        return torch.optim.Adam(parameters, rate * ratio, betas, fused=True)

    def apply(self, optimizer: torch.optim.Optimizer) -> None:
        """Averages gradients over processes and steps."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.state.processes.average_gradients(parameters)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def advance(self, seen: int, by_generator: bool = True) -> None:
        """Counts one finished step and what was seen in it, by the generator or by other networks alone."""
        progress = self.state.progress
        progress.images += seen * by_generator
        progress.stage_images += seen
        progress.steps += 1

    @property
    def images_per_step(self) -> int:
        return self.config.batch * self.config.accumulate * self.world

    def query_noise(self, count: int) -> Tensor:
        """(count, 1 + K, Q) standard normal."""
        config = self.state.generator.config
        return self.state.draws.normal(count, 1 + config.part_count, config.query_dim)

    def reconstruction_terms(self, face: Synthesis, batch: FaceBatch) -> Losses:
        """Pixel, colour, edge and mask losses, weighted by part."""
        coarse = F.adaptive_avg_pool2d(batch.one_hot.float(), face.coarse_mask.shape[-1])
        return self.picture_terms(face, batch) | {
            "fine_mask": losses.fine_mask_loss(face.mask, batch.part_ids, self.weights),
            "coarse_mask": losses.coarse_mask_loss(face.coarse_mask, coarse, self.weights),
        }

    def picture_terms(self, face: Synthesis, batch: FaceBatch) -> Losses:
        """Pixel, colour and edge losses, weighted by part, and what networks see in the picture."""
        weight, target = self.weights[batch.part_ids.long()][:, None], batch.image.float()
        terms = {
            "pixel": losses.pixel_loss(face.image, target, weight),
            "pooled": losses.pooled_loss(face.image, target),
            "gradient": losses.gradient_loss(face.image, target, weight),
        }
        if self.config.perceptual:
            terms["perceptual"] = self.perceptual(face.image, batch.image)
        if self.config.identity:
            terms["identity"] = self.likeness(face.image, batch.image)
        if self.config.tint:
            terms["tint"] = losses.tint_loss(face.image, target, batch.one_hot)
        return terms

    @cached_property
    def features(self) -> Backbone:
        """Frozen image features, in the precision and on the device of the run; not every stage asks for them."""
        features = copy.deepcopy(load_backbone("lite0", PERCEPTUAL_LEVELS))
        return features.to(self.state.processes.device, self.state.dtype)

    @cached_property
    def likeness(self) -> Likeness:
        """A recogniser of people, in the precision and on the device of the run."""
        return Likeness(self.config.teacher, self.state.processes.device, self.state.dtype)

    def perceptual(self, image: Tensor, target: Tensor) -> Tensor:
        """Difference of image features at a half to an eighth of the size, in units of the target's."""
        with torch.no_grad():
            wanted = self.features(target.to(self.state.dtype))
        return relative_difference(self.features(image.to(self.state.dtype)), wanted)

    def weighted(self, terms: Losses) -> Tensor:
        """Σ weight · term, with the weights of the configuration."""
        return torch.stack([getattr(self.config, name) * value for name, value in terms.items()]).sum()

    def share(self, terms: Losses) -> Tensor:
        """What the weighted terms of a micro-batch add to the loss of a step."""
        return self.weighted(terms) / self.config.accumulate

    def backward(self, terms: Losses) -> Losses:
        """Backward pass of the terms of a micro-batch; returns them detached."""
        self.share(terms).backward()
        return {key: value.detach() for key, value in terms.items()}

    def decay(self) -> float:
        """1 for two thirds of the stage, then linearly down to ``lr_floor``."""
        done = self.state.progress.stage_images / max(1, self.length)
        return 1.0 - (1.0 - self.config.lr_floor) * min(1.0, max(0.0, 3.0 * done - 2.0))

    def set_learning_rate(self, optimizer: torch.optim.Optimizer, rate: float) -> None:
        """Sets the rate of every group, each by its own multiplier."""
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("multiplier", 1.0)


class FillMemory(Stage):
    """Stage 1: encoder and generator learn to reconstruct; faces and masks enter the long-term memory."""

    name, duration = "fill", "fill_images"

    def step(self) -> Losses:
        seen = self.descend(self.reconstruct)
        self.state.update_averages(self.images_per_step)
        return seen

    def reconstruct(self, batch: FaceBatch) -> Losses:
        """Encodes faces, samples the posterior, and renders the codes; leaves the gradients of what they lack."""
        posterior = self.state.encoder(batch.image, batch.one_hot)
        face = self.state.generator.draw(posterior.sample(self.query_noise(len(batch.image))))
        terms = self.reconstruction_terms(face, batch)
        terms["consistency"] = losses.mask_consistency(face.mask, face.coarse_mask)
        terms["kl"] = posterior.kl().mean()
        return self.backward(terms)


class LearnToQuery(Stage):
    """Stage 2: the controller is fitted to the encoder's codes by maximum likelihood (Eq. 1, 9–11)."""

    name, duration = "query", "query_steps"
    counts_images = False
    _codes: Posterior | None = None

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = trainable([self.state.generator.controller])
        return {"query": torch.optim.Adam(parameters, self.config.query_lr, (0.9, 0.99), fused=True)}

    def step(self) -> Losses:
        optimizer = self.state.optimizers["query"]
        done = self.state.progress.stage_images / max(1, self.length)
        self.set_learning_rate(optimizer, self.config.query_lr * max(0.05, 1.0 - done))
        queries = self.draw_codes(self.config.query_batch)
        likelihood = self.state.generator.controller.condition(queries).log_likelihood()  # (B, 1 + K)
        loss = -likelihood.mean()
        loss.backward()
        self.apply(optimizer)
        self.advance(1, by_generator=False)
        # No mean of the weights on the way, as the last ones are the best.
        self.state.average_generator.controller.load_state_dict(self.state.generator.controller.state_dict())
        return {"negative_log_likelihood": loss.detach()}

    def draw_codes(self, count: int) -> Tensor:
        """(count, 1 + K, Q) codes of encoded faces, that the controller is fitted to."""
        codes = self.codes()
        rows = self.state.draws.integers(count, len(codes.mean))
        return codes[rows].sample(self.query_noise(count))

    def forget_codes(self) -> None:
        """Measures them anew, with an encoder that has changed."""
        self._codes = None

    def codes(self) -> Posterior:
        """Posteriors of all training faces, mirrored ones included, under the averaged encoder; measured once."""
        if self._codes is None:
            self._codes = encoded(self.state.average_encoder, self.faces, self.config.flip, self.dyed)
        return self._codes
