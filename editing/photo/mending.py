"""Pictures that are cut short, made whole so that decoders read what is there."""

from __future__ import annotations

import struct
import zlib

from editing.face.embedded import png_chunk

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_END_OF_JPEG = b"\xff\xd9"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column and row and steps of the seven passes of an interlaced PNG (Adam7).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_MOST = 160 * 2**20  # bytes that are unpacked
_PIECE = 2**20
_STILL = 0x30  # of the flags of a WebP: it has a profile, it has opacity


def mended(data: bytes) -> bytes | None:
    """A file that a decoder takes for whole; None if nothing can be done.

    Of a JPEG the end mark is put back. Of a PNG what can be unpacked is filled up with zeros and packed again. For
    WebP, HEIC and AVIF see :func:`filled_up`.
    """
    if data.startswith(_JPEG):
        return data + _END_OF_JPEG
    return _png(data) if data.startswith(_PNG) else None


def filled_up(data: bytes, without: int = 0) -> bytes | None:
    """A WebP, HEIC or AVIF that is cut short, with zeros up to the length it says it has; None if it is nothing such.

    What a decoder makes of the zeros looks like a picture, and nothing tells where it begins: but the rows that do not
    need the last bytes are the same with and without them.

    Args:
        data: the file.
        without: so many of its last bytes are taken for missing too.
    """
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data, without)
    return _boxes(data, without) if data[4:8] == b"ftyp" else None


def turned_by(data: bytes) -> int:
    """By how many right angles a HEIC says that its picture, as it is coded, is turned anticlockwise (ISO 23008-12)."""
    at = data.find(b"irot") if data[4:8] == b"ftyp" else -1
    return data[at + 4] & 3 if 0 <= at < len(data) - 4 else 0


def _webp(data: bytes, without: int) -> bytes | None:
    position, chunks, pictures = 12, [], 0
    if len(data) < 20 or len(data) >= 8 + struct.unpack_from("<I", data, 4)[0]:
        return None
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        body = data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
        missing = length - len(body)
        if kind in (b"VP8 ", b"VP8L"):
            # What each block is predicted from comes first, for all of them (RFC 6386, 9.1).
            modes = 10 + (int.from_bytes(body[:3], "little") >> 5) if kind == b"VP8 " else 0
            if length > _MOST or (missing and len(body) <= without + modes):
                return None
            if missing:
                body = body[: len(body) - without] + bytes(missing + without)
            pictures += 1
        elif missing or kind not in (b"VP8X", b"ICCP", b"ALPH"):
            continue  # what says who and when stands behind the picture
        elif kind == b"VP8X":
            body = bytes([body[0] & _STILL]) + body[1:]
        chunks.append(struct.pack("<4sI", kind, length) + body + bytes(length % 2))
    if pictures != 1:
        return None
    packed = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(packed)) + packed


def _boxes(data: bytes, without: int) -> bytes | None:
    """Of the ISO format of HEIC and AVIF, whose last box is to hold the pixels."""
    position = 0
    while position + 16 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
        end = position + length
        if length < 8 or end > _MOST:
            return None
        if end > len(data):
            fits = kind == b"mdat" and position + 16 + without < len(data)
            return data[: len(data) - without] + bytes(end - len(data) + without) if fits else None
        position = end
    return None


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
            head.append(png_chunk(kind, body))
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
    return _PNG + b"".join(head) + png_chunk(b"IDAT", b"".join(packed)) + png_chunk(b"IEND", b"")


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
