"""The face parser: shapes, refusals, files, training data, scores."""

from __future__ import annotations

import hashlib
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from memorygan.analysis.agreement import agreement
from memorygan.checkpoint import CheckpointError, Provenance, save_module
from memorygan.parser import DEFAULT_WEIGHTS, FaceParser, ParserConfig, load_parser, save_parser
from memorygan.parts import FACE_PARTS, numbered_parts
from memorygan.training import parser_data, parser_eval
from memorygan.training.parser import ParserTrainer, TrainingConfig, growing_sizes, main, parsing_loss
from memorygan.training.parser_average import average_parsers
from memorygan.training.parser_average import main as average_main
from memorygan.training.parser_data import FaceSampler, PackedFaces, jpeg_blocks, pack

TINY = ParserConfig(size=32, widths=(4, 6, 8))


@pytest.fixture
def tiny() -> FaceParser:
    return FaceParser(TINY).eval()


@pytest.fixture
def faces() -> PackedFaces:
    """Ten 48-pixel pictures in which the brightness of a block says which part it is."""
    random = np.random.RandomState(0)
    masks = random.randint(0, len(FACE_PARTS), (10, 6, 6)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    images = np.repeat(masks[..., None] * 20, 3, axis=3).astype(np.uint8)
    presence = np.stack([np.bincount(m.ravel(), minlength=len(FACE_PARTS)) / m.size for m in masks])
    return PackedFaces("blocks", images, masks, presence)


@pytest.fixture
def folder(tmp_path: Path, faces: PackedFaces) -> Path:
    root = tmp_path / "blocks"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for index in range(len(faces)):
        Image.fromarray(faces.images[index]).save(root / "images" / f"{index:05d}.png")
        Image.fromarray(faces.masks[index]).save(root / "masks" / f"{index:05d}.png")
    return root


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (2, 3, 57, 41), (1, 3, 200, 120)])
def test_parse_answers_at_the_size_of_the_photo(tiny: FaceParser, shape: tuple[int, ...]) -> None:
    found = tiny.parse(torch.rand(shape) * 2 - 1)
    assert found.ids.shape == (shape[0], *shape[2:])
    assert found.ids.dtype == torch.uint8
    assert found.probabilities.shape == (shape[0], len(FACE_PARTS), *shape[2:])
    torch.testing.assert_close(found.probabilities.sum(dim=1), torch.ones(shape[0], *shape[2:]))
    assert torch.equal(found.probabilities.argmax(dim=1), found.ids.long())


def test_each_face_is_parsed_by_itself_and_mirrored_alike(tiny: FaceParser) -> None:
    photos = torch.rand(2, 3, 40, 40) * 2 - 1
    both = tiny.parse(photos, flip=True).probabilities
    torch.testing.assert_close(both[:1], tiny.parse(photos[:1], flip=True).probabilities)
    torch.testing.assert_close(both, tiny.parse(photos.flip(-1), flip=True).probabilities.flip(-1))


def test_light_and_colour_casts_hardly_matter(tiny: FaceParser) -> None:
    photo = torch.rand(1, 3, 32, 32)
    tinted = photo * torch.tensor([1.0, 0.6, 0.8])[:, None, None]
    difference = tiny.parse(photo * 2 - 1).probabilities - tiny.parse(tinted * 2 - 1).probabilities
    assert difference.abs().max() < 0.01


