"""Latent codes → 8-bit pictures, with a bounded cache of what the memory returned for each part.

The memory is asked for one part of one face at a time, and what it returned is kept under the part's code. A picture
therefore depends on the codes alone: not on which parts were cached, nor on who else was served at that moment. Only
previews are composed in batches.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch

from memorygan.composition import RenderNet
from memorygan.fast.folding import fold
from memorygan.generator import ComposedGenerator, Synthesis
from memorygan.latents import Latents
from memorygan.memory import Retrieved
from memorygan.picture import to_uint8

# Of what the memory returned: 76 faces of 128 pixels in bfloat16.
CACHE_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Rendered:
    """One 8-bit picture.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        part_map: (S, S) uint8 part ids.
        shares: (S, S, K) uint8, how much of a pixel each part takes, of 255 before they are made to sum to 1; None
            where it was not kept.
    """

    image: np.ndarray
    part_map: np.ndarray
    shares: np.ndarray | None = None


@dataclass(frozen=True)
class PreviewRequest:
    """A preview of an edit that is not committed.

    Attributes:
        owner: whose cache holds the unchanged parts.
        committed: (1, K, L, D) codes of the face as it stands.
        latents: (1, K, L, D) codes to show.
        size: side in pixels; None for the size at which people are shown faces.
        generator: the face's own, if it was tuned to a photo; None for the common one.
    """

    owner: str
    committed: Latents
    latents: Latents
    size: int | None
    generator: ComposedGenerator | None

    @cached_property
    def changed(self) -> tuple[int, ...]:
        """Indices of the parts whose codes differ from the committed ones."""
        same = (self.committed.w == self.latents.w).flatten(2).all(dim=2)[0]
        return tuple(int(k) for k in torch.nonzero(~same).flatten())


class PartCache:
    """What the memory returned for single parts; least recently used entries go first.

    Args:
        max_bytes: bound of all entries together.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self.hits, self.misses = 0, 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, int, bytes], Retrieved] = OrderedDict()

    def get(self, key: tuple[str, int, bytes]) -> Retrieved | None:
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._entries.move_to_end(key)
            return found

    def put(self, key: tuple[str, int, bytes], value: Retrieved) -> None:
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = value
            self.bytes += _size(value)
            while self.bytes > self.max_bytes:
                self.bytes -= _size(self._entries.popitem(last=False)[1])

    def drop(self, owner: str) -> None:
        """Frees everything that was kept for one face."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == owner]:
                self.bytes -= _size(self._entries.pop(key))

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self.bytes = 0


def _size(value: Retrieved) -> int:
    return sum(t.numel() * t.element_size() for t in (value.hidden, value.depth))


class Renderer:
    """Owns the generator on its device; call it from one thread at a time.

    Args:
        original: in evaluation mode; pictures are made by a folded copy of it, see :mod:`memorygan.fast.folding`.
        cache_bytes: bound of the part cache.
    """

    def __init__(self, original: ComposedGenerator, cache_bytes: int = CACHE_BYTES) -> None:
        self.original = original
        self.generator = fold(original)
        self.cache = PartCache(cache_bytes)
        self._own: WeakKeyDictionary[ComposedGenerator, ComposedGenerator] = WeakKeyDictionary()

    @property
    def device(self) -> torch.device:
        return self.original.device

    def move(self, device: torch.device | str) -> None:
        """Moves the generator; the cache starts empty."""
        self.cache.clear()
        self._own.clear()
        self.original.to(device)
        self.generator = fold(self.original)

    @torch.inference_mode()
    def retrieve(self, owner: str, latents: Latents) -> Retrieved:
        """All parts of one face; parts whose codes are known are not asked for again.

        Args:
            owner: the face, for :meth:`PartCache.drop`.
            latents: (1, K, L, D), any device.
        """
        codes = latents.w[0].cpu().contiguous()
        found: list[Retrieved] = []
        on_device: Latents | None = None
        for index, code in enumerate(codes):
            key = (owner, index, hashlib.blake2b(code.numpy().tobytes(), digest_size=16).digest())
            part = self.cache.get(key)
            if part is None:
                on_device = on_device or Latents(latents.w.to(self.device), latents.config)
                part = self.generator.retrieve(on_device, [index])
                self.cache.put(key, part)
            found.append(part)
        return Retrieved(torch.cat([part.hidden for part in found], 1), torch.cat([part.depth for part in found], 1))

    def of(self, own: ComposedGenerator | None) -> ComposedGenerator:
        """The folded generator, with a face's own render net if it has one; everything else is shared."""
        if own is None:
            return self.generator
        folded = self._own.get(own)
        if folded is None:
            own.render.to(self.device)
            folded = with_render(self.generator, fold(own).render)
            self._own[own] = folded
        return folded

    @torch.inference_mode()
    def render(
        self, owner: str, latents: Latents, size: int | None = None, generator: ComposedGenerator | None = None
    ) -> Rendered:
        """The exact picture of one face: the same codes give the same bytes on the same device."""
        drawing = self.of(generator)
        return _shown(drawing, drawing.compose(self.retrieve(owner, latents), latents, size=size), size)[0]

    @torch.inference_mode()
    def render_batch(
        self, latents: Latents, size: int | None = None, generator: ComposedGenerator | None = None
    ) -> list[Rendered]:
        """Small pictures of B faces at once, without the cache; in two halves if they do not fit together."""
        try:
            drawing = self.of(generator)
            return _shown(drawing, drawing.synthesize(latents.to(self.device), size=size), size)
        except torch.OutOfMemoryError:
            if len(latents) == 1:
                raise
        half = len(latents) // 2
        first = self.render_batch(latents[:half], size, generator)
        return first + self.render_batch(latents[half:], size, generator)

    @torch.inference_mode()
    def preview_batch(self, requests: Sequence[PreviewRequest]) -> list[Rendered]:
        """Previews of several faces with the same size and generator, whatever parts each of them changes.

        The memory is asked once for all faces that change the same parts; composing, which takes most of the time, is
        done for all faces together.
        """
        first = requests[0]
        generator = self.of(first.generator)
        latents = together([request.latents for request in requests]).to(self.device)
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row, request in enumerate(requests):
            rows_of.setdefault(request.changed, []).append(row)
        found: dict[int, Retrieved] = {}
        for changed, rows in rows_of.items():
            found.update(zip(rows, self._retrieved(generator, [requests[row] for row in rows], changed), strict=True))
        parts = [found[row] for row in range(len(requests))]
        retrieved = Retrieved(torch.cat([part.hidden for part in parts]), torch.cat([part.depth for part in parts]))
        return _shown(generator, generator.compose(retrieved, latents, size=first.size), first.size)

    def _retrieved(
        self, generator: ComposedGenerator, requests: Sequence[PreviewRequest], changed: tuple[int, ...]
    ) -> list[Retrieved]:
        """All parts of each face, of which only those that all of the faces change are asked for."""
        latents = together([request.latents for request in requests]).to(self.device)
        if len(changed) == latents.config.part_count:
            new = generator.retrieve(latents)
            pairs = zip(new.hidden.split(1), new.depth.split(1), strict=True)
            return [Retrieved(hidden, depth) for hidden, depth in pairs]
        known = [self.retrieve(request.owner, request.committed) for request in requests]
        if changed:
            new, which = generator.retrieve(latents, changed), list(changed)
            for row, part in enumerate(known):  # fresh tensors, so that they may be written to
                part.hidden[:, which], part.depth[:, which] = new.hidden[row : row + 1], new.depth[row : row + 1]
        return known


def together(latents: Sequence[Latents]) -> Latents:
    """The codes of several faces as one batch."""
    w = torch.cat([face.w for face in latents])
    return Latents(w, latents[0].config, all(face.shared_base for face in latents))


def with_render(generator: ComposedGenerator, render: RenderNet) -> ComposedGenerator:
    """The same generator with another render net; everything else is shared."""
    other = copy.copy(generator)
    other._modules = dict(generator._modules)
    other.render = render
    return other


def _shown(generator: ComposedGenerator, synthesis: Synthesis, size: int | None) -> list[Rendered]:
    """8-bit pictures and part maps; those of no certain size are as large as people are shown them."""
    return rendered(generator.magnify(synthesis) if size is None else synthesis)


def rendered(synthesis: Synthesis) -> list[Rendered]:
    """8-bit pictures and part maps of B faces."""
    images, maps = to_uint8(synthesis.image), synthesis.part_map.to(torch.uint8).cpu().numpy()
    shares = to_uint8(synthesis.mask)  # the fine mask is near 2·one-hot − 1
    return [Rendered(*one) for one in zip(images, maps, shares, strict=True)]
