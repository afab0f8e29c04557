"""Hair and clothes dyed before faces are shown, so that colours can be learned that a face set hardly holds.

Most hair is dark and most clothes are gray, black or white, so that other colours are seen too seldom for a direction
of their own among the texture codes, and an editor asked for gray or red hair gives light brown. A share of the faces
gets natural hair or clothes of a colour drawn at random; masks and everything else in the picture stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.colour import lab_to_rgb, rgb_to_lab
from memorygan.training.distributed import Draws, pick

Palette = tuple[tuple[float, tuple[float, float], tuple[float, float], tuple[float, float]], ...]

# Chance, then the ranges of L*, of chroma and of hue in degrees (CIELAB).
HAIR: Palette = (
    (0.40, (28.0, 75.0), (1.0, 7.0), (60.0, 100.0)),  # gray and white
    (0.30, (20.0, 45.0), (22.0, 42.0), (36.0, 56.0)),  # red
    (0.15, (45.0, 70.0), (16.0, 34.0), (68.0, 84.0)),  # blond
    (0.15, (15.0, 34.0), (8.0, 18.0), (54.0, 70.0)),  # brown
)
CLOTH: Palette = (
    (0.70, (20.0, 70.0), (15.0, 50.0), (0.0, 360.0)),
    (0.30, (15.0, 45.0), (10.0, 40.0), (250.0, 300.0)),  # blue, which people wear more than other colours
)
PALETTES = {"hair": HAIR, "cloth": CLOTH}
# How far a part may get lighter and darker: noise in what was black would show, and so would strands outside the mask.
LIGHTER, DARKER = 32.0, 40.0
DRAWS = 4
# Below this share of the picture there is nothing to dye.
_LEAST = 0.01
# Difference in lightness at which a pixel beside the mask stops counting as hair.
_ALIKE = 10.0


def draw_colours(chance: Tensor, palette: Palette = HAIR) -> Tensor:
    """Random numbers (B, 4) in [0, 1) → (B, 3) CIELAB colours of a palette."""
    kind = pick(chance[:, 0], chance.new_tensor([colour[0] for colour in palette]))
    low = chance.new_tensor([[range_[0] for range_ in colour[1:]] for colour in palette])[kind]
    high = chance.new_tensor([[range_[1] for range_ in colour[1:]] for colour in palette])[kind]
    lightness, chroma, hue = (low + (high - low) * chance[:, 1:]).unbind(dim=1)
    chroma = torch.minimum(chroma, lightness)  # what is dark shows little of its colour
    angle = hue * (math.pi / 180.0)
    return torch.stack((lightness, chroma * angle.cos(), chroma * angle.sin()), dim=1)


def dye(image: Tensor, hair: Tensor, colours: Tensor) -> Tensor:
    """Gives hair, or another part, another colour; strands and folds keep their light and shade.

    Args:
        image: (B, 3, S, S) in [−1, 1].
        hair: (B, S, S) bool.
        colours: (B, 3) CIELAB that the hair has in the mean afterwards; lightness within reach of what it was.

    Returns:
        (B, 3, S, S) in [−1, 1], as it was where there is too little of the part.
    """
    lab = rgb_to_lab((image.float().clamp(-1.0, 1.0) + 1.0) / 2.0)
    inside = hair[:, None].float()
    area = inside.sum(dim=(2, 3))  # (B, 1)
    mean = (lab * inside).sum(dim=(2, 3)) / area.clamp_min(1.0)  # (B, 3)
    old = mean[:, :1].clamp_min(1.0)
    new = colours[:, :1].clamp_max(old + LIGHTER).clamp_min(old - DARKER).clamp_min(4.0)
    contrast = (new / old).sqrt().clamp(0.6, 1.5)[..., None, None]
    apart = lab - mean[..., None, None]  # (B, 3, S, S) from the mean of the hair
    lightness = new[..., None, None] + contrast * apart[:, :1]
    # Strands in shade have less of a colour, highlights more; a little of their own stays.
    shade = (lightness / new[..., None, None]).clamp(0.3, 1.3)
    tint = colours[:, 1:, None, None] * shade + 0.3 * apart[:, 1:]
    dyed = torch.cat((lightness.clamp(0.0, 100.0), tint), dim=1)
    # Deep inside the mask all is hair; near its border, on either side, what is about as light as the hair.
    soft = F.avg_pool2d(F.pad(inside, (2, 2, 2, 2), mode="replicate"), 5, 1)
    spread = ((apart[:, :1] ** 2 * inside).sum(dim=(2, 3)) / area.clamp_min(1.0)).sqrt()
    reach = (1.2 * spread).clamp_min(_ALIKE)[..., None, None]
    alike = torch.exp(-((apart[:, :1] / reach) ** 2))
    deep = ((soft - 0.6) / 0.4).clamp(0.0, 1.0) * (apart[:, :1] < 3.0 * reach)
    share = torch.where(hair[:, None], alike + (1.0 - alike) * deep, soft * alike)
    share = share * (area >= _LEAST * hair[0].numel())[..., None, None]
    out = lab + share * (dyed - lab)
    return torch.where(share > 0, lab_to_rgb(out) * 2.0 - 1.0, image.float())


@dataclass(frozen=True)
class Dyes:
    """What is dyed in B faces.

    Attributes:
        chosen: part → (B,) bool.
        colours: part → (B, 3) CIELAB.
    """

    chosen: dict[str, Tensor]
    colours: dict[str, Tensor]

    def __call__(self, image: Tensor, part_ids: Tensor, parts: Sequence[str]) -> Tensor:
        """Faces (B, 3, S, S) in [−1, 1] with the chosen parts dyed.

        Args:
            image: faces.
            part_ids: (B, S, S) index of the part in every place.
            parts: names of all parts, in order of their indices.
        """
        for part, chosen in self.chosen.items():
            rows = chosen.nonzero().squeeze(1)
            if len(rows):
                dyed = dye(image[rows], part_ids[rows] == parts.index(part), self.colours[part][rows])
                image = image.clone().index_copy_(0, rows, dyed.to(image.dtype))  # a clone keeps channels-last
        return image


def draw_dyes(draws: Draws, count: int, share: float) -> Dyes:
    """Draws which of ``count`` faces have dyed parts, each part in a ``share`` of them, and the colours."""
    chance = {part: draws.uniform(count, 1 + DRAWS) for part in PALETTES}
    return Dyes(
        {part: dice[:, 0] < share for part, dice in chance.items()},
        {part: draw_colours(dice[:, 1:], PALETTES[part]) for part, dice in chance.items()},
    )
