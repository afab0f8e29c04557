"""Which judges guide an edit: standard weights where they are, else the bundled ones; a forced one, or a refusal."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import sys
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from facenet_pytorch import InceptionResnetV1

from editing.errors import EditingError
from editing.guidance import standard
from editing.guidance.clip import ImageTextJudge, build_judge
from editing.guidance.face_net import FaceEmbedder, FaceNetConfig, save_face_net
from editing.guidance.registry import Guides
from editing.results import GuidanceInfo, JudgeInfo
from editing.service import EditingService
from memorygan import manifest
from memorygan.checkpoint import Provenance

BUNDLED_CONFIG = Path(standard.__file__).parent / "configs" / "face-text.json"
_CONFIG = {
    "embed_dim": 8,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory) -> open_clip.CLIP:
    """A CLIP of the standard kind, only smaller."""
    path = tmp_path_factory.mktemp("config") / "tiny-stand-in.json"
    path.write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(path)
    torch.manual_seed(0)
    return open_clip.create_model("tiny-stand-in", pretrained=None).eval()


@pytest.fixture(scope="module")
def archive(tiny_clip) -> bytes:
    """The format OpenAI publishes: a TorchScript archive in half precision, with three numbers about the model."""

    class Published(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, child in tiny_clip.named_children():
                self.add_module(name, child)
            for name, value in tiny_clip.named_parameters(recurse=False):
                self.register_parameter(name, torch.nn.Parameter(value.detach().half()))
            for name in ("input_resolution", "context_length", "vocab_size"):
                self.register_buffer(name, torch.tensor(12))

        def forward(self, x):
            return x + self.input_resolution + self.context_length + self.vocab_size

    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(Published(), torch.zeros(1)), stream)
    return stream.getvalue()


@pytest.fixture
def machine(tmp_path, monkeypatch, tiny_clip, archive):
    """A machine without any weights, without a network, on which the standard CLIP is the tiny one."""
    for name in ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", standard.GUIDANCE_DIR_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name in ("MEMORYGAN_TEXT_JUDGE", "MEMORYGAN_IDENTITY_JUDGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    asked: list[str] = []

    def no_network(url, timeout):
        asked.append(url)
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(standard.urllib.request, "urlopen", no_network)
    sha256 = standard.hashlib.sha256(archive).hexdigest()
    clip = dataclasses.replace(standard.OPENAI_CLIP, model="tiny-stand-in", sha256=sha256)
    monkeypatch.setattr(standard, "OPENAI_CLIP", clip)
    weights = tmp_path / "weights"
    weights.mkdir()
    monkeypatch.setattr(manifest, "WEIGHTS_DIR", weights)
    return Machine(tmp_path, weights, asked, tiny_clip, archive)


@functools.cache
def untrained_face_text() -> bytes:
    open_clip.add_model_config(BUNDLED_CONFIG)
    state = open_clip.create_model("face-text", pretrained=None).state_dict()
    return safetensors.torch.save({name: value.half() for name, value in state.items()})


@dataclasses.dataclass
class Machine:
    home: Path
    weights: Path
    asked: list[str]
    clip: open_clip.CLIP
    archive: bytes

    def bundle(self) -> None:
        """The bundled judges, untrained."""
        (self.weights / "face-text.safetensors").write_bytes(untrained_face_text())
        net = FaceEmbedder(FaceNetConfig(32, 4, ((8, 8, 1, 2),), 8, 8)).eval()
        save_face_net(self.weights / "identity.safetensors", net, Provenance())

    def put(self, place: str, data: bytes) -> Path:
        path = self.home / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def clip_tensors(self) -> bytes:
        return safetensors.torch.save({name: value.contiguous() for name, value in self.clip.state_dict().items()})


def load_guidance(**named: str) -> SimpleNamespace:
    """Both judges at once, None where there is none, and what is said of them."""
    guides = Guides(**named)
    return SimpleNamespace(text=guides._text.get().judge, identity=guides.identity(), info=guides.info())


def told(info: GuidanceInfo, kind: str = "text") -> JudgeInfo:
    found = info.text if kind == "text" else info.identity
    assert found is not None
    return found


def names(info: GuidanceInfo) -> tuple[str, str]:
    """Of the judge of words and the judge of identity."""
    return told(info).name, told(info, "identity").name


HUB = ".cache/huggingface/hub/models--timm--vit_base_patch32_clip_224.openai/snapshots/abc/open_clip_model.safetensors"
CLIP_CACHE = ".cache/clip/ViT-B-32.pt"
VGGFACE2_CACHE = ".cache/torch/checkpoints/20180402-114759-vggface2.pt"
TORCH_CACHE = ".cache/torch/hub/checkpoints/20180402-114759-vggface2.pt"


@pytest.fixture(scope="module")
def vggface2() -> bytes:
    """The format facenet-pytorch publishes: a pickled state dict with the classifier of the training in it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = InceptionResnetV1(pretrained=None).state_dict()
    stream = io.BytesIO()
    torch.save({**state, "logits.weight": torch.zeros(3, 512), "logits.bias": torch.zeros(3)}, stream)
    return stream.getvalue()


