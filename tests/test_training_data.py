"""Packed face sets: preparing, reading, sampling; every refusal; drawn faces."""

from __future__ import annotations

import errno
import io
import json
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from memorygan.checkpoint import load_generator
from memorygan.generator import MemoryGAN
from memorygan.manifest import default_checkpoint
from memorygan.parser import ParsedFaces
from memorygan.parts import CELEBAMASK_PAINT_ORDER, FACE_PARTS
from memorygan.training import packing, sources
from memorygan.training.cartoon import draw_face, roll_traits
from memorygan.training.data import DataError, PackedDataset, ResumableSampler, mirror
from memorygan.training.heap import trim
from memorygan.training.packfile import FOOTER, PackPlan
from memorygan.training.packing import contact_sheet, prepare, split_names
from memorygan.training.packwriter import PackWriter
from memorygan.training.prepare import main
from memorygan.training.procedural import ProceduralSource
from memorygan.training.resample import resize_image, resize_mask
from memorygan.training.sources import CelebAMaskSource, PairSource, ParsedSource, detect, open_source

SIZE = 16


def face_pixels(index: int, size: int = SIZE) -> np.ndarray:
    random = np.random.RandomState(index)
    return random.randint(0, 256, size=(size, size, 3)).astype(np.uint8)


def face_ids(index: int, size: int = SIZE) -> np.ndarray:
    return np.random.RandomState(1000 + index).randint(0, 13, size=(size, size)).astype(np.uint8)


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make_pairs(root: Path, count: int = 6, size: int = SIZE) -> Path:
    for i in range(count):
        save(face_pixels(i, size), root / "images" / f"{i:05d}.png")
        save(face_ids(i, size), root / "masks" / f"{i:05d}.png")
    return root


def pack(root: Path, out: Path, **options) -> dict[str, Path]:
    settings = {"size": SIZE, "holdout": 2, **options}
    return prepare(open_source(root), out, "set", **settings)


# --- round trip -------------------------------------------------------------------------------------------------------


def test_pairs_come_back_exactly_when_stored_lossless(tmp_path):
    paths = pack(make_pairs(tmp_path / "faces"), tmp_path / "out")
    train, val = PackedDataset.open(paths["train"]), PackedDataset.open(paths["val"])
    assert (len(train), len(val), train.resolution) == (4, 2, SIZE)
    assert (train.header.plan.split, val.header.plan.split) == ("train", "val")
    assert train.part_names == FACE_PARTS.names
    assert val.header.names == ("00004", "00005")
    assert train.images().shape == (4, 3, SIZE, SIZE) and train.images().dtype == torch.uint8
    assert train.masks().shape == (4, SIZE, SIZE) and train.masks().dtype == torch.uint8
    for i in range(4):
        assert np.array_equal(train.images()[i].permute(1, 2, 0).numpy(), face_pixels(i))
        assert np.array_equal(train.masks()[i].numpy(), face_ids(i))


def test_some_faces_are_those_of_the_whole_set(tmp_path):
    dataset = PackedDataset.open(pack(make_pairs(tmp_path / "faces"), tmp_path / "out")["train"])
    assert torch.equal(dataset.images([3, 1]), dataset.images()[[3, 1]])
    assert torch.equal(dataset.masks([3, 1]), dataset.masks()[[3, 1]])


def test_the_chosen_faces_are_mirrored(tmp_path):
    dataset = PackedDataset.open(pack(make_pairs(tmp_path / "faces"), tmp_path / "out")["train"])
    images, masks = dataset.images(), dataset.masks()
    mirrored = mirror(images, masks, torch.tensor([True, False, False, False]))
    assert torch.equal(mirrored[0][0], images[0].flip(-1)) and torch.equal(mirrored[1][0], masks[0].flip(-1))
    assert torch.equal(mirrored[0][1:], images[1:]) and torch.equal(mirrored[1][1:], masks[1:])


def test_header_counts_the_parts(tmp_path):
    dataset = PackedDataset.open(pack(make_pairs(tmp_path / "faces"), tmp_path / "out")["train"])
    counts = torch.bincount(dataset.masks().flatten().long(), minlength=13).double()
    assert np.allclose(dataset.header.frequency, (counts / counts.sum()).numpy())
    seen = torch.stack([(dataset.masks() == part).flatten(1).any(1).double().mean() for part in range(13)])
    assert np.allclose(dataset.header.presence, seen.numpy())
    assert dataset.header.plan.kind == "pairs" and len(dataset.header.sha256) == 64


