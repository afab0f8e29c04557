"""What the judges see in a stream of faces: pixels, features and the parser's masks, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memorygan.analysis.agreement import parser_ids
from memorygan.analysis.diversity import pixel_vectors
from memorygan.analysis.features import FeatureNetwork, ParserFeatures, find_features, load_parser_features
from memorygan.parts import PartScheme


@dataclass(frozen=True)
class Readings:
    """What was read off N faces.

    Attributes:
        pixels: (N, P) float32, see :func:`memorygan.analysis.diversity.pixel_vectors`.
        features: (N, F) float32, or None without a feature network.
        ids: (N, H, W) int64 parser's ids in the generator's scheme, or None without a parser.
    """

    pixels: Tensor
    features: Tensor | None
    ids: Tensor | None

    @classmethod
    def join(cls, readings: Sequence[Readings]) -> Readings:
        """Several readings by the same reader, one after another."""
        features = [r.features for r in readings if r.features is not None]
        ids = [r.ids for r in readings if r.ids is not None]
        return cls(
            torch.cat([r.pixels for r in readings]),
            torch.cat(features) if features else None,
            torch.cat(ids) if ids else None,
        )


@dataclass(frozen=True)
class Reader:
    """The judges that are on this machine; either may be missing.

    Attributes:
        features: the feature network.
        parser: the bundled face parser.
    """

    features: FeatureNetwork | None
    parser: ParserFeatures | None

    @classmethod
    def load(cls, device: torch.device | str = "cpu", name: str | None = None) -> Reader:
        """Loads what there is.

        Args:
            device: where to compute.
            name: feature network to use; None for the first that is available.

        Raises:
            ValueError: for an unknown name, or weights that are damaged.
        """
        parser = load_parser_features(device)
        features = find_features(device, name) if name != ParserFeatures.name else parser
        # One network, one pass.
        return cls(parser if isinstance(features, ParserFeatures) else features, parser)

    def read(self, images: Tensor, parts: PartScheme) -> Readings:
        """Reads faces.

        Args:
            images: (B, 3, H, W) in [−1, 1].
            parts: the generator's scheme; the parser's masks are left out if it lacks some of the parser's parts.
        """
        ids = features = None
        if self.parser is not None:
            found, features = self.parser.read(images)
            scheme = self.parser.parser.parts
            ids = parser_ids(found, scheme, parts) if set(scheme.names) <= set(parts.names) else None
        if self.features is not self.parser:
            features = self.features(images) if self.features is not None else None
        return Readings(pixel_vectors(images), features, ids)
