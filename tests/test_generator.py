"""The model core: each fast path against a slow reference, each formula against its definition."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import cast

import pytest
import torch
import torch.nn.functional as F

from memorygan.composition import RenderBlock, coarse_mask, feature_weights, fuse
from memorygan.config import PRESETS, GeneratorConfig, get_preset, with_part_count
from memorygan.controller import QueryCodes
from memorygan.fast.operators import upsample
from memorygan.generator import MemoryGAN
from memorygan.latents import Latents, PartLatents
from memorygan.layers import ConstantStyleConv, EqualLinear, coordinate_grid, pixel_norm
from memorygan.memory import Retrieved
from memorygan.parts import FACE_PARTS, LayerGroup

TINY = get_preset("tiny-32").generator


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    """Equal up to ``tolerance`` of the largest value."""
    return a.shape == b.shape and float((a - b).detach().abs().max()) <= tolerance * max(
        1.0, float(b.detach().abs().max())
    )


def randomise(model: torch.nn.Module) -> None:
    """Gives every parameter that starts at 0 or 1 another value, so that forgetting it shows."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(("bias", "modulation", "noise_strength")):
                value.add_(0.3 * torch.randn_like(value))


@pytest.fixture(scope="module")
def model() -> MemoryGAN:
    torch.manual_seed(5)
    generator = MemoryGAN(TINY).eval().requires_grad_(False)
    randomise(generator)
    generator.update_mean_latents(64)
    return generator


@pytest.fixture(scope="module")
def faces(model) -> Latents:
    return model.sample([1, 2])


# --- Configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "value", "remedy"),
    [
        ({"size": 48}, "size is 48", "power of two"),
        ({"size": 2}, "size is 2", "at least 4"),
        ({"coarse_size": 64}, "coarse_size 64", "raise size"),
        ({"min_feature_size": 16}, "min_feature_size 16", "lower"),
        ({"base_layers": 6}, "base_layers is 6", "use 1 to depth_layers - 1 = 5"),
        ({"base_layers": 0}, "base_layers is 0", "use 1"),
        ({"depth_layers": 10}, "depth_layers is 10", "use at most 9"),
        ({"refine_sizes": (32,)}, "refine size 32", "use some of"),
        ({"refine_sizes": (4,)}, "refine size 4", "use some of"),
        ({"query_dim": 0}, "query_dim is 0", "at least 1"),
        ({"style_dim": -3}, "style_dim is -3", "at least 1"),
        ({"mapping_lr_multiplier": 0.0}, "mapping_lr_multiplier is 0", "above 0"),
    ],
)
def test_impossible_configurations_are_refused_with_value_and_remedy(changes, value, remedy):
    with pytest.raises(ValueError, match=value) as error:
        replace(TINY, **changes)
    assert remedy in str(error.value)


@pytest.mark.parametrize("name", ["mask_channels", "group_size", "channel_max", "channel_min", "mask_channel_divisor"])
def test_impossible_discriminators_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0; use at least 1"):
        replace(get_preset("tiny-32").discriminator, **{name: 0})


@pytest.mark.parametrize("name", PRESETS)
def test_configuration_survives_json(name):
    config = get_preset(name).generator
    assert GeneratorConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config


def test_configuration_from_bad_json_is_refused():
    data = json.loads(json.dumps(asdict(TINY)))
    with pytest.raises(ValueError, match="newer version"):
        GeneratorConfig.from_dict(data | {"attention": True})
    with pytest.raises(ValueError, match="incomplete"):
        GeneratorConfig.from_dict({name: value for name, value in data.items() if name != "size"})
    with pytest.raises(ValueError, match="incomplete"):
        GeneratorConfig.from_dict(data | {"size": "32"})


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match="tiny-32"):
        get_preset("huge")


@pytest.mark.parametrize(("count", "millions"), [(1, 17.7), (10, 17.7), (100, 17.8), (1000, 19.1)])
def test_parameter_count_of_table_1(count, millions):
    with torch.device("meta"):
        generator = MemoryGAN(with_part_count(get_preset("paper-256").generator, count))
    assert round(sum(p.numel() for p in generator.parameters()) / 1e6, 1) == millions


# --- Layers ---------------------------------------------------------------------------------------------------------


