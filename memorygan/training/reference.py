"""The textbook step of the real stage, whose gradients are those of the fast one.

Slow on purpose, as :mod:`memorygan.fast.reference`: tests hold the fast step against it, and the benchmark measures it.
"""

from __future__ import annotations

from memorygan.discriminator import Critique
from memorygan.training.adversarial import Augmentation, Made, MakeReal
from memorygan.training.batches import FaceBatch
from memorygan.training.stages import Losses


class TextbookMakeReal(MakeReal):
    """The critic looks at the fakes once for each player: with frozen weights, then at detached fakes."""

    def learn(self, made: Made, batch: FaceBatch, real: Critique, transform: Augmentation) -> Losses:
        """As :meth:`MakeReal.learn`."""
        judged, critic = self.judged(made.face), self.state.discriminator.requires_grad_(False)
        fake: Critique = critic(*transform(*judged))
        terms, rebuilt = self.own_terms(made, batch)
        terms |= self.critic_terms(fake, real)
        found = self.backward(terms) | {key: value.detach() for key, value in rebuilt.items()}
        return found | self.judge(real.score, *judged, transform)
