"""Colours of a photo: from its own space to sRGB, which the networks know, and back for pixels that were changed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

CHANNELS = {"L": 1, "RGB": 3, "CMYK": 4}
# What ICC headers call these kinds of colour.
_KINDS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


@dataclass(frozen=True)
class ColourSpace:
    """What the numbers of a photo mean.

    Attributes:
        mode: "L", "RGB" or "CMYK".
        profile: ICC profile, or None: sRGB, its grey, or inks without a profile.
        plain: the profile says sRGB: nothing has to be converted, and a saved copy keeps it.
    """

    mode: str
    profile: bytes | None = None
    plain: bool = False

    @classmethod
    def of(cls, mode: str, profile: bytes | None) -> ColourSpace:
        """The space of a file; a profile that is damaged, or of another kind than the picture, is left out."""
        try:
            return cls(mode, profile, _is_srgb(mode, profile)) if profile else cls(mode)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            return cls(mode)

    @property
    def channels(self) -> int:
        """1, 3 or 4."""
        return CHANNELS[self.mode]

    def to_srgb(self, values: np.ndarray) -> np.ndarray:
        """(h, w, C) uint8 in this space → (h, w, 3) uint8 sRGB."""
        if self.mode == "RGB" and (self.profile is None or self.plain):
            return values
        image = Image.fromarray(np.ascontiguousarray(values[..., 0] if self.mode == "L" else values), self.mode)
        if self.profile is None:
            return np.asarray(image.convert("RGB"))
        return np.asarray(_transform(self.mode, self.profile, True).apply(image))

    def from_srgb(self, colours: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 sRGB → (h, w, C) uint8 in this space, out-of-gamut colours clipped."""
        if self.mode == "RGB" and (self.profile is None or self.plain):
            return colours
        image = Image.fromarray(np.ascontiguousarray(colours), "RGB")
        if self.profile is None:
            found = image.convert(self.mode)
        else:
            found = _transform(self.mode, self.profile, False).apply(image)
        return np.asarray(found).reshape(*colours.shape[:2], self.channels)


def _is_srgb(mode: str, profile: bytes) -> bool:
    found = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if found.profile.xcolor_space.strip() != _KINDS[mode]:
        raise ValueError("the profile is of another kind than the picture")
    if mode == "RGB" and "srgb" in ImageCms.getProfileDescription(found).lower():
        return True
    _transform(mode, profile, True)
    _transform(mode, profile, False)
    return False


@lru_cache(maxsize=16)
def _transform(mode: str, profile: bytes, to_srgb: bool) -> ImageCms.ImageCmsTransform:
    """By the tables that profiles have for photos (perceptual intent), as browsers show them."""
    own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    if to_srgb:
        return ImageCms.buildTransform(own, srgb, mode, "RGB", ImageCms.Intent.PERCEPTUAL)
    return ImageCms.buildTransform(srgb, own, "RGB", mode, ImageCms.Intent.PERCEPTUAL)
