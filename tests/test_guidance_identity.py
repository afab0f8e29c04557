"""The identity judge: its teacher, the faces it is taught with, its training, how it is measured, and what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from toy import toy_service  # type: ignore[import-not-found]

from editing.guidance.face_net import KIND, FaceEmbedder, FaceNetConfig, inner_face, load_face_net
from editing.guidance.guide import load_guide
from editing.guidance.likeness import SAME_PERSON, SCALES, SIMILAR, SOMEONE_ELSE
from editing.guidance.registry import Guides
from editing.guidance.training import identity, taught
from editing.guidance.training.blockwise import block_errors, check_blocks
from editing.guidance.training.distortions import DISTORTIONS
from editing.guidance.training.identity import IdentityTrainer, IdentityTrainingConfig, go_on
from editing.guidance.training.identity_eval import against_parents, limits, persons, report
from editing.guidance.training.taught import NOBODY, SIZE, TaughtFaces
from memorygan.checkpoint import load_module
from memorygan.training import alignment, teacher
from memorygan.training.schedule import save_state

SMALL = FaceNetConfig(32, 8, ((16, 16, 1, 2), (32, 32, 1, 2)), 64, 128)
MARKS = torch.tensor([[0.38, 0.47], [0.63, 0.47], [0.5, 0.62], [0.39, 0.73], [0.62, 0.73]])


@pytest.fixture(scope="module")
def network() -> teacher.MobileFaceNet:
    torch.manual_seed(0)
    network = teacher.MobileFaceNet().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # plain means
    network(torch.rand(16, 3, 112, 112))  # so that its maps vary, down to the last
    return network.eval()


def faces(count: int, seed: int, name: str = "drawn", real: bool = False) -> TaughtFaces:
    """Smooth random pictures, each with a code, maps and landmarks of its own."""
    dice = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, 6, 6, generator=dice)
    pictures = F.interpolate(small, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1).mul(255).byte()
    codes = F.normalize(torch.randn(count, 128, generator=dice), dim=1)
    maps = torch.randn(count, 2, 128, 7, 7, generator=dice).half()
    names = np.array([f"{index:05d}" for index in range(count)])
    parents = np.full((count, 2), NOBODY)
    return TaughtFaces(
        name, names, pictures.permute(0, 2, 3, 1).numpy(), MARKS.expand(count, 5, 2).numpy(), codes.numpy(),
        maps.numpy(), parents,
    )  # fmt: skip


def test_teacher_has_the_published_size(network: teacher.MobileFaceNet) -> None:
    """Chen et al. 2018 report 0.99 million parameters; this variant has a last layer with a bias."""
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1.0e6, rel=0.05)


def test_teacher_is_read_from_safetensors(network: teacher.MobileFaceNet, tmp_path: Path) -> None:
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "teacher.safetensors")
    read = teacher.load_teacher(tmp_path / "teacher.safetensors")
    images = torch.rand(2, 3, 112, 112)
    torch.testing.assert_close(read(images), network(images), atol=1e-3, rtol=1e-4)
    codes = read.identity(images)
    torch.testing.assert_close(codes, read.identity(images.flip(3)))
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(2))
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not hold the weights of MobileFaceNet"):
        teacher.load_teacher(tmp_path / "other.safetensors")


def test_alignment_brings_landmarks_to_their_places() -> None:
    """A dot on every landmark of a turned and shifted face lies where the network looks for it."""
    turn = torch.tensor([[0.97, 0.2], [-0.2, 0.97]])
    marks = ((MARKS - 0.5) @ turn + 0.53)[None]
    line = (torch.arange(256) + 0.5) / 256
    y, x = torch.meshgrid(line, line, indexing="ij")
    for index, (u, v) in enumerate(teacher.LANDMARKS):
        distance = (x - marks[0, index, 0]).square() + (y - marks[0, index, 1]).square()
        image = torch.exp(-distance / 0.015**2)[None, None]
        aligned = alignment.align(image, marks, teacher.LANDMARKS, 112)[0, 0]
        row, column = divmod(int(aligned.argmax()), 112)
        # The five points of a face are only similar to the network's, so they are met within a few pixels.
        assert abs(column + 0.5 - u) < 4 and abs(row + 0.5 - v) < 4


def test_similarity_is_exact_for_similar_points() -> None:
    turn = 1.3 * torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    moved = (MARKS @ turn.T + torch.tensor([0.2, -0.1]))[None]
    found = alignment.similarity(MARKS[None], moved[0])
    torch.testing.assert_close(found[0, :, :2], turn)
    torch.testing.assert_close(found[0, :, 2], torch.tensor([0.2, -0.1]))


@pytest.mark.parametrize("way", DISTORTIONS)
def test_distortions_change_pictures_and_keep_their_form(way: str) -> None:
    dice = torch.Generator().manual_seed(0)
    one, other = (torch.from_numpy(faces(8, seed).pictures).permute(0, 3, 1, 2).float() / 255 for seed in (1, 2))
    marks = MARKS.expand(8, 5, 2)
    before = one.clone()
    shown, places = DISTORTIONS[way](one, marks, other, marks + 0.02, dice)
    assert torch.equal(one, before), "what is given stays as it was"
    assert shown.shape == one.shape and shown.isfinite().all() and shown.min() >= -0.01 and shown.max() <= 1.01
    assert (shown - one).abs().mean() > 0.005
    assert places.shape == marks.shape and (places - marks).abs().max() < 0.2


def test_a_warp_takes_the_landmarks_along() -> None:
    dice = torch.Generator().manual_seed(3)
    line = (torch.arange(160) + 0.5) / 160
    y, x = torch.meshgrid(line, line, indexing="ij")
    dots = torch.exp(-((x - 0.5).square() + (y - 0.62).square()) / 0.02**2).expand(8, 3, 160, 160)
    shown, places = DISTORTIONS["warp"](dots, MARKS.expand(8, 5, 2), dots, MARKS.expand(8, 5, 2), dice)
    spots = torch.stack([torch.stack([x.flatten()[i], y.flatten()[i]]) for i in shown[:, 0].flatten(1).argmax(1)])
    assert (spots - torch.tensor([0.5, 0.62])).norm(dim=1).mean() > 0.01
    assert (spots - places[:, 2]).norm(dim=1).mean() < 0.012


def test_faces_are_recorded_once_and_distorted(network: teacher.MobileFaceNet, tmp_path: Path) -> None:
    pytest.importorskip("facenet_pytorch", exc_type=ImportError)
    (tmp_path / "photos" / "images").mkdir(parents=True)
    for index, picture in enumerate(faces(9, 4).pictures):
        Image.fromarray(picture).save(tmp_path / "photos" / "images" / f"{index:05d}.png")
    recorder = taught.Recorder(network, tmp_path / "cache")
    found = recorder.folder(tmp_path / "photos")
    assert len(found) == 9 and found.maps.shape == (9, 2, 128, 7, 7)
    assert found.held.tolist() == [index == 7 for index in range(9)]
    recorder.teacher = None  # type: ignore[assignment]
    again = recorder.folder(tmp_path / "photos")
    np.testing.assert_array_equal(again.codes, found.codes)
    recorder.teacher = network
    distorted = recorder.distorted([found], 20, 1)
    assert len(distorted) == 20 and set(distorted.names) <= set(DISTORTIONS)
    assert (distorted.parents[:, 0] != 7).all() and (distorted.parents[:, 0] >= 0).all()
    assert set(recorder.distorted([found], 5, 1, held=True).parents[:, 0]) == {7}


def test_other_photos_of_a_held_out_person_are_held_out() -> None:
    real = faces(40, 5, "ffhq")
    real.codes[3] = F.normalize(torch.from_numpy(real.codes[7] + 0.01 * real.codes[3]), dim=0).numpy()
    assert np.flatnonzero(real.held).tolist() == [3, 7, 27]
    drawn = faces(40, 5, "stylegan")
    assert np.flatnonzero(drawn.held).tolist() == [7, 27]


@pytest.fixture
def small_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings begin with a judge of a few blocks."""
    monkeypatch.setattr(identity, "FaceEmbedder", lambda: FaceEmbedder(SMALL))


