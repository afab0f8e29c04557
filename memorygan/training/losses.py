"""Losses as small callables: tensors in, one scalar tensor out, nothing logged."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# A fine mask lives near 2·one-hot − 1; times this it is a confident logit without having to grow further.
MASK_LOGIT_SCALE = 4.0


def part_weights(frequencies: Tensor, exponent: float = 0.5, limit: float = 8.0) -> Tensor:
    """(K,) weight per part: frequency^−exponent, at most ``limit`` times the smallest, mean 1 over pixels.

    Without it small parts are averaged away: eyes are 1 % of the picture.
    """
    weights = frequencies.clamp_min(1e-6) ** -exponent
    weights = weights.clamp_max(float(weights.min()) * limit)
    return weights / (weights * frequencies).sum()


def one_hot(part_ids: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Part ids (B, H, W) → (B, K, H, W) in 0–1, channels-last."""
    return F.one_hot(part_ids.long(), count).to(dtype).permute(0, 3, 1, 2)


def pixel_loss(image: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error, each pixel weighted; images (B, 3, H, W), weight (B, 1, H, W) of mean 1."""
    return ((image - target).abs() * weight).mean()


def pooled_loss(image: Tensor, target: Tensor, factor: int = 4) -> Tensor:
    """Mean absolute error of factor×factor averages: colours of areas."""
    return (F.avg_pool2d(image, factor) - F.avg_pool2d(target, factor)).abs().mean()


def tint_loss(image: Tensor, target: Tensor, regions: Tensor) -> Tensor:
    """Mean absolute error of the parts' mean opponent colours (red − green, yellow − blue), every part alike.

    Light and dark lie far apart in pictures and hues do not, so that other losses learn hues late; gray, red and brown
    hair come out alike until then.

    Args:
        image, target: (B, 3, H, W).
        regions: (B, K, H, W) in 0–1, where the target's parts lie; absent parts do not count.
    """
    error = (image - target).float()
    red, green, blue = error.unbind(dim=1)
    opponents = torch.stack((red - green, 0.5 * (red + green) - blue), dim=-1)  # (B, H, W, 2)
    regions = regions.float().flatten(2)
    area = regions.sum(dim=2, keepdim=True)  # (B, K, 1)
    mean = (regions @ opponents.flatten(1, 2)) / area.clamp_min(1.0)  # (B, K, 2)
    present = (area > 0).float()
    return (mean.abs() * present).mean(dim=2).sum() / present.sum().clamp_min(1.0)


def gradient_loss(image: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error of horizontal and vertical differences, weighted as in :func:`pixel_loss`: edges."""
    error = image - target
    horizontal = (error[..., :, 1:] - error[..., :, :-1]).abs() * weight[..., :, 1:]
    vertical = (error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]
    return horizontal.mean() + vertical.mean()


def fine_mask_loss(mask: Tensor, part_ids: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of the fine mask (B, K, H, W) against ids (B, H, W), in nats, weighted by part."""
    loss = F.cross_entropy(mask * MASK_LOGIT_SCALE, part_ids.long(), reduction="none")
    return (loss * weights[part_ids.long()]).mean()


def coarse_mask_loss(mask: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of the coarse mask (B, K, s, s), which sums to 1, against soft targets of the same shape."""
    return -(target * weights.view(1, -1, 1, 1) * torch.log(mask + 1e-6)).sum(dim=1).mean()


def mask_consistency(fine: Tensor, coarse: Tensor) -> Tensor:
    """L_mask: mean squared difference between the fine mask and the upsampled 2·coarse − 1."""
    coarse = 2.0 * coarse - 1.0
    if fine.shape[-1] != coarse.shape[-1]:
        enlarge = linear_interpolation(coarse.shape[-1], fine.shape[-1], coarse.device)
        coarse = enlarge @ coarse @ enlarge.T  # bilinear; as products, which have the quicker gradient on CPUs
    return (fine - coarse).square().mean()


@lru_cache
def linear_interpolation(size: int, larger: int, device: torch.device) -> Tensor:
    """(larger, size) matrix that interpolates a line of pixels linearly, corners not aligned."""
    with torch.inference_mode(False):
        unit = torch.eye(size, device=device)[None]
        return F.interpolate(unit, size=larger, mode="linear", align_corners=False)[0].T.contiguous()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Logistic loss: softplus(−D(real)) + softplus(D(fake))."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating loss: softplus(−D(fake))."""
    return F.softplus(-fake).mean()


def gradient_penalty(score: Tensor, *inputs: Tensor) -> list[Tensor]:
    """R1: mean over the batch of ‖∂ΣD/∂x‖², one value per input; not yet weighted."""
    gradients = torch.autograd.grad(score.sum(), list(inputs), create_graph=True)
    return [g.float().square().sum(dim=(1, 2, 3)).mean() for g in gradients]


def path_lengths(image: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """(B,) length of the step in the picture that a unit step of the latent codes makes, as StyleGAN2 measures it.

    Args:
        image: (B, 3, H, W) rendered from ``w``.
        w: latent codes (B, ..., D) that require gradients.
        noise: (B, 3, H, W) standard normal.
    """
    scaled = (image * noise).sum() / math.sqrt(image.shape[2] * image.shape[3])
    (gradient,) = torch.autograd.grad(scaled, w, create_graph=True)
    return gradient.float().square().sum(dim=-1).flatten(1).mean(dim=1).sqrt()


def path_length_penalty(lengths: Tensor, mean: Tensor) -> Tensor:
    """Mean squared distance of path lengths (B,) from their running mean ()."""
    return (lengths - mean).square().mean()


def feature_matching(fake: tuple[Tensor, ...], real: tuple[Tensor, ...]) -> Tensor:
    """Mean absolute difference of discriminator features, averaged over levels; the real ones are constants."""
    terms = [(f - r.detach()).abs().float().mean() for f, r in zip(fake, real, strict=True)]
    return torch.stack(terms).mean()


def swap_locality(face: Tensor, swapped: Tensor, region: Tensor) -> Tensor:
    """Mean over faces of the mean absolute change that a swap makes outside the part; the face before is a constant.

    Args:
        face, swapped: images (B, 3, H, W).
        region: (B, H, W) bool, where the part lies before or after the swap.
    """
    outside = ~region[:, None]
    change = ((swapped - face.detach()).abs() * outside).mean(dim=(1, 2, 3))
    share = outside.float().mean(dim=(1, 2, 3))
    return (change / share.clamp_min(1e-6)).mean()


def preview_loss(preview: Tensor, image: Tensor) -> Tensor:
    """Mean squared error of a picture (B, 3, S/2, S/2) against the halved full one (B, 3, S, S).

    The full one is a constant, unless the preview is: what learns follows what stands still. Squared, since what has to
    go are large errors in small places.
    """
    target = F.avg_pool2d(image.detach() if preview.requires_grad else image, 2)
    return (preview - target).square().mean()
