"""The last stage: the encoder's second look."""

from __future__ import annotations

from dataclasses import replace

import torch

from memorygan.training.batches import ResidentFaces
from memorygan.training.stages import Losses, Stage, mean_over
from memorygan.training.state import TrainingState, trainable


class LearnToCorrect(Stage):
    """A residual encoder learns to correct codes by what their rendering lacks (ReStyle, Alaluf et al. 2021).

    Everything else stands still: a photo comes back better, and no sample changes. The networks become their averages
    first, as those are what is exported and what has to be looked at.
    """

    name = "correct"

    def __init__(self, state: TrainingState, faces: ResidentFaces) -> None:
        super().__init__(state, faces)
        self.length = self.config.correct_images if self.config.looks else 0

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        residual, betas = self.state.encoder.residual, (self.config.beta1, self.config.beta2)
        if residual is None:  # the stage has length 0
            return {}
        return {"correct": self.adam(trainable([residual]), self.config.generator_lr, betas)}

    def step(self) -> Losses:
        state = self.state
        if state.progress.steps == 0:
            for name, average in state.averages.items():
                state.networks[name].load_state_dict(average.state_dict())
        optimizer, seen = state.optimizers["correct"], []
        self.set_learning_rate(optimizer, self.config.generator_lr * self.decay())
        for batch in self.micro_batches():
            encoder, generator = state.encoder, state.average_generator
            with torch.no_grad():
                codes = state.average_encoder(batch.image, batch.one_hot).mean
                face = generator.synthesize(generator.map(codes).expand(generator.config))
            terms: Losses = {}
            for _ in range(self.config.looks):  # each learns for itself, from what the one before has left
                codes = codes.detach() + encoder.correction(batch.image, batch.one_hot, face)
                face = generator.synthesize(generator.map(codes).expand(generator.config))
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
