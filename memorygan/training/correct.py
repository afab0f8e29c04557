"""The last stage: the encoder learns to read photos for the finished generator."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from memorygan.training.batches import FaceBatch, ResidentFaces
from memorygan.training.stages import Losses, Stage, mean_over
from memorygan.training.state import TrainingState, trainable


class LearnToCorrect(Stage):
    """The encoder's first look, and a residual encoder that corrects codes by what their rendering lacks.

    The generator stands still: a photo comes back better, and no sample changes. The networks become their averages
    first, as those are what is exported and what has to be looked at. Corrections as in ReStyle (Alaluf et al. 2021).
    """

    name = "correct"

    def __init__(self, state: TrainingState, faces: ResidentFaces) -> None:
        super().__init__(state, faces)
        self.length = self.config.correct_images if self.config.looks else 0

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        betas = (self.config.beta1, self.config.beta2)
        return {"correct": self.adam(trainable([self.state.encoder]), self.config.generator_lr, betas)}

    def step(self) -> Losses:
        state, generator = self.state, self.state.average_generator
        if state.progress.steps == 0:
            state.continue_from_averages()
        optimizer, seen = state.optimizers["correct"], []
        self.set_learning_rate(optimizer, self.config.generator_lr * self.decay())
        for batch in self.micro_batches():
            codes = self.look(batch)
            with torch.no_grad():
                face = generator.draw(codes)
            terms: Losses = {}
            for _ in range(self.config.looks):  # each learns for itself, from what the one before has left
                codes = codes.detach() + state.encoder.correction(batch.image, batch.one_hot, face)
                face = generator.draw(codes)
                terms = self.reconstruction_terms(face, batch)
                # What the controller finds likely stays editable.
                terms["kl_controller"] = -generator.controller.condition(codes).log_likelihood().mean()
                (self.weighted(terms) / self.config.accumulate).backward()
                face = replace(face, image=face.image.detach(), mask=face.mask.detach())
            seen.append({key: value.detach() for key, value in terms.items()})
        self.apply(optimizer)
        self.advance(self.images_per_step, by_generator=False)
        state.update_averages(self.images_per_step)
        return mean_over(seen)

    def look(self, batch: FaceBatch) -> Tensor:
        """Mean codes (B, 1 + K, Q) at the first look, which learns from a sample of its posteriors."""
        generator, posterior = self.state.average_generator, self.state.encoder(batch.image, batch.one_hot)
        codes = posterior.sample(self.query_noise(len(batch.image)))
        prior = generator.controller.condition(codes)
        terms = self.reconstruction_terms(generator.draw(codes), batch)
        terms["kl_controller"] = posterior.kl(prior.mean, prior.log_variance).mean()
        (self.weighted(terms) / self.config.accumulate).backward()
        return posterior.mean.detach()
