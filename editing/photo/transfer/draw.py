"""What newly shows: the model's pixels, or the photo's own continued, matched to the photo around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import cv2
import numpy as np

from editing.photo.transfer.looks import FramedPhoto, Look, follow, resized
from editing.photo.transfer.mirrored import going_on
from editing.photo.transfer.outline import SOFT, beneath, regrown, relaid
from editing.photo.transfer.planes import SIDE, blurred, box_of, clipped, fitted, square, times, total
from editing.photo.transfer.spread import smooth, spread
from editing.photo.transfer.strands import Strands, hanging, lines
from editing.photo.transfer.texture import continued
from editing.photo.transfer.threads import side_by_side
from editing.photo.transfer.tone import newly_bared, without_others
from editing.photo.transfer.uncovered import BEHIND
from memorygan.parts import PartScheme

_TEETH = 8.0  # of L: a mouth whose warp is farther off than this shows something new
_IVORY, _PURE = np.array([3.0, 10.0], np.float32), 0.8  # a and b
_LEAST = 0.05
_AROUND = 24  # pixels about what may change
_TRACE = 0.1  # of a pixel: less of a part is the model in doubt
_ABOUT = 21  # pixels about an eye or a brow in which more of it may show
_FRINGE, _FADES = 9, 2.5  # pixels across
_USUAL = (0.02, 0.15, 0.85, 0.98)  # quantiles of the colours of hair: strands, and most of it
_BESIDE = 9  # pixels across: so near to hair, strands that no mask holds colour what is behind
_LOUD = 2.7  # root mean square of a texture in medians: leaves have 1.6, things before a wall 2.8 and more
_PORES = 2.5  # medians
_SIDEWAYS = 2.5  # times as near
_SEEN, _TEXTURE, _HARDLY = 0.01, 0.004, 0.0003  # of the picture
_CONTINUED = (*BEHIND, "skin")
_SHADES = ("hair", "eyebrows", "eyeglass")  # colour what is beside them
_SHADE, _SHINE = np.array([[-12.0, -4.0, -5.0], [5.0, 4.0, 5.0]], np.float32)  # of L, a, b
_ROOTED = 0.7
_ENOUGH = 40.0  # pixels that show a part in the photo and in the model's picture


def newness(
    photo: FramedPhoto,
    before: Look,
    after: Look,
    window: np.ndarray,
    shaped: Sequence[int],
    laid: Mapping[int, tuple[np.ndarray, np.ndarray]] = MappingProxyType({}),
) -> tuple[np.ndarray, np.ndarray, Strands | None]:
    """Where the edited face shows a part that the warped photo does not have there, and which.

    Args:
        photo: warped.
        before: warped, S pixels wide.
        after: S pixels wide.
        window: (S, S), 0 where nothing may change.
        shaped: parts whose shape changes.
        laid: see :func:`editing.photo.transfer.borrow.laid`.

    Returns:
        (S, S) float32, 0 to 1, (S, S, K) float32 shares of the parts that show there, and the strands of hair
        whose outline changes, or None.
    """
    hair = photo.scheme.index("hair")
    grown = {part: relaid(photo, *one, part) for part, one in laid.items()}
    if hair in shaped and hair not in laid and (own := regrown(photo, before, after, window, hair)) is not None:
        grown[hair] = own
    hat = photo.scheme.index("hat")
    if hat in laid and hair not in grown and (under := beneath(photo, laid[hat][0])) is not None:
        grown[hair] = under
    reach = np.ones_like(window) if laid else window
    if hair in laid:
        window = reach
    names, mouth = photo.scheme.names, photo.scheme.index("mouth")
    opaque = [k for k in range(len(names)) if k not in photo.scheme.transparent and k not in grown]
    side, new, near = window.shape[0], np.zeros_like(window), box_of(window > 0, _AROUND)
    was, now = before.within(near), after.within(near)
    new[near] = _shows(resized(photo.parts, side)[near], was, now, window[near], opaque, photo.scheme, side)
    if mouth in shaped:
        new[near] = np.maximum(new[near], _inside_mouth(was, now, mouth, side))
    parts = after.parts
    for part, one in grown.items():
        # Of hair and hats the outline decides, and of what shows where they go.
        new = new * (1.0 - np.clip(2.0 * np.maximum(before.parts[..., part], after.parts[..., part]), 0.0, 1.0))
        of_it = one.grown + one.shrunk
        soft, rest = (blurred(some, SOFT, side) for some in (of_it, new))
        share = soft / np.maximum(soft + rest, 1e-6)
        parts = times(one.parts, share) + times(parts, 1.0 - share)
        new = np.maximum(new, of_it)
    if hat not in shaped and hat not in grown:  # it is in front of what changes
        new = new * (1.0 - resized(photo.parts[..., hat], side))
    return blurred(new, SOFT, side) * (reach > 0), parts, grown[hair].strands if hair in grown else None


def _shows(
    photo: np.ndarray,
    before: Look,
    after: Look,
    window: np.ndarray,
    opaque: Sequence[int],
    scheme: PartScheme,
    side: int,
) -> np.ndarray:
    """(h, w) how much of what the model shows of some parts the photo, (h, w, K), does not have there."""
    change = after.parts - before.parts
    gone, came = (total(np.maximum(sign * change, 0.0), opaque) for sign in (-1.0, 1.0))
    # The outlines of a rebuild are off by a pixel or so; only what is wider has changed.
    wide = (np.maximum(gone, came) * window > 0.5).astype(np.uint8)
    core = cv2.morphologyEx(wide, cv2.MORPH_OPEN, np.ones((4 * side // SIDE, 4 * side // SIDE), np.uint8))
    zone = blurred(cv2.dilate(core, square(9, side)).astype(np.float32), 2.0, side)
    # The outermost pixels of a part are half its neighbour: they go with the neighbour.
    share = cv2.erode(photo, square(5, side))
    new = np.maximum(after.parts - share, 0.0)
    for k in map(scheme.index, ("eyes", "eyebrows")):
        # An eye beside the head is the rebuild's mistake.
        if share[..., k].max() > 0.5:
            new[..., k] *= cv2.dilate(share[..., k], square(_ABOUT, side)) > 0.3
    result: np.ndarray = total(new, opaque) * zone
    return result


def _inside_mouth(before: Look, after: Look, mouth: int, side: int) -> np.ndarray:
    """(h, w) 0 to 1: where a mouth is so much lighter or darker than its warp that it shows something new."""
    inside = cv2.erode((after.parts[..., mouth] > 0.5).astype(np.float32), square(3, side))
    left = np.abs(blurred(after.lab[..., 0] - before.lab[..., 0], 1.5, side))
    return np.clip((left - _TEETH) / 10.0, 0.0, 1.0) * inside


def draw(
    photo: FramedPhoto,
    toned: np.ndarray,
    before: Look,
    after: Look,
    new: np.ndarray,
    parts: np.ndarray,
    through: np.ndarray | None = None,
    strands: Strands | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (n, n, 3) and opacity (n, n) of :class:`Fields`.

    Args:
        photo: warped.
        toned: (n, n, 3) its CIELAB after the change of tone.
        before: warped, S pixels wide.
        after: S pixels wide.
        new, parts: see :func:`newness`.
        through: (S, S) where skin is seen through glasses that are taken off.
        strands: see :func:`newness`.
    """
    size, side = photo.size, new.shape[0]
    if new.max() < _LEAST:
        return np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    alpha = np.clip((resized(new, size) - 0.15) / 0.6, 0.0, 1.0)
    small, share = resized(toned, side), resized(photo.parts, side)
    if through is not None:
        skin = photo.scheme.index("skin")
        share[..., skin] = np.maximum(share[..., skin], through)
    old = np.clip(1.0 - 3.0 * new, 0.0, 1.0)
    needed = alpha > 0.0
    names = photo.scheme.names
    seen = [
        part
        for part in range(len(names))
        if part not in photo.scheme.transparent and float((parts[..., part] * new).max()) >= _TRACE
    ]
    hair = photo.scheme.index("hair")
    seen.sort(key=lambda part: part != hair)  # which takes longest
    own_hair = photo.parts[..., hair]
    if hair in seen:  # a neighbour's has another colour
        own_hair = without_others(own_hair, before.parts[..., hair])
        share[..., hair] = resized(own_hair, side)

    def filled(part: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Its weight, its weighted colours, and its fine structure of L."""
        roots = strands.roots if part == hair and strands is not None else None
        colour = _colour(photo.scheme, small, share, before, after, part, old, roots)
        if colour is None:
            return None
        weight = resized(parts[..., part], size)
        colour = resized(colour, size)
        own = own_hair if part == hair else photo.parts[..., part]
        inner = cv2.erode((own > 0.9).astype(np.uint8), square(7, side)).astype(bool)
        known, wanted = inner & ~needed, needed & (weight > 0.02)
        if part == hair and strands is not None and known.mean() > _TEXTURE:
            hangs = hanging(photo, size)
            detail = _detail(toned, known, wanted & (hangs < 1.0), names[part])
            colour, detail = _hair(
                strands, going_on(share[..., hair]), toned, colour, detail, inner, known, wanted, hangs
            )
        elif side >= SIDE or names[part] == "background":
            detail = _detail(toned, known, wanted, names[part])
        else:  # pores are not missed while a slider moves
            detail = np.zeros_like(colour)
        return weight, times(colour + detail, weight), detail[..., 0]

    content, whole = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    fine = np.zeros((size, size), np.float32)
    for part, found in zip(seen, side_by_side(filled, seen), strict=True):
        if found is not None:
            whole += found[0]
            content += found[1]
            fine = found[2] if part == hair else fine
    content = times(content, 1.0 / np.maximum(whole, 1e-3))
    alpha = alpha * np.clip(10.0 * whole, 0.0, 1.0)  # of what nobody knows the colour of nothing is drawn
    edge = 4.0 * alpha * (1.0 - alpha)
    return content, np.clip(alpha + edge * np.clip(fine / 12.0, -0.5, 0.5), 0.0, 1.0)


def _hair(
    strands: Strands,
    sources: Sequence[tuple[np.ndarray, np.ndarray]],
    toned: np.ndarray,
    colour: np.ndarray,
    detail: np.ndarray,
    inner: np.ndarray,
    known: np.ndarray,
    wanted: np.ndarray,
    hangs: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Colour and fine structure (n, n, 3) of hair, which above the eyes are as given, and below that hair that hangs
    goes on as the photo's, or where there is none of it near by is drawn in lines."""
    size = toned.shape[0]
    detail = times(detail, np.broadcast_to(1.0 - hangs, inner.shape))
    detail[..., 0] += hangs * lines(toned[..., 0], known, wanted & (hangs > 0.0), resized(strands.noise, size))
    # No jewels in it, nor what is seen through it; a ninth of the pixels tells.
    some = toned.reshape(-1, 3)[np.flatnonzero(known)[::9]]
    usual = np.quantile(some, _USUAL, axis=0).astype(np.float32)
    colour = clipped(colour, *usual[1:3])
    surely = np.clip(2.0 * blurred(inner.astype(np.float32), _FADES, size) - 1.0, 0.0, 1.0)
    for source, sure in sources:
        sure = hangs * resized(sure, size) * wanted
        box = box_of(sure > 0.0)
        if not sure[box].size:
            continue
        corner = np.array([box[1].start, box[0].start], np.float32)
        away = resized(source, size)[box] * np.float32(size / source.shape[0]) + corner
        sure = sure[box] * follow(surely, away)
        there = clipped(follow(toned, away), *usual[[0, 3]])
        colour[box] += times(there - colour[box], sure)
        detail[box] = times(detail[box], 1.0 - sure)
    return colour, detail


def _colour(
    scheme: PartScheme,
    small: np.ndarray,
    share: np.ndarray,
    before: Look,
    after: Look,
    part: int,
    old: np.ndarray,
    roots: np.ndarray | None = None,
) -> np.ndarray | None:
    """(s, s, 3) CIELAB of a part without fine detail, at half the size: of what lies behind hair the photo's own, else
    the model's, matched; None where both show too little of the part to tell its colour."""
    side, half = share.shape[0], share.shape[0] // 2
    known = cv2.erode(share[..., part], square(3, side)) * old
    if scheme.names[part] == "hair":
        solid = cv2.erode(share[..., part], square(_FRINGE, side)) * old
        known = solid if solid.mean() > _SEEN else known  # between strands is what is behind them
    small = resized(small, half)
    if scheme.names[part] in _CONTINUED:
        dark = np.maximum.reduce([share[..., scheme.index(name)] for name in _SHADES])
        clear = known * (1.0 - cv2.dilate(dark, square(_BESIDE, side)))
        for there in (clear, known):
            if there.mean() > _SEEN:
                weight = resized(there**2, half)
                even = scheme.names[part] == "skin"  # whose pores are detail
                return smooth(small, weight, half / 60) if even else _beside(small, weight)
    # The model's outlines are mixed with what is behind; the part's own colour is carried outwards.
    sure = np.clip(after.parts[..., part] * 2.5 - 1.5, 0.0, 1.0)
    enough = _ENOUGH * (side / SIDE) ** 2
    both = ((known * after.parts[..., part]) ** 2).astype(np.float32)
    if not sure.any() and both.sum() <= enough:
        return None
    model = resized(after.lab, half)
    pure = spread(model, resized(sure, half))
    if both.sum() > enough:
        both = resized(both, half)
        apart = smooth(small - pure, both, half / 40)
        if scheme.names[part] == "mouth":  # lips that are redder than the model's say nothing of teeth
            bared = resized(newly_bared(before, after, part), half)
            apart = times(apart, 1.0 - bared)
            # Small ones are mixed with lips and gums in the model's picture.
            pure[..., 1:] -= times(np.maximum(pure[..., 1:] - _IVORY, 0.0), _PURE * bared)
        colour = pure + apart
        if scheme.names[part] == "hair" and (both > 0.5).any():
            # New hair goes with most of it, which shines here and there.
            most = np.median(small[both > 0.5], axis=0)
            if roots is not None:  # and with what it grows from
                found = follow(smooth(small, both, half / 16), 0.5 * resized(roots, half))
                most = most + _ROOTED * (found - most)
            colour = most + clipped(colour - most, _SHADE, _SHINE)
        return colour
    # The photo has nothing of the part: only how light and warm its skin is compared with the model's is taken over.
    skin = resized(share[..., 1] * after.parts[..., 1] * old, half)
    return pure + times(small - model, skin).sum(axis=(0, 1)) / max(float(skin.sum()), 0.25)


def _beside(colour: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(h, w, 3) what is behind somebody goes on, to the side rather than up and down: floors, seats and skies do."""
    height, width = weight.shape
    narrow = (height, max(1, round(width / _SIDEWAYS)))
    many, known = fitted(times(colour, weight), narrow), fitted(weight, narrow)
    found = spread(times(many, 1.0 / np.maximum(known, 1e-3)), np.clip(2.0 * known, 0.0, 1.0))
    base = fitted(found, weight.shape)
    return base + spread(colour - base, weight)


def _detail(toned: np.ndarray, known: np.ndarray, wanted: np.ndarray, name: str) -> np.ndarray:
    """(n, n, 3) fine structure of a part, continued from where the photo has it."""
    size = toned.shape[0]
    if known.mean() < _TEXTURE or wanted.mean() < _HARDLY:
        return np.zeros_like(toned)
    box = box_of(known)
    fine = np.zeros_like(toned)
    even = smooth(toned[box], known[box].astype(np.float32), size / (24 if name == "background" else 40))
    fine[box] = times(toned[box] - even, known[box])
    light = np.abs(fine[..., 0][known])
    median = max(float(np.median(light)), 1e-3)
    if name == "background":  # leaves and bricks are continued; of things before a wall only pieces would come along
        loud = float(np.sqrt(np.square(light).mean())) / median
        fine *= np.clip((_LOUD - loud) / 0.7, 0.0, 1.0)
    elif name == "skin":  # pores, and not strands that lie over it
        fine = np.clip(fine, -_PORES * median, _PORES * median)
    return continued(fine, known, wanted)
