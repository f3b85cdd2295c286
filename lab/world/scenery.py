"""Scenes drawn by code: a few horizontal strips that scroll at different speeds (parallax).

A strip is PERIOD heights wide and wraps around, so a camera can travel forever. Coordinates are in image
heights (x to the right, y down, ground at y = GROUND), so a scene looks the same at every resolution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

PERIOD = 4  # strip width in image heights
GROUND = 0.8  # ground level
VARIANTS = 6  # arrangements per scene
_SUPERSAMPLE = 3

Colour = tuple[int, int, int]
Strip = np.ndarray  # (H, PERIOD * H, 4) float32, premultiplied, alpha in 0..1, colour in 0..255


@dataclass(frozen=True)
class Layer:
    """A strip and its speed: 1 moves with the ground, 0 is at infinity."""

    strip: Strip
    speed: float


class _Brush:
    """Draws on a wrapping strip in units of image height."""

    def __init__(self, height: int):
        self.unit = height * _SUPERSAMPLE
        self.height = height
        self.image = Image.new("RGBA", (PERIOD * self.unit, self.unit))
        self.draw = ImageDraw.Draw(self.image)

    def _px(self, points, shift: float):
        return [((x + shift) * self.unit, y * self.unit) for x, y in points]

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        for shift in (-PERIOD, 0, PERIOD):
            self.draw.polygon(self._px(points, shift), fill=(*colour, 255))

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        for shift in (-PERIOD, 0, PERIOD):
            self.draw.ellipse(self._px([(x - rx, y - ry), (x + rx, y + ry)], shift), fill=(*colour, 255))

    def box(self, x: float, y: float, w: float, h: float, colour: Colour) -> None:
        self.polygon([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], colour)

    def gradient(self, top: Colour, bottom: Colour, until: float = 1.0) -> None:
        rows = max(1, int(until * self.unit))
        for row in range(rows):
            a = row / rows
            self.draw.line(
                [(0, row), (PERIOD * self.unit, row)],
                fill=(*(round(t + a * (b - t)) for t, b in zip(top, bottom, strict=True)), 255),
            )

    def hills(
        self, rng: np.random.Generator, base: float, height: float, colour: Colour, bumps: int = 5
    ) -> None:
        phases, x = rng.uniform(0, 2 * np.pi, 3), np.linspace(0, PERIOD, 200)
        wave = sum(np.sin(2 * np.pi * (bumps + k) * x / PERIOD + phases[k]) / (k + 1) for k in range(3)) / 1.8
        ridge = [(float(u), float(base - height * (0.5 + 0.5 * w))) for u, w in zip(x, wave, strict=True)]
        self.polygon([*ridge, (PERIOD, 1.0), (0.0, 1.0)], colour)

    def strip(self) -> Strip:
        small = self.image.convert("RGBa").resize((PERIOD * self.height, self.height), Image.Resampling.BOX)
        pixels = np.asarray(small, dtype=np.float32).copy()
        pixels[..., 3] /= 255.0
        return pixels


_Rng = np.random.Generator
_Painter = Callable[[_Rng, Callable[[], _Brush]], list[tuple[_Brush, float]]]


def _spots(rng: _Rng, n: int, jitter: float = 0.35) -> list[float]:
    """Return n positions along the strip, roughly even."""
    return [PERIOD * (i + rng.uniform(-jitter, jitter)) / n for i in range(n)]


def _street(rng: _Rng, new: Callable[[], _Brush]) -> list[tuple[_Brush, float]]:
    sky, far, near, road = new(), new(), new(), new()
    sky.gradient((120, 190, 240), (220, 238, 250))
    for x in _spots(rng, 8):
        far.box(x, rng.uniform(0.2, 0.45), 0.38, 0.6, (168, 180, 200))
    colours: list[Colour] = [(196, 122, 96), (214, 176, 120), (150, 142, 170), (180, 96, 88), (120, 150, 150)]
    for i, x in enumerate(_spots(rng, 7, 0.1)):
        top = rng.uniform(0.28, 0.5)
        near.box(x, top, 0.44, 0.8 - top, colours[(i + int(rng.integers(5))) % 5])
        for row in range(2):
            for col in range(3):
                near.box(x + 0.05 + 0.13 * col, top + 0.06 + 0.14 * row, 0.07, 0.08, (250, 236, 170))
    road.box(0, 0.70, PERIOD, 0.05, (186, 186, 186))
    road.box(0, 0.75, PERIOD, 0.25, (84, 84, 92))
    for i in range(8):
        road.box(i * PERIOD / 8, 0.87, 0.22, 0.03, (245, 245, 235))
    return [(sky, 0.0), (far, 0.3), (near, 0.6), (road, 1.0)]


def _beach(rng: _Rng, new: Callable[[], _Brush]) -> list[tuple[_Brush, float]]:
    sky, sea, sand = new(), new(), new()
    sky.gradient((90, 190, 245), (200, 235, 250))
    for x in _spots(rng, 4):
        sky.ellipse(x, rng.uniform(0.1, 0.25), 0.2, 0.05, (255, 255, 255))
    sea.box(0, 0.45, PERIOD, 0.3, (30, 130, 200))
    for x in _spots(rng, 12):
        sea.ellipse(x, rng.uniform(0.5, 0.64), 0.12, 0.012, (190, 230, 245))
    sand.hills(rng, 0.72, 0.04, (244, 214, 150))
    for x in _spots(rng, 3):
        sand.polygon([(x, 0.75), (x + 0.03, 0.75), (x + 0.09, 0.3), (x + 0.06, 0.3)], (140, 96, 56))
        for dx, dy in ((-0.18, 0.04), (-0.12, -0.08), (0.06, -0.1), (0.2, -0.06), (0.24, 0.06)):
            sand.polygon([(x + 0.06, 0.3), (x + 0.09 + dx, 0.28 + dy), (x + 0.09, 0.34)], (40, 150, 70))
    return [(sky, 0.05), (sea, 0.4), (sand, 1.0)]


def _forest(rng: _Rng, new: Callable[[], _Brush]) -> list[tuple[_Brush, float]]:
    sky, far, near = new(), new(), new()
    sky.gradient((150, 200, 150), (190, 225, 170))
    for x in _spots(rng, 14):
        far.box(x, 0.2, 0.05, 0.6, (70, 96, 70))
        far.ellipse(x + 0.025, 0.22, 0.17, 0.2, (84, 140, 84))
    far.box(0, 0.7, PERIOD, 0.3, (84, 140, 84))
    near.hills(rng, 0.8, 0.04, (52, 112, 48))
    for x in _spots(rng, 6):
        near.box(x, 0.15, 0.09, 0.62, (96, 66, 42))
        near.polygon([(x - 0.2, 0.36), (x + 0.045, -0.15), (x + 0.29, 0.36)], (36, 100, 52))
    return [(sky, 0.0), (far, 0.4), (near, 1.0)]


def _night(rng: _Rng, new: Callable[[], _Brush]) -> list[tuple[_Brush, float]]:
    sky, hills, ground = new(), new(), new()
    sky.gradient((10, 12, 44), (36, 36, 92))
    for _ in range(90):
        sky.ellipse(rng.uniform(0, PERIOD), rng.uniform(0, 0.65), 0.011, 0.011, (250, 250, 210))
    for x in (0.7, 2.7):
        sky.ellipse(x, 0.17, 0.09, 0.09, (250, 244, 200))
        sky.ellipse(x + 0.045, 0.15, 0.075, 0.075, (14, 16, 52))
    hills.hills(rng, 0.78, 0.2, (28, 34, 66), bumps=6)
    ground.hills(rng, 0.8, 0.04, (18, 46, 44))
    for x in _spots(rng, 9):
        ground.polygon([(x, 0.8), (x + 0.03, 0.66), (x + 0.06, 0.8)], (12, 32, 34))
    return [(sky, 0.05), (hills, 0.4), (ground, 1.0)]


def _snow(rng: _Rng, new: Callable[[], _Brush]) -> list[tuple[_Brush, float]]:
    sky, peaks, ground = new(), new(), new()
    sky.gradient((150, 186, 224), (226, 238, 250))
    for x in _spots(rng, 7):
        top, half = rng.uniform(0.12, 0.32), rng.uniform(0.32, 0.45)
        peaks.polygon([(x - half, 0.8), (x, top), (x + half, 0.8)], (112, 128, 156))
        cap = 0.35 * half
        peaks.polygon(
            [(x - cap, top + 0.35 * (0.8 - top)), (x, top), (x + cap, top + 0.35 * (0.8 - top))],
            (250, 252, 255),
        )
    ground.hills(rng, 0.76, 0.06, (240, 246, 252))
    for x in _spots(rng, 7):
        for k in range(3):
            y = 0.5 + 0.09 * k
            ground.polygon(
                [(x - 0.05 - 0.025 * k, y + 0.1), (x, y - 0.03), (x + 0.05 + 0.025 * k, y + 0.1)],
                (40, 92, 84),
            )
    return [(sky, 0.0), (peaks, 0.35), (ground, 1.0)]


def _underwater(rng: _Rng, new: Callable[[], _Brush]) -> list[tuple[_Brush, float]]:
    water, far, floor = new(), new(), new()
    water.gradient((60, 190, 220), (10, 60, 130))
    for x in _spots(rng, 6):
        water.polygon([(x, 0), (x + 0.12, 0), (x - 0.12, 1), (x - 0.36, 1)], (70, 170, 215))
    far.hills(rng, 0.9, 0.3, (20, 84, 140), bumps=4)
    for _ in range(20):
        far.ellipse(rng.uniform(0, PERIOD), rng.uniform(0.1, 0.7), 0.018, 0.018, (180, 230, 245))
    floor.hills(rng, 0.88, 0.06, (214, 190, 130))
    for x in _spots(rng, 8):
        colour: Colour = (40, 150, 90) if rng.random() < 0.6 else (220, 90, 110)
        for k in range(3):
            tip = rng.uniform(0.5, 0.7)
            floor.polygon(
                [
                    (x + 0.05 * k, 0.9),
                    (x + 0.05 * k + rng.uniform(-0.04, 0.06), tip),
                    (x + 0.05 * k + 0.045, 0.9),
                ],
                colour,
            )
    return [(water, 0.1), (far, 0.5), (floor, 1.0)]


def _desert(rng: _Rng, new: Callable[[], _Brush]) -> list[tuple[_Brush, float]]:
    sky, dunes, sand = new(), new(), new()
    sky.gradient((250, 196, 110), (255, 236, 190))
    for x in (0.9, 2.9):
        sky.ellipse(x, 0.2, 0.1, 0.1, (255, 250, 220))
    dunes.hills(rng, 0.78, 0.22, (226, 160, 84), bumps=3)
    sand.hills(rng, 0.8, 0.05, (236, 186, 108))
    for x in _spots(rng, 5):
        sand.box(x, 0.42, 0.07, 0.4, (60, 130, 66))
        sand.box(x - 0.1, 0.52, 0.05, 0.14, (60, 130, 66))
        sand.box(x - 0.1, 0.62, 0.12, 0.045, (60, 130, 66))
        sand.box(x + 0.12, 0.47, 0.05, 0.14, (60, 130, 66))
        sand.box(x + 0.05, 0.57, 0.12, 0.045, (60, 130, 66))
    return [(sky, 0.05), (dunes, 0.35), (sand, 1.0)]


def _sunset(rng: _Rng, new: Callable[[], _Brush]) -> list[tuple[_Brush, float]]:
    sky, skyline, ground = new(), new(), new()
    sky.gradient((110, 50, 120), (255, 150, 70), until=0.8)
    for x in (0.5, 2.5):
        sky.ellipse(x, 0.52, 0.16, 0.16, (255, 226, 120))
    for x in _spots(rng, 16):
        top, w = rng.uniform(0.3, 0.62), rng.uniform(0.16, 0.28)
        skyline.box(x, top, w, 0.9 - top, (76, 36, 84))
        for k in range(3):
            skyline.box(
                x + 0.03 + 0.05 * k, top + 0.05 + 0.07 * int(rng.integers(3)), 0.025, 0.03, (255, 200, 110)
            )
    ground.box(0, 0.78, PERIOD, 0.22, (52, 28, 58))
    for i in range(8):
        ground.box(i * PERIOD / 8, 0.9, 0.2, 0.02, (150, 80, 90))
    return [(sky, 0.05), (skyline, 0.4), (ground, 1.0)]


_PAINTERS: dict[str, _Painter] = {
    "street": _street, "beach": _beach, "forest": _forest, "night": _night,
    "snow": _snow, "underwater": _underwater, "desert": _desert, "sunset": _sunset,
}  # fmt: skip


@lru_cache(maxsize=128)
def layers(scene: str, variant: int, height: int) -> tuple[Layer, ...]:
    """Return the scene's strips, back to front, for an image height in pixels; `variant` in 0..VARIANTS-1."""
    rng = np.random.default_rng([variant, *scene.encode()])
    painted = _PAINTERS[scene](rng, lambda: _Brush(height))
    return tuple(Layer(brush.strip(), speed) for brush, speed in painted)


def backdrop(scene: str, variant: int, camera: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the scene for camera positions (T,), in image heights: (T, H, W, 3) float32 in 0..255."""
    frames = np.zeros((len(camera), height, width, 3), np.float32)
    for layer in layers(scene, variant, height):
        seen = _scroll(layer.strip, camera * layer.speed * height, width)
        frames = frames * (1.0 - seen[..., 3:]) + seen[..., :3]
    return frames


def _scroll(strip: Strip, offsets_px: np.ndarray, width: int) -> np.ndarray:
    """Cut windows of a wrapping strip at fractional offsets: (T, H, width, 4), linear between pixels."""
    whole = np.floor(offsets_px).astype(np.int64)
    part = (offsets_px - whole).astype(np.float32)[:, None, None, None]
    columns = (whole[:, None] + np.arange(width + 1)) % strip.shape[1]
    wide = strip[:, columns].transpose(1, 0, 2, 3)
    return wide[:, :, :-1] * (1.0 - part) + wide[:, :, 1:] * part
