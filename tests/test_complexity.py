"""Table 1 of the paper, the counts behind it, and the study that shows them."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from memorygan.analysis import complexity
from memorygan.analysis.__main__ import STUDIES
from memorygan.analysis.lab import Lab, Settings
from memorygan.baseline import SemanticStyleGAN
from memorygan.checkpoint import GENERATORS, Provenance, save_generator
from memorygan.config import get_preset, with_part_count
from memorygan.generator import MemoryGAN

# As printed in Table 1: K, millions of parameters, thousand millions of MACs.
MEMORYGAN = [(1, "17.7", 103.4), (10, "17.7", 106.4), (100, "17.8", 136.3), (1000, "19.1", 435.4)]
SEMANTIC_STYLEGAN = [(1, "15.4"), (10, "19.0"), (100, "55.4"), (1000, "419.8")]


def paper(parts: int):
    return with_part_count(get_preset("paper-256").generator, parts)


@pytest.mark.parametrize(("parts", "parameters", "macs"), MEMORYGAN)
def test_the_papers_figures_come_out(parts, parameters, macs):
    row = complexity.measure("memorygan", paper(parts))
    assert row.parts == parts
    assert f"{row.parameters / 1e6:.1f}" == parameters
    assert row.paper_macs / 1e9 == pytest.approx(macs, rel=0.02)
    assert row.executed_macs < 0.5 * row.paper_macs


@pytest.mark.parametrize(("parts", "parameters"), SEMANTIC_STYLEGAN)
def test_the_baselines_figures_come_out(parts, parameters):
    assert f"{complexity.parameter_count('semanticstylegan', paper(parts)) / 1e6:.1f}" == parameters


def test_the_tables_own_copy_of_the_printed_figures():
    assert complexity.PAPER_PARAMETERS["memorygan"] == {k: float(p) for k, p, _ in MEMORYGAN}
    assert complexity.PAPER_MACS["memorygan"] == {k: macs for k, _, macs in MEMORYGAN}
    assert complexity.PAPER_PARAMETERS["semanticstylegan"] == {k: float(p) for k, p in SEMANTIC_STYLEGAN}


def test_the_papers_convention_counted_by_hand():
    part = 16 * 32 + 32 * 32  # mapping, two layers
    part += 10 * 32 * 8  # one style per layer
    part += 256 * 22 * 8  # 16 × 16 points, 2 + 4 · 5 Fourier features
    part += 256 * (10 * 8 * 8 + 8)  # ten layers, pseudo-depth
    part += 256 * 16 * (8 + 1)  # projection, weighted sum
    controller = 4 * 16 * (2 * 16 + 16) + 16 * 2 * 16  # four gates, moments
    # 8 → 16 and, with the feature again, 16 → 32: up-convolution on the enlarged map, convolution, RGB and mask heads.
    render = 9 * 16 * 16 * 17**2 + 256 * 16 * (9 * 16 + 3 + 2)
    render += 9 * (16 + 16) * 8 * 33**2 + 1024 * 8 * (9 * 8 + 3 + 2)
    config = with_part_count(get_preset("tiny-32").generator, 2)
    assert complexity.paper_macs("memorygan", config) == 2 * (part + controller) + render
    assert complexity.paper_macs("semanticstylegan", config) == 2 * part + render


@pytest.mark.parametrize("preset", ["tiny-32", "faces-64"])
@torch.no_grad()
@torch.backends.mkldnn.flags(enabled=False)  # the counter knows no convolution with an activation inside
def test_executed_macs_are_what_torch_counts(preset):
    config = get_preset(preset).generator
    memory, baseline = MemoryGAN(config).eval(), SemanticStyleGAN(config).eval()
    with FlopCounterMode(display=False) as counter:
        memory(torch.randn(1, 1 + config.part_count, config.query_dim))
    # A matrix times a vector, as the pseudo-depth is, is left out by torch's counter.
    depth = config.part_count * config.coarse_size**2 * config.local_channels
    assert complexity.executed_macs("memorygan", config) == counter.get_total_flops() // 2 + depth
    with FlopCounterMode(display=False) as counter:
        baseline(torch.randn(1, config.query_dim))
    assert complexity.executed_macs("semanticstylegan", config) == counter.get_total_flops() // 2


@pytest.mark.parametrize("kind", GENERATORS)
def test_parameters_are_those_of_the_modules(kind):
    config = get_preset("tiny-32").generator
    expected = sum(parameter.numel() for parameter in GENERATORS[kind](config).parameters())
    assert complexity.parameter_count(kind, config) == expected


def test_the_command_prints_the_table_and_saves_the_figure(tmp_path, capsys):
    file = tmp_path / "new" / "figure.png"
    assert complexity.main(["--parts", "1", "1000", "--figure", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| MemoryGAN | 1000 | 19.1 | 19.1 | 435.2 | 435.4 | 203.4 |" in lines
    assert any(line.startswith("| SemanticStyleGAN | 1000 | 419.8 | 419.8 |") for line in lines)
    with Image.open(file) as picture:
        assert picture.format == "PNG" and picture.width > 1000
        assert len(set(picture.convert("L").tobytes())) > 20  # something is drawn


def test_other_presets_stand_without_the_papers_figures(tmp_path, capsys):
    assert complexity.main(["--preset", "tiny-32", "--parts", "3", "--figure", str(tmp_path / "tiny.png")]) == 0
    printed = capsys.readouterr().out
    assert "in the paper" not in printed and "| MemoryGAN | 3 |" in printed


def test_impossible_requests_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        complexity.main(["--parts", "0", "--figure", str(tmp_path / "none.png")])
    assert "at least one part" in capsys.readouterr().err


def test_it_is_a_study_of_the_report(tmp_path):
    assert STUDIES["complexity"] is complexity.STUDY
    generator = MemoryGAN(get_preset("tiny-32").generator)
    save_generator(tmp_path / "generator.safetensors", generator, provenance=Provenance())
    lab = Lab(Settings(tmp_path / "generator.safetensors", out=tmp_path / "report"))
    piece = complexity.STUDY.run(lab, 1)
    assert (tmp_path / "report" / "complexity.png").is_file()
    assert len(piece.bars) == 2 and all(bar.met for bar in piece.bars)
    config = get_preset("tiny-32").generator
    assert piece.numbers["executed_macs"] == complexity.executed_macs("memorygan", config)


def test_a_count_that_is_off_misses_its_bar(monkeypatch):
    monkeypatch.setattr(complexity, "PAPER_MACS", {"memorygan": {1: 108.0}})
    monkeypatch.setattr(complexity, "PAPER_PARAMETERS", {"memorygan": {1: 17.6}})
    assert [bar.met for bar in complexity.bars(get_preset("paper-256").generator)] == [False, False]