def test_lossy_storage_is_close_and_smaller(tmp_path):
    source = ProceduralSource(3, size=64)
    lossless = prepare(source, tmp_path, "a", 64, holdout=0)["train"]
    lossy = prepare(source, tmp_path, "b", 64, holdout=0, encoding="webp 95")["train"]
    exact, close = PackedDataset.open(lossless), PackedDataset.open(lossy)
    assert lossy.stat().st_size < lossless.stat().st_size
    assert torch.equal(exact.masks(), close.masks())
    error = (exact.images().float() - close.images().float()).abs().mean()
    assert 0 < error < 4


def test_mirror_flips_only_the_chosen():
    images, masks = torch.arange(2 * 3 * 4).reshape(2, 3, 1, 4), torch.arange(8).reshape(2, 1, 4)
    flipped, ids = mirror(images, masks, torch.tensor([False, True]))
    assert torch.equal(flipped[0], images[0]) and torch.equal(flipped[1], images[1].flip(-1))
    assert ids.tolist() == [[[0, 1, 2, 3]], [[7, 6, 5, 4]]]


# --- files that are not what they should be ---------------------------------------------------------------------------


@pytest.fixture
def packed(tmp_path) -> Path:
    return pack(make_pairs(tmp_path / "faces"), tmp_path / "out")["train"]


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none.pack: No such file"):
        PackedDataset.open(tmp_path / "none.pack")
    for content in (b"", b"PK\x03\x04 something else entirely"):
        (tmp_path / "foreign.pack").write_bytes(content)
        with pytest.raises(DataError, match=r"is not a packed face file"):
            PackedDataset.open(tmp_path / "foreign.pack")


def test_every_truncation_is_refused(packed):
    whole = packed.read_bytes()
    for length in (9, 30, len(whole) // 2, len(whole) - 1):
        packed.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"is incomplete"):
            PackedDataset.open(packed)
    packed.write_bytes(whole + b"\0")
    with pytest.raises(DataError, match=r"is incomplete"):
        PackedDataset.open(packed)


def test_a_changed_byte_is_found_wherever_it_lies(packed):
    whole = packed.read_bytes()
    index_at = FOOTER.unpack(whole[-FOOTER.size :])[0]
    for position in (index_at // 2, index_at - 1, index_at + 5):
        packed.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(DataError, match=r"is damaged"):
            PackedDataset.open(packed)


def rewrite_index(path: Path, change) -> None:
    """Give the file another index with a right checksum, as a forger would."""
    whole = path.read_bytes()
    start, length, _, end = FOOTER.unpack(whole[-FOOTER.size :])
    header = json.loads(whole[start : start + length])
    change(header)
    index = json.dumps(header).encode()
    path.write_bytes(whole[:start] + index + FOOTER.pack(start, len(index), zlib.crc32(index), end))


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.pop("names"),
        lambda header: header["offsets"].pop(),
        lambda header: header.update(offsets=[1e400] * 4),
        lambda header: header.update(presence=[]),
        lambda header: header.update(names=[], offsets=[]),
    ],
)
def test_a_forged_header_is_refused(packed, change):
    rewrite_index(packed, change)
    with pytest.raises(DataError, match=r"has an unreadable header"):
        PackedDataset.open(packed)


def test_offsets_outside_the_records_are_refused(packed):
    for offset in (-5, 10**12):
        rewrite_index(packed, lambda header, offset=offset: header["offsets"].__setitem__(0, offset))
        with pytest.raises(DataError, match=r"points outside the file"):
            PackedDataset.open(packed).images()


def write_pack(path: Path, image: bytes, mask: bytes) -> Path:
    plan = PackPlan(SIZE, "train", FACE_PARTS.names, "test", "pairs", "webp lossless", "0")
    with closing(PackWriter(path, plan)) as writer:
        writer.add("odd", image, mask)
        writer.finish(["odd"], [0.0] * 13, [0.0] * 13, [])
    return path


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def test_faces_that_do_not_fit_the_header_are_refused(tmp_path):
    image, mask = png(face_pixels(0)), png(face_ids(0))
    with pytest.raises(DataError, match=r"face odd .* cannot be decoded"):
        PackedDataset.open(write_pack(tmp_path / "a.pack", b"no picture", mask)).images()
    with pytest.raises(DataError, match=r"face odd .* expected RGB"):
        PackedDataset.open(write_pack(tmp_path / "b.pack", png(face_pixels(0, 8)), mask)).images()
    with pytest.raises(DataError, match=r"mask of odd .* unknown part id"):
        PackedDataset.open(write_pack(tmp_path / "c.pack", image, png(face_ids(0) + 13))).masks()


