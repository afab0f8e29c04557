"""Every kind of file gets a picture or one clear sentence; faces are framed where they should be."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from icc import rgb_profile  # type: ignore[import-not-found]
from PIL import ExifTags, Image, TiffImagePlugin
from tiled import tiled_heic  # type: ignore[import-not-found]

from editing.errors import EditingError, UnknownSessionError
from editing.photo.align import frame_of, framed, square
from editing.photo.decode import decode
from editing.photo.detect import Detection, MtcnnDetector
from editing.photo.mending import _raw_size
from editing.photo.store import PhotoStore

RED, BLUE = (220, 20, 20), (20, 20, 220)


def halves(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def near(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 40) -> bool:
    return bool((np.abs(pixel.astype(int) - colour) <= tolerance).all())


@pytest.mark.parametrize("packing", [None, "tiff_lzw", "jpeg"])
def test_a_tiff_of_another_kind_of_colours_is_not_called_damaged(packing):
    if packing == "jpeg":  # which Pillow reads
        assert decode(saved(halves(), "TIFF", compression="jpeg")).width == halves().width
        return
    with pytest.raises(EditingError, match=r"YCbCr.*save it as JPEG or PNG"):
        decode(saved(halves().convert("YCbCr"), "TIFF", compression=packing))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_common_formats(kind):
    photo = decode(saved(halves(), kind))
    assert photo.pixels.shape == (40, 60, 3)
    assert photo.pixels.dtype == np.uint8
    assert near(photo.pixels[20, 10], RED)
    assert near(photo.pixels[20, 50], BLUE)
    assert photo.notices == ()


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what is left in the file belongs on top
    photo = decode(saved(halves(), "JPEG", exif=exif, quality=95))
    assert photo.pixels.shape == (60, 40, 3)
    assert near(photo.pixels[5, 20], RED)
    assert near(photo.pixels[55, 20], BLUE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "block", [b"no directory at all", b"MM\0*\0\0", b"II*\0\xff\xff\0\0"], ids=["none", "cut", "lost"]
)
def test_a_damaged_exif_block_is_left_out_and_the_photo_is_read(kind, block):
    photo = decode(saved(halves(), kind, exif=b"Exif\0\0" + block))
    assert photo.notices == () and photo.kept.exif == b""
    assert near(photo.pixels[20, 10], RED) and photo.original().size == (60, 40)


@pytest.mark.parametrize(
    ("image", "kind", "notice"),
    [
        (halves().convert("L"), "PNG", "black and white"),
        (halves().convert("1"), "PNG", "black and white"),
        (halves().convert("CMYK"), "JPEG", "CMYK"),
        (Image.fromarray(np.full((40, 60), 30000, dtype=np.uint16)), "PNG", "more than 8 bits"),
        (Image.fromarray(np.linspace(0, 1, 2400, dtype=np.float32).reshape(40, 60)), "TIFF", "more than 8 bits"),
    ],
    ids=["grey", "bilevel", "cmyk", "16-bit", "float"],
)
def test_unusual_pixels_are_converted_with_a_notice(image, kind, notice):
    photo = decode(saved(image, kind))
    assert photo.pixels.shape == (40, 60, 3)
    assert any(notice in line for line in photo.notices)


def test_sixteen_bit_values_keep_their_meaning():
    photo = decode(saved(Image.fromarray(np.full((40, 60), 257 * 100, dtype=np.uint16)), "PNG"))
    assert photo.pixels.min() == photo.pixels.max() == 100


def deep_png(channels: int) -> bytes:
    """Of 60 × 40 pixels with 16 bits per channel, all 100 · 257; Pillow cannot write colour like that."""
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = (b"\0" + np.full((60, channels), 100 * 257, dtype=">u2").tobytes()) * 40
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 60, 40, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


@pytest.mark.parametrize("data", [deep_png(2), deep_png(3), deep_png(4), b"P6 60 40 65535\n" + b"d" * (60 * 40 * 6)])
def test_sixteen_bit_colour_is_told_as_well(data):
    photo = decode(data)
    assert photo.pixels.shape == (40, 60, 3)
    assert any("more than 8 bits" in line for line in photo.notices)


def deep_tiff(values: np.ndarray, orientation: int = 1, mark: bytes = b"") -> bytes:
    """Of (h, w, 3) RGB or (h, w, 4) inks with 16 bits per channel."""
    height, width, channels = values.shape
    start = 8 + len(mark)
    rows, bits = values.astype("<u2").tobytes(), struct.pack(f"<{channels}H", *[16] * channels)
    tags = {
        **{256: width, 257: height, 258: start, 259: 1, 262: {3: 2, 4: 5}[channels], 273: start + len(bits)},
        **{274: orientation, 277: channels, 278: height, 279: len(rows)},
    }
    entries = [
        struct.pack("<HHII", tag, 3 if tag == 258 else 4, channels if tag == 258 else 1, v) for tag, v in tags.items()
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", start + len(bits) + len(rows)) + mark + bits + rows + directory


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_of_sixteen_bits_stands_upright_once(orientation):
    upright = np.asarray(halves())
    lying = {
        **{1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]},
        **{5: upright.swapaxes(0, 1), 6: np.rot90(upright), 7: np.rot90(upright, 2).swapaxes(0, 1)},
        8: np.rot90(upright, -1),
    }
    photo = decode(deep_tiff(lying[orientation].astype(np.uint16) * 257, orientation))
    assert (photo.width, photo.height) == (60, 40)
    assert np.array_equal(photo.pixels, upright) and np.array_equal(photo.original().values, upright * np.uint16(257))


@pytest.mark.parametrize("kind", ["DNG", "NEF", "CR2"])
def test_a_raw_file_is_not_taken_for_its_preview(kind):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[254] = 1
    if kind == "DNG":
        tags[50706] = b"\1\4\0\0"
    elif kind == "NEF":
        tags[330] = 8
    data = saved(halves(), "TIFF", tiffinfo=tags)
    if kind == "CR2":
        data = deep_tiff(np.asarray(halves()).astype(np.uint16), mark=b"CR\2\0")
    with pytest.raises(EditingError, match="raw file"):
        decode(data)


def test_inks_of_sixteen_bits_are_read():
    inks = np.zeros((40, 60, 4), np.uint16)
    inks[:, 30:, 0] = 65535
    photo = decode(deep_tiff(inks))
    assert (photo.pixels[:, :30] == 255).all() and photo.pixels[20, 50, 0] < 20 < 200 < photo.pixels[20, 50, 1]
    assert any("CMYK" in line for line in photo.notices)


@pytest.mark.parametrize("mode", ["I;16", "RGB", "L", "P", "1", "RGBA"])
def test_large_pictures_are_reduced_before_they_are_copied(mode):
    """Left half dark, right half light, turned by the orientation in the file: the right way up in every mode."""
    grey = np.full((40, 4200), 60, dtype=np.uint16)
    grey[:, 2100:] = 200
    grey = np.repeat(grey, 60, axis=0)
    image = Image.fromarray(grey * 257) if mode == "I;16" else Image.fromarray(grey.astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = decode(saved(image, "PNG", exif=exif))
    assert photo.pixels.shape[0] <= 2048
    assert photo.pixels.shape[0] / photo.pixels.shape[1] == pytest.approx(4200 / 2400, rel=0.01)
    top, bottom = photo.pixels[:900].mean(), photo.pixels[1200:].mean()
    assert bottom - top > 100
    if mode != "1":
        assert (top, bottom) == (pytest.approx(60, abs=2), pytest.approx(200, abs=2))


def test_transparent_areas_become_white():
    image = halves().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    photo = decode(saved(image, "PNG"))
    assert (photo.pixels == 255).all()
    assert any("ransparent" in line for line in photo.notices)
    palette = halves().quantize(4)
    data = saved(palette, "PNG", transparency=palette.getpixel((0, 0)))
    assert (decode(data).pixels[20, 10] == 255).all()
    opaque = halves().convert("RGBA")
    assert decode(saved(opaque, "PNG")).notices == ()


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (40, 40), RED), Image.new("RGB", (40, 40), BLUE)]
    for kind in ("GIF", "WEBP", "PNG"):
        photo = decode(saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100))
        assert near(photo.pixels[5, 5], RED), kind
        assert any("first frame" in line for line in photo.notices), kind


def test_large_photos_are_reduced():
    photo = decode(saved(halves((6000, 4000)), "JPEG"))
    assert max(photo.pixels.shape) <= 2048
    assert photo.pixels.shape[1] / photo.pixels.shape[0] == pytest.approx(1.5, abs=0.01)


def bomb() -> bytes:
    """A PNG header that promises 10 gigapixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
        + struct.pack(">I", 4) + b"IDAT" + b"\0\0\0\0" + struct.pack(">I", zlib.crc32(b"IDAT\0\0\0\0"))
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", "empty"),
        (b"hello, this is a text file", "not a picture"),
        (b"%PDF-1.7 ...", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "not a picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "HEIC"),
        (saved(halves((400, 300)), "JPEG")[:900], "damaged"),
        (saved(halves(), "PNG")[:80], "damaged"),
        (saved(halves((8, 8)), "PNG"), "only 8 × 8 pixels"),
        (saved(Image.new("RGB", (20000, 40)), "PNG"), "too narrow"),
        (bomb(), "too many pixels"),
    ],
    ids=["empty", "text", "pdf", "svg", "eps", "heic", "cut jpeg", "cut png", "tiny", "narrow", "bomb"],
)
def test_what_cannot_be_used_gets_one_sentence(data, answer):
    with pytest.raises(EditingError, match=answer) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


