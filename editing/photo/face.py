"""A face in a photo while it is edited: what the model changes is shown in the photo's own pixels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

import cv2
import numpy as np
import torch

from editing.device.renderer import Rendered
from editing.face.photo_ref import PhotoRef
from editing.photo.align import Frame, framed
from editing.photo.decode import Photo
from editing.photo.original import Original
from editing.photo.transfer.borrow import Lent
from editing.photo.transfer.fields import Fields, apply, reach
from editing.photo.transfer.looks import FramedPhoto, Look
from editing.photo.transfer.planes import times, total
from editing.photo.transfer.transfer import Plan, transfer
from memorygan.config import GeneratorConfig
from memorygan.parser import FaceParser
from memorygan.parts import LayerGroup, PartScheme
from memorygan.picture import from_uint8

SHOWN_SIDE, PREVIEW_SIDE = 1024, 512
FIELD_SIDE, PREVIEW_FIELD_SIDE = 512, 256
_PARSED_SIDE = 256
# Of the frame's side: over how much edits fade at its border at most, and how much farther the photo has to go for it.
_FADES, _HARDLY = 0.05, 0.005


class PhotoFace:
    """What every edit of one face of a photo needs; thread-safe.

    Args:
        photo: the upload.
        frame: of the face, in pixels of the full photo.
        parse: (N, N, 3) uint8 → (s, s, K) float32 shares of the parts.
        scheme: the parts.
        sharp: gives a box of the photo at full size, where its small picture shows less of the face than can be shown.
    """

    def __init__(
        self,
        photo: Photo,
        frame: Frame,
        parse: Callable[[np.ndarray], np.ndarray],
        scheme: PartScheme,
        sharp: Callable[[tuple[int, int, int, int]], np.ndarray] | None = None,
    ) -> None:
        self.photo, self.frame, self.scheme = photo, frame, scheme
        self.pixels = _framed(photo, frame, int(np.clip(round(frame.side), PREVIEW_SIDE, SHOWN_SIDE)), sharp)
        self._shares = parse(self.pixels).astype(np.float16)
        self._lock = threading.Lock()
        self._prepared: dict[int, FramedPhoto] = {}
        self._inner: dict[int, np.ndarray | None] = {}

    @property
    def size(self) -> int:
        """Side of the framed face in pixels."""
        return int(self.pixels.shape[0])

    @property
    def ref(self) -> PhotoRef:
        """What a recipe keeps."""
        return ref_of(self.photo, self.frame)

    def fields(
        self,
        before: Rendered,
        after: Rendered,
        plan: Plan,
        size: int,
        coloured: Collection[str] = (),
        lent: Sequence[Lent] = (),
    ) -> Fields:
        """What an edit does to the photo.

        Args:
            before, after: what the model shows, of any size.
            plan: what was edited.
            size: of the fields.
            lent: parts that are taken from other photos, prepared for the same size.
            coloured: names of the parts that get colours also in a black-and-white photo.
        """
        last = look(after)
        first = look(before).at(last.image.shape[0])
        made = transfer(self.prepared(size), first, last, plan, lent, size // 2)
        if (inner := self._within(size)) is not None:
            made = made.faded(inner)
        if not self.photo.grey:
            return made
        return made.coloured([k for k, name in enumerate(self.scheme.names) if name in coloured])

    def shown(self, fields: Fields, size: int | None = None) -> Rendered:
        """The framed face after an edit.

        Args:
            fields: of the edit.
            size: side in pixels; None for the largest there is.
        """
        pixels = self.pixels
        if size is not None and size < self.size:
            pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
        side = pixels.shape[0]
        image, _ = apply(pixels, fields, np.array([[1 / side, 0.0, 0.0], [0.0, 1 / side, 0.0]]))
        ids = fields.part_map if fields.part_map is not None else self.prepared(fields.size).part_map
        return Rendered(image, cv2.resize(ids, (side, side), interpolation=cv2.INTER_NEAREST))

    def prepared(self, size: int) -> FramedPhoto:
        """The framed face for fields of a size."""
        with self._lock:
            if size not in self._prepared:
                shares = self._shares.astype(np.float32)
                self._prepared[size] = FramedPhoto.of(self.pixels, shares, size, self.scheme)
            return self._prepared[size]

    def _within(self, size: int) -> np.ndarray | None:
        """:func:`within` of the frame."""
        with self._lock:
            if size not in self._inner:
                self._inner[size] = within(self.frame, self.photo.width, self.photo.height, size)
            return self._inner[size]

    def put_back(self, fields: Fields, photo: Original) -> Original:
        """The full photo with the edit; pixels that the edit does not reach are the same to the bit."""
        width, height = photo.size
        box = reach(fields, places(self.frame), (height, width))
        if box is None:
            return photo
        left, top = box[:2]
        matrix = places(self.frame)
        matrix[:, 2] += matrix[:, :2] @ (left, top)
        after, _ = apply(photo.srgb(box), fields, matrix, (left, top))
        return photo.edited(left, top, after)

    def put_on(self, fields: Fields, pixels: np.ndarray) -> np.ndarray:
        """As :meth:`put_back`, for the photo as (h, w, 3) uint8 sRGB of any size."""
        frame = self.frame.scaled(pixels.shape[1] / self.photo.width)
        return apply(pixels, fields, places(frame))[0]


def within(frame: Frame, width: int, height: int, size: int) -> np.ndarray | None:
    """How much of an edit is wanted where it nears the border of the frame: beyond there hair and skin go on unedited.

    Args:
        frame: over the photo.
        width, height: of the photo.
        size: n of the fields.

    Returns:
        (n, n) float32, 1 inside and where the photo ends with the frame, falling to 0 at the border elsewhere, within
        as much as the photo goes on there; None if it is 1 everywhere.
    """
    line, along, beyond = (np.arange(size) + 0.5) / size, np.linspace(0.1, 0.9, 9), np.linspace(0.0, _FADES, 33)[1:]
    places, (first, right, _, below) = np.meshgrid(along, beyond), frame.corners()
    share = np.ones((size, size), np.float32)
    for u, v, away in (
        (places[0], -places[1], line[:, None]),
        (places[0], 1.0 + places[1], 1.0 - line[:, None]),
        (-places[1], places[0], line[None]),
        (1.0 + places[1], places[0], 1.0 - line[None]),
    ):
        x, y = first[:, None, None] + np.multiply.outer(right - first, u) + np.multiply.outer(below - first, v)
        goes_on = ((x > 0) & (x < width) & (y > 0) & (y < height)).any(axis=1).sum() / len(beyond) * _FADES
        if goes_on > _HARDLY:
            rise = np.clip(away / goes_on, 0.0, 1.0)
            share *= (rise * rise * (3.0 - 2.0 * rise)).astype(np.float32)
    return None if share.min() == 1.0 else share


def ref_of(photo: Photo, frame: Frame) -> PhotoRef:
    """What a recipe keeps of a face in a photo."""
    place = (frame.left, frame.top, frame.across, frame.down)
    return PhotoRef(photo.sha256, photo.width, photo.height, photo.turns, place)


def look(picture: Rendered) -> Look:
    """What the transfer compares, of a picture that was kept with the shares of its parts."""
    assert picture.shares is not None
    shares = picture.shares.astype(np.float32) + 1e-3
    return Look(picture.image, times(shares, 1.0 / total(shares, range(shares.shape[2]))))


def plan_of(before: torch.Tensor, after: torch.Tensor, config: GeneratorConfig) -> Plan:
    """What an edit changed, from (1, K, L, D) codes before and after."""
    moved = (before != after).any(dim=3)[0]  # (K, L)
    first = config.layer_range(LayerGroup.TEXTURE).start
    textured = torch.nonzero(moved[:, first:].any(dim=1)).flatten().tolist()
    shaped = torch.nonzero(moved[:, :first].any(dim=1)).flatten().tolist()
    return Plan(tuple(textured), tuple(shaped))


def places(frame: Frame) -> np.ndarray:
    """(2, 3) float64: places in the photo, in pixels from its corner → places in the frame, in its sides."""
    across, down, square = frame.across, frame.down, frame.side**2
    turn = np.array([[across, down], [-down, across]]) / square
    return np.concatenate([turn, -turn @ np.array([[frame.left], [frame.top]])], axis=1)


@torch.no_grad()
def shares_of(parser: FaceParser, pixels: np.ndarray, device: torch.device, closely: bool = True) -> np.ndarray:
    """(N, N, 3) uint8 → (s, s, K) float32, how sure a parser is of each part; ``closely`` as for its ``parse``."""
    small = cv2.resize(pixels, (_PARSED_SIDE, _PARSED_SIDE), interpolation=cv2.INTER_AREA)
    return parser.parse(from_uint8(small, device), closely=closely).probabilities[0].permute(1, 2, 0).cpu().numpy()


def _framed(
    photo: Photo, frame: Frame, size: int, sharp: Callable[[tuple[int, int, int, int]], np.ndarray] | None
) -> np.ndarray:
    if sharp is None:
        return framed(photo.pixels, frame.scaled(photo.scale), size)
    corners = frame.corners()
    low = np.clip(np.floor(corners.min(axis=0)) - 2, 0, None).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)) + 3, (photo.width, photo.height)).astype(int)
    part = sharp((int(low[0]), int(low[1]), int(high[0]), int(high[1])))
    return framed(part, Frame(frame.left - low[0], frame.top - low[1], frame.across, frame.down), size)
