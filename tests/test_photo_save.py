"""A photo comes back in the format it came in, at full size, untouched where nothing was edited, with its recipe."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from icc import grey_profile, rgb_profile  # type: ignore[import-not-found]
from PIL import ExifTags, Image, IptcImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from editing.face.codes import Codes
from editing.face.edits import SliderEdit
from editing.face.embedded import png_chunks, read_recipe
from editing.face.recipe import Recipe
from editing.face.sources import CodesSource, SeedSource
from editing.photo.credits import credits_of
from editing.photo.decode import Photo, decode
from editing.photo.metadata import _Text, fitting
from editing.photo.original import Original
from editing.photo.save import save

RECIPE = Recipe("a" * 64, SeedSource(7, 0.7), (SliderEdit("hair.1", 1.0),))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def jpeg(data: bytes) -> Any:
    image = Image.open(io.BytesIO(data))
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    return image


def smooth(width: int = 96, height: int = 64) -> np.ndarray:
    """(height, width, 3) uint8, colours that run into each other, with some grain."""
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(30, 220, (4, 6, 3), dtype=np.uint8))
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(large + random.integers(-3, 4, large.shape), 0, 255).astype(np.uint8)


def deep(kind: str, values: np.ndarray) -> bytes:
    """A file of 16 bits per channel; RGB or RGBA."""
    code = cv2.COLOR_RGBA2BGRA if values.shape[2] == 4 else cv2.COLOR_RGB2BGR
    return cv2.imencode(kind, cv2.cvtColor(values, code))[1].tobytes()


def edited(photo: Photo) -> tuple[Original, Original, np.ndarray]:
    """Before and after a change, and where it is."""
    before = photo.original()
    part = before.srgb((20, 10, 60, 40))
    after = part.copy()
    after[8:20, 8:24] = after[8:20, 8:24] // 2
    moved = np.zeros(before.values.shape[:2], dtype=bool)
    moved[10:40, 20:60] = (after != part).any(axis=-1)
    return before, before.edited(20, 10, after), moved


RGB = Image.fromarray(smooth())
RGBA = RGB.copy()
RGBA.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))))
DEEP = smooth().astype(np.uint16) * 257 + np.arange(96, dtype=np.uint16)[None, :, None]
WITHOUT_LOSS = {
    "png": (saved(RGB, "PNG"), "png"),
    "png clear": (saved(RGBA, "PNG"), "png"),
    "png grey": (saved(RGB.convert("L"), "PNG"), "png"),
    "png grey clear": (saved(RGBA.convert("LA"), "PNG"), "png"),
    "png palette": (saved(RGB.quantize(64), "PNG"), "png"),
    "png palette clear": (saved(RGBA.quantize(64), "PNG"), "png"),
    "png P3": (saved(RGB, "PNG", icc_profile=rgb_profile("Display P3")), "png"),
    "png bilevel": (saved(RGB.convert("1"), "PNG"), "png"),
    "png 16": (deep(".png", DEEP), "png"),
    "png 16 clear": (deep(".png", np.dstack([DEEP, DEEP[..., :1]])), "png"),
    "png 12 of 16": (deep(".png", DEEP >> 4), "png"),
    "png grey profile clear": (saved(RGB.convert("L"), "PNG", icc_profile=grey_profile(1.8), transparency=90), "png"),
    "png grey 16": (saved(Image.fromarray(DEEP[..., 1].copy()), "PNG"), "png"),
    "tiff": (saved(RGB, "TIFF"), "tif"),
    "tiff inks": (saved(RGB.convert("CMYK"), "TIFF"), "tif"),
    "tiff grey 16": (saved(Image.fromarray(DEEP[..., 1].copy()), "TIFF"), "tif"),
    "tiff 16": (deep(".tiff", DEEP), "png"),
    "webp": (saved(RGB, "WEBP", lossless=True), "webp"),
    "webp clear": (saved(RGBA, "WEBP", lossless=True, exact=True), "webp"),
    "gif": (saved(RGB, "GIF"), "png"),
    "bmp": (saved(RGB, "BMP"), "png"),
    "ppm": (saved(RGB, "PPM"), "png"),
    "jp2": (saved(RGB, "JPEG2000", irreversible=False), "png"),
}


@pytest.mark.parametrize(("data", "suffix"), WITHOUT_LOSS.values(), ids=WITHOUT_LOSS.keys())
def test_what_was_not_edited_is_the_same_to_the_bit(data, suffix):
    photo = decode(data)
    before, after, moved = edited(photo)
    file = save(photo, after, RECIPE)
    assert file.suffix == suffix
    back = decode(file.data).original()
    assert (moved.sum() > 50) and back.values.dtype == before.values.dtype and back.white == before.white
    assert back.values.shape[:2] == before.values.shape[:2]
    clear = np.zeros_like(moved) if before.alpha is None else (before.alpha == 0) & (after.alpha == 0)
    assert np.array_equal(
        np.broadcast_to(back.values, before.values.shape)[~moved & ~clear], before.values[~moved & ~clear]
    )
    assert np.array_equal(back.values[~clear], after.values[~clear])
    if before.alpha is not None and after.alpha is not None and back.alpha is not None:
        assert np.array_equal(back.alpha, after.alpha) and np.array_equal(back.alpha[~moved], before.alpha[~moved])
    assert (back.alpha is None) == (before.alpha is None)
    assert back.space == before.space
    assert read_recipe(file.data) == RECIPE


@pytest.mark.parametrize(("quality", "sampling"), [(96, 0), (93, 2), (90, 1)])
def test_a_fine_jpeg_keeps_its_own_steps(quality, sampling):
    data = saved(Image.fromarray(smooth(320, 240)), "JPEG", quality=quality, subsampling=sampling)
    photo = decode(data)
    before, after, moved = edited(photo)
    file = save(photo, after, RECIPE)
    with jpeg(data) as own, jpeg(file.data) as image:
        assert image.quantization == own.quantization
        assert image.layer == own.layer
    far = cv2.dilate(moved.astype(np.uint8), np.ones((49, 49))) == 0
    wrong = np.abs(decode(file.data).pixels.astype(int) - before.srgb())[far]
    assert (wrong.max(axis=-1) == 0).mean() > 0.9 and wrong.max() <= 8
    assert np.abs(decode(file.data).pixels.astype(int) - after.srgb())[moved].mean() < 4
    assert read_recipe(file.data) == RECIPE


@pytest.mark.parametrize(("orientation", "turns"), [(5, 0), (6, 0), (8, 2), (1, 1), (6, 1)])
def test_the_steps_of_a_jpeg_are_turned_as_its_picture_is(orientation, turns):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = saved(Image.fromarray(smooth(320, 240)), "JPEG", quality=92, subsampling=0, exif=exif, dpi=(300, 150))
    photo = decode(data).turned(turns)
    file = save(photo, photo.original(), RECIPE)
    lying = photo.width < photo.height
    with jpeg(data) as own, jpeg(file.data) as image:
        assert image.info["dpi"] == ((150, 300) if lying else (300, 150))
        for number, table in own.quantization.items():
            square = np.reshape(table, (8, 8))
            assert np.array_equal(np.reshape(image.quantization[number], (8, 8)), square.T if lying else square)
    wrong = np.abs(decode(file.data).original().values.astype(int) - photo.original().values).max(axis=-1)
    assert (wrong == 0).mean() > 0.9 and wrong.max() <= 4


def test_colours_halved_along_what_is_now_upright_are_written_whole():
    photo = decode(saved(Image.fromarray(smooth(320, 240)), "JPEG", quality=92, subsampling=1)).turned(1)
    with jpeg(save(photo, photo.original()).data) as image:
        assert all(layer[1:3] == (1, 1) for layer in image.layer)


@pytest.mark.parametrize("kind", ["JPEG", "HEIF", "AVIF"])
def test_other_photos_become_a_jpeg_of_quality_95(kind):
    photo = decode(saved(Image.fromarray(smooth(320, 240)), kind, quality=70))
    _, after, _ = edited(photo)
    file = save(photo, after, RECIPE)
    assert (file.suffix, file.mime) == ("jpg", "image/jpeg")
    with jpeg(file.data) as image:
        assert image.size == (320, 240)
        assert sum(image.quantization[0]) / 64 < 6, "quality 95"
        assert all(layer[1:3] == (1, 1) for layer in image.layer), "4:4:4"
    assert np.abs(decode(file.data).pixels.astype(int) - after.srgb()).mean() < 2
    assert read_recipe(file.data) == RECIPE


def test_inks_stay_inks():
    photo = decode(saved(RGB.convert("CMYK"), "JPEG", quality=95))
    _, after, _ = edited(photo)
    with Image.open(io.BytesIO(save(photo, after, RECIPE).data)) as image:
        assert image.mode == "CMYK"
        assert np.abs(np.asarray(image).astype(int) - after.values).mean() < 3


def test_a_large_recipe_rides_in_every_format():
    recipe = Recipe("a" * 64, CodesSource(Codes.of(torch.randn(13, 10, 512))))
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        photo = decode(saved(RGB, kind))
        file = save(photo, photo.original(), recipe)
        assert len(recipe.to_json()) > 2 * 65533, "more than a segment of a JPEG holds"
        assert read_recipe(file.data) == recipe, kind
        assert decode(file.data).pixels.shape == photo.pixels.shape


def written_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Artist] = "Some maker", "Some person"
    exif[ExifTags.Base.Copyright] = "\u00a9 Zo\u00eb".encode()
    exif[ExifTags.Base.Orientation] = 6
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.DateTimeOriginal] = "2026:11:28 12:00:00"
    details[ExifTags.Base.ExposureTime] = TiffImagePlugin.IFDRational(1, 250)
    details[ExifTags.Base.LensModel] = _Text("\u0141ens".encode().decode("latin-1"))
    details[ExifTags.Base.MakerNote] = b"opaque: 52.5 N 13.4 E"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N", (52.0, 31.0, 12.0)
    written = Image.Exif()  # into a TIFF Pillow writes only directories that it has read
    written.load(exif.tobytes())
    written[ExifTags.Base.Copyright] = exif[ExifTags.Base.Copyright]
    written.get_ifd(ExifTags.IFD.Exif).update(details)
    return written


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
def test_who_and_when_are_kept_but_not_where(kind):
    data = saved(RGB, kind, exif=written_exif())
    photo = decode(data)
    if kind != "HEIF":  # HEIC turns pictures by a note of its own
        assert (photo.width, photo.height) == (64, 96), "turned upright"
    file = save(photo, photo.original(), RECIPE)
    with Image.open(io.BytesIO(file.data)) as image:
        assert image.size == (photo.width, photo.height)
        exif = image.getexif()
        assert exif.get(ExifTags.Base.Make) == "Some maker" and exif.get(ExifTags.Base.Artist) == "Some person"
        assert exif.get(ExifTags.Base.Orientation, 1) == 1, "it stands upright as it is"
        details = exif.get_ifd(ExifTags.IFD.Exif)
        assert details.get(ExifTags.Base.DateTimeOriginal) == "2026:11:28 12:00:00"
        assert float(details[ExifTags.Base.ExposureTime]) == 1 / 250
        texts = exif[ExifTags.Base.Copyright], details[ExifTags.Base.LensModel]
        assert [text.encode("latin-1").decode() for text in texts] == ["\u00a9 Zo\u00eb", "\u0141ens"]
        assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {} and ExifTags.Base.MakerNote not in details
    assert b"52.5 N" not in file.data
    assert decode(file.data).kept.exif == photo.kept.exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
def test_adobe_rgb_without_a_profile_is_still_said(kind):
    exif = written_exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R03", 2: b"0100"}
    photo = decode(saved(RGB, kind, exif=exif.tobytes() if kind != "TIFF" else exif))
    back = save(photo, photo.original(), RECIPE).data
    with Image.open(io.BytesIO(back)) as image:
        found = image.getexif().get_ifd(ExifTags.IFD.Interop)
    assert found == {1: "R03", 2: b"0100"}
    assert decode(back).kept.exif == photo.kept.exif and b"52.5 N" not in back


def test_exif_that_is_too_long_for_a_jpeg_loses_what_takes_most():
    exif = written_exif()
    exif[ExifTags.Base.HostComputer] = "x" * 40_000
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0" + b"y" * 60_000
    for kind, suffix in (("HEIF", "jpg"), ("WEBP", "webp")):
        photo = decode(saved(RGB, kind, exif=exif))
        file = save(photo, photo.original(), RECIPE)
        assert file.suffix == suffix
        back = decode(file.data).kept.exif
        assert (b"y" * 60_000 in back) == (suffix == "webp") and b"x" * 40_000 in back and b"2026:11:28" in back
    whole = decode(saved(RGB, "WEBP", exif=exif)).kept.exif
    assert b"xx" not in fitting(whole, 30_000) and b"2026:11:28" in fitting(whole, 30_000)
    assert fitting(whole, 10) == b""


def test_resolution_is_kept():
    for kind in ("JPEG", "PNG", "TIFF"):
        photo = decode(saved(RGB, kind, dpi=(300, 300)))
        with Image.open(io.BytesIO(save(photo, photo.original()).data)) as image:
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    photo = decode(with_chunks(deep(".png", DEEP), {b"pHYs": struct.pack(">IIB", 11811, 5906, 1)}))
    with Image.open(io.BytesIO(save(photo, photo.original()).data)) as image:
        assert image.info["dpi"] == pytest.approx((300, 150), abs=0.1)


def with_chunks(data: bytes, chunks: dict[bytes, bytes]) -> bytes:
    """A PNG with more chunks behind its header."""
    more = [
        struct.pack(">I", len(b)) + name + b + struct.pack(">I", zlib.crc32(name + b)) for name, b in chunks.items()
    ]
    return data[:33] + b"".join(more) + data[33:]


def test_a_grey_png_of_sixteen_bits_keeps_its_profile():
    profile, plain = grey_profile(1.8), saved(Image.fromarray(DEEP[..., 1].copy()), "PNG")
    photo = decode(with_chunks(plain, {b"iCCP": b"grey\0\0" + zlib.compress(profile)}))
    before, after, moved = edited(photo)
    assert before.space.profile == profile and before.values.dtype == np.uint16
    back = decode(save(photo, after, RECIPE).data).original()
    assert back.space == before.space and np.array_equal(back.values[~moved], before.values[~moved])
    assert np.array_equal(back.srgb()[~moved], before.srgb()[~moved])


@pytest.mark.parametrize("data", [saved(RGB, "PNG"), deep(".png", DEEP)], ids=["8 bits", "16 bits"])
def test_what_a_png_says_of_its_values_and_of_its_author_comes_back(data):
    meanings = {b"gAMA": struct.pack(">I", 55556), b"cICP": bytes([12, 13, 0, 1])}
    said = {
        b"tEXt": b"Author\0Ada",
        b"iTXt": b"Copyright\0\0\0\0\0" + "\u00a9 Zo\u00eb \u0141".encode(),
        b"zTXt": b"Comment\0\0x",
    }
    photo = decode(with_chunks(data, meanings | said))
    back = save(photo, photo.original(), RECIPE).data
    found = dict(png_chunks(back))
    assert {name: found[name] for name in meanings} == meanings
    with Image.open(io.BytesIO(back)) as image:
        assert (image.info["Author"], image.info["Copyright"]) == ("Ada", "\u00a9 Zo\u00eb \u0141")
        assert "Comment" not in image.info
    assert decode(back).kept == photo.kept and read_recipe(back) == RECIPE
    # A profile says it better, and values that were converted through one no longer mean that.
    profiled = with_chunks(saved(RGB, "PNG", icc_profile=rgb_profile("Display P3")), meanings)
    assert decode(profiled).kept.meanings == ()


def test_a_photo_that_was_turned_by_hand_comes_back_turned():
    photo = decode(saved(RGB, "PNG")).turned(1)
    assert (photo.width, photo.height) == (64, 96) and photo.pixels.shape == (96, 64, 3)
    back = decode(save(photo, photo.original()).data)
    assert np.array_equal(back.pixels, np.rot90(smooth()))


def test_a_hostile_jpeg_does_not_lead_far():
    """Segments that promise more than there is, and a length of zero."""
    for tail in (
        b"\xff\xec\xff\xffmemorygan-recipe\0\0{",
        b"\xff\xec\0\0" * 9,
        b"\xff\xec\0\x13memorygan-recipe\0",
        b"\xff",
    ):
        with pytest.raises(Exception, match=r"recipe|JSON"):
            read_recipe(b"\xff\xd8" + b"\xff\xe0\0\x02" + tail)
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    with pytest.raises(Exception, match="carries no recipe"):
        read_recipe(
            b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(header))
        )


XMP = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
 xmpRights:Marked="True" exif:GPSLatitude="52,31.2N" photoshop:City="Berlin" photoshop:Credit="A &amp; B">
<dc:creator><rdf:Seq><rdf:li>Ada</rdf:li><rdf:li>Zo\xc3\xab</rdf:li></rdf:Seq></dc:creator>
<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">\xc2\xa9 2026 Ada</rdf:li></rdf:Alt></dc:rights>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
SAID = (
    ("dc:creator", ("Ada", "Zo\u00eb")),
    ("dc:rights", ("\u00a9 2026 Ada",)),
    ("photoshop:Credit", ("A & B",)),
    ("xmpRights:Marked", ("True",)),
)


def with_xmp(kind: str) -> bytes:
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        return saved(RGB, "PNG", pnginfo=info)
    if kind == "deep PNG":
        data, packet = deep(".png", DEEP), b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
        chunk = struct.pack(">I", len(packet)) + b"iTXt" + packet + struct.pack(">I", zlib.crc32(b"iTXt" + packet))
        return data[:33] + chunk + data[33:]
    if kind == "TIFF":
        exif = Image.Exif()
        exif[700] = XMP
        return saved(RGB, "TIFF", exif=exif)
    return saved(RGB, kind, xmp=XMP)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "deep PNG", "WEBP", "TIFF"])
def test_who_made_a_photo_and_its_rights_come_back_and_no_place(kind):
    photo = decode(with_xmp(kind))
    assert photo.kept.credits == SAID
    back = save(photo, photo.original(), RECIPE).data
    assert decode(back).kept.credits == SAID
    assert read_recipe(back) == RECIPE
    assert b"GPS" not in back and b"Berlin" not in back
    assert decode(save(photo, photo.original()).data).kept.credits == SAID


def test_iptc_comes_back_as_such_and_as_xmp():
    def record(dataset: int, text: bytes) -> bytes:
        return struct.pack(">BBBH", 0x1C, 2, dataset, len(text)) + text

    body = record(80, "Zo\u00eb".encode("latin-1")) + record(116, b"(c) Ada") + record(90, b"Berlin") + record(25, b"a")
    resource = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(body)) + body + b"\0" * (len(body) % 2)
    segment = b"Photoshop 3.0\0" + resource
    plain = saved(RGB, "JPEG", quality=92)
    photo = decode(plain[:2] + struct.pack(">BBH", 0xFF, 0xED, 2 + len(segment)) + segment + plain[2:])
    said = (("dc:creator", ("Zo\u00eb",)), ("dc:rights", ("(c) Ada",)), ("dc:subject", ("a",)))
    assert photo.kept.credits == said
    back = save(photo, photo.original(), RECIPE).data
    assert b"Berlin" not in back and read_recipe(back) == RECIPE
    image = jpeg(back)
    found: Any = IptcImagePlugin.getiptcinfo(image)
    assert found[2, 116] == b"(c) Ada" and found[2, 80] == "Zo\u00eb".encode()
    assert b"creator" in image.info["xmp"]
    assert decode(back).kept.credits == said


@pytest.mark.parametrize(
    "packet",
    [
        b"<x",
        XMP[:300],
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + XMP,
        XMP.replace(b"Ada", b"\xff\xfe"),
        b"<a/>" + b" " * 2**20,
    ],
)
def test_a_packet_that_cannot_be_read_safely_is_left_out(packet):
    assert credits_of(Image.frombytes("L", (1, 1), b"\0")) == {}
    image = RGB.copy()
    image.info["xmp"] = packet
    assert credits_of(image) == {}


def test_credits_are_short_enough_for_a_segment():
    image = RGB.copy()
    image.info["xmp"] = XMP.replace(b"Ada", b"&quot;" * 1900).replace(b"A &amp; B", b"&lt;" * 10**5)
    credits = credits_of(image)
    assert max(len(value) for values in credits.values() for value in values) <= 2000
    photo = decode(saved(RGB, "JPEG"))
    photo = replace(photo, kept=replace(photo.kept, credits=tuple(credits.items())))
    assert decode(save(photo, photo.original(), RECIPE).data).kept.credits == tuple(credits.items())
