"""The benchmarks run, their ratios mean what they say, and their pages keep what others wrote."""

from __future__ import annotations

from dataclasses import replace

import psutil
import pytest
import torch
from test_text import StandIns  # type: ignore[import-not-found]

from editing.service import EditingService
from editing.studies import benchmark as editing_benchmark
from editing.studies.benchmark import Speeds, untrained_assets, with_sliders
from memorygan.analysis import benchmark, speed
from memorygan.analysis.sections import with_section, write_section
from memorygan.analysis.speed import BARE, EDIT, FAST, PREVIEW, REFERENCE, RENDER, Agreement, Result
from memorygan.config import get_preset
from memorygan.fast.folding import FoldedConv, fold
from memorygan.training import benchmark as training_benchmark
from memorygan.training.benchmark import StageSpeed

# --- Pages ------------------------------------------------------------------------------------------------------------


def test_a_section_replaces_itself_and_nothing_else():
    page = with_section("# Page\n\nWritten by hand.\n", "inference/cpu", "first")
    page = with_section(page, "training/cpu", "second")
    page = with_section(page + "\nA last word.\n", "inference/cpu", "third")
    assert page.startswith("# Page\n\nWritten by hand.\n") and page.endswith("\nA last word.\n")
    assert "first" not in page
    assert page.index("third") < page.index("second")
    assert with_section("", "a", "b") == "<!-- begin a -->\nb\n<!-- end a -->\n"


def test_unusable_sections_are_refused():
    with pytest.raises(ValueError, match="lower-case"):
        with_section("", "Two words", "body")
    with pytest.raises(ValueError, match="<!-- end a -->"):
        with_section("<!-- begin a -->\nno end", "a", "body")


def test_a_new_page_gets_a_title(tmp_path):
    write_section(tmp_path / "docs" / "page.md", "a", "body", "Title")
    assert (tmp_path / "docs" / "page.md").read_text() == with_section("# Title\n", "a", "body")


# --- Inference --------------------------------------------------------------------------------------------------------


def test_every_path_is_timed_and_compared():
    result = speed.measure("tiny-32", 2, 2)
    for path in (*benchmark.EXPLANATIONS,):
        assert path == speed.GRAPH or len(result.seconds[path]) == 2
    assert result.preview_size == 16
    assert result.float32.largest_error < 1e-4
    assert result.fast.psnr >= 40.0
    assert result.milliseconds(FAST) > 0


def test_the_bare_convolutions_are_those_of_the_render_net(monkeypatch):
    folded = fold(speed.random_generator(get_preset("tiny-32").generator), torch.float32)
    shapes: list[tuple[int, ...]] = []
    for conv in (module for module in folded.modules() if isinstance(module, FoldedConv)):
        conv.register_forward_hook(lambda _, inputs, output: shapes.append(tuple(inputs[0].shape)))
    with torch.inference_mode():
        folded.synthesize(folded.sample([0]))
    bare: list[tuple[int, ...]] = []
    for name in ("conv2d", "conv_transpose2d"):
        monkeypatch.setattr(torch, name, lambda x, *rest, **more: bare.append(tuple(x.shape)))
    speed.bare_convolutions(folded, 1)()
    assert bare == shapes


def result(preset: str = "paper-256", fast: float = 1.5, edit: float = 1.04) -> Result:
    times = {REFERENCE: 8.0, FAST: fast, BARE: 1.0, EDIT: edit, RENDER: 1.0, PREVIEW: 0.2}
    agreement = Agreement(1e-5, 45.0, 0.99)
    return Result(preset, 1, torch.bfloat16, 64, {path: [t, 2 * t] for path, t in times.items()}, agreement, agreement)


def test_targets_are_judged_by_ratios_within_one_run():
    assert all(kept for _, _, kept in benchmark.targets(result(), "cpu"))
    kept = [kept for _, _, kept in benchmark.targets(result(fast=2.1, edit=1.06), "cpu")]
    assert kept == [True, True, False, False, False]
    assert len(benchmark.targets(result("faces-128"), "cpu")) == 2, "speed is promised for paper-256 alone"


def test_the_command_writes_its_section(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "resident_bytes", lambda preset: 123_000_000)
    page = tmp_path / "benchmarks.md"
    options = ["--preset", "tiny-32", "--batch", "1", "2", "--repeats", "2", "1", "--device", "cpu"]
    assert benchmark.main([*options, "--write", str(page)]) == 0
    printed, written = capsys.readouterr().out, page.read_text()
    assert "## tiny-32 on a CPU with" in printed
    assert f"<!-- begin inference/{benchmark.kind_of('cpu')}/tiny-32 -->" in written
    assert "median of 2 and 1 interleaved repeats" in written
    assert "0.12 GB" in written
    with pytest.raises(SystemExit):
        benchmark.main(["--batch", "1", "2", "--repeats", "1", "2", "3"])
    assert "give one, or one each" in capsys.readouterr().err


@pytest.mark.parametrize(("amx", "kind"), [(True, "cpu-amx"), (False, "cpu")])
def test_figures_with_and_without_amx_stand_side_by_side(monkeypatch, amx, kind):
    monkeypatch.setattr(benchmark, "cpu_has", lambda name: amx)
    assert benchmark.kind_of("cpu") == kind and kind in benchmark.HEADINGS
    assert benchmark.kind_of("cuda:0") == "cuda"


