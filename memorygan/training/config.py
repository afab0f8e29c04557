"""Hyper-parameters of a training run, and the recipes as tables of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from memorygan.config import get_preset

RECIPES = ("memory-first", "projected", "paper")
PRECISIONS = ("auto", "bf16", "float32")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything a run is decided by; written beside every checkpoint.

    Lengths are counted in images, whatever the batch size.

    Attributes:
        recipe: ``memory-first`` (fill, query, real), ``projected`` (the same, judged by projected features, see
            :mod:`memorygan.training.projected`) or ``paper`` (adversarial from scratch, DESIGN of the paper).
        preset: named generator and discriminator sizes.
        batch: images per process and backward pass.
        accumulate: backward passes per optimiser step.
        seed: decides every random number of the run.
        precision: ``bf16`` activations with float32 parameters, ``float32``, or ``auto``, the faster of the
            two on the device.
        flip: mirror half of the images.
        dyed: share of the faces whose hair gets another natural colour, and of those whose clothes get another one, see
            :mod:`memorygan.training.dye`.
        fill_images, colour_images, query_steps, real_images: length of the first stages of ``memory-first``; the second
            dyes the generator's own faces and is for runs that start from sharp networks.
        correct_images: length of the stage that trains the residual encoder alone.
        plan_steps: steps of the very last stage, in which the controller learns to draw what faces are; 0 leaves it as
            it is. Networks that train on after it want a new stage ``query`` first.
        looks: how often the residual encoder corrects the codes of a photo.
        finest_only: the render net's last block alone learns (fill and real), so that codes, encoder, sliders and the
            picture at half the size stay what they are; for a run that has grown.
        paper_images: length of the ``paper`` recipe; the paper's 150,000 steps of 32.
        *_lr, beta1, beta2: Adam; reduced to ``lr_floor`` of itself over the last third of the stages fill and correct.
        ema_half_life: images after which an old weight counts half in the averaged generator.
        pixel, pooled, gradient, fine_mask, coarse_mask: weights of the reconstruction terms.
        perceptual: weight of the difference in image features (EfficientNet-Lite0), which sees strands, lashes and
            teeth where pixels are averaged; needs the extra ``train``.
        identity: weight of 1 − cosine between what a recogniser of people says of a reconstruction and of its photo.
        teacher: that recogniser's weights, a MobileFaceNet in safetensors.
        restyle: weight of the mean square of what the residual encoder adds to the styles that codes write.
        tint: weight of the difference in hue between a part and its reconstruction, which the other terms learn late.
        consistency: weight of L_mask while filling; consistency_real in the adversarial stages.
        kept: weight of what has to stay while colours are learned: masks, and codes of what is not dyed.
        kl: weight of the KL divergence per query code to a unit Gaussian while filling.
        kl_controller: the same to the controller's own Gaussians in the real stage.
        critic_images: images at the start of the real stage for which only the critic learns; for runs that start from
            sharp networks with a fresh critic.
        adversarial, feature, reconstruction: weights of the real stage.
        parsing: weight of the cross-entropy of a sample's mask against what the bundled parser finds in its image (real
            stage); without it the masks of samples fall behind their pictures.
        swapped: share of the real stage's samples that are not all new: a photo's face with one part from a sample.
        locality: weight of the change that such a swap makes outside the part (mean over all samples, the new ones 0).
        preview: weight of the difference between the picture at half size, where the render net can stop, and the
            reduced picture (real stage, every fourth step); without it half-size pictures lose their eyes while the
            critic only sees full ones.
        r1_image, r1_mask, r1_interval: gradient penalty, halved, every r1_interval steps.
        path_length, path_interval, path_shrink: path length regularisation (paper recipe).
        style_mixing: chance that a face is mixed from two samples (paper recipe).
        augment: ``ada`` adapts the strength to augment_target, ``none`` switches it off.
        augment_target: wanted mean sign of the discriminator on real images.
        augment_images: images over which the strength may rise from 0 to 1.
        temperature: scale of the controller's noise when sheets and metrics are made.

    Raises:
        ValueError: for an impossible value, with the remedy.
    """

    recipe: str = "memory-first"
    preset: str = "faces-64"
    batch: int = 16
    accumulate: int = 1
    seed: int = 0
    precision: str = "auto"
    flip: bool = True
    dyed: float = 0.0
    fill_images: int = 160_000
    colour_images: int = 0
    query_steps: int = 1500
    real_images: int = 100_000
    correct_images: int = 20_000
    plan_steps: int = 0
    looks: int = 2
    finest_only: bool = False
    paper_images: int = 4_800_000
    critic_images: int = 0
    generator_lr: float = 2e-3
    controller_lr: float = 1e-4
    query_lr: float = 1e-3
    query_batch: int = 256
    discriminator_lr: float = 2e-3
    real_generator_lr: float = 1e-3
    lr_floor: float = 0.2
    beta1: float = 0.5
    beta2: float = 0.99
    ema_half_life: int = 10_000
    pixel: float = 1.0
    pooled: float = 1.0
    gradient: float = 5.0
    perceptual: float = 0.0
    identity: float = 0.0
    teacher: str = ""
    restyle: float = 0.05
    tint: float = 0.0
    fine_mask: float = 1.0
    coarse_mask: float = 0.5
    consistency: float = 1.0
    consistency_real: float = 20.0
    kept: float = 10.0
    kl: float = 1e-3
    kl_controller: float = 1e-3
    adversarial: float = 0.5
    feature: float = 2.0
    reconstruction: float = 4.0
    parsing: float = 2.0
    swapped: float = 0.5
    locality: float = 8.0
    preview: float = 4.0
    r1_image: float = 10.0
    r1_mask: float = 1000.0
    r1_interval: int = 16
    path_length: float = 0.5
    path_interval: int = 4
    path_shrink: int = 2
    style_mixing: float = 0.3
    augment: str = "ada"
    augment_target: float = 0.6
    augment_images: int = 100_000
    temperature: float = 0.7

    def __post_init__(self) -> None:
        get_preset(self.preset)
        choices = (("recipe", RECIPES), ("precision", PRECISIONS), ("augment", ("ada", "none")))
        for name, allowed in choices:
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(allowed)}")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
                raise ValueError(f"{item.name} is {value}; use 0 or more")
        for name in ("dyed", "swapped", "style_mixing"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share, use 0 to 1")
        for name in (
            "batch",
            "accumulate",
            "query_batch",
            "r1_interval",
            "path_interval",
            "path_shrink",
            "ema_half_life",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; use at least 1")
        others = ("colour_images", "query_steps", "correct_images", "plan_steps")
        if self.finest_only and (not self.reconstructs or any(getattr(self, name) for name in others)):
            raise ValueError(
                f"finest_only leaves codes and encoder as they are; set {', '.join(others)} to 0 and use another "
                "recipe than paper"
            )
        if self.identity and not self.teacher:
            raise ValueError("identity needs a recogniser of people; name its weights as teacher, or set identity to 0")
        if self.reconstructs and self.batch % 2:
            raise ValueError(
                f"batch is {self.batch}; {self.recipe} splits it between photos and samples, use an even number"
            )

    @property
    def reconstructs(self) -> bool:
        """Whether an encoder is trained and faces are rebuilt, rather than made from noise alone."""
        return self.recipe != "paper"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrainingConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: for unknown or impossible fields.
        """
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"unknown training settings {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return cls(**data)


# DESIGN of the paper: section 4 of its implementation details, at its own preset and batch.
_PAPER = TrainingConfig(
    recipe="paper",
    preset="paper-256",
    batch=16,
    accumulate=2,
    generator_lr=2e-3,
    real_generator_lr=2e-3,
    discriminator_lr=2e-3,
    controller_lr=1e-4,
    beta1=0.0,
    beta2=0.99,
    ema_half_life=10_000,
    consistency_real=100.0,
    kl_controller=1e-4,
    r1_image=10.0,
    r1_mask=1000.0,
    adversarial=1.0,
    augment="none",
)


# Frozen features see what L1 averages away, so that the loss of edges may count less; the critics learn at the rate of
# Projected GANs, the generator at that of its equalised layers.
_PROJECTED = TrainingConfig(
    recipe="projected",
    preset="people-128",
    discriminator_lr=2e-4,
    adversarial=1.0,
    feature=0.0,
    gradient=1.0,
    perceptual=1.0,
    kl=3e-4,
    augment="none",
)


def recipe_config(recipe: str, changes: dict[str, Any] | None = None) -> TrainingConfig:
    """The table of a recipe with some values changed.

    Raises:
        ValueError: for an unknown recipe or an impossible value.
    """
    tables = {"memory-first": TrainingConfig(), "projected": _PROJECTED, "paper": _PAPER}
    if recipe not in tables:
        raise ValueError(f"unknown recipe {recipe!r}; use one of {', '.join(tables)}")
    return replace(tables[recipe], **(changes or {}))
