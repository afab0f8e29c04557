"""A deeper look at a photo than the encoder's own: features that have learned to see faces, pooled over every part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memorygan.face_trunk import FaceTrunk
from memorygan.layers import EqualLinear, head, silence
from memorygan.regions import MOMENTS, pool_regions

if TYPE_CHECKING:
    from memorygan.encoder import EncoderConfig


class DeepLook(nn.Module):
    """What a deep trunk adds to the encoder's posteriors; nothing until it has learned.

    The trunk may start as the face parser's (:meth:`begin_as`), which tells beards from shadows already. It sees the
    photo without its exposure and colour cast: those are left to the encoder's own look.

    Args:
        config: of the encoder; ``deep`` and ``deep_size`` give the trunk's widths and what it sees.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        widths, hidden = config.deep or (), config.deep_hidden
        self.size = config.deep_size
        self.trunk = FaceTrunk(widths).eval()
        self.part_in = EqualLinear(MOMENTS * (sum(widths[1:-1]) + 1) + widths[-1], hidden)
        self.part_embedding = nn.Parameter(torch.randn(config.part_count, hidden))
        self.part_out = head(hidden, 2 * config.query_dim)
        self.base_in = EqualLinear(widths[-1], hidden)
        self.base_out = head(hidden, 2 * config.query_dim)
        silence(self.part_out)
        silence(self.base_out)

    def begin_as(self, trunk: FaceTrunk) -> None:
        """Takes the weights of a trunk of the same widths."""
        wanted = self.trunk.state_dict()
        self.trunk.load_state_dict({key: value for key, value in trunk.state_dict().items() if key in wanted})

    def train(self, mode: bool = True) -> DeepLook:
        """The statistics of batch norm stay what they are: a handful of faces at a time would spoil them."""
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, image: Tensor, one_hot: Tensor) -> Tensor:
        """(B, 3, S, S) in [−1, 1] and (B, K, S, S) → (B, 1 + K, 2·Q) to add to means and log variances."""
        seen = F.interpolate(
            image.float(), size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True
        )
        with torch.autocast(image.device.type, torch.bfloat16, enabled=image.dtype == torch.bfloat16):
            maps = self.trunk.features(seen)
        moments, geometry = pool_regions(maps[1:-1], one_hot)
        whole = maps[-1].float().mean(dim=(2, 3))  # (B, C)
        everywhere = whole[:, None].expand(-1, geometry.shape[1], -1)
        h = self.part_in(torch.cat((moments.float(), geometry, everywhere), dim=-1)) + self.part_embedding
        parts = self.part_out(F.leaky_relu(h, 0.2))
        base = self.base_out(F.leaky_relu(self.base_in(whole), 0.2))
        return torch.cat((base[:, None], parts), dim=1)