@pytest.mark.slow
def test_a_face_of_the_paper_takes_less_than_one_and_a_half_gigabytes():
    assert speed.resident_bytes("paper-256") < 1.5e9


# --- Training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("recipe", "stage"), [("memory-first", "query"), ("paper", "paper")])
def test_a_stage_is_measured(recipe, stage):
    found = training_benchmark.measure_stage(recipe, stage, "tiny-32", 4, 1, "cpu")
    assert found.images_per_second > 0 and found.plain_images_per_second > 0
    assert 0.0 < found.outside_matrix_units < 1.0
    assert found.shared is not None and found.shared > 0


def test_busy_processes_end_with_the_block():
    with training_benchmark.busy_processes(2):
        ours = [child for child in psutil.Process().children() if "while True" in " ".join(child.cmdline())]
        assert len(ours) == 2
    assert not any(child.is_running() for child in ours)


def test_the_training_command_writes_a_section_per_preset(tmp_path, capsys):
    page = tmp_path / "benchmarks.md"
    options = ["--preset", "tiny-32", "--stage", "fill", "--batch", "2", "--repeats", "1", "--device", "cpu"]
    assert training_benchmark.main([*options, "--write", str(page)]) == 0
    assert "| memory-first, fill |" in capsys.readouterr().out
    begin = f"<!-- begin training/{benchmark.kind_of('cpu')}/tiny-32 -->"
    assert f"{begin}\n## Training, tiny-32, on a CPU with" in page.read_text()
    with pytest.raises(SystemExit):
        training_benchmark.main(["--batch", "3"])
    assert "batch is even" in capsys.readouterr().err


def test_the_report_names_the_stages_that_fall_short():
    speeds = [
        StageSpeed("memory-first", "fill", "faces-64", 50.0, 10.0, 0.4),
        StageSpeed("memory-first", "query", "faces-64", 10.0, 10.0, 0.4),
        StageSpeed("memory-first", "real", "faces-64", 30.0, 10.0, 0.4),
    ]
    text = training_benchmark.report(speeds, 16, 5, ["a machine"], "cuda")
    assert text.startswith("## Training, faces-64, on a GPU\n\n- a machine\n")
    assert "| memory-first, fill | 50.0 | 10.0 | 5.0 | 40 % | – |" in text and "busy process:" not in text
    assert text.endswith("**not reached** by real (3.0).")
    assert "reached by every stage" in training_benchmark.report(speeds[:2], 16, 5, [])
    shared = [replace(speeds[0], shared=2.0), replace(speeds[0], stage="paper", shared=7.5)]
    text = training_benchmark.report(shared, 16, 5, [])
    assert "| 2.00 times as long |" in text
    assert text.index("Target, at most 2.2 times: **missed** by paper (7.50).") < text.index("Target, 4 times")


# --- Editing ----------------------------------------------------------------------------------------------------------


def test_waiting_times_of_an_untrained_service():
    assets = with_sliders(untrained_assets("tiny-32", torch.device("cpu")))
    with EditingService(assets, detector=lambda pixels: []) as service:
        speeds = editing_benchmark.measure(service, 2)
    assert set(speeds.milliseconds) == {"preview", "full", "face", "invert"}
    assert all(value > 0 for value in speeds.milliseconds.values())
    assert set(speeds.missing) == {"text"}, "no judge was given"
    assert speeds.previews == 16
    assert speeds.alone > 0 and speeds.together > 0


def test_the_editing_report():
    speeds = Speeds(128, 64, {"preview": 12.3, "full": 45.6, "face": 7.8}, {"text": "no judge."}, 2.0, 1.0, 80)
    text = editing_benchmark.report("faces-128", speeds, 10, ["a machine"], "")
    assert "| Slider moved: picture of 64 pixels | 12 | 60, reached |" in text
    assert "| One step of an edit by a sentence | not measured | 200 |" in text
    assert "| all at once | 12.5 |" in text and "2.00 times as fast" in text
    assert "every 100 ms" in text
    assert "Not measured: one step of an edit by a sentence: no judge." in text
    assert "CUDA" not in text
    slow = editing_benchmark.report("x", replace(speeds, milliseconds={"full": 121.0}), 10, [], "")
    assert "| 121 | 120, **not reached** |" in slow
    card = editing_benchmark.report("x", replace(speeds, device="cuda", long_edit=12.5), 10, [], "")
    assert "| 12 | 60 |" in card, "that one is promised for a processor"
    assert "Promised on CUDA: 3 times, **not reached**." in card
    assert "256 pixels: 12.5 s; promised on CUDA: 12 s, **not reached**." in card


def test_a_whole_edit_by_a_sentence_is_timed():
    assets = with_sliders(untrained_assets("tiny-32", torch.device("cpu")))
    with EditingService(assets, guides=StandIns()) as service:
        assert editing_benchmark.long_edit(service, 3) > 0
        assert service.health()["timings"]["step"]["count"] >= 5, "three steps, and two before the clock ran"


def test_impossible_options_are_refused(capsys):
    with pytest.raises(SystemExit):
        editing_benchmark.main(["--repeats", "1"])
    assert "repeats is at least 2" in capsys.readouterr().err
    assert editing_benchmark.main(["--device", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err
