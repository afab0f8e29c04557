"""Several folders as one face set, faces that are shown more often, and faces reduced while they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from memorygan.training.data import DataError, PackedDataset, ResumableSampler
from memorygan.training.mixture import MixedSource
from memorygan.training.packing import prepare, split_names
from memorygan.training.prepare import main
from memorygan.training.procedural import ProceduralSource
from memorygan.training.rarity import read_labels, showing_weight
from memorygan.training.resample import resize_image, resize_mask
from memorygan.training.sources import detect, open_source

SIZE = 16
GLASSES = 10


def make_folder(root: Path, count: int, glasses: tuple[int, ...] = (), masks: bool = True) -> Path:
    random = np.random.RandomState(len(root.name))
    for folder in ("images", "masks") if masks else ("images",):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        pixels = random.randint(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{index:05d}.png")
        if masks:
            ids = np.ones((SIZE, SIZE), np.uint8)
            ids[4:6, 3:13] = GLASSES if index in glasses else 1
            Image.fromarray(ids).save(root / "masks" / f"{index:05d}.png")
    return root


def test_several_folders_make_one_pack_with_a_split_of_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = make_folder(tmp_path / "a", 6), make_folder(tmp_path / "bb", 9)
    command = [str(a), str(b), "--name", "both", "--size", str(SIZE), "--out", str(tmp_path / "out")]
    assert main([*command, "--holdout", "2", "1/4"]) == 0
    train, val = (PackedDataset.open(tmp_path / "out" / f"both-16-{split}.pack") for split in ("train", "val"))
    assert val.header.names == ("a/00004", "a/00005", "bb/00001", "bb/00005")
    assert len(train) == 11 and train.header.names[-1] == "bb/00008"
    with Image.open(b / "images" / "00008.png") as picture:
        assert np.array_equal(train.images()[-1].permute(1, 2, 0).numpy(), np.asarray(picture))
    assert train.header.weights == () and train.header.plan.kind == "pairs"
    assert "folder a" in train.header.plan.source and "folder bb" in train.header.plan.source
    assert main([*command, "--holdout", "2", "1/4"]) == 0  # finished already
    capsys.readouterr()
    everything = [*command[:-1], str(tmp_path / "all"), "--holdout", "0"]
    assert main(everything) == 0 and not list((tmp_path / "all").glob("*-val.pack"))
    assert len(PackedDataset.open(tmp_path / "all" / "both-16-train.pack")) == 15
    capsys.readouterr()
    assert main([*command, "--holdout", "1", "1", "1"]) == 2
    assert "3 values for 2 folders" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(a), str(b), "--out", str(tmp_path)])
    assert "--name" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--holdout", "4/4"])
    assert "remainder must be below the divisor" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--holdout", "few"])
    assert "neither a number of faces nor a remainder" in capsys.readouterr().err
    assert main([str(a), "--out", str(tmp_path), "--holdout", "1", "2"]) == 2
    assert "2 values for one folder" in capsys.readouterr().err


def test_folders_of_one_name_and_rules_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    a = make_folder(tmp_path / "a", 3)
    again = make_folder(tmp_path / "other" / "a", 3)
    with pytest.raises(DataError, match="same name"):
        MixedSource([a, again])
    with pytest.raises(DataError, match="every face is held out by 0/1"):
        split_names(open_source(a), (0, 1))
    (a / "images" / "nobody.png").write_bytes((a / "images" / "00000.png").read_bytes())
    with pytest.raises(DataError, match="nobody has no number"):
        split_names(open_source(a), (1, 4))


def test_a_folder_of_images_without_masks_is_parsed(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "photos", 3, masks=False)
    assert detect(root) == "images"
    assert open_source(root).names() == ["00000", "00001", "00002"]


def test_rare_faces_are_shown_more_often(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "faces", 5, glasses=(1,))
    (root / "attributes.csv").write_text("id,age,yaw,beard\n00002,71,-2.0,0.1\n00003,30,1.0,oops\n00004,30,-31,0.9\n")
    paths = prepare(open_source(root), tmp_path / "out", "x", SIZE, holdout=1, balance=True)
    train = PackedDataset.open(paths["train"])
    assert train.header.weights == (1.0, 2.0, 2.0, 1.0)
    assert PackedDataset.open(paths["val"]).header.weights == ()  # measured as they are
    assert showing_weight({}, read_labels(root)["00004"]) == 1.5  # the rarest trait counts, not their product


def test_labels_that_are_no_table_are_named(tmp_path: Path) -> None:
    (tmp_path / "attributes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"attributes\.csv cannot be read"):
        read_labels(tmp_path)
    (tmp_path / "attributes.csv").write_text("")
    assert read_labels(tmp_path) == {}


def test_an_epoch_shows_faces_by_their_weights_and_resumes_anywhere() -> None:
    weights = [1.0, 2.0, 1.5, 1.0]
    sampler = ResumableSampler(4, seed=3, weights=weights)
    seen = torch.cat([sampler.take(5)[0] for _ in range(2200)])
    share = torch.bincount(seen, minlength=4) / len(seen)
    assert torch.allclose(share, torch.tensor(weights) / sum(weights), atol=0.01)
    first = ResumableSampler(4, seed=3, weights=weights)
    for _ in range(7):
        first.take(3)
    again = ResumableSampler(4, seed=3, weights=weights)
    again.load_state_dict(first.state_dict())
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(first.take(3), again.take(3), strict=True))
    with pytest.raises(DataError, match="at least 1 for every face"):
        ResumableSampler(4, weights=[1.0, 0.5, 1.0, 1.0])
    with pytest.raises(DataError, match="at least 1 for every face"):
        ResumableSampler(4, weights=[1.0])


def test_a_larger_pack_is_reduced_while_it_is_read(tmp_path: Path) -> None:
    path = prepare(ProceduralSource(3, size=64), tmp_path, "a", 64, holdout=0)["train"]
    large, small = PackedDataset.open(path), PackedDataset.open(path, resolution=32)
    assert (large.resolution, small.resolution, small.header.plan.resolution) == (64, 32, 64)
    picture = Image.fromarray(large.images()[1].permute(1, 2, 0).numpy())
    assert np.array_equal(small.images()[1].permute(1, 2, 0).numpy(), np.asarray(resize_image(picture, 32)))
    assert np.array_equal(small.masks()[1].numpy(), resize_mask(large.masks()[1].numpy(), 32))
    with pytest.raises(DataError, match="64 pixels wide, 128 are needed; prepare them with --size 128"):
        PackedDataset.open(path, resolution=128)
