"""Soft masks: along the photo's detail, sums of one, nothing inside a part changed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from memorygan.parser import FaceParser, ParsedFaces, ParserConfig
from memorygan.parts import FACE_PARTS
from memorygan.picture import to_uint8
from memorygan.soft_masks import along_photo

SIZE = 128
HAIR, SKIN = FACE_PARTS.index("hair"), FACE_PARTS.index("skin")


class BlurredParser(FaceParser):
    """Knows where the dark hair of :func:`photo` is, at 16 × 16 cells."""

    def __init__(self) -> None:
        super().__init__(ParserConfig(32, (4, 6)))

    def parse(self, images: Tensor, flip: bool = False, closely: bool = True) -> ParsedFaces:
        hair = F.interpolate((images.mean(dim=1, keepdim=True) < 0).float(), size=(16, 16), mode="area")
        hair = F.interpolate(hair, size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        probabilities = torch.zeros(len(images), len(FACE_PARTS), *images.shape[-2:])
        probabilities[:, HAIR], probabilities[:, SKIN] = hair, 1 - hair
        return ParsedFaces(probabilities.argmax(dim=1).to(torch.uint8), probabilities)


def photo() -> tuple[Tensor, Tensor]:
    """Bright skin under dark hair from which strands of two pixels hang; the photo and where the hair is."""
    hair = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    hair[:50] = True
    for column in range(6, SIZE, 12):
        hair[50:58, column : column + 2] = True
    colours = torch.where(
        hair, torch.tensor([-0.9, -0.8, -0.7])[:, None, None], torch.tensor([0.7, 0.4, 0.2])[:, None, None]
    )
    noise = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 0.01
    return (colours + noise)[None], hair


def soft_masks(parser: FaceParser, photos: Tensor) -> Tensor:
    """(B, K, H, W) soft masks of photos (B, 3, H, W) in [−1, 1]."""
    found = parser.parse(photos).probabilities.permute(0, 2, 3, 1).numpy()
    masks = [along_photo(pixels, own) for pixels, own in zip(to_uint8(photos), found, strict=True)]
    return torch.from_numpy(np.stack(masks)).permute(0, 3, 1, 2)


def test_masks_follow_strands_that_the_parser_cannot_see() -> None:
    image, hair = photo()
    parser = BlurredParser().eval()
    coarse, fine = parser.parse(image).probabilities[0, HAIR], soft_masks(parser, image)[0, HAIR]
    fringe = slice(50, 58)
    strands = hair[fringe]
    assert coarse[fringe][strands].mean() - coarse[fringe][~strands].mean() < 0.1
    assert fine[fringe][strands].mean() - fine[fringe][~strands].mean() > 0.25
    assert (fine - hair.float()).abs().mean() < 0.5 * (coarse - hair.float()).abs().mean()


def test_inside_a_part_nothing_changes() -> None:
    image, _ = photo()
    image[..., 100:104, 60:64] = -0.8  # a dark mark on the skin, far from the hair
    marked = BlurredParser().eval()
    found = BlurredParser().parse(photo()[0])
    marked.parse = lambda images, flip=False, closely=True: found  # type: ignore[method-assign]
    masks = soft_masks(marked, image)
    assert masks.shape == (1, len(FACE_PARTS), SIZE, SIZE)
    assert masks.dtype == torch.float32
    torch.testing.assert_close(masks.sum(dim=1), torch.ones(1, SIZE, SIZE))
    assert masks.min() >= 0
    assert (masks[0, SKIN, 90:] == 1).all()
    assert (masks[0, HAIR, :20] == 1).all()


def test_each_photo_has_masks_of_its_own_and_of_its_size() -> None:
    parser = FaceParser(ParserConfig(32, (4, 6))).eval()
    photos = torch.rand(2, 3, 40, 72, generator=torch.Generator().manual_seed(1)) * 2 - 1
    masks = soft_masks(parser, photos)
    assert masks.shape == (2, len(FACE_PARTS), 40, 72)
    torch.testing.assert_close(soft_masks(parser, photos[1:]), masks[1:], atol=1e-4, rtol=0)


def test_a_border_moves_to_the_photos_own_edge() -> None:
    random = np.random.default_rng(0)
    pixels = np.full((2 * SIZE, 2 * SIZE, 3), 60, np.uint8)
    pixels[:, SIZE + 3 :] = 180
    pixels = np.clip(pixels + random.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
    rough = np.zeros((32, 32, len(FACE_PARTS)), np.float32)
    rough[:, :16, HAIR], rough[:, 16:, 0] = 1.0, 1.0
    masks = along_photo(pixels, rough)
    assert masks.sum(axis=2) == pytest.approx(1.0, abs=1e-4)
    edge = masks[:, :, HAIR].mean(axis=0)
    assert edge[SIZE + 1] > 0.45
    assert edge[SIZE + 4] < 0.2


def test_a_pixel_that_no_part_has_half_of_goes_to_the_most_probable() -> None:
    thirds = np.zeros((32, 32, len(FACE_PARTS)), np.float32)
    thirds[..., SKIN], thirds[..., HAIR], thirds[..., 0] = 0.36, 0.33, 0.31
    masks = along_photo(np.full((64, 64, 3), 128, np.uint8), thirds)
    assert masks.sum(axis=2) == pytest.approx(1.0, abs=1e-4)
    assert (masks[..., SKIN] == 1).all()


def test_without_opencv_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="pip install opencv-contrib"):
        along_photo(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, len(FACE_PARTS)), np.float32))
