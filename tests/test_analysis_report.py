"""The analysis command: every study on an untrained tiny generator, the report, resuming, and refusals."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_text import StandIns  # type: ignore[import-not-found]

from editing.sliders.directions import Slider, SliderSet
from editing.studies import preserved as preserved_study
from editing.studies import refinement as refinement_study
from editing.studies import text as text_study
from editing.studies import text_trials
from memorygan import parser as face_parser
from memorygan.analysis import __main__ as cli
from memorygan.analysis import features as feature_networks
from memorygan.analysis import grids, hard_attention
from memorygan.analysis.blocks import Bar, Figure, Piece, Table, Text, number
from memorygan.analysis.features import INCEPTION_VARIABLE, InceptionFeatures, fid
from memorygan.analysis.lab import Lab, Settings, StudyUnavailable
from memorygan.analysis.report import Chapter, to_html, to_markdown
from memorygan.analysis.study import Study, run_study
from memorygan.baseline import SemanticStyleGAN
from memorygan.checkpoint import Provenance, save_generator
from memorygan.config import get_preset
from memorygan.encoder import EncoderConfig, PartEncoder, save_encoder
from memorygan.generator import MemoryGAN
from memorygan.parser import FaceParser, ParserConfig, save_parser
from memorygan.parts import LayerGroup
from memorygan.training.prepare import main as prepare

SAMPLES = "3"


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """An untrained generator with encoder, a parser, and a packed set of drawn faces."""
    folder = tmp_path_factory.mktemp("material")
    config = get_preset("tiny-32").generator
    torch.manual_seed(0)
    path = folder / "generator.safetensors"
    save_generator(path, MemoryGAN(config), provenance=Provenance(images_seen=7))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    group = LayerGroup.TEXTURE
    sliders = [
        Slider("hair.lightness", "hair", "Lightness", group, measured="lightness"),
        Slider("nose.a", "nose", "A", group),
    ]
    directions = torch.randn(2, config.style_dim)
    SliderSet(sliders, directions, sha256).save(folder / "sliders.safetensors")
    encoder = PartEncoder(EncoderConfig(config.part_count, config.query_dim, size=32, channels=(4, 8), hidden=16))
    save_encoder(folder / "encoder.safetensors", encoder)
    save_parser(folder / "parser.safetensors", FaceParser(ParserConfig(size=32, widths=(4, 6, 8))), Provenance())
    assert prepare(["--procedural", "16", "--size", "32", "--out", str(folder / "packs"), "--holdout", "4"]) == 0
    return folder


@pytest.fixture
def machine(material, monkeypatch, tmp_path):
    """A machine with those, with stand-ins for the judges of edits by a sentence, and without Inception's weights."""
    red = text_trials.WISHES[:1]
    for module, name, value in (
        (text_trials, "WISHES", red),
        (text_study, "WISHES", red),
        (text_study, "Guides", StandIns),
        (text_study, "STEPS", 2),
        (preserved_study, "WISHES", red),
        (preserved_study, "PROMPTS", [red[0].prompt]),
        (preserved_study, "Guides", StandIns),
        (preserved_study, "STEPS", 2),
        (hard_attention, "PART_COUNTS", ()),
        (text_trials, "SPREAD_FACES", 2),
        (refinement_study, "STEPS", 2),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.delenv(INCEPTION_VARIABLE, raising=False)
    monkeypatch.delenv("MEMORYGAN_CHECKPOINT", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(face_parser, "DEFAULT_WEIGHTS", material / "parser.safetensors")
    return material


def arguments(machine: Path, tmp_path: Path, *more: str) -> list[str]:
    (train,), (held_out,) = (list((machine / "packs").glob(f"*{split}*.pack")) for split in ("train", "val"))
    return [
        *("--checkpoint", str(machine / "generator.safetensors"), "--data", str(train), "--validation", str(held_out)),
        *("--out", str(tmp_path / "report"), "--private-out", str(tmp_path / "private"), "--device", "cpu"),
        *more,
    ]


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "img":
            self.images.append(dict(attrs)["src"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_whole_report(machine, tmp_path, capsys):
    assert cli.main(["all", *arguments(machine, tmp_path, "--samples", SAMPLES)]) == 0

    out = tmp_path / "report"
    markdown, page = (out / "README.md").read_text(), Page()
    page.feed((out / "index.html").read_text())
    assert page.open == []
    sha256 = cli.Lab(Settings(machine / "generator.safetensors")).sha256
    for study in cli.STUDIES.values():
        assert f"## {study.title} ({study.paper})" in markdown
    # Once in the opening, once in the chapter: there are no photos here.
    assert markdown.count("Not measured") == markdown.count("needs framed faces that no training has seen") == 2
    assert "so there is no FID" in markdown
    assert sha256 in markdown
    assert "falls short of" in markdown
    # Every figure exists, is linked in both forms, and says what it was made from.
    figures = [line for line in markdown.splitlines() if line.startswith("![")]
    assert len(figures) == len(page.images) >= 17
    for line, name in zip(figures, page.images, strict=True):
        assert f"({name})" in line
        assert "seed 0" in line and f"checkpoint {sha256[:12]}" in line and line[2:].split("(")[-2][0].isdigit()
        with Image.open(out / name) as picture:
            assert picture.format == name.rpartition(".")[2].upper()
    # Faces of the data set stay outside.
    assert {path.name for path in (tmp_path / "private").iterdir()} == {
        "nearest-neighbours.png",
        "reconstructions-beside-originals.png",
        "refinements-beside-originals.png",
    }
    assert str(tmp_path) not in markdown + "".join(path.read_text() for path in (out / "pieces").iterdir())

    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix in (".png", ".webp")}
    assert cli.main(["all", *arguments(machine, tmp_path, "--samples", SAMPLES)]) == 0
    assert capsys.readouterr().out.count("unchanged") == len(cli.STUDIES) - 1
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (out / "README.md").read_text() == markdown


@pytest.mark.parametrize("name", ["samples", "locality", "quality"])
def test_one_study_prints_its_table(machine, tmp_path, capsys, name):
    assert cli.main([name, *arguments(machine, tmp_path, "--samples", SAMPLES, "--temperature", "0.7")]) == 0
    printed = capsys.readouterr().out
    assert "3 faces" in printed or "3 swaps" in printed
    assert "temperature 0.7" in printed
    assert (tmp_path / "report" / "pieces" / f"{name}.json").is_file()


def stub_inception(images):
    """Two certain classes, by brightness; four features that vary from face to face."""
    bright = images.float().mean(dim=(1, 2, 3))
    logits = torch.zeros(len(images), 1008)
    logits[torch.arange(len(images)), (bright > bright.median()).long()] = 50.0
    return images.float().mean(dim=3).flatten(1)[:, :4], logits


def test_where_inception_is_there_its_figures_are_called_fid_and_is(machine, tmp_path, monkeypatch, capsys):
    stub = InceptionFeatures(stub_inception)
    monkeypatch.setitem(feature_networks.FEATURE_NETWORKS, "inception", lambda device: stub)
    assert cli.main(["quality", *arguments(machine, tmp_path, "--samples", "10")]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in printed.splitlines()]
    assert rows.count("FID") == 2 and rows.count("IS") == 1
    assert "substitute" not in printed and "so there is no FID" not in printed
    numbers = json.loads((tmp_path / "report" / "pieces" / "quality.json").read_text())["piece"]["numbers"]
    lab = Lab(Settings(machine / "generator.safetensors", data=next((machine / "packs").glob("*train*.pack"))))
    with torch.no_grad():
        images = lab.drawing.synthesize(lab.sample(range(10), truncation=1.0)).image
    faces = lab.training_faces
    real = stub(faces.batch(torch.tensor(lab.face_rows(faces, 10))).image)
    assert numbers["fid"] == pytest.approx(fid(stub(images), real), rel=1e-6)
    # Ten splits of one face each: every one is as certain as the whole.
    assert numbers["inception_score"] == pytest.approx(1.0)


def test_without_data_or_judges_the_report_says_what_was_not_measured(machine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(face_parser, "DEFAULT_WEIGHTS", tmp_path / "none")
    needy = ("quality", "controller", "memorisation", "reconstruction")
    monkeypatch.setattr(cli, "STUDIES", {name: cli.STUDIES[name] for name in needy})
    checkpoint = str(machine / "generator.safetensors")
    options = ["--checkpoint", checkpoint, "--out", str(tmp_path / "report"), "--samples", "2", "--device", "cpu"]
    assert cli.main(["all", *options, "--private-out", str(tmp_path / "private")]) == 0
    markdown = (tmp_path / "report" / "README.md").read_text()
    assert "Not measured: neither the face parser's weights nor Inception's are on this machine." in markdown
    assert "--data" in markdown and "--validation" in markdown
    assert "No promised figure was measured" not in markdown and "Not measured: Image and mask quality" in markdown
    assert cli.main(["memorisation", *options]) == 2
    assert "--data" in capsys.readouterr().err


def test_a_baseline_generator_is_studied_as_far_as_it_has_the_parts(machine, tmp_path):
    path = tmp_path / "baseline" / "generator.safetensors"
    save_generator(path, SemanticStyleGAN(get_preset("tiny-32").generator), provenance=Provenance())
    lab = Lab(Settings(path, out=tmp_path / "report", private=tmp_path / "private"))
    assert run_study(cli.STUDIES["locality"], lab, 2).piece.numbers
    with pytest.raises(StudyUnavailable, match="no controller"):
        run_study(cli.STUDIES["latent-space"], lab, 2)


# --- Resuming ---------------------------------------------------------------------------------------------------------


def counted(calls: list[int]) -> Study:
    def run(lab: Lab, samples: int) -> Piece:
        calls.append(samples)
        figure = lab.save(Image.new("RGB", (4, 4)), "toy.png", "A toy", lab.footer(samples))
        return Piece((Text("text"), figure), {"value": math.nan})

    return Study("toy", "Toy", "nothing", run, 2, 2)


def test_a_piece_is_made_again_only_if_something_it_depends_on_changed(machine, tmp_path):
    calls: list[int] = []
    study = counted(calls)

    def lab(**changes) -> Lab:
        return Lab(Settings(machine / "generator.safetensors", out=tmp_path, **changes))

    assert not run_study(study, lab(), 2).reused
    again = run_study(study, lab(), 2)
    assert again.reused and math.isnan(again.piece.numbers["value"])
    assert [block.file for block in again.piece.blocks if isinstance(block, Figure)] == ["toy.png"]
    run_study(study, lab(), 3)
    run_study(study, lab(seed=1), 3)
    run_study(study, lab(seed=1, truncation=0.5), 3)
    assert len(calls) == 4
    (tmp_path / "toy.png").unlink()
    run_study(study, lab(seed=1, truncation=0.5), 3)
    (tmp_path / "pieces" / "toy.json").write_text("{broken")
    run_study(study, lab(seed=1, truncation=0.5), 3)
    run_study(study, lab(seed=1, truncation=0.5), 3, force=True)
    assert len(calls) == 7


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "0"], "--samples"),
        (["--truncation", "1.5"], "--truncation"),
        (["--seed", "-1"], "--seed"),
        (["--temperature", "nan"], "--temperature"),
        (["--checkpoint", "absent.safetensors"], "absent.safetensors"),
        (["--encoder", "absent.safetensors"], "absent.safetensors"),
        (["--validation", "absent.pack"], "absent.pack"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(machine, tmp_path, capsys, options, message):
    assert cli.main(["reconstruction", *arguments(machine, tmp_path), *options]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and message in printed and printed.count("\n") == 1


def test_studies_are_skipped_and_counted_by_name(machine, tmp_path, monkeypatch, capsys):
    calls: list[int] = []
    monkeypatch.setattr(cli, "STUDIES", {"toy": counted(calls), "mixing": cli.STUDIES["mixing"]})
    options = arguments(machine, tmp_path, "--samples", "3", "--count", "toy=5", "--skip", "mixing")
    assert cli.main(["all", *options]) == 0
    assert calls == [5]
    assert "it was left out of this run" in (tmp_path / "report" / "README.md").read_text()
    capsys.readouterr()
    for wrong in ("toy=0", "toy", "other=3"):
        with pytest.raises(SystemExit):
            cli.main(["all", *arguments(machine, tmp_path), "--count", wrong])
        assert "the studies are toy, mixing" in capsys.readouterr().err


def test_a_chapter_is_made_alone_and_the_others_stay_as_they_stand(machine, tmp_path, monkeypatch, capsys):
    first: list[int] = []
    second: list[int] = []
    toy, other = counted(first), replace(counted(second), name="other", title="Other")
    monkeypatch.setattr(cli, "STUDIES", {"toy": toy, "other": other})
    assert cli.main(["all", *arguments(machine, tmp_path, "--samples", "3")]) == 0
    # A newer study and another count make the first chapter anew; the second stays, though both hold for it too.
    monkeypatch.setattr(cli, "STUDIES", {"toy": replace(toy, version=9), "other": replace(other, version=9)})
    only = arguments(machine, tmp_path, "--samples", "4", "--only", "toy")
    assert cli.main(["all", *only]) == 0
    assert (first, second) == ([3, 4], [3])
    page = (tmp_path / "report" / "README.md").read_text()
    assert "## Toy" in page and "## Other" in page and "left out" not in page
    # What is of another checkpoint, or not there, does not stand.
    piece = tmp_path / "report" / "pieces" / "other.json"
    piece.write_text(piece.read_text().replace('"checkpoint": "', '"checkpoint": "0'))
    assert cli.main(["all", *only]) == 0
    assert "of another checkpoint" in (tmp_path / "report" / "README.md").read_text()
    piece.unlink()
    assert cli.main(["all", *only]) == 0
    assert "it was left out of this run" in (tmp_path / "report" / "README.md").read_text()
    assert second == [3]


def test_an_interrupted_study_is_continued_by_the_next_run(machine, tmp_path):
    """As the command runs it: what was measured lies outside the report, and is gone when the study is done."""
    asked: list[list[int]] = []

    def make(seeds):
        asked.append(seeds)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return {"seed": torch.tensor(seeds)}

    def run(lab: Lab, samples: int) -> Piece:
        found = lab.gather("a toy", lab.face_seeds(samples), make)
        return Piece((Text("text"),), {"sum": float(found["seed"].sum())})

    study = Study("toy", "Toy", "nothing", run, 2, 2)
    settings = Settings(machine / "generator.safetensors", out=tmp_path / "out", private=tmp_path / "own", batch=2)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, Lab(settings), 4)
    assert len(list((tmp_path / "own").rglob("*.npz"))) == 1
    assert run_study(study, Lab(settings), 4).piece.numbers == {"sum": 6.0}
    assert asked == [[0, 1], [2, 3], [2, 3]]
    assert not list((tmp_path / "own").rglob("*.npz")) and not list((tmp_path / "out").rglob("*.npz"))
    run_study(study, Lab(settings), 4, force=True)
    assert asked[3:] == [[0, 1], [2, 3]]


def test_faces_that_are_too_small_are_refused(machine, tmp_path):
    assert prepare(["--procedural", "4", "--size", "16", "--out", str(tmp_path / "packs"), "--holdout", "1"]) == 0
    (pack,) = (tmp_path / "packs").glob("*train*.pack")
    lab = Lab(Settings(machine / "generator.safetensors", data=pack))
    with pytest.raises(StudyUnavailable, match=r"16 pixels.* 32"):
        lab.real(2)


# --- Blocks, numbers, pictures ----------------------------------------------------------------------------------------


def test_bars_judge_in_both_directions():
    assert Bar("a", 0.8, 0.75, True, 1).met and not Bar("a", 0.7, 0.75, True, 1).met
    assert Bar("a", 3.0, 3.0, False, 1).met and not Bar("a", 3.1, 3.0, False, 1).met
    unmeasured = Bar("a", math.nan, 3.0, False, 0)
    assert not unmeasured.met and "not measured" in unmeasured.row()


def test_pieces_survive_storage():
    piece = Piece(
        (Text("t"), Table(("a", "b"), (("1", "2"),), "c"), Figure("f.png", "d")),
        {"x": 1.5, "y": math.inf},
        (Bar("w", math.nan, 1.0, True, 3), Bar("v", math.inf, 2.0, False, 3)),
        ("private.png",),
    )
    again = Piece.from_json(json.loads(json.dumps(piece.to_json(), allow_nan=False)))
    assert again.blocks == piece.blocks and again.private == piece.private
    assert again.numbers["x"] == 1.5 and math.isnan(again.numbers["y"])
    assert math.isnan(again.bars[0].measured) and again.bars[1] == piece.bars[1]
    with pytest.raises(ValueError, match="2 cells"):
        Table(("a", "b"), (("1",),))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (12345.6, "12,346"), (0.0, "0"), (math.nan, "–"), (1.5e-7, "1.50e-07"), (100.0, "100")],
)
def test_numbers_for_tables(value, text):
    assert number(value) == text


def test_both_forms_of_the_report_escape_what_they_show():
    report = [Chapter("A <b> & title", (Text("1 < 2, `code`, https://example.org/x"), Table(("a|b",), (("**c**",),))))]
    markdown, page = to_markdown(report), to_html(report)
    assert "| a\\|b |" in markdown
    assert "A &lt;b&gt; &amp; title" in page and "1 &lt; 2" in page
    assert "<code>code</code>" in page and "<strong>c</strong>" in page
    assert '<a href="https://example.org/x">' in page


def test_labels_are_drawn_with_a_font_that_has_what_they_say():
    font = grids.label_font()
    missing = bytes(font.getmask("\ufffe"))
    for sign in "−–≤≥×±α→“”…ä":
        assert bytes(font.getmask(sign)) != missing, sign


def test_grids_have_room_for_labels_and_footer():
    picture = np.full((8, 8, 3), 200, dtype=np.uint8)
    plain = grids.grid([[picture, None], [picture, picture]], side=32)
    assert plain.size == (32 * 2 + grids.GAP, 32 * 2 + grids.GAP)
    assert plain.getpixel((40, 5)) == grids.PAPER  # the empty place
    labelled = grids.grid([[picture]], ["row"], ["a very long label of a column"], "a footer", side=32)
    assert labelled.height == 32 + 2 * grids.TEXT_HEIGHT
    assert labelled.width > 32
    with pytest.raises(ValueError, match="at least one picture"):
        grids.grid([[None]])


def test_heat_runs_from_black_to_white():
    (picture,) = grids.heat(torch.tensor([[[0.0, 64.0 / 3, 64.0]]]))
    assert picture[0].tolist() == [[0, 0, 0], [255, 0, 0], [255, 255, 255]]
