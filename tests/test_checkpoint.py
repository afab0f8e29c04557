"""Checkpoints: what is written comes back, and what is not ours is refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from memorygan.baseline import SemanticStyleGAN
from memorygan.checkpoint import (
    METADATA_KEY,
    CheckpointError,
    Provenance,
    load_generator,
    load_module,
    save_generator,
    save_module,
)
from memorygan.config import get_preset, with_part_count
from memorygan.encoder import EncoderConfig, PartEncoder, load_encoder, save_encoder
from memorygan.generator import MemoryGAN
from memorygan.manifest import (
    WEIGHTS_DIR,
    ManifestEntry,
    _verify,
    bundled_checkpoint,
    default_checkpoint,
    read_manifest,
    update_manifest,
)

TINY = get_preset("tiny-32").generator
PROVENANCE = Provenance(
    data=("synthetic faces", "photos"),
    licence="CC0-1.0",
    images_seen=1234,
    recipe="fast",
    command="python -m memorygan.training",
    date="2024-05-01",
    notes="ärger-free",
)


@pytest.fixture(scope="module")
def model() -> MemoryGAN:
    torch.manual_seed(2)
    generator = MemoryGAN(TINY).eval().requires_grad_(False)
    generator.update_mean_latents(16)
    return generator


@pytest.fixture
def saved(tmp_path, model) -> Path:
    save_generator(tmp_path / "a.safetensors", model, provenance=PROVENANCE)
    return tmp_path / "a.safetensors"


def rewrite(path: Path, *, meta: object = None, tensors: dict[str, torch.Tensor] | None = None, **changes) -> Path:
    """The same file with other tensors or metadata; ``changes`` replace metadata entries."""
    with safetensors.safe_open(path, framework="pt") as stream:
        old = json.loads(stream.metadata()[METADATA_KEY])
    state = safetensors.torch.load_file(path) if tensors is None else tensors
    text = json.dumps({**old, **changes}) if meta is None else str(meta)
    path.write_bytes(safetensors.torch.save(state, {METADATA_KEY: text}))
    return path


# --- What is written comes back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [MemoryGAN, SemanticStyleGAN])
@pytest.mark.parametrize("half", [True, False])
def test_generator_round_trip(tmp_path, build, half):
    generator = build(TINY).train()
    generator.update_mean_latents(16)
    path = tmp_path / "sub" / "a.safetensors"
    sha256 = save_generator(path, generator, half=half, provenance=PROVENANCE)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = load_generator(path)
    assert type(loaded.generator) is build and not loaded.generator.training
    assert loaded.kind == {MemoryGAN: "memorygan", SemanticStyleGAN: "semanticstylegan"}[build]
    assert (loaded.sha256, loaded.preset, loaded.images_seen) == (sha256, "tiny-32", 1234)
    assert loaded.provenance == PROVENANCE and loaded.generator.config == TINY
    found = loaded.generator.state_dict()
    for name, value in generator.state_dict().items():
        assert found[name].dtype == (torch.float32 if value.is_floating_point() else torch.bool)
        assert torch.equal(found[name], value.half().float() if half and value.is_floating_point() else value), name
    generator.eval()
    with torch.no_grad():
        expected = generator.synthesize(generator.sample([1], truncation=0.7)).image
        image = loaded.generator.synthesize(loaded.generator.sample([1], truncation=0.7)).image
    assert float((image - expected).abs().max()) <= (0.05 if half else 0.0) * float(expected.abs().max())


def test_half_precision_halves_the_file(tmp_path, model):
    save_generator(tmp_path / "half", model, provenance=PROVENANCE)
    save_generator(tmp_path / "full", model, half=False, provenance=PROVENANCE)
    assert (tmp_path / "half").stat().st_size < 0.7 * (tmp_path / "full").stat().st_size


def test_unnamed_configuration_has_no_preset(tmp_path):
    config = with_part_count(TINY, 3)
    save_generator(tmp_path / "a", MemoryGAN(config), provenance=Provenance())
    loaded = load_generator(tmp_path / "a")
    assert loaded.preset is None and loaded.generator.config == config and loaded.provenance == Provenance()


def test_same_content_gives_the_same_bytes(tmp_path, model):
    one = save_generator(tmp_path / "a", model, provenance=PROVENANCE)
    two = save_generator(tmp_path / "b", model, provenance=PROVENANCE)
    assert one == two


def test_what_can_be_recomputed_is_not_stored(saved):
    assert "memory.grid" not in load_module(saved, "memorygan")[0]


def test_loading_leaves_the_random_state_alone(saved):
    before = torch.random.get_rng_state()
    load_generator(saved)
    assert torch.equal(before, torch.random.get_rng_state())


def test_module_round_trip(tmp_path):
    state = {"w": torch.randn(3, 4), "n": torch.arange(3), "h": torch.ones(2).half(), "t": torch.randn(2, 5).T}
    state["view"] = state["w"][0]  # shares memory
    sha256 = save_module(tmp_path / "p.safetensors", state, {"kind": "parser", "scores": [1, 0.5], "size": {"a": 1}})
    assert sha256 == hashlib.sha256((tmp_path / "p.safetensors").read_bytes()).hexdigest()
    tensors, meta = load_module(tmp_path / "p.safetensors", "parser")
    assert meta == {"kind": "parser", "scores": [1, 0.5], "size": {"a": 1}, "format_version": 1}
    assert set(tensors) == set(state)
    for name, value in state.items():
        assert torch.equal(tensors[name], value.float() if name == "h" else value)
    assert tensors["h"].dtype == torch.float32 and tensors["n"].dtype == torch.int64


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_writing_keeps_the_old_file(tmp_path, saved, model, monkeypatch, step):
    before = saved.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_generator(saved, model, provenance=replace(PROVENANCE, images_seen=9))
    assert saved.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    ("state", "meta", "message"),
    [
        ({}, {}, "needs a 'kind'"),
        ({}, {"kind": 5}, "needs a 'kind'"),
        ({}, {"kind": "a", "x": {1, 2}}, "not plain JSON"),
        ({}, {"kind": "a", "x": float("nan")}, "not plain JSON"),
        ({"w": [1.0]}, {"kind": "a"}, "w is a list"),
        ({"w": torch.tensor([1e5])}, {"kind": "a"}, r"w reaches 1e\+05"),
    ],
)
def test_unwritable_content_is_refused(tmp_path, state, meta, message):
    with pytest.raises(CheckpointError, match=message):
        save_module(tmp_path / "a", state, meta, half=True)
    assert not list(tmp_path.iterdir())


def test_unknown_generator_class_is_refused(tmp_path):
    class Other(MemoryGAN):
        pass

    with pytest.raises(CheckpointError, match="Other has no checkpoint kind"):
        save_generator(tmp_path / "a", Other(TINY), provenance=PROVENANCE)


# --- What is not ours is refused ------------------------------------------------------------------------------------


class Harmful:
    """Creates a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_are_never_loaded(tmp_path):
    trap = tmp_path / "executed"
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Harmful(trap)))
    torch.save(Harmful(trap), tmp_path / "zip.pt")
    torch.save(Harmful(trap), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("plain.pkl", "zip.pt", "old.pt"):
        with pytest.raises(CheckpointError, match=r"never loaded here.*python -m memorygan\.convert"):
            load_generator(tmp_path / name)
    assert not trap.exists()


def test_a_header_that_begins_like_a_pickle_is_read(tmp_path):
    # The first byte of a safetensors file is the low byte of a length, which can be that of a pickle.
    for padding in range(0, 400, 8):
        save_module(tmp_path / "a", {"w": torch.ones(1)}, {"kind": "a", "x": "." * padding})
        if (tmp_path / "a").read_bytes()[0] == 0x80:
            break
    else:
        pytest.fail("no padding gave that byte")
    assert load_module(tmp_path / "a", "a")[0]["w"].item() == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"{", "is not a safetensors file"),
        (b"hello, this is text", "is not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ((50).to_bytes(8, "little") + b"{oops", "damaged or cut short"),
        ((1 << 60).to_bytes(8, "little") + b"{}", "damaged or cut short"),
        ((2).to_bytes(8, "little") + b"{}", "made by another program"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_generator(tmp_path / "a")


def test_missing_file_and_directory_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_generator(tmp_path / "none")
    with pytest.raises(CheckpointError, match="is a directory"):
        load_generator(tmp_path)


def test_truncated_files_are_refused(saved):
    data = saved.read_bytes()
    for size in (4, 9, 500, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"cut short|not a safetensors"):
            load_generator(saved)
    saved.write_bytes(data + b"\0")
    with pytest.raises(CheckpointError, match="damaged"):
        load_generator(saved)


def test_foreign_safetensors_are_refused(tmp_path):
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "a")
    with pytest.raises(CheckpointError, match="made by another program"):
        load_generator(tmp_path / "a")
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "b", {"format": "pt"})
    with pytest.raises(CheckpointError, match="made by another program"):
        load_generator(tmp_path / "b")


def test_another_kind_is_refused(tmp_path, saved):
    save_module(tmp_path / "p", {"w": torch.ones(2)}, {"kind": "parser"})
    with pytest.raises(CheckpointError, match="of kind 'parser', but 'memorygan' or 'semanticstylegan' is needed"):
        load_generator(tmp_path / "p")
    with pytest.raises(CheckpointError, match="of kind 'memorygan', but 'parser' is needed"):
        load_module(saved, "parser")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format version 2, but this program reads up to 1; update the program"),
        ({"format_version": "1"}, "format version is '1'"),
        ({"format_version": None}, "format version is None"),
        ({"meta": "not json"}, "metadata cannot be read"),
        ({"meta": "[1]"}, "metadata cannot be read"),
        ({"meta": "[" * 100_000}, "metadata cannot be read"),
        ({"kind": 3}, "metadata cannot be read"),
        ({"kind": "semanticstylegan"}, "lacks memory.depth_bias and"),
        ({"config": None}, "has no config"),
        ({"config": {}}, "configuration is incomplete"),
        ({"config": {**asdict(TINY), "attention": 4}}, "attention; this file needs a newer version"),
        ({"config": {**asdict(TINY), "size": 48}}, "size is 48; use a power of two"),
        ({"config": {**asdict(TINY), "local_channels": 8.5}}, "configuration is impossible"),
        ({"config": {**asdict(TINY), "mapping_layers": 10**9}}, "more mapping layers than it holds tensors"),
        ({"config": {**asdict(TINY), "style_dim": 2**20}}, "but its configuration needs"),
        ({"config": {**asdict(TINY), "mapping_layers": 3}}, "lacks mapping.layers.2.bias and 1 more tensors"),
        ({"config": {**asdict(TINY), "mapping_layers": 1}}, "holds mapping.layers.1.bias and 1 more tensors"),
        ({"config": {**asdict(TINY), "local_channels": 16}}, "but its configuration needs float32"),
        ({"provenance": {"images_seen": -1}}, "images_seen is -1"),
        ({"provenance": {"data": "text"}}, "should be text is not"),
        ({"provenance": {"author": "me"}}, "unknown provenance fields author"),
    ],
)
def test_bad_metadata_is_refused(saved, changes, message):
    with pytest.raises(CheckpointError) as error:
        load_generator(rewrite(saved, **changes))
    assert message in str(error.value) and str(saved) in str(error.value)


