"""Clips of the world: contents (`ClipSpec`, drawn from a seed) and appearance at any time (`render`).

Everything is closed-form in time (seconds): clips have any length, frames can be drawn alone, and a seed
gives the same clip on every machine. Lengths are in image heights; nothing moves faster than `FASTEST` per
frame. What captions omit (colour, pattern, time of day, arrangement) is drawn too: only a memory can keep it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import motion, scenery, vocabulary
from .captions import Told, caption
from .motion import FPS as FPS
from .scenery import FEET, THING_TINT, backdrop, scrolled
from .shapes import Colour, Sketch, paint
from .things import COLOURS, PATTERNS, figure

FLIERS = frozenset({"fish", "butterfly", "rocket", "balloon"})  # they need no ground
_FINE = 4
_WALLS: tuple[tuple[Colour, Colour], ...] = (
    ((176, 104, 84), (206, 140, 116)),
    ((126, 132, 146), (160, 166, 178)),
    ((150, 116, 78), (184, 150, 106)),
    ((104, 132, 108), (140, 166, 140)),
)


@dataclass(frozen=True)
class ClipSpec:
    """Contents of a clip; names are the vocabulary's. `told`: contents of its caption."""

    noun: str
    colour: str
    pattern: str
    scene: str
    time: str
    motion: str
    direction: int  # -1 left, 1 right
    told: Told
    caption: str
    arrangement: int
    wall: int  # which wall stands there, if any
    size: float  # the subject's height
    pose: motion.Pace


def sample(
    seed: int | tuple[int, ...], held_out: bool = False, told_looks: float = 0.4, **fixed: str
) -> ClipSpec:
    """Draw the clip of a seed; `fixed` sets noun, colour, pattern, scene, time or motion.

    `told_looks`: share of captions that tell the colour, and of those that tell the pattern.
    """
    rng = np.random.default_rng(seed)
    drawn = {
        "noun": _one(rng, [n.name for n in vocabulary.NOUNS]),
        "colour": _one(rng, list(COLOURS)),
        "pattern": _one(rng, list(PATTERNS)),
        "scene": _one(rng, [s.name for s in vocabulary.SCENES]),
        "time": _one(rng, ["day", "day", "day", "evening", "night"]),
        "motion": _one(
            rng,
            ["run", "run", "run", "jump", "float", "rock", "still", "pan", "hide", "hide", "away", "away"],
        ),
    } | fixed
    # without a direction in the caption it is right: learning both at once means drawing two heads
    told_way = 0 if drawn["motion"] not in ("run", "away") or rng.random() < 0.5 else int(rng.choice((-1, 1)))
    direction = told_way or (1 if drawn["motion"] == "run" else int(rng.choice((-1, 1))))
    told = Told(
        drawn["noun"],
        drawn["scene"],
        drawn["motion"],
        direction=told_way,
        colour=drawn["colour"] if rng.random() < told_looks else None,
        pattern=drawn["pattern"] if rng.random() < told_looks else None,
        time=drawn["time"] if rng.random() < (0.25 if drawn["time"] == "day" else 0.75) else None,
    )
    text = caption(told, rng, held_out)
    flies = drawn["noun"] in FLIERS or drawn["motion"] == "float"
    hides = drawn["motion"] in ("hide", "away")
    return ClipSpec(
        **drawn,
        direction=direction,
        told=told,
        caption=text,
        arrangement=int(rng.integers(2**31)),
        wall=int(rng.integers(len(_WALLS))),
        size=rng.uniform(0.4, 0.44) if hides else rng.uniform(0.56, 0.64),
        pose=motion.pace(rng, 0.03 if flies and hides else 0.13 if flies else 0.0),
    )


def frame_times(frames: int, start: float = 0.0) -> np.ndarray:
    """Return times in seconds of consecutive frames from second `start`."""
    return start + np.arange(frames) / FPS


def poses(spec: ClipSpec, times: np.ndarray) -> motion.Poses:
    """Return camera and subject positions at `times` (T,) in seconds: ground truth."""
    return motion.poses(spec.motion, spec.direction, spec.pose, np.asarray(times, np.float64))