def test_scores_can_be_differentiated(tiny: FaceParser) -> None:
    photo = torch.rand(1, 3, 48, 48, requires_grad=True)
    tiny(tiny.resize(photo)).square().sum().backward()
    assert photo.grad is not None
    assert photo.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (torch.zeros(3, 64, 64), "shape"),
        (torch.zeros(1, 4, 64, 64), "shape"),
        (torch.zeros(0, 3, 64, 64), "shape"),
        (torch.zeros(1, 3, 64, 31), "32 pixels"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "127.5"),
        (torch.full((1, 3, 64, 64), math.nan), "finite"),
    ],
)
def test_parse_refuses_what_is_no_photo(tiny: FaceParser, photo: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.parse(photo)


def test_parse_refuses_training_mode(tiny: FaceParser) -> None:
    with pytest.raises(RuntimeError, match="eval"):
        tiny.train().parse(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 100}, "try 96"),
        ({"size": 16, "widths": (4, 4)}, "try 32"),
        ({"size": 4096}, "try 1024"),
        ({"widths": (8,)}, "2 to 6 numbers"),
        ({"widths": (8, 0)}, "from 1 to 1024"),
        ({"parts": 1}, "got 1"),
    ],
)
def test_config_refuses_what_cannot_be_built(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ParserConfig(**fields)


def test_parts_must_match_the_config() -> None:
    with pytest.raises(ValueError, match="13 parts, the scheme 5"):
        FaceParser(TINY, numbered_parts(5))


def test_a_stored_parser_comes_back(tiny: FaceParser, tmp_path: Path) -> None:
    path = tmp_path / "parser.safetensors"
    digest = save_parser(path, tiny, Provenance(licence="test"))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = load_parser(path)
    assert loaded.config == TINY
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    photo = torch.rand(1, 3, 40, 40) * 2 - 1
    torch.testing.assert_close(
        loaded.parse(photo).probabilities, tiny.parse(photo).probabilities, atol=2e-3, rtol=0
    )  # float16
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parser.safetensors"]


class _Trap:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.mark,))


