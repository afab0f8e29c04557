"""Numbers that say whether a generator gets better."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from memorygan.analysis.agreement import CORE_PARTS, agreement, confusion_matrix
from memorygan.analysis.diversity import mean_pairwise_distance
from memorygan.analysis.features import FeatureError
from memorygan.analysis.frechet import FeatureStatistics, feature_statistics, frechet_distance
from memorygan.analysis.readings import Reader, Readings
from memorygan.checkpoint import CheckpointError
from memorygan.generator import MemoryGAN
from memorygan.parts import PartScheme
from memorygan.training.batches import ResidentFaces

BATCH = 16


@dataclass(frozen=True)
class _RealFaces:
    """The real set as the judges see it: read once per process."""

    reader: Reader
    pixel_spread: float
    feature_spread: float | None
    statistics: FeatureStatistics | None


_real_faces: WeakKeyDictionary[ResidentFaces, dict[int, _RealFaces]] = WeakKeyDictionary()


@torch.no_grad()
def measure(generator: MemoryGAN, faces: ResidentFaces, samples: int, temperature: float) -> dict[str, float | str]:
    """Compares generated faces (seeds 0 to ``samples`` − 1, no truncation) with as many real ones.

    Args:
        generator: in evaluation mode.
        faces: the training faces; ``samples`` of them, evenly spaced, are used.
        samples: faces on each side, at least 2; values over different counts do not compare.
        temperature: scale of the controller's noise.

    Returns:
        ``diversity``: mean pairwise pixel distance relative to the real faces'. Where the weights of a feature network
        are, also ``frechet_distance`` with the network's name in ``frechet_features``, and ``feature_diversity``; where
        the parser's are, ``mask_agreement``: mean IoU over the core parts between the generator's mask and the
        parser's. Empty if the set is too small, or the generator's images are not finite: the training loop has its own
        way out of that.

    Raises:
        ValueError: for fewer than two samples.
    """
    if samples < 2:
        raise ValueError(f"{samples} samples were asked for; distances between faces need at least 2")
    if len(faces) < 2:
        return {}
    parts = generator.config.parts
    real = _read_real(faces, samples, parts)
    confusion = torch.zeros(len(parts), len(parts), dtype=torch.int64)
    seen = []
    for seeds in torch.arange(samples).split(BATCH):
        face = generator.synthesize(generator.sample(seeds.tolist(), temperature=temperature))
        if not bool(torch.isfinite(face.image).all()):
            return {}
        reading = real.reader.read(face.image, parts)
        if reading.ids is not None:
            confusion += confusion_matrix(face.part_map, reading.ids, len(parts))
        seen.append(Readings(reading.pixels, reading.features, None))
    generated = Readings.join(seen)
    record: dict[str, float | str] = {}
    if real.pixel_spread:
        record["diversity"] = round(mean_pairwise_distance(generated.pixels) / real.pixel_spread, 4)
    if generated.features is not None and real.statistics is not None and real.reader.features is not None:
        distance = frechet_distance(real.statistics, feature_statistics(generated.features))
        record["frechet_distance"] = round(distance, 4)
        record["frechet_features"] = real.reader.features.name
        if real.feature_spread:
            record["feature_diversity"] = round(mean_pairwise_distance(generated.features) / real.feature_spread, 4)
    if int(confusion.sum()):
        record["mask_agreement"] = round(agreement(confusion, parts.names).mean(CORE_PARTS), 4)
    return record


def _read_real(faces: ResidentFaces, samples: int, parts: PartScheme) -> _RealFaces:
    """The real faces; read at the first call, and again once a feature network appears on the machine."""
    known = _real_faces.setdefault(faces, {})
    if samples in known and known[samples].reader.features is not None:
        return known[samples]
    reader = _load_reader(faces.images.device)
    if samples in known and reader.features is None:
        return known[samples]
    rows = torch.linspace(0, len(faces) - 1, min(samples, len(faces))).round().long()
    seen = Readings.join([reader.read(faces.batch(some).image.float(), parts) for some in rows.split(BATCH)])
    known[samples] = _RealFaces(
        reader,
        mean_pairwise_distance(seen.pixels),
        None if seen.features is None else mean_pairwise_distance(seen.features),
        None if seen.features is None else feature_statistics(seen.features),
    )
    return known[samples]


def _load_reader(device: torch.device) -> Reader:
    try:
        return Reader.load(device)
    except (CheckpointError, FeatureError) as error:
        # A damaged judge is no reason to end hours of training.
        warnings.warn(f"metrics go without feature networks: {error}", stacklevel=2)
        return Reader(None, None)
