"""Fréchet distance, feature networks, mask agreement, diversity and nearest neighbours against hand-computed cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from memorygan import parser as face_parser
from memorygan.analysis import features as feature_networks
from memorygan.analysis.agreement import agreement, confusion_matrix, parser_ids
from memorygan.analysis.diversity import (
    diversity_ratio,
    mean_pairwise_distance,
    nearest_neighbours,
    pixel_vectors,
)
from memorygan.analysis.features import (
    FEATURE_NETWORKS,
    INCEPTION_VARIABLE,
    FeatureError,
    InceptionFeatures,
    ParserFeatures,
    fid,
    find_features,
    inception_score,
    load_inception,
)
from memorygan.analysis.frechet import (
    FeatureStatistics,
    feature_statistics,
    frechet_between,
    frechet_distance,
    symmetric_sqrt,
)
from memorygan.analysis.readings import Reader, Readings
from memorygan.checkpoint import CheckpointError, Provenance
from memorygan.config import get_preset
from memorygan.generator import MemoryGAN
from memorygan.parser import FaceParser, ParserConfig, save_parser
from memorygan.parts import FACE_PARTS, PartScheme, numbered_parts
from memorygan.training.batches import ResidentFaces
from memorygan.training.metrics import measure


def gaussian(mean: list[float], covariance: list[list[float]]) -> FeatureStatistics:
    return FeatureStatistics(np.array(mean), np.array(covariance))


# --- Fréchet distance -------------------------------------------------------------------------------------------------


def test_mean_and_unbiased_covariance_of_three_points():
    statistics = feature_statistics(torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 3.0]]))

    np.testing.assert_allclose(statistics.mean, [2.0, 1.0])
    # Σ(x−2)² = 8, Σ(x−2)(y−1) = 6, Σ(y−1)² = 6, each over N − 1 = 2.
    np.testing.assert_allclose(statistics.covariance, [[4.0, 3.0], [3.0, 3.0]])
    assert statistics.mean.dtype == statistics.covariance.dtype == np.float64


def test_frechet_distance_of_one_dimensional_gaussians():
    # (3 − 0)² + (σ₁ − σ₂)² = 9 + (2 − 5)²
    assert frechet_distance(gaussian([0.0], [[4.0]]), gaussian([3.0], [[25.0]])) == pytest.approx(18.0)


def test_frechet_distance_of_commuting_covariances_is_the_distance_of_their_roots():
    first, second = gaussian([1.0, 2.0], [[9.0, 0.0], [0.0, 1.0]]), gaussian([1.0, 4.0], [[4.0, 0.0], [0.0, 16.0]])
    assert frechet_distance(first, second) == pytest.approx(4 + 1 + 9)


def test_frechet_distance_of_covariances_that_do_not_commute():
    first, second = gaussian([0.0, 0.0], [[2.0, 1.0], [1.0, 2.0]]), gaussian([0.0, 0.0], [[4.0, 0.0], [0.0, 1.0]])
    # For 2×2: tr √(AB) = √(tr AB + 2 √det AB), tr AB = 8 + 2, det AB = 3 · 4.
    expected = 4 + 5 - 2 * math.sqrt(10 + 2 * math.sqrt(12))
    assert frechet_distance(first, second) == pytest.approx(expected)
    assert frechet_distance(second, first) == pytest.approx(expected)


def test_frechet_distance_to_itself_is_nothing_even_where_the_covariance_is_singular():
    statistics = feature_statistics(torch.randn(4, 32))
    assert frechet_distance(statistics, statistics) == pytest.approx(0.0, abs=1e-9)


def test_symmetric_square_root_squared_is_the_matrix():
    matrix = np.array([[5.0, 4.0], [4.0, 5.0]])
    np.testing.assert_allclose(symmetric_sqrt(matrix), [[2.0, 1.0], [1.0, 2.0]], atol=1e-12)


@pytest.mark.parametrize("features", [torch.zeros(1, 3), torch.zeros(3), torch.tensor([[0.0], [math.nan]])])
def test_features_that_make_no_gaussian_are_refused(features):
    with pytest.raises(ValueError, match="features"):
        feature_statistics(features)


def test_features_of_different_networks_are_not_compared():
    with pytest.raises(ValueError, match="one feature network"):
        frechet_distance(gaussian([0.0], [[1.0]]), gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]))


# --- Feature networks -------------------------------------------------------------------------------------------------


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    """A machine with neither Inception's nor the parser's weights."""
    monkeypatch.delenv(INCEPTION_VARIABLE, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(face_parser, "DEFAULT_WEIGHTS", tmp_path / "parser.safetensors")
    return tmp_path


@pytest.fixture
def small_parser(no_weights):
    """The same machine with a tiny untrained parser."""
    save_parser(face_parser.DEFAULT_WEIGHTS, FaceParser(ParserConfig(size=32, widths=(4, 6, 8))), Provenance())
    return face_parser.DEFAULT_WEIGHTS


def test_without_weights_there_are_no_features(no_weights):
    assert find_features() is None
    assert Reader.load() == Reader(None, None)


def test_the_parser_stands_in_and_is_never_called_fid(small_parser):
    network = find_features()

    assert isinstance(network, ParserFeatures)
    assert "substitute" in network.title and "FID" not in network.title
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    features = network(images)
    assert features.shape == (3, 6 + 8)
    torch.testing.assert_close(features, network(images))
    # The pooled bottleneck, computed by hand from the parser's own parts.
    parser = network.parser
    spread = (images.var(dim=(2, 3), keepdim=True, unbiased=False) + 1e-3).sqrt()
    x = parser.stem((images - images.mean(dim=(2, 3), keepdim=True)) / spread)
    middle = parser.encoder[0](x)
    bottleneck = parser.encoder[1](middle)
    expected = torch.cat((middle.mean(dim=(2, 3)), bottleneck.mean(dim=(2, 3))), dim=1)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def test_reading_features_leaves_no_hooks_behind(small_parser):
    network = find_features()
    assert isinstance(network, ParserFeatures)
    with pytest.raises(ValueError):
        network(torch.zeros(1, 3, 8, 8))
    assert all(not level._forward_hooks for level in network.parser.encoder)


def test_unknown_networks_and_wrong_inception_files_are_refused(no_weights, monkeypatch):
    with pytest.raises(FeatureError, match="parser"):
        find_features(name="vgg")
    monkeypatch.setenv(INCEPTION_VARIABLE, str(no_weights / "absent.pth"))
    with pytest.raises(FeatureError, match="no such file"):
        load_inception()
    (no_weights / "other.pth").write_bytes(b"other weights")
    monkeypatch.setenv(INCEPTION_VARIABLE, str(no_weights / "other.pth"))
    with pytest.raises(FeatureError, match="not the standard Inception file"):
        load_inception()


def test_an_inception_file_with_code_in_it_is_not_run(no_weights, monkeypatch):
    class Payload:
        def __reduce__(self):
            return (open, (str(no_weights / "ran"), "w"))

    torch.save({"weight": Payload()}, no_weights / "bad.pth")
    monkeypatch.setenv(INCEPTION_VARIABLE, str(no_weights / "bad.pth"))
    monkeypatch.setattr(feature_networks, "INCEPTION_SHA256", "")
    with pytest.raises(FeatureError, match="plain tensors"):
        load_inception()
    assert not (no_weights / "ran").exists()


def test_a_damaged_parser_is_reported_not_passed_over(no_weights):
    face_parser.DEFAULT_WEIGHTS.write_bytes(b"not weights")
    with pytest.raises(CheckpointError):
        find_features()


def test_inception_sees_rounded_bytes():
    seen = []

    def extractor(images):
        seen.append(images)
        return torch.ones(len(images), 2048), torch.zeros(len(images), 1008)

    network = InceptionFeatures(extractor)
    assert network(torch.tensor([-2.0, -1.0, 0.0, 1.0]).view(4, 1, 1, 1).expand(4, 3, 2, 2)).shape == (4, 2048)
    assert seen[0].dtype == torch.uint8
    assert seen[0][:, 0, 0, 0].tolist() == [0, 0, 128, 255]
    assert list(FEATURE_NETWORKS) == ["inception", "parser"]


@pytest.mark.parametrize("count", [200, 12])
def test_our_frechet_distance_is_that_of_torch_fidelity(count):
    """12 vectors of 20 features make covariances that are singular."""
    random = torch.Generator().manual_seed(0)
    first = torch.randn(count, 20, generator=random) @ torch.randn(20, 20, generator=random)
    second = 1.5 * torch.randn(count, 20, generator=random) + 0.3
    theirs = fid(first, second)
    assert theirs > 10
    assert frechet_between(first, second) == pytest.approx(theirs, rel=1e-4)
    assert fid(first, first) == pytest.approx(0.0, abs=1e-3)
    with pytest.raises(ValueError, match="at least 2"):
        fid(first[:1], second)


def test_inception_score_of_two_certain_classes_is_two():
    logits = torch.tensor([[50.0, 0.0], [0.0, 50.0]]).repeat(10, 1)
    mean, std = inception_score(logits, splits=1)
    assert mean == pytest.approx(2.0, abs=1e-6)
    assert std == 0.0


# --- Mask agreement ---------------------------------------------------------------------------------------------------


def test_agreement_of_two_small_masks():
    drawn = torch.tensor([[[0, 0, 1], [1, 1, 2]]])
    found = torch.tensor([[[0, 1, 1], [1, 2, 2]]])

    confusion = confusion_matrix(drawn, found, 4)
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    scores = agreement(confusion, ("background", "skin", "hair", "nose"))
    assert scores.iou["background"] == pytest.approx(1 / 2)
    assert scores.iou["skin"] == pytest.approx(2 / 4)
    assert scores.iou["hair"] == pytest.approx(1 / 2)
    assert math.isnan(scores.iou["nose"])
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.mean(("skin", "hair", "nose")) == pytest.approx(1 / 2)
    assert math.isnan(scores.mean(("nose",)))
    with pytest.raises(ValueError, match="unknown part 'ears'"):
        scores.mean(("ears",))


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        confusion_matrix(torch.zeros(1, 2, 2), torch.zeros(1, 4, 4), 3)
    with pytest.raises(ValueError, match="beyond"):
        confusion_matrix(torch.full((1, 2, 2), 3), torch.zeros(1, 2, 2, dtype=torch.int64), 3)


def test_parser_ids_follow_the_names():
    reordered = PartScheme(tuple(reversed(FACE_PARTS.parts)))
    assert parser_ids(torch.tensor([[[0, 1]]]), FACE_PARTS, reordered).tolist() == [[[12, 11]]]


# --- Diversity and neighbours -----------------------------------------------------------------------------------------


def test_pixel_distance_is_the_root_mean_square_difference_in_steps_of_255():
    black, white = torch.full((1, 3, 4, 4), -1.0), torch.full((1, 3, 4, 4), 1.0)
    vectors = pixel_vectors(torch.cat((black, white)))
    assert float((vectors[0] - vectors[1]).norm()) == pytest.approx(255.0)
    half = white.clone()
    half[..., 2:] = -1.0  # differs from black in half of the pixels
    assert float((pixel_vectors(half) - pixel_vectors(black)).norm()) == pytest.approx(255.0 / math.sqrt(2))
    assert pixel_vectors(torch.zeros(2, 3, 128, 128)).shape == (2, 3 * 64 * 64)


@pytest.mark.parametrize("block", [1, 2, 512])
def test_mean_pairwise_distance_of_a_triangle(block):
    triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    assert mean_pairwise_distance(triangle, block) == pytest.approx((3 + 4 + 5) / 3)
    assert diversity_ratio(triangle / 2, triangle) == pytest.approx(0.5)


def test_diversity_needs_pairs_and_a_varied_reference():
    with pytest.raises(ValueError, match="at least 2"):
        mean_pairwise_distance(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="all equal"):
        diversity_ratio(torch.rand(3, 3), torch.zeros(3, 3))


def test_nearest_neighbours_and_their_distances():
    reference = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 3.0]])
    found = nearest_neighbours(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), reference, count=2)

    assert found.indices.tolist() == [[0, 2], [2, 0]]
    torch.testing.assert_close(found.distances, torch.tensor([[1.0, math.sqrt(10)], [0.0, 3.0]]))


def test_a_copy_is_found_at_distance_zero_far_from_the_origin():
    reference = 1000 + torch.randn(300, 50)
    found = nearest_neighbours(reference[[7, 211]].clone(), reference)
    assert found.indices[:, 0].tolist() == [7, 211]
    assert found.distances.tolist() == [[0.0], [0.0]]


# --- All judges together, as the training loop calls them -------------------------------------------------------------


class ToyFaces:
    """A packed set of random noise with the real ones' interface."""

    part_names = FACE_PARTS.names

    def images(self):
        return torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)

    def masks(self):
        return torch.randint(0, 13, (6, 32, 32), dtype=torch.uint8)


