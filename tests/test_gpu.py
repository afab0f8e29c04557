"""Everything that computes, on a GPU; where there is none, on a simulated one, which finds wrong devices."""

from __future__ import annotations

import copy
import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from simulated_gpu import DeviceError, OnGpu, any_gpu  # type: ignore[import-not-found]

import app.cli
import editing.sliders.fit
import editing.studies.benchmark
import memorygan.analysis.__main__
import memorygan.analysis.benchmark
import memorygan.training.__main__
import memorygan.training.benchmark
from editing.service import EditingService
from memorygan.config import get_preset
from memorygan.fast.folding import fold
from memorygan.generator import MemoryGAN
from memorygan.training.__main__ import main as train

simulated_only = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
SHORT = [
    *("--procedural", "24", "--preset", "tiny-32", "--batch", "4", "--precision", "float32"),
    *("--sheet-images", "0", "--metric-samples", "16"),
]
STAGES = {
    "memory-first": [
        *("--fill-images", "4", "--colour-images", "4", "--query-steps", "1", "--query-batch", "4"),
        *("--real-images", "4", "--correct-images", "4", "--dyed", "0.5"),
    ],
    "paper": ["--paper-images", "8", "--path-interval", "2", "--r1-interval", "2"],
}


# --- The simulation itself -------------------------------------------------------------------------------------------


@simulated_only
def test_the_simulation_computes_as_the_processor_does(gpu):
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    there = a.to("cuda").requires_grad_()
    product = there @ b.cuda()
    assert isinstance(product, OnGpu) and product.device == torch.device("cuda", 0) and product.is_cuda
    product.square().sum().backward()
    assert torch.equal(product.detach().cpu(), a @ b)
    assert there.grad is not None and torch.allclose(there.grad.cpu(), 2 * (a @ b) @ b.T)
    there.detach()[[0, 2]] = 7.0
    assert there.detach().cpu()[:, 0].tolist() == [7.0, float(a[1, 0]), 7.0]


@simulated_only
def test_the_simulation_refuses_what_cuda_refuses(gpu):
    there = torch.zeros(3, device="cuda")
    with pytest.raises(DeviceError, match="on one device"):
        there + torch.zeros(3)
    assert float((there + torch.tensor(1.0)).sum()) == 3.0, "a number is no tensor"
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(there)
    with pytest.raises(DeviceError, match="generator"):
        torch.randn(3, device="cuda", generator=torch.Generator())


@simulated_only
@pytest.mark.parametrize("copies", [lambda x: x.cpu(), lambda x: x[[0, 1]], lambda x: x.sum().item(), torch.nonzero])
def test_the_simulation_records_no_copies(gpu, copies):
    there, graph = torch.arange(4.0, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = (there * 2).view(2, 2)
        with pytest.raises(DeviceError, match="capturing"):
            copies(there)
    there += 1
    graph.replay()
    assert doubled.tolist() == [[2.0, 4.0], [6.0, 8.0]]


# --- The model -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error:recording a CUDA graph")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_face_is_the_same_as_on_the_processor(gpu, dtype):
    torch.manual_seed(3)
    here = MemoryGAN(get_preset("tiny-32").generator).eval().requires_grad_(False)
    here.update_mean_latents(64)
    there = copy.deepcopy(here).to("cuda")
    wanted = fold(here, dtype).synthesize(here.sample([1, 2], 0.7))
    made = fold(there, dtype, graph=True).synthesize(there.sample([1, 2], 0.7))
    assert made.image.is_cuda
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    assert float((made.image.cpu() - wanted.image).abs().max()) < tolerance * float(wanted.image.abs().max())


@pytest.mark.parametrize("recipe", list(STAGES))
def test_training_gives_what_it_gives_on_the_processor(recipe, tmp_path):
    asked = [*SHORT, *STAGES[recipe], "--recipe", recipe]
    assert train([*asked, "--device", "cpu", "--out", str(tmp_path / "cpu")]) == 0
    with any_gpu():
        assert train([*asked, "--device", "cuda", "--out", str(tmp_path / "cuda")]) == 0
    here, there = (load_file(tmp_path / device / "generator.safetensors") for device in ("cpu", "cuda"))
    assert here.keys() == there.keys()
    for name, value in here.items():
        assert torch.allclose(value.float(), there[name].float(), atol=2e-2, rtol=2e-2), name


# --- Editing ---------------------------------------------------------------------------------------------------------


def test_everything_one_can_do_with_a_face(gpu):
    with EditingService.open(device="cuda") as service:
        view, other = service.new_face(3), service.new_face(7)
        session = view.session
        assert service.health()["gpu_bytes"] > 0
        slider = service.sliders("hair")[0].id
        service.preview_sliders(session, {slider: 2.0})
        service.set_sliders(session, {slider: 1.0})
        service.preview_swap(session, other.session, ["nose"])
        service.swap(session, other.session, ["mouth"])
        service.blend(session, other.session, 0.3)
        service.apply_variant(session, service.variants(session, "eyes", 2, seed=1)[0])
        assert len(service.candidates(3, seed=1)) == 3 and len(service.compose(session)) == len(service.parts)
        service.undo(session)
        recipe = service.export_json(session)
        assert np.array_equal(service.open_recipe(recipe).image, service.view(session).image)
        last = list(service.describe(session, "a man with gray hair", steps=3, seed=0))[-1]
        assert last.phase == "done" and last.proposal is not None
        service.apply_description(session, last.proposal)

        stream = io.BytesIO()
        Image.fromarray(view.image).save(stream, "PNG")
        photo = service.open_photo(stream.getvalue())
        square = (0.0, 0.0, float(photo.width))
        rebuilt = list(service.invert(photo.photo, crop=square, steps=2, tune_steps=2))[-1]
        assert rebuilt.view is not None and rebuilt.error < 30


# --- Where there is none ----------------------------------------------------------------------------------------------


@simulated_only
@pytest.mark.parametrize(
    ("program", "more"),
    [
        (memorygan.analysis.__main__, ["samples"]),
        (memorygan.analysis.benchmark, []),
        (memorygan.training.__main__, ["--procedural", "24", "--out", "run"]),
        (memorygan.training.benchmark, []),
        (editing.studies.benchmark, []),
        (editing.sliders.fit, []),
        (app.cli, []),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_with_a_sentence(program, more, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = program.main([*more, "--device", "cuda"])
    except SystemExit as stopped:
        code = stopped.code
    assert code in (1, 2)
    assert "no usable NVIDIA GPU was found; use --device cpu" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- What measures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "more"),
    [
        (memorygan.analysis.benchmark, ["--batch", "2", "--repeats", "1"]),
        (memorygan.training.benchmark, ["--batch", "2", "--repeats", "1", "--stage", "fill"]),
        (editing.studies.benchmark, ["--repeats", "2"]),
    ],
)
def test_what_measures_speed_runs(gpu, program, more, tmp_path, monkeypatch):
    monkeypatch.setattr(editing.studies.benchmark, "LONG_PRESET", "tiny-32")
    monkeypatch.setattr(
        editing.studies.benchmark, "LargeJudge", partial(editing.studies.benchmark.AnyJudge, "bundled", "none")
    )
    monkeypatch.setattr(editing.studies.benchmark, "long_edit", partial(editing.studies.benchmark.long_edit, steps=2))
    page = tmp_path / "page.md"
    asked = ["--preset", "tiny-32", "--device", "cuda", *more, "--write", str(page)]
    assert program.main(asked) == 0
    assert "on a GPU" in page.read_text(encoding="utf-8")
