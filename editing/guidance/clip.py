"""Judges of picture and text: any CLIP that open_clip can load, with gradients to the picture."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing.guidance.splitting import split_words
from memorygan.finite import check_finite

_INITIALISED = "No pretrained weights loaded"


class ImageTextJudge:
    """A CLIP behind two functions: pictures and sentences → unit vectors that are near if they fit.

    Args:
        name, title: short name, and what a person calls it.
        model: an open_clip model; taken over without gradients for its weights.
        tokenizer: sentences → (N, context) token ids; cuts what is longer.
        context: tokens it reads, two of them for start and end.
        image_size: side in pixels of the pictures it looks at.
        mean, std: of the pixels, per channel, that the model expects removed.
        unknown: sentence → its words that the judge was never taught; None for a judge of open vocabulary.
        fillers: words that say nothing by themselves.
        weak: sentence → what it says that the judge was taught and hardly tells apart; None for nothing.
        rivals: sentence → sentences that say something else of the same; None for none.
        sizes: sentence → (part, 1 or −1) for what it calls big or small; None for nothing.
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
        unknown: Callable[[str], tuple[str, ...]] | None = None,
        fillers: frozenset[str] = frozenset(),
        weak: Callable[[str], tuple[str, ...]] | None = None,
        rivals: Callable[[str], tuple[str, ...]] | None = None,
        sizes: Callable[[str], tuple[tuple[str, int], ...]] | None = None,
    ) -> None:
        self.name, self.title, self.context, self.image_size = name, title, context, image_size
        self._model = model.eval().requires_grad_(False)
        self._tokenizer, self._unknown, self._fillers = tokenizer, unknown, fillers
        self._weak, self._rivals, self._sizes = weak, rivals, sizes
        self._mean, self._std = (torch.tensor(list(values)).reshape(1, 3, 1, 1) for values in (mean, std))

    @property
    def closed(self) -> bool:
        """Whether it knows only the words it was taught."""
        return self._unknown is not None

    def to(self, device: torch.device | str) -> ImageTextJudge:
        """Moves it, in place."""
        self._model.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Words of a sentence that it was never taught; empty for a judge of open vocabulary."""
        return () if self._unknown is None else self._unknown(prompt)

    def weak_phrases(self, prompt: str) -> tuple[str, ...]:
        """What a sentence says that the judge was taught and yet hardly tells apart."""
        return () if self._weak is None else self._weak(prompt)

    def rivals(self, prompt: str) -> tuple[str, ...]:
        """Sentences that say something else of what a sentence speaks of: "black hair", … for "red hair"."""
        return () if self._rivals is None else self._rivals(prompt)

    def sizes(self, prompt: str) -> tuple[tuple[str, int], ...]:
        """Parts that a sentence calls big (1) or small (−1), which it reads off the masks and not off the picture."""
        return () if self._sizes is None else self._sizes(prompt)

    def understands(self, prompt: str) -> bool:
        """Whether anything in the sentence means something to it."""
        if self._unknown is None:
            return self.length(prompt) > 0
        return bool(set(split_words(prompt)) - set(self._unknown(prompt)) - self._fillers)

    def length(self, prompt: str) -> int:
        """Tokens of a sentence, without start and end."""
        encode = getattr(self._tokenizer, "encode", None)
        return len(prompt.split()) if encode is None else len(encode(prompt))

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """N sentences → (N, E) float32 unit vectors."""
        tokens = self._tokenizer(list(prompts)).to(self._mean.device)
        return F.normalize(self._encode("encode_text", tokens).float(), dim=1)

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [−1, 1] → (B, E) float32 unit vectors; gradients reach the pictures."""
        side = self.image_size
        if images.shape[-2:] != (side, side):
            smaller = side < images.shape[-1]
            images = F.interpolate(images, (side, side), mode="bicubic", align_corners=False, antialias=smaller)
        pixels = (images.clamp(-1.0, 1.0) * 0.5 + 0.5 - self._mean) / self._std
        return F.normalize(self._encode("encode_image", pixels).float(), dim=1)

    def _encode(self, tower: str, inputs: Tensor) -> Tensor:
        encoded: Tensor = getattr(self._model, tower)(inputs)
        return encoded


def build_judge(
    name: str,
    title: str,
    config: str | Path,
    weights: dict[str, Tensor],
    unknown: Callable[[str], tuple[str, ...]] | None = None,
    fillers: frozenset[str] = frozenset(),
    weak: Callable[[str], tuple[str, ...]] | None = None,
    rivals: Callable[[str], tuple[str, ...]] | None = None,
    sizes: Callable[[str], tuple[tuple[str, int], ...]] | None = None,
) -> ImageTextJudge:
    """A judge from an open_clip model and its weights.

    Args:
        name, title, unknown, fillers, weak, rivals, sizes: see :class:`ImageTextJudge`.
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
        unknown,
        fillers,
        weak,
        rivals,
        sizes,
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
