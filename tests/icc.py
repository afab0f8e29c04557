"""Colour profiles for tests, made from primaries or from a model of inks, since Pillow makes none but sRGB's."""

from __future__ import annotations

import struct

import numpy as np

# Red, green and blue as x, y of CIE 1931; all with white D65.
PRIMARIES = {
    "Display P3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    "Adobe RGB (1998)": ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060)),
    "Rec. 709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
}
D65, D50 = np.array([0.95047, 1.0, 1.08883]), np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
GAMMA = 563 / 256  # Adobe's, to the digit that a profile keeps


def to_xyz(name: str) -> np.ndarray:
    """(3, 3): linear RGB → XYZ under D65."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in PRIMARIES[name]]).T
    return columns * np.linalg.solve(columns, D65)


def rgb_profile(name: str) -> bytes:
    """Of a space with these primaries and a plain gamma."""
    adapted = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ D50) / (_BRADFORD @ D65)) @ _BRADFORD @ to_xyz(name)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(GAMMA * 256)) + bytes(2)
    tags = {b"wtpt": _xyz(D50), **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)}
    tags |= {kind: _xyz(adapted[:, index]) for index, kind in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return _profile(b"mntr", b"RGB ", b"XYZ ", name, tags)


def grey_profile(gamma: float) -> bytes:
    """Of grey with a plain gamma."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    return _profile(b"mntr", b"GRAY", b"XYZ ", "Some grey", {b"wtpt": _xyz(D50), b"kTRC": curve})


def inks_to_srgb(inks: np.ndarray) -> np.ndarray:
    """The model of :func:`ink_profile`: (…, 4) in 0–1 → sRGB in 0–1. Its cyan is dull, its magenta warm."""
    c, m, y, k = np.moveaxis(inks, -1, 0)
    light = np.stack([1 - 0.8 * c, (1 - 0.75 * m) * (1 - 0.25 * c), (1 - 0.85 * y) * (1 - 0.2 * m)], axis=-1)
    return light * (1 - k[..., None])


def ink_profile() -> bytes:
    """Of print colours, by tables."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 4, indexing="ij"), axis=-1)
    forth = _table(4, 3, 9, _lab(inks_to_srgb(grid)) * 255)
    lab = np.stack(np.meshgrid(*[np.linspace(0, 1, 17)] * 3, indexing="ij"), axis=-1)
    rgb = _from_lab(lab)
    c = np.clip((1 - rgb[..., 0]) / 0.8, 0, 1)
    m = np.clip((1 - rgb[..., 1] / (1 - 0.25 * c)) / 0.75, 0, 1)
    y = np.clip((1 - rgb[..., 2] / (1 - 0.2 * m)) / 0.85, 0, 1)
    back = _table(3, 4, 17, np.stack([c, m, y, 0 * c], axis=-1) * 255)
    return _profile(b"prtr", b"CMYK", b"Lab ", "Dull inks", {b"wtpt": _xyz(D50), b"A2B0": forth, b"B2A0": back})


def _table(inputs: int, outputs: int, points: int, values: np.ndarray) -> bytes:
    line = bytes(range(256))
    head = b"mft1" + bytes(4) + bytes([inputs, outputs, points, 0])
    identity = b"".join(struct.pack(">i", 65536 * (row == column)) for row in range(3) for column in range(3))
    return (
        head + identity + line * inputs + np.round(np.clip(values, 0, 255)).astype(np.uint8).tobytes() + line * outputs
    )


def _lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB in 0–1 → Lab under D50, each in 0–1 as 8-bit tables have it."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _srgb_to_d50().T / D50
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    lab = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
    return np.stack([lab[..., 0] / 100, (lab[..., 1] + 128) / 255, (lab[..., 2] + 128) / 255], axis=-1)


def _from_lab(lab: np.ndarray) -> np.ndarray:
    light, a, b = lab[..., 0] * 100, lab[..., 1] * 255 - 128, lab[..., 2] * 255 - 128
    y = (light + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, (116 * f - 16) * 27 / 24389) * D50
    linear = np.clip(xyz @ np.linalg.inv(_srgb_to_d50()).T, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _srgb_to_d50() -> np.ndarray:
    adapt = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ D50) / (_BRADFORD @ D65)) @ _BRADFORD
    return adapt @ to_xyz("Rec. 709")


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(float(v) * 65536)) for v in values)


def _profile(kind: bytes, colours: bytes, space: bytes, name: str, tags: dict[bytes, bytes]) -> bytes:
    text = name.encode("ascii") + b"\0"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(4 + 4 + 2 + 1 + 67)
    tags = {b"desc": described, b"cprt": b"text" + bytes(4) + b"none\0", **tags}
    head, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        head += tag + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    white = b"".join(struct.pack(">i", round(float(v) * 65536)) for v in D50)
    header = (
        bytes(4)
        + b"lcms"
        + b"\x02\x40\0\0"
        + kind
        + colours
        + space
        + bytes(12)
        + b"acsp"
        + bytes(28)
        + white
        + bytes(48)
    )
    data = header + struct.pack(">I", len(tags)) + head + body
    return struct.pack(">I", len(data)) + data[4:]
