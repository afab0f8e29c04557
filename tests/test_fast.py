"""The fast path against the formulas written out, and what it must not change."""

from __future__ import annotations

import copy
from typing import cast

import pytest
import torch

from memorygan.analysis.speed import agreement
from memorygan.baseline import SemanticStyleGAN
from memorygan.composition import RenderBlock, fuse
from memorygan.config import get_preset
from memorygan.fast import graphs, hardware, pieces
from memorygan.fast.folding import FoldedBlock, FoldedConv, fold
from memorygan.fast.hardware import best_dtype, cpu_has
from memorygan.fast.reference import reference_synthesis
from memorygan.generator import ComposedGenerator, MemoryGAN, Synthesis
from memorygan.latents import Latents
from memorygan.layers import ConstantStyleConv

FIELDS = ("image", "mask", "coarse_mask", "depth")


def randomised(generator: ComposedGenerator) -> ComposedGenerator:
    """Every parameter that starts at 0 or 1 gets another value, so that forgetting it shows."""
    with torch.no_grad():
        for name, value in generator.named_parameters():
            if name.endswith(("bias", "modulation", "noise_strength")):
                value.add_(0.3 * torch.randn_like(value))
    return generator.eval()


@pytest.fixture(scope="module", params=["tiny-32", "faces-64"])
def model(request) -> MemoryGAN:
    torch.manual_seed(3)
    generator = randomised(MemoryGAN(get_preset(request.param).generator))
    assert isinstance(generator, MemoryGAN)
    return generator


@pytest.fixture(scope="module")
def tiny() -> MemoryGAN:
    torch.manual_seed(4)
    generator = randomised(MemoryGAN(get_preset("tiny-32").generator))
    assert isinstance(generator, MemoryGAN)
    return generator


@pytest.fixture
def faces(model) -> Latents:
    with torch.no_grad():
        return model.sample([1, 2, 3])


def largest_difference(a: Synthesis, b: Synthesis) -> float:
    for name in FIELDS:
        assert getattr(a, name).shape == getattr(b, name).shape
        assert getattr(a, name).dtype == torch.float32
    return max(float((getattr(a, name) - getattr(b, name)).abs().max()) for name in FIELDS)


# --- The same faces -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 3)], ids=["one face", "three faces"])
@pytest.mark.parametrize(
    "choice", [{}, {"size": 32}, {"parts": ["background", "skin", "eyeglass", "hat"]}], ids=["whole", "preview", "some"]
)
@torch.no_grad()
def test_both_float32_paths_match_the_formulas(model, faces, rows, choice):
    expected = reference_synthesis(model, faces[rows], **choice)
    assert largest_difference(model.synthesize(faces[rows], **choice), expected) < 1e-4
    assert largest_difference(fold(model, torch.float32).synthesize(faces[rows], **choice), expected) < 1e-4


@torch.no_grad()
def test_codes_that_differ_per_layer_and_part_match_too(tiny):
    latents = tiny.sample([5]).with_w(torch.randn(2, 13, 10, tiny.config.style_dim))
    expected = reference_synthesis(tiny, latents)
    assert largest_difference(fold(tiny, torch.float32).synthesize(latents), expected) < 1e-4


@torch.no_grad()
def test_bfloat16_is_exact_enough_for_pictures(model, faces):
    folded = fold(model, torch.bfloat16)
    assert folded.retrieve(faces).hidden.dtype == torch.bfloat16
    close = agreement(folded.synthesize(faces), reference_synthesis(model, faces))
    assert close.psnr >= 40.0
    assert close.same_part > 0.97
    assert close.largest_error > 1e-4  # or it was not bfloat16


@torch.no_grad()
def test_the_baseline_folds_as_well():
    torch.manual_seed(6)
    generator = randomised(SemanticStyleGAN(get_preset("tiny-32").generator))
    latents = generator.sample([1, 2])
    folded = fold(generator, torch.float32)
    assert isinstance(folded, SemanticStyleGAN)
    assert largest_difference(folded.synthesize(latents), generator.synthesize(latents)) < 1e-4


@torch.no_grad()
def test_an_edit_asks_for_one_part_and_gives_the_same_face(tiny):
    folded, hair = fold(tiny, torch.float32), tiny.config.parts.index("hair")
    before, other = folded.sample([1]), folded.sample([2])
    after = before.mix(other, ["hair"])
    edited = folded.retrieve(before).with_parts([hair], folded.retrieve(after, ["hair"]))
    assert largest_difference(folded.compose(edited, after), folded.synthesize(after)) < 1e-5
    assert largest_difference(folded.compose(edited, after), folded.synthesize(before)) > 1e-3


