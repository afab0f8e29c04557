"""A sentence taken apart into words, in one way for everybody who reads one."""

from __future__ import annotations

import re


def split_words(text: str) -> list[str]:
    """The words of a text in lower case; "woman's" is "woman", while quotes around a word are left out."""
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[^\W\d_])['’][^\W\d_]*", "", text.lower()))
