"""Judges of picture and text: any CLIP that open_clip can load, with gradients to the picture."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing.guidance.words import split_words
from memorygan.finite import check_finite

_INITIALISED = "No pretrained weights loaded"


@dataclass
class Language:
    """What a judge that was taught some words knows of sentences.

    Attributes:
        unknown: sentence → its words that the judge was never taught.
        fillers: words that say nothing by themselves.
        weak: sentence → what it says that the judge was taught and yet hardly tells apart.
        rivals: sentence → sentences that say something else of the same: "black hair", … for "red hair".
        sizes: sentence → (part, 1 or −1) for what it calls big or small, which is read off the masks.
        leads: sentence → (slider, value) of sliders that do what it says.
    """

    unknown: Callable[[str], tuple[str, ...]] = lambda prompt: ()
    fillers: frozenset[str] = frozenset()
    weak: Callable[[str], tuple[str, ...]] = lambda prompt: ()
    rivals: Callable[[str], tuple[str, ...]] = lambda prompt: ()
    sizes: Callable[[str], tuple[tuple[str, int], ...]] = lambda prompt: ()
    leads: Callable[[str], tuple[tuple[str, float], ...]] = lambda prompt: ()


class ImageTextJudge:
    """A CLIP behind two functions: pictures and sentences → unit vectors that are near if they fit.

    Attributes:
        closed: it knows only the words it was taught.

    Args:
        name, title: short name, and what a person calls it.
        model: an open_clip model; taken over without gradients for its weights.
        tokenizer: sentences → (N, context) token ids; cuts what is longer.
        context: tokens it reads, two of them for start and end.
        image_size: side in pixels of the pictures it looks at.
        mean, std: of the pixels, per channel, that the model expects removed.
        language: what it knows of sentences; None for a judge of open vocabulary.
    """

    def __init__(
        self,
        name: str,
        title: str,
        model: nn.Module,
        tokenizer: Callable[[Sequence[str]], Tensor],
        context: int,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        language: Language | None = None,
    ) -> None:
        self.name, self.title, self.context, self.image_size = name, title, context, image_size
        self._model: Any = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self.closed, self.language = language is not None, language or Language()
        self._mean, self._std = (torch.tensor(list(values)).reshape(1, 3, 1, 1) for values in (mean, std))

    def to(self, device: torch.device | str) -> ImageTextJudge:
        """Moves it, in place."""
        self._model.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    def understands(self, prompt: str) -> bool:
        """Whether anything in the sentence means something to it."""
        if not self.closed:
            return self.length(prompt) > 0
        return bool(set(split_words(prompt)) - set(self.language.unknown(prompt)) - self.language.fillers)

    def length(self, prompt: str) -> int:
        """Tokens of a sentence, without start and end."""
        encode = getattr(self._tokenizer, "encode", None)
        return len(prompt.split()) if encode is None else len(encode(prompt))

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """N sentences → (N, E) float32 unit vectors."""
        tokens = self._tokenizer(list(prompts)).to(self._mean.device)
        return F.normalize(self._model.encode_text(tokens).float(), dim=1)

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [−1, 1] → (B, E) float32 unit vectors; gradients reach the pictures."""
        side = self.image_size
        if images.shape[-2:] != (side, side):
            smaller = side < images.shape[-1]
            images = F.interpolate(images, (side, side), mode="bicubic", align_corners=False, antialias=smaller)
        pixels = (images.clamp(-1.0, 1.0) * 0.5 + 0.5 - self._mean) / self._std
        return F.normalize(self._model.encode_image(pixels).float(), dim=1)


def build_judge(
    name: str, title: str, config: str | Path, weights: dict[str, Tensor], language: Language | None = None
) -> ImageTextJudge:
    """A judge from an open_clip model and its weights.

    Args:
        name, title, language: see :class:`ImageTextJudge`.
        config: name of an open_clip model, or the path of a JSON file that describes one.
        weights: its complete state dict; every tensor must fit.

    Raises:
        ValueError: if the weights do not fit, or hold a value that is not finite.
    """
    import open_clip  # takes seconds, and only sentences need it

    model_name = str(config)
    if isinstance(config, Path):
        open_clip.add_model_config(config)
        model_name = config.stem
    # Its initial values are overwritten at once: nobody's random numbers may depend on them, nor need to hear of them.
    with torch.random.fork_rng(devices=[]), _without(_INITIALISED):
        model = open_clip.create_model(model_name, pretrained=None, pretrained_text=False)
    check_finite(weights)
    try:
        model.load_state_dict({key: value.float() for key, value in weights.items()})
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit the model {model_name}") from error
    pixels = cast(dict[str, Any], open_clip.get_model_preprocess_cfg(model))
    size = pixels["size"]
    tokenizer = open_clip.get_tokenizer(model_name)
    text = cast(dict[str, Any], open_clip.get_model_config(model_name))["text_cfg"]
    return ImageTextJudge(
        name,
        title,
        model,
        tokenizer,
        int(text.get("context_length", 77)),
        int(size if isinstance(size, int) else size[0]),
        pixels["mean"],
        pixels["std"],
        language,
    )


@contextmanager
def _without(beginning: str) -> Iterator[None]:
    """Keeps one message of another library out of the log."""

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(beginning)

    logger = logging.getLogger()
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