# --- the sampler ------------------------------------------------------------------------------------------------------


def test_an_epoch_shows_every_face_once_and_epochs_differ():
    sampler = ResumableSampler(10, seed=3)
    first, second = sampler.take(10), sampler.take(10)
    assert sorted(first[0].tolist()) == sorted(second[0].tolist()) == list(range(10))
    assert first[0].tolist() != second[0].tolist()
    assert first[0].dtype == torch.int64 and first[1].dtype == torch.bool


def test_the_order_is_frozen():
    # A changed order would silently break the resumption of every run started before the change.
    indices, flips = ResumableSampler(7, seed=1).take(9)
    assert indices.tolist() == [6, 3, 1, 4, 0, 2, 5, 6, 2]
    assert flips.int().tolist() == [1, 0, 1, 1, 1, 1, 0, 1, 1]


@pytest.mark.parametrize("steps", [0, 1, 3, 7])
def test_a_resumed_stream_continues_exactly(steps):
    straight = ResumableSampler(7, seed=5)
    for _ in range(steps):
        straight.take(3)
    resumed = ResumableSampler(7, seed=5)
    resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
    for _ in range(6):
        a, b = straight.take(3), resumed.take(3)
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_ranks_together_take_the_batch_of_one_process():
    alone = ResumableSampler(11, seed=2)
    ranks = [ResumableSampler(11, seed=2, rank=rank, world=3) for rank in range(3)]
    for _ in range(8):  # crosses two epoch borders
        together = [rank.take(4) for rank in ranks]
        whole = alone.take(12)
        assert torch.equal(torch.cat([part[0] for part in together]), whole[0])
        assert torch.equal(torch.cat([part[1] for part in together]), whole[1])


def test_a_run_may_resume_with_another_number_of_ranks():
    alone = ResumableSampler(11, seed=2)
    alone.take(6)
    pair = [ResumableSampler(11, seed=2, rank=rank, world=2) for rank in range(2)]
    for rank in pair:
        rank.load_state_dict(alone.state_dict())
    assert torch.equal(torch.cat([rank.take(3)[0] for rank in pair]), alone.take(6)[0])


def test_a_batch_may_be_larger_than_the_set():
    indices, _ = ResumableSampler(3).take(8)
    assert sorted(indices[:3].tolist()) == sorted(indices[3:6].tolist()) == [0, 1, 2]


def test_flips_are_even_and_can_be_switched_off():
    assert 0.4 < ResumableSampler(1000).take(1000)[1].float().mean() < 0.6
    unflipped = ResumableSampler(1000, flip=False)
    assert not unflipped.take(1000)[1].any()
    assert torch.equal(ResumableSampler(1000).take(1000)[0], ResumableSampler(1000, flip=False).take(1000)[0])


def test_the_sampler_refuses_what_it_cannot_do():
    for count, seed, rank, world in ((0, 0, 0, 1), (5, -1, 0, 1), (5, 0, 2, 2)):
        with pytest.raises(DataError):
            ResumableSampler(count, seed, rank, world)
    sampler = ResumableSampler(5, seed=1)
    state = sampler.state_dict()
    for key, value in (("count", 6), ("seed", 2), ("flip", 0)):
        with pytest.raises(DataError, match=f"saved with {key} {value}"):
            sampler.load_state_dict({**state, key: value})
    with pytest.raises(DataError, match=r"position 5 of 5"):
        sampler.load_state_dict({**state, "position": 5})
    with pytest.raises(DataError, match=r"not the state of a sampler"):
        sampler.load_state_dict({"epoch": 1})


# --- resampling -------------------------------------------------------------------------------------------------------


def test_the_area_vote_picks_the_majority():
    mask = np.array([[1, 1, 7, 7], [1, 0, 7, 1], [2, 2, 5, 5], [2, 2, 5, 5]], dtype=np.uint8)
    assert resize_mask(mask, 2).tolist() == [[1, 7], [2, 5]]


def test_a_tie_goes_to_the_smaller_part_so_thin_parts_survive():
    mask = np.ones((8, 8), dtype=np.uint8)
    mask[3] = 3  # an eyebrow one pixel thick: half of the pixels it crosses
    assert resize_mask(mask, 4).tolist() == [[1] * 4, [3] * 4, [1] * 4, [1] * 4]
    mask[:], mask[3] = 3, 1  # the other way round: the rule is size, not id
    assert resize_mask(mask, 4)[1].tolist() == [1] * 4