def _trainer(images: int) -> IdentityTrainer:
    photos = [faces(12, 6, "ffhq"), faces(12, 7, "stylegan")]
    made = faces(6, 8, "distorted")
    # Parents count through all photos; the last one was made of a held-out face.
    made.parents[:] = [[0, 13], [1, NOBODY], [2, 14], [3, 15], [14, 2], [7, 0]]
    return IdentityTrainer(IdentityTrainingConfig(images=images, batch=12), photos, [made])


@pytest.mark.usefixtures("small_judge")
def test_a_step_shows_what_was_made_beside_its_parents() -> None:
    trainer = _trainer(24)
    assert 7 not in trainer.photos and 29 not in trainer.made[0], "held-out faces and what was made of them"
    picks = trainer._picks()
    assert len(picks) == 12 and (picks[:3] >= 24).all() and (picks[3:] < 24).all()
    assert set(trainer.parents[picks[:3], 0]) <= set(picks.tolist())


@pytest.mark.usefixtures("small_judge")
def test_few_rebuilt_faces_are_shown_as_often_as_many_distorted_ones() -> None:
    rebuilt, distorted = faces(2, 8, "rebuilt"), faces(40, 9, "distorted")
    rebuilt.parents[:, 0], distorted.parents[:, 0] = 1, 2
    trainer = IdentityTrainer(IdentityTrainingConfig(images=48, batch=24), [faces(30, 6, "ffhq")], [rebuilt, distorted])
    for _ in range(5):
        shown = trainer._picks()[:6]
        assert set(shown[:3]) <= {30, 31} and (shown[3:] >= 32).all()


