"""Figures: flat shapes in a main colour and a pattern, with eyes, legs that step and wheels that turn."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .shapes import Colour, Points, Sketch, contains, ellipse, mixed, slab

COLOURS: dict[str, Colour] = {
    "red": (222, 56, 50),
    "orange": (244, 142, 40),
    "yellow": (248, 208, 56),
    "green": (72, 168, 72),
    "blue": (60, 116, 222),
    "purple": (146, 80, 190),
    "white": (242, 242, 246),
    "black": (56, 56, 66),
}
PATTERNS = ("plain", "striped", "spotted")

DARK: Colour = (40, 36, 46)
WHITE: Colour = (252, 252, 252)
CREAM: Colour = (255, 240, 204)
BROWN: Colour = (96, 62, 48)
ORANGE: Colour = (246, 150, 44)
GLASS: Colour = (190, 226, 244)
TYRE: Colour = (54, 54, 60)
STEEL: Colour = (196, 200, 208)

STRIPE_PERIOD = 0.28  # of the figure's height


class Figure(Sketch):
    """A sketch with a main colour, its shade, and a pattern on what is `painted`."""

    def __init__(self, colour: str, pattern: str):
        super().__init__()
        self.main = COLOURS[colour]
        self.shade = mixed(self.main, (24, 16, 40), 0.28)
        self.pattern = pattern
        self.contrast = BROWN if colour in ("yellow", "white", "orange") else CREAM

    def painted(self, points: Points, colour: Colour | None = None) -> None:
        """A polygon in the main colour, with the pattern."""
        self.polygon(points, colour or self.main)
        key = tuple((round(float(x), 4), round(float(y), 4)) for x, y in points)
        self.extend((part, self.contrast) for part in _pattern(key, self.pattern))

    def eye(self, x: float, y: float, r: float = 0.06) -> None:
        self.ellipse(x, y, r, r, WHITE)
        self.ellipse(x + 0.3 * r, y, 0.55 * r, 0.6 * r, DARK)

    def legs(
        self,
        at: tuple[float, ...],
        top: float,
        width: float,
        turn: float,
        colour: Colour,
        swing: float = 0.55,
    ) -> None:
        """Add legs from the hips at x = `at`; neighbours are half a step apart."""
        for i, x in enumerate(at):
            step = turn + 0.5 * i
            foot = x + swing * -top * 0.5 * np.cos(2 * np.pi * step)
            lift = 0.16 * -top * max(0.0, np.sin(2 * np.pi * step))
            self.line([(x, top), (foot, -width / 2 - lift)], width, colour)

    def wheel(self, x: float, r: float, turn: float, y: float | None = None) -> None:
        y = -r if y is None else y
        self.ellipse(x, y, r, r, TYRE)
        self.ellipse(x, y, 0.62 * r, 0.62 * r, STEEL)
        a = np.pi * turn  # a bar looks the same after half a turn
        dx, dy = 0.62 * r * np.cos(a), 0.62 * r * np.sin(a)
        self.line([(x - dx, y - dy), (x + dx, y + dy)], 0.34 * r, TYRE)


@lru_cache(maxsize=512)
def _pattern(key: tuple[tuple[float, float], ...], pattern: str) -> tuple[np.ndarray, ...]:
    """Return the polygons of a pattern on a polygon."""
    points = np.array(key)
    left, right = float(points[:, 0].min()), float(points[:, 0].max())
    if pattern == "striped":
        count = max(1, round((right - left) / STRIPE_PERIOD))
        pitch = (right - left) / count
        bands = (slab(points, left + (i + 0.28) * pitch, left + (i + 0.72) * pitch) for i in range(count))
        return tuple(b for b in bands if len(b) > 2)
    if pattern == "spotted":
        r, pitch = 0.075, 0.21
        spots = []
        middle, top, bottom = (left + right) / 2, points[:, 1].min(), points[:, 1].max()
        for row, y in enumerate(
            np.arange((top + bottom) / 2 % (0.8 * pitch) + top - pitch, bottom, 0.8 * pitch)
        ):
            for x in middle + pitch * (np.arange(-8, 9) + 0.5 * (row % 2)):
                rim = ellipse(x, y, 1.1 * r, 1.1 * r)
                if contains(points, rim[:, 0], rim[:, 1]).all():
                    spots.append(ellipse(x, y, r, r))
        return tuple(spots)
    return ()
