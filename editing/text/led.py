"""Sentences that say what a slider does begin with the slider: the judge need not find the way by itself."""

from __future__ import annotations

from editing.guidance.clip import ImageTextJudge
from editing.sliders.directions import SliderSet
from editing.text.optimize import TextSettings
from memorygan.latents import Latents

_NORMAL = TextSettings.preset().reach


def led(
    source: Latents,
    sliders: SliderSet | None,
    judge: ImageTextJudge,
    prompt: str,
    neutral: str = "",
    settings: TextSettings | None = None,
) -> Latents:
    """The codes that a sentence begins with.

    Args:
        source: (1, K, L, D) codes of the face.
        sliders: of the generator, on the codes' device; None without any.
        judge: that knows which sliders do what the prompt says.
        prompt, neutral: what the face should look like, and what it looks like now or "".
        settings: a strength moves the sliders as far as it lets the codes go, compared with the normal one.
    """
    if sliders is None:
        return source
    already = judge.language.leads(neutral) if neutral else ()
    w, far = source.w.clone(), 1.0 if settings is None else settings.reach / _NORMAL
    for name, value in judge.language.leads(prompt):
        if name in sliders and (name, value) not in already:
            sliders.move(w, name, value * far, source.config)
    return source.with_w(w)
