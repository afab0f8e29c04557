"""Makes the pictures of ``docs/editing.md`` with the bundled checkpoint, through the service as any program would.

    python docs/make_editing_pictures.py

Every face in them is the model's own; the "photo" that is rebuilt is a sampled face as well. Nothing is picked by hand:
faces are the first of the gallery, and every sentence is shown as it comes out.

    python docs/make_editing_pictures.py --only edits_in_photos --faces FOLDER

shows edits in pictures that another network made, taken evenly from those of the folder that no training has seen.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it can be started from anywhere

from editing.results import Change, FaceView  # noqa: E402
from editing.service import EditingService  # noqa: E402
from editing.studies.photo import EDITS  # noqa: E402
from memorygan.analysis.grids import grid  # noqa: E402

FACE, OTHER = 0, 1  # places in the gallery
SIDE = 128
IN_PHOTOS = 5
# Colours, which are easy, and then what is not: an expression, a shape, a small part, something that is not there yet.
SENTENCES = (
    "a person with blond hair",
    "a person with red hair",
    "a person with black hair",
    "a person with dark skin",
    "a smiling person",
    "a person with long hair",
    "a person with blue eyes",
    "a person with a big nose",
    "a person with thick eyebrows",
    "a person wearing glasses",
)
IN_WORDS = (
    "a person with glasses",
    "a person with sunglasses",
    "a person with a beard",
    "an old person",
    "a person with red hair",
    "a person with gray hair",
    "a person with long hair",
    "a smiling person",
)
STRENGTHS = ("subtle", "normal", "strong")
AMOUNTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def heat(change: Change | None, image: np.ndarray) -> np.ndarray:
    """Black for no change, white for 64 steps of 255 and more."""
    return shaded(np.zeros(image.shape[:2]) if change is None else change.map)


def shaded(difference: np.ndarray) -> np.ndarray:
    """(S, S) mean |Δ| in 8-bit steps → (S, S, 3) uint8; black for none, white for 64 steps and more."""
    shade = np.clip(difference / 64.0, 0, 1)
    return np.repeat((shade * 255).astype(np.uint8)[..., None], 3, axis=2)


def sliders(service: EditingService, seed: int) -> Image.Image:
    """The strongest slider of each part from −3 to 3 (of what is worn: off and on), and where the picture changed."""
    face = service.new_face(seed)
    rows, labels = [], []
    for part in ("base", *(part.name for part in service.parts)):
        named = [slider for slider in service.sliders(part) if slider.measured]
        if not named:
            continue
        slider = max(named, key=lambda s: (s.id.endswith(".worn"), abs(s.strength)))
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


def blends(service: EditingService, seed: int, other_seed: int) -> Image.Image:
    """From one face to another in five steps: all of it, the hair alone, mouth and nose alone."""
    face, other = service.new_face(seed), service.new_face(other_seed)
    choices: dict[str, list[str] | None] = {"all parts": None, "hair": ["hair"], "mouth, nose": ["mouth", "nose"]}
    rows = []
    for parts in choices.values():
        row: list[np.ndarray] = []
        for amount in AMOUNTS:
            view = service.blend(face.session, other.session, amount, parts)
            row.append(view.image)
            service.reset_all(face.session)
        rows.append([*row, other.image])
    columns = [*(f"{amount:.0%}" for amount in AMOUNTS), "other"]
    return grid(rows, list(choices), columns, f"from face {seed} towards face {other_seed}", SIDE)


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
    """Before, after and change for every sentence at the default strength."""
    rows = []
    for words in SENTENCES:
        row: list[np.ndarray] = []
        for seed in seeds:
            face = service.new_face(seed)
            after = described(service, face, words, "normal", steps)
            row += [face.image, after.image, heat(after.change, face.image)]
        rows.append(row)
    columns = ["before", "after", "change"] * len(seeds)
    return grid(rows, SENTENCES, columns, f"strength normal, {judged(service, steps)}", SIDE)


def strengths(service: EditingService, seed: int, steps: int) -> Image.Image:
    """An easy and a difficult sentence at every strength, with the change."""
    rows, chosen = [], (SENTENCES[1], SENTENCES[5])
    for words in chosen:
        face = service.new_face(seed)
        row = [face.image]
        for strength in STRENGTHS:
            after = described(service, service.new_face(seed), words, strength, steps)
            row += [after.image, heat(after.change, face.image)]
        rows.append(row)
    columns = ["before", *(label for strength in STRENGTHS for label in (strength, "change"))]
    return grid(rows, chosen, columns, f"face {seed}, {judged(service, steps)}", SIDE)


def described(service: EditingService, face: FaceView, words: str, strength: str, steps: int) -> FaceView:
    """The face after an edit by a sentence, or as it was where nothing better was found."""
    *_, last = service.describe(face.session, words, strength=strength, steps=steps, seed=0)
    return face if last.proposal is None else service.apply_description(face.session, last.proposal)


def judged(service: EditingService, steps: int) -> str:
    judge = service.guidance().text
    return f"{steps} steps, judged by {judge.title if judge else 'nobody'}"


def photo(service: EditingService, seed: int, steps: int) -> Image.Image:
    """A picture given as an upload: found, rebuilt by the encoder alone, refined, tuned, and then edited.

    The second row shows how each differs from the found face.
    """
    sampled = service.new_face(seed, 1.0)
    wide = Image.fromarray(sampled.image).resize((384, 384), Image.Resampling.BICUBIC)
    ground = Image.new("RGB", (640, 640), (120, 128, 132))
    ground.paste(wide, (128, 128))
    data = io.BytesIO()
    ground.save(data, "JPEG", quality=92)
    upload = service.open_photo(data.getvalue())
    how = "found by the detector" if upload.faces else "framed by hand"
    crop = None if upload.faces else (128.0, 128.0, 384.0)
    target = service.framed(upload.photo, crop=crop)
    pictures: list[np.ndarray] = [np.asarray(ground.resize((service.size, service.size))), target]
    below: list[np.ndarray | None] = [None, None]
    errors = []
    for count, tune_steps in ((0, 0), (steps, 0), (steps, steps)):
        *_, last = service.invert(upload.photo, crop=crop, steps=count, tune_steps=tune_steps)
        assert last.view is not None
        pictures.append(last.image)
        difference = np.abs(last.image.astype(np.float32) - target.astype(np.float32)).mean(axis=2)
        below.append(shaded(difference))
        errors.append(f"{difference.mean():.1f}")
    donor = service.new_face(service.gallery()[OTHER])
    edited = service.swap(last.view.session, donor.session, ["hair"])
    rows = [[*pictures, edited.image], [*below, None]]
    columns = ["upload", "face", "encoder", f"{steps} steps", f"+ {steps} tuning", "other hair"]
    footer = f"face {seed} as an upload, {how}; mean error in steps of 255: {', '.join(errors)}"
    return grid(rows, ["picture", "error"], columns, footer, SIDE)


def uploads(service: EditingService, folder: Path, steps: int) -> Iterator[FaceView]:
    """Faces that another network made, given as uploads and rebuilt."""
    files = sorted(file for file in folder.glob("*.webp") if file.stem.isdigit() and int(file.stem) % 20 == 7)
    for place in np.linspace(0, len(files) - 1, IN_PHOTOS):
        with Image.open(files[int(place)]) as face:
            large = face.convert("RGB").resize((512, 512), Image.Resampling.BICUBIC)
        data = io.BytesIO()
        large.save(data, "PNG")
        *_, last = service.invert(service.open_photo(data.getvalue()).photo, crop=(0, 0, 512), steps=steps)
        assert last.view is not None
        yield last.view


def edits_in_photos(service: EditingService, folder: Path, steps: int) -> Image.Image:
    """Edits in :func:`uploads`."""
    rows: list[list[np.ndarray]] = []
    for view in uploads(service, folder, steps):
        row = [view.image, service.model_view(view.session).image]
        for values in EDITS.values():
            row.append(service.set_sliders(view.session, values).image)
            service.reset_all(view.session)
        rows.append([small(one) for one in row])
    footer = f"generated faces as uploads; {steps} steps; all sliders as far as in python -m editing.studies.photo"
    return grid(rows, column_labels=["upload", "model", *EDITS], footer=footer, side=160)


def sentences_in_photos(service: EditingService, folder: Path, steps: int) -> Image.Image:
    """Edits by sentences in :func:`uploads`."""
    rows: list[list[np.ndarray]] = []
    for view in uploads(service, folder, steps):
        row = [view.image]
        for words in IN_WORDS:
            row.append(described(service, view, words, "normal", steps).image)
            service.reset_all(view.session)
        rows.append([small(one) for one in row])
    labels = [words.removeprefix("a person ") for words in IN_WORDS]
    footer = f"generated faces as uploads; {judged(service, steps)}"
    return grid(rows, column_labels=["upload", *labels], footer=footer, side=160)


def small(image: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 → (160, 160, 3)."""
    return np.asarray(Image.fromarray(image).resize((160, 160), Image.Resampling.LANCZOS))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "editing")
    parser.add_argument("--steps", type=int, default=150, help="of a sentence and of a photo")
    parser.add_argument("--only", nargs="+", help="names of the pictures to make")
    parser.add_argument("--faces", type=Path, help="folder of faces of another network, for what is edited in photos")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with EditingService.open() as service:
        seeds = service.gallery()
        first, second = seeds[FACE], seeds[OTHER]
        pictures: dict[str, Callable[[], Image.Image]] = {
            "sliders": lambda: sliders(service, first),
            "swaps": lambda: swaps(service, first, second),
            "blends": lambda: blends(service, first, second),
            "variants": lambda: variants(service, first),
            "composition": lambda: composition(service, first),
            "sentences": lambda: sentences(service, seeds[:2], options.steps),
            "strengths": lambda: strengths(service, first, options.steps),
            "photo": lambda: photo(service, seeds[2], options.steps),
        }
        if options.faces is not None:
            pictures["edits_in_photos"] = lambda: edits_in_photos(service, options.faces, options.steps)
            pictures["sentences_in_photos"] = lambda: sentences_in_photos(service, options.faces, options.steps)
        for name, make in pictures.items():
            if not options.only or name in options.only:
                make().save(options.out / f"{name}.webp", quality=88, method=6)
                print(options.out / f"{name}.webp", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
