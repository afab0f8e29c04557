"""The last stage: the encoder learns to correct what it reads in photos for the finished generator."""

from __future__ import annotations

from dataclasses import replace

import torch

from memorygan.encoder import Reading
from memorygan.training.batches import ResidentFaces
from memorygan.training.stages import Losses, Stage, mean_over
from memorygan.training.state import TrainingState, trainable


class LearnToCorrect(Stage):
    """A residual encoder that corrects codes and styles by what their rendering lacks.

    The generator and the encoder's first look stand still: a photo comes back better, and no sample changes. The
    networks become their averages first, as those are what is exported and what has to be looked at. Corrections as in
    ReStyle (Alaluf et al. 2021).
    """

    name = "correct"

    def __init__(self, state: TrainingState, faces: ResidentFaces) -> None:
        super().__init__(state, faces)
        self.length = self.config.correct_images if self.config.looks else 0

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        learning = self.state.encoder.residual or self.state.encoder  # without a residual one there is nothing to do
        betas = (self.config.beta1, self.config.beta2)
        return {"correct": self.adam(trainable([learning]), self.config.generator_lr, betas)}

    def step(self) -> Losses:
        state, generator = self.state, self.state.average_generator
        if state.progress.steps == 0:
            state.continue_from_averages()
        optimizer, seen = state.optimizers["correct"], []
        self.set_learning_rate(optimizer, self.config.generator_lr * self.decay())
        for batch in self.micro_batches():
            with torch.no_grad():
                reading = Reading(state.encoder(batch.image, batch.one_hot).mean)
                face = generator.draw(reading.codes)
            terms: Losses = {}
            for _ in range(self.config.looks):  # each learns for itself, from what the one before has left
                reading = reading.detach() + state.encoder.correction(batch.image, batch.one_hot, face)
                face = generator.synthesize(reading.latents(generator))
                terms = self.reconstruction_terms(face, batch)
                # What the controller finds likely stays editable, and so do styles that codes can nearly write.
                terms["kl_controller"] = -generator.controller.condition(reading.codes).log_likelihood().mean()
                if reading.styles is not None:
                    terms["restyle"] = reading.styles.square().mean()
                (self.weighted(terms) / self.config.accumulate).backward()
                face = replace(face, image=face.image.detach(), mask=face.mask.detach())
            seen.append({key: value.detach() for key, value in terms.items()})
        self.apply(optimizer)
        self.advance(self.images_per_step, by_generator=False)
        state.update_averages(self.images_per_step)
        return mean_over(seen)
