"""Clips of the world: contents (`ClipSpec`, drawn from a seed) and appearance at any times (`render`).

Everything is closed-form in time (seconds): clips have any length, frames can be drawn alone, and a seed
gives the same clip on every machine. Lengths are in image heights. What captions omit (colour cast, size,
arrangement, pace) is drawn too: only an appearance memory can keep it.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import vocabulary
from .captions import caption
from .scenery import GROUND, VARIANTS, backdrop
from .sprites import sprite

FPS = 8
SWIMMERS = frozenset(
    {
        "whale",
        "octopus",
        "fish",
        "dolphin",
        "balloon",
        "butterfly",
        "helicopter",
        "rocket",
        "airplane",
        "ufo",
        "bird",
        "parrot",
        "owl",
    }
)


@dataclass(frozen=True)
class ClipSpec:
    """Contents of a clip; names are the vocabulary's. `direction`: -1 (left) or 1 (right)."""

    noun: str
    scene: str
    motion: str
    direction: int
    told_direction: int  # `direction` if the caption tells it, else 0
    caption: str
    variant: int
    camera_start: float
    pace: float  # periods of the motion per second
    phase: float
    size: float  # side of the sprite
    x: float  # its resting position
    y: float
    cast: tuple[float, float, float]  # gains of red, green, blue over the whole image
    sprite_cast: tuple[float, float, float]


def sample(
    seed: int | tuple[int, ...], nouns: tuple[str, ...] | None = None, held_out: bool = False, **fixed: str
) -> ClipSpec:
    """Draw the clip of a seed. `nouns` limits the nouns; `noun`, `scene`, `motion` fix them by name."""
    rng = np.random.default_rng(seed)
    choice = {
        "noun": _one(rng, nouns or tuple(n.name for n in vocabulary.NOUNS)),
        "scene": _one(rng, tuple(s.name for s in vocabulary.SCENES)),
        "motion": _one(rng, tuple(m.name for m in vocabulary.MOTIONS)),
    } | fixed
    # without a direction in the caption the sprite moves the way it faces: learning both at once means
    # drawing two heads
    told = 0 if choice["motion"] != "run" or rng.random() < 0.5 else 1 if rng.random() < 0.5 else -1
    direction = told or vocabulary.noun(choice["noun"]).facing or 1
    size = rng.uniform(0.58, 0.7)
    floats = choice["noun"] in SWIMMERS or choice["motion"] in ("float", "circle")
    return ClipSpec(
        **choice,
        direction=direction,
        told_direction=told,
        caption=caption(choice["noun"], choice["scene"], choice["motion"], told, rng, held_out),
        variant=int(rng.integers(VARIANTS)),
        camera_start=rng.uniform(0, 4),
        pace=rng.uniform(0.85, 1.15),
        phase=rng.uniform(0, 1),
        size=size,
        x=0.5 + rng.uniform(-0.08, 0.08),
        y=0.5 + rng.uniform(-0.04, 0.04) if floats else GROUND + 0.08 - size / 2,
        cast=tuple(rng.uniform(0.88, 1.08, 3)),
        sprite_cast=tuple(rng.uniform(0.85, 1.1, 3)),
    )


def frame_times(frames: int, start: float = 0.0) -> np.ndarray:
    """Return times in seconds of consecutive frames from second `start`."""
    return start + np.arange(frames) / FPS


def render(
    spec: ClipSpec, times: np.ndarray, height: int = 64, width: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Render frames (T, H, W, 3) uint8 and the sprite's coverage (T, H, W) float32 in 0..1 at `times` in
    seconds.
    """
    width = width or height
    t = np.asarray(times, np.float64)
    pose = _poses(spec, t)
    frames = backdrop(spec.scene, spec.variant, pose["camera"], height, width)
    masks = np.zeros(frames.shape[:3], np.float32)
    cast = np.asarray(spec.sprite_cast, np.float32)
    for i in range(len(t)):
        centre = (0.5 * width + (pose["x"][i] - 0.5) * height, pose["y"][i] * height)
        layer = _posed_sprite(spec, centre, pose["scale"][i], pose["angle"][i], height, width)
        masks[i] = layer[..., 3] / 255.0
        frames[i] = frames[i] * (1.0 - masks[i, ..., None]) + np.minimum(layer[..., :3] * cast, 255.0)
    frames *= np.asarray(spec.cast, np.float32)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8), masks


def _poses(spec: ClipSpec, t: np.ndarray) -> dict[str, np.ndarray]:
    """Return camera position, sprite centre, scale and angle (degrees) at each time."""
    turn = 2 * np.pi * (spec.pace * t + spec.phase)
    zero, one = np.zeros_like(t), np.ones_like(t)
    # the camera always moves a little, so something moves in every clip
    pose = {
        "camera": spec.camera_start + 0.12 * spec.direction * t,
        "x": spec.x + zero,
        "y": spec.y + zero,
        "scale": one,
        "angle": zero,
    }
    if spec.motion == "run":  # the camera follows the runner: the scenery passes by
        pose["camera"] = spec.camera_start + 0.9 * spec.direction * spec.pace * t
        pose["y"] = spec.y - 0.035 * np.abs(np.sin(1.5 * turn))
        pose["angle"] = 4.0 * np.sin(3.0 * turn)
    elif spec.motion == "jump":
        pose["y"] = spec.y - 0.3 * np.abs(np.sin(0.5 * turn))
    elif spec.motion == "float":
        pose["y"] = spec.y + 0.13 * np.sin(0.5 * turn)
    elif spec.motion == "circle":
        pose["x"], pose["y"] = spec.x + 0.17 * np.cos(0.6 * turn), spec.y + 0.17 * np.sin(0.6 * turn)
    elif spec.motion == "pulse":
        pose["scale"] = 0.8 + 0.25 * np.sin(0.6 * turn)
    elif spec.motion == "rock":
        pose["angle"] = 22.0 * np.sin(0.7 * turn)
    return pose


def _posed_sprite(
    spec: ClipSpec, centre: tuple[float, float], scale: float, angle: float, height: int, width: int
) -> np.ndarray:
    """Paint the sprite alone on a transparent image: (H, W, 4) float32 premultiplied, 0..255."""
    side = max(2, round(spec.size * height))
    facing = vocabulary.noun(spec.noun).facing
    flip = -1.0 if facing and facing != spec.direction else 1.0
    a = np.deg2rad(angle)
    cos, sin = np.cos(a) / scale, np.sin(a) / scale
    # Pillow wants the inverse map, image to sprite
    cx, cy = centre
    matrix = (
        flip * cos,
        flip * sin,
        flip * (-cos * cx - sin * cy) + side / 2,
        -sin,
        cos,
        sin * cx - cos * cy + side / 2,
    )
    posed = sprite(spec.noun, side).transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(posed, dtype=np.float32)


def _one(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]
