"""HEIC as phones write it: a picture of tiles, each coded by itself (ISO/IEC 23008-12, the item type "grid")."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from PIL import Image
from pillow_heif import register_heif_opener  # type: ignore[import-untyped]


def tiled_heic(image: Image.Image, tile: int = 128) -> bytes:
    """An RGB image whose sides are multiples of the tile's."""
    register_heif_opener()
    columns, rows, coded, decoder = image.width // tile, image.height // tile, [], b""
    for place in range(columns * rows):
        left, top = place % columns * tile, place // columns * tile
        stream = io.BytesIO()
        image.crop((left, top, left + tile, top + tile)).save(stream, "HEIF", quality=80)
        data = stream.getvalue()
        coded.append(next(data[start:end] for kind, start, end in _boxes(data, 0, len(data)) if kind == b"mdat"))
        decoder = _found(data, (b"meta", b"iprp", b"ipco", b"hvcC"))
    count = len(coded)
    whole = count + 1
    items = [_full(b"infe", 2, struct.pack(">HH4sx", number, 0, b"hvc1")) for number in range(1, whole)]
    items.append(_full(b"infe", 2, struct.pack(">HH4sx", whole, 0, b"grid")))
    numbers = struct.pack(f">HH{count}H", whole, count, *range(1, whole))
    sizes = [_full(b"ispe", 0, struct.pack(">II", *size)) for size in ((tile, tile), image.size)]
    owned = b"".join(struct.pack(">HBBB", number, 2, 0x81, 2) for number in range(1, whole))
    properties = _box(b"ipco", decoder + b"".join(sizes)) + _full(
        b"ipma", 0, struct.pack(">I", whole) + owned + struct.pack(">HBB", whole, 1, 3)
    )
    said = (
        _full(b"hdlr", 0, b"\0\0\0\0pict" + bytes(13))
        + _full(b"pitm", 0, struct.pack(">H", whole))
        + _full(b"iinf", 0, struct.pack(">H", whole) + b"".join(items))
        + _full(b"iref", 0, _box(b"dimg", numbers))
        + _box(b"iprp", properties)
        + _box(b"idat", struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *image.size))
    )
    kind = _box(b"ftyp", b"heic\0\0\0\0mif1heic")

    def described(at: int) -> bytes:
        places = b""
        for number, data in enumerate(coded, 1):
            places += struct.pack(">HHHHII", number, 0, 0, 1, at, len(data))
            at += len(data)
        places += struct.pack(">HHHHII", whole, 1, 0, 1, 0, 8)
        return _full(b"meta", 0, said + _full(b"iloc", 1, struct.pack(">BBH", 0x44, 0, whole) + places))

    meta = described(len(kind) + len(described(0)) + 8)
    return kind + meta + _box(b"mdat", b"".join(coded))


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _full(kind: bytes, version: int, body: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24) + body)


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8, at + length
        at += length


def _found(data: bytes, path: tuple[bytes, ...]) -> bytes:
    """The box, with its head, at the end of a path of boxes."""
    at, end = 0, len(data)
    for name in path:
        at, end = next((start, stop) for kind, start, stop in _boxes(data, at, end) if kind == name)
        at += 4 if name == b"meta" else 0
    return data[at - 8 : end]
