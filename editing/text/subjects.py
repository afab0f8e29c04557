"""What a sentence speaks of: the parts whose codes may change, where the change may show, and in which layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from memorygan.parts import FACE_PARTS, PartScheme

_FACE = ("skin", "eyes", "eyebrows", "mouth", "nose")


@dataclass(frozen=True)
class Subject:
    """What a sentence is about, names in the order of a face.

    Attributes:
        parts: whose codes may change; never empty where any of them is known.
        shown: where the change may show. Fewer than ``parts`` where some of them only help others to change.
        layers: of those codes, a key of :data:`editing.face.state.GROUPS`.
    """

    parts: tuple[str, ...]
    shown: tuple[str, ...]
    layers: str = "all"

    @property
    def helpers(self) -> tuple[str, ...]:
        """Parts whose codes only help others to change."""
        return tuple(part for part in self.parts if part not in self.shown)

    def region(self, allowed: Sequence[str]) -> tuple[str, ...]:
        """Where the change may show if the codes of ``allowed`` may change, whether proposed or chosen by someone."""
        helping = set(allowed) & set(self.helpers)
        return _ordered(set(allowed) - helping | (set(self.shown) if helping else set()))


@dataclass(frozen=True)
class _Entry:
    """Words that speak of some parts.

    Attributes:
        pattern: of the beginning of a word, so that "smile", "smiles" and "smiling" are one entry.
        parts: they speak of.
        helpers: further parts whose codes help these to change.
    """

    pattern: str
    parts: tuple[str, ...]
    helpers: tuple[str, ...] = ()


# The first entry that fits a word decides; all words of a sentence count. Hair comes by two entries.
_BALD = _Entry(r"bald|hairless", ("hair", "skin"))
_HAIR = _Entry(
    r"hair|blond|brunet|ginger|redhead|curl|wavy|bangs?$|fringe|afro|ponytail|braid|bob$|mohawk|dreadlock|"
    r"auburn|locks$|pixie",
    ("hair",),
)
# The paper found that the look of the eyes follows when skin and hair may change, more than when the eyes may; together
# they do more than either, and hair and skin themselves are held (measured: hair changes by 0.2 ΔE instead of 14.6).
_EYES = _Entry(r"eyes?$|eyed|iris(es)?$|gaz(e|es|ing)$", ("eyes",), helpers=("skin", "hair"))
_ENTRIES: tuple[_Entry, ...] = (
    _Entry(r"(eye|sun)?glass(es)?$|spectacle|eyeglass|goggle|monocle", ("eyeglass",)),
    _Entry(r"eyebrow|brows?$|unibrow|browed", ("eyebrows",)),
    _Entry(r"eyeshadow|mascara|eyeliner|eyelash|lash(es)?$", ("eyes", "skin")),
    _EYES,
    _Entry(r"earrings?$|jewel", ("earring",)),
    _Entry(r"ears?$|eared", ("ears",)),
    _Entry(r"hats?$|caps?$|beanie|helmet|crown|hood(s|ed)?$|turban|headscarf|bonnet", ("hat",)),
    _Entry(r"beard|moustache|mustache|goatee|stubble|unshave|shaved?n?$|shaven|sideburn", ("skin", "mouth")),
    _BALD,
    _HAIR,
    _Entry(r"lipstick|lips?$|mouth|teeth|tooth|tongue", ("mouth",)),
    _Entry(
        r"smil|laugh|grin(s|ned|ning)?$|happ(y|i)|cheer|joy|frown|sad(ly|der|ness)?$|angr(y|ily)|anger|pout|surpris|"
        r"scream|serious",
        ("mouth", "skin"),
    ),
    _Entry(r"nose|nostril", ("nose",)),
    _Entry(
        r"chins?$|jaw|cheek|forehead|dimple|wrinkl|freckle|skin(s|ned)?$|tan(ned)?$|pale|complexion|blush|mole$|scar$",
        ("skin",),
    ),
    _Entry(r"make-?up|cosmetic|foundation|rouge", ("skin", "mouth", "eyes")),
    _Entry(r"neck(lace)?$|collar", ("neck", "cloth")),
    _Entry(r"cloth|shirt|dress|suits?$|ties?$|jacket|coat|sweater|scarf|uniform|blouse|hoodie", ("cloth",)),
    _Entry(r"background|backdrop|wall$|sky$|outdoor|indoor|beach|forest|studios?$", ("background",)),
    _Entry(
        r"feminine|masculine|"
        r"old(er)?$|young(er)?$|aged?$|elder|child|kid$|baby|teen|asian|african|european|indian|latin",
        (*_FACE, "hair"),
    ),
)
# A sentence about hair that says only how it is cut leaves its colour alone, and the other way round.
_CUT = r"long|short|bald|hairless|bangs?$|fringe|shoulder|length|receding"
_COLOUR = (
    r"black|white|gr[ae]y|silver|blond|brown|brunet|chestnut|gold|fair|dark|light|red|ginger|auburn|copper|orange|"
    r"pink|blue|green|purple|violet|yellow|dyed"
)
# Size is a matter of the eyes' own codes.
_SIZE = r"big|large|huge|giant|enormous|small|tiny|little|wide|narrow"


def read_subject(prompt: str, known: Callable[[str], bool] = lambda part: True) -> Subject:
    """What a sentence is about.

    Args:
        prompt: a sentence.
        known: whether the model has a part.
    """
    words = re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)?", prompt.lower())
    pieces = {piece for word in words for piece in (word, *word.split("-"))}
    found = {entry for entry in map(_first, pieces) if entry is not None}
    # "A woman with red hair" is about the hair; "a woman", and what no pattern knows, is about the whole face.
    shown = {part for entry in found for part in entry.parts} or {*_FACE, "hair"}
    only_size = _any(_SIZE, pieces) and not _any(_COLOUR, pieces)
    helpers = set() if only_size else {part for entry in found for part in entry.helpers}
    layers = "all"
    if found and found <= {_HAIR, _BALD}:
        cut, colour = _any(_CUT, pieces), _any(_COLOUR, pieces)
        layers = "all" if cut == colour else "shape" if cut else "texture"
    return Subject(_ordered(shown | helpers, known), _ordered(shown, known), layers)


def subject_of(prompt: str, scheme: PartScheme) -> Subject:
    """What a sentence is about, in parts of a scheme; the whole face where it speaks of none of them."""
    subject, others = read_subject(prompt, scheme.names.__contains__), scheme.names[1:]
    return subject if subject.parts else Subject(others, others)


def _first(piece: str) -> _Entry | None:
    return next((entry for entry in _ENTRIES if re.match(entry.pattern, piece)), None)


def _any(pattern: str, pieces: Iterable[str]) -> bool:
    return any(re.match(pattern, piece) for piece in pieces)


def _ordered(parts: set[str], known: Callable[[str], bool] = lambda part: True) -> tuple[str, ...]:
    return tuple(part for part in FACE_PARTS.names if part in parts and known(part))
