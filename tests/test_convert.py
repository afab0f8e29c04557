"""Published SemanticStyleGAN checkpoints: same numbers as the original, and no file can do harm."""

from __future__ import annotations

import argparse
import os
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from memorygan.checkpoint import CheckpointError, load_generator
from memorygan.convert import PUBLISHED_LICENCE, config_from_args, convert, convert_state, main
from memorygan.parts import FACE_PARTS

REFERENCE = Path(__file__).parent / "data" / "semanticstylegan_reference.npz"

ARGS = {
    "size": 64, "latent": 512, "n_mlp": 8, "channel_multiplier": 2, "seg_dim": 4, "local_layers": 10,
    "local_channel": 32, "base_layers": 2, "depth_layers": 6, "coarse_size": 32, "coarse_channel": 64,
    "min_feat_size": 16, "residual_refine": True, "detach_texture": False, "transparent_dims": (3,),
}  # fmt: skip
# Small enough to convert many times; the render channels at 8 and 16 pixels are 512 in every published model.
SMALL = ARGS | {
    "size": 8, "latent": 8, "n_mlp": 2, "seg_dim": 2, "local_layers": 3, "local_channel": 4, "base_layers": 1,
    "depth_layers": 2, "coarse_size": 8, "coarse_channel": 4, "min_feat_size": 4, "transparent_dims": (1,),
}  # fmt: skip


def tensor_for(key: str, *shape: int) -> torch.Tensor:
    """The value that the reference was made with: seeded by the name of the tensor."""
    values = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if key.endswith(("modulation", "modulation.bias")):
        values = 1 + 0.1 * values
    elif key.endswith(("noise.weight", "bias")):
        values = 0.1 * values
    return torch.from_numpy(values)