def test_bad_files_are_refused_in_one_sentence(tiny: FaceParser, tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    save_parser(good, tiny, Provenance())
    content = good.read_bytes()
    mark = tmp_path / "executed"
    meta = {
        "kind": "face-parser",
        "config": {"size": 32, "widths": [4, 6, 8], "parts": 13},
        "parts": list(FACE_PARTS.names),
    }
    tensors = {"a": torch.zeros(1)}
    names = ("missing", "empty", "short", "pickle", "foreign", "other", "misfit", "bad", "vague", "parts")
    files = {name: tmp_path / name for name in names}
    files["empty"].write_bytes(b"")
    files["short"].write_bytes(content[: len(content) // 2])
    files["pickle"].write_bytes(pickle.dumps(_Trap(mark)))
    save_file(tensors, files["foreign"])
    save_module(files["other"], tensors, {**meta, "kind": "generator"})
    save_module(files["misfit"], tensors, meta)
    save_module(files["bad"], tensors, {**meta, "config": {"size": 33, "widths": [4, 6, 8], "parts": 13}})
    save_module(files["vague"], tensors, {**meta, "config": [1]})
    save_module(files["parts"], tensors, {**meta, "parts": ["background"]})
    for name, path in files.items():
        with pytest.raises(CheckpointError) as caught:
            load_parser(path)
        assert "\n" not in str(caught.value), name
        assert name in str(caught.value), name
    assert not mark.exists()


def test_packing_reads_every_pair_once(folder: Path, faces: PackedFaces, tmp_path: Path) -> None:
    packed = pack(folder, tmp_path / "cache", size=48)
    assert np.array_equal(packed.images, faces.images)
    assert np.array_equal(packed.masks, faces.masks)
    np.testing.assert_allclose(packed.presence, faces.presence, atol=1e-6)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()}
    pack(folder, tmp_path / "cache", size=48)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()} == before
    kept, held_out = packed.split(3)
    assert (len(kept), len(held_out)) == (7, 3)
    assert np.array_equal(held_out.masks, faces.masks[-3:])


def test_unusable_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no faces in"):
        pack(tmp_path / "nothing", tmp_path / "cache")
    Image.new("L", (48, 48), 77).save(folder / "masks" / "00003.png")
    with pytest.raises(ValueError, match="part id 77"):
        pack(folder, tmp_path / "cache")


def test_a_mask_may_leave_pixels_out(folder: Path, tmp_path: Path) -> None:
    mask = np.full((48, 48), parser_eval.IGNORE, np.uint8)
    mask[:12] = FACE_PARTS.index("hat")
    Image.fromarray(mask).save(folder / "masks" / "00003.png")
    packed = pack(folder, tmp_path / "cache", size=48)
    assert np.array_equal(packed.masks[3], mask)
    assert packed.presence[3].tolist() == [0.25 if name == "hat" else 0 for name in FACE_PARTS.names]


@pytest.fixture
def as_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces are neither dressed nor recoloured."""
    monkeypatch.setattr(parser_data, "dress", lambda image, ids, rng: (image, ids))
    monkeypatch.setattr(FaceSampler, "_recolour", lambda self, x: x)


@pytest.mark.usefixtures("as_it_looks")
def test_without_augmentation_only_flips_remain(faces: PackedFaces, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, neutral in (("ROTATION", 0), ("ZOOM", 1), ("SHIFT", 0)):
        monkeypatch.setattr(parser_data, name, neutral)
    sampler = FaceSampler([faces], [1.0], 48, torch.Generator().manual_seed(0))
    images, ids = sampler.draw(6)
    shades = torch.nn.functional.avg_pool2d((images[:, 0] + 1) * 127.5, 2) / 20
    torch.testing.assert_close(shades, ids.float(), atol=0.06, rtol=0)


@pytest.mark.usefixtures("as_it_looks")
def test_augmentation_moves_image_and_mask_together(faces: PackedFaces) -> None:
    images, ids = FaceSampler([faces], [1.0], 48, torch.Generator().manual_seed(1)).draw(8)
    shades = torch.nn.functional.avg_pool2d((images[:, 0] + 1) * 127.5, 2) / 20
    # Cells on a border mix two parts; all others must agree.
    assert ((shades - ids).abs() < 0.5).float().mean() > 0.75


def test_batches_are_replayed_by_the_stored_generator(faces: PackedFaces) -> None:
    generator = torch.Generator().manual_seed(2)
    sampler = FaceSampler([faces, faces], [3.0, 1.0], 32, generator)
    state = generator.get_state()
    first = sampler.draw(4)
    generator.set_state(state)
    again = sampler.draw(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (4, 3, 32, 32)
    assert first[1].shape == (4, 16, 16)
    assert first[0].abs().max() <= 1
    with pytest.raises(ValueError, match="one positive share"):
        FaceSampler([faces], [1.0, 1.0], 32, generator)


def test_jpeg_blocks_with_fine_steps_change_nothing() -> None:
    x = torch.rand(2, 3, 16, 24)
    torch.testing.assert_close(jpeg_blocks(x, torch.full((2, 1, 1, 1), 1e-5)), x, atol=1e-3, rtol=0)
    assert (jpeg_blocks(x, torch.full((2, 1, 1, 1), 0.1)) - x).abs().mean() > 0.01


def test_loss_equals_its_definition() -> None:
    scores, ids = torch.randn(2, 5, 4, 4), torch.randint(0, 4, (2, 4, 4))  # part 4 is not shown
    weights = torch.tensor([1.0, 2.0, 1.0, 3.0, 1.0])
    one_hot = torch.nn.functional.one_hot(ids, 5).permute(0, 3, 1, 2).float()
    p = scores.softmax(dim=1)
    dice = (2 * (p * one_hot).sum((0, 2, 3)) + 1) / (p.sum((0, 2, 3)) + one_hot.sum((0, 2, 3)) + 1)
    expected = torch.nn.functional.cross_entropy(scores, ids, weights) + 0.7 * (1 - dice[:4]).mean()
    torch.testing.assert_close(parsing_loss(scores, ids, weights, 0.7), expected)


def test_pixels_to_ignore_do_not_count() -> None:
    scores, ids = torch.randn(1, 5, 4, 8), torch.randint(0, 5, (1, 4, 8))
    weights = torch.tensor([1.0, 2.0, 1.0, 3.0, 1.0])
    expected = parsing_loss(scores[..., :4], ids[..., :4], weights, 0.7)
    ids[..., 4:] = parser_eval.IGNORE
    torch.testing.assert_close(parsing_loss(scores, ids, weights, 0.7), expected)
    assert torch.isfinite(parsing_loss(scores, torch.full_like(ids, parser_eval.IGNORE), weights, 0.7))


def test_training_resumes_exactly(faces: PackedFaces, tmp_path: Path) -> None:
    config = TrainingConfig(images=16, batch=4, sizes=((0.5, 32), (0.5, 48)))

    def fresh() -> ParserTrainer:
        return ParserTrainer(config, TINY, [faces], [1.0])

    whole, parts = fresh(), fresh()
    for _ in range(4):
        whole.step()
    for _ in range(2):
        parts.step()
    parts.save(tmp_path / "state.safetensors")
    resumed = fresh()
    resumed.restore(tmp_path / "state.safetensors")
    for _ in range(2):
        resumed.step()
    assert (resumed.steps, resumed.shown, resumed.progress) == (4, 16, 1.0)
    for kind in ("model", "average"):
        expected, got = getattr(whole, kind).state_dict(), getattr(resumed, kind).state_dict()
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, msg=name)
    with pytest.raises(ValueError, match="without --resume"):
        fresh().restore(tmp_path / "none")
    with pytest.raises(ValueError, match="another --state"):
        ParserTrainer(config, ParserConfig(32, (4, 4, 4)), [faces], [1.0]).restore(tmp_path / "state.safetensors")


def test_a_run_starts_from_trained_weights_at_another_size(tmp_path: Path, faces: PackedFaces) -> None:
    def fresh(size: int, widths: tuple[int, ...] = TINY.widths) -> ParserTrainer:
        return ParserTrainer(TrainingConfig(sizes=((1.0, size),)), ParserConfig(size, widths), [faces], [1.0])

    first = fresh(32)
    first.step()
    save_parser(tmp_path / "p.safetensors", first.result(), Provenance())
    again = fresh(48)
    again.start_from(tmp_path / "p.safetensors")
    assert again.model.config.size == 48 and again.steps == 0
    for name, value in first.average.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=2e-3, atol=2e-3)  # half precision
        torch.testing.assert_close(again.average.state_dict()[name], again.model.state_dict()[name])
    with pytest.raises(ValueError, match="--widths"):
        fresh(32, (4, 4, 4)).start_from(tmp_path / "p.safetensors")
    assert [size for _, size in growing_sizes(224)] == [160, 192, 224]


def test_the_result_is_free_of_the_loss_weights(faces: PackedFaces) -> None:
    trainer = ParserTrainer(TrainingConfig(sizes=((1.0, 32),)), TINY, [faces], [1.0])
    photo = torch.rand(1, 3, 32, 32)
    shift = trainer.average(photo) - trainer.result()(photo)
    torch.testing.assert_close(shift, trainer.weights.log()[:, None, None].expand_as(shift))


def test_schedule_follows_the_clock() -> None:
    config = TrainingConfig(sizes=((0.5, 64), (0.5, 96)), warmup=0.1)
    assert [config.size_at(p) for p in (0, 0.49, 0.51, 1.2)] == [64, 64, 96, 96]
    rates = [config.lr_at(p) for p in (0, 0.05, 0.1, 0.5, 1.0, 1.1)]
    assert max(rates) == rates[2]
    assert 0 < rates[5] <= rates[4] < rates[3] < rates[2]
    with pytest.raises(ValueError, match="add up to 1"):
        TrainingConfig(sizes=((0.5, 64),))


def test_scores_of_a_known_confusion() -> None:
    confusion = torch.tensor([[8, 2, 0], [0, 5, 0], [0, 0, 0]])
    scores = agreement(confusion, ("a", "b", "c"))
    assert scores.accuracy == pytest.approx(13 / 15)
    assert scores.iou["a"] == pytest.approx(8 / 10)
    assert scores.iou["b"] == pytest.approx(5 / 7)
    assert math.isnan(scores.iou["c"])
    assert scores.mean_iou == pytest.approx((8 / 10 + 5 / 7) / 2)


def test_rotation_turns_image_and_mask_alike(faces: PackedFaces) -> None:
    images = torch.from_numpy(faces.images[:2]).permute(0, 3, 1, 2).float() / 127.5 - 1
    turned, ids = parser_eval.rotation(15)(images, torch.from_numpy(faces.masks[:2]), 0)
    inside = ids != parser_eval.IGNORE
    assert 0.5 < inside.float().mean() < 1
    shades = (turned[:, 0] + 1) * 127.5 / 20
    assert ((shades - ids)[inside].abs() < 0.5).float().mean() > 0.7


def test_command_line_trains_and_evaluates(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "parser.safetensors"
    arguments = ["--data", str(folder), "--out", str(out), "--hold-out", "2", "--cache", str(tmp_path / "cache")]
    budget = ["--images", "2", "--batch", "2", "--widths", "4", "6", "8"]
    budget += ["--state", str(tmp_path / "state.safetensors")]
    main(arguments + budget)
    assert main([*arguments, "--hold-out", "2", "2", *budget]) == 2
    assert "one per folder" in capsys.readouterr().err
    main([*arguments, "--evaluate"])
    printed = capsys.readouterr().out
    assert "| earring |" in printed
    assert "20° tilt" in printed
    assert load_parser(out).config == ParserConfig(widths=(4, 6, 8))


def test_parsers_are_averaged_by_their_shares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parsers = [FaceParser(TINY).eval() for _ in range(3)]
    mean = average_parsers(parsers, [2.0, 1.0, 1.0])
    for name, value in mean.state_dict().items():
        expected = [parser.state_dict()[name] for parser in parsers]
        torch.testing.assert_close(
            value, expected[0] / 2 + expected[1] / 4 + expected[2] / 4 if value.is_floating_point() else expected[2]
        )
    files = [str(tmp_path / f"{index}.safetensors") for index in range(2)]
    for file, parser in zip(files, parsers, strict=False):
        save_parser(file, parser, Provenance(data=("faces",), licence="none", images_seen=5))
    out = tmp_path / "mean.safetensors"
    assert average_main([*files, "--shares", "3", "1", "--out", str(out)]) == 0
    stored = load_parser(out).head.weight
    torch.testing.assert_close(stored, 0.75 * parsers[0].head.weight + 0.25 * parsers[1].head.weight, atol=1e-3, rtol=0)
    assert hashlib.sha256(out.read_bytes()).hexdigest() in capsys.readouterr().out
    assert average_main([files[0], "--shares", "0", "--out", str(out)]) == 2
    with pytest.raises(ValueError, match="different widths"):
        average_parsers([parsers[0], FaceParser(ParserConfig(32, (4, 4, 4)))], [1.0, 1.0])


def test_odds_of_an_overdrawn_part_are_divided(tmp_path: Path) -> None:
    parser, photo = FaceParser(TINY).eval(), torch.rand(1, 3, 32, 32) * 2 - 1
    file, out = tmp_path / "p.safetensors", tmp_path / "q.safetensors"
    save_parser(file, parser, Provenance())
    assert average_main([str(file), "--drawn", "hat=4", "--out", str(out)]) == 0
    before, after = (load_parser(path)(photo)[0] for path in (file, out))
    hat = FACE_PARTS.index("hat")
    expected = torch.zeros(len(FACE_PARTS))
    expected[hat] = -math.log(4)
    torch.testing.assert_close((after - before).mean(dim=(1, 2)), expected, atol=2e-3, rtol=0)  # half precision
    assert average_main([str(file), "--drawn", "hat=0", "--out", str(out)]) == 2
    assert average_main([str(file), "--drawn", "wig=2", "--out", str(out)]) == 2


def test_the_bundled_parser() -> None:
    if not DEFAULT_WEIGHTS.is_file():
        pytest.skip("the weights are not here")
    assert DEFAULT_WEIGHTS.stat().st_size <= 8e6
    parser = load_parser()
    # A drawn face: skin, eyes and mouth where an aligned face has them, on a plain ground.
    canvas = np.full((256, 256, 3), (60, 90, 140), np.uint8)
    rows, columns = np.mgrid[:256, :256]

    def ellipse(y: int, x: int, h: int, w: int, color: tuple[int, int, int]) -> None:
        canvas[((rows - y) / h) ** 2 + ((columns - x) / w) ** 2 < 1] = color

    ellipse(110, 128, 105, 85, (60, 35, 20))
    ellipse(145, 128, 85, 60, (225, 175, 150))
    for x in (103, 153):
        ellipse(122, x, 5, 11, (245, 245, 245))
        ellipse(122, x, 5, 5, (40, 30, 30))
        ellipse(106, x, 3, 15, (60, 35, 20))
    ellipse(180, 128, 8, 24, (190, 60, 70))
    found = parser.parse(torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 127.5 - 1)
    places = {"background": (8, 8), "skin": (150, 90), "eyes": (122, 103), "mouth": (180, 128)}
    seen = {name: FACE_PARTS.names[int(found.ids[0, y, x])] for name, (y, x) in places.items()}
    assert seen == {name: name for name in places}
