"""Sections of a Markdown page that are written by different commands and do not overwrite one another."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"[a-z0-9][a-z0-9/-]*")


def with_section(page: str, name: str, body: str) -> str:
    """A page in which one section is replaced, or put at the end if the page has none of that name.

    A section stands between two comments that no reader sees. Everything outside of it stays as it is.

    Args:
        page: Markdown.
        name: lower-case letters, digits, ``-`` and ``/``.
        body: Markdown, without the comments.

    Raises:
        ValueError: for another kind of name, or a section of that name that does not end.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"section name {name!r} may hold lower-case letters, digits, - and / only")
    start, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    section = f"{start}\n{body.strip()}\n{end}"
    if start not in page:
        return f"{page.rstrip()}\n\n{section}\n" if page.strip() else f"{section}\n"
    before, rest = page.split(start, 1)
    if end not in rest:
        raise ValueError(f"section {name} begins but does not end; put '{end}' where it should")
    return before + section + rest.split(end, 1)[1]


def write_section(path: Path, name: str, body: str, title: str) -> None:
    """Puts a section into a file, which begins with ``title`` if it is new. Errors as in :func:`with_section`."""
    page = path.read_text(encoding="utf-8") if path.exists() else f"# {title}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(with_section(page, name, body), encoding="utf-8")
