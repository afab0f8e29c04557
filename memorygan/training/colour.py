"""The stage that teaches a generator colours: its own faces, dyed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memorygan.encoder import Posterior
from memorygan.generator import Synthesis
from memorygan.training.batches import FaceBatch
from memorygan.training.dye import draw_dyes
from memorygan.training.losses import one_hot
from memorygan.training.stages import Losses, Stage


@dataclass(frozen=True)
class Lesson:
    """B faces as the generator drew them before this stage, some of them dyed.

    Attributes:
        codes: (B, 1 + K, Q) query codes of the faces as they were.
        beliefs: the encoder's posteriors before this stage, of the same faces undyed.
        before: the faces as they were.
        wanted: the faces to learn.
        seen: what the encoder gets to see: dyed photos in the even rows, ``wanted`` in the odd ones.
        dyed: (B, 1 + K) bool, which codes have to change.
    """

    codes: Tensor
    beliefs: Posterior
    before: Synthesis
    wanted: FaceBatch
    seen: FaceBatch
    dyed: Tensor


class LearnColours(Stage):
    """A trained generator learns the colours that its face set lacks, from its own faces after they were dyed.

    Of photos only a soft mean can be learned by comparison of pixels; what the generator has drawn itself it can draw
    again, so that nothing gets lost while the colours come in. The averaged networks are the teachers and stand still;
    they become the new ones at the end. The codes of all but dyed parts are the teacher's.
    """

    name, duration = "colour", "colour_images"

    def step(self) -> Losses:
        state = self.state
        if state.progress.steps == 0:
            state.continue_from_averages()
        seen = self.descend(lambda batch: self.backward(self.terms(self.teach(batch))))
        if self.finished():
            for name, average in state.averages.items():
                average.load_state_dict(state.networks[name].state_dict())
        return seen

    def dyed(self, batch: FaceBatch) -> FaceBatch:
        """Photos as they are: here a photo and the teacher's picture of it are dyed together."""
        return batch

    @torch.no_grad()
    def teach(self, batch: FaceBatch) -> Lesson:
        """The teacher draws photos (even rows) and samples (odd rows), and some of their parts are dyed."""
        state, count = self.state, len(batch.image)
        teacher, names = state.average_generator, state.average_generator.config.parts.names
        sampled = teacher.controller(self.query_noise(count)[1::2]).codes
        photographed = state.average_encoder(batch.image[::2], batch.one_hot[::2]).mean
        codes = torch.stack((photographed, sampled), dim=1).flatten(0, 1)
        before = teacher.draw(codes)
        part_ids = before.part_map.to(batch.part_ids.dtype)
        dyes = draw_dyes(state.draws, count, self.config.dyed)
        wanted = FaceBatch(
            dyes(before.image.to(state.dtype), part_ids, names),
            part_ids,
            one_hot(part_ids, len(names), state.dtype),
        )
        odd = (torch.arange(count, device=part_ids.device) % 2 == 1)[:, None, None]
        seen = FaceBatch(
            torch.where(odd[..., None], wanted.image, dyes(batch.image, batch.part_ids, names)),
            torch.where(odd, part_ids, batch.part_ids),
            torch.where(odd[..., None], wanted.one_hot, batch.one_hot),
        )
        dyed = torch.zeros(codes.shape[:2], dtype=torch.bool, device=codes.device)
        for part, chosen in dyes.chosen.items():
            dyed[:, 1 + names.index(part)] = chosen  # slot 0 is the base code
        undyed = torch.where(odd[..., None], before.image.to(state.dtype), batch.image)
        return Lesson(codes, state.average_encoder(undyed, seen.one_hot), before, wanted, seen, dyed)

    def terms(self, lesson: Lesson) -> Losses:
        """What generator and encoder lack of the lesson."""
        state = self.state
        posterior = state.encoder(lesson.seen.image, lesson.seen.one_hot)
        noise = self.query_noise(len(lesson.codes))
        codes = torch.where(lesson.dyed[..., None], posterior.sample(noise), lesson.codes)
        face = state.generator.draw(codes)
        masks = (face.mask - lesson.before.mask).abs().mean()
        masks = masks + (face.coarse_mask - lesson.before.coarse_mask).abs().mean()
        moved = (posterior.mean - lesson.beliefs.mean).square()
        moved = moved + (posterior.log_variance - lesson.beliefs.log_variance).square()
        return self.picture_terms(face, lesson.wanted) | {
            "kept": masks + (moved.mean(dim=-1) * ~lesson.dyed).mean(),
            "kl": posterior.kl().mean(),
        }
