"""One decode takes a bounded memory, whatever is uploaded, and gives it back."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image
from pillow_heif import register_heif_opener  # type: ignore[import-untyped]

from editing.errors import EditingError
from editing.photo.decode import decode
from editing.photo.unpacking import MEMORY

linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux says how much memory was used"
)
# Says by how many MiB the memory rose at most while a file was decoded several times, and by how many it stays up.
MEASURE = """
import sys
from editing.errors import EditingError
from editing.photo.decode import decode
from editing.photo.save import save_rows

def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1024

data, full = open(sys.argv[1], "rb").read(), sys.argv[2] == "full"

def once():
    try:
        photo = decode(data)
        if full and photo.streamed:
            return len(save_rows(photo, []).data)
        return photo.original().size if full else photo.pixels.shape
    except EditingError as error:
        return str(error)

decode(open(sys.argv[3], "rb").read()).original()  # what is loaded once
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
once()
peak = status("VmHWM") - before
first = status("VmRSS")
for _ in range(int(sys.argv[4])):
    once()
from editing.photo.decode import give_back
give_back()
print(peak, status("VmRSS") - before)
"""


def saved(image: Image.Image, kind: str, **options) -> bytes:
    register_heif_opener()
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def measured(tmp_path: Path, data: bytes, full: bool = False, again: int = 2) -> tuple[float, float]:
    """MiB at the worst moment, and for good."""
    file, small = tmp_path / "picture", tmp_path / "small"
    file.write_bytes(data)
    small.write_bytes(saved(Image.new("RGB", (64, 64), (9, 90, 200)), "WEBP"))
    command = [sys.executable, "-c", MEASURE, str(file), "full" if full else "view", str(small), str(again)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, timeout=600)
    peak, left = done.stdout.split()
    return float(peak), float(left)


def deep_png(side: int) -> bytes:
    """Of 16-bit RGBA, all the same colour: small as a file."""
    row = b"\0" + b"\x40\0\x80\0\xc0\0\xff\xff" * side
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


@linux
def test_memory_is_given_back(tmp_path):
    picture = Image.new("RGBA", (4000, 3000), (10, 200, 90, 128))
    peak, left = measured(tmp_path, saved(picture, "PNG", compress_level=1), again=4)
    assert peak < 250 and left < 40


@linux
@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True], ids=["to look at", "in full"])
@pytest.mark.parametrize(
    ("kind", "side", "options"),
    [
        ("JPEG", (12000, 9000), {}),
        ("JPEG", (16320, 12240), {}),
        ("JPEG", (8000, 6000), {"progressive": True, "subsampling": 0}),
        ("PNG", (8900, 8900), {"compress_level": 1}),
        ("WEBP", (8000, 6200), {"method": 0}),
        ("AVIF", (7000, 5800), {"speed": 10}),
        ("HEIF", (8000, 6000), {"quality": 20}),
        ("JPEG2000", (5000, 4000), {}),
        ("TIFF", (8000, 6000), {"compression": "tiff_adobe_deflate"}),
        ("GIF", (7000, 7000), {}),
    ],
    ids=["108 MP", "200 MP", "progressive", "png", "webp", "avif", "heic", "jp2", "tiff", "gif"],
)
def test_one_decode_takes_400_mib_at_most(tmp_path, kind, side, options, full):
    mode = "RGBA" if kind == "PNG" else "RGB"
    picture = Image.new(mode, side, (180, 90, 60, 200)[: len(mode)])
    data = saved(picture, kind, **options)
    decode(data)
    peak, left = measured(tmp_path, data, full)
    # Beside what decoding takes: the file, the small picture, and what libraries load for a format.
    assert peak < MEMORY / 2**20 + 60, peak
    assert left < 80, left


@linux
@pytest.mark.slow
def test_a_small_file_with_many_deep_pixels_is_refused_for_nothing(tmp_path):
    data = deep_png(8900)
    assert len(data) < 2**22
    with pytest.raises(EditingError, match="too many pixels; choose one of at most"):
        decode(data)
    peak, left = measured(tmp_path, data, again=20)
    assert peak < 40 and left < 40
    assert decode(deep_png(1000)).pixels[0, 0].tolist() == [64, 128, 191]


@pytest.mark.parametrize(("kind", "side"), [("WEBP", (9000, 6500)), ("AVIF", (8000, 6000))])
def test_what_cannot_be_read_smaller_is_refused_by_its_pixels(kind, side):
    """By the header alone: the pixels of these files are never made."""
    small = saved(Image.new("RGB", (64, 48), (90, 20, 30)), kind)
    data = enlarged(small, kind, side)
    with pytest.raises(EditingError, match=r"too many pixels; choose one of at most \d+ megapixels"):
        decode(data)


def enlarged(data: bytes, kind: str, side: tuple[int, int]) -> bytes:
    """The same file with another size in its header."""
    width, height = side
    if kind == "WEBP":
        at = data.index(b"\x9d\x01\x2a") + 3
        return data[:at] + struct.pack("<HH", width, height) + data[at + 4 :]
    return data.replace(struct.pack(">II", 64, 48), struct.pack(">II", width, height))


@pytest.mark.slow
def test_a_jpeg_2000_is_read_smaller_if_it_can_be():
    picture = Image.new("RGB", (5000, 4600), (90, 20, 30))
    photo = decode(saved(picture, "JPEG2000"))
    assert (photo.width, photo.height) == (2500, 2300), "in full it would take more than a decode may"
    with pytest.raises(EditingError, match="too many pixels; choose one of at most 21 megapixels"):
        decode(saved(picture, "JPEG2000", num_resolutions=1))
