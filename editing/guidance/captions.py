"""Captions composed from measured attributes: many ways to say the same, and the same sentence with one thing changed.

A caption is laid out first (who, which attributes, in which grammatical place) and put into words afterwards. A hard
negative keeps the layout and changes one attribute, so nothing but that attribute can tell the two apart.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from editing.guidance.words import COLOURS, WORDS, split_words

# Attribute → word → phrases. One that ends in "-" stands before the noun ("smiling-": a smiling woman), the others
# after it. What stands after it begins with "with", "without", "wearing" or "who is".
_HAIR = {
    "black": ("black", "dark black"),
    "brown": ("brown", "brunette", "chestnut"),
    "blond": ("blond", "blonde", "golden", "fair", "yellow"),
    "red": ("red", "ginger", "auburn", "copper"),
    "gray": ("gray", "grey", "silver"),
    "white": ("white", "snow white"),
}
_HAIRED = {"brown": ("brunette-",), "blond": ("blond-", "blonde-"), "red": ("ginger-",)}
_EYES = {"blue": ("blue",), "green": ("green",), "brown": ("brown", "dark brown")}
_GRAY = {"gray": ("gray", "grey")}


def _coloured(names: Mapping[str, tuple[str, ...]], *patterns: str) -> dict[str, tuple[str, ...]]:
    return {word: tuple(p.format(name) for p in patterns for name in found) for word, found in names.items()}


_PLAIN = {colour: _GRAY.get(colour, (colour,)) for colour in COLOURS}
PHRASES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "age": {
        "young": ("young-", "young-", "who is young", "with a young face", "youthful-"),
        "middle-aged": ("middle aged-", "who is middle aged", "of middle age"),
        "old": ("old-", "old-", "elderly-", "who is old", "with an old face", "with wrinkles", "aged-"),
    },
    "hair colour": {
        word: phrases + _HAIRED.get(word, ())
        for word, phrases in _coloured(
            _HAIR, "with {} hair", "with {} hair", "{} haired-", "who has {} hair", "whose hair is {}"
        ).items()
    },
    "hair length": {
        "short": ("with short hair", "with a short haircut", "short haired-"),
        "medium": ("with medium length hair", "with shoulder length hair"),
        "long": ("with long hair", "long haired-", "with very long hair"),
    },
    "hair form": {
        "straight": ("with straight hair", "whose hair is straight", "straight haired-"),
        "wavy": ("with wavy hair", "whose hair is wavy", "wavy haired-"),
        "curly": ("with curly hair", "whose hair is curly", "curly haired-", "with curls", "with frizzy hair"),
    },
    "bangs": {
        "none": ("without bangs", "with a bare forehead", "with no bangs", "with an open forehead"),
        "bangs": ("with bangs", "with a fringe", "with hair over the forehead"),
    },
    "bald": {
        "bald": ("bald-", "who is bald", "with a bald head", "without hair", "with no hair", "with a shaved head"),
        "none": ("with hair", "who is not bald", "with a full head of hair"),
    },
    "beard": {
        "none": ("without a beard", "clean shaven-", "with no beard", "who is shaved", "beardless-"),
        "beard": ("with a beard", "bearded-", "with a full beard", "with facial hair", "with stubble", "unshaven-"),
    },
    "moustache": {
        "none": ("without a moustache", "with no mustache", "without a mustache"),
        "moustache": ("with a moustache", "with a mustache", "mustached-"),
    },
    "glasses": {
        "none": ("without glasses", "with no glasses", "without eyeglasses", "wearing no glasses"),
        "glasses": ("wearing glasses", "with glasses", "wearing eyeglasses", "with eyeglasses", "with spectacles"),
        "sunglasses": ("wearing sunglasses", "with sunglasses", "with dark glasses"),
    },
    "hat": {
        "none": ("without a hat", "with no hat", "wearing no hat"),
        "hat": ("wearing a hat", "with a hat", "with a cap", "wearing a cap"),
    },
    "earrings": {
        "none": ("without earrings", "with no earrings", "wearing no earrings"),
        "earrings": ("wearing earrings", "with earrings", "with an earring", "wearing an earring"),
    },
    "smile": {
        "none": ("who is not smiling", "with a serious face", "serious-", "without a smile",
                 "with a neutral expression"),
        "smile": ("who is smiling", "smiling-", "with a smile", "happy-", "who smiles", "with a happy expression",
                  "with a big smile", "laughing-"),
    },
    "teeth": {
        "none": ("with hidden teeth", "without visible teeth", "showing no teeth"),
        "teeth": ("showing teeth", "with visible teeth", "with white teeth", "who shows the teeth"),
    },
    "mouth": {
        "closed": ("with a closed mouth", "with closed lips", "with the mouth closed", "with mouth closed"),
        "open": ("with an open mouth", "with open lips", "with the mouth open", "with mouth open"),
    },
    "mood": {
        "calm": ("with a calm face", "calm-", "with a calm expression", "who is calm"),
        "angry": ("angry-", "who is angry", "with an angry face", "with an angry expression", "who looks angry"),
        "surprised": ("surprised-", "who is surprised", "with a surprised face", "with a surprised expression",
                      "who looks surprised"),
        "sad": ("sad-", "who is sad", "with a sad face", "with a sad expression", "who looks sad"),
    },
    "eyelids": {
        "open": ("with open eyes", "with the eyes open", "with eyes open"),
        "closed": ("with closed eyes", "with the eyes closed", "with eyes closed", "whose eyes are closed"),
    },
    "make-up": {
        "none": ("without makeup", "without make up", "with no makeup", "wearing no makeup"),
        "make-up": ("wearing makeup", "with makeup", "wearing make up", "with make up", "with heavy makeup"),
    },
    "freckles": {
        "none": ("without freckles", "with clear skin", "with no freckles"),
        "freckles": ("with freckles", "with a freckled face", "freckled-", "with freckled skin"),
    },
    "lipstick": {
        "none": ("without lipstick", "with pale lips", "with no lipstick", "with natural lips"),
        "lipstick": ("wearing lipstick", "with red lips", "with lipstick", "with red lipstick", "wearing red lipstick"),
    },
    "brows": {
        "thin": ("with thin eyebrows", "with thin brows", "with narrow eyebrows"),
        "thick": ("with thick eyebrows", "with bushy eyebrows", "with thick brows", "with bushy brows"),
    },
    "nose": {
        "small": ("with a small nose", "with a little nose", "with a tiny nose", "whose nose is small"),
        "big": ("with a big nose", "with a large nose", "with a huge nose", "whose nose is big"),
    },
    "face": {
        "narrow": ("with a narrow face", "with a long face", "with a thin face", "with a slim face"),
        "wide": ("with a wide face", "with a round face", "with a broad face", "with chubby cheeks"),
    },
    "skin": {
        "dark": ("with dark skin", "dark skinned-", "with black skin"),
        "tanned": ("with tanned skin", "with brown skin", "tanned-"),
        "pale": ("with pale skin", "pale-", "with light skin", "with fair skin", "with white skin"),
    },
    "eye colour": _coloured(_EYES, "with {} eyes", "with {} eyes", "{} eyed-", "whose eyes are {}"),
    "eye size": {
        "small": ("with small eyes", "with narrow eyes", "with little eyes"),
        "big": ("with big eyes", "with large eyes", "with wide open eyes"),
    },
    "pose": {
        "left": ("looking to the left", "looking left", "turned to the left", "facing left"),
        "front": ("looking straight ahead", "facing the camera", "seen from the front", "looking at the camera"),
        "right": ("looking to the right", "looking right", "turned to the right", "facing right"),
    },
    "backdrop": {
        "dark": ("in front of a dark background", "in the dark", "on a dark background"),
        "bright": ("in front of a bright background", "on a light background", "on a bright background"),
    },
    "background": _coloured(_PLAIN, "in front of a {} background", "on a {} background", "with a {} background"),
    "clothes": _coloured(_PLAIN, "with {} clothes", "in {} clothes", "wearing a {} shirt", "dressed in {}"),
}  # fmt: skip
NOUNS: Mapping[str | None, tuple[str, ...]] = {
    None: ("person", "person", "face", "human", "portrait"),
    "man": ("man", "man", "man", "guy", "male", "gentleman", "boy", "male face"),
    "woman": ("woman", "woman", "woman", "lady", "girl", "female", "female face"),
}
TEMPLATES = (
    "{}", "{}", "{}", "{}", "{}", "a photo of {}", "a picture of {}", "the face of {}", "a portrait of {}",
    "an image of {}", "a close up of {}", "this is {}", "a photograph of {}", "a headshot of {}", "{} in a photo",
)  # fmt: skip
_LEADS = ("with ", "wearing ")
# Words that carry no attribute and may stand in any prompt.
STOP_WORDS = frozenset(
    ("a", "an", "the", "of", "with", "without", "and", "or", "is", "are", "be", "has", "have", "having", "who", "whose",
     "that", "this", "it", "its", "his", "her", "their", "he", "she", "they", "in", "on", "at", "to", "for", "from",
     "by", "as", "not", "no", "very", "really", "more", "make", "made", "let", "please")
)  # fmt: skip


@dataclass(frozen=True)
class Caption:
    """A laid out caption.

    Attributes:
        mentions: (attribute, word) pairs it claims, without the person.
        person: "man", "woman" or None.
        layout: seed of everything that is free: phrases, noun, template, order.
    """

    mentions: tuple[tuple[str, str], ...]
    person: str | None = None
    layout: int = 0

    @property
    def claims(self) -> dict[str, str]:
        """attribute → word of everything it says, the person included."""
        return dict(self.mentions) | ({"person": self.person} if self.person else {})

    @property
    def text(self) -> str:
        """The sentence."""
        dice = random.Random(self.layout)
        # Every choice takes its number whether it is used or not: changing one attribute moves no other choice.
        noun_at, bare, article = dice.random(), dice.random(), dice.random()
        template = dice.choice(TEMPLATES)
        before: list[str] = []
        after: list[str] = []
        for attribute, word in self.mentions:
            phrase = _pick(PHRASES[attribute][word], dice.random())
            (before if phrase.endswith("-") else after).append(phrase.removesuffix("-"))
        if self.person is None and bare < 0.15 and len(self.mentions) == 1 and after:
            return next((after[0].removeprefix(lead) for lead in _LEADS if after[0].startswith(lead)), after[0])
        words = [*before, _pick(NOUNS[self.person], noun_at)]
        start = "the" if article < 0.1 else "an" if words[0][0] in "aeiou" else "a"
        tail = ", ".join(after[:-1]) + (" and " if len(after) > 1 else "") + after[-1] if after else ""
        for lead in _LEADS:  # "with red hair and with a hat" is said shorter
            tail = tail.replace(f"and {lead}", "and ") if tail.count(lead) > 1 and tail.startswith(lead) else tail
        return template.format(" ".join([start, *words, tail]).strip())

    def changed(self, attribute: str, word: str) -> Caption:
        """A hard negative: the same caption but for one attribute that it mentions."""
        if attribute == "person":
            return replace(self, person=word)
        return replace(self, mentions=tuple((a, word if a == attribute else w) for a, w in self.mentions))


def _pick(options: tuple[str, ...], at: float) -> str:
    return options[int(at * len(options))]


def compose(words: Mapping[str, str | None], dice: random.Random, count: int = 2) -> Caption:
    """A caption of one face.

    Args:
        words: attribute → word, see :func:`editing.guidance.words.describe`.
        dice: source of all randomness.
        count: attributes to mention beside the person; fewer if fewer are known.
    """
    # That something is missing is rarely worth saying.
    known = {a: 0.25 if w in ("none", "front") else 1.0 for a, w in words.items() if w is not None and a != "person"}
    chosen: list[str] = []
    while known and len(chosen) < count:
        (attribute,) = dice.choices(list(known), list(known.values()))
        chosen.append(attribute)
        del known[attribute]
    person = words.get("person") if dice.random() < 0.75 else None
    return Caption(tuple((a, str(words[a])) for a in chosen), person, dice.getrandbits(48))


def hard_negative(caption: Caption, dice: random.Random) -> tuple[Caption, str]:
    """The same caption, which claims something, with one attribute changed to another word, and that attribute."""
    claims = caption.claims
    attribute = dice.choice(sorted(claims))
    word = dice.choice([w for w in WORDS[attribute] if w != claims[attribute]])
    return caption.changed(attribute, word), attribute


def alternatives(attribute: str, dice: random.Random, person: str | None = None) -> list[Caption]:
    """One caption per word of an attribute, alike in everything else."""
    layout = dice.getrandbits(48)
    if attribute == "person":
        return [Caption((), word, layout) for word in WORDS[attribute]]
    return [Caption(((attribute, word),), person, layout) for word in WORDS[attribute]]


def _vocabulary() -> frozenset[str]:
    phrases = [phrase for words in PHRASES.values() for options in words.values() for phrase in options]
    nouns = [noun for options in NOUNS.values() for noun in options]
    said = (word for text in [*phrases, *nouns, *(t.format("") for t in TEMPLATES)] for word in split_words(text))
    return frozenset(said) | STOP_WORDS


VOCABULARY: frozenset[str] = _vocabulary()


def unknown_words(prompt: str) -> tuple[str, ...]:
    """The words of a prompt that the bundled judge was never taught, in order, each once."""
    return tuple(dict.fromkeys(word for word in split_words(prompt) if word not in VOCABULARY))


# What the bundled judge was taught and tells apart hardly better than by guessing, or was not shown often enough to
# say, as its card lists it; measured by :func:`editing.guidance.training.text_eval.weak_words`.
WEAK: Mapping[str, tuple[str, ...]] = {
    "hair form": ("wavy",),
    "mood": ("surprised", "sad"),
    "eyelids": ("closed",),
    "freckles": ("none", "freckles"),
    "eye colour": ("green",),
    "clothes": ("pink", "yellow"),
}
# Sizes are read off the masks: the judge looks at 96 pixels, and a bigger nose is a matter of two of them.
SIZES: Mapping[tuple[str, str], tuple[str, int]] = {
    ("nose", "big"): ("nose", 1),
    ("nose", "small"): ("nose", -1),
    ("eye size", "big"): ("eyes", 1),
    ("eye size", "small"): ("eyes", -1),
    ("brows", "thick"): ("eyebrows", 1),
    ("brows", "thin"): ("eyebrows", -1),
}
# Sliders that do what a word says, and how far: the judge hardly sees some of it, or not before there is much of it.
LEADS: Mapping[tuple[str, str], tuple[tuple[str, float], ...]] = {
    ("age", "young"): (("base.age", -2.0),),
    ("age", "old"): (("base.age", 2.0),),
    ("hair colour", "black"): (("hair.lightness", -2.0),),
    ("hair colour", "blond"): (("hair.lightness", 2.0), ("hair.redness", 1.5)),
    ("hair colour", "red"): (("hair.redness", 4.0),),
    ("hair colour", "gray"): (("hair.gray", 2.0),),
    ("hair colour", "white"): (("hair.gray", 3.0),),
    ("hair length", "short"): (("hair.length", -3.0),),
    ("hair length", "long"): (("hair.length", 3.0),),
    ("bangs", "none"): (("hair.bangs", -3.0),),
    ("bangs", "bangs"): (("hair.bangs", 4.0),),
    ("beard", "none"): (("skin.beard", -2.0),),
    ("beard", "beard"): (("skin.beard", 4.0),),
    ("smile", "none"): (("mouth.smile", -2.0),),
    ("smile", "smile"): (("mouth.smile", 2.0),),
    ("mouth", "closed"): (("mouth.openness", -2.0),),
    ("mouth", "open"): (("mouth.openness", 2.0),),
    ("lipstick", "lipstick"): (("mouth.redness", 3.0),),
}
# Words with which a phrase begins, and which a prompt may say otherwise.
_OPENINGS = frozenset(("with", "wearing", "in", "who", "is", "has", "a", "an", "the"))


def _bare(text: str) -> tuple[str, ...]:
    return tuple(word for word in split_words(text) if word not in ("a", "an", "the"))


def _said() -> dict[tuple[str, ...], tuple[str, str]]:
    """The words of a phrase, without its opening → (attribute, word)."""
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for attribute, options in PHRASES.items():
        for word, phrases in options.items():
            for words in map(_bare, phrases):
                while words and words[0] in _OPENINGS:
                    words = words[1:]
                found.setdefault(words, (attribute, word))
    return found


_SAID = _said()
_LONGEST = max(map(len, _SAID))


def read_claims(prompt: str) -> dict[str, tuple[str, str]]:
    """What a prompt claims, as far as it is put in phrases of captions: attribute → (word, the phrase), in order."""
    words, found, start = _bare(prompt), dict[str, tuple[str, str]](), 0
    while start < len(words):
        # The longest phrase counts: "without glasses" says nothing of glasses.
        ends = (start + length for length in range(min(_LONGEST, len(words) - start), 0, -1))
        end = next((end for end in ends if words[start:end] in _SAID), None)
        if end is None:
            start += 1
            continue
        attribute, word = _SAID[words[start:end]]
        found.setdefault(attribute, (word, " ".join(words[start:end])))
        start = end
    return found


def _mentions(prompt: str) -> tuple[tuple[str, str], ...]:
    """(attribute, word) for what a prompt claims, in order."""
    return tuple((attribute, word) for attribute, (word, _) in read_claims(prompt).items())


def weak_phrases(prompt: str) -> tuple[str, ...]:
    """What a prompt says that the bundled judge was taught and yet hardly tells apart, in order; not its sizes."""
    return tuple(
        phrase for name, (word, phrase) in read_claims(prompt).items()
        if word in WEAK.get(name, ()) and (name, word) not in SIZES
    )  # fmt: skip


def sizes(prompt: str) -> tuple[tuple[str, int], ...]:
    """(part, sign) for what a prompt calls big or thick (1), small or thin (−1), in order."""
    return tuple(SIZES[claim] for claim in _mentions(prompt) if claim in SIZES)


def leads(prompt: str) -> tuple[tuple[str, float], ...]:
    """(slider, value) for what a prompt claims and a slider does, in order."""
    return tuple(lead for claim in _mentions(prompt) for lead in LEADS.get(claim, ()))


_PEOPLE = {noun: person for person in ("man", "woman") for noun in NOUNS[person] if " " not in noun}


def rivals(prompt: str) -> tuple[str, ...]:
    """Captions that say the same but for one thing: what a prompt claims, put into the other words of its attribute.

    The nearest to "a woman with red hair" are "a woman with black hair", "a woman with brown hair" and so on. Empty for
    a prompt that claims nothing.
    """
    person = next((_PEOPLE[word] for word in split_words(prompt) if word in _PEOPLE), None)
    mentions = _mentions(prompt)
    caption = Caption(mentions, person)
    # Who it is, is asked for only where nothing else is.
    asked = mentions or tuple(caption.claims.items())
    return tuple(
        caption.changed(attribute, other).text for attribute, word in asked for other in WORDS[attribute]
        if other != word
    )  # fmt: skip
