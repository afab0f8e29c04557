"""The last stage: the encoder learns to correct what it reads in photos for the finished generator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from memorygan.encoder import Reading
from memorygan.training.batches import FaceBatch
from memorygan.training.stages import Losses, Stage
from memorygan.training.state import trainable


class LearnToCorrect(Stage):
    """A residual encoder that corrects codes and styles by what their rendering lacks.

    The generator and the encoder's first look stand still: a photo comes back better, and no sample changes. The
    networks become their averages first, as those are what is exported and what has to be looked at. Corrections as in
    ReStyle (Alaluf et al. 2021).
    """

    name, duration = "correct", "correct_images"

    def finished(self) -> bool:
        return not self.config.looks or super().finished()

    def drawing(self) -> list[dict[str, Any]]:
        learning = self.state.encoder.residual or self.state.encoder  # without a residual one there is nothing to do
        return [{"params": trainable([learning])}]

    def step(self) -> Losses:
        if self.state.progress.steps == 0:
            self.state.continue_from_averages()
        seen = self.descend(self.correct, by_generator=False)
        self.state.update_averages(self.images_per_step)
        return seen

    def correct(self, batch: FaceBatch) -> Losses:
        """Leaves the gradients of every look at some photos; returns the losses of the last one."""
        encoder, generator = self.state.encoder, self.state.average_generator
        with torch.no_grad():
            reading = Reading(encoder(batch.image, batch.one_hot).mean)
            face = generator.draw(reading.codes)
        found: Losses = {}
        for _ in range(self.config.looks):  # each learns for itself, from what the one before has left
            reading = reading.detach() + encoder.correction(batch.image, batch.one_hot, face)
            face = generator.synthesize(reading.latents(generator))
            terms = self.reconstruction_terms(face, batch)
            # What the controller finds likely stays editable, and so do styles that codes can nearly write.
            terms["kl_controller"] = -generator.controller.condition(reading.codes).log_likelihood().mean()
            if reading.styles is not None:
                terms["restyle"] = reading.styles.square().mean()
            found = self.backward(terms)
            face = replace(face, image=face.image.detach(), mask=face.mask.detach())
        return found
