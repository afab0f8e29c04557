"""The edit transfer: what the model changes between two of its pictures is done to the photo."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from editing.photo.transfer.beard import stubble
from editing.photo.transfer.borrow import Lent, borrow, fitting, laid, under_hats
from editing.photo.transfer.draw import draw, newness
from editing.photo.transfer.fields import Fields
from editing.photo.transfer.glasses import BESIDE, bared, taken_off
from editing.photo.transfer.looks import FramedPhoto, Look, follow, resized
from editing.photo.transfer.membrane import met
from editing.photo.transfer.planes import SIDE, blurred, chosen_by, square, times, total
from editing.photo.transfer.put_on import FACE, WORN, over_face, put_on, scraps, seen_through
from editing.photo.transfer.register import registered
from editing.photo.transfer.threads import together
from editing.photo.transfer.tone import tone
from editing.photo.transfer.warp import BROAD, motion

# Folds and sides are a little redder or paler; a poor rebuild's colours are not to come along.
_FLUSH = 5.0  # of a and b
_ABOUT = 28  # pixels about a small part that go with it
_BEHIND = ("eyes", "eyebrows", "nose", "mouth")


@dataclass(frozen=True)
class Plan:
    """What of which parts the edit changes.

    Attributes:
        textured: parts whose texture layers changed.
        shaped: parts whose base or shape layers changed; all but the background if the head was turned.
    """

    textured: tuple[int, ...]
    shaped: tuple[int, ...]


def transfer(
    photo: FramedPhoto, before: Look, after: Look, plan: Plan, lent: Sequence[Lent] = (), side: int = SIDE
) -> Fields:
    """What has to be done to the photo so that it changes as the model's picture does.

    Parts whose texture alone changes are toned. Where shapes change, pixels move along the flow between the model's two
    pictures; light that the movement does not explain is toned; and what the photo has not got is drawn.

    Args:
        photo: the framed face.
        before, after: what the model shows without and with the edit.
        plan: what was edited.
        lent: parts that are taken from other photos, oldest first.
        side: of the pictures in which shapes are compared; half of it is good enough while a slider moves.
    """
    size, names = photo.size, photo.scheme.names
    fits = fitting(photo, lent)
    others = {part for one in fits for part in one.parts}
    hair, hat = names.index("hair"), names.index("hat")
    bareheaded = hair in others and hat in plan.shaped and hat not in others and _gone(before, after, hat)
    unwanted = scraps(photo, before, after, plan.shaped, others | ({hat} if bareheaded else set())) | under_hats(lent)
    plan = Plan(*(tuple(k for k in parts if k not in unwanted) for parts in (plan.textured, plan.shaped)))
    before, after = registered(photo, before, after)
    if not plan.shaped:
        gain, offset = _tone(photo, before, after, plan.textured)
        return replace(Fields.nothing(size), gain=gain, offset=offset, part_map=photo.part_map)
    first, last = before.at(side), after.at(side)
    glasses = names.index("eyeglass")
    if (worn := put_on(photo, last, plan.shaped, others)) is not None:
        plan = replace(plan, shaped=tuple(part for part in plan.shaped if part != glasses))
    # A hat of another photo is laid where it was there: for the model's nothing moves.
    shift, window = motion(first, last, names, [part for part in plan.shaped if part != hat or part not in others])
    off = taken_off(photo, first, last, plan.shaped, others)
    kept = [_held(photo, plan.shaped, side), *([] if off is None else [off])]
    kept += [_about(look, part) for part in photo.scheme.transparent if part in others for look in (first, last)]
    free = 1.0 - np.maximum.reduce(kept)
    shift, window = shift * free[..., None], window * free
    warped, shift = partial(first.moved, shift), resized(shift, size)
    moved, first = together(partial(photo.moved, shift), warped)
    moved_by = first, last, window
    (new, shown, strands), (gain, offset) = together(
        partial(newness, moved, *moved_by, plan.shaped, laid(moved, last, fits, bareheaded)),
        partial(_light, moved, *moved_by, plan, others, worn),
    )
    toned = moved.lab + offset
    toned[..., 0] += moved.lab[..., 0] * (gain - 1.0)
    through = None
    if off is not None:
        bare, under, through = bared(moved, last, off)
        new = new * (1.0 - off) + bare
        shown = chosen_by(off > 0.02, under, shown)
    drawn, alpha = draw(moved, toned, first, last, new, shown, through, strands)
    skin = new * shown[..., photo.scheme.index("skin")]
    off = np.zeros_like(skin) if off is None else off * (1.0 - total(shown, [names.index(name) for name in BESIDE]))
    drawn = met(moved, toned, drawn, alpha, skin, off)
    for one in fits:
        drawn, alpha = borrow(moved, toned, last, one, drawn, alpha, bareheaded)
    ids, over = follow(photo.part_map, shift * size, cv2.INTER_NEAREST), alpha > 0.5
    ids[over] = resized(shown, size)[over].argmax(axis=1)
    if worn is not None:
        ids[(resized(worn, size) > 0.5) & np.isin(ids, [names.index(name) for name in FACE])] = glasses
    return Fields(shift, gain, offset, drawn, alpha, photo.grain, ids)


def _gone(before: Look, after: Look, part: int) -> bool:
    """Whether the model takes off most of what it showed of a part."""
    had, has = (float((look.part_map == part).mean()) for look in (before, after))
    return has < 0.5 * had


def _tone(photo: FramedPhoto, before: Look, after: Look, parts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset of :class:`Fields` where texture changes, beards included."""
    gain, offset = tone(photo, before, after, parts)
    if photo.scheme.index("skin") in parts and (hairs := stubble(photo, before, after)) is not None:
        offset[..., 0] += hairs
    return gain, offset


