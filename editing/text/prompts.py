"""Sentences before a judge sees them: tidied, and shortened where they are too long."""

from __future__ import annotations

from editing.errors import EditingError
from editing.face.edits import MAX_PROMPT
from editing.guidance.clip import ImageTextJudge

MAX_LENGTH = 100_000
_SHOWN_WORDS, _SHOWN_LETTERS = 5, 30


def tidy(text: str, name: str = "the description") -> tuple[str, tuple[str, ...]]:
    """One line without control characters, and what had to be cut off, in sentences.

    Raises:
        EditingError: if nothing is left of it, or it is longer than 100,000 characters.
    """
    if not isinstance(text, str):
        raise EditingError(f"{name} is not a text; write a sentence such as 'a person with red hair'")
    if len(text) > MAX_LENGTH:
        raise EditingError(f"{name} has {len(text)} characters; a short sentence is enough, 77 words at most are read")
    # Surrogates cannot be stored or sent; they come from broken clipboards.
    line = " ".join("".join(c if c.isprintable() or c.isspace() else " " for c in text).split())
    if not line:
        raise EditingError(f"{name} is empty; write a sentence such as 'a person with red hair'")
    if len(line) <= MAX_PROMPT:
        return line, ()
    cut = line[:MAX_PROMPT]
    cut = cut[: cut.rindex(" ")] if " " in cut else cut
    return cut, (f"{name[:1].upper()}{name[1:]} is very long; only its beginning is used.",)


def for_judge(judge: ImageTextJudge, prompt: str, name: str = "the description") -> tuple[str, tuple[str, ...]]:
    """The sentence as :func:`tidy` leaves it, and what the judge will not make of it, in sentences.

    Raises:
        EditingError: see :func:`tidy`; also for a sentence in which the judge knows no word.
    """
    prompt, notices = tidy(prompt, name)
    if not judge.understands(prompt):
        raise EditingError(
            f"{judge.title} knows no word of this; describe the face in plain English, such as 'a person with red hair'"
            if judge.closed
            else f"{name} holds no words; write a sentence such as 'a person with red hair'"
        )
    unknown = judge.language.unknown(prompt)
    if unknown:
        shown = ", ".join(f"“{word[:_SHOWN_LETTERS]}”" for word in unknown[:_SHOWN_WORDS])
        more = " and others" if len(unknown) > _SHOWN_WORDS else ""
        plural = "s" if len(unknown) > 1 else ""
        notices += (
            f"{judge.title} was not taught the word{plural} {shown}{more}; what it cannot read changes nothing.",
        )
    if weak := judge.language.weak(prompt):
        shown = ", ".join(f"“{phrase}”" for phrase in weak[:_SHOWN_WORDS])
        notices += (f"{judge.title} hardly sees {shown}; the edit may show little of it.",)
    if not judge.closed and any(c.isalpha() and not c.isascii() for c in prompt):
        notices += (f"{judge.title} learned from English pages; other languages may lead elsewhere.",)
    if not notices and judge.length(prompt) > judge.context - 2:
        notices += (f"{name[:1].upper()}{name[1:]} is longer than {judge.title} reads; its end is not used.",)
    return prompt, notices