def published_state(args: dict) -> dict[str, torch.Tensor]:
    """A state dict with the published names and shapes."""
    latent, local, coarse = args["latent"], args["local_channel"], args["coarse_channel"]
    parts, octaves = args["seg_dim"], args["size"].bit_length() - 1
    shapes: dict[str, tuple[int, ...]] = {"pos_embed.weights": (local, 2 * (2 * octaves + 1), 1, 1)}
    for i in range(1, args["n_mlp"] + 1):
        shapes |= {f"style.{i}.weight": (latent, latent), f"style.{i}.bias": (latent,)}
    for k in range(parts):
        for i in range(args["local_layers"]):
            layer = f"local_nets.{k}.linears.{i}"
            shapes |= {
                f"{layer}.conv.weight": (1, local, local, 1, 1),
                f"{layer}.conv.modulation.weight": (local, latent),
                f"{layer}.conv.modulation.bias": (local,),
                f"{layer}.activate.bias": (local,),
            }
        for head, outputs in (("to_feat", coarse), *([("to_depth", 1)] if k else [])):
            shapes |= {
                f"local_nets.{k}.{head}.conv.weight": (outputs, local, 1, 1),
                f"local_nets.{k}.{head}.conv.modulation": (1, local, 1, 1),
                f"local_nets.{k}.{head}.bias": (outputs,),
            }
    side, inputs, j = args["min_feat_size"], coarse, 0
    while side < args["size"]:
        inputs += coarse if side == args["coarse_size"] else 0
        outputs = min(512, 16384 * args["channel_multiplier"] // (2 * side))
        for i, channels in ((2 * j, inputs), (2 * j + 1, outputs)):
            conv = f"render_net.convs.{i}"
            shapes |= {
                f"{conv}.weight": (outputs, channels, 3, 3),
                f"{conv}.modulation": (1, channels, 1, 1),
                f"{conv}.noise.weight": (1,),
                f"{conv}.activate.bias": (outputs,),
                f"render_net.noises.noise_{i}": (1, 1, 2 * side, 2 * side),
            }
        for head, channels in (("to_rgbs", 3), ("to_segs", parts)):
            shapes |= {
                f"render_net.{head}.{j}.conv.weight": (channels, outputs, 1, 1),
                f"render_net.{head}.{j}.conv.modulation": (1, outputs, 1, 1),
                f"render_net.{head}.{j}.bias": (channels,),
            }
        side, inputs, j = 2 * side, outputs, j + 1
    state = {key: tensor_for(key, *shape) for key, shape in shapes.items()}
    state["render_net.convs.0.blur.kernel"] = torch.ones(4, 4)
    return state


def write(path: Path, **changes) -> Path:
    """A small .pt file like the published ones; ``changes`` replace top-level entries."""
    torch.save({"g_ema": published_state(SMALL), "args": argparse.Namespace(**SMALL)} | changes, path)
    return path


def relative_error(found: torch.Tensor, wanted: np.ndarray) -> float:
    """Largest difference, relative to the largest value."""
    values = found.double().numpy()
    return float(np.abs(values - wanted.reshape(values.shape)).max() / np.abs(wanted).max())


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def converted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memorygan.convert.MEAN_SAMPLES", 1)  # the reference does not use it
        return convert_state(published_state(ARGS), config_from_args(ARGS))


@torch.no_grad()
def test_default_space_matches_the_original(converted, reference):
    codes = torch.from_numpy(np.random.RandomState(0).standard_normal((2, 10, 512)).astype(np.float32))
    face = converted.synthesize(converted.expand(codes))
    assert relative_error(face.image, reference["rgb"]) < 1e-4
    assert relative_error(face.mask, reference["seg"]) < 1e-4
    assert relative_error(2 * face.coarse_mask - 1, reference["coarse"]) < 1e-4
    assert relative_error(face.depth, reference["depths"]) < 1e-4


@torch.no_grad()
def test_composing_without_a_part_matches_the_original(converted, reference):
    codes = torch.from_numpy(np.random.RandomState(0).standard_normal((2, 10, 512)).astype(np.float32))
    face = converted.synthesize(converted.expand(codes), parts=[0, 1, 3])
    assert relative_error(face.image, reference["rgb_without_part2"]) < 1e-4
    assert not face.coarse_mask[:, 2].any()


@torch.no_grad()
def test_mapping_matches_the_original(converted, reference):
    w = converted.map(torch.from_numpy(np.random.RandomState(1).standard_normal((2, 512)).astype(np.float32)))
    assert relative_error(w, reference["w_from_z"]) < 1e-4
    assert relative_error(converted.synthesize(converted.share(w)).image, reference["rgb_from_z"]) < 1e-4


def test_file_is_converted_and_loads(tmp_path):
    source = write(tmp_path / "in.pt")
    sha256 = convert(source, tmp_path / "out.safetensors")
    loaded = load_generator(tmp_path / "out.safetensors")
    assert loaded.sha256 == sha256 and loaded.kind == "semanticstylegan"
    assert loaded.provenance.licence == PUBLISHED_LICENCE
    assert "in.pt" in loaded.provenance.notes
    assert loaded.generator.config.parts.transparent == (1,)
    expected = convert_state(published_state(SMALL), config_from_args(SMALL)).state_dict()
    for name, value in loaded.generator.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_mean_latent_is_the_mean_of_mapped_samples(tmp_path):
    generator = convert_state(published_state(SMALL), config_from_args(SMALL))
    many = generator.map(torch.randn(20_000, 8)).detach()
    error = (generator.mean_w[0] - many.mean(dim=0)).abs()
    assert float((error / many.std(dim=0)).max()) < 0.05
    assert float((many.mean(dim=0).abs() / many.std(dim=0)).max()) > 0.1  # zeros would not pass


def test_conversion_leaves_the_random_state_alone():
    before = torch.random.get_rng_state()
    convert_state(published_state(SMALL), config_from_args(SMALL))
    assert torch.equal(before, torch.random.get_rng_state())


def test_training_file_is_converted_too(tmp_path):
    extra = {"g": published_state(SMALL), "d": {"w": torch.ones(2)}, "iter": 7}
    source = write(tmp_path / "in.pt", **extra)
    assert convert(source, tmp_path / "a.safetensors", half=True)
    assert (tmp_path / "a.safetensors").stat().st_size < source.stat().st_size / 3


def test_old_torch_format_is_read(tmp_path):
    content = {"g_ema": published_state(SMALL), "args": argparse.Namespace(**SMALL)}
    torch.save(content, tmp_path / "in.pt", _use_new_zipfile_serialization=False)
    convert(tmp_path / "in.pt", tmp_path / "out.safetensors")
    assert load_generator(tmp_path / "out.safetensors").generator.config.size == 8


def test_thirteen_parts_are_the_face_parts():
    args = ARGS | {"seg_dim": 13, "transparent_dims": (10, 12)}
    assert config_from_args(args).parts == FACE_PARTS
    other = config_from_args(args | {"transparent_dims": (3,)}).parts
    assert len(other) == 13 and other.transparent == (3,) and other.names[1] == "part1"


class Harmful:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_harmful_pickle_is_refused_and_not_executed(tmp_path, zipped):
    trap = tmp_path / "executed"
    torch.save({"g_ema": Harmful(trap), "args": None}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="nothing of it was executed"):
        convert(tmp_path / "a.pt", tmp_path / "out.safetensors")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Harmful(trap), protocol=2))
    with pytest.raises(CheckpointError):
        convert(tmp_path / "b.pt", tmp_path / "out.safetensors")
    assert not trap.exists() and not (tmp_path / "out.safetensors").exists()
    # The trap itself works.
    pickle.loads((tmp_path / "b.pt").read_bytes())
    assert trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, this is no checkpoint", "no .pt file"),
        (b"PK\x03\x04" + b"\0" * 100, "no .pt file"),
        (b"\x80\x02garbage", "no .pt file"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "in.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "in.pt", tmp_path / "out.safetensors")


def test_missing_file_directory_and_truncated_file_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file"):
        convert(tmp_path / "none.pt", tmp_path / "out.safetensors")
    with pytest.raises(CheckpointError, match="is a directory"):
        convert(tmp_path, tmp_path / "out.safetensors")
    data = write(tmp_path / "in.pt").read_bytes()
    for part in (100, len(data) // 2, len(data) - 10):
        (tmp_path / "cut.pt").write_bytes(data[:part])
        with pytest.raises(CheckpointError, match="cut"):
            convert(tmp_path / "cut.pt", tmp_path / "out.safetensors")


def test_source_is_never_overwritten(tmp_path):
    source = write(tmp_path / "in.pt")
    before = source.read_bytes()
    with pytest.raises(CheckpointError, match="source itself"):
        convert(source, source)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"g_ema": {"conv.weight": torch.ones(3)}}, "more layers than it holds tensors"),
        ({"g_ema": {"weights": [1, 2]}}, "more than named tensors"),
        ({"g_ema": torch.ones(3)}, "lacks 'g_ema' or 'args'"),
        ({"args": 5}, "lacks 'g_ema' or 'args'"),
        ({"args": argparse.Namespace(size=8)}, "latent is None"),
        ({"args": SMALL | {"seg_dim": 10**9}}, "seg_dim is 1000000000"),
        ({"args": SMALL | {"seg_dim": 65536}}, "more layers than it holds tensors"),
        ({"args": SMALL | {"size": 12}}, "power of two"),
        ({"args": SMALL | {"residual_refine": False}}, "without residual_refine"),
        ({"args": SMALL | {"transparent_dims": (5,)}}, "transparent_dims"),
        ({"args": SMALL | {"coarse_channel": 65536}}, r"has shape \(4, 4, 1, 1\), but its settings need \(65536, 4\)"),
        ({"args": SMALL | {"n_mlp": 3}}, "lacks style.3.bias and 1 more tensors"),
        ({"args": SMALL | {"n_mlp": 1}}, "holds style.2.bias"),
    ],
)
def test_foreign_content_is_refused(tmp_path, changes, message):
    source = write(tmp_path / "in.pt", **changes)
    with pytest.raises(CheckpointError, match=message):
        convert(source, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_list_is_refused(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "in.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        convert(tmp_path / "in.pt", tmp_path / "out.safetensors")


def test_command_line(tmp_path, capsys):
    source = write(tmp_path / "in.pt")
    assert main([str(source), str(tmp_path / "out.safetensors"), "--half"]) == 0
    assert "sha256" in capsys.readouterr().out
    assert load_generator(tmp_path / "out.safetensors").generator.config.size == 8
    assert main([str(tmp_path / "none.pt"), str(tmp_path / "x.safetensors")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: there is no file") and captured.err.count("\n") == 1