def zero_insertion(x: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) → (B, C, 2H, 2W) with zeros right of and below every value."""
    big = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype)
    big[..., ::2, ::2] = x
    return big


def blur(x: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """Convolution of every channel with the [1, 3, 3, 1] kernel of sum 4."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
    kernel = (torch.outer(taps, taps) / 64 * 4)[None, None]
    padded = F.pad(x, (before, after, before, after))
    return F.conv2d(padded.flatten(0, 1)[:, None], kernel).unflatten(0, x.shape[:2])[:, :, 0]


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 2, 8, 8), (1, 1, 3, 5)])
def test_upsample_is_zero_insertion_and_blur(shape):
    x = torch.randn(shape, dtype=torch.float64)
    assert close(upsample(x), blur(zero_insertion(x), 2, 1), 1e-12)


@pytest.mark.parametrize("activation", [True, False])
def test_up_convolution_equals_convolution_of_the_enlarged_map(activation):
    layer = ConstantStyleConv(3, 5, 3, up=True, activation=activation, noise_size=12).double().eval()
    randomise(layer)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    weight = layer.weight * layer.modulation.view(1, -1, 1, 1) / math.sqrt(27)
    weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
    enlarged = F.pad(zero_insertion(x)[..., :-1, :-1], (2, 2, 2, 2))  # the last zeros belong to no value
    assert layer.noise_strength is not None
    y = blur(F.conv2d(enlarged, weight.flip(2, 3)), 1, 1) + layer.noise_strength * layer.get_buffer("noise")
    y = y + layer.bias.view(1, -1, 1, 1)
    expected = F.leaky_relu(y, 0.2) * math.sqrt(2) if activation else y
    assert close(layer(x), expected, 1e-7)


def test_demodulated_filters_have_unit_norm():
    layer = ConstantStyleConv(7, 4, 3)
    randomise(layer)
    weight, _ = layer.folded()
    assert close(weight.square().sum(dim=(1, 2, 3)), torch.full((4,), 2.0), 1e-4)  # gain √2 squared


def test_noise_is_drawn_anew_in_training_and_fixed_otherwise():
    layer = ConstantStyleConv(2, 2, 3, noise_size=4)
    randomise(layer)
    x = torch.randn(1, 2, 4, 4)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_equalised_linear_scales_at_run_time():
    layer = EqualLinear(16, 4, lr_multiplier=0.01, bias=0.5, activation=True)
    x = torch.randn(3, 16)
    expected = F.leaky_relu(x @ (layer.weight * 0.01 / 4).T + layer.bias * 0.01, 0.2) * math.sqrt(2)
    assert close(layer(x), expected)
    assert close(layer.bias * 0.01, torch.full((4,), 0.5))


def test_pixel_norm_gives_unit_second_moment():
    assert close(pixel_norm(5 * torch.randn(4, 32)).square().mean(dim=-1), torch.ones(4))


def test_coordinate_grid_follows_its_stated_order():
    grid = coordinate_grid(5, 3)
    assert grid.shape == (25, 14)
    x, y = -0.5, 1.0  # column 1, row 4
    expected = [x, y]
    for octave in (1, 2, 4):
        expected += [math.sin(octave * x), math.sin(octave * y), math.cos(octave * x), math.cos(octave * y)]
    assert close(grid[4 * 5 + 1], torch.tensor(expected))


# --- Controller -----------------------------------------------------------------------------------------------------


def test_kl_and_likelihood_match_hand_computed_values():
    codes = QueryCodes(
        codes=torch.tensor([[[1.0, 0.0]]]),
        mean=torch.tensor([[[2.0, 0.0]]]),
        log_variance=torch.tensor([[[math.log(4.0), 0.0]]]),
    )
    # KL(N(2, 4) ‖ N(0, 1)) = (4 + 4 − 1 − ln 4) / 2; the second dimension is the unit Gaussian itself.
    assert codes.kl_to_unit_gaussian().item() == pytest.approx((7 - math.log(4)) / 2, rel=1e-6)
    # ln N(1; 2, 4) = −(1/4 + ln 4 + ln 2π) / 2; ln N(0; 0, 1) = −ln(2π) / 2.
    wanted = -(0.25 + math.log(4) + math.log(2 * math.pi)) / 2 - math.log(2 * math.pi) / 2
    assert codes.log_likelihood().item() == pytest.approx(wanted, rel=1e-6)


