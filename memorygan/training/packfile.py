"""The packed face file: every image and mask of one split in one file that is safe to open.

Layout, all integers little-endian::

    magic                 8 bytes
    plan length + plan    what the file is going to hold (JSON), so an interrupted file can be recognised
    record*               lengths, CRC-32, then name, encoded image, encoded mask
    index                 the header of the finished file (JSON)
    footer                where the index starts, its length and CRC-32, closing magic

Records are only ever appended, so whatever an interrupted preparation wrote is a valid beginning. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

MAGIC = b"MGPACK01"
END_MAGIC = b"MGPKEND1"
PLAN_LENGTH = struct.Struct("<I")
RECORD = struct.Struct("<IIII")  # bytes of name, image, mask; CRC-32 of the three together
FOOTER = struct.Struct("<QII8s")  # index offset, index bytes, index CRC-32, closing magic
MAX_RESOLUTION = 1024


class DataError(ValueError):
    """Training data that cannot be used; the message is one sentence for the person who supplied it."""


@dataclass(frozen=True)
class PackPlan:
    """What a packed file is going to hold. Two runs with equal plans write interchangeable files.

    Attributes:
        resolution: side of images and masks in pixels.
        split: ``"train"`` or ``"val"``.
        parts: part names, in the order of the mask ids.
        source: one line on where the faces come from.
        kind: which reader made them (``celebamask``, ``pairs``, ``images``, ``procedural``, or ``mixture`` of these).
        encoding: how images are stored, e.g. ``"webp 95"`` or ``"webp lossless"``.
        fingerprint: SHA-256 over the names of the faces, and names, sizes and dates of their files.
    """

    resolution: int
    split: str
    parts: tuple[str, ...]
    source: str
    kind: str
    encoding: str
    fingerprint: str


@dataclass(frozen=True)
class PackHeader:
    """The index of a finished packed file.

    Attributes:
        plan: what was asked for.
        names: one name per face, in index order.
        offsets: byte offset of every record.
        frequency: share of all pixels that belong to each part, 0–1, summing to 1.
        presence: share of faces in which each part is visible, 0–1.
        skipped: ``(name, reason)`` of source faces that could not be used.
        sha256: over everything before the index.
        weights: how often each face is shown in relation to an ordinary one, see :mod:`memorygan.training.rarity`;
            empty where all are shown alike.
    """

    plan: PackPlan
    names: tuple[str, ...]
    offsets: tuple[int, ...]
    frequency: tuple[float, ...]
    presence: tuple[float, ...]
    skipped: tuple[tuple[str, str], ...]
    sha256: str
    weights: tuple[float, ...] = ()


class PackReader:
    """Random access to the encoded faces of a finished packed file, memory-mapped.

    Args:
        path: a packed file.
        verify: also check the SHA-256 of the whole content (about a second per gigabyte).

    Raises:
        DataError: if the file is missing, truncated, damaged or not a packed face file.
    """

    def __init__(self, path: Path, verify: bool = True) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if file.read(len(MAGIC)) != MAGIC:
                    raise DataError(f"{path} is not a packed face file; python -m memorygan.training.prepare makes one")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        unfinished = f"{path} is incomplete: it was cut short, or its preparation was interrupted; make it again"
        damaged = f"{path} is damaged: its contents do not match its checksum; make it again"
        footer_at = size - FOOTER.size
        if footer_at < len(MAGIC) + PLAN_LENGTH.size:
            raise DataError(unfinished)
        self._index_at, index_bytes, crc, end = FOOTER.unpack_from(self._map, footer_at)
        if end != END_MAGIC or self._index_at + index_bytes != footer_at:
            raise DataError(unfinished)
        index = self._map[self._index_at : footer_at]
        if zlib.crc32(index) != crc:
            raise DataError(damaged)
        try:
            self.header = self._parse(index)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, struct.error) as error:
            raise DataError(f"{path} has an unreadable header ({error}); make it again") from error
        if verify:
            with memoryview(self._map)[: self._index_at] as records:
                if hashlib.sha256(records).hexdigest() != self.header.sha256:
                    raise DataError(damaged)

    def _parse(self, index: bytes) -> PackHeader:
        (length,) = PLAN_LENGTH.unpack_from(self._map, len(MAGIC))
        start = len(MAGIC) + PLAN_LENGTH.size
        plan = _plan_from_json(json.loads(self._map[start : start + length]))
        raw = json.loads(index)
        header = PackHeader(
            plan=plan,
            names=tuple(str(name) for name in raw["names"]),
            offsets=tuple(int(offset) for offset in raw["offsets"]),
            frequency=tuple(float(share) for share in raw["frequency"]),
            presence=tuple(float(share) for share in raw["presence"]),
            skipped=tuple((str(name), str(reason)) for name, reason in raw["skipped"]),
            sha256=str(raw["sha256"]),
            weights=tuple(float(weight) for weight in raw.get("weights", ())),
        )
        if not 1 <= plan.resolution <= MAX_RESOLUTION:
            raise ValueError(f"resolution {plan.resolution}")
        if not header.names or len(header.names) != len(header.offsets):
            raise ValueError(f"{len(header.names)} names for {len(header.offsets)} faces")
        if header.weights and (
            len(header.weights) != len(header.names) or not all(0.0 < weight <= 100.0 for weight in header.weights)
        ):
            raise ValueError("its weights do not fit its faces")
        if not len(plan.parts) == len(header.frequency) == len(header.presence) > 0:
            raise ValueError("it does not count every part")
        return header

    def read(self, index: int) -> tuple[bytes, bytes]:
        """Encoded image and encoded mask of face ``index``.

        Raises:
            DataError: if the header points outside the records.
        """
        start = self.header.offsets[index]
        if 0 <= start <= self._index_at - RECORD.size:
            name, image, mask, _ = RECORD.unpack_from(self._map, start)
            start += RECORD.size + name
            if start + image + mask <= self._index_at:
                return self._map[start : start + image], self._map[start + image : start + image + mask]
        raise DataError(f"{self.path} has a header that points outside the file; make it again")


def _plan_from_json(raw: dict[str, Any]) -> PackPlan:
    known = sorted(field.name for field in fields(PackPlan))
    if sorted(raw) != known:
        raise ValueError(f"expected the fields {', '.join(known)}")
    texts = {name: str(value) for name, value in raw.items() if name not in ("resolution", "parts")}
    return PackPlan(resolution=int(raw["resolution"]), parts=tuple(str(name) for name in raw["parts"]), **texts)