def render(
    spec: ClipSpec, times: np.ndarray, height: int = 64, width: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Render frames (T, H, W, 3) uint8 and the subject's coverage (T, H, W) float32 at `times` in seconds."""
    width = width or height
    p = poses(spec, times)
    frames = backdrop(
        spec.scene, spec.time, spec.arrangement, p.camera - 0.5 * (width / height - 1), height, width
    )
    masks = np.zeros(frames.shape[:3], np.float32)
    tint = np.asarray(THING_TINT[spec.time], np.float32)
    front = _front(spec, height, width)
    for i in range(len(frames)):
        layer = _layer(placed(spec, p, i), height, width)
        masks[i] = layer[..., 3]
        frames[i] = frames[i] * (1.0 - layer[..., 3:]) + layer[..., :3] * tint
        if front is not None:
            masks[i] *= 1.0 - front[..., 3]
            frames[i] = frames[i] * (1.0 - front[..., 3:]) + front[..., :3] * tint
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8), masks


def flow(spec: ClipSpec, times: np.ndarray, height: int = 64, width: int | None = None) -> np.ndarray:
    """Return the flow to the next frame, (T - 1, 2, H, W) float32 in pixels (dx, dy).

    Layers and the subject move rigidly, by its middle: turns, steps and stretches are omitted.
    """
    width = width or height
    p, front = poses(spec, times), _front(spec, height, width)
    camera = p.camera - 0.5 * (width / height - 1)
    masks = render(spec, times[:-1], height, width)[1]
    moved = np.zeros((len(times) - 1, 2, height, width), np.float32)
    layers = scenery.speeds(spec.scene, spec.time, spec.arrangement, camera[:-1], height, width)
    moved[:, 0] = -layers * (np.diff(p.camera) * height)[:, None, None]
    for i, mask in enumerate(masks):
        by = (p.x[i + 1] - p.x[i]) * height, (p.rise[i] - p.rise[i + 1]) * height
        for axis in (0, 1):
            moved[i, axis][mask > 0.5] = by[axis]
            if front is not None:
                moved[i, axis][front[..., 3] > 0.5] = 0.0
    return moved


def placed(spec: ClipSpec, p: motion.Poses, i: int) -> list[tuple[np.ndarray, Colour]]:
    """Return the subject's shapes in image heights at pose `i`."""
    a = np.deg2rad(p.angle[i])
    mirror = np.array([p.facing[i], 1.0])
    turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    squash = np.array([1.0 / p.stretch[i], p.stretch[i]])
    at = np.array([p.x[i], FEET - spec.pose.lift - p.rise[i]])
    pivot = np.array([0.0, -0.5 * spec.size if spec.pose.lift else 0.0])
    shapes = figure(spec.noun, spec.colour, spec.pattern, float(p.step[i])).shapes
    return [
        ((points * (spec.size * mirror * squash) - pivot) @ turn + pivot + at, colour)
        for points, colour in shapes
    ]


def _layer(shapes: list[tuple[np.ndarray, Colour]], height: int, width: int) -> np.ndarray:
    """Paint shapes (image heights, x from the middle) as (H, W, 4), premultiplied, alpha in 0..1."""
    fine = height * _FINE
    image = paint(
        ((points * fine + (0.5 * width * _FINE - 0.5 * fine, 0), colour) for points, colour in shapes),
        width * _FINE,
        fine,
    )
    layer = np.asarray(image.convert("RGBa").resize((width, height), Image.Resampling.BOX), np.float32).copy()
    layer[..., 3] /= 255.0
    return layer


def _front(spec: ClipSpec, height: int, width: int) -> np.ndarray | None:
    """Return the wall that the subject hides behind."""
    if spec.motion != "hide":
        return None
    stone, joint = _WALLS[spec.wall]
    s = Sketch()
    left, right = motion.wall(spec.direction)
    s.box(left, motion.WALL_TOP, right - left, 1.0 - motion.WALL_TOP, stone)
    s.box(left - 0.02, motion.WALL_TOP - 0.05, right - left + 0.04, 0.06, joint)
    for row, y in enumerate(np.arange(motion.WALL_TOP + 0.14, 1.0, 0.17)):
        s.box(left, y, right - left, 0.02, joint)
        for x in np.arange(left + (0.12 if row % 2 else 0.26), right, 0.28):
            s.box(x, y - 0.15, 0.02, 0.15, joint)
    return _layer(s.shapes, height, width)


def _one(rng: np.random.Generator, names: list[str]) -> str:
    return names[int(rng.integers(len(names)))]


__all__ = ["FPS", "ClipSpec", "frame_times", "poses", "render", "sample", "scrolled"]
