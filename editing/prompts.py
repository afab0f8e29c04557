"""Sentences before a judge sees them: tidied, shortened where they are too long, and which parts they speak of."""

from __future__ import annotations

import re
from collections.abc import Callable

from editing.errors import EditingError
from editing.guidance.clip import ImageTextJudge
from editing.recipe import MAX_PROMPT

MAX_LENGTH = 100_000
_SHOWN_WORDS, _SHOWN_LETTERS = 5, 30
_FACE = ("skin", "eyes", "eyebrows", "mouth", "nose")
# The paper found that the look of the eyes follows when skin and hair may change, more than when the eyes may.
_EYES = ("skin", "hair")

# The first pattern that matches a word decides; all words of a sentence count. Beginnings of words, so that
# "smile", "smiles" and "smiling" are one entry.
_SUBJECTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"(eye|sun)?glass(es)?$|spectacle|eyeglass|goggle|monocle", ("eyeglass",)),
    (r"eyebrow|brows?$|unibrow|browed", ("eyebrows",)),
    (r"eyeshadow|mascara|eyeliner|eyelash|lash(es)?$", ("eyes", "skin")),
    (r"eyes?$|eyed|iris(es)?$|gaz(e|es|ing)$", _EYES),
    (r"earrings?$|jewel", ("earring",)),
    (r"ears?$|eared", ("ears",)),
    (r"hats?$|caps?$|beanie|helmet|crown|hood(s|ed)?$|turban|headscarf|bonnet", ("hat",)),
    (r"beard|moustache|mustache|goatee|stubble|unshave|shaved?n?$|shaven|sideburn", ("skin", "mouth")),
    (r"bald|hairless", ("hair", "skin")),
    (
        r"hair|blond|brunet|ginger|redhead|curl|wavy|bangs?$|fringe|afro|ponytail|braid|bob$|mohawk|dreadlock|"
        r"auburn|locks$|pixie",
        ("hair",),
    ),
    (r"lipstick|lips?$|mouth|teeth|tooth|tongue", ("mouth",)),
    (
        r"smil|laugh|grin(s|ned|ning)?$|happ(y|i)|cheer|joy|frown|sad(ly|der|ness)?$|angr(y|ily)|anger|pout|surpris|"
        r"scream|serious",
        ("mouth", "skin"),
    ),
    (r"nose|nostril", ("nose",)),
    (
        r"chins?$|jaw|cheek|forehead|dimple|wrinkl|freckle|skin(s|ned)?$|tan(ned)?$|pale|complexion|blush|mole$|scar$",
        ("skin",),
    ),
    (r"make-?up|cosmetic|foundation|rouge", ("skin", "mouth", "eyes")),
    (r"neck(lace)?$|collar", ("neck", "cloth")),
    (r"cloth|shirt|dress|suits?$|ties?$|jacket|coat|sweater|scarf|uniform|blouse|hoodie", ("cloth",)),
    (r"background|backdrop|wall$|sky$|outdoor|indoor|beach|forest|studios?$", ("background",)),
    (
        r"feminine|masculine|"
        r"old(er)?$|young(er)?$|aged?$|elder|child|kid$|baby|teen|asian|african|european|indian|latin",
        (*_FACE, "hair"),
    ),
)


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
    unknown = judge.unknown_words(prompt)
    if unknown:
        shown = ", ".join(f"“{word[:_SHOWN_LETTERS]}”" for word in unknown[:_SHOWN_WORDS])
        more = " and others" if len(unknown) > _SHOWN_WORDS else ""
        plural = "s" if len(unknown) > 1 else ""
        notices += (
            f"{judge.title} was not taught the word{plural} {shown}{more}; what it cannot read changes nothing.",
        )
    if weak := judge.weak_phrases(prompt):
        shown = ", ".join(f"“{phrase}”" for phrase in weak[:_SHOWN_WORDS])
        notices += (f"{judge.title} hardly sees {shown}; the edit may show little of it.",)
    if not judge.closed and any(c.isalpha() and not c.isascii() for c in prompt):
        notices += (f"{judge.title} learned from English pages; other languages may lead elsewhere.",)
    if not notices and judge.length(prompt) > judge.context - 2:
        notices += (f"{name[:1].upper()}{name[1:]} is longer than {judge.title} reads; its end is not used.",)
    return prompt, notices


def suggest_parts(prompt: str, known: Callable[[str], bool] = lambda part: True) -> tuple[str, ...]:
    """The parts a sentence speaks of, in the order of a face; never empty where any of them is known.

    Args:
        prompt: a sentence.
        known: whether the model has a part.
    """
    words = re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)?", prompt.lower())
    found: set[str] = set()
    for piece in (piece for word in words for piece in {word, *word.split("-")}):
        subject = next((parts for pattern, parts in _SUBJECTS if re.match(pattern, piece)), ())
        found.update(subject)
    # "A woman with red hair" is about the hair; "a woman", and what no pattern knows, is about the whole face.
    if not found:
        found.update((*_FACE, "hair"))
    order = (
        "background", "skin", "eyes", "eyebrows", "mouth", "nose", "ears", "hair", "neck", "cloth", "eyeglass", "hat",
        "earring",
    )  # fmt: skip
    return tuple(part for part in order if part in found and known(part))