@pytest.mark.parametrize("batch", [1, 2])
@torch.no_grad()
def test_the_fused_feature_is_laid_out_channels_last(tiny, batch):
    latents = tiny.sample(range(batch))
    feature = fuse(tiny.retrieve(latents), tiny.memory, ()).feature
    channels, side = feature.shape[1], feature.shape[2]
    # All four, that of a batch of one too: later layers read the layout from them.
    assert feature.stride() == (channels * side * side, 1, channels * side, channels)


# --- Folding --------------------------------------------------------------------------------------------------------


def test_the_original_stays_as_it_is(tiny):
    before = copy.deepcopy(tiny.state_dict())
    folded = fold(tiny)
    assert isinstance(tiny.render.blocks[0], RenderBlock) and isinstance(folded.render.blocks[0], FoldedBlock)
    assert tiny.compute_dtype == torch.float32
    assert all(parameter.requires_grad for parameter in tiny.parameters())
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())
    shared = {t.data_ptr() for t in tiny.state_dict().values()} & {t.data_ptr() for t in folded.state_dict().values()}
    assert not shared


def test_nothing_is_left_to_train_and_training_mode_is_over(tiny):
    folded = fold(copy.deepcopy(tiny).train())
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_noise_without_effect_is_left_out_and_other_noise_stays_fixed():
    conv = ConstantStyleConv(4, 4, 3, noise_size=8)
    assert conv.noise_strength is not None
    assert FoldedConv(conv, torch.float32).noise is None
    with torch.no_grad():
        conv.noise_strength.fill_(0.5)
        folded, x = FoldedConv(conv.eval(), torch.float32), torch.randn(1, 4, 8, 8)
        assert folded.noise is not None
        torch.testing.assert_close(folded(x), conv(x))


@pytest.mark.parametrize("born_in_inference_mode", [False, True])
def test_gradients_reach_the_codes_as_in_the_original(tiny, born_in_inference_mode):
    with torch.inference_mode(born_in_inference_mode):
        folded = fold(tiny, torch.float32)
    with torch.no_grad():
        latents = tiny.sample([1, 2])
    gradients = []
    for generator in (tiny, folded):
        w = latents.w.clone().requires_grad_()
        synthesis = generator.synthesize(latents.with_w(w, shared_base=True))
        (synthesis.image.square().mean() + synthesis.mask.square().mean()).backward()
        gradients.append(w.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-6)


def test_what_cannot_be_folded_is_refused(tiny):
    with pytest.raises(ValueError, match="float16"):
        fold(tiny, torch.float16)
    with pytest.raises(ValueError, match="folded already"):
        fold(fold(tiny))


# --- Choosing arithmetic --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has", "fast", "expected"),
    [
        ({"avx512_bf16"}, True, torch.bfloat16),
        ({"avx512_bf16"}, False, torch.float32),
        ({"avx512_bf16", "amx_tile"}, False, torch.bfloat16),
        ({"avx512_f"}, True, torch.float32),
    ],
)
def test_bfloat16_is_taken_where_it_pays(monkeypatch, tiny, has, fast, expected):
    """Where it is emulated nothing is timed, and neither with AMX."""
    seconds = {torch.float32: 1.0, torch.bfloat16: 0.5 if fast else 2.0}
    monkeypatch.setattr(hardware, "cpu_has", has.__contains__)
    monkeypatch.setattr(hardware, "_seconds", seconds.__getitem__)
    hardware.bfloat16_pays.cache_clear()
    try:
        assert best_dtype("cpu") == best_dtype(torch.device("cpu")) == expected
        assert fold(tiny).compute_dtype == expected
        assert hardware.cpu_autocast()._enabled == (expected == torch.bfloat16)
    finally:
        hardware.bfloat16_pays.cache_clear()
    assert best_dtype("mps") == torch.float32


def test_a_product_is_timed():
    assert 0 < hardware._seconds(torch.float32) < 1