def test_wrong_tensors_are_refused(saved):
    tensors = safetensors.torch.load_file(saved)
    bias = "mapping.layers.0.bias"
    for value, message in (
        (torch.zeros(5), r"mapping.layers.0.bias as float32 \(5,\), but its configuration needs float32 \(32,\)"),
        (torch.zeros(32).long(), r"mapping.layers.0.bias as int64 \(32,\)"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_generator(rewrite(saved, tensors={**tensors, bias: value}))
    with pytest.raises(CheckpointError, match=r"holds extra, which"):
        load_generator(rewrite(saved, tensors={**tensors, "extra": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"lacks mapping.layers.0.bias, which"):
        load_generator(rewrite(saved, tensors={name: value for name, value in tensors.items() if name != bias}))
    with pytest.raises(CheckpointError, match="values that are not finite"):
        load_generator(rewrite(saved, tensors={**tensors, bias: torch.full((32,), torch.nan)}))


# --- The part encoder -----------------------------------------------------------------------------------------------

LOOK = EncoderConfig(part_count=3, query_dim=8, size=16, channels=(4, 8), hidden=16, looks=1)


@pytest.fixture
def encoder(tmp_path) -> Path:
    save_encoder(tmp_path / "encoder.safetensors", PartEncoder(LOOK))
    return tmp_path / "encoder.safetensors"


def test_an_encoder_comes_back_and_leaves_the_random_state_alone(encoder):
    before = torch.random.get_rng_state()
    loaded = load_encoder(encoder)
    assert torch.equal(before, torch.random.get_rng_state())
    assert loaded.config == LOOK and not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "parser"}, "of kind 'parser'"),
        ({"config": None}, "does not say how its network is built"),
        ({"config": {"part_count": 3}}, "configuration is impossible"),
        ({"config": {**asdict(LOOK), "size": 15}}, "cannot be halved"),
        ({"config": {**asdict(LOOK), "looks": 0}}, "which its configuration has no use for"),
        ({"config": {**asdict(LOOK), "hidden": 10**9}}, "but its configuration needs"),
    ],
)
def test_a_bad_encoder_is_refused(encoder, changes, message):
    with pytest.raises(CheckpointError) as error:
        load_encoder(rewrite(encoder, **changes))
    assert message in str(error.value) and str(encoder) in str(error.value)


