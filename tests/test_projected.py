"""Projected critics and DiffAugment."""

from __future__ import annotations

import pytest
import torch

from memorygan.config import get_preset
from memorygan.training.diffaugment import DiffAugment, draw_augment
from memorygan.training.distributed import Draws, start_processes
from memorygan.training.projected import MakeRealProjected, ProjectedDiscriminator, SpectralConv


@pytest.fixture(scope="module")
def critic() -> ProjectedDiscriminator:
    torch.manual_seed(0)
    return ProjectedDiscriminator(get_preset("tiny-32").discriminator)


def pair(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(count, 3, 32, 32) * 2 - 1, torch.rand(count, 13, 32, 32) * 2 - 1


def test_five_critics_judge_sixteen_places_each_and_both_inputs_matter(critic: ProjectedDiscriminator) -> None:
    image, mask = (t.requires_grad_() for t in pair())
    critique = critic(image, mask)
    assert critique.score.shape == (2, 5 * 16) and critique.score.dtype == torch.float32
    assert critique.features == ()
    # The critics of the picture alone do not see the mask, the paper's branch does.
    (of_picture,) = torch.autograd.grad(critique.score[:, :64].sum(), mask, retain_graph=True)
    assert not of_picture.any()
    for given in torch.autograd.grad(critique.score[:, 64:].sum(), (image, mask)):
        assert bool(given.any())


def test_only_the_critics_learn(critic: ProjectedDiscriminator) -> None:
    names = {name.split(".")[0] for name, _ in critic.requires_grad_(True).named_parameters()}
    assert names == {"critics", "mask_branch", "pair"}
    # The backbone is in no checkpoint, the random projections are: a resumed run needs the same ones.
    saved = {name.split(".")[0] for name in critic.state_dict()}
    assert saved == names | {"mixing"}
    assert not any(parameter.requires_grad for parameter in critic._backbone[0].parameters())


def test_a_spectral_convolution_has_unit_norm() -> None:
    torch.manual_seed(0)
    conv = SpectralConv(8, 16, activation=False)
    for _ in range(30):
        conv(torch.randn(1, 8, 4, 4))
    left = conv.direction
    matrix = conv.weight.flatten(1)
    found = float(left @ matrix.detach() @ torch.nn.functional.normalize(matrix.detach().T @ left, dim=0))
    assert found == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-3)
    direction = conv.direction.clone()
    conv.eval()(torch.randn(1, 8, 4, 4))
    assert torch.equal(conv.direction, direction)


def test_the_hinge_stops_where_a_critic_is_sure() -> None:
    real, fake = torch.tensor([[2.0, 0.5]]), torch.tensor([[-3.0, 0.0]])
    terms = MakeRealProjected.critic_losses(real, fake)
    assert float(terms["discriminator"]) == pytest.approx(0.25 + 0.5)
    assert float(terms["real_sign"]) == 1.0 and float(terms["fake_sign"]) == -0.5


def test_augmentation_moves_and_cuts_image_and_mask_alike() -> None:
    neutral = torch.tensor([[0.5, 0.5, 0.5]] * 2)
    image, mask = pair()
    image = mask[:, :3].clone()
    still = DiffAugment(neutral, torch.full((2, 2), 0.5), torch.tensor([[1.0, 1.0], [0.0, 0.0]]).mul(0.999))
    seen, covered = still(image, mask)
    # In the middle of its range nothing moves; the square around a corner is a quarter of itself.
    kept = covered.abs().sum(dim=1) > 0
    assert (~kept).sum(dim=(1, 2)).tolist() == [64, 64] and not kept[0, -1, -1] and not kept[1, 0, 0]
    assert torch.allclose(seen[kept[:, None].expand_as(seen)], image[kept[:, None].expand_as(image)], atol=1e-6)
    moved = DiffAugment(neutral, torch.tensor([[0.0, 0.999]] * 2), torch.full((2, 2), 0.0))
    seen, covered = moved(image, mask)
    assert torch.allclose(seen, covered[:, :3], atol=1e-5)
    assert torch.allclose(seen[0, :, 20, 10], image[0, :, 16, 14], atol=1e-6)  # by 4 of 32, up and to the right


def test_augmentation_recolours_the_image_alone_and_passes_gradients() -> None:
    image, mask = pair(4)
    image.requires_grad_()
    augment = draw_augment(Draws(0, start_processes("cpu")), 4)
    seen, covered = augment(image, mask)
    seen.sum().backward()
    assert image.grad is not None and bool(image.grad.any())
    values = set(mask.flatten().tolist()) | {0.0}
    assert set(covered.flatten().tolist()) <= values
