"""Loss terms against values worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from memorygan.controller import QueryCodes
from memorygan.encoder import Posterior
from memorygan.training import losses


def test_part_weights_average_one_over_pixels_and_favour_small_parts() -> None:
    frequencies = torch.tensor([0.64, 0.32, 0.04])
    weights = losses.part_weights(frequencies, exponent=0.5, limit=8.0)
    assert (weights * frequencies).sum().item() == pytest.approx(1.0)
    assert (weights[2] / weights[0]).item() == pytest.approx(4.0)  # sqrt(0.64 / 0.04)
    limited = losses.part_weights(torch.tensor([0.9999, 0.0001]), limit=8.0)
    assert (limited[1] / limited[0]).item() == pytest.approx(8.0)


def test_pixel_pooled_and_gradient_loss() -> None:
    target = torch.zeros(1, 3, 4, 4)
    image = target.clone()
    image[0, :, 1, 1] = 1.0
    weight = torch.ones(1, 1, 4, 4)
    assert losses.pixel_loss(image, target, weight).item() == pytest.approx(1 / 16)
    assert losses.pooled_loss(image, target).item() == pytest.approx(1 / 16)
    # One bright pixel has two horizontal and two vertical edges among 12 differences each way.
    assert losses.gradient_loss(image, target, weight).item() == pytest.approx(2 / 12 + 2 / 12)
    assert losses.pooled_loss(image - 1 / 16, target).item() == pytest.approx(0.0, abs=1e-7)
    weight[0, 0, 1, 1] = 3.0
    assert losses.pixel_loss(image, target, weight).item() == pytest.approx(3 / 16)


def test_tint_loss_sees_hue_and_not_lightness_and_counts_present_parts_alike() -> None:
    target = torch.zeros(1, 3, 2, 2)
    regions = torch.zeros(1, 3, 2, 2)
    regions[0, 0] = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    regions[0, 1, 1, 1] = 1.0  # the third part is absent
    assert losses.tint_loss(target + 0.5, target, regions).item() == pytest.approx(0.0, abs=1e-6)
    image = target.clone()
    image[0, 0, 1, 1] = 0.8  # the one pixel of the second part is red: 0.8 of red − green, 0.4 of yellow − blue
    assert losses.tint_loss(image, target, regions).item() == pytest.approx((0.0 + 0.6) / 2)
    image[0, :, 1, 1] = 0.0
    image[0, 0, 0] = torch.tensor([0.6, -0.6])  # red here and green there: the first part's mean has no hue
    assert losses.tint_loss(image, target, regions).item() == pytest.approx(0.0, abs=1e-6)


def test_fine_mask_loss_is_the_weighted_cross_entropy() -> None:
    mask = torch.full((1, 2, 1, 2), -1.0)
    mask[0, 0, 0, 0] = 1.0  # right and sure
    mask[0, 0, 0, 1] = 1.0  # wrong and sure
    ids = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    gap = 2.0 * losses.MASK_LOGIT_SCALE
    right, wrong = math.log(1 + math.exp(-gap)), math.log(1 + math.exp(gap))
    weights = torch.tensor([1.0, 3.0])
    assert losses.fine_mask_loss(mask, ids, weights).item() == pytest.approx((right + 3 * wrong) / 2, rel=1e-5)


def test_coarse_mask_loss_and_consistency() -> None:
    coarse = torch.tensor([0.75, 0.25]).view(1, 2, 1, 1)
    target = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    loss = losses.coarse_mask_loss(coarse, target, torch.tensor([2.0, 1.0]))
    assert loss.item() == pytest.approx(-2 * math.log(0.75), rel=1e-4)
    fine = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    assert losses.mask_consistency(fine, coarse).item() == pytest.approx(0.25)  # (1 − 0.5)² and (−1 + 0.5)²


def test_swap_locality_is_the_mean_change_outside_and_pulls_the_swapped_face_only() -> None:
    face = torch.zeros(1, 3, 2, 2, requires_grad=True)
    swapped = torch.tensor([[1.0, 0.0], [0.0, 0.5]]).expand(1, 3, 2, 2).clone().requires_grad_()
    region = torch.tensor([[[True, False], [False, False]]])
    loss = losses.swap_locality(face, swapped, region)
    assert loss.item() == pytest.approx(0.5 / 3)
    loss.backward()
    assert face.grad is None and swapped.grad is not None
    assert torch.equal(swapped.grad[0, 0] > 0, torch.tensor([[False, False], [False, True]]))
    assert losses.swap_locality(face, swapped, torch.ones_like(region)).item() == 0.0  # no outside


def test_preview_loss_is_against_the_halved_picture_and_pulls_the_preview_only() -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).expand(1, 3, 2, 2).clone().requires_grad_()
    preview = torch.zeros(1, 3, 1, 1, requires_grad=True)
    loss = losses.preview_loss(preview, image)
    assert loss.item() == pytest.approx(0.25**2)
    loss.backward()
    assert image.grad is None and preview.grad is not None


def test_preview_loss_pulls_the_full_picture_where_the_preview_stands_still() -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).expand(1, 3, 2, 2).clone().requires_grad_()
    losses.preview_loss(torch.zeros(1, 3, 1, 1), image).backward()
    assert image.grad is not None and torch.equal(image.grad, torch.full_like(image, 2 * 0.25 / 4 / 3))


def test_adversarial_losses() -> None:
    real, fake = torch.tensor([2.0]), torch.tensor([-1.0])
    expected = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))
    assert losses.discriminator_loss(real, fake).item() == pytest.approx(expected, rel=1e-6)
    assert losses.generator_loss(fake).item() == pytest.approx(math.log(1 + math.exp(1)), rel=1e-6)


def test_gradient_penalty_of_a_quadratic_score() -> None:
    image = torch.full((2, 1, 2, 2), 3.0, requires_grad=True)
    mask = torch.full((2, 1, 2, 2), 1.0, requires_grad=True)
    score = (image.square() + 5 * mask).sum(dim=(1, 2, 3))
    on_image, on_mask = losses.gradient_penalty(score, image, mask)
    assert on_image.item() == pytest.approx(4 * 36.0)  # four pixels of gradient 2·3
    assert on_mask.item() == pytest.approx(4 * 25.0)


def test_path_length_of_a_linear_generator() -> None:
    w = torch.ones(3, 1, 1, 2, requires_grad=True)
    image = (w[:, 0, 0] @ torch.tensor([[3.0, 0.0], [0.0, 4.0]])).view(3, 2, 1, 1).repeat(1, 1, 2, 2)
    lengths = losses.path_lengths(image, w, torch.ones_like(image))
    length = math.sqrt((3.0 * 4 / 2) ** 2 + (4.0 * 4 / 2) ** 2)  # four pixels, divided by √(2·2)
    assert lengths.tolist() == pytest.approx([length] * 3)
    assert losses.path_length_penalty(lengths, torch.tensor(length / 4)).item() == pytest.approx((0.75 * length) ** 2)


def test_kl_and_likelihood_of_gaussians() -> None:
    posterior = Posterior(torch.tensor([[[1.0, 0.0]]]), torch.log(torch.tensor([[[4.0, 1.0]]])))
    unit = 0.5 * (1 + 4 - 1 - math.log(4))
    assert posterior.kl().item() == pytest.approx(unit, rel=1e-6)
    same = posterior.kl(posterior.mean, posterior.log_variance)
    assert same.item() == pytest.approx(0.0, abs=1e-6)
    codes = QueryCodes(torch.tensor([[[3.0, 0.0]]]), posterior.mean, posterior.log_variance)
    assert codes.kl_to_unit_gaussian().item() == pytest.approx(unit, rel=1e-6)
    expected = -0.5 * (4 / 4 + math.log(4) + 2 * math.log(2 * math.pi))
    assert codes.log_likelihood().item() == pytest.approx(expected, rel=1e-6)


def test_feature_matching_does_not_pull_the_real_features() -> None:
    fake, real = torch.ones(2, 3, requires_grad=True), torch.full((2, 3), 3.0, requires_grad=True)
    loss = losses.feature_matching((fake,), (real,))
    loss.backward()
    assert loss.item() == pytest.approx(2.0)
    assert fake.grad is not None and real.grad is None


def test_the_coarse_mask_is_enlarged_bilinearly() -> None:
    fine, coarse = torch.randn(2, 3, 16, 16), torch.rand(2, 3, 4, 4, requires_grad=True)
    loss = losses.mask_consistency(fine, coarse)
    enlarged = F.interpolate(2.0 * coarse - 1.0, size=(16, 16), mode="bilinear", align_corners=False)
    expected = (fine - enlarged).square().mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(term, coarse)[0] for term in (loss, expected)))
