"""Who made a photo and what may be done with it, as XMP and IPTC say: read from a file, and written into its copy.

Only the fields below are taken over: packets of metadata also hold places, thumbnails and the history of edits.
"""

from __future__ import annotations

import html
import io
import re
import struct
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from PIL import Image, IptcImagePlugin

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_SPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
}
# Name in XMP → how it is written there, and its dataset of record 2 in IPTC's IIM, if it has one.
_FIELDS: Mapping[str, tuple[str, int | None]] = {
    "dc:creator": ("Seq", 80),
    "dc:rights": ("Alt", 116),
    "dc:title": ("Alt", 5),
    "dc:description": ("Alt", 120),
    "dc:subject": ("Bag", 25),
    "photoshop:AuthorsPosition": ("", 85),
    "photoshop:Credit": ("", 110),
    "photoshop:Headline": ("", 105),
    "photoshop:Source": ("", 115),
    "xmpRights:Marked": ("", None),
    "xmpRights:Owner": ("Bag", None),
    "xmpRights:UsageTerms": ("Alt", None),
    "xmpRights:WebStatement": ("", None),
}
# Of a packet that is read, of one value, and of all values in letters: a JPEG's segment holds 65,533 bytes.
_PACKET, _VALUE, _ALL = 2**20, 2000, 8000
_MOST_VALUES, _FRAME = 100, 40
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_IIM = 0x0404

# Field → its values.
Credits = Mapping[str, tuple[str, ...]]


def credits_of(image: Image.Image) -> dict[str, tuple[str, ...]]:
    """What an opened picture says; nothing of what is damaged. XMP counts where IPTC says something else."""
    found = _of_iptc(image) | _of_xmp(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp"))
    kept, left = {}, _ALL
    for name in _FIELDS:
        values = [_NO_TEXT.sub("", value).strip()[:_VALUE] for value in found.get(name, ())[:_MOST_VALUES]]
        values = [value for value in values if value]
        size = sum(len(value) + _FRAME for value in values)
        if values and size <= left:
            kept[name] = tuple(values)
            left -= size
    return kept


def rdf(credits: Credits) -> str:
    """Descriptions for an XMP packet; "" if there is nothing to say."""
    if not credits:
        return ""
    spaces = "".join(f' xmlns:{name}="{space}"' for name, space in _SPACES.items())
    return (
        f'<rdf:Description rdf:about=""{spaces}>{"".join(map(_element, credits, credits.values()))}</rdf:Description>'
    )


def _element(name: str, values: tuple[str, ...]) -> str:
    kind = _FIELDS[name][0]
    if not kind:
        return f"<{name}>{html.escape(values[0])}</{name}>"
    language = ' xml:lang="x-default"' if kind == "Alt" else ""
    chosen = values[:1] if kind == "Alt" else values
    items = "".join(f"<rdf:li{language}>{html.escape(value)}</rdf:li>" for value in chosen)
    return f"<{name}><rdf:{kind}>{items}</rdf:{kind}></{name}>"


def iptc_segment(credits: Credits) -> bytes:
    """The same for a JPEG's segment APP13, for programs that know IPTC's IIM alone; empty if there is nothing."""
    records = b""
    for name, values in credits.items():
        dataset = _FIELDS[name][1]
        if dataset is not None:
            for value in values if _FIELDS[name][0] in ("Seq", "Bag") else values[:1]:
                body = value.encode()
                records += struct.pack(">BBBH", 0x1C, 2, dataset, len(body)) + body
    if not records:
        return b""
    records = struct.pack(">BBBH", 0x1C, 1, 90, 3) + b"\x1b%G" + records  # what follows is UTF-8
    resource = b"8BIM" + struct.pack(">HHI", _IIM, 0, len(records)) + records + b"\0" * (len(records) % 2)
    body = b"Photoshop 3.0\0" + resource
    return struct.pack(">BBH", 0xFF, 0xED, 2 + len(body)) + body


def _of_iptc(image: Image.Image) -> dict[str, tuple[str, ...]]:
    opened: Any = image
    try:
        found: Any = IptcImagePlugin.getiptcinfo(opened) or {}
        return {
            name: tuple(_text(value) for value in _many(found[2, dataset]))
            for name, (_, dataset) in _FIELDS.items()
            if dataset is not None and (2, dataset) in found
        }
    # A damaged block is not worth refusing a photo.
    except (OSError, ValueError, LookupError, TypeError, SyntaxError, AttributeError, struct.error):
        return {}


def _many(value: Any) -> list[bytes]:
    return [bytes(one) for one in (value if isinstance(value, list) else [value])]


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _of_xmp(packet: Any) -> dict[str, tuple[str, ...]]:
    text = packet.encode("utf-8", "replace") if isinstance(packet, str) else packet
    # Declarations of entities are what makes reading XML dangerous, and no packet needs them.
    if not isinstance(text, bytes) or len(text) > _PACKET or b"<!" in text:
        return {}
    try:
        root = ElementTree.parse(io.BytesIO(text.strip(b"\0 \r\n\t"))).getroot()
    except (ElementTree.ParseError, ValueError, LookupError):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for description in root.iter(f"{{{_RDF}}}Description"):
        for name in _FIELDS:
            space, local = name.split(":")
            key = f"{{{_SPACES[space]}}}{local}"
            if key in description.attrib:
                found[name] = (description.attrib[key],)
            for element in description.findall(key):
                items = [item.text or "" for item in element.iter(f"{{{_RDF}}}li")]
                found[name] = tuple(items) or ((element.text or ""),)
    return found