# --- The choice -------------------------------------------------------------------------------------------------------


def test_without_any_weights_there_are_sentences_instead(machine):
    guides = Guides()
    assert "face-text.safetensors" in guides.problem("text")
    assert "identity.safetensors" in guides.problem("identity")
    with pytest.raises(EditingError, match=r"face-text\.safetensors"):
        guides.text()
    assert guides.identity() is None
    assert guides.info().text is None
    assert len(guides.info().notes) == 2
    assert machine.asked == [], "auto waits for no network"


def test_the_bundled_judges_are_used_where_there_are_no_others(machine, caplog):
    machine.bundle()
    caplog.clear()
    state = torch.get_rng_state()
    guides = Guides()
    assert names(guides.info()) == ("bundled", "bundled")
    assert told(guides.info()).sha256 == "", "not loaded yet"
    judge = guides.text()
    assert caplog.messages == [], "nobody is told of values that were overwritten"
    assert torch.equal(torch.get_rng_state(), state), "nor do they cost random numbers"
    assert judge.closed
    assert judge.language.unknown("a woman with a zeppelin") == ("zeppelin",)
    assert judge.encode_text(["a man", "a woman"]).shape == (2, 128)
    face = np.zeros((64, 64, 3), dtype=np.uint8)
    net = guides.identity()
    assert net is not None and net(face, face) == pytest.approx(1.0, abs=1e-5)
    assert len(told(guides.info()).sha256) == 64
    assert set(guides.hashes()) == {"text:bundled", "identity:bundled"}
    assert machine.asked == []


@pytest.mark.parametrize("place", [HUB, CLIP_CACHE, "own/ViT-B-32.pt", "own/ViT-B-32.safetensors"])
def test_standard_text_weights_are_preferred_wherever_they_lie(machine, monkeypatch, place):
    machine.bundle()
    if place.startswith("own/"):
        monkeypatch.setenv(standard.GUIDANCE_DIR_VARIABLE, str(machine.home / "own"))
    path = machine.put(place, machine.archive if place.endswith(".pt") else machine.clip_tensors())
    found = load_guidance()
    assert (told(found.info).name, told(found.info).source) == ("openai", str(path))
    assert told(found.info, "identity").name == "bundled"
    assert found.text is not None and not found.text.closed
    images = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).reshape(1, 3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).reshape(1, 3, 1, 1)
    with torch.no_grad():
        expected = machine.clip.encode_image((images * 0.5 + 0.5 - mean) / std, normalize=True)
        words = machine.clip.encode_text(open_clip.get_tokenizer("tiny-stand-in")(["red hair"]), normalize=True)
    # OpenAI's archive keeps some weights in half precision.
    torch.testing.assert_close(found.text.encode_image(images), expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.text.encode_text(["red hair"]), words, atol=2e-3, rtol=0)
    assert told(load_guidance(text="bundled").info).name == "bundled", "it can be forced the other way"


def test_standard_identity_weights_are_preferred(machine, vggface2):
    machine.bundle()
    machine.put(VGGFACE2_CACHE, vggface2)
    found = load_guidance()
    assert names(found.info) == ("bundled", "vggface2")
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    assert found.identity is not None
    embedded = found.identity.embed(images)
    assert embedded.shape == (2, 512)
    embedded[0, 0].backward()
    assert images.grad is not None and images.grad[0].abs().max() > 0


def test_environment_and_argument_force_a_choice(machine, monkeypatch):
    machine.bundle()
    machine.put(CLIP_CACHE, machine.archive)
    monkeypatch.setenv("MEMORYGAN_TEXT_JUDGE", "bundled")
    assert told(Guides().info()).name == "bundled"
    assert told(Guides("openai").info()).name == "openai", "the argument has the last word"
    monkeypatch.setenv("MEMORYGAN_IDENTITY_JUDGE", "none")
    assert Guides().identity() is None
    assert "turned off" in Guides().problem("identity")
    monkeypatch.setenv("MEMORYGAN_TEXT_JUDGE", "oracle")
    with pytest.raises(EditingError, match="MEMORYGAN_TEXT_JUDGE is 'oracle'; use one of auto, fetch, openai, bundled"):
        Guides()
    with pytest.raises(EditingError, match="the identity judge is 'mum'"):
        Guides("bundled", "mum")


