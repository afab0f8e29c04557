"""SemanticStyleGAN on the same rooms: one local generator per part."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from memorygan.baseline import SemanticStyleGAN
from memorygan.composition import fuse
from memorygan.config import get_preset, with_part_count
from memorygan.generator import MemoryGAN

TINY = get_preset("tiny-32").generator


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    """Equal up to ``tolerance`` of the largest value."""
    return a.shape == b.shape and float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


@pytest.fixture(scope="module")
def model() -> SemanticStyleGAN:
    torch.manual_seed(6)
    generator = SemanticStyleGAN(TINY).eval().requires_grad_(False)
    for name, value in generator.named_parameters():
        if name.endswith(("bias", "modulation", "noise_strength")):
            value.add_(0.3 * torch.randn_like(value))
    generator.update_mean_latents(64)
    return generator


@pytest.fixture(scope="module")
def faces(model):
    return model.expand(torch.randn(2, 2 + 2 * 13, TINY.style_dim, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(("count", "millions"), [(1, 15.4), (10, 19.0), (100, 55.4), (1000, 419.8)])
def test_parameter_count_of_table_1(count, millions):
    with torch.device("meta"):
        generator = SemanticStyleGAN(with_part_count(get_preset("paper-256").generator, count))
    assert round(sum(p.numel() for p in generator.parameters()) / 1e6, 1) == millions


def test_every_part_runs_its_own_network(model, faces):
    """The local generator written out, one part at a time."""
    nets, retrieved = model.memory, model.retrieve(faces)
    features = []
    for part in range(13):
        x = nets.grid @ (nets.position / math.sqrt(nets.position.shape[1])).T
        for layer in range(10):
            code = faces.w[1, part, layer] / math.sqrt(TINY.style_dim)
            style = nets.style_weight[part, layer] @ code + nets.style_bias[part, layer]
            weight = nets.weight[part, layer] / math.sqrt(8) * style
            weight = weight / (weight.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
            x = F.leaky_relu(x @ weight.T + nets.bias[part, layer], 0.2) * math.sqrt(2)
            if layer == 5 and part:
                row = part - 1
                depth = x @ (nets.depth_weight[row] * nets.depth_modulation[row]) / math.sqrt(8) + nets.depth_bias[row]
                assert close(retrieved.depth[1, part], depth)
        assert close(retrieved.hidden[1, part], x)
        matrix = nets.feature_weight[part] * nets.feature_modulation[part] / math.sqrt(8)
        features.append(x @ matrix.T + nets.feature_bias[part])
    assert not retrieved.depth[:, 0].any()
    # Eq. 6: projected first, weighed after.
    mask = torch.softmax(retrieved.depth[1], dim=0)
    solid = mask.sum(dim=0) - mask[10] - mask[12]
    weights = [mask[k] if k in (10, 12) else mask[k] / (solid + 1e-8) for k in range(13)]
    expected = torch.stack([w[:, None] * f for w, f in zip(weights, features, strict=True)]).sum(dim=0)
    fused = fuse(retrieved, nets, TINY.parts.transparent)
    assert close(fused.feature[1].flatten(1).T, expected)


def test_queried_parts_keep_their_order_and_networks(model, faces):
    full, some = model.retrieve(faces), model.retrieve(faces, ["hair", 0, "nose"])
    assert close(some.hidden, full.hidden[:, [7, 0, 5]]) and close(some.depth, full.depth[:, [7, 0, 5]])


def test_one_part_query_updates_a_full_retrieval(model, faces):
    edited = faces.mix(faces[[1, 0]], ["mouth"])
    updated = model.retrieve(faces).with_parts([4], model.retrieve(edited, ["mouth"]))
    assert close(model.compose(updated, edited).image, model.synthesize(edited).image)


def test_fusion_of_some_retrieved_parts_is_refused(model, faces):
    with pytest.raises(ValueError, match="needs all 13 parts, got 2"):
        fuse(model.retrieve(faces, [0, 1]), model.memory, ())


def test_default_space_is_spread_over_parts_and_layers(model):
    codes = torch.randn(2, 28, TINY.style_dim)
    latents = model.expand(codes)
    for part in range(13):
        for layer in range(10):
            if part and layer < 2:
                slot = layer  # base codes
            else:
                slot = 2 + 2 * part + (layer >= 6)
            assert torch.equal(latents.w[:, part, layer], codes[:, slot]), (part, layer)
    with pytest.raises(ValueError, match=r"\(B, 28, 32\), got \(2, 26, 32\)"):
        model.expand(codes[:, :26])


def test_a_seed_gives_one_code_for_all_parts_whatever_the_batch(model):
    alone, batch = model.sample([7]), model.sample([3, 7])
    assert close(batch.w[1:], alone.w) and torch.equal(model.sample([7]).w, alone.w)
    assert torch.equal(alone.w, alone.w[:, :1, :1].expand_as(alone.w))
    assert not close(batch.w[:1], alone.w, 1e-2)


def test_truncation_ends(model):
    full, mean = model.sample([3]), model.sample([3], truncation=0.0)
    assert torch.equal(model.sample([3], truncation=1.0).w, full.w)
    assert torch.equal(mean.w[0, 5, 5], model.mean_w[0]) and bool(model.mean_w.any())
    assert close(model.sample([3], truncation=0.5).w, (full.w + mean.w) / 2)


def test_forward_and_shapes(model):
    z = torch.randn(2, TINY.query_dim)
    face = model(z)
    assert face.image.shape == (2, 3, 32, 32) and face.mask.shape == (2, 13, 32, 32)
    assert torch.equal(face.image, model.synthesize(model.share(model.map(z))).image)
    with pytest.raises(ValueError, match=r"\(B, 16\), got \(2, 3\)"):
        model.map(torch.zeros(2, 3))


def test_sequence_ends_at_the_full_face(model, faces):
    assert close(list(model.compose_sequence(faces))[-1].image, model.synthesize(faces).image, 1e-4)


def test_rooms_are_shared_with_memorygan(model):
    """Mapping and render net are the same modules, so that only the local generators differ."""
    ours = {name for name, _ in MemoryGAN(TINY).named_parameters() if not name.startswith(("memory.", "controller."))}
    theirs = {name for name, _ in model.named_parameters() if not name.startswith("memory.")}
    assert ours == theirs


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_parts_learns(count):
    generator = SemanticStyleGAN(with_part_count(TINY, count))
    face = generator(torch.randn(2, TINY.query_dim))
    (face.image.square().mean() + face.mask.square().mean()).backward()
    for name, parameter in generator.named_parameters():
        if parameter.numel():
            assert parameter.grad is not None and bool(parameter.grad.any()), name
