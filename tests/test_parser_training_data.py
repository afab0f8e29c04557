"""What the parser is trained on beside annotated photos: drawn composites, and labels that two views agree on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from memorygan.checkpoint import Provenance
from memorygan.parser import FaceParser, ParsedFaces, ParserConfig, save_parser
from memorygan.parts import FACE_PARTS
from memorygan.training import parser_checks
from memorygan.training import parser_composites as composites
from memorygan.training.parser_composites import IGNORE
from memorygan.training.parser_data import pack
from memorygan.training.parser_label import doubts, held_out, label_folder, labels, main, view_probabilities

ID = {name: FACE_PARTS.index(name) for name in FACE_PARTS.names}
SIZE = 128


def drawn_face() -> tuple[np.ndarray, np.ndarray]:
    """A face of flat colours: hair around an oval of skin, two eyes under brows, nose, mouth, neck and clothes."""
    ys, xs = np.mgrid[0:SIZE, 0:SIZE]

    def oval(x: float, y: float, width: float, height: float) -> np.ndarray:
        return ((xs - x) / width) ** 2 + ((ys - y) / height) ** 2 < 1

    ids = np.zeros((SIZE, SIZE), np.uint8)
    ids[(ys > 108) & (np.abs(xs - 64) < 56)] = ID["cloth"]
    ids[(ys > 90) & (ys <= 112) & (np.abs(xs - 64) < 16)] = ID["neck"]
    ids[oval(64, 52, 44, 48)] = ID["hair"]
    ids[oval(64, 64, 32, 42)] = ID["skin"]
    for x in (50, 78):
        ids[oval(x, 56, 8, 4)] = ID["eyes"]
        ids[oval(x, 46, 9, 2)] = ID["eyebrows"]
    ids[oval(64, 68, 5, 10)] = ID["nose"]
    ids[oval(64, 86, 11, 5)] = ID["mouth"]
    colours = np.random.default_rng(0).integers(40, 220, (len(FACE_PARTS), 3))
    return colours[ids].astype(np.uint8), ids


@pytest.mark.parametrize(
    ("name", "grows", "shrinks"),
    [
        ("glasses", "eyeglass", "skin"),
        ("closed_eyes", None, "eyes"),
        ("surgical_mask", "cloth", "mouth"),
        ("beard", "skin", None),
        ("occluder", "background", None),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_a_composite_changes_picture_and_labels_together(
    name: str, grows: str | None, shrinks: str | None, seed: int
) -> None:
    image, ids = drawn_face()
    before = image.copy(), ids.copy()
    put = composites.COMPOSITES[name][1]
    new_image, new_ids = put(image, ids, np.random.default_rng(seed))
    assert np.array_equal(image, before[0]) and np.array_equal(ids, before[1])  # the packed face is not written to
    assert new_image.shape == image.shape and new_image.dtype == np.uint8
    assert new_ids.shape == ids.shape and new_ids.dtype == np.uint8
    changed = (new_image != image).any(axis=2)
    relabelled = new_ids != ids
    assert relabelled.any()
    assert changed[relabelled].mean() > 0.5  # a thing may have the colour of what it hides
    if grows:
        assert (new_ids == ID[grows]).sum() > (ids == ID[grows]).sum()
    if shrinks:
        assert (new_ids == ID[shrinks]).sum() < (ids == ID[shrinks]).sum()
    again = put(image, ids, np.random.default_rng(seed))
    assert np.array_equal(again[0], new_image) and np.array_equal(again[1], new_ids)


@pytest.mark.parametrize("seed", range(4))
def test_closed_eyes_are_still_eyes(seed: int) -> None:
    image, ids = drawn_face()
    _, new_ids = composites.closed_eyes(image, ids, np.random.default_rng(seed))
    for side in (slice(0, SIZE // 2), slice(SIZE // 2, SIZE)):
        assert 10 < (new_ids[:, side] == ID["eyes"]).sum() <= (ids[:, side] == ID["eyes"]).sum()
    outside = (ids == ID["mouth"]) | (ids == ID["hair"])
    assert np.array_equal(new_ids[outside], ids[outside])


def test_eyes_are_seen_through_clear_lenses_and_not_through_black_ones() -> None:
    image, ids = drawn_face()
    seen = {int((composites.glasses(image, ids, np.random.default_rng(s))[1] == ID["eyes"]).sum()) for s in range(20)}
    assert min(seen) == 0
    assert max(seen) > 0.6 * (ids == ID["eyes"]).sum()


@pytest.mark.parametrize("name", composites.COMPOSITES)
def test_faces_without_the_parts_come_back_as_they_are(name: str) -> None:
    image, ids = drawn_face()
    blank = np.full_like(ids, IGNORE)
    new_image, new_ids = composites.COMPOSITES[name][1](image, blank, np.random.default_rng(0))
    if name != "occluder":  # which needs no face
        assert new_image is image and new_ids is blank


def test_chances_are_multiplied() -> None:
    image, ids = drawn_face()
    assert composites.dress(image, ids, np.random.default_rng(0), 0.0)[1] is ids
    every = composites.dress(image, ids, np.random.default_rng(0), 1000.0)[1]
    assert {ID["cloth"], ID["eyeglass"]} <= set(np.unique(every).tolist())


class Painter(FaceParser):
    """Says hair where a pixel is dark and skin elsewhere, but falls for shade: a dim pixel is hair in a darker view."""

    def __init__(self) -> None:
        super().__init__(ParserConfig(32, (4, 6)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        light = torch.nn.functional.avg_pool2d(images.mean(dim=1, keepdim=True), 2)
        scores = torch.full((len(images), len(FACE_PARTS), 16, 16), -10.0)
        scores[:, ID["hair"]] = -20 * light[:, 0]
        scores[:, ID["skin"]] = 20 * light[:, 0]
        return scores


def test_what_the_views_disagree_on_is_left_out() -> None:
    picture = torch.full((1, 3, 32, 32), 0.9)
    picture[..., :12] = -0.9
    picture[..., 12:20] = 0.1  # bright enough as it is, not in the darker view
    found, probabilities = labels(*view_probabilities(Painter().eval(), picture), 32)
    assert probabilities.shape == (1, len(FACE_PARTS), 32, 32)
    middle = found[0, 12:20]
    assert (middle[:, 2:9] == ID["hair"]).all()
    assert (middle[:, 14:18] == IGNORE).all()
    assert (middle[:, 24:30] == ID["skin"]).all()


def probabilities_of(ids: np.ndarray) -> np.ndarray:
    return np.eye(len(FACE_PARTS), dtype=np.float32)[ids].transpose(2, 0, 1).copy()


def test_a_sound_face_keeps_its_labels() -> None:
    _, ids = drawn_face()
    assert np.array_equal(
        doubts(ids, probabilities_of(ids), {"glasses": "NoGlasses", "headwear": "0", "beard": "0"}), ids
    )


def test_a_missing_eye_is_not_taught_as_skin() -> None:
    _, ids = drawn_face()
    blind = ids.copy()
    blind[:, : SIZE // 2][ids[:, : SIZE // 2] == ID["eyes"]] = ID["skin"]
    clean = doubts(blind, probabilities_of(blind), {})
    lost = (ids == ID["eyes"]) & (blind == ID["skin"])
    assert (clean[lost] == IGNORE).all()
    assert np.array_equal(clean[:, SIZE // 2 :], blind[:, SIZE // 2 :])


def test_reported_glasses_and_hats_are_not_taught_away() -> None:
    _, ids = drawn_face()
    probabilities = probabilities_of(ids)
    probabilities[ID["eyeglass"], 54:58, 60:68] = 0.3  # a bridge, faintly seen
    probabilities[ID["hat"], 8:14, 50:70] = 0.4
    clean = doubts(ids, probabilities, {"glasses": "ReadingGlasses", "headwear": "0.98"})
    assert (clean[54:58, 60:68] == ID["eyeglass"]).all()
    assert (clean[56, 59] == IGNORE) and (clean[8:14, 50:70] == ID["hat"]).all()
    assert (clean[20][ids[20] == ID["hair"]] == IGNORE).all()
    assert np.array_equal(clean[90:], ids[90:])


def test_a_beard_is_no_cloth_and_a_surgical_mask_is() -> None:
    _, ids = drawn_face()
    wrong = ids.copy()
    wrong[76:80, 54:74] = ID["cloth"]
    assert (doubts(wrong, probabilities_of(wrong), {"beard": "0.6"})[76:80, 54:74] == ID["skin"]).all()
    assert (doubts(wrong, probabilities_of(wrong), {})[76:80, 54:74] == IGNORE).all()
    masked = ids.copy()
    masked[72:100, 40:88] = ID["cloth"]
    assert np.array_equal(doubts(masked, probabilities_of(masked), {})[72:100, 40:88], masked[72:100, 40:88])
    masked[72:100, 40:88] = ID["skin"]  # the mask taken for skin: not to be learned
    assert (doubts(masked, probabilities_of(masked), {})[72:100, 40:88] == IGNORE).all()


def test_folders_are_labelled_but_for_the_faces_held_out(tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    (folder / "images").mkdir(parents=True)
    for name in ("00006", "00007", "00008"):
        Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(folder / "images" / f"{name}.png")
    (folder / "attributes.csv").write_text("name,glasses\n00006,NoGlasses\n")
    assert [held_out(name) for name in ("00007", "00107", "00027", "portrait")] == [True, True, True, False]
    weights = tmp_path / "parser.safetensors"
    save_parser(weights, FaceParser(ParserConfig(32, (4, 6))), Provenance())
    out = tmp_path / "labelled"
    main(["--data", str(folder), "--out", str(out), "--weights", str(weights)])
    assert sorted(path.stem for path in (out / "faces" / "masks").iterdir()) == ["00006", "00008"]
    assert label_folder(FaceParser(ParserConfig(32, (4, 6))).eval(), folder, out) == 0  # done already
    assert len(pack(out / "faces", tmp_path / "cache", size=64)) == 2


def test_drawn_checks_count_only_the_faces_they_change() -> None:
    image, ids = drawn_face()
    pictures = torch.from_numpy(np.stack([image, image])).permute(0, 3, 1, 2).float() / 127.5 - 1
    masks = torch.from_numpy(np.stack([ids, np.zeros_like(ids)]))
    for part, condition in parser_checks.DRAWN.values():
        changed, truth = condition(pictures, masks, 0)
        assert changed.shape == pictures.shape and changed.abs().max() <= 1
        assert (truth[0] == ID[part]).any()
        assert (truth[1] == IGNORE).all()
        assert not torch.equal(changed[0], pictures[0])


def test_photo_checks_name_what_was_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = drawn_face()
    names = {name for check in parser_checks.CHECKS.values() for name in check.photos}
    assert all(held_out(name.split("/")[1]) for name in names)  # never trained on
    for name in names:
        path = tmp_path / name.replace("/", "/images/")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path.with_suffix(".png"))
    parser = FaceParser(ParserConfig(32, (4, 6))).eval()
    sound = Image.fromarray(drawn_face()[1]).resize((256, 256), Image.Resampling.NEAREST)
    ids = torch.from_numpy(np.array(sound))[None]
    monkeypatch.setattr(FaceParser, "parse", lambda self, photos: ParsedFaces(ids, torch.zeros(1)))
    results = parser_checks.check_photos(parser, tmp_path)
    assert results["closed or lowered eyes"][0] == results["closed or lowered eyes"][1] > 0
    found, of, missed = results["hats and caps"]
    assert found == 0 and len(missed) == of and missed[0].startswith("ffhq/")
    with pytest.raises(ValueError, match="no photo ffhq/"):
        parser_checks.check_photos(parser, tmp_path / "nowhere")