def _light(
    photo: FramedPhoto,
    before: Look,
    after: Look,
    window: np.ndarray,
    plan: Plan,
    others: Collection[int],
    worn: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset of :class:`Fields`.

    Args:
        photo: warped.
        before: warped, S pixels wide.
        after: S pixels wide.
        window: (S, S), 0 where shapes do not change.
        plan: what was edited.
        others: parts that other photos lend.
        worn: of :func:`editing.photo.transfer.put_on.put_on`.
    """
    names = photo.scheme.names
    gain, offset = _tone(photo, before, after, [part for part in plan.textured if part not in others])
    bare = after
    if worn is not None:  # what glasses make darker is no shade that falls on the face
        kept = worn > 0.1
        bare = Look(chosen_by(kept, before.image, after.image), chosen_by(kept, before.parts, after.parts))
    # Shading that comes with the new shape: folds of a smile, the side of a nose.
    shaded = [
        k
        for k, name in enumerate(names)
        if name in FACE and k not in plan.textured and float((before.parts[..., k] * window).max()) > 0.01
    ]
    if shaded:
        more, added = tone(photo, before, bare, shaded, fine=True, within=window > 0)
        np.clip(added[..., 1:], -_FLUSH, _FLUSH, out=added[..., 1:])
        window = resized(window, photo.size)
        gain, offset = gain + window * (more - 1.0), offset + times(added, window)
    if worn is not None:
        offset += over_face(photo, before, after, worn)
    if through := [part for part in plan.shaped if part not in others and part in photo.scheme.transparent]:
        offset += resized(seen_through(before, after, through), photo.size)
    return gain, offset


def _held(photo: FramedPhoto, shaped: Sequence[int], side: int) -> np.ndarray:
    """(S, S) 0 to 1: what stays. When hair and what is behind it change, glasses and hats; when small parts move,
    what is far from them in the photo, since a rebuild may have an eye at the temple; frames of glasses; other eyes and
    brows."""
    names = photo.scheme.names

    def there(parts: Sequence[int]) -> np.ndarray:
        return (resized(photo.share(parts), side) > 0.3).astype(np.uint8)

    if all(names[part] in BROAD for part in shaped):
        # What is worn is in front of hair, also where a lens shows hair.
        worn = there([k for k in map(names.index, WORN) if k not in shaped])
        return _softly(cv2.dilate(_filled(worn), square(9, side)))
    if any(names[part] not in _BEHIND for part in shaped):
        return np.zeros((side, side), np.float32)
    worn = there([names.index("eyeglass")])
    others = [names.index(name) for name in ("eyes", "eyebrows") if names.index(name) not in shaped]
    kept = (
        cv2.dilate(worn, square(7, side)) - cv2.erode(worn, square(9, side)),
        there(others) if others else np.zeros_like(worn),
        (cv2.distanceTransform(1 - there(shaped), cv2.DIST_L2, 5) > _ABOUT * side / SIDE).astype(np.uint8),
    )
    return _softly(np.maximum.reduce(kept))


def _about(look: Look, part: int) -> np.ndarray:
    """(S, S) 0 to 1: where the model shows glasses, whose shade is not wanted where another photo's are laid."""
    there = (look.parts[..., part] > 0.2).astype(np.uint8)
    return _softly(cv2.dilate(there, square(7, there.shape[0])))


def _filled(mask: np.ndarray) -> np.ndarray:
    """(S, S) uint8: the convex hulls of the patches of a mask."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for outline in outlines:
        cv2.fillConvexPoly(mask, cv2.convexHull(outline), 1)
    return mask


def _softly(held: np.ndarray) -> np.ndarray:
    """(S, S) float32 from 0 or 1, with soft borders."""
    return np.clip(2.0 * blurred(held.astype(np.float32), 2.0, held.shape[0]), 0.0, 1.0)
