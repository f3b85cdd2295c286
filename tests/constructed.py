"""Videos with known values of every metric."""

from __future__ import annotations

import numpy as np

from streamingt2v.metrics.flow import Flow
from streamingt2v.metrics.metric import Metric, Result, Tools, measure


def texture(height: int = 64, width: int = 64, seed: int = 0) -> np.ndarray:
    """Return a smooth periodic random image, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin(
            2 * np.pi * (rng.integers(-4, 5) * x / width + rng.integers(-4, 5) * y / height + rng.random())
        )
        for _ in range(24)
    ]
    picture = np.sum(waves, 0) / np.max(np.abs(np.sum(waves, 0)))
    return np.repeat(np.rint(127.5 + 100 * picture).astype(np.uint8)[..., None], 3, 2)


def moving(frames: int, dx: int = 2, dy: int = 1, seed: int = 0) -> np.ndarray:
    """Return the texture moving by whole pixels, wrapping around."""
    return np.stack([np.roll(texture(seed=seed), (k * dy, k * dx), (0, 1)) for k in range(frames)])


def flat(*levels: float, size: int = 32) -> np.ndarray:
    """Return frames of one grey each."""
    return np.stack([np.full((size, size, 3), level, np.uint8) for level in levels])


def constant_flow(dx: float, dy: float) -> Flow:
    """Return an estimator that always reports the same motion."""
    return Flow(
        "constant",
        lambda a, b: np.broadcast_to(np.array([dx, dy], np.float32)[:, None, None], (2, *a.shape[:2])),
    )


def result_of(metric: Metric, frames: np.ndarray, tools: Tools | None = None) -> Result:
    return measure(iter(frames), [metric], tools)
