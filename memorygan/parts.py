"""The only table of parts: names, order, colours, CelebAMask-HQ merge, and layer groups per part."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np


class LayerGroup(str, Enum):
    """A named run of local-generator layers (paper section 4.5).

    ``BASE_LAST`` is the last of the base layers alone: small parts take it along when they are swapped,
    because it holds where in the face the part sits. ``OWN`` is what a part does not share: shape and texture.
    """

    BASE = "base"
    BASE_LAST = "base_last"
    SHAPE = "shape"
    TEXTURE = "texture"
    OWN = "own"


@dataclass(frozen=True)
class Part:
    """One semantic part of a face.

    Attributes:
        name: identifier used in code, recipes and the API.
        label: the word a person sees.
        color: RGB in 0–255, used in every mask picture.
        sources: CelebAMask-HQ annotation names that are merged into this part.
        transparent: joins the mask softmax but does not push other parts' features aside (Eq. 6).
        swap_groups: layer groups exchanged when the part is taken from another face (paper section 4.5).
    """

    name: str
    label: str
    color: tuple[int, int, int]
    sources: tuple[str, ...] = ()
    transparent: bool = False
    swap_groups: tuple[LayerGroup, ...] = (LayerGroup.SHAPE, LayerGroup.TEXTURE)


_ALL = (LayerGroup.BASE, LayerGroup.SHAPE, LayerGroup.TEXTURE)
_SMALL = (LayerGroup.BASE_LAST, LayerGroup.SHAPE, LayerGroup.TEXTURE)

_WORN = ("eyeglass", "hat", "earring")
_FACE_PARTS = (
    Part("background", "Background", (40, 44, 52), ("background",), swap_groups=_ALL),
    Part("skin", "Skin", (236, 188, 160), ("skin",)),
    Part("eyes", "Eyes", (66, 135, 245), ("l_eye", "r_eye"), swap_groups=_SMALL),
    Part("eyebrows", "Eyebrows", (135, 84, 40), ("l_brow", "r_brow"), swap_groups=_SMALL),
    Part("mouth", "Mouth", (214, 62, 82), ("mouth", "u_lip", "l_lip"), swap_groups=_SMALL),
    Part("nose", "Nose", (245, 150, 66), ("nose",), swap_groups=_SMALL),
    Part("ears", "Ears", (196, 120, 200), ("l_ear", "r_ear")),
    Part("hair", "Hair", (120, 80, 180), ("hair",)),
    Part("neck", "Neck", (226, 208, 120), ("neck", "neck_l")),
    Part("cloth", "Clothes", (70, 160, 120), ("cloth",)),
    Part("eyeglass", "Glasses", (60, 200, 220), ("eye_g",), transparent=True),
    Part("hat", "Hat", (160, 60, 60), ("hat",)),
    Part("earring", "Earrings", (250, 225, 60), ("ear_r",), transparent=True),
)

# CelebAMask-HQ annotates overlapping layers; a later name is painted over an earlier one.
CELEBAMASK_PAINT_ORDER: tuple[str, ...] = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip",
    "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip


@dataclass(frozen=True)
class PartScheme:
    """An ordered set of parts; index 0 is always the background.

    Raises:
        ValueError: if two parts share a name or there is no part at all.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if not names:
            raise ValueError("a part scheme needs at least the background part")
        if len(set(names)) != len(names):
            raise ValueError(f"part names must be unique, got {names}")

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts)

    @property
    def transparent(self) -> tuple[int, ...]:
        """Indices of the transparent parts."""
        return tuple(i for i, part in enumerate(self.parts) if part.transparent)

    @property
    def worn(self) -> tuple[int, ...]:
        """Indices of the parts that a face puts on and takes off."""
        return tuple(i for i, part in enumerate(self.parts) if part.name in _WORN)

    def index(self, part: str | int) -> int:
        """The index of a part given by name or index.

        Raises:
            ValueError: for an unknown part, naming the ones that exist.
        """
        if isinstance(part, str) and part in self.names:
            return self.names.index(part)
        if isinstance(part, int) and not isinstance(part, bool) and 0 <= part < len(self):
            return part
        raise ValueError(f"unknown part {str(part)[:60]!r}; this model has {', '.join(self.names)}")

    def __getitem__(self, part: str | int) -> Part:
        return self.parts[self.index(part)]

    def source_to_part(self) -> dict[str, int]:
        """CelebAMask-HQ annotation name → part index."""
        return {source: i for i, part in enumerate(self.parts) for source in part.sources}

    def colorize(self, mask: np.ndarray) -> np.ndarray:
        """Part ids (..., H, W) → RGB uint8 (..., H, W, 3).

        Raises:
            ValueError: if an id is not in the scheme.
        """
        ids = np.asarray(mask)
        if ids.size and (ids.min() < 0 or ids.max() >= len(self)):
            raise ValueError(f"mask holds part id {int(ids.max())}, but this scheme has ids 0 to {len(self) - 1}")
        return np.array([part.color for part in self.parts], dtype=np.uint8)[ids]


FACE_PARTS = PartScheme(_FACE_PARTS)


def numbered_parts(count: int, transparent: tuple[int, ...] = ()) -> PartScheme:
    """A scheme of ``count`` anonymous parts, for studies of scale and for foreign checkpoints."""
    hues = np.random.RandomState(0).randint(40, 230, size=(count, 3))
    return PartScheme(
        tuple(
            Part(f"part{i}", f"Part {i}", (int(h[0]), int(h[1]), int(h[2])), transparent=i in transparent)
            for i, h in enumerate(hues)
        )
    )