def test_teacher_forcing_agrees_with_sampling(model):
    noise = torch.randn(3, 14, TINY.query_dim)
    sampled = model.controller(noise)
    given = model.controller.condition(sampled.codes)
    assert close(given.mean, sampled.mean) and close(given.log_variance, sampled.log_variance)
    assert torch.equal(given.codes, sampled.codes)
    assert close((sampled.codes - sampled.mean) / (0.5 * sampled.log_variance).exp(), noise, 1e-4)
    assert sampled.codes.shape == (3, 14, 16)


def test_a_part_depends_on_the_parts_before_it_alone(model):
    noise = torch.randn(1, 14, TINY.query_dim)
    changed = noise.clone()
    changed[:, 6] += 1.0  # part 5
    before, after = model.controller(noise), model.controller(changed)
    same = (before.mean == after.mean).all(dim=-1)[0]
    assert same[:7].all() and not same[7:].any()


def test_controller_refuses_other_shapes(model):
    with pytest.raises(ValueError, match=r"\(B, 14, 16\), got \(2, 13, 16\)"):
        model.controller(torch.zeros(2, 13, 16))


# --- Latent codes ---------------------------------------------------------------------------------------------------


def test_expansion_gives_base_layers_to_the_foreground_alone():
    w = torch.randn(2, 14, TINY.style_dim)
    latents = PartLatents(w).expand(TINY)
    for part in range(13):
        for layer in range(10):
            slot = 0 if part > 0 and layer < 2 else 1 + part
            assert torch.equal(latents.w[:, part, layer], w[:, slot])


def test_truncation_ends(model):
    full, mean = model.sample([3]), model.sample([3], truncation=0.0)
    assert torch.equal(model.sample([3], truncation=1.0).w, full.w)
    assert torch.equal(mean.w, model.mean_latents.expand(TINY).w)
    assert close(model.sample([3], truncation=0.5).w, (full.w + mean.w) / 2)
    assert not close(full.w, mean.w, 1e-2)


def test_layer_rules_of_section_4_5():
    latents = PartLatents(torch.zeros(1, 14, TINY.style_dim)).expand(TINY)
    layers = {
        name: latents.selection([name])[FACE_PARTS.index(name)].nonzero().flatten().tolist()
        for name in FACE_PARTS.names
    }
    assert layers["background"] == list(range(10))
    for name in ("skin", "hair"):
        assert layers[name] == list(range(2, 10))
    for name in ("eyes", "eyebrows", "mouth", "nose"):
        assert layers[name] == list(range(1, 10))
    assert latents.selection(["hair"], [LayerGroup.TEXTURE])[7].nonzero().flatten().tolist() == [6, 7, 8, 9]
    assert latents.selection(["hair"], ["shape"]).sum() == 4
    with pytest.raises(ValueError, match="unknown layer group"):
        latents.selection(["hair"], ["colour"])
    with pytest.raises(ValueError, match="unknown part 'moustache'"):
        latents.selection(["moustache"])


@pytest.mark.parametrize("amount", [1.0, 0.3])
def test_mixing_leaves_unselected_codes_bit_identical(faces, amount):
    a, b = faces[:1], faces[1:]
    mixed = a.mix(b, ["nose", "hair"], amount=amount)
    chosen = a.selection(["nose", "hair"])
    assert torch.equal(mixed.w[:, ~chosen], a.w[:, ~chosen])
    assert close(mixed.w[:, chosen], a.w[:, chosen].lerp(b.w[:, chosen], amount))
    assert not close(mixed.w[:, chosen], a.w[:, chosen], 1e-3)


def test_interpolation_ends(faces):
    a, b = faces[:1], faces[1:]
    assert torch.equal(a.lerp(b, 0.0).w, a.w) and torch.equal(a.lerp(b, 1.0).w, b.w)
    assert a.lerp(b, 0.5).shared_base


def test_mixing_notices_when_base_layers_differ(model, faces):
    a, b = faces[:1], faces[1:]
    assert a.mix(b, ["hair"]).shared_base  # shape and texture only
    nose = a.mix(b, ["nose"])  # takes a base layer along
    assert not nose.shared_base
    assert close(model.synthesize(nose).image, model.synthesize(replace(nose, shared_base=False)).image)


def test_latents_of_another_generator_are_refused(faces):
    with pytest.raises(ValueError, match=r"\(B, 13, 10, 32\), got \(1, 12, 10, 32\)"):
        Latents(faces.w[:1, :12], TINY)
    other = replace(TINY, style_dim=16)
    with pytest.raises(ValueError, match="different generators"):
        faces.mix(Latents(torch.zeros(1, 13, 10, 16), other), ["hair"])