def test_an_encoder_with_values_that_are_not_finite_is_refused(encoder):
    tensors = safetensors.torch.load_file(encoder)
    name = next(iter(tensors))
    with pytest.raises(CheckpointError, match="values that are not finite"):
        load_encoder(rewrite(encoder, tensors={**tensors, name: torch.full_like(tensors[name], torch.inf)}))


# --- Bundled weights ------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path, model, monkeypatch) -> Path:
    monkeypatch.delenv("MEMORYGAN_CHECKPOINT", raising=False)
    directory = tmp_path / "weights"
    save_module(directory / "parser.safetensors", {"w": torch.ones(2)}, {"kind": "parser"})
    for name in ("small", "large"):
        save_generator(directory / f"{name}.safetensors", model, provenance=replace(PROVENANCE, notes=name))
        update_manifest(directory, f"{name}.safetensors", title=name, licence="CC0-1.0", default=True)
    update_manifest(directory, "parser.safetensors", title="Parser", licence="MIT")
    return directory


def verify_manifest(directory: Path = WEIGHTS_DIR) -> tuple[ManifestEntry, ...]:
    """The entries of a manifest, whose files are looked at."""
    entries = read_manifest(directory)
    for entry in entries:
        _verify(directory, entry)
    return entries


def test_manifest_lists_what_is_there(weights):
    entries = verify_manifest(weights)
    assert [(entry.file, entry.kind, entry.default) for entry in entries] == [
        ("small.safetensors", "memorygan", False),
        ("large.safetensors", "memorygan", True),
        ("parser.safetensors", "parser", False),
    ]
    raw = json.loads((weights / "manifest.json").read_text())
    data = (weights / "large.safetensors").read_bytes()
    assert raw[1] == {
        "file": "large.safetensors", "kind": "memorygan", "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data), "title": "large", "licence": "CC0-1.0", "default": True,
    }  # fmt: skip
    assert default_checkpoint(weights) == weights / "large.safetensors"
    assert bundled_checkpoint("parser", weights) == weights / "parser.safetensors"
    assert bundled_checkpoint("memorygan", weights) == weights / "large.safetensors"
    assert bundled_checkpoint("encoder", weights) is None


