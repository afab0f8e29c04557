"""Writing a packed face file so that it can be interrupted at any moment and continued."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from memorygan.training.packfile import END_MAGIC, FOOTER, MAGIC, PLAN_LENGTH, RECORD, DataError, PackPlan


class PackWriter:
    """Appends faces to ``<path>.part``, which :meth:`finish` renames to ``path``.

    A ``.part`` file left by an interrupted run with the same plan is continued; one of another plan is started afresh.

    Args:
        path: the finished file; must not exist.
        plan: what the file is going to hold.

    Raises:
        DataError: if ``path`` exists or its folder cannot be written.
    """

    def __init__(self, path: Path, plan: PackPlan) -> None:
        if path.exists():
            raise DataError(f"{path} already exists and is not overwritten; delete it or choose another --name")
        self.path = path
        self.plan = plan
        self.partial = path.with_name(path.name + ".part")
        self.offsets: dict[str, int] = {}
        plan_json = json.dumps(asdict(plan)).encode()
        prefix = MAGIC + PLAN_LENGTH.pack(len(plan_json)) + plan_json
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._end = self._recover(prefix)
            # Unbuffered: a face is either in the file or still to be made, never in between.
            self._file = open(self.partial, "r+b" if self._end else "w+b", buffering=0)  # noqa: SIM115
            self._file.truncate(self._end)
        except OSError as error:
            raise write_error(error, self.partial) from error
        if not self._end:
            self._append(prefix)

    def _recover(self, prefix: bytes) -> int:
        """How many bytes of the partial file can be kept; fills :attr:`offsets`."""
        if not self.partial.exists():
            return 0
        with open(self.partial, "rb") as file:
            if file.read(len(prefix)) != prefix:
                return 0
            end = len(prefix)
            while len(head := file.read(RECORD.size)) == RECORD.size:
                name, image, mask, crc = RECORD.unpack(head)
                body = file.read(name + image + mask)
                # A record cut short by a kill, or zeros left by a power cut, ends what can be trusted.
                if len(body) != name + image + mask or not name or zlib.crc32(body) != crc:
                    break
                self.offsets[body[:name].decode()] = end
                end += len(head) + len(body)
        return end

    def __contains__(self, name: str) -> bool:
        return name in self.offsets

    def _append(self, data: bytes) -> None:
        try:
            if self._file.seek(0, os.SEEK_END) != self._end:
                raise DataError(f"{self.partial} is being written by another process; wait for it to end")
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise write_error(error, self.partial) from error
        self._end += len(data)

    def add(self, name: str, image: bytes, mask: bytes) -> None:
        """Append one face: encoded image and encoded mask.

        Raises:
            DataError: if the disk is full or another process writes the same file.
        """
        encoded = name.encode()
        body = encoded + image + mask
        offset = self._end
        self._append(RECORD.pack(len(encoded), len(image), len(mask), zlib.crc32(body)) + body)
        self.offsets[name] = offset

    def read_mask(self, name: str) -> bytes:
        """The encoded mask of a face already written."""
        self._file.seek(self.offsets[name])
        name_bytes, image_bytes, mask_bytes, _ = RECORD.unpack(self._file.read(RECORD.size))
        self._file.seek(name_bytes + image_bytes, os.SEEK_CUR)
        return self._file.read(mask_bytes)

    def finish(
        self,
        names: Sequence[str],
        frequency: Sequence[float],
        presence: Sequence[float],
        skipped: Sequence[tuple[str, str]],
        weights: Sequence[float] = (),
    ) -> None:
        """Write the index for ``names``, in that order, and give the file its final name.

        The arguments are fields of :class:`~memorygan.training.packfile.PackHeader`.

        Raises:
            DataError: if the disk is full.
        """
        try:
            with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as records:
                digest = hashlib.sha256(records)
            header = {
                "names": list(names),
                "offsets": [self.offsets[name] for name in names],
                "frequency": list(frequency),
                "presence": list(presence),
                "skipped": list(skipped),
                "sha256": digest.hexdigest(),
                "weights": list(weights),
            }
            index = json.dumps(header, ensure_ascii=False).encode()
            self._append(index + FOOTER.pack(self._end, len(index), zlib.crc32(index), END_MAGIC))
            os.fsync(self._file.fileno())
            self.close()
            os.replace(self.partial, self.path)
        except OSError as error:
            raise write_error(error, self.partial) from error

    def close(self) -> None:
        """Leave the partial file as it is, to be continued later."""
        self._file.close()


def write_error(error: OSError, path: Path) -> DataError:
    """The sentence for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(f"the disk is full; {path} keeps what was written: free some space and run the command again")
    return DataError(f"cannot write {path}: {error.strerror or error}")