# --- Memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [None, [0, 3, 7], [5, 0, 2, 9], [4, 6, 8]])
def test_shared_base_layers_equal_the_general_path(model, faces, parts):
    fast, slow = model.retrieve(faces, parts), model.retrieve(replace(faces, shared_base=False), parts)
    assert close(fast.hidden, slow.hidden) and close(fast.depth, slow.depth)


def test_memory_equals_one_part_at_a_time_by_the_formula(model, faces):
    """Eq. 12 written out: modulate, demodulate, multiply, add, leaky ReLU with gain √2."""
    memory, part, retrieved = model.memory, 7, model.retrieve(faces)
    x = memory.grid @ (memory.position / math.sqrt(memory.position.shape[1])).T
    for layer in range(TINY.local_layers):
        code = faces.w[0, part, layer] / math.sqrt(TINY.style_dim)
        style = memory.style_weight[layer] @ code + memory.style_bias[layer]
        weight = memory.weight[layer] / math.sqrt(TINY.local_channels) * style
        weight = weight / (weight.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
        x = F.leaky_relu(x @ weight.T + memory.bias[layer], 0.2) * math.sqrt(2)
        if layer == 5:
            head = memory.to_depth
            depth = x @ (head.weight.flatten() * head.modulation) / math.sqrt(TINY.local_channels) + head.bias
            assert close(retrieved.depth[0, part], depth)
    assert close(retrieved.hidden[0, part], x)
    assert not retrieved.depth[:, 0].any()


def test_one_part_query_updates_a_full_retrieval(model, faces):
    edited = faces.mix(faces[[1, 0]], ["mouth"])
    full = model.retrieve(edited)
    updated = model.retrieve(faces).with_parts([4], model.retrieve(edited, ["mouth"]))
    assert close(updated.hidden, full.hidden) and close(updated.depth, full.depth)
    assert not close(model.retrieve(faces).hidden[:, 4], full.hidden[:, 4], 1e-3)


def test_order_of_queried_parts_is_kept(model, faces):
    full, some = model.retrieve(faces), model.retrieve(faces, ["hair", 0, "nose"])
    assert close(some.hidden, full.hidden[:, [7, 0, 5]]) and close(some.depth, full.depth[:, [7, 0, 5]])


# --- Composition ----------------------------------------------------------------------------------------------------


def test_fusing_before_projection_is_equation_6():
    memory = MemoryGAN(TINY).memory.double()
    randomise(memory)
    hidden, depth = torch.randn(2, 13, 256, 8).double(), torch.randn(2, 13, 256).double()
    fused = fuse(Retrieved(hidden, depth), memory, TINY.parts.transparent)
    mask = depth.exp() / depth.exp().sum(dim=1, keepdim=True)  # Eq. 5
    features = [memory.project(hidden[:, k], torch.ones(2, 256)) for k in range(13)]
    solid = sum(mask[:, k] for k in range(13) if k not in (10, 12))
    expected = torch.zeros(2, 256, 16).double()
    for k in range(13):
        weight = mask[:, k] if k in (10, 12) else mask[:, k] / (solid + 1e-8)
        expected += weight[..., None] * features[k]
    assert close(fused.feature, expected.transpose(1, 2).unflatten(2, (16, 16)), 1e-7)
    assert close(fused.coarse_mask, mask.unflatten(2, (16, 16)), 1e-12)


@pytest.mark.parametrize("parts", [None, [0, 3, 12]])
def test_a_projection_left_to_the_render_net_gives_the_same_faces_and_gradients(parts):
    """Three parts that are present, one of them transparent: the weights do not sum to 1, and the bias follows them."""
    generator = MemoryGAN(replace(TINY, coarse_channels=48, noise=False))
    randomise(generator)
    codes = torch.randn(2, 14, 16)
    present = generator._present(parts)
    found = []
    for project in (True, False):
        generator.zero_grad()
        latents = generator.map(codes).expand(generator.config)
        fused = fuse(generator.retrieve(latents), generator.memory, TINY.parts.transparent, present, project)
        assert fused.feature.shape[1] == (48 if project else 16)
        image, mask = generator.render(fused)
        (image.square().sum() + (mask * image.mean(dim=1, keepdim=True)).sum()).backward()
        gradients = {name: p.grad for name, p in generator.named_parameters() if p.grad is not None}
        found.append((image, mask, gradients))
    (image, mask, gradients), (narrow_image, narrow_mask, narrow_gradients) = found
    assert close(narrow_image, image, 1e-4) and close(narrow_mask, mask, 1e-4)
    assert gradients.keys() == narrow_gradients.keys() and "memory.to_feature.bias" in gradients
    for name, gradient in gradients.items():
        tolerance = 1e-4 * float(gradient.abs().max()) + 1e-9
        torch.testing.assert_close(narrow_gradients[name], gradient, rtol=1e-3, atol=tolerance)
    latents = generator.map(codes).expand(generator.config)
    assert torch.equal(generator.synthesize(latents, parts).image, narrow_image)  # in training
    assert torch.equal(generator.eval().synthesize(latents, parts).image, image)


def test_a_projection_that_is_not_wider_is_done_first():
    memory = MemoryGAN(TINY).memory  # 8 + 1 channels, rounded up to 16, for a feature of 16
    assert memory.unprojected(torch.zeros(1, 13, 256, 8), torch.zeros(1, 13, 256)) is None


def test_projection_is_the_stated_linear_map():
    memory = MemoryGAN(TINY).memory
    randomise(memory)
    head, hidden = memory.to_feature, torch.randn(5, 8)
    expected = hidden @ (head.weight[:, :, 0, 0] * head.modulation / math.sqrt(8)).T + head.bias
    assert close(memory.project(hidden, torch.ones(5)), expected)


def test_masks_of_present_parts_sum_to_one():
    depth = 3 * torch.randn(2, 4, 9)
    assert close(coarse_mask(depth).sum(dim=1), torch.ones(2, 9))
    some = coarse_mask(depth, torch.tensor([1.0, 0.0, 1.0, 0.0]))
    assert close(some.sum(dim=1), torch.ones(2, 9)) and not some[:, [1, 3]].any()
    weights = feature_weights(coarse_mask(depth), (3,))
    assert close(weights[:, :3].sum(dim=1), torch.ones(2, 9))
    assert torch.equal(weights[:, 3], coarse_mask(depth)[:, 3])


def levels(model: MemoryGAN, latents: Latents) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Eq. 7 written out: image and mask of every render level, each head on its own."""
    fused = fuse(model.retrieve(latents), model.memory, TINY.parts.transparent)
    x, image, mask, found = F.avg_pool2d(fused.feature, 2), None, None, {}
    for side, module in zip((8, 16), model.render.blocks, strict=True):
        block = cast(RenderBlock, module)
        x = block.conv(block.up(torch.cat((x, fused.feature), dim=1) if side == 16 else x))
        image = block.to_rgb(x) + (0 if image is None else blur(zero_insertion(image), 2, 1))
        mask = block.to_mask(x) + (0 if mask is None else blur(zero_insertion(mask), 2, 1))
        mask = mask + (2 * fused.coarse_mask - 1 if 2 * side == 16 else 0)
        found[2 * side] = (image, mask)
    return found


@pytest.mark.parametrize(("size", "level"), [(8, 16), (16, 16), (32, 32), (None, 32)])
def test_preview_is_the_lower_level_image(model, faces, size, level):
    image, mask = levels(model, faces)[level]
    face = model.synthesize(faces, size=size)
    assert face.image.shape == (2, 3, level, level) and face.mask.shape == (2, 13, level, level)
    assert close(face.image, image) and close(face.mask, mask)


@pytest.mark.parametrize("size", [-3, 0, 4, 24, 64])
def test_a_size_that_the_render_net_does_not_pass_is_refused(model, faces, size):
    with pytest.raises(ValueError, match=f"cannot be drawn at {size} pixels; use one of 8, 16, 32"):
        model.synthesize(faces, size=size)
    with pytest.raises(ValueError, match="use one of 8, 16, 32"):
        next(model.compose_sequence(faces, size=size))


def test_shapes_and_ranges(model, faces):
    face = model.synthesize(faces)
    assert face.image.shape == (2, 3, 32, 32) and face.image.dtype == torch.float32
    assert face.mask.shape == (2, 13, 32, 32)
    assert face.coarse_mask.shape == face.depth.shape == (2, 13, 16, 16)
    assert close(face.coarse_mask.sum(dim=1), torch.ones(2, 16, 16))
    assert face.part_map.shape == (2, 32, 32) and face.part_map.dtype == torch.int64
    assert face.latents is faces


def test_partial_composition_does_not_depend_on_order(model, faces):
    retrieved = model.retrieve(faces)
    one = model.compose(retrieved, faces, ["skin", "hair", "background"])
    two = model.compose(retrieved, faces, ["background", "skin", "hair"])
    assert torch.equal(one.image, two.image) and torch.equal(one.mask, two.mask)
    assert not one.coarse_mask[:, [2, 3, 4, 5, 6, 8, 9, 10, 11, 12]].any()
    with pytest.raises(ValueError, match="no part was chosen"):
        model.compose(retrieved, faces, [])


def test_absent_part_has_no_influence(model, faces):
    parts = [name for name in FACE_PARTS.names if name != "hair"]
    swapped = faces.mix(faces[[1, 0]], ["hair"])
    assert close(model.synthesize(faces, parts).image, model.synthesize(swapped, parts).image)
    assert not close(model.synthesize(faces).image, model.synthesize(swapped).image, 1e-2)


def test_sequence_ends_at_the_full_face(model, faces):
    full = model.synthesize(faces)
    order = ["hair", "background", "skin", *(n for n in FACE_PARTS.names if n not in ("hair", "background", "skin"))]
    plain, steps = list(model.compose_sequence(faces)), list(model.compose_sequence(faces, order))
    for last in (plain[-1], steps[-1]):
        assert close(last.image, full.image, 1e-4) and close(last.mask, full.mask, 1e-4)
    assert len(plain) == len(steps) == 13
    assert close(steps[1].image, model.synthesize(faces, ["background", "hair"]).image)
    with pytest.raises(ValueError, match="appears twice"):
        next(model.compose_sequence(faces, ["hair", "skin", 7]))


# --- Sampling -------------------------------------------------------------------------------------------------------


def test_a_seed_gives_one_face_whatever_the_batch(model):
    alone, batch = model.sample([7]), model.sample([3, 7, 11])
    assert close(batch.w[1:2], alone.w)
    assert close(model.synthesize(batch).image[1:2], model.synthesize(alone).image)
    assert torch.equal(model.sample([7]).w, alone.w)
    assert not close(batch.w[0:1], alone.w, 1e-2)


def test_temperature_zero_is_the_mode_for_every_seed(model):
    a, b = model.sample_queries([1], temperature=0.0), model.sample_queries([2], temperature=0.0)
    assert torch.equal(a.codes, b.codes) and torch.equal(a.codes, a.mean)


def test_mean_latents_are_the_mean_of_samples(model):
    codes = model.map(model.sample_queries(range(64)).codes).w
    assert close(model.mean_latents.w[0], codes.mean(dim=0))


def test_forward_is_the_sum_of_its_steps(model):
    noise = torch.randn(2, 14, TINY.query_dim)
    latents = model.map(model.controller(noise).codes).expand(TINY)
    face = model(noise)
    assert torch.equal(face.latents.w, latents.w)
    assert torch.equal(face.image, model.synthesize(latents).image)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_parts_works_and_learns(count):
    config = with_part_count(TINY, count)
    generator = MemoryGAN(config)
    face = generator(torch.randn(2, 1 + count, config.query_dim))
    assert face.mask.shape == (2, count, 32, 32)
    (face.image.square().mean() + face.mask.square().mean()).backward()
    idle: tuple[str, ...] = ()
    if count == 1:  # no foreground: no base code, no recurrence, no pseudo-depth
        idle = ("controller.base", "controller.lstm", "controller.out", "memory.to_depth")
    elif count == 2:  # one step, nothing to remember
        idle = ("controller.lstm.weight_hh",)
    for name, parameter in generator.named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.any())
        assert learns != name.startswith(idle), name


@pytest.mark.parametrize("name", ["faces-64", "faces-128"])
def test_trained_presets_render_at_their_size(name):
    config = get_preset(name).generator
    generator = MemoryGAN(config).eval()
    with torch.no_grad():
        face = generator.synthesize(generator.sample([0]))
    assert face.image.shape == (1, 3, config.size, config.size) and bool(face.image.isfinite().all())


@pytest.mark.parametrize(("seeds", "words"), [([], "no seed"), ([3, -1], "negative")])
def test_seeds_that_name_no_face_are_refused(seeds: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MemoryGAN(get_preset("tiny-32").generator).sample(seeds)
