"""Photographed people as a generator sees them: glasses, hats, age and beards, which samples hardly show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.analysis.probes import INPUT, LabelledPhotos, image_features
from memorygan.colour import rgb_to_lab
from memorygan.encoder import PartEncoder
from memorygan.generator import MemoryGAN
from memorygan.parser import FaceParser
from memorygan.parts import PartScheme
from memorygan.training.rarity import PARTS

_BATCH = 16
# Fewer wearers teach a direction that is theirs alone.
_FEWEST = 16


@dataclass(frozen=True)
class People:
    """N labelled photos.

    Attributes:
        faces: the photos and their labels.
        parts: what K means.
        codes: (N, 1 + K, D) latent code of every part, slot 0 the base.
        shares: (N, K) share of the picture that the parser gives to every part, 0–1.
        features: (N, 1280) image features.
        nose: (N, 3) mean CIELAB colour of the nose: of the skin, where no beard hides it.
    """

    faces: LabelledPhotos
    parts: PartScheme
    codes: Tensor
    shares: Tensor
    features: Tensor
    nose: Tensor

    @classmethod
    @torch.no_grad()
    def read(cls, generator: MemoryGAN, encoder: PartEncoder, parser: FaceParser, faces: LabelledPhotos) -> People:
        """Encodes all photos once.

        Raises:
            BackboneError: if the package of image features is not installed.
        """
        size, count, parts = generator.config.size, generator.config.part_count, generator.config.parts
        codes, shares, features, colours = [], [], [], []
        for first in range(0, len(faces.names), _BATCH):
            rows = range(first, min(first + _BATCH, len(faces.names)))
            large = faces.images(rows, INPUT, generator.device)
            image = F.interpolate(large, size=size, mode="area")
            one_hot = F.one_hot(parser.parse(image).ids.long(), count).permute(0, 3, 1, 2).to(image)
            codes.append(generator.map(encoder.read(generator, image, one_hot).codes).w.cpu())
            shares.append(one_hot.mean(dim=(2, 3)).cpu())
            features.append(image_features(large, "lite0").cpu())
            nose = one_hot[:, parts.index("nose")].flatten(1)
            lab = rgb_to_lab((image.flatten(2) + 1) / 2)
            colours.append(((lab * nose[:, None]).sum(dim=2) / nose.sum(dim=1, keepdim=True).clamp_min(1)).cpu())
        return cls(faces, parts, torch.cat(codes), torch.cat(shares), torch.cat(features), torch.cat(colours))

    def worn(self) -> dict[str, Tensor]:
        """Part name → (M, D) codes of those who show enough of it: glasses, hats, earrings; not where few do."""
        known = [(trait, self.parts.index(trait.part)) for trait in PARTS if trait.part in self.parts.names]
        found = {trait.part: self.codes[self.shares[:, k] >= trait.share, 1 + k] for trait, k in known}
        return {part: codes for part, codes in found.items() if len(codes) >= _FEWEST}
