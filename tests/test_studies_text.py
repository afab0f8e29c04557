"""The report's chapter on sentences: its arithmetic against hand-made cases, and the chapter itself with stand-ins."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_guidance_judges import face as drawn_face  # type: ignore[import-not-found]
from test_text import StandIns, colour_judge, identity_net  # type: ignore[import-not-found]

from editing.errors import EditingError
from editing.guidance.captions import unknown_words
from editing.guidance.measures import DIRECTIONS, measure
from editing.studies import preserved, text_trials
from editing.studies import text as text_study
from editing.studies.text_trials import ANYONE, FREE, PARTS, WISHES, Bench, Face, Outcome, Wish, moved_right, verdict
from editing.text.optimize import STRENGTHS, TextResult
from editing.text.results import TextProgress
from memorygan import parser as face_parser
from memorygan.analysis import __main__ as cli
from memorygan.analysis import charts
from memorygan.analysis.blocks import Figure, Table
from memorygan.analysis.lab import Lab, Settings, StudyUnavailable
from memorygan.analysis.paper import FIGURE_17_PROMPTS
from memorygan.analysis.study import run_study
from memorygan.checkpoint import Provenance, save_generator
from memorygan.config import get_preset
from memorygan.generator import MemoryGAN
from memorygan.parts import FACE_PARTS

RED = next(wish for wish in WISHES if wish.word == "red hair")
HAIR = FACE_PARTS.index("hair")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "tiny.safetensors"
    torch.manual_seed(0)
    save_generator(path, MemoryGAN(get_preset("tiny-32").generator), provenance=Provenance())
    return path


@pytest.fixture
def lab(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(face_parser, "DEFAULT_WEIGHTS", tmp_path / "none")
    monkeypatch.setattr(text_trials, "SPREAD_FACES", 4)
    monkeypatch.setattr(text_study, "STEPS", 3)
    monkeypatch.setattr(preserved, "STEPS", 3)
    for module in (text_study, preserved):
        monkeypatch.setattr(module, "Guides", StandIns)
    return Lab(Settings(checkpoint, out=tmp_path / "out", private=tmp_path / "private", batch=4))


def bench(lab: Lab, steps: int = 3, moments: Sequence[int] = (3,)) -> Bench:
    return Bench(lab, colour_judge(), identity_net(), steps, moments)


# --- Arithmetic -------------------------------------------------------------------------------------------------------


def test_preserved_pixels_gain_and_change_of_a_hand_made_course(lab, monkeypatch):
    """A grey 4 × 4 picture whose upper left quarter is hair; a pixel may move by 2 of 255 and still be preserved."""
    before = np.full((4, 4, 3), 100, np.uint8)
    part_map = np.zeros((4, 4), np.uint8)
    part_map[:2, :2] = HAIR
    halfway, after = before.copy(), before.copy()
    halfway[0, 0] = (103, 100, 100)  # the only pixel that moved by more than 2
    halfway[3, 3] = (102, 98, 101)
    after[:2, :2] = (160, 100, 100)  # the hair: 4 pixels
    after[3, 0] = (100, 100, 109)  # outside: 1 pixel
    source = lab.sample([0])

    def course(*arguments, **named) -> Generator[TextProgress, None, TextResult]:
        for step, image in enumerate([before, halfway, halfway, after]):
            yield TextProgress("optimise", step, 3, image, part_map)
        moved = source.w.clone()
        moved[0, HAIR, 4] += 1
        return TextResult(moved, TextProgress("done", 3, 3, after, part_map))

    monkeypatch.setattr(text_trials, "optimize", course)
    tried = bench(lab, moments=(1, 3))
    tried.judge.image_size = 4  # it sees the picture as it is
    monkeypatch.setattr(Bench, "_measures", lambda self, image, ids: {"hair.redness": float(image[0, 0, 0])})
    edit = tried.follow(RED, Face(0, source, before, part_map, {"hair.redness": 100.0}), PARTS)

    np.testing.assert_allclose(edit.preserved, [15 / 16, 11 / 16])
    moved = np.array([3 + 2 + 2 + 1, 4 * 60 + 9])  # over 48 values
    np.testing.assert_allclose(edit.unchanged, 1 - moved / 48 / 255, atol=1e-6)
    assert edit.inside == pytest.approx(60 / 3)
    assert edit.outside == pytest.approx(9 / 3 / 12)
    assert (edit.before, edit.after) == (100.0, 160.0)
    np.testing.assert_allclose(edit.map[3], [3, 0, 0, 0])
    assert np.argwhere(edit.moved).tolist() == [[HAIR, 4]]

    # The stand-in's vector of a picture is its mean colour in [0, 1] plus 0.1, and "red" is (1, 0, 0).
    def score(image: np.ndarray) -> float:
        mean = image.reshape(-1, 3).mean(axis=0) / 255 + 0.1
        return float(mean[0] / np.linalg.norm(mean))

    np.testing.assert_allclose(edit.gain, [score(i) - score(before) for i in (halfway, after)], atol=1e-6)
    vectors = [np.stack([image[y, x] for y in range(4) for x in range(4)]).T.ravel() / 127.5 - 1.0
               for image in (before, after)]  # fmt: skip
    cosine = vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    assert edit.identity == pytest.approx(cosine, abs=1e-5)


def outcome(before: float, after: float) -> Outcome:
    empty = np.zeros(0)
    return Outcome(empty, empty, empty, empty, empty, 0.0, 0.0, before, after, 1.0, empty)


def test_share_of_edits_that_moved_the_right_way_on_drawn_faces():
    def redness(hair: tuple[int, int, int], **options) -> float:
        return float(measure(*drawn_face(hair, **options))["hair.redness"] or math.nan)

    brown, red, green = redness((90, 60, 40)), redness((165, 75, 40)), redness((40, 90, 60))
    nothing = redness((90, 60, 40), bald=True)
    assert math.isnan(nothing)
    wish = Wish("a person with red hair", "red hair", "hair colour")
    edits = [
        (wish, outcome(brown, red)),  # right
        (wish, outcome(brown, green)),  # wrong
        (wish, outcome(brown, brown)),  # nothing happened: not right
        (wish, outcome(brown, nothing)),  # the hair is gone: not right
        (wish, outcome(nothing, red)),  # there was none: not judged
    ]
    found = verdict(edits, {"hair.redness": 4.0})
    assert (found.right, found.judged, found.share) == (1, 4, 25.0)
    assert found.shift == pytest.approx(((red - brown) + (green - brown) + 0.0) / 3 / 4.0)


def test_the_direction_counts():
    assert moved_right(1, 1.0, 2.0) and moved_right(-1, 2.0, 1.0)
    assert moved_right(-1, 1.0, 2.0) is False and moved_right(1, 1.0, math.nan) is False
    assert moved_right(1, math.nan, 1.0) is None
    nothing = verdict([(RED, outcome(math.nan, 1.0))], {"hair.redness": 1.0})
    assert nothing.judged == 0 and math.isnan(nothing.share) and math.isnan(nothing.shift)


def test_every_sentence_has_a_measure_and_words_that_the_bundled_judge_was_taught():
    assert len(WISHES) == len({wish.prompt for wish in WISHES}) == 20
    for wish in WISHES:
        assert wish.word in DIRECTIONS
        assert unknown_words(wish.prompt) == ()
    assert {wish.group for wish in WISHES} > set(text_study.PROMISED)


def test_glasses_that_are_put_on_and_left_so_end_the_course_early(lab, monkeypatch):
    monkeypatch.setattr("editing.text.optimize.area", lambda part_map, part: 0.0)
    tried = bench(lab, steps=3, moments=(1, 3))
    edit = tried.follow(Wish("a person with red glasses", "glasses", "glasses"), tried.face(0), PARTS)
    assert edit.preserved.shape == edit.gain.shape == (2,)
    assert edit.preserved[0] == edit.preserved[1] < 1.0


def test_the_course_ends_with_the_last_step():
    assert text_study.moments(30) == (3, 6, 12, 21, 30)
    assert text_study.moments(1) == (1,)


def test_the_chart_of_courses_has_one_line_per_way():
    x, y = np.array([[0.1, 0.2], [0.2, 0.4]]), np.array([[99.0, 90.0], [98.0, 85.0]])
    picture = np.asarray(charts.courses({"one": (x, y), "two": (2 * x, y - 20)}, "x", "y", "2 runs"))
    assert picture.ndim == 3 and {(31, 119, 180), (255, 127, 14)} <= {
        tuple(map(int, p)) for p in picture.reshape(-1, 3)
    }


# --- Edits ------------------------------------------------------------------------------------------------------------


def test_all_codes_free_frees_every_layer_of_every_part_and_the_parts_way_only_its_own(lab, monkeypatch):
    # An untrained network cannot change one part alone, and would rather stay where it is.
    monkeypatch.setitem(STRENGTHS["normal"], "outside", 0.0)
    tried = bench(lab, steps=4, moments=(4,))
    face = tried.face(1)
    own = face.latents.selection(["hair"], ["texture"]).numpy()  # red hair may keep its cut

    parts, free = tried.follow(RED, face, PARTS), tried.follow(RED, face, FREE)

    np.testing.assert_array_equal(parts.moved, own)
    assert free.moved.all() and free.moved.size > own.sum()
    assert parts.gain[-1] > 0 and free.gain[-1] > parts.gain[-1]


def test_a_sentence_may_show_only_where_it_is_about_and_is_measured_there(lab, monkeypatch):
    given, regions = [], []

    def spy(*args, **named):
        given.append((args[4], named["shown"], named["layers"]))
        return original(*args, **named)

    def region(maps, parts, scheme):
        regions.append(parts)
        return measured(maps, parts, scheme)

    original, measured = text_trials.optimize, text_trials.region
    monkeypatch.setattr(text_trials, "optimize", spy)
    monkeypatch.setattr(text_trials, "region", region)
    tried, wish = bench(lab), replace(RED, prompt="a red person with blue eyes")
    for way in (PARTS, FREE):
        tried.follow(wish, tried.face(0), way)
    assert given == [(("skin", "eyes", "hair"), ("eyes",), "all"), (lab.parts.names, None, "every")]
    assert regions == [("eyes",), ("eyes",)]


def test_without_the_identity_loss_its_weight_is_0(lab, monkeypatch):
    seen = []

    def spy(provide, judge, identity, source, parts, prompt, neutral, settings, *rest, **named):
        seen.append(settings.weights)
        return original(provide, judge, identity, source, parts, prompt, neutral, settings, *rest, **named)

    original = text_trials.optimize
    monkeypatch.setattr(text_trials, "optimize", spy)
    tried = bench(lab)
    for way in (PARTS, ANYONE):
        tried.follow(RED, tried.face(0), way)
    assert seen[0]["identity"] > 0 and seen[1] == seen[0] | {"identity": 0.0}


# --- The chapter ------------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch):
    """Four sentences, one in each group that is promised; two of them in every way."""
    first = [next(wish for wish in WISHES if wish.group == group) for group in text_study.PROMISED]
    chosen = tuple(replace(wish, compared=number < 2) for number, wish in enumerate(first))
    monkeypatch.setattr(text_trials, "WISHES", chosen)
    monkeypatch.setattr(text_study, "WISHES", chosen)
    return chosen


def compared_edits(lab: Lab, wishes: Sequence[Wish]) -> list[Outcome]:
    """The compared wishes on the first face, followed by hand."""
    tried = bench(lab, moments=text_study.moments(3))
    return [tried.follow(wish, tried.face(0), PARTS) for wish in wishes if wish.compared]


@pytest.fixture
def calls(monkeypatch):
    """Edits as (sentence, way, seed), in order."""
    made: list[tuple[str, str, int]] = []
    original = Bench.follow

    def follow(self, wish, face, way):
        made.append((wish.prompt, way.name, face.seed))
        return original(self, wish, face, way)

    monkeypatch.setattr(Bench, "follow", follow)
    return made


def test_the_chapter_on_preserved_pixels_follows_the_papers_sentences_in_both_ways(lab, calls, monkeypatch):
    wishes = tuple(wish for wish in WISHES if wish.prompt in FIGURE_17_PROMPTS)
    assert [wish.prompt for wish in wishes] == sorted(FIGURE_17_PROMPTS, key=[w.prompt for w in WISHES].index)
    assert len(wishes) == 4, "the paper's sentences are known"
    monkeypatch.setattr(preserved, "PROMPTS", FIGURE_17_PROMPTS[:2])
    piece = run_study(preserved.STUDY, lab, 2).piece
    assert sorted(calls) == sorted(
        (prompt, way, seed) for prompt in FIGURE_17_PROMPTS[:2] for way in ("parts", "free") for seed in (0, 1)
    )
    (table,) = [block for block in piece.blocks if isinstance(block, Table)]
    assert [row[0] for row in table.rows] == ["1", "2", "3"] and all("±" in cell for cell in table.rows[0][1:])
    assert "all codes free" in str(piece.blocks[0]) and "Colour judge" in str(piece.blocks[0])
    assert 0 < piece.numbers["preserved_free_percent"] <= piece.numbers["preserved_parts_percent"] <= 100
    for figure in (block for block in piece.blocks if isinstance(block, Figure)):
        assert "2 faces, 3 steps per edit" in figure.caption and (lab.settings.out / figure.file).is_file()


def test_the_chapter_and_that_a_finished_piece_is_reused(lab, few, calls, monkeypatch):
    monkeypatch.setattr(text_study, "COMPARED_FACES", 1)
    first = run_study(text_study.STUDY, lab, 2)

    piece, sha256 = first.piece, lab.sha256
    assert not first.reused and len(calls) == 4 * 2 + (2 + 2) * 1
    figures = [block for block in piece.blocks if isinstance(block, Figure)]
    assert [figure.file for figure in figures] == ["text-edits.webp"]
    for figure, count in zip(figures, (2,), strict=True):
        assert f"{count} faces, 3 steps per edit" in figure.caption and "seed 0" in figure.caption
        assert f"checkpoint {sha256[:12]}" in figure.caption
        with Image.open(lab.settings.out / figure.file) as picture:
            assert picture.format == figure.file.rpartition(".")[2].upper() and min(picture.size) > 100
    wishes, ways = [block for block in piece.blocks if isinstance(block, Table)]
    assert [row[0] for row in wishes.rows] == [wish.prompt for wish in few]
    assert [row[0] for row in ways.rows] == [PARTS.title, ANYONE.title, FREE.title]
    assert [bar.limit for bar in piece.bars] == [80.0] * 4 + [4.0] * 2
    outside = [piece.numbers[f"text_{wish.word.replace(' ', '_')}_outside"] for wish in few]
    assert piece.bars[-2].measured == pytest.approx(np.mean(outside))
    assert piece.bars[-1].measured == max(outside) and few[int(np.argmax(outside))].prompt in piece.bars[-1].what
    # The other ways are followed on the first face alone, and compared with the same face.
    gains = [edit.gain[-1] for edit in compared_edits(lab, few)]
    assert piece.numbers["text_way_parts_gain"] == pytest.approx(np.mean(gains))
    assert "Colour judge" in str(piece.blocks[0]) and "not the CLIP of the paper" in str(piece.blocks[0])
    assert piece.private == () and not list((lab.settings.out / "pieces").glob("text-*"))

    assert run_study(text_study.STUDY, lab, 2).reused and len(calls) == 12 + 2
    # Another judge, another piece.
    monkeypatch.setattr(StandIns, "hashes", lambda self: {"text:colours": "d" * 64})
    again = replace(text_study.STUDY, run=lambda lab, samples: piece)
    assert not run_study(again, lab, 2).reused and run_study(again, lab, 2).reused


def test_an_interrupted_chapter_goes_on_where_it_stopped(lab, few, calls, monkeypatch):
    original = Bench.follow

    def interrupted(self, wish, face, way):
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(self, wish, face, way)

    with monkeypatch.context() as patch:
        patch.setattr(Bench, "follow", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_study(text_study.STUDY, lab, 1)
    before = list(calls)
    calls.clear()
    resumed = run_study(text_study.STUDY, lab, 1).piece
    assert before == [*((wish.prompt, "parts", 0) for wish in few), (few[0].prompt, "free", 0)]
    assert not set(before) & set(calls) and len(calls) == 8 - 5

    whole = run_study(text_study.STUDY, lab, 1, force=True).piece
    assert resumed.numbers == pytest.approx(whole.numbers, nan_ok=True)


def test_without_an_identity_judge_that_comparison_is_left_out(lab, few, monkeypatch):
    monkeypatch.setattr(StandIns, "identity", lambda self: None)
    piece = text_study.run(lab, 1)
    assert "text_way_anyone_gain" not in piece.numbers and math.isnan(piece.numbers["text_way_parts_identity"])
    assert "nothing judges identity" in str(piece.blocks[0])


def test_without_a_text_judge_the_chapter_says_so(lab, monkeypatch):
    def absent(self):
        raise EditingError("There is no judge here, so sentences cannot be used.")

    monkeypatch.setattr(StandIns, "text", absent)
    with pytest.raises(StudyUnavailable, match=r"There is no judge here, so sentences cannot be used$"):
        run_study(text_study.STUDY, lab, 1)


def test_the_command_knows_the_chapter_and_does_without_the_editor(monkeypatch):
    assert cli.STUDIES["text"] is text_study.STUDY
    assert "text" in [study.name for study in cli.contributed()]
    monkeypatch.setattr(cli, "CONTRIBUTED", ("no_such_room.text_study",))
    assert list(cli.contributed()) == []
    monkeypatch.setattr(cli, "CONTRIBUTED", ("editing.no_such_file",))
    with pytest.raises(ModuleNotFoundError):
        list(cli.contributed())
