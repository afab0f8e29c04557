"""A small canvas that paints a picture and its part mask with the same strokes."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Color = tuple[float, float, float]


class Canvas:
    """A square RGB picture and its part ids, painted together.

    Shapes are (N, 2) outlines in head coordinates: the origin lies between the eyes and the mouth, x grows to the right
    and y downwards, and 1 is the side of the picture. A shape becomes a boolean (S, S) region without antialiasing, so
    picture and ids agree to the pixel; smoothness comes from painting large and sampling down.

    Args:
        size: side S in pixels.
        scale: size of the head; 1 leaves the coordinates as they are.
        tilt: clockwise rotation of the head in radians.
        shift: where the origin lies, in sides of the picture.
        light: horizontal direction the light comes from, -1 (left) to 1 (right).
    """

    def __init__(self, size: int, scale: float, tilt: float, shift: tuple[float, float], light: float) -> None:
        self.size = size
        self.light = light
        self.pixels = np.zeros((size, size, 3), dtype=np.float32)
        self.ids = np.zeros((size, size), dtype=np.uint8)
        self._turn = scale * np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        self._shift = np.array(shift)
        grid = (np.arange(size, dtype=np.float32) + 0.5) / size
        across, down = grid[None, :] - np.float32(shift[0]), grid[:, None] - np.float32(shift[1])
        back = np.linalg.inv(self._turn).astype(np.float32)
        self._coordinates = across * back[0, 0] + down * back[1, 0], across * back[0, 1] + down * back[1, 1]

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Head coordinates x, y of every pixel, each (S, S) float32."""
        return self._coordinates

    def region(self, *outlines: np.ndarray) -> np.ndarray:
        """The union of filled outlines, (S, S) bool."""
        plane = Image.new("L", (self.size, self.size))
        draw = ImageDraw.Draw(plane)
        for outline in outlines:
            draw.polygon([tuple(point) for point in self._place(outline)], fill=255)
        return np.asarray(plane) > 0

    def stroke(self, line: np.ndarray, width: float) -> np.ndarray:
        """The region of a thick line with round ends, (S, S) bool; ``width`` in sides of the picture."""
        plane = Image.new("L", (self.size, self.size))
        draw = ImageDraw.Draw(plane)
        points = self._place(line)
        radius = max(0.5, width * self.size / 2)
        draw.line([tuple(point) for point in points], fill=255, width=max(1, round(2 * radius)), joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        return np.asarray(plane) > 0

    def _place(self, outline: np.ndarray) -> np.ndarray:
        return (outline @ self._turn + self._shift) * self.size

    def paint(
        self,
        region: np.ndarray,
        color: Color | np.ndarray,
        part: int | None = None,
        opacity: float = 1.0,
        round_off: float = 0.0,
        softness: float = 0.03,
        shade: np.ndarray | float = 1.0,
    ) -> None:
        """Lay a colour over a region.

        Args:
            region: (S, S) bool.
            color: RGB 0–255, one or (S, S, 3).
            part: id the region gets; None leaves the ids alone (make-up, shadow, pattern).
            opacity: 0–1.
            round_off: how much the border darkens and the lit side brightens, 0 (flat) to about 0.4.
            softness: width of that border, in sides of the picture.
            shade: factor on the colour, one or (S, S).
        """
        if not region.any():
            return
        rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside = region[box]
        factor = np.broadcast_to(np.asarray(shade, dtype=np.float32), region.shape)[box]
        if round_off:
            factor = factor * self._volume(region, round_off, softness)[box]
        fill = np.broadcast_to(np.asarray(color, dtype=np.float32), self.pixels.shape)[box] * factor[..., None]
        under = self.pixels[box]
        self.pixels[box] = np.where(inside[..., None], under + opacity * (fill - under), under)
        if part is not None:
            self.ids[box][inside] = part

    def _volume(self, region: np.ndarray, amount: float, softness: float) -> np.ndarray:
        # A blurred region falls off towards its border; its slope tells which way the surface faces.
        radius = softness * self.size
        blurred = Image.fromarray(np.where(region, np.uint8(255), np.uint8(0))).filter(ImageFilter.BoxBlur(radius))
        height = np.asarray(blurred.filter(ImageFilter.BoxBlur(radius / 2)), dtype=np.float32) / 255
        slope = -np.gradient(height, axis=1) * radius * self.light
        return 1 - amount * (1 - height) + amount * slope + amount * 0.15

    def soft(self, outline: np.ndarray, blur: float) -> np.ndarray:
        """A filled outline with a blurred border, (S, S) in 0–1; ``blur`` in sides of the picture."""
        plane = Image.fromarray(self.region(outline).astype(np.uint8) * 255)
        return np.asarray(plane.filter(ImageFilter.GaussianBlur(blur * self.size)), dtype=np.float32) / 255

    def glow(self, weight: np.ndarray, color: Color) -> None:
        """Blend a colour in by an (S, S) weight in 0–1, without touching the ids."""
        self.pixels += weight[..., None] * (np.asarray(color, dtype=np.float32) - self.pixels)

    def picture(self) -> Image.Image:
        """The RGB picture so far."""
        return Image.fromarray(np.clip(np.rint(self.pixels), 0, 255).astype(np.uint8))


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0, points: int = 48) -> np.ndarray:
    """Outline of an ellipse, (N, 2)."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    outline = np.stack([rx * np.cos(angle), ry * np.sin(angle)], axis=1)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return outline @ rotation + (x, y)


def smooth(corners: list[tuple[float, float]], closed: bool = True, steps: int = 10) -> np.ndarray:
    """A Catmull–Rom curve through the corners, (N, 2)."""
    points = np.array(corners, dtype=float)
    padded = np.concatenate([points[-1:], points, points[:2]] if closed else [points[:1], points, points[-1:]])
    pieces = len(points) if closed else len(points) - 1
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    curve = []
    for a, b, c, d in (padded[i : i + 4] for i in range(pieces)):
        curve.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate(curve if closed else [*curve, points[-1:]])


def mirrored(outline: np.ndarray) -> np.ndarray:
    """The outline on the other side of the face."""
    return outline * (-1, 1)


def darker(color: Color, factor: float) -> Color:
    """A colour scaled in brightness."""
    return color[0] * factor, color[1] * factor, color[2] * factor