def test_ids_are_never_mixed():
    small = resize_mask(np.where(face_ids(0, 64) > 6, 12, 0).astype(np.uint8), 16)
    assert set(np.unique(small)) <= {0, 12}
    assert set(np.unique(resize_mask(small, 20))) <= {0, 12}


def test_images_are_area_filtered():
    checker = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    assert abs(np.asarray(resize_image(checker, 16)).astype(float) - 127.5).max() < 3


# --- raw CelebAMask-HQ ------------------------------------------------------------------------------------------------


def region(*rows: int) -> np.ndarray:
    picture = np.zeros((32, 32), dtype=np.uint8)
    picture[list(rows)] = 255
    return picture


def make_celeba(root: Path, indices: tuple[int, ...] = (0, 1, 27_999, 28_000, 29_999)) -> Path:
    for index in indices:
        save(face_pixels(index, 64), root / "CelebA-HQ-img" / f"{index}.jpg")
        folder = root / "CelebAMask-HQ-mask-anno" / str(index // 2000)
        for name in ("skin", "l_eye", "r_eye", "u_lip", "neck_l", "hair", "eye_g"):
            save(region(3 * CELEBAMASK_PAINT_ORDER.index(name) % 32), folder / f"{index:05d}_{name}.png")
    return root


def test_regions_are_merged_into_parts(tmp_path):
    root = make_celeba(tmp_path, (7,))
    _, mask = CelebAMaskSource(root).load("7")
    for name, part in (
        ("skin", 1),
        ("l_eye", 2),
        ("r_eye", 2),
        ("u_lip", 4),
        ("neck_l", 8),
        ("hair", 7),
        ("eye_g", 10),
    ):
        assert (mask[3 * CELEBAMASK_PAINT_ORDER.index(name) % 32] == part).all(), name
    assert (mask == 0).any()


def test_later_regions_are_painted_over_earlier_ones(tmp_path):
    anno = tmp_path / "CelebAMask-HQ-mask-anno" / "0"
    save(face_pixels(3, 64), tmp_path / "CelebA-HQ-img" / "3.jpg")
    save(region(*range(32)), anno / "00003_skin.png")
    save(region(4, 5, 6), anno / "00003_hair.png")
    save(region(5), anno / "00003_l_brow.png")  # under the hair
    save(region(8, 9), anno / "00003_eye_g.png")
    save(region(9), anno / "00003_l_eye.png")  # over the glasses
    save(region(6, 7), anno / "00003_cloth.png")  # over everything
    _, mask = CelebAMaskSource(tmp_path).load("3")
    assert mask[:, 0].tolist()[3:11] == [1, 7, 7, 9, 9, 10, 2, 1]


def test_celebamask_uses_its_own_split(tmp_path):
    root = make_celeba(tmp_path / "raw")
    assert detect(root) == "celebamask"
    assert split_names(open_source(root)) == {"train": ["0", "1", "27999"], "val": ["28000", "29999"]}
    assert split_names(open_source(root), holdout=1)["val"] == ["29999"]
    paths = prepare(open_source(root), tmp_path / "out", "celeba", SIZE)
    assert PackedDataset.open(paths["val"]).header.names == ("28000", "29999")
    assert PackedDataset.open(paths["train"]).header.plan.kind == "celebamask"


def test_a_part_of_celebamask_falls_back_to_a_tenth(tmp_path):
    root = make_celeba(tmp_path, tuple(range(20)))
    splits = split_names(open_source(root))
    assert splits["val"] == ["18", "19"] and splits["train"][:3] == ["0", "1", "2"]


def test_celebamask_faces_without_or_with_foreign_annotations_are_named(tmp_path):
    root = make_celeba(tmp_path, (0, 1, 2))
    save(face_pixels(9, 64), root / "CelebA-HQ-img" / "9.jpg")
    with pytest.raises(DataError, match=r"first 9: it has no annotation in CelebAMask-HQ-mask-anno"):
        prepare(open_source(root), tmp_path / "out", "x", SIZE)
    save(region(1), root / "CelebAMask-HQ-mask-anno" / "0" / "00009_beard.png")
    with pytest.raises(DataError, match=r"'beard' is none of CelebAMask-HQ's"):
        prepare(open_source(root), tmp_path / "out", "x", SIZE)
    save(face_pixels(9, 64), root / "CelebA-HQ-img" / "me.jpg")
    with pytest.raises(DataError, match=r"holds me, but CelebAMask-HQ names are numbers"):
        open_source(root)


def test_celebamask_regions_of_different_size_are_refused(tmp_path):
    root = make_celeba(tmp_path, (0,))
    save(np.zeros((16, 16), dtype=np.uint8), root / "CelebAMask-HQ-mask-anno" / "0" / "00000_hat.png")
    with pytest.raises(sources.UnusableFace, match=r"00000_hat.png is 16x16, unlike"):
        CelebAMaskSource(root).load("0")


# --- what a folder may hold -------------------------------------------------------------------------------------------


def test_kinds_are_detected(tmp_path):
    assert detect(make_pairs(tmp_path / "pairs")) == "pairs"
    assert detect(tmp_path / "pairs" / "images") == "images"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"is no face set: expected CelebA-HQ-img"):
        detect(tmp_path / "empty")
    with pytest.raises(DataError, match=r"nowhere is not a folder"):
        detect(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"unknown kind 'video'"):
        open_source(tmp_path / "pairs", "video")
    assert isinstance(open_source(tmp_path / "pairs" / "images", "images"), ParsedSource)