# --- What can go wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [HUB, CLIP_CACHE])
@pytest.mark.parametrize("damage", ["text", "cut", "other"])
def test_a_bad_file_gives_way_to_the_bundled_judge_and_says_so(machine, place, damage):
    machine.bundle()
    good = machine.archive if place.endswith(".pt") else machine.clip_tensors()
    data = {"text": b"<html>404</html>", "cut": good[: len(good) // 2]}.get(damage)
    if data is None:
        data = safetensors.torch.save({"weight": torch.zeros(3)})
    machine.put(place, data)
    found = load_guidance()
    assert told(found.info).name == "bundled"
    assert any("OpenAI CLIP" in note and "bundled judge takes its place" in note for note in found.info.notes)
    with pytest.raises(EditingError, match=r"OpenAI CLIP ViT-B/32 was asked for, but .* cannot be used"):
        Guides("openai").text()


def test_a_pickle_that_would_run_code_is_not_run(machine):
    machine.bundle()

    class Evil:
        def __reduce__(self):
            return Path.touch, (machine.home / "owned",)

    stream = io.BytesIO()
    torch.save({"weight": Evil()}, stream)
    for place in (CLIP_CACHE, TORCH_CACHE.replace("hub/", "")):
        machine.put(place, stream.getvalue())
    found = load_guidance()
    assert names(found.info) == ("bundled", "bundled")
    assert len(found.info.notes) == 2
    assert not (machine.home / "owned").exists()


def test_values_that_are_not_finite_are_refused(machine):
    state = dict(machine.clip.state_dict())
    state["text_projection"] = torch.full_like(state["text_projection"], float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        build_judge("x", "X", "tiny-stand-in", state)


def test_identity_weights_that_are_not_finite_give_way_to_the_bundled_judge(machine, vggface2):
    machine.bundle()
    state = torch.load(io.BytesIO(vggface2), weights_only=True)
    state["last_bn.weight"][3] = float("nan")
    stream = io.BytesIO()
    torch.save(state, stream)
    machine.put(VGGFACE2_CACHE, stream.getvalue())
    found = load_guidance()
    assert names(found.info) == ("bundled", "bundled")
    assert any("VGGFace2" in note and "not finite" in note for note in found.info.notes)
    with pytest.raises(EditingError, match="not finite"):
        Guides(identity="vggface2").identity()


def test_without_facenet_pytorch_the_bundled_judge_takes_its_place(machine, monkeypatch, vggface2):
    machine.bundle()
    machine.put(VGGFACE2_CACHE, vggface2)
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    found = load_guidance()
    assert names(found.info) == ("bundled", "bundled")
    assert any("VGGFace2" in note and "not installed" in note for note in found.info.notes)
    with pytest.raises(EditingError, match=r"not installed .*; install it or use 'bundled'"):
        Guides(identity="vggface2").identity()


def test_fetch_downloads_what_is_missing_or_falls_back_with_a_sentence(machine, monkeypatch):
    machine.bundle()
    monkeypatch.setenv("MEMORYGAN_TEXT_JUDGE", "fetch")
    found = load_guidance(identity="fetch")
    assert names(found.info) == ("bundled", "bundled")
    assert len(machine.asked) == len(found.info.notes) == 2
    for note in found.info.notes:
        assert "could not be fetched (<urlopen error Name or service not known>), so the bundled judge" in note
    monkeypatch.setattr(standard.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(machine.archive))
    assert told(load_guidance(identity="none").info).name == "openai"
    assert (machine.home / CLIP_CACHE).is_file(), "from now on it is on the machine"


def test_forced_without_a_network_is_refused_in_one_sentence(machine):
    machine.bundle()
    for guides, ask in ((Guides(text="openai"), Guides.text), (Guides(identity="vggface2"), Guides.identity)):
        with pytest.raises(EditingError, match=r"could not be fetched .*Name or service not known") as refusal:
            ask(guides)
        assert standard.GUIDANCE_DIR_VARIABLE in str(refusal.value)
    assert len(machine.asked) == 2
    assert not list(machine.home.rglob("*.part")), "nothing is left behind"


def test_forced_weights_are_fetched_and_checked(machine, monkeypatch):
    answers = [machine.archive[:-1], machine.archive]
    monkeypatch.setattr(standard.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(answers.pop(0)))
    guides = Guides(text="openai")
    with pytest.raises(EditingError, match="sha256 is not the published one"):
        guides.text()
    assert not (machine.home / CLIP_CACHE).exists()
    assert isinstance(guides.text(), ImageTextJudge)
    assert (machine.home / CLIP_CACHE).read_bytes() == machine.archive
    assert not list(machine.home.rglob("*.part"))


def test_a_bundled_file_that_was_changed_is_not_used(machine):
    machine.bundle()
    entry = {"file": "face-text.safetensors", "kind": "x", "sha256": "0" * 64, "bytes": 1, "title": "", "licence": ""}
    (machine.weights / "manifest.json").write_text(json.dumps([entry]))
    guides = Guides()
    with pytest.raises(EditingError, match="not the file that was published"):
        guides.text()
    assert "not the file that was published" in guides.problem("text"), "from now on the page knows"
    with pytest.raises(EditingError, match="use 'auto' or another judge"):
        Guides("bundled").text()


def test_a_service_shows_the_choice(machine, tmp_path):
    machine.bundle()
    with EditingService.open(device="cpu", identity_judge="none") as service:
        assert service.capabilities["text"] == ""
        assert "turned off" in service.capabilities["identity"]
        assert told(service.guidance()).name == "bundled"
        assert service.health()["judges"] == {"text": "bundled", "identity": None}
    with pytest.raises(EditingError, match="the text judge is 'oracle'"):
        EditingService.open(device="cpu", text_judge="oracle")