@pytest.fixture
def toy_faces():
    return ResidentFaces(ToyFaces(), torch.device("cpu"), torch.float32)


@pytest.fixture
def tiny():
    return MemoryGAN(get_preset("tiny-32").generator).eval()


def test_measure_works_without_any_weights(no_weights, toy_faces, tiny):
    record = measure(tiny, toy_faces, samples=4, temperature=1.0)
    assert set(record) == {"diversity"}


def test_measure_with_a_parser(small_parser, toy_faces, tiny):
    record = measure(tiny, toy_faces, samples=4, temperature=1.0)

    assert set(record) >= {"diversity", "frechet_distance", "frechet_features", "feature_diversity", "mask_agreement"}
    assert record["frechet_features"] == "parser"
    assert 0 <= float(record["mask_agreement"]) <= 1
    assert measure(tiny, toy_faces, samples=4, temperature=1.0) == record


def test_weights_that_arrive_during_a_run_are_taken_up(no_weights, toy_faces, tiny):
    assert "frechet_distance" not in measure(tiny, toy_faces, samples=3, temperature=1.0)
    save_parser(face_parser.DEFAULT_WEIGHTS, FaceParser(ParserConfig(size=32, widths=(4, 6))), Provenance())
    assert "frechet_distance" in measure(tiny, toy_faces, samples=3, temperature=1.0)


def test_damaged_weights_do_not_stop_a_training_run(no_weights, toy_faces, tiny):
    face_parser.DEFAULT_WEIGHTS.write_bytes(b"not weights")
    with pytest.warns(UserWarning, match="without feature networks"):
        assert set(measure(tiny, toy_faces, samples=2, temperature=1.0)) == {"diversity"}


def test_measure_leaves_a_diverged_generator_to_the_loop(small_parser, toy_faces, tiny):
    with torch.no_grad():
        tiny.memory.bias.fill_(math.nan)
    assert measure(tiny, toy_faces, samples=2, temperature=1.0) == {}


def test_measure_needs_a_pair_of_faces(small_parser, toy_faces, tiny):
    with pytest.raises(ValueError, match="at least 2"):
        measure(tiny, toy_faces, samples=1, temperature=1.0)


def test_readings_of_a_scheme_the_parser_does_not_know_have_no_masks(small_parser):
    reader = Reader.load()
    images = torch.rand(2, 3, 32, 32)
    reading = reader.read(images, numbered_parts(4))
    assert reading.ids is None and reading.features is not None
    joined = Readings.join([reading, reading])
    assert joined.features is not None and len(joined.features) == len(joined.pixels) == 4