def test_updating_replaces_the_entry(weights, model):
    save_generator(weights / "small.safetensors", model, provenance=replace(PROVENANCE, notes="newer"))
    with pytest.raises(CheckpointError, match="small"):
        verify_manifest(weights)
    update_manifest(weights, "small.safetensors", title="new", licence="MIT")
    assert len(verify_manifest(weights)) == 3
    assert [entry.title for entry in read_manifest(weights) if entry.file == "small.safetensors"] == ["new"]
    assert default_checkpoint(weights) == weights / "large.safetensors"


def test_corrupted_bundled_file_names_both_hashes(weights):
    file = weights / "large.safetensors"
    data = bytearray(file.read_bytes())
    expected = hashlib.sha256(data).hexdigest()
    data[-1] ^= 1
    file.write_bytes(data)
    for call in (default_checkpoint, verify_manifest):
        with pytest.raises(CheckpointError) as error:
            call(weights)
        assert expected in str(error.value) and hashlib.sha256(data).hexdigest() in str(error.value)
    file.unlink()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        default_checkpoint(weights)


def test_environment_variable_overrides(weights, saved, monkeypatch):
    monkeypatch.setenv("MEMORYGAN_CHECKPOINT", str(saved))
    assert default_checkpoint(weights) == saved
    monkeypatch.setenv("MEMORYGAN_CHECKPOINT", str(saved) + "x")
    with pytest.raises(CheckpointError, match="MEMORYGAN_CHECKPOINT names"):
        default_checkpoint(weights)


def test_no_manifest_means_no_weights(tmp_path, monkeypatch):
    monkeypatch.delenv("MEMORYGAN_CHECKPOINT", raising=False)
    assert default_checkpoint(tmp_path) is None and verify_manifest(tmp_path) == ()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "5",
        "[5]",
        '[{"file": "a"}]',
        '[{"file": "../a", "kind": "k", "sha256": "0", "bytes": 1, "title": "t", "licence": "l"}]',
        '[{"file": "a", "kind": "k", "sha256": 0, "bytes": 1, "title": "t", "licence": "l"}]',
    ],
)
def test_bad_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_only_valid_checkpoints_enter_the_manifest(weights):
    (weights / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        update_manifest(weights, "notes.txt", title="t", licence="l")
    with pytest.raises(CheckpointError, match="only a generator can be the default"):
        update_manifest(weights, "parser.safetensors", title="t", licence="l", default=True)
    with pytest.raises(CheckpointError, match="plain file name"):
        update_manifest(weights, "../weights/small.safetensors", title="t", licence="l")


def test_bundled_weights_are_the_published_ones():
    """The repository's own weights directory, whatever it holds."""
    for entry in verify_manifest():
        assert entry.licence and entry.title