def test_older_versions_of_torch_are_asked_their_way(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert cpu_has("avx512_bf16") and not cpu_has("amx_tile")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not cpu_has("avx512_bf16")


# --- Large batches in pieces ----------------------------------------------------------------------------------------


def test_pieces_cover_a_batch_in_order(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)
    assert [(row.start, row.stop) for row in pieces.pieces(5, 400)] == [(0, 2), (2, 4), (4, 5)]
    assert [(row.start, row.stop) for row in pieces.pieces(2, 5000)] == [(0, 1), (1, 2)]


@pytest.mark.parametrize("faces", [1, 2])
@torch.no_grad()
def test_pieces_make_the_same_faces(monkeypatch, tiny, faces):
    latents, folded = tiny.sample(range(5)), fold(tiny, torch.float32)
    expected = folded.synthesize(latents)
    seen: dict[str, list[int]] = {"memory": [], "render": []}
    folded.memory.memory.register_forward_hook(lambda _, inputs, output: seen["memory"].append(len(inputs[0])))
    folded.render.blocks[0].up.register_forward_hook(lambda _, inputs, output: seen["render"].append(len(inputs[0])))
    expected_pieces = {1: [1] * 5, 2: [2, 2, 1]}[faces]
    # Bytes of a face in the memory (parts, points, channels) and in the render net (channels, pixels), float32.
    for room, per_face in (("memory", 13 * 256 * 8 * 4), ("render", max(16 * 17**2, 8 * 33**2) * 4)):
        seen[room].clear()
        monkeypatch.setattr(pieces, "PIECE_BYTES", faces * per_face)
        assert largest_difference(folded.synthesize(latents), expected) < 1e-5
        assert seen[room] == expected_pieces


# --- CUDA graphs ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_without_a_gpu_there_is_a_warning_and_no_graph(tiny):
    with pytest.warns(UserWarning, match="GPU"):
        folded = fold(tiny, torch.float32, graph=True)
    latents = tiny.sample([1])
    assert largest_difference(folded.synthesize(latents), tiny.synthesize(latents)) < 1e-4


@torch.no_grad()
def test_graphed_rooms_run_as_usual_off_the_gpu(tiny):
    folded, latents = fold(tiny, torch.float32), tiny.sample([1, 2])
    expected, preview = folded.synthesize(latents), folded.synthesize(latents, size=16)
    folded.memory, folded.render = graphs.GraphedMemory(folded.memory), graphs.GraphedRender(folded.render)
    assert largest_difference(folded.synthesize(latents), expected) == 0.0
    assert largest_difference(folded.synthesize(latents, size=16), preview) == 0.0


class OnGpu:
    """What :class:`graphs.Recordings` looks at in a tensor, as a GPU would show it."""

    is_cuda, dtype, device = True, torch.bfloat16, "cuda:0"

    def __init__(self, *shape: int, requires_grad: bool = False) -> None:
        self.shape, self.requires_grad = shape, requires_grad

    def stride(self) -> tuple[int, ...]:
        return tuple(reversed(self.shape))


def on_gpu(*shape: int, requires_grad: bool = False) -> tuple[torch.Tensor]:
    return (cast(torch.Tensor, OnGpu(*shape, requires_grad=requires_grad)),)


@pytest.fixture
def recorded(monkeypatch) -> list[str]:
    """What happened to functions: "record", "replay" or, by the functions themselves, "run"."""
    events: list[str] = []

    class Recording:
        def __init__(self, function, inputs) -> None:
            events.append("record")

        def replay(self, inputs):
            events.append("replay")
            return ()

    monkeypatch.setattr(graphs, "Recording", Recording)
    return events


def test_a_function_is_recorded_once_for_equal_inputs(recorded):
    recordings = graphs.Recordings()

    def run(key: object, *shape: int) -> None:
        recordings.run(key, lambda _: recorded.append("run") or (), on_gpu(*shape))

    run("all", 1, 8)
    run("all", 1, 8)
    run("all", 2, 8)  # another batch size
    run("hair", 1, 8)  # another part
    assert recorded == ["record", "replay", "replay", "record", "replay", "record", "replay"]
    for batch in range(3, 3 + graphs.MAX_RECORDINGS):
        run("all", batch, 8)
    assert recorded.count("record") == graphs.MAX_RECORDINGS
    assert recorded.count("run") == 3, "beyond the limit functions run as usual"


def test_gradients_are_never_replayed(recorded):
    recordings, inputs = graphs.Recordings(), on_gpu(1, 8, requires_grad=True)
    recordings.run("all", lambda _: recorded.append("run") or (), inputs)
    assert recorded == ["run"]
    with torch.no_grad():
        recordings.run("all", lambda _: recorded.append("run") or (), inputs)
    assert recorded == ["run", "record", "replay"]


def test_where_recording_fails_functions_run_as_usual(recorded, monkeypatch):
    def fail(function, inputs):
        raise RuntimeError("capture is not possible here")

    monkeypatch.setattr(graphs, "Recording", fail)
    recordings = graphs.Recordings()
    with pytest.warns(UserWarning, match="capture is not possible here"):
        recordings.run("all", lambda _: recorded.append("run") or (), on_gpu(1, 8))
    recordings.run("all", lambda _: recorded.append("run") or (), on_gpu(1, 8))  # and does not try again
    assert recorded == ["run", "run"]


@pytest.mark.filterwarnings("error:recording a CUDA graph")
@torch.inference_mode()
def test_replayed_faces_equal_launched_ones(gpu, tiny):
    generator = copy.deepcopy(tiny).to("cuda")
    plain, graphed = fold(generator, torch.float32), fold(generator, torch.float32, graph=True)
    first, second = generator.sample([1]), generator.sample([2])
    shown = graphed.synthesize(first)
    graphed.synthesize(second)  # must not write over what was handed out
    assert largest_difference(shown, plain.synthesize(first)) < 1e-4
    assert largest_difference(graphed.synthesize(second, size=16), plain.synthesize(second, size=16)) < 1e-4
