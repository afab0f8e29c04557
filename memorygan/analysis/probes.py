"""Linear readings of image features: what labelled photos teach to see, and no mask shows (age, beard, gray hair)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.picture import from_uint8
from memorygan.training.backbone import Backbone, load_backbone
from memorygan.training.packfile import DataError
from memorygan.training.rarity import read_labels
from memorygan.training.sources import FolderSource, open_source

INPUT = 224  # side at which the features were trained


@cache
def _backbone(name: str, device: str) -> Backbone:
    return load_backbone(name).to(device)


@torch.no_grad()
def image_features(images: Tensor, name: str) -> Tensor:
    """Codes (B, 1280) float32 of images (B, 3, H, W) in [−1, 1]; values beyond are clamped.

    Args:
        images: see above.
        name: ``lite0`` or ``lite1``, of EfficientNet.

    Raises:
        BackboneError: if the features' package is not installed.
    """
    backbone = _backbone(name, str(images.device))
    images = F.interpolate(images.float().clamp(-1, 1), size=INPUT, mode="bicubic", antialias=True)
    return backbone.code(images.clamp(-1, 1))


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos with an ``attributes.csv`` beside them, see :mod:`memorygan.training.rarity`.

    Attributes:
        source: the folder.
        names: of the faces that have labels.
        labels: face name → column → text.
    """

    source: FolderSource
    names: tuple[str, ...]
    labels: dict[str, dict[str, str]]

    @classmethod
    def open(cls, root: Path, most: int) -> LabelledPhotos:
        """The first ``most`` labelled faces of a folder.

        Raises:
            DataError: if it holds no faces with labels.
        """
        source, labels = open_source(root, "images"), read_labels(root)
        names = tuple(name for name in source.names() if name in labels)[:most]
        if not names:
            raise DataError(f"{root} has no attributes.csv with labels of its faces; name another folder")
        return cls(source, names, labels)

    def images(self, rows: Sequence[int], size: int, device: torch.device | str = "cpu") -> Tensor:
        """(B, 3, size, size) in [−1, 1]."""
        pictures = [self.source.load_image(self.names[row]).resize((size, size)) for row in rows]
        return from_uint8(np.stack([np.asarray(picture) for picture in pictures]), device)

    def values(self, column: str) -> np.ndarray:
        """(N,) float64, not-a-number where the label is missing."""
        return np.array([_number(self.labels[name].get(column, "")) for name in self.names])


@dataclass(frozen=True)
class Probe:
    """A linear reading of image features.

    Attributes:
        mean, scale, weight: (F,).
        offset: added to the reading.
        threshold: reading from which on a trait counts as seen.
    """

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    offset: float = 0.0
    threshold: float = 0.0

    def read(self, features: Tensor) -> Tensor:
        """(N,) float64 of the features (N, F): log odds of a trait, or the value itself."""
        scores = self._score(features.cpu().numpy()) + self.offset
        return torch.from_numpy(scores.astype(np.float64)).to(features.device)

    def share(self, features: Tensor) -> float:
        """Share of the faces (N, F) in which the trait is seen."""
        return float((self._score(features.numpy()) >= self.threshold).mean())

    def _score(self, features: np.ndarray) -> np.ndarray:
        scores: np.ndarray = ((features - self.mean) / self.scale) @ self.weight
        return scores

    @classmethod
    def fit(cls, features: np.ndarray, holds: np.ndarray) -> Probe:
        """A trait, from features (N, F) and labels (N,) bool, of which some and not all are true.

        Its threshold finds as many faces as are labelled.
        """
        from sklearn.linear_model import LogisticRegression  # slow to import

        mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
        model = LogisticRegression(C=0.01, max_iter=500, class_weight="balanced")
        model.fit((features - mean) / scale, holds)
        weight = model.coef_[0]
        scores = ((features - mean) / scale) @ weight
        return cls(mean, scale, weight, float(model.intercept_[0]), float(np.quantile(scores, 1.0 - holds.mean())))

    @classmethod
    def regress(cls, features: np.ndarray, values: np.ndarray) -> Probe:
        """A quantity, from features (N, F) and values (N,)."""
        from sklearn.linear_model import RidgeCV  # slow to import

        mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
        model = RidgeCV(alphas=np.logspace(1, 5, 9)).fit((features - mean) / scale, values)
        return cls(mean, scale, model.coef_, float(model.intercept_))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
