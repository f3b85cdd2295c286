"""Scenes seen by a camera: layers with parallax and endless scenery in both directions.

A layer is cut into slots; slot i depends on (arrangement, scene, layer, i) only, so any stretch can be drawn
alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from .places import SCENES, Layer
from .shapes import Sketch, mixed, paint

FEET = 0.9
TIMES = ("day", "evening", "night")
_FINE = 4  # samples per pixel along each axis

_TINT = {"day": (1.0, 1.0, 1.0), "evening": (1.0, 0.8, 0.66), "night": (0.4, 0.48, 0.7)}
THING_TINT = {"day": (1.0, 1.0, 1.0), "evening": (1.0, 0.94, 0.86), "night": (0.84, 0.86, 0.96)}


def backdrop(
    scene: str, time: str, arrangement: int, camera: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Return the scene for left borders `camera` (T,): (T, H, W, 3) float32 in 0..255."""
    frames = np.repeat(_sky(scene, time, arrangement, height, width)[None], len(camera), 0)
    tint = np.asarray(_TINT[time], np.float32)
    for number, layer in enumerate(SCENES[scene][1]):
        seen = scrolled(
            lambda left, right, at=(number, layer): _stretch(scene, time, arrangement, *at, left, right),
            camera * layer.speed,
            height,
            width,
        )
        frames *= 1.0 - seen[..., 3:]
        frames += seen[..., :3] * tint
    return frames


def speeds(
    scene: str, time: str, arrangement: int, camera: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Return the speed of the visible layer per pixel, (T, H, W) float32: 0 sky, 1 ground."""
    shown = np.zeros((len(camera), height, width), np.float32)
    for number, layer in enumerate(SCENES[scene][1]):
        seen = scrolled(
            lambda left, right, at=(number, layer): _stretch(scene, time, arrangement, *at, left, right),
            camera * layer.speed,
            height,
            width,
        )
        shown = np.where(seen[..., 3] > 0.5, np.float32(layer.speed), shown)
    return shown


def _stretch(
    scene: str, time: str, arrangement: int, number: int, layer: Layer, left: float, right: float
) -> Sketch:
    s = Sketch()
    if layer.band:
        layer.band(s, left, right, time)
    if layer.draw:
        for i in range(int(np.floor(left / layer.slot)) - 1, int(np.floor(right / layer.slot)) + 2):
            rng = np.random.default_rng([arrangement, number, i + 2**20, *scene.encode()])
            layer.draw(s, layer.slot * (i + 0.5 + rng.uniform(-0.12, 0.12)), rng, time)
    return s


def scrolled(draw: Callable[[float, float], Sketch], left: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut windows at left borders `left` (T,) out of a strip: (T, H, W, 4) premultiplied, alpha in 0..1.

    Samples are a quarter pixel apart: windows are placed to an eighth of a pixel and edges stay sharp.
    """
    fine = height * _FINE
    whole = np.rint(left * fine).astype(np.int64)
    first, last = int(whole.min()), int(whole.max()) + width * _FINE
    sketch = draw(first / fine, last / fine)
    image = paint(
        ((points * fine - (first, 0), colour) for points, colour in sketch.shapes), last - first, fine
    )
    strip = np.asarray(image.convert("RGBa").resize((last - first, height), Image.Resampling.BOX), np.float32)
    total = np.cumsum(
        np.pad(strip, ((0, 0), (1, 0), (0, 0))), 1, dtype=np.float64
    )  # running sums: a window is a difference
    edges = (whole - first)[:, None] + _FINE * np.arange(width + 1)
    seen = (np.diff(total[:, edges], axis=2).transpose(1, 0, 2, 3) / _FINE).astype(np.float32)
    seen[..., 3] /= 255.0
    return seen


def _sky(scene: str, time: str, arrangement: int, height: int, width: int) -> np.ndarray:
    """Paint what is at infinity: a gradient, and sun, clouds or moon and stars."""
    (top, bottom), _ = SCENES[scene]
    if scene == "underwater":
        top, bottom = (
            mixed(c, tuple(round(v * t) for v, t in zip(c, _TINT[time], strict=True)), 1.0)
            for c in (top, bottom)
        )  # type: ignore[arg-type]
    elif time == "evening":
        top, bottom = (150, 110, 170), (255, 186, 120)
    elif time == "night":
        top, bottom = (18, 22, 60), (52, 62, 112)
    rng = np.random.default_rng([arrangement, 7])
    s, span = Sketch(), width / height
    u, v = rng.uniform(0.15, 0.85) * span, rng.uniform(0.12, 0.26)
    if scene == "underwater":
        for _ in range(3):
            s.ellipse(
                rng.uniform(0, span), rng.uniform(0.06, 0.5), 0.03, 0.03, mixed(bottom, (255, 255, 255), 0.4)
            )
    elif time == "night":
        for _ in range(9):
            s.ellipse(rng.uniform(0, span), rng.uniform(0.03, 0.4), 0.012, 0.012, (250, 248, 220))
        s.ellipse(u, v, 0.085, 0.085, (248, 242, 206))
    elif time == "evening":
        s.ellipse(u, v + 0.16, 0.12, 0.12, (255, 232, 150))
    else:
        if rng.random() < 0.5:
            s.ellipse(u, v, 0.09, 0.09, (255, 236, 140))
        for _ in range(2):
            x, y = rng.uniform(0, span), rng.uniform(0.08, 0.3)
            s.ellipse(x, y, 0.15, 0.045, (250, 252, 254))
            s.ellipse(x + 0.04, y - 0.03, 0.08, 0.05, (250, 252, 254))
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    frame = np.broadcast_to(
        np.asarray(top, np.float32) * (1 - rows) + np.asarray(bottom, np.float32) * rows, (height, width, 3)
    ).copy()
    seen = scrolled(lambda left, right: s, np.zeros(1), height, width)[0]
    return frame * (1 - seen[..., 3:]) + seen[..., :3]
