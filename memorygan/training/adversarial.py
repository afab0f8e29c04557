"""Adversarial stages: the paper's own recipe, and the one that makes a filled memory real (Eq. 14)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.discriminator import Critique
from memorygan.encoder import Posterior
from memorygan.fast.operators import even_and_odd, no_weight_gradients
from memorygan.generator import Synthesis
from memorygan.latents import Latents
from memorygan.parser import FaceParser, load_parser
from memorygan.parts import LayerGroup
from memorygan.training import losses
from memorygan.training.augment import draw_transform
from memorygan.training.batches import FaceBatch, ResidentFaces
from memorygan.training.distributed import pick
from memorygan.training.stages import Losses, Stage, mean_over
from memorygan.training.state import TrainingState, trainable

# What is done to image and mask before a critic sees them.
Augmentation: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
PATH_DECAY = 0.01  # of the running mean path length
PREVIEW_INTERVAL = 4  # steps; the weight makes up for those without it


@dataclass(frozen=True)
class Made:
    """What the generator made of a batch in the real stage.

    Attributes:
        face: B faces, reconstructions in the even rows and samples in the odd ones.
        posterior: of the B / 2 reconstructed faces.
        codes: (B / 2, 1 + K, Q) query codes of the reconstructions.
        swapped: (B / 2,) which part of the row before a sample shows, or −1 where all its parts are new.
    """

    face: Synthesis
    posterior: Posterior
    codes: Tensor
    swapped: Tensor


class AdversarialStage(Stage):
    """What both adversarial stages share: judging, gradient penalty, augmentation strength."""

    def transform(self, batch: int) -> Augmentation:
        return draw_transform(self.state.draws, batch, self.state.progress.augment)

    def judged(self, face: Synthesis) -> tuple[Tensor, Tensor]:
        """Image and fine mask as the discriminator takes them."""
        dtype = self.state.dtype
        return face.image.to(dtype), face.mask.to(dtype)

    def real(self, batch: FaceBatch) -> tuple[Tensor, Tensor]:
        """Image and 2·one-hot − 1."""
        return batch.image, 2.0 * batch.one_hot - 1.0

    def look(self, batch: FaceBatch, transform: Augmentation) -> Critique:
        """The discriminator's view of real faces, from which its weights can learn."""
        return self.state.discriminator.requires_grad_(True)(*transform(*self.real(batch)))

    def judge(self, real: Tensor, image: Tensor, mask: Tensor, transform: Augmentation) -> Losses:
        """Backward pass of the discriminator on its scores of real faces and on detached fakes (image, mask)."""
        critic = self.state.discriminator.requires_grad_(True)
        fake = critic(*transform(image.detach(), mask.detach())).score
        terms = self.critic_losses(real, fake)
        (terms["discriminator"] / self.config.accumulate).backward()
        return {key: value.detach() for key, value in terms.items()}

    critic_loss = staticmethod(losses.discriminator_loss)

    @classmethod
    def critic_losses(cls, real: Tensor, fake: Tensor) -> Losses:
        """What the critic learns from its scores (B,), and the signs that tell how often it is right."""
        return {
            "discriminator": cls.critic_loss(real, fake),
            "real_sign": real.detach().sign().mean(),
            "fake_sign": fake.detach().sign().mean(),
        }

    def penalize(self, batch: FaceBatch, transform: Augmentation) -> Losses:
        """Lazy R1 on image and mask; the weight makes up for the steps without it."""
        critic = self.state.discriminator.requires_grad_(True)
        image, mask = (t.detach().requires_grad_(True) for t in transform(*self.real(batch)))
        on_image, on_mask = losses.gradient_penalty(critic(image, mask).score, image, mask)
        penalty = 0.5 * (self.config.r1_image * on_image + self.config.r1_mask * on_mask) * self.config.r1_interval
        (penalty / self.config.accumulate).backward()
        return {"r1_image": on_image.detach(), "r1_mask": on_mask.detach()}

    def adapt(self, real_sign: Tensor) -> None:
        """Moves the augmentation strength by the sign of the overfitting measure."""
        if self.config.augment == "none":
            return
        sign = float(self.state.processes.mean(real_sign))
        step = self.images_per_step / max(1, self.config.augment_images)
        direction = 1.0 if sign > self.config.augment_target else -1.0
        self.state.progress.augment = min(0.8, max(0.0, self.state.progress.augment + direction * step))

    def penalty_is_due(self) -> bool:
        return self.state.progress.steps % self.config.r1_interval == 0

    def make_discriminator_optimizer(self) -> torch.optim.Optimizer:
        ratio = self.config.r1_interval / (self.config.r1_interval + 1)  # R1 adds a step to every r1_interval others
        return self.adam(trainable([self.state.discriminator]), self.config.discriminator_lr, ratio)


