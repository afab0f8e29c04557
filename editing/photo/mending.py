"""Pictures that are cut short, made whole so that decoders read what is there."""

from __future__ import annotations

import struct
import zlib

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_END_OF_JPEG = b"\xff\xd9"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column and row and steps of the seven passes of an interlaced PNG (Adam7).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_MOST = 160 * 2**20  # bytes that are unpacked
_PIECE = 2**20


def mended(data: bytes) -> bytes | None:
    """A file that a decoder takes for whole; None if nothing can be done.

    Of a JPEG the end mark is put back. Of a PNG what can be unpacked is filled up with zeros and packed again. No
    decoder here reads the beginning of a WebP, HEIC or AVIF.
    """
    if data.startswith(_JPEG):
        return data + _END_OF_JPEG
    return _png(data) if data.startswith(_PNG) else None


def _png(data: bytes) -> bytes | None:
    position, head, pixels = len(_PNG), [], []
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        if kind == b"IDAT":
            pixels.append(body)
        elif kind == b"IEND" or len(body) < length:
            break
        elif not pixels:
            head.append(_chunk(kind, body))
        position += 12 + length
    if not pixels or not head or len(head[0]) != 25 or head[0][4:8] != b"IHDR":
        return None
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", head[0], 8)
    size = _raw_size(width, height, depth * _CHANNELS.get(colour, 0), bool(interlaced))
    if not 0 < size <= _MOST:
        return None
    packer, unpacker = zlib.compressobj(1), zlib.decompressobj()
    packed, done = [], 0
    try:
        for body in pixels:
            rest = body
            while rest and done < size:
                raw = unpacker.decompress(rest, min(_PIECE, size - done))
                rest = unpacker.unconsumed_tail
                packed.append(packer.compress(raw))
                done += len(raw)
                if not raw and not rest:
                    break
    except zlib.error:
        pass  # what came before is good
    if not done:
        return None
    while done < size:
        fill = bytes(min(_PIECE, size - done))
        packed.append(packer.compress(fill))
        done += len(fill)
    packed.append(packer.flush())
    return _PNG + b"".join(head) + _chunk(b"IDAT", b"".join(packed)) + _chunk(b"IEND", b"")


def _raw_size(width: int, height: int, bits: int, interlaced: bool) -> int:
    """Bytes of the unpacked rows, each with the byte of its filter in front."""
    if not interlaced:
        return height * (1 + -(-width * bits // 8))
    total = 0
    for left, top, across, down in _PASSES:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