def test_limits(monkeypatch):
    data = saved(halves(), "PNG")
    monkeypatch.setattr("editing.photo.decode.MAX_PIXELS", 1000)
    with pytest.raises(EditingError, match="too many pixels"):
        decode(data)
    monkeypatch.setattr("editing.photo.decode.MAX_BYTES", 10)
    with pytest.raises(EditingError, match="MiB"):
        decode(data)


def test_a_jpeg_of_108_megapixels_is_read_small():
    photo = decode(saved(Image.new("L", (12000, 9000), 120), "JPEG"))
    assert photo.pixels.shape == (1536, 2048, 3) and (photo.pixels == 120).all()
    assert (photo.width, photo.height) == (12000, 9000) and photo.streamed
    assert not any("comes back" in line for line in photo.notices)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_cut_short_is_offered(progressive):
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 255, (30, 40, 3), dtype=np.uint8)).resize(
        (400, 300), Image.Resampling.BICUBIC
    )
    data = saved(noise, "JPEG", quality=95, progressive=progressive)
    photo = decode(data[: len(data) * 3 // 4])
    told = next(line for line in photo.notices if "cut short" in line)
    assert ("finest details" if progressive else "of the picture is missing") in told
    assert np.abs(photo.pixels[:150].astype(int) - np.asarray(noise)[:150]).mean() < 12
    assert photo.original().size == (400, 300), "and can be given back"
    if not progressive:
        with pytest.raises(EditingError, match="cut short"):
            decode(data[: len(data) // 20])


@pytest.mark.parametrize("kind", ["8 bits", "16 bits", "clear"])
def test_a_png_that_is_cut_short_is_offered(kind):
    pixels = np.random.default_rng(0).integers(1, 255, (300, 400, 3), dtype=np.uint8)
    data = saved(Image.fromarray(pixels), "PNG")
    if kind == "16 bits":
        data = cv2.imencode(".png", pixels[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    elif kind == "clear":
        data = saved(Image.fromarray(np.dstack([pixels, np.full((300, 400), 255, np.uint8)])), "PNG")
    photo = decode(data[: len(data) * 3 // 4])
    assert any("of the picture is missing" in line for line in photo.notices)
    assert np.array_equal(photo.pixels[:200], pixels[:200])
    assert photo.original().size == (400, 300), "and can be given back"
    with pytest.raises(EditingError, match="cut short"):
        decode(data[: len(data) // 20])


def test_the_rows_of_an_interlaced_png_are_counted():
    assert _raw_size(8, 8, 8, True) == 79
    assert _raw_size(5, 3, 1, False) == 6


def cut_short(kind: str) -> tuple[bytes, np.ndarray]:
    """A file of 384 × 512 pixels, and its picture."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 255, (16, 12, 3), dtype=np.uint8))
    fine = np.asarray(coarse.resize((384, 512), Image.Resampling.BICUBIC)).astype(int)
    image = Image.fromarray(np.clip(fine + random.integers(-9, 10, fine.shape), 0, 255).astype(np.uint8))
    if kind == "tiled":
        data = tiled_heic(image)
    elif kind == "lossless":
        data = saved(image, "WEBP", lossless=True)
    elif kind == "with more":
        exif = Image.Exif()
        exif[ExifTags.Base.Make] = "Maker"
        data = saved(image, "WEBP", quality=90, exif=exif, icc_profile=rgb_profile("Display P3"))
    else:
        data = saved(image, kind, quality=80)
    return data, decode(data).pixels


@pytest.mark.parametrize("kind", ["WEBP", "lossless", "with more", "HEIF", "tiled"])
def test_a_webp_or_heic_that_is_cut_short_is_offered(kind):
    data, pixels = cut_short(kind)
    photo = decode(data[: len(data) * 3 // 4])
    told = next(line for line in photo.notices if "of the picture is missing" in line)
    missing = int(told.split("%")[0].split()[-1]) / 100
    assert 0.1 < missing < 0.6
    there = int(512 * (1 - missing)) - 4
    assert np.array_equal(photo.pixels[:there], pixels[:there]), "what is there is exact"
    assert np.ptp(photo.pixels[there + 8 :].reshape(-1, 3), axis=0).max() == 0, "and nothing is made up"
    assert photo.original().size == (384, 512), "and can be given back"
    with pytest.raises(EditingError, match="cut short"):
        decode(data[: len(data) // 20])


def test_of_a_webp_cut_short_behind_its_picture_nothing_is_missing():
    data, pixels = cut_short("with more")
    photo = decode(data[:-20])
    assert np.array_equal(photo.pixels, pixels) and any("less than 1%" in line for line in photo.notices)


def test_an_avif_that_is_cut_short_is_refused_with_a_sentence():
    data = saved(halves((400, 300)), "AVIF")
    with pytest.raises(EditingError, match="damaged or cut short; choose another copy"):
        decode(data[: len(data) * 3 // 4])


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_what_phones_make_is_read(kind):
    assert decode(saved(halves(), "PNG")).pixels.shape == (40, 60, 3)  # registers the reader of HEIC
    data = saved(halves((320, 240)), kind, quality=90)
    photo = decode(data)
    assert photo.pixels.shape == (240, 320, 3) and photo.notices == ()
    assert near(photo.pixels[120, 40], RED) and near(photo.pixels[120, 280], BLUE)


@pytest.mark.parametrize(("bits", "most"), [(10, 1023), (12, 4095), (16, 65535)])
def test_few_bits_in_files_of_sixteen_are_not_black(bits, most):
    ramp = np.linspace(0, most, 60).astype(np.uint16)
    grey = np.tile(ramp, (40, 1))
    wanted = np.linspace(0, 255, 60)
    rgb = cv2.imencode(".png", np.dstack([grey] * 3))[1].tobytes()
    for data in (saved(Image.fromarray(grey), "PNG"), saved(Image.fromarray(grey), "TIFF"), rgb):
        photo = decode(data)
        assert np.abs(photo.pixels[20, :, 0] - wanted).max() <= 1
        assert photo.original().white == most
        assert any("more than 8 bits" in line for line in photo.notices)


def test_black_and_white_is_told_however_it_is_stored():
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60), dtype=np.uint8))
    for data in (
        saved(grey, "PNG"),
        saved(grey.convert("RGB"), "PNG"),
        saved(grey.convert("RGB"), "JPEG"),
        saved(grey.convert("P"), "GIF"),
        saved(grey.convert("RGB").quantize(16), "PNG"),
        saved(grey.convert("CMYK"), "TIFF"),
    ):
        photo = decode(data)
        assert photo.grey and any("black and white" in line for line in photo.notices)
    sepia = Image.merge("RGB", [grey, grey.point(lambda v: v * 0.8), grey.point(lambda v: v * 0.5)])
    for image in (sepia, halves()):
        assert not decode(saved(image, "PNG")).grey


def test_sizes_of_files_are_told_apart():
    """A file that is a little too large never seems to be as large as what is allowed."""
    with pytest.raises(EditingError, match=r"has 64.1 MiB; choose one of at most 64 MiB"):
        decode(b"\xff\xd8\xff" + bytes(64 * 2**20))


def test_random_damage_never_escapes_as_another_error():
    random = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "HEIF", "AVIF", "JPEG2000"):
        good = bytearray(saved(halves(), kind))
        for _ in range(30):
            data = bytearray(good)
            for place in random.integers(0, len(data), 8):
                data[place] = random.integers(0, 256)
            with contextlib.suppress(EditingError):
                decode(bytes(data))


# --- framing ----------------------------------------------------------------------------------------------------------


def face_landmarks(scale: float = 1.0, turn: float = 0.0, move: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """A face as the training pictures have it at 256 pixels, then turned (degrees), scaled and moved."""
    points = np.array([[96.0, 121.6], [160.0, 121.6], [128.0, 157.0], [101.0, 185.6], [157.0, 185.6]]) - 128
    angle = np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ rotation.T * scale + 128 * scale + np.array(move)


def test_a_training_picture_stays_where_it_is():
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8))
    pixels = np.asarray(noise.resize((256, 256), Image.Resampling.BICUBIC))
    found = framed(pixels, frame_of(face_landmarks()), 256)
    assert np.abs(found.astype(int) - pixels).mean() < 8


@pytest.mark.parametrize(("scale", "turn", "move"), [(1.0, 0, (40, 20)), (2.5, 0, (10, 30)), (1.5, 25, (80, 60))])
def test_framing_follows_the_face(scale, turn, move):
    """Markers on the landmarks end up at the same places wherever the face is in the photo."""
    points = face_landmarks(scale, turn, move)
    pixels = np.zeros((900, 900, 3), dtype=np.uint8)
    for x, y in points:
        rows, columns = np.mgrid[0:900, 0:900]
        pixels[(columns - x) ** 2 + (rows - y) ** 2 < (5 * scale) ** 2] = 255
    found = framed(pixels, frame_of(points), 128)[..., 0].astype(float)
    for x, y in face_landmarks() / 2:
        patch = found[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3]
        assert patch.mean() > 100, (x, y)
    assert found.mean() < 20


def test_crops_by_hand():
    pixels = np.asarray(halves((200, 100)))

    def crop(left: float, top: float, side: float, turn: float = 0.0) -> np.ndarray:
        return framed(pixels, square(200, 100, left, top, side, turn), 32)

    assert near(crop(0, 0, 50).mean(axis=(0, 1)), RED)
    assert near(crop(150, 0, 50).mean(axis=(0, 1)), BLUE)
    # Turned clockwise, its upper edge looks to the right: what is red on the left comes to lie at the bottom.
    turned = crop(75, 25, 50, 90)
    assert near(turned[-8:].mean(axis=(0, 1)), RED)
    assert near(turned[:8].mean(axis=(0, 1)), BLUE)
    for left, top, side, answer in ((0, 0, 5, "20 pixels"), (500, 0, 50, "outside"), (0, 0, float("nan"), "20 pixels")):
        with pytest.raises(EditingError, match=answer):
            crop(left, top, side)
    with pytest.raises(EditingError, match="by hand"):
        frame_of(np.zeros((5, 2)))


# --- photos with faces ------------------------------------------------------------------------------------------------


def detector(*faces: np.ndarray):
    def find(pixels: np.ndarray) -> list[Detection]:
        return [Detection((0.0, 0.0, 10.0 - i, 10.0), 0.99, points) for i, points in enumerate(faces)]

    return find


def test_one_several_and_no_faces():
    photo = decode(saved(halves((400, 300)), "PNG"))
    store = PhotoStore()
    one = store.add(photo, detector(face_landmarks()))
    assert len(one.faces) == 1
    assert one.notices == ()
    assert (one.width, one.height) == (400, 300)
    several = store.add(photo, detector(face_landmarks(), face_landmarks(0.5)))
    assert len(several.faces) == 2
    assert "choose one" in several.notices[-1]
    none = store.add(photo, detector())
    assert none.faces == ()
    assert "square" in none.notices[-1]
    with pytest.raises(EditingError, match="draw a square"):
        store.framed(none.photo, 0, None, 32)
    assert store.framed(none.photo, 0, (10, 10, 100), 32).shape == (32, 32, 3)
    with pytest.raises(EditingError, match="no face 5"):
        store.framed(several.photo, 5, None, 32)
    assert not np.array_equal(store.framed(several.photo, 0, None, 32), store.framed(several.photo, 1, None, 32))


def test_photos_are_forgotten():
    photo = decode(saved(halves(), "PNG"))
    store = PhotoStore()
    store.max_photos = 2
    first, *_ = [store.add(photo, detector()).photo for _ in range(3)]
    assert len(store) == 2
    with pytest.raises(UnknownSessionError, match="upload it again"):
        store.framed(first, 0, (0, 0, 30), 32)
    old = PhotoStore()
    old.max_age = 0.0
    token = old.add(photo, detector()).photo
    with pytest.raises(UnknownSessionError):
        old.framed(token, 0, (0, 0, 30), 32)
    last = store.add(photo, detector()).photo
    store.close(last)
    with pytest.raises(UnknownSessionError):
        store.framed(last, 0, (0, 0, 30), 32)


def test_the_real_detector_finds_the_faces_of_the_bundled_generator(two_bundled_faces):
    """Pasted into a photo at another size and place; the frame it finds is the frame the face was trained in."""
    pytest.importorskip("facenet_pytorch", exc_type=ImportError)
    faces = two_bundled_faces
    found, side, left, top = MtcnnDetector(), 360, 150, 90
    photo = np.full((600, 700, 3), 128, dtype=np.uint8)
    for face in faces:
        enlarged = Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC)
        photo[top : top + side, left : left + side] = np.asarray(enlarged)
        (detection,) = found(photo)
        x, y = (detection.box[0] + detection.box[2]) / 2, (detection.box[1] + detection.box[3]) / 2
        assert abs(x - left - side / 2) < 0.12 * side
        assert abs(y - top - side / 2) < 0.2 * side
        expected = left + side * face_landmarks()[:, 0] / 256, top + side * face_landmarks()[:, 1] / 256
        assert np.abs(detection.landmarks - np.stack(expected, axis=1)).max() < 0.12 * side
        frame = frame_of(detection.landmarks)
        assert np.abs(framed(photo, frame, len(face)).astype(int) - face).mean() < 30


def test_the_real_detector_finds_nothing_where_there_is_nothing():
    pytest.importorskip("facenet_pytorch", exc_type=ImportError)
    found = MtcnnDetector()
    assert found(np.full((64, 64, 3), 127, dtype=np.uint8)) == []
    assert found(np.random.default_rng(0).integers(0, 255, (120, 200, 3), dtype=np.uint8)) == []
    assert found(np.zeros((12, 12, 3), dtype=np.uint8)) == []
