"""Flat shapes that can be moved, turned and mirrored exactly: filled polygons in drawing order.

x to the right, y down, in the caller's units; `paint` takes pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]] | np.ndarray

_CIRCLE = np.stack(
    [
        np.cos(np.linspace(0, 2 * np.pi, 28, endpoint=False)),
        np.sin(np.linspace(0, 2 * np.pi, 28, endpoint=False)),
    ],
    1,
)


class Sketch:
    """A list of filled polygons."""

    def __init__(self) -> None:
        self.shapes: list[tuple[np.ndarray, Colour]] = []

    def polygon(self, points: Points, colour: Colour) -> None:
        self.shapes.append((np.asarray(points, np.float64), colour))

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, angle: float = 0.0) -> None:
        self.polygon(ellipse(x, y, rx, ry, angle), colour)

    def box(self, x: float, y: float, w: float, h: float, colour: Colour) -> None:
        """Add a rectangle by its upper left corner."""
        self.polygon([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], colour)

    def rounded(self, x: float, y: float, w: float, h: float, r: float, colour: Colour) -> None:
        """Add a rectangle with round corners."""
        self.polygon(rounded(x, y, w, h, r), colour)

    def line(self, points: Points, width: float, colour: Colour) -> None:
        """Add a thick line with round joints and ends."""
        points = np.asarray(points, np.float64)
        for a, b in pairwise(points):
            along = b - a
            side = np.array([-along[1], along[0]]) * (0.5 * width / max(1e-9, float(np.hypot(*along))))
            self.polygon(np.stack([a + side, b + side, b - side, a - side]), colour)
        for p in points:
            self.polygon(p + 0.5 * width * _CIRCLE, colour)

    def extend(self, other: Iterable[tuple[np.ndarray, Colour]]) -> None:
        self.shapes.extend(other)


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> np.ndarray:
    """Return points of an ellipse rotated by `angle` degrees."""
    a = np.deg2rad(angle)
    turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    return (_CIRCLE * (rx, ry)) @ turn + (x, y)


def rounded(x: float, y: float, w: float, h: float, r: float) -> np.ndarray:
    """Return points of a rectangle with round corners."""
    quarter = np.linspace(0, np.pi / 2, 5)
    corners = (
        (x + w - r, y + h - r, 0.0),
        (x + r, y + h - r, 0.5),
        (x + r, y + r, 1.0),
        (x + w - r, y + r, 1.5),
    )
    return np.concatenate(
        [
            np.stack([cx + r * np.cos(quarter + a * np.pi), cy + r * np.sin(quarter + a * np.pi)], 1)
            for cx, cy, a in corners
        ]
    )


def slab(points: np.ndarray, left: float, right: float) -> np.ndarray:
    """Clip a polygon to left <= x <= right (Sutherland and Hodgman 1974); may be empty."""
    for limit, sign in ((left, 1.0), (right, -1.0)):
        kept: list[np.ndarray] = []
        for a, b in zip(points, np.roll(points, -1, 0), strict=True):
            inside_a, inside_b = sign * (a[0] - limit) >= 0, sign * (b[0] - limit) >= 0
            if inside_a:
                kept.append(a)
            if inside_a != inside_b:
                kept.append(a + (b - a) * (limit - a[0]) / (b[0] - a[0]))
        points = np.array(kept).reshape(-1, 2)
    return points


def contains(points: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return whether each (x, y) lies in the polygon, by counting crossings of a ray to the right."""
    a, b = points, np.roll(points, -1, 0)
    x, y = np.asarray(x)[..., None], np.asarray(y)[..., None]
    over = (a[:, 1] > y) != (b[:, 1] > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = a[:, 0] + (y - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
    return (over & (x < at)).sum(-1) % 2 == 1


def paint(shapes: Iterable[tuple[np.ndarray, Colour]], width: int, height: int) -> Image.Image:
    """Paint shapes in pixels on a transparent RGBA image without smoothing: paint larger and shrink."""
    image = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(image)
    for points, colour in shapes:
        if len(points) > 2:
            draw.polygon([(float(x), float(y)) for x, y in points], fill=(*colour, 255))
    return image


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    """Mix a share of `b` into `a`."""
    return tuple(round(u + share * (v - u)) for u, v in zip(a, b, strict=True))  # type: ignore[return-value]