class MakeReal(AdversarialStage):
    """Stage 3: controller samples and reconstructions are judged side by side.

    Half of every batch reconstructs photos, half is sampled from the controller; one generator pass serves both
    players, which are then updated together. A share of the samples are photos with one part taken from a sample: what
    people make with the editor has to look real too, and may change nothing but the part. The controller follows the
    posteriors (KL) and not the critic: that would teach it to prefer the faces that are easy to draw.
    """

    name, duration = "real", "real_images"

    def __init__(self, state: TrainingState, faces: ResidentFaces) -> None:
        super().__init__(state, faces)
        self.parser = load_parser(device=state.processes.device).to(state.dtype) if self.config.parsing else None

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        generator, rate = self.state.generator, self.config.real_generator_lr
        groups = self.drawing()
        if not self.config.finest_only:
            share = self.config.controller_lr / max(rate, 1e-12)
            groups.append({"params": trainable([generator.controller]), "multiplier": share})
        return {"generator": self.adam(groups, rate), "discriminator": self.make_discriminator_optimizer()}

    def step(self) -> Losses:
        """Of both players, or first of the critic alone: a fresh one knows no faces and would spoil trained weights."""
        state, seen = self.state, []
        alone = state.progress.stage_images < self.config.critic_images
        for batch in self.micro_batches():
            count = len(batch.image)
            with torch.set_grad_enabled(not alone):
                made = self.generate(batch)
            # Real faces get the same transform as their reconstructions, so that features can be compared place by
            # place; then one look at them serves both players.
            transform = self.transform(count)
            real = self.look(batch, transform)
            if alone:
                terms = self.judge(real.score, *self.judged(made.face), transform)
            else:
                terms = self.learn(made, batch, real, transform)
            if self.penalty_is_due():  # in the same step as the critic's other gradients, unlike the paper's recipe
                terms |= self.penalize(batch, self.transform(count))
            seen.append(terms)
        total = mean_over(seen)
        self.apply(state.optimizers["discriminator"])
        self.adapt(total["real_sign"])
        self.advance(self.images_per_step, by_generator=not alone)
        if not alone:
            self.set_learning_rate(state.optimizers["generator"], self.config.real_generator_lr)
            self.apply(state.optimizers["generator"])
            total["augment"] = torch.tensor(state.progress.augment)
            state.update_averages(self.images_per_step)
        return total

    def generate(self, batch: FaceBatch) -> Made:
        """Reconstructions and samples; alternating rows keep a batch that is split over processes the same batch."""
        state, noise = self.state, self.query_noise(len(batch.image))
        posterior = state.encoder(batch.image[::2], batch.one_hot[::2])
        codes = posterior.sample(noise[::2])
        sampled = state.generator.controller(noise[1::2]).codes.detach()
        swapped = self.draw_swapped_parts(len(batch.image))[1::2]
        slots = torch.arange(codes.shape[1], device=codes.device) - 1  # slot 0 is the base code
        new = (swapped[:, None] < 0) | (swapped[:, None] == slots)
        sampled = torch.where(new[..., None], sampled, codes.detach())
        latents = state.generator.map(torch.stack((codes, sampled), dim=1).flatten(0, 1))
        return Made(state.generator.synthesize(latents.expand(state.generator.config)), posterior, codes, swapped)

    def draw_swapped_parts(self, count: int) -> Tensor:
        """(count,) the part that is swapped, or −1; large parts more often, as they disturb more of the picture."""
        chance = self.state.draws.uniform(count, 2)
        parts = pick(chance[:, 1], self.faces.frequencies.sqrt())
        return torch.where(chance[:, 0] < self.config.swapped, parts, -1)

    def learn(self, made: Made, batch: FaceBatch, real: Critique, transform: Augmentation) -> Losses:
        """Backward passes of both players, on one look of the critic at the fakes; ``real`` is its view of the photos.

        The fakes are cut off from the generator there. Their gradient for the generator comes first, without the
        critic's weights, and goes on together with the losses that need no critic; the critic's weights learn next.
        """
        judged = self.judged(made.face)
        shown = [fake.detach().requires_grad_() for fake in judged]
        fake: Critique = self.state.discriminator(*transform(*shown))
        pushed, (terms, rebuilt) = self.critic_terms(fake, real), self.own_terms(made, batch)
        with no_weight_gradients():
            pushes = torch.autograd.grad(self.share(pushed), shown, retain_graph=True)
        torch.autograd.backward((self.share(terms), *judged), (None, *pushes))
        learned = self.critic_losses(real.score, fake.score)
        critic = trainable([self.state.discriminator])
        (learned["discriminator"] / self.config.accumulate).backward(inputs=critic)
        return {key: value.detach() for key, value in {**pushed, **terms, **rebuilt, **learned}.items()}

    def critic_terms(self, fake: Critique, real: Critique) -> Losses:
        """What the generator learns from the critic."""
        restored = tuple(even_and_odd(feature)[0] for feature in fake.features)
        photos = tuple(feature[::2] for feature in real.features)
        return {
            "adversarial": losses.generator_loss(fake.score),
            "feature": losses.feature_matching(restored, photos),
        }

    def own_terms(self, made: Made, batch: FaceBatch) -> tuple[Losses, Losses]:
        """What generator, encoder and controller learn without the critic, and the parts of its reconstruction term."""
        face = made.face
        (image, sampled_image), (mask, sampled_mask) = even_and_odd(face.image), even_and_odd(face.mask)
        restored = Synthesis(image, mask, face.coarse_mask[::2], face.depth[::2], face.latents[::2])
        photos = FaceBatch(batch.image[::2], batch.part_ids[::2], batch.one_hot[::2])
        prior = self.state.generator.controller.condition(made.codes)
        terms = {
            "consistency_real": losses.mask_consistency(face.mask, face.coarse_mask),
            "kl_controller": made.posterior.kl(prior.mean, prior.log_variance).mean(),
        }
        if self.config.locality:
            terms["locality"] = self.locality(face, made.swapped)
        if self.config.preview and self.state.progress.steps % PREVIEW_INTERVAL == 0:
            terms["preview"] = PREVIEW_INTERVAL * self.preview(restored)
        if self.parser is not None:
            terms["parsing"] = self.parsing_loss(self.parser, sampled_image, sampled_mask)
        rebuilt = self.reconstruction_terms(restored, photos)
        terms["reconstruction"] = self.weighted(rebuilt)
        return terms, rebuilt

    @staticmethod
    def locality(face: Synthesis, swapped: Tensor) -> Tensor:
        """Change outside the swapped parts (B / 2,) between reconstructions (even rows) and their swaps (odd rows)."""
        part = swapped[:, None, None]
        parts = face.part_map
        before, after = parts[::2], parts[1::2]
        region = (before == part) | (after == part) | (part < 0)  # a face of new parts only has no outside
        return losses.swap_locality(face.image[::2], face.image[1::2], region)

    def preview(self, face: Synthesis) -> Tensor:
        """How far the picture at half size is from the full one."""
        generator = self.state.generator
        half = generator.synthesize(face.latents, size=generator.config.size // 2)
        return losses.preview_loss(half.image, face.image)

    def parsing_loss(self, parser: FaceParser, image: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of the samples' fine masks (B, K, H, W) against the parts that the parser sees.

        The picture gets no gradient: the mask follows what is shown, and nobody learns to deceive the parser.
        """
        with torch.no_grad():
            # Channel by channel: with the three of them innermost, everything before the first convolution is slow.
            scores = parser(parser.resize(image.detach().contiguous().clamp(-1, 1))).float()
            found = F.interpolate(scores, size=image.shape[-2:], mode="bilinear", align_corners=False).argmax(dim=1)
        return losses.fine_mask_loss(mask, found, self.weights)


class PaperAdversarial(AdversarialStage):
    """The paper's recipe: adversarial from scratch, with L_mask, KL, R1, path length and style mixing (section 4)."""

    name, duration = "paper", "paper_images"

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        generator = self.state.generator
        ratio = self.config.path_interval / (self.config.path_interval + 1)
        groups = [
            {"params": trainable([generator.mapping, generator.memory, generator.render])},
            {"params": trainable([generator.controller]), "lr": self.config.controller_lr * ratio},
        ]
        adam = self.adam(groups, self.config.generator_lr, ratio)
        return {"generator": adam, "discriminator": self.make_discriminator_optimizer()}

    def step(self) -> Losses:
        """Discriminator, R1, generator, path length: each that is due takes its own Adam step, as in StyleGAN2."""
        total = self.train_discriminator() | self.train_generator()
        self.adapt(total["real_sign"])
        self.advance(self.images_per_step)
        self.state.update_averages(self.images_per_step)
        return total

    def train_discriminator(self) -> Losses:
        optimizer = self.state.optimizers["discriminator"]
        batches, seen = list(self.micro_batches()), []
        for batch in batches:
            count = len(batch.image)
            with torch.no_grad():
                face, _ = self.sample(count)
            transform, other = self.transform(count), self.transform(count)
            seen.append(self.judge(self.look(batch, transform).score, *self.judged(face), other))
        self.apply(optimizer)
        if not self.penalty_is_due():
            return mean_over(seen)
        penalties = [self.penalize(batch, self.transform(len(batch.image))) for batch in batches]
        self.apply(optimizer)
        return mean_over(seen) | mean_over(penalties)

    def train_generator(self) -> Losses:
        optimizer, rounds = self.state.optimizers["generator"], range(self.config.accumulate)
        seen = mean_over([self.improve() for _ in rounds])
        self.apply(optimizer)
        if self.state.progress.steps % self.config.path_interval:
            return seen
        penalties = mean_over([self.regularize_path() for _ in rounds])
        self.apply(optimizer)
        return seen | penalties

    def sample(self, count: int) -> tuple[Synthesis, Tensor]:
        """Faces from noise, some of them mixed with a second sample, and the KL of their query codes."""
        generator = self.state.generator
        queries = generator.controller(self.query_noise(count))
        latents = generator.map(queries.codes).expand(generator.config)
        # Drawn whether needed or not, so that all processes stay at the same place of the random stream.
        noise, mixed = self.query_noise(count), self.state.draws.uniform(count) < self.config.style_mixing
        chance = self.state.draws.uniform(count, generator.config.part_count, 2)
        if bool(mixed.any()):
            second = generator.map(generator.controller(noise).codes).expand(generator.config)
            latents = self.mix(latents, second, (chance < 0.5) & mixed[:, None, None])
        return generator.synthesize(latents), queries.kl_to_unit_gaussian().mean()

    @staticmethod
    def mix(latents: Latents, other: Latents, taken: Tensor) -> Latents:
        """Style mixing: shape (``taken[..., 0]``) or texture codes (1) of the chosen parts come from the other sample.

        Args:
            latents, other: B faces each.
            taken: (B, K, 2) bool.
        """
        config = latents.config
        chosen = torch.zeros(latents.w.shape[:3], dtype=torch.bool, device=latents.w.device)
        for column, group in enumerate((LayerGroup.SHAPE, LayerGroup.TEXTURE)):
            layers = config.layer_range(group)
            chosen[:, :, layers.start : layers.stop] = taken[:, :, column, None]
        return latents.with_w(torch.where(chosen[..., None], other.w, latents.w), latents.shared_base)

    def improve(self) -> Losses:
        """Backward pass of the generator: Eq. 14."""
        critic = self.state.discriminator.requires_grad_(False)
        face, kl = self.sample(self.config.batch)
        transform = self.transform(self.config.batch)
        terms = {
            "adversarial": losses.generator_loss(critic(*transform(*self.judged(face))).score),
            "consistency_real": losses.mask_consistency(face.mask, face.coarse_mask),
            "kl_controller": kl,
        }
        return self.backward(terms)

    def regularize_path(self) -> Losses:
        """Backward pass of the path length penalty on a smaller batch."""
        state, generator = self.state, self.state.generator
        count = max(1, self.config.batch // self.config.path_shrink)
        codes = generator.controller(self.query_noise(count)).codes
        latents = generator.map(codes).expand(generator.config)
        image = generator.synthesize(latents).image
        noise = state.draws.normal(count, *image.shape[1:])
        lengths = losses.path_lengths(image, latents.w, noise)
        mean = torch.tensor(state.progress.path_mean, device=image.device)
        mean = torch.lerp(mean, state.processes.mean(lengths.detach().mean()), PATH_DECAY)
        penalty = losses.path_length_penalty(lengths, mean)
        (penalty * (self.config.path_length * self.config.path_interval / self.config.accumulate)).backward()
        state.progress.path_mean = float(mean)
        return {"path_length": penalty.detach()}
