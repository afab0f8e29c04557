"""``python -m editing.batch FOLDER --edit recipe.json --out DIR``: the same edits over many photos.

Every photo comes back at its full size and in its format, with the edits done to the face in it and everything else the
same. What is in the output folder already is left alone, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import glob
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from editing.errors import EditingError
from editing.face.embedded import read_recipe
from editing.face.recipe import Recipe
from editing.photo.decode import MAX_BYTES, suffixes
from editing.service import EditingService
from memorygan.checkpoint import write_atomically
from memorygan.command import add_threads, command

_STEPS = 60


@dataclass(frozen=True)
class Outcome:
    """What came of one file.

    Attributes:
        file: its name.
        result: where the edited photo was written, or None.
        problem: why it was not, in one sentence; "" if it was, or was there already.
    """

    file: str
    result: Path | None
    problem: str = ""


def edit_photo(
    service: EditingService, data: bytes, recipe: Recipe, steps: int = _STEPS, every: bool = False
) -> tuple[bytes, str]:
    """One photo with the edits of a recipe.

    Args:
        service: does it.
        data: the photo's file.
        recipe: whose edits; where they were made does not matter.
        steps: of the reconstruction; colours need few.
        every: edit all faces that are found, not only the first.

    Returns:
        The edited photo's file, and its suffix without a dot.

    Raises:
        EditingError: if it cannot be done.
    """
    photo = service.open_photo(data)
    sessions: list[str] = []
    try:
        if not photo.faces:
            raise EditingError("no face was found")
        for face in photo.faces if every else photo.faces[:1]:
            *_, last = service.invert(photo.photo, face.index, steps=steps)
            if last.view is None:
                raise EditingError("the face could not be rebuilt; try again")
            sessions.append(last.view.session)
            service.apply_edits(last.view.session, recipe)
        saved = service.export_photo(sessions[-1])
        return saved.data, saved.suffix
    finally:
        for session in sessions:
            service.close_session(session)
        service.close_photo(photo.photo)


def run(
    service: EditingService,
    folder: Path,
    recipe: Recipe,
    out: Path,
    steps: int = _STEPS,
    every: bool = False,
) -> Generator[Outcome, None, None]:
    """All photos of a folder, in the order of their names; yields after each.

    Args:
        service: does it.
        folder: of photos; folders in it are not looked into.
        recipe: whose edits.
        out: where they go, under the names they have; made if it is not there.
        steps, every: see :func:`edit_photo`.

    Raises:
        EditingError: if the recipe needs another model.
        OSError: if a folder cannot be read or written.
    """
    recipe.require(service.checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    for file in photos_of(folder):
        done = next(iter(sorted(out.glob(f"{glob.escape(file.name)}.*"))), None)
        if done is not None:
            yield Outcome(file.name, done)
            continue
        try:
            if file.stat().st_size > MAX_BYTES:
                raise EditingError(f"the file is larger than {MAX_BYTES / 2**20:g} MiB")
            data, suffix = edit_photo(service, file.read_bytes(), recipe, steps, every)
        except EditingError as error:
            yield Outcome(file.name, None, str(error))
            continue
        # The name keeps the whole old one, so that "a.png" and "a.jpg" do not meet.
        result = out / f"{file.name}.{suffix}"
        write_atomically(result, data)
        yield Outcome(file.name, result)


def photos_of(folder: Path) -> list[Path]:
    """Files that look like photos, by name.

    Raises:
        OSError: if the folder cannot be read.
    """
    wanted = suffixes()
    return sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in wanted)


@command(interrupted="Stopped; the same command goes on from here.")
def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m editing.batch", description=__doc__)
    parser.add_argument("folder", type=Path, help="of photos")
    parser.add_argument("--edit", type=Path, required=True, help="a recipe, or a picture with one inside")
    parser.add_argument("--out", type=Path, required=True, help="where the edited photos go")
    parser.add_argument("--all-faces", action="store_true", help="edit every face that is found, not only the main one")
    parser.add_argument("--steps", type=int, default=_STEPS, help=f"of each reconstruction; default: {_STEPS}")
    parser.add_argument("--checkpoint", type=Path, help="generator; default: the bundled one")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda …; default: auto")
    add_threads(parser)
    asked = parser.parse_args(arguments)
    recipe = read_recipe(asked.edit.read_bytes())
    if not recipe.edits:
        raise ValueError(f"{asked.edit} holds no edit; save the recipe of a face that was edited")
    total = len(photos_of(asked.folder))
    if not total:
        raise ValueError(f"{asked.folder} holds no photo; name a folder of pictures")
    failed: list[Outcome] = []
    with EditingService.open(asked.checkpoint, asked.device, identity_judge="none") as service:
        started = time.monotonic()
        outcomes = run(service, asked.folder, recipe, asked.out, asked.steps, asked.all_faces)
        for number, outcome in enumerate(outcomes, 1):
            if outcome.result is None:
                failed.append(outcome)
            left = (time.monotonic() - started) / number * (total - number)
            bar = "█" * (24 * number // total)
            print(f"\r{bar:·<24} {number} of {total}, {left:.0f} s left ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for outcome in failed:
        print(f"{outcome.file}: {outcome.problem}")
    print(f"{total - len(failed)} of {total} photos are in {asked.out}.")


if __name__ == "__main__":
    raise SystemExit(main())
