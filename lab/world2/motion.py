"""Motion of subjects and cameras: closed-form positions, none faster than `FASTEST`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FPS = 8
FASTEST = 3 / 64  # of the image height per frame
WALL_TOP = 0.38  # upper border of the wall to hide behind
WALL = 0.6  # its width
_HIDING = 0.27  # distance of its middle from the image's middle


@dataclass(frozen=True)
class Pace:
    """Motion drawn from a seed. `lift`: height above ground. `waits`: seconds out of sight, in sight."""

    camera: float  # at time 0
    speed: float  # heights per second, of a follower's camera and of a walker
    beat: float  # swings per second
    phase: float
    lift: float
    waits: tuple[float, float]


@dataclass(frozen=True)
class Poses:
    """All (T,). `camera`: left border of the view on the ground layer; `x`: the subject's middle; `step`:
    turns.
    """

    camera: np.ndarray
    x: np.ndarray
    rise: np.ndarray
    angle: np.ndarray
    stretch: np.ndarray
    facing: np.ndarray
    step: np.ndarray


def pace(rng: np.random.Generator, lift: float) -> Pace:
    """Draw a pace for a subject about `lift` above the ground."""
    return Pace(
        camera=rng.uniform(0, 1000),
        speed=rng.uniform(0.24, 0.34),
        beat=rng.uniform(0.38, 0.5),
        phase=rng.uniform(0, 1),
        lift=lift * rng.uniform(0.8, 1.2),
        waits=(rng.uniform(1.8, 2.6), rng.uniform(1.2, 2.0)),
    )


def wall(direction: int) -> tuple[float, float]:
    """Return left and right border of the wall; `direction`: the way to it."""
    middle = 0.5 + _HIDING * direction
    return middle - WALL / 2, middle + WALL / 2


def cycle(motion: str, pace: Pace) -> float:
    """Return the period of `hide` and `away` in seconds."""
    return sum(_phases(motion, pace))


def out_of_sight(motion: str, pace: Pace) -> tuple[float, float]:
    """Return first and last second out of sight within a period of `hide` or `away`."""
    seen, way, gone, _ = _phases(motion, pace)
    return seen + way, seen + way + gone


def _phases(motion: str, p: Pace) -> tuple[float, float, float, float]:
    """Return seconds in sight, leaving, out of sight, returning."""
    way = _reach(motion) / p.speed
    return p.waits[1], way, p.waits[0], way


def _reach(motion: str) -> float:
    return 0.52 if motion == "hide" else 0.84


def poses(motion: str, direction: int, p: Pace, t: np.ndarray) -> Poses:
    """Return the poses at times t (T,) in seconds."""
    zero, one = np.zeros_like(t), np.ones_like(t)
    swing = 2 * np.pi * (p.beat * t + p.phase)
    pose = {
        "camera": p.camera + zero,
        "x": 0.5 + zero,
        "rise": zero,
        "angle": zero,
        "stretch": one,
        "facing": direction * one,
        "step": p.phase + 0.25 * t,
    }
    if motion == "run":  # the camera follows: the scenery passes by
        pose["camera"] = p.camera + direction * p.speed * t
        pose["step"] = p.phase + 3.6 * p.speed * t
        pose["rise"] = 0.012 * np.abs(np.sin(2 * np.pi * pose["step"]))
    elif motion == "jump":
        pose["rise"] = 0.2 * np.abs(np.sin(swing / 2))
    elif motion == "float":
        pose["rise"], pose["x"] = 0.07 + 0.07 * np.sin(swing), 0.5 + 0.06 * np.cos(swing)
    elif motion == "rock":
        pose["angle"] = 13 * np.sin(swing)
        pose["x"] = 0.5 + 0.05 * np.sin(swing)
    elif motion == "still":
        pose["stretch"] = 1 + 0.025 * np.sin(swing)
    elif motion == "pan":  # the camera looks to both sides
        aside = 0.2 * np.sin(swing / 2.2)
        pose["camera"], pose["x"] = p.camera + aside, 0.5 - aside
    elif motion in ("hide", "away"):
        pose |= _walk(motion, direction, p, t)
    return Poses(**pose)


def _walk(motion: str, direction: int, p: Pace, t: np.ndarray) -> dict[str, np.ndarray]:
    """Walk out of sight and back, repeatedly."""
    seen, way, gone, _ = _phases(motion, p)
    at = (t + p.phase * cycle(motion, p)) % cycle(motion, p)
    out = np.clip((at - seen) / way, 0, 1) - np.clip((at - seen - way - gone) / way, 0, 1)
    begin = 0.5 - 0.25 * direction if motion == "hide" else 0.5
    moving = (out > 0) & (out < 1)
    returning = at > seen + way + gone / 2
    return {
        "x": begin + direction * _reach(motion) * out,
        "facing": np.where(returning, -direction, direction).astype(float),
        "step": np.where(moving, 3.6 * _reach(motion) * out, 0.0),
    }