@pytest.mark.usefixtures("small_judge")
def test_a_step_shows_two_photos_of_one_person() -> None:
    photos = faces(60, 6, "ffhq")
    photos.codes[50], photos.codes[40] = photos.codes[31], photos.codes[7]  # and 7 is held out
    assert photos.alike.tolist() == [[31, 50]]
    trainer = IdentityTrainer(IdentityTrainingConfig(images=48, batch=12), [faces(24, 7), photos])
    for _ in range(5):
        assert {24 + 31, 24 + 50} <= set(trainer._picks().tolist())


@pytest.mark.usefixtures("small_judge")
def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole, first = _trainer(72), _trainer(72)
    for _ in range(3):
        whole.step()
    for _ in range(2):
        first.step()
    save_state(tmp_path / "state.pt", first)
    second = _trainer(72)
    go_on(second, tmp_path / "state.pt")
    assert second.shown == 24
    second.step()
    for one, other in zip(whole.average.state_dict().values(), second.average.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("small_judge")
def test_a_finished_run_goes_on_from_before_its_rate_fell(tmp_path: Path) -> None:
    trainer = _trainer(72)
    identity.train(trainer, tmp_path / "state.pt")
    assert trainer.shown == 72
    same = _trainer(72)
    go_on(same, tmp_path / "state.pt")
    assert same.shown == 72
    longer = _trainer(720)
    go_on(longer, tmp_path / "state.pt")
    assert 0 < longer.shown < 72


@pytest.mark.usefixtures("small_judge")
def test_a_run_that_went_on_is_not_thrown_back_when_it_is_stopped_again(tmp_path: Path) -> None:
    identity.train(_trainer(72), tmp_path / "state.pt")
    longer = _trainer(720)
    go_on(longer, tmp_path / "state.pt")
    fell = longer.shown
    longer.step()
    save_state(tmp_path / "state.pt", longer)
    again = _trainer(720)
    go_on(again, tmp_path / "state.pt")
    assert again.shown == longer.shown > fell


@pytest.mark.usefixtures("small_judge")
def test_training_brings_codes_nearer() -> None:
    trainer = IdentityTrainer(IdentityTrainingConfig(images=1600, batch=8, lr=1e-2), [faces(12, 14)])
    found = []
    for _ in range(130):
        trainer.step()
        found.append(trainer.parts["code"])
    assert np.mean(found[-5:]) < np.mean(found[:5]) - 0.15


def _twin(network: teacher.MobileFaceNet) -> FaceEmbedder:
    """A judge with the shape and the weights of its teacher."""
    stages = ((128, 64, 5, 2), (256, 128, 1, 2), (256, 128, 6, 1), (512, 128, 1, 2), (256, 128, 2, 1))
    net = FaceEmbedder(FaceNetConfig(stages=stages)).eval()
    given = {name: value for name, value in network.state_dict().items() if name != "conv3.bias"}
    given["bn.running_mean"] = given["bn.running_mean"] - network.state_dict()["conv3.bias"]
    net.load_state_dict(dict(zip(net.state_dict(), given.values(), strict=True)))
    return net


def test_a_judge_with_its_teachers_weights_makes_no_error(network: teacher.MobileFaceNet) -> None:
    net, crops = _twin(network), torch.rand(4, 3, 112, 112) * 2 - 1
    check_blocks(net.config)
    assert block_errors(net, network, crops, 0).shape == (17,)
    assert block_errors(net, network, crops, 0).max() < 1e-6
    torch.testing.assert_close(
        net.vector(net.maps_of(crops)), F.normalize(network(crops / 2 + 0.5), dim=1), atol=1e-4, rtol=0
    )
    with torch.no_grad():
        net.get_parameter("blocks.3.change.7.bias")[0] += 1
    wrong = block_errors(net, network, crops, 1)
    assert wrong[4] > 1e-3 and wrong[5] < 1e-6, "each block is fed by the teacher"


def test_a_judge_of_another_shape_does_not_learn_block_by_block() -> None:
    for stages in (((160, 64, 5, 2),), ((160, 64, 5, 2), (320, 96, 1, 2), (320, 96, 9, 1))):
        with pytest.raises(ValueError, match="other widths"):
            check_blocks(FaceNetConfig(stages=stages))


def test_only_blocks_see_other_light_than_the_teacher_judged(network: teacher.MobileFaceNet) -> None:
    grey, flips = torch.full((12, 3, SIZE, SIZE), 0.4), torch.zeros(12, dtype=torch.bool)
    config = IdentityTrainingConfig(images=24, batch=8)
    whole = IdentityTrainer(config, [faces(12, 14)])
    torch.testing.assert_close(whole._look(grey, flips), torch.full((12, 3, 112, 112), 0.4))
    blocks = IdentityTrainer(config, [faces(12, 14)], blocks_of=network)
    assert blocks._look(grey, flips).std() > 0.01


def test_blocks_come_nearer_to_the_teachers(network: teacher.MobileFaceNet) -> None:
    config = IdentityTrainingConfig(images=800, batch=8, lr=2e-2)
    trainer = IdentityTrainer(config, [faces(12, 14)], blocks_of=network)
    found = [trainer.step() for _ in range(16)]
    assert set(trainer.parts) == {"stem", "blocks", "worst", "head"}
    assert np.mean(found[-3:]) < 0.7 * np.mean(found[:3])


def test_too_few_faces_are_refused() -> None:
    with pytest.raises(ValueError, match="need at least 64 faces"):
        IdentityTrainer(IdentityTrainingConfig(images=64), [faces(20, 9)])


def test_the_command_trains_writes_and_measures(
    network: teacher.MobileFaceNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("facenet_pytorch", exc_type=ImportError)
    (tmp_path / "photos" / "images").mkdir(parents=True)
    for index, picture in enumerate(faces(10, 15).pictures):
        Image.fromarray(picture).save(tmp_path / "photos" / "images" / f"{index:05d}.png")
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "teacher.safetensors")
    places = {
        "teacher": "teacher.safetensors",
        "data": "photos",
        "cache": "cache",
        "state": "state.pt",
        "out": "new.st",
    }
    arguments = [word for name, place in places.items() for word in (f"--{name}", str(tmp_path / place))]
    arguments += ["--distorted", "8", "--rounds", "1", "--batch", "8"]
    assert identity.main([*arguments, "--images", "16"]) == 0
    assert "16 images shown" in capsys.readouterr().out
    assert load_face_net(tmp_path / "new.st")(torch.zeros(1, 3, 64, 64)).shape == (1, 128)
    assert identity.main([*arguments, "--evaluate"]) == 0
    assert "| pairs |" in capsys.readouterr().out
    led = ["--guide", "--state", str(tmp_path / "guide.pt"), "--out", str(tmp_path / "guide.st")]
    assert identity.main([*arguments, *led, "--images", "8"]) == 0
    assert load_guide(tmp_path / "guide.st")(torch.zeros(1, 3, 64, 64)).shape == (1, 128)
    assert identity.main([*arguments, *led, "--images", "16", "--blockwise"]) == 2
    assert "train it as a whole" in capsys.readouterr().err
    again = ["--start-from", str(tmp_path / "new.st"), "--state", str(tmp_path / "again.pt")]
    assert identity.main([*arguments, *again, "--images", "8", "--blockwise"]) == 0
    assert load_module(tmp_path / "new.st", KIND)[1]["provenance"]["images_seen"] == 24


class _Knows:
    """Gives the teacher's codes of the pictures it knows, by their pixels."""

    def __init__(self, *sources: TaughtFaces) -> None:
        self.keys = torch.cat([self._key(torch.from_numpy(s.pictures).permute(0, 3, 1, 2) / 255) for s in sources])
        self.codes = torch.cat([torch.from_numpy(s.codes) for s in sources])

    @staticmethod
    def _key(images: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(images.float(), 4).flatten(1)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.codes[torch.cdist(self._key(images / 2 + 0.5), self.keys).argmin(1)]


def test_a_judge_that_agrees_is_measured_as_perfect() -> None:
    real = faces(60, 10, "ffhq")
    real.codes[27] = real.codes[7]
    made = faces(5, 11, "blend")
    made.parents[:, 0] = [7, 27, 47, 7, 27]
    made.names[:] = "blend"
    judge = _Knows(real, made)
    figures = persons(judge, real, SIZE)
    assert figures["pairs of one person"] == 1 and figures["area"] == 1
    assert figures["others: off by"] == pytest.approx(0, abs=1e-6)
    ways = against_parents(judge, made, [real], SIZE)
    (row,) = ways.values()
    assert row["pairs"] == 5 and row["off by"] == pytest.approx(0, abs=1e-6) and row["within 0.08"] == 1
    table = report(judge, [real], [made], [SIZE, 128])
    assert "ffhq, 128 px" in table and "| teacher |" in table and "| strangers |" in table


def test_limits_are_told_from_what_reaches_them() -> None:
    real = faces(60, 10, "ffhq")
    made = faces(4, 11, "blend")
    made.parents[:, 0] = [7, 27, 47, 7]
    kept = real.codes[made.parents[:, 0]]
    across = F.normalize(torch.from_numpy(made.codes - (made.codes * kept).sum(1, keepdims=True) * kept), dim=1).numpy()
    cosines = np.array([0.9, 0.62, 0.47, 0.1])[:, None]
    made.codes[:] = cosines * kept + np.sqrt(1 - cosines**2) * across
    found = limits(_Knows(real, made), [real], [made], SIZE)
    assert found["from 0.45"]["teacher agrees"] == pytest.approx(2 / 3), "the third is below 0.5"
    assert found["from 0.50"]["teacher agrees"] == found["from 0.60"]["teacher agrees"] == 1
    assert found["from 0.60"]["of those it takes for the same"] == 1
    assert found["from 0.65"]["of those it takes for the same"] == 0.5
    codes = real.codes[real.held]
    strangers = (codes @ codes.T)[np.triu_indices(len(codes), 1)]
    assert found["from 0.30"]["strangers"] == pytest.approx((strangers >= 0.3).mean())


def test_a_judge_that_guesses_is_measured_as_guessing() -> None:
    real = faces(400, 12, "ffhq")
    real.codes[real.held] = np.repeat(real.codes[real.held][::2], 2, 0)[: int(real.held.sum())]
    dice = torch.Generator().manual_seed(0)
    figures = persons(lambda x: F.normalize(torch.randn(len(x), 64, generator=dice), dim=1), real, 128)
    assert 0.25 < figures["area"] < 0.75
    assert figures["same person: off by"] > 0.5


def test_pictures_of_any_size_mean_the_same_to_the_bundled_judge() -> None:
    net = load_face_net()
    picture = torch.from_numpy(faces(1, 13).pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    large = F.interpolate(picture, size=(256, 256), mode="bilinear", antialias=True)
    assert float(net(picture) @ net(large).T) > 0.97


def test_the_frame_of_the_network_is_cut_out() -> None:
    """As a check of the numbers in :mod:`editing.guidance.face_net`: mean landmarks lie at the teacher's places."""
    from editing.guidance.face_net import RECOGNITION_FRAME

    left, top, right, bottom = RECOGNITION_FRAME
    seen = (MARKS - torch.tensor([left, top])) / torch.tensor([right - left, bottom - top]) * 112
    assert (seen - torch.tensor(teacher.LANDMARKS)).abs().max() < 3
    assert inner_face(torch.rand(1, 3, 100, 100), 64, RECOGNITION_FRAME).shape == (1, 3, 64, 64)


def test_the_embedder_is_small() -> None:
    assert sum(p.numel() for p in FaceEmbedder().parameters()) * 2 < 8e6


@pytest.mark.parametrize("judge", SCALES)
def test_every_scale_has_three_words(judge: str) -> None:
    scale = SCALES[judge]
    assert scale.read(1.0).word == SAME_PERSON == scale.read(scale.same).word
    assert scale.read(scale.similar).word == SIMILAR == scale.read(scale.same - 1e-6).word
    assert scale.read(scale.strangers).word == SOMEONE_ELSE == scale.read(scale.similar - 1e-6).word
    assert f"same person from {scale.same:.2f}" in scale.read(0.5).meaning


def test_the_service_reads_its_own_judge_alone() -> None:
    guides = Guides(text="bundled", identity="bundled")
    with toy_service(guides=guides) as service:
        found = service.likeness(SCALES["bundled"].same)
        assert found is not None and found.word == SAME_PERSON
    with toy_service() as service:
        assert service.likeness(0.5) is None
