"""Networks whose features compare sets of faces: standard Inception where its weights are, else the bundled parser."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memorygan import parser as face_parser
from memorygan.parser import FaceParser, load_parser

INCEPTION_VARIABLE = "MEMORYGAN_INCEPTION"
# The name under which torch-fidelity publishes the standard weights ends in the first digits of their sha256.
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d"


class FeatureError(ValueError):
    """A feature network cannot be used; the message says why and what to do."""


class ParserFeatures:
    """Mean-pooled activations of the face parser: one middle level for texture, the bottleneck for layout.

    The parser evens out exposure and colour casts before it looks, so these features are blind to them.
    """

    name = "parser"  # in :data:`FEATURE_NETWORKS`
    # What the Fréchet distance over these features is called, everywhere it is printed.
    title = "substitute Fréchet distance (parser features)"

    def __init__(self, parser: FaceParser) -> None:
        self.parser = parser
        last = len(parser.encoder) - 1
        self.levels = sorted({last // 2, last})

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [−1, 1] (clamped) → features (B, F) float32 on the same device."""
        return self.read(images)[1]

    @torch.no_grad()
    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """One pass for both uses of the parser.

        Args:
            images: (B, 3, H, W) in [−1, 1], H and W at least 32; values beyond are clamped.

        Returns:
            part ids (B, H, W) uint8 and features (B, F) float32.
        """
        pooled: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            pooled.append(output.float().mean(dim=(2, 3)))

        hooks = [self.parser.encoder[level].register_forward_hook(keep) for level in self.levels]
        try:
            ids = self.parser.parse(images.float().clamp(-1, 1)).ids
        finally:
            for hook in hooks:
                hook.remove()
        return ids, torch.cat(pooled, dim=1)


class InceptionFeatures:
    """The standard Inception network of FID and IS, as torch-fidelity implements it.

    Args:
        extractor: takes (B, 3, H, W) uint8, returns 2048 features and 1008 logits without bias.
    """

    name = "inception"
    title = "FID"

    def __init__(self, extractor: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        self.extractor = extractor

    def __call__(self, images: Tensor) -> Tensor:
        """Images as above → features (B, 2048)."""
        return self.read(images)[0]

    @torch.no_grad()
    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images as above → features (B, 2048) and the logits (B, 1008) of the Inception score."""
        bytes_ = ((images.float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
        features, logits = self.extractor(bytes_)
        return features, logits


FeatureNetwork = ParserFeatures | InceptionFeatures


def inception_path() -> Path | None:
    """Standard Inception weights on this machine: ``MEMORYGAN_INCEPTION``, else torch hub's cache, else None.

    Raises:
        FeatureError: if the variable names no file.
    """
    if named := os.environ.get(INCEPTION_VARIABLE):
        path = Path(named).expanduser()
        if not path.is_file():
            raise FeatureError(f"{INCEPTION_VARIABLE} names {path}, but there is no such file")
        return path
    cached = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    return cached if cached.is_file() else None


def load_inception(device: torch.device | str = "cpu") -> InceptionFeatures | None:
    """Standard Inception if its weights are on this machine, else None; nothing is downloaded.

    Raises:
        FeatureError: if the file differs from the published weights, or holds more than tensors.
    """
    path = inception_path()
    if path is None:
        return None
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(INCEPTION_SHA256):
        raise FeatureError(
            f"{path} is not the standard Inception file {INCEPTION_FILE}; FID is only FID with that one: "
            f"correct or unset {INCEPTION_VARIABLE}"
        )
    # Slow to import, and only wanted here.
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle raises whatever the file makes it raise
        raise FeatureError(f"{path} cannot be read as plain tensors: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        # The library opens its file with full pickle; so it gets one that was written here, from tensors alone.
        clean = Path(folder) / INCEPTION_FILE
        torch.save(state, clean)
        extractor = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(clean))
    return InceptionFeatures(extractor.to(device))


def load_parser_features(device: torch.device | str = "cpu") -> ParserFeatures | None:
    """The bundled face parser, or None where its weights are missing.

    Raises:
        CheckpointError: if its file is damaged.
    """
    if not face_parser.DEFAULT_WEIGHTS.is_file():
        return None
    return ParserFeatures(load_parser(face_parser.DEFAULT_WEIGHTS, device))


# In order of preference.
FEATURE_NETWORKS: dict[str, Callable[[torch.device | str], FeatureNetwork | None]] = {
    InceptionFeatures.name: load_inception,
    ParserFeatures.name: load_parser_features,
}


def find_features(device: torch.device | str = "cpu", name: str | None = None) -> FeatureNetwork | None:
    """The named feature network, or the first one whose weights are on this machine; None if there is none.

    Raises:
        FeatureError: for an unknown name, or unusable weights.
    """
    if name is not None and name not in FEATURE_NETWORKS:
        raise FeatureError(f"unknown feature network {name!r}; use one of {', '.join(FEATURE_NETWORKS)}")
    for key, load in FEATURE_NETWORKS.items():
        if name in (None, key) and (network := load(device)) is not None:
            return network
    return None


def inception_score(logits: Tensor, splits: int = 10) -> tuple[float, float]:
    """IS = exp(E[KL(p(y|x) ‖ p(y))]), computed by torch-fidelity.

    Args:
        logits: (N, C) from :meth:`InceptionFeatures.read`.
        splits: parts over which mean and standard deviation are taken.

    Returns:
        mean and standard deviation over the splits.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    scores = isc_features_to_metric(logits.cpu(), splits)
    return scores[KEY_METRIC_ISC_MEAN], scores[KEY_METRIC_ISC_STD]


def fid(generated: Tensor, real: Tensor) -> float:
    """FID of Inception features (N, 2048) and (M, 2048), computed by torch-fidelity in float64, never negative.

    Raises:
        ValueError: for fewer than two faces on a side.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    if min(len(generated), len(real)) < 2:
        raise ValueError("FID compares sets of faces; measure at least 2")
    first, second = (fid_features_to_statistics(features.cpu().double()) for features in (generated, real))
    return max(0.0, float(fid_statistics_to_metric(first, second, False)[KEY_METRIC_FID]))