def test_an_empty_images_folder_is_refused(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    with pytest.raises(DataError, match=r"images holds no images"):
        open_source(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path):
    root = make_pairs(tmp_path)
    save(face_pixels(0), root / "images" / "00000.bmp")
    with pytest.raises(DataError, match=r"holds both 00000.bmp and 00000.png: names must be unique"):
        open_source(root)


def test_unreadable_files_are_skipped_and_listed(tmp_path):
    root = make_pairs(tmp_path / "faces")
    (root / "images" / "00001.png").write_bytes(b"\x89PNG broken")
    cut = (root / "masks" / "00002.png").read_bytes()
    (root / "masks" / "00002.png").write_bytes(cut[: len(cut) // 2])
    dataset = PackedDataset.open(pack(root, tmp_path / "out")["train"])
    assert dataset.header.names == ("00000", "00003")
    assert [name for name, _ in dataset.header.skipped] == ["00001", "00002"]
    assert all("cannot be decoded" in reason for _, reason in dataset.header.skipped)
    assert np.array_equal(dataset.masks()[1].numpy(), face_ids(3))


def test_a_set_of_only_unreadable_files_is_refused(tmp_path):
    root = make_pairs(tmp_path / "faces", 2)
    for path in (root / "images").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of the 2 faces of the train split can be used: .*cannot be decoded"):
        pack(root, tmp_path / "out", holdout=0)


def drop_mask(root: Path) -> None:
    (root / "masks" / "00001.png").unlink()


def other_size(root: Path) -> None:
    save(face_pixels(1, 24), root / "images" / "00001.png")


def not_square(root: Path) -> None:
    save(np.zeros((SIZE, 20, 3), dtype=np.uint8), root / "images" / "00001.png")


def too_small(root: Path) -> None:
    save(face_pixels(1, 8), root / "images" / "00001.png")


def unknown_id(root: Path) -> None:
    save(np.full((SIZE, SIZE), 18, dtype=np.uint8), root / "masks" / "00001.png")


def coloured_mask(root: Path) -> None:
    save(face_pixels(1), root / "masks" / "00001.png")


def oblong_mask(root: Path) -> None:
    save(np.zeros((SIZE, 20), dtype=np.uint8), root / "masks" / "00001.png")


BAD_FACES = [
    (drop_mask, "1 of 6 faces cannot be used, first 00001: it has no mask; mend them or pass --skip-bad"),
    (other_size, "image is 24x24, but most of the set is 16x16"),
    (not_square, "image is 20x16, but aligned faces are square"),
    (too_small, "image is 8x8, too small for --size 16"),
    (unknown_id, "00001.png holds part id 18, but ids go from 0 to 12; mend it or pass --skip-bad"),
    (coloured_mask, "00001.png is a picture of mode RGB, but a mask has one 8-bit channel"),
    (oblong_mask, "00001.png is 20x16, but masks are square"),
]


@pytest.mark.parametrize(("spoil", "sentence"), BAD_FACES)
def test_unusable_faces_stop_the_preparation_or_are_left_out(tmp_path, spoil, sentence):
    root = make_pairs(tmp_path / "faces")
    spoil(root)
    with pytest.raises(DataError, match=sentence):
        pack(root, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.pack"))
    dataset = PackedDataset.open(pack(root, tmp_path / "out", skip_bad=True)["train"])
    assert dataset.header.names == ("00000", "00002", "00003")
    assert dataset.header.skipped[0][0] == "00001"


def test_impossible_settings_are_refused(tmp_path):
    root = make_pairs(tmp_path / "faces")
    with pytest.raises(DataError, match=r"cannot hold out 6 of 6 faces; --holdout goes from 0 to 5"):
        pack(root, tmp_path / "out", holdout=6)
    with pytest.raises(DataError, match=r"--size must lie between 8 and 1024 pixels, got 4"):
        pack(root, tmp_path / "out", size=4)
    assert not (tmp_path / "out").exists()


class RedHair:
    """A parser that takes what is red for hair."""

    def parse(self, images: torch.Tensor, flip: bool) -> ParsedFaces:
        ids = torch.where(images[:, 0] > 0, 7, 1).byte()
        return ParsedFaces(ids, torch.empty(0))


def test_images_alone_are_parsed(tmp_path, monkeypatch):
    make_pairs(tmp_path)
    monkeypatch.setattr("memorygan.training.sources.load_parser", RedHair)
    monkeypatch.setattr("memorygan.training.sources._PARSE_SIZE", SIZE)
    source = ParsedSource(tmp_path / "images")
    dataset = PackedDataset.open(prepare(source, tmp_path / "out", "x", SIZE, holdout=0)["train"])
    assert dataset.header.plan.kind == "images"
    assert torch.equal(dataset.masks(), torch.where(dataset.images()[:, 0] > 127, 7, 1).byte())


def test_memory_is_given_back_while_many_pictures_are_parsed(tmp_path, monkeypatch):
    make_pairs(tmp_path)
    given_back = []
    monkeypatch.setattr("memorygan.training.sources.load_parser", RedHair)
    monkeypatch.setattr("memorygan.training.sources._TRIMMED", 2)
    monkeypatch.setattr("memorygan.training.sources.trim", lambda: given_back.append(True))
    source = ParsedSource(tmp_path / "images")
    for name in [*source.names(), *source.names()][:5]:
        source.load(name)
    assert len(given_back) == 2
    assert isinstance(trim(), bool)


def test_the_bundled_parser_finds_the_parts_of_pictures_alone(tmp_path):
    """From generated faces, whose parts are known, through the command to the packed masks."""
    path = default_checkpoint()
    assert path is not None
    generator = load_generator(path).generator
    assert isinstance(generator, MemoryGAN)
    with torch.no_grad():
        faces = generator.synthesize(generator.sample(range(4), truncation=0.7, temperature=0.7))
    for i, image in enumerate(faces.image.clamp(-1, 1)):
        save(((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy(), tmp_path / "pictures" / f"{i}.png")
    out, size = tmp_path / "out", generator.config.size
    assert main([str(tmp_path / "pictures"), "--size", str(size), "--holdout", "0", "--out", str(out)]) == 0
    dataset = PackedDataset.open(out / f"pictures-{size}-train.pack")
    assert dataset.header.plan.kind == "images" and "bundled parser" in dataset.header.plan.source
    same = (dataset.masks() == faces.part_map).float().mean()
    assert same > 0.8, "parser and generator give most pixels to the same part"


def test_a_missing_parser_is_one_sentence(tmp_path, monkeypatch):
    def missing():
        raise ValueError("the file is missing")

    make_pairs(tmp_path)
    monkeypatch.setattr("memorygan.training.sources.load_parser", missing)
    with pytest.raises(DataError, match=r"images without masks need the face parser, .*: the file is missing"):
        prepare(open_source(tmp_path / "images"), tmp_path / "out", "x", SIZE)


def test_a_mended_mask_asks_for_a_new_preparation(tmp_path):
    root, out = make_pairs(tmp_path / "faces"), tmp_path / "out"
    mask = root / "masks" / "00001.png"
    good = mask.read_bytes()
    unknown_id(root)
    path = pack(root, out, skip_bad=True)["train"]
    assert len(PackedDataset.open(path)) == 3
    mask.write_bytes(good)
    with pytest.raises(DataError, match="holds another preparation and is not overwritten"):
        pack(root, out, skip_bad=True)


def test_a_changed_region_of_celebamask_asks_for_a_new_preparation(tmp_path):
    root = make_celeba(tmp_path, (0,))
    before = CelebAMaskSource(root).stamp("0")
    region = next((root / sources.CELEBAMASK_ANNOTATIONS).glob("*/00000_*.png"))
    region.unlink()
    assert CelebAMaskSource(root).stamp("0") != before


# --- interruption, and nothing overwritten ----------------------------------------------------------------------------


class Interrupting(PairSource):
    """Stops like Ctrl-C when asked for one face; counts what it is asked for."""

    def __init__(self, root: Path, at: str | None = None) -> None:
        super().__init__(root)
        self.at = at
        self.loaded: list[str] = []

    def load(self, name: str) -> tuple[Image.Image, np.ndarray]:
        if name == self.at:
            raise KeyboardInterrupt
        self.loaded.append(name)
        return super().load(name)


def interrupt(root: Path, out: Path, at: str) -> Path:
    with pytest.raises(KeyboardInterrupt):
        prepare(Interrupting(root, at), out, "set", SIZE, holdout=2, workers=1)
    return out / f"set-{SIZE}-train.pack.part"


def resume(root: Path, out: Path) -> list[str]:
    source = Interrupting(root)
    prepare(source, out, "set", SIZE, holdout=2, workers=1)
    return source.loaded


def test_an_interrupted_preparation_continues_and_ends_the_same(tmp_path):
    root = make_pairs(tmp_path / "faces", 12)
    straight = pack(root, tmp_path / "straight")
    partial = interrupt(root, tmp_path / "out", "00008")
    assert partial.exists() and not partial.with_suffix("").exists()
    loaded = resume(root, tmp_path / "out")
    assert "00000" not in loaded and "00009" in loaded
    assert not partial.exists()
    for split, path in straight.items():
        assert path.read_bytes() == (tmp_path / "out" / f"set-{SIZE}-{split}.pack").read_bytes()


@pytest.mark.parametrize("damage", ["cut", "zeros", "flipped"])
def test_a_partial_file_with_a_broken_end_is_continued(tmp_path, damage):
    root = make_pairs(tmp_path / "faces", 12)
    straight = pack(root, tmp_path / "straight")["train"].read_bytes()
    partial = interrupt(root, tmp_path / "out", "00008")
    content = partial.read_bytes()
    broken = {"cut": content[:-7], "zeros": content + bytes(99), "flipped": content[:-1] + bytes([content[-1] ^ 255])}
    partial.write_bytes(broken[damage])
    loaded = resume(root, tmp_path / "out")
    assert "00000" not in loaded
    assert (tmp_path / "out" / f"set-{SIZE}-train.pack").read_bytes() == straight


def test_a_partial_file_of_other_sources_is_not_continued(tmp_path):
    root = make_pairs(tmp_path / "faces", 12)
    interrupt(root, tmp_path / "out", "00008")
    save(np.zeros((SIZE, SIZE, 3), dtype=np.uint8), root / "images" / "00000.png")
    assert "00000" in resume(root, tmp_path / "out")
    assert not PackedDataset.open(tmp_path / "out" / f"set-{SIZE}-train.pack").images()[0].any()


def test_a_finished_file_is_kept_and_never_overwritten(tmp_path):
    root = make_pairs(tmp_path / "faces")
    path = pack(root, tmp_path / "out")["train"]
    before = path.read_bytes()
    assert resume(root, tmp_path / "out") == []
    save(np.zeros((SIZE, SIZE, 3), dtype=np.uint8), root / "images" / "00000.png")
    with pytest.raises(DataError, match=r"holds another preparation and is not overwritten"):
        pack(root, tmp_path / "out")
    path.write_bytes(b"a file of the user")
    with pytest.raises(DataError, match=r"is not a packed face file"):
        pack(root, tmp_path / "out")
    assert path.read_bytes() == b"a file of the user"
    path.write_bytes(before)
    with pytest.raises(DataError, match=r"already exists and is not overwritten"):
        PackWriter(path, PackedDataset.open(path).header.plan)


class FullDisk:
    """A file that takes ten more bytes and then reports a full disk."""

    def __init__(self, file) -> None:
        self.file = file
        self.left = 10

    def write(self, data) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(bytes(data[: self.left]))
        self.left -= written
        return written

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_is_one_sentence_and_the_work_is_kept(tmp_path, monkeypatch):
    root = make_pairs(tmp_path / "faces", 12)
    add = PackWriter.add

    def fill_up(self, name, image, mask):
        if name == "00004":
            self._file = FullDisk(self._file)
        add(self, name, image, mask)

    with monkeypatch.context() as patch:
        patch.setattr(PackWriter, "add", fill_up)
        with pytest.raises(DataError, match=r"the disk is full; .*part keeps what was written"):
            pack(root, tmp_path / "out")
    assert resume(root, tmp_path / "out")[0] == "00004"


def test_an_output_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    root = make_pairs(tmp_path / "faces")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write .*: (Not a directory|File exists)"):
        pack(root, tmp_path / "file" / "out")


def test_two_processes_cannot_write_one_file(tmp_path):
    plan = PackPlan(SIZE, "train", FACE_PARTS.names, "test", "pairs", "webp lossless", "0")
    path = tmp_path / "a.pack"
    with closing(PackWriter(path, plan)) as first, closing(PackWriter(path, plan)) as second:
        first.add("x", b"1", b"2")
        with pytest.raises(DataError, match=r"being written by another process"):
            second.add("y", b"1", b"2")


def test_only_a_few_faces_are_decoded_ahead():
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        return item

    results = packing._in_order(work, range(1000), workers=2)
    assert next(results) == 0 and len(started) < 20
    assert list(results) == list(range(1, 1000))


# --- drawn faces and the command line ---------------------------------------------------------------------------------


def test_drawn_faces_depend_on_seed_and_index_only():
    picture, ids = draw_face(roll_traits(4, 2), 64)
    again, same_ids = draw_face(roll_traits(4, 2), 64)
    assert np.array_equal(np.asarray(picture), np.asarray(again)) and np.array_equal(ids, same_ids)
    assert roll_traits(4, 2) != roll_traits(4, 3) and roll_traits(4, 2) != roll_traits(5, 2)


def test_drawn_faces_show_every_part():
    shown = np.zeros(13)
    for index in range(24):
        picture, ids = draw_face(roll_traits(0, index), 64)
        assert picture.mode == "RGB" and picture.size == (64, 64) and ids.shape == (64, 64) and ids.dtype == np.uint8
        assert ids.max() < 13
        present = np.bincount(ids.ravel(), minlength=13) > 0
        assert present[[0, 1, 2, 3, 4, 5, 9]].all(), f"face {index} lacks a part every face has"
        shown += present
    assert (shown > 0).all()
    assert shown[10] < 24 and shown[11] < 24 and shown[12] < 24


def test_drawn_masks_lie_where_the_picture_changes():
    traits = roll_traits(0, 0)
    picture, ids = draw_face(traits, 128)
    pixels = np.asarray(picture).astype(float)
    for part, color in (("skin", traits.skin), ("mouth", traits.lips)):
        middle = np.median(pixels[ids == FACE_PARTS.index(part)], axis=0)
        assert np.abs(middle - color).max() < 60, part
    rows = {name: np.nonzero(ids == FACE_PARTS.index(name))[0].mean() for name in ("eyebrows", "eyes", "nose", "mouth")}
    assert rows["eyebrows"] < rows["eyes"] < rows["nose"] < rows["mouth"]


def test_a_drawn_source_refuses_an_impossible_count_or_seed():
    with pytest.raises(DataError, match=r"cannot draw 0 faces"):
        ProceduralSource(0)
    with pytest.raises(DataError, match=r"seed must lie between"):
        ProceduralSource(1, seed=-1)


def test_the_command_draws_packs_and_reports(tmp_path, capsys):
    arguments = ["--procedural", "3", "--size", "16", "--holdout", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    report = capsys.readouterr().out
    assert "procedural-16-train.pack: 2 faces at 16 px" in report and "eyebrows" in report
    sheet = Image.open(tmp_path / "procedural-16-train.png")
    assert sheet.size == contact_sheet(PackedDataset.open(tmp_path / "procedural-16-train.pack"), FACE_PARTS).size
    assert main([*arguments, "--seed", "1"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_command_reports_bad_input_in_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'nowhere'} is not a folder\n"
    root = make_pairs(tmp_path / "faces")
    assert main([str(root), "--out", str(tmp_path), "--quality", "200"]) == 2
    assert "--quality must be auto, lossless or a number from 1 to 100" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        main([str(root), "--procedural", "3", "--out", str(tmp_path)])


def test_an_interrupted_command_says_how_to_continue(tmp_path, monkeypatch, capsys):
    root = make_pairs(tmp_path / "faces")
    monkeypatch.setattr("memorygan.training.prepare.open_source", lambda path, kind: Interrupting(path, "00002"))
    assert main([str(root), "--size", "16", "--out", str(tmp_path / "out")]) == 130
    assert "run the same command again to continue" in capsys.readouterr().err
