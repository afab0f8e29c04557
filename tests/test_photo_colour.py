"""Colours of a photo mean what its profile says, and come back as they were where nothing was edited."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from icc import (  # type: ignore[import-not-found]
    GAMMA,
    grey_profile,
    ink_profile,
    inks_to_srgb,
    rgb_profile,
    to_xyz,
)
from PIL import Image, ImageCms

from editing.photo.colour import ColourSpace
from editing.photo.decode import decode
from editing.photo.original import Original
from editing.photo.save import save

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def colours(inside: bool = True) -> np.ndarray:
    """(48, 64, 3) uint8: patches of 8 pixels, of muted colours or of any."""
    low, high = (60, 190) if inside else (0, 256)
    patches = np.random.default_rng(0).integers(low, high, (6, 8, 3), dtype=np.uint8)
    return np.repeat(np.repeat(patches, 8, axis=0), 8, axis=1)


def as_srgb(values: np.ndarray, name: str) -> np.ndarray:
    """By the formulas: (…, 3) uint8 in a space with these primaries → sRGB, unrounded."""
    linear = (values / 255.0) ** GAMMA @ to_xyz(name).T @ np.linalg.inv(to_xyz("Rec. 709")).T
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("name", ["Display P3", "Adobe RGB (1998)"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_a_profile_is_followed(kind, name):
    own = colours()
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 98, "subsampling": 0},
        "WEBP": {"lossless": True},
        "HEIF": {"quality": 98},
        "AVIF": {"quality": 98, "subsampling": "4:4:4"},
    }
    how = options.get(kind, {})
    photo = decode(saved(Image.fromarray(own), kind, icc_profile=rgb_profile(name), **how))
    wrong = np.abs(photo.pixels - as_srgb(own, name))
    assert wrong.mean() < (1.0 if kind in ("PNG", "TIFF") else 3.0)
    assert np.abs(own - as_srgb(own, name)).mean() > 3.9, "and it matters"


def test_print_colours_follow_their_profile():
    inks = np.random.default_rng(0).integers(0, 200, (48, 64, 4), dtype=np.uint8)
    inks = np.repeat(np.repeat(inks[::8, ::8], 8, axis=0), 8, axis=1)
    image = Image.fromarray(inks, "CMYK")
    for kind, how in (("TIFF", {}), ("JPEG", {"quality": 98, "subsampling": 0})):
        photo = decode(saved(image, kind, icc_profile=ink_profile(), **how))
        assert np.abs(photo.pixels - 255 * inks_to_srgb(inks / 255.0)).mean() < 6, kind
        assert any("CMYK" in line for line in photo.notices)
    assert np.abs(np.asarray(image.convert("RGB")) - 255 * inks_to_srgb(inks / 255.0)).mean() > 9


def test_grey_follows_its_profile():
    grey = np.tile(np.arange(64, dtype=np.uint8) * 3 + 40, (48, 1))
    light = (grey / 255.0) ** 1.0
    wanted = 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    photo = decode(saved(Image.fromarray(grey), "PNG", icc_profile=grey_profile(1.0)))
    assert np.abs(photo.pixels[..., 1] - wanted).max() < 3
    assert photo.grey


@pytest.mark.parametrize(
    "profile", [b"no profile at all", ink_profile(), grey_profile(2.2), rgb_profile("Display P3")[:200]]
)
def test_a_profile_that_does_not_fit_is_left_out(profile):
    own = colours()
    photo = decode(saved(Image.fromarray(own), "PNG", icc_profile=profile))
    assert np.array_equal(photo.pixels, own)


SPACES = {
    "none": ColourSpace("RGB"),
    "sRGB": ColourSpace.of("RGB", SRGB),
    "P3": ColourSpace.of("RGB", rgb_profile("Display P3")),
    "Adobe": ColourSpace.of("RGB", rgb_profile("Adobe RGB (1998)")),
    "inks": ColourSpace.of("CMYK", ink_profile()),
    "plain inks": ColourSpace("CMYK"),
    "grey": ColourSpace("L"),
    "linear grey": ColourSpace.of("L", grey_profile(1.0)),
}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 4095), (np.uint16, 65535)])
def test_an_edit_changes_what_it_changes_and_nothing_else(space, dtype, white):
    random = np.random.default_rng(1)
    values = random.integers(0, white + 1, (40, 50, space.channels)).astype(dtype)
    original = Original(values, space, white)
    before = original.srgb((10, 5, 30, 25))
    after = before.copy()
    after[4:12, 4:12] = after[4:12, 4:12] // 2 + 60
    if space.mode == "L":
        after[4:12, 4:12] = after[4:12, 4:12, :1]
    edited = original.edited(10, 5, after)
    moved = np.zeros((40, 50), dtype=bool)
    moved[5:25, 10:30] = (after != before).any(axis=-1)
    assert moved.sum() > 40
    assert np.array_equal(edited.values[~moved], values[~moved])
    assert edited.values.dtype == dtype and edited.white == white
    shown = edited.srgb((10, 5, 30, 25)).astype(int)
    # What was beyond sRGB stays so while a pixel moves little; tables of inks are coarse.
    assert np.abs(shown - after)[(after != before).any(axis=-1)].mean() < (12 if space.mode == "CMYK" else 3)
    assert np.array_equal(original.values, values), "the photo itself is not touched"
    assert original.edited(10, 5, before) is original


def test_small_changes_keep_what_srgb_cannot_say():
    """A P3 red beyond sRGB that is made a little darker stays beyond sRGB."""
    space = SPACES["P3"]
    values = np.full((8, 8, 3), (250, 20, 20), dtype=np.uint8)
    original = Original(values, space)
    after = original.srgb()
    assert after[0, 0, 1] == 0, "clipped"
    after[:, :, 0] -= 4
    edited = original.edited(0, 0, after).values[0, 0].astype(int)
    assert 240 <= edited[0] < 250 and abs(edited[1] - 20) <= 4
    clipped = space.from_srgb(after)[0, 0].astype(int)
    assert clipped[1] > 35, "as plain conversion would have made it"


def test_colour_in_a_grey_photo_makes_it_a_colour_one():
    for values, white in ((np.full((40, 40, 1), 90, np.uint8), 255), (np.full((40, 40, 1), 9000, np.uint16), 65535)):
        original = Original(values, ColourSpace("L"), white)
        after = original.srgb((0, 0, 10, 10))
        after[2:4, 2:4] = (200, 30, 30)
        edited = original.edited(0, 0, after)
        assert edited.space.mode == "RGB"
        assert (edited.values[20, 20] == values[20, 20]).all()
        assert np.abs(edited.srgb()[2, 2].astype(int) - (200, 30, 30)).max() <= 1


def test_what_is_drawn_on_clear_ground_shows():
    values = np.full((40, 40, 3), 77, np.uint8)
    alpha = np.zeros((40, 40), np.uint8)
    alpha[20:] = 255
    original = Original(values, ColourSpace("RGB"), 255, alpha)
    assert (original.srgb()[:20] == 255).all()
    after = original.srgb()
    after[5:10, 5:10] = (120, 60, 30)
    edited = original.edited(0, 0, after)
    assert np.abs(edited.srgb().astype(int) - after).max() <= 1
    assert edited.alpha is not None
    assert (edited.alpha[5:10, 5:10] == 255).all() and (edited.alpha[12:18] == 0).all()
    assert (edited.values[12:] == 77).all()


@pytest.mark.parametrize("profile", [None, SRGB, rgb_profile("Display P3")], ids=["none", "sRGB", "P3"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_saved_copy_has_the_profile_of_the_photo(kind, profile):
    how = {"lossless": True} if kind == "WEBP" else {}
    photo = decode(saved(Image.fromarray(colours()), kind, icc_profile=profile, **how))
    back = save(photo, photo.original()).data
    with Image.open(io.BytesIO(back)) as image:
        assert image.info.get("icc_profile") == profile
    assert np.abs(decode(back).pixels.astype(int) - photo.pixels).mean() < 3
