"""What an edit by a sentence minimises: the terms of Eq. 16 and 18, and the views that the judge gets of a picture."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from editing.errors import EditingError
from editing.guidance.clip import ImageTextJudge

_LEAST_CROP = 0.85
# κ and m: how far the sentence has to be ahead of its rivals before it counts as fulfilled, and how sharply.
_SHARPNESS, _MARGIN = 20.0, 0.1
# Below this length a change of the picture's embedding has no direction yet.
_SHORT = 1e-2
# How far a part that should be big or small has to go, and the least share of a picture that has a size.
_GROWTH, _SEEN = math.log(1.25), 1e-4


class Words:
    """D_CLIP: how far pictures are from a sentence.

    Without a neutral sentence 1 − cos(E_I(image), E_T(prompt)). With one, directional: 1 − cos of the change of the
    picture and the change of the words, which leaves alone what both sentences share.

    A judge that knows what else could be said of the same ("black hair", … of "red hair") is asked for the difference,
    since nearness alone is also gained by hiding everything that the sentence does not mention:
    log(1 + Σ_r exp(κ · (m + cos(E_I, r) − cos(E_I, t)))) / κ over the rivals r.

    Args:
        judge: of picture and text.
        prompt: what the face should look like.
        neutral: what it looks like now, or "".

    Attributes:
        sizes: (part, sign) of what the judge wants to be larger (1) or smaller (−1) and reads off the masks, see
            :func:`size_loss`.
    """

    def __init__(self, judge: ImageTextJudge, prompt: str, neutral: str = "") -> None:
        self.judge = judge
        target = judge.encode_text([prompt, neutral] if neutral else [prompt])
        self.target = target[:1]
        self.directional = bool(neutral)
        already = judge.language.sizes(neutral) if neutral else ()
        self.sizes = tuple(size for size in judge.language.sizes(prompt) if size not in already)
        others = () if neutral else judge.language.rivals(prompt)
        self.rivals = judge.encode_text(others) if others else None
        if self.directional:
            change = target[:1] - target[1:]
            if float(change.norm()) < 1e-4:
                raise EditingError(
                    "both sentences mean the same to the judge; say something else for the face as it is"
                )
            self.target = F.normalize(change, dim=1)

    def __call__(self, views: Tensor, source_views: Tensor) -> Tensor:
        """(V, 3, S, S) pictures, and the same crops of the source → (V,) distances, 0 to 2."""
        embedded = self.judge.encode_image(views)
        if self.rivals is not None:
            ahead = _SHARPNESS * (_MARGIN + embedded @ (self.rivals - self.target).T)  # (V, rivals)
            return torch.cat([torch.zeros_like(ahead[:, :1]), ahead], dim=1).logsumexp(dim=1) / _SHARPNESS
        if not self.directional:
            return 1.0 - embedded @ self.target[0]
        with torch.no_grad():
            before = self.judge.encode_image(source_views)
        change = embedded - before
        return 1.0 - (change @ self.target[0]) / (change.norm(dim=1) + _SHORT)

    @torch.no_grad()
    def fulfilled(self, image: Tensor) -> bool:
        """Whether a picture (1, 3, S, S) is ahead of all rivals by the margin already; never without rivals."""
        if self.rivals is None:
            return False
        embedded = self.judge.encode_image(image)[0]
        return float(self.target[0] @ embedded - (self.rivals @ embedded).max()) > _MARGIN


def latent_loss(shift: Tensor, free: Tensor) -> Tensor:
    """‖w − w_s‖² as a mean: shift (P, L, R) in standard deviations, free (P, L) bool, the layers that may move."""
    return shift[free].square().sum() / max(1, shift[free].numel())


def identity_loss(embedded: Tensor, source: Tensor) -> Tensor:
    """1 − ⟨R(G(w)), R(G(w_s))⟩ of unit vectors (1, E)."""
    return 1.0 - (embedded * source).sum()


def segmentation_loss(mask: Tensor, source: Tensor) -> Tensor:
    """‖G(w)_seg − G(w_s)_seg‖² as a mean over (1, K, S, S) fine masks."""
    return (mask - source).square().mean()


def size_loss(mask: Tensor, source: Tensor, part: int, sign: int) -> Tensor:
    """How much a part lacks of having grown (``sign`` 1) or shrunk (−1) by a quarter, as a logarithm; 0 from there on.

    Areas are those of (1, K, S, S) fine masks in [−1, 1], pixels covered by halves included. A part that hardly shows
    has no size: 0.
    """
    before, after = (_area(masks[0, part]) for masks in (source, mask))
    if float(before) < _SEEN:
        return before.new_zeros(())
    return F.relu(_GROWTH - sign * torch.log(after.clamp_min(_SEEN) / before))


def _area(mask: Tensor) -> Tensor:
    """Share of the picture that a mask (S, S) in [−1, 1] covers."""
    return (0.5 + 0.5 * mask.clamp(-1.0, 1.0)).mean()


def change_loss(image: Tensor, source: Tensor, where: Tensor) -> Tensor:
    """Mean |Δ| of pictures (1, 3, S, S) in [−1, 1] where ``where`` (1, S, S) bool holds; 0 if that is nowhere."""
    return ((image - source).abs() * where[:, None]).sum() / (where.sum() * image.shape[1]).clamp_min(1)


def crop_boxes(count: int, random: torch.Generator) -> Tensor:
    """(N, 3) left, top and side of random squares, as shares of the picture's side."""
    drawn = torch.rand(count, 3, generator=random)
    side = _LEAST_CROP + (1.0 - _LEAST_CROP) * drawn[:, 2]
    return torch.stack([drawn[:, 0] * (1 - side), drawn[:, 1] * (1 - side), side], dim=1)


def crops(image: Tensor, boxes: Tensor) -> Tensor:
    """The picture and crops of it, all resized to its size: (1, 3, S, S) and (N, 3) → (1 + N, 3, S, S)."""
    views = [image]
    size = image.shape[-1]
    for left, top, side in boxes.tolist():
        x, y, s = round(left * size), round(top * size), max(1, round(side * size))
        views.append(F.interpolate(image[..., y : y + s, x : x + s], (size, size), mode="bilinear"))
    return torch.cat(views)
