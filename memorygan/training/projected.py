"""The recipe ``projected``: faces are judged by their projected image features (Sauer, Chitta, Müller, Geiger 2021).

A frozen backbone sees the picture at four scales; fixed random convolutions mix its features across channels and then
across scales, so that no critic can single out a few of them; four small critics judge what comes out, by the hinge
loss and without a gradient penalty. Beside them stays the paper's mask branch (section 3.4), joined with the coarsest
features: it judges the mask, and whether mask and picture belong together.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memorygan.config import DiscriminatorConfig
from memorygan.discriminator import Branch, Critique
from memorygan.fast.operators import convolve
from memorygan.training.adversarial import Augmentation, MakeReal
from memorygan.training.backbone import LEVELS, Backbone, load_backbone
from memorygan.training.diffaugment import draw_augment
from memorygan.training.stages import Losses
from memorygan.training.state import trainable

MINIMUM = 128  # sides below are enlarged: at 1/32 a critic still has 4 × 4 places to judge
WIDTHS = (64, 128, 256, 512)  # of the mixed features at 1/4, 1/8, 1/16, 1/32
WIDEST = 256  # of a critic


class SpectralConv(nn.Module):
    """3×3 convolution whose weight is divided by its largest singular value (Miyato et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, activation: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) / math.sqrt(9 * inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.direction: Tensor
        self.register_buffer("direction", F.normalize(torch.randn(outputs), dim=0))
        self.stride, self.activation = stride, activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, s, s) → (B, outputs, s / stride, s / stride)."""
        matrix = self.weight.flatten(1)
        with torch.no_grad():  # one step of the power iteration
            right = F.normalize(matrix.T @ self.direction, dim=0)
            left = F.normalize(matrix @ right, dim=0)
            if self.training:
                self.direction.copy_(left)
        weight = self.weight / (left @ (matrix @ right))
        return convolve(x, weight.to(x.dtype), self.bias.to(x.dtype), self.activation, self.stride)


class Critic(nn.Module):
    """Judges one scale: (B, C, s, s) → (B, 16) logits, one for each of 4 × 4 places."""

    def __init__(self, inputs: int, side: int) -> None:
        super().__init__()
        layers, width = [], inputs
        while side > 4:
            layers.append(SpectralConv(width, min(WIDEST, 2 * width), stride=2))
            width, side = min(WIDEST, 2 * width), side // 2
        layers += [SpectralConv(width, min(WIDEST, width)), SpectralConv(min(WIDEST, width), 1, activation=False)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layers(x)
        return scores.float().flatten(1)


class Mixing(nn.Module):
    """Fixed random projections: 1×1 across channels, then 3×3 from coarse to fine across scales."""

    def __init__(self, inputs: tuple[int, ...]) -> None:
        super().__init__()
        for level, (channels, width) in enumerate(zip(inputs, WIDTHS, strict=True)):
            # Buffers, which no optimiser and no `requires_grad_` reaches.
            self.register_buffer(f"across_{level}", torch.randn(width, channels, 1, 1) / math.sqrt(channels))
            coarser = WIDTHS[min(level + 1, len(WIDTHS) - 1)]
            self.register_buffer(f"down_{level}", torch.randn(width, coarser, 3, 3) / math.sqrt(9 * coarser))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features at 1/4, 1/8, 1/16, 1/32 → mixed ones of :data:`WIDTHS` channels."""
        mixed: list[Tensor] = []
        for level in reversed(range(len(features))):
            x = F.conv2d(features[level], self.get_buffer(f"across_{level}").to(features[level].dtype))
            if mixed:
                coarser = F.interpolate(mixed[-1], scale_factor=2, mode="bilinear", align_corners=False)
                x = x + F.conv2d(coarser, self.get_buffer(f"down_{level}").to(x.dtype), padding=1)
            mixed.append(x)
        return mixed[::-1]


class ProjectedDiscriminator(nn.Module):
    """Four critics of projected features, and one of the mask beside the coarsest of them.

    Args:
        config: size, and shape of the mask branch.

    Raises:
        BackboneError: if the backbone's package is not installed.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        # In a list, which hides it from the module's parameters and from checkpoints: it is frozen, and has its file.
        self._backbone = [copy.deepcopy(load_backbone())]
        self.mixing = Mixing(LEVELS[1:])
        side = max(config.size, MINIMUM) // 4
        self.critics = nn.ModuleList([Critic(width, side >> level) for level, width in enumerate(WIDTHS)])
        self.mask_branch = Branch(config, config.mask_channels, config.mask_channel_divisor)
        self.pair = Critic(WIDTHS[-1] + config.channels(4, config.mask_channel_divisor), 4)

    def features(self, image: Tensor) -> list[Tensor]:
        """Mixed features of B images (B, 3, S, S) in [−1, 1]; gradients reach the image alone."""
        if image.shape[-1] < MINIMUM:
            image = F.interpolate(image, size=MINIMUM, mode="bilinear", align_corners=False)
        backbone: Backbone = self._backbone[0].to(image.device, image.dtype)
        return self.mixing(backbone(image)[1:])

    def forward(self, image: Tensor, mask: Tensor) -> Critique:
        """Judges B pairs.

        Args:
            image: (B, 3, S, S) in [−1, 1].
            mask: (B, K, S, S), 2·one-hot − 1 for real masks.

        Returns:
            ``score`` (B, 5·16): logits of every critic at 4 × 4 places; no features, as they are fixed.
        """
        features = self.features(image)
        scores = [critic(x) for critic, x in zip(self.critics, features, strict=True)]
        masked = self.mask_branch(mask.to(image.dtype))[-1]  # (B, C, 4, 4)
        coarsest = F.adaptive_avg_pool2d(features[-1], masked.shape[-1])
        scores.append(self.pair(torch.cat((coarsest, masked), dim=1)))
        return Critique(torch.cat(scores, dim=1), ())


class MakeRealProjected(MakeReal):
    """The real stage against projected critics: hinge loss, DiffAugment, no gradient penalty."""

    def transform(self, batch: int) -> Augmentation:
        return draw_augment(self.state.draws, batch)

    def penalty_is_due(self) -> bool:
        return False

    def adapt(self, real_sign: Tensor) -> None:
        """DiffAugment's strength is fixed."""

    @staticmethod
    def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()

    def critic_terms(self, fake: Critique, real: Critique) -> Losses:
        return {"adversarial": -fake.score.mean()}

    def make_discriminator_optimizer(self) -> torch.optim.Optimizer:
        return self.adam(trainable([self.state.discriminator]), self.config.discriminator_lr)
