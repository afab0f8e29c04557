"""Makes the pictures of ``docs/editing.md`` with the bundled checkpoint, through the service as any program would.

    python docs/make_editing_pictures.py

Every face in them is the model's own; the "photo" that is rebuilt is a sampled face as well.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it can be started from anywhere

from editing.results import Change, FaceView  # noqa: E402
from editing.service import EditingService  # noqa: E402
from memorygan.analysis.grids import grid  # noqa: E402

FACE, OTHER = 0, 1  # places in the gallery
SIDE = 128
SENTENCES = (
    "a person with blond hair",
    "a person with red hair",
    "a person with black hair",
    "a person with dark skin",
)


def heat(change: Change | None, image: np.ndarray) -> np.ndarray:
    """Black for no change, white for 64 steps of 255 and more."""
    if change is None:
        return np.zeros_like(image)
    shade = np.clip(change.map / 64.0, 0, 1)
    return np.repeat((shade * 255).astype(np.uint8)[..., None], 3, axis=2)


def sliders(service: EditingService, seed: int) -> Image.Image:
    """The strongest slider of each part from −3 to 3, and where the picture changed."""
    face = service.new_face(seed)
    rows, labels = [], []
    for part in ("base", *(part.name for part in service.parts)):
        named = [slider for slider in service.sliders(part) if slider.measured]
        if not named:
            continue
        slider = max(named, key=lambda s: abs(s.strength))
        views = [service.set_sliders(face.session, {slider.id: value}) for value in (-3.0, -1.5, 0.0, 1.5, 3.0)]
        change = service.change(face.session, "source")
        rows.append([*(view.image for view in views), heat(change, face.image)])
        labels.append(f"{part}: {slider.label.lower()}".encode("ascii", "replace").decode().replace("?", "-"))
        service.reset_all(face.session)
    return grid(rows, labels, ["-3", "-1.5", "0", "+1.5", "+3", "change at +3"], f"face {seed}, sliders", SIDE)


def swaps(service: EditingService, seed: int, other_seed: int) -> Image.Image:
    """Parts taken from another face: all layers, shape only, texture only."""
    face, other = service.new_face(seed), service.new_face(other_seed)
    parts = ("hair", "mouth", "nose", "eyes", "skin")
    rows = []
    for group in ("all", "shape", "texture"):
        views: list[FaceView] = []
        for part in parts:
            views.append(service.swap(face.session, other.session, [part], group))
            service.undo(face.session)
        rows.append([face.image, other.image, *(view.image for view in views)])
    footer = f"parts of face {other_seed} in face {seed}"
    return grid(rows, ["all", "shape", "texture"], ["face", "other", *parts], footer, SIDE)


def variants(service: EditingService, seed: int) -> Image.Image:
    """One part drawn anew given the others, six times."""
    face = service.new_face(seed)
    rows = [
        [face.image, *(variant.image for variant in service.variants(face.session, part, 6, seed=1))]
        for part in ("hair", "mouth", "base")
    ]
    return grid(rows, ["hair", "mouth", "base"], ["face", *"123456"], f"face {seed}, drawn anew", SIDE)


def composition(service: EditingService, seed: int) -> Image.Image:
    """Image, mask and pseudo-depth after each part."""
    frames = service.compose(service.new_face(seed).session)
    rows = [[frame.image for frame in frames], [frame.mask for frame in frames], [frame.depth for frame in frames]]
    return grid(rows, ["image", "mask", "depth"], [frame.part for frame in frames], f"face {seed}, part by part", 96)


def sentences(service: EditingService, seeds: Sequence[int], steps: int) -> Image.Image:
    """Before, after and change for some sentences."""
    rows, labels = [], []
    for words in SENTENCES:
        row: list[np.ndarray] = []
        for seed in seeds:
            face = service.new_face(seed)
            *_, last = service.describe(face.session, words, strength="strong", steps=steps, seed=0)
            after = face if last.proposal is None else service.apply_description(face.session, last.proposal)
            row += [face.image, after.image, heat(after.change, face.image)]
        rows.append(row)
        labels.append(words)
    judge = service.guidance().text
    footer = f"{steps} steps, judged by {judge.title if judge else 'nobody'}"
    return grid(rows, labels, ["before", "after", "change"] * len(seeds), footer, SIDE)


def photo(service: EditingService, seed: int, steps: int) -> Image.Image:
    """A picture given as an upload: encoder alone, refined, and with an edit."""
    sampled = service.new_face(seed, 1.0)
    wide = Image.fromarray(sampled.image).resize((384, 384), Image.Resampling.BICUBIC)
    ground = Image.new("RGB", (640, 640), (120, 128, 132))
    ground.paste(wide, (128, 128))
    data = io.BytesIO()
    ground.save(data, "JPEG", quality=92)
    upload = service.open_photo(data.getvalue())
    pictures: list[np.ndarray] = []
    for count in (0, steps):
        *_, last = service.invert(upload.photo, crop=(128, 128, 384), steps=count)
        assert last.view is not None
        pictures += [last.view.image]
    donor = service.new_face(service.gallery()[OTHER])
    pictures.append(service.swap(last.view.session, donor.session, ["hair"]).image)
    columns = ["upload", "encoder", f"{steps} steps", "other hair"]
    return grid([[np.asarray(wide.resize((SIDE, SIDE))), *pictures]], [], columns, f"face {seed} as an upload", SIDE)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "editing")
    parser.add_argument("--steps", type=int, default=150, help="of a sentence and of a photo")
    parser.add_argument("--only", nargs="+", help="names of the pictures to make")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with EditingService.open() as service:
        seeds = service.gallery()
        first, second = seeds[FACE], seeds[OTHER]
        pictures: dict[str, Callable[[], Image.Image]] = {
            "sliders": lambda: sliders(service, first),
            "swaps": lambda: swaps(service, first, second),
            "variants": lambda: variants(service, first),
            "composition": lambda: composition(service, first),
            "sentences": lambda: sentences(service, seeds[:3], options.steps),
            "photo": lambda: photo(service, seeds[2], options.steps),
        }
        for name, make in pictures.items():
            if not options.only or name in options.only:
                make().save(options.out / f"{name}.webp", quality=88, method=6)
                print(options.out / f"{name}.webp", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
