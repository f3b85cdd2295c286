"""Counter-based noise: a value depends on (seed, stage, frame, step) and on nothing else.

So any chunk can be computed again alone, whatever the chunking, on any machine: that makes resuming, parallel work and tests
simple. Philox counters give the bits (their stream is guaranteed by numpy), Box-Muller makes them normal.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import numpy as np
import torch


def frame_noise(
    seed: int, stage: str, frames: Iterable[int], step: int, shape_CHW: tuple[int, ...]
) -> torch.Tensor:
    """Standard normal noise, float32 (T, C, H, W), for frame indices of the video (0 or more) at a denoising step.

    step counts from 0; the first latents, which belong to no step, take -1. `stage` names a stream of its own.
    """
    count = math.prod(shape_CHW)
    bits = _bits(seed, stage, ((frame, step) for frame in frames), (count + 1) // 2)
    return torch.from_numpy(_normal(bits)[:, :count].reshape(-1, *shape_CHW))


def mixed_noise(
    seed: int, stage: str, frames: Iterable[int], step: int, shape_CHW: tuple[int, ...], mixed: float
) -> torch.Tensor:
    """`frame_noise` of which a part `mixed` (0..1) of the variance is the same in all frames of the video, whatever the stage.

    "Mixed noise" of PYoCo (Ge et al. 2023): frames that start alike end alike, for networks that were trained so. 0 is `frame_noise`.
    """
    own = frame_noise(seed, stage, frames, step, shape_CHW)
    return (
        (1 - mixed) ** 0.5 * own + mixed**0.5 * frame_noise(seed, "common", [0], step, shape_CHW)
        if mixed
        else own
    )


def integer(seed: int, stage: str, index: int, step: int, high: int) -> int:
    """A uniform integer in [0, high), keyed as `frame_noise` is; `index` is for instance the number of an overlap."""
    if high < 1:
        raise ValueError(f"high={high} must be 1 or more")
    bits = _bits(seed, stage, [(index, step)], 1)
    return (int(bits[0, 0]) * high) >> 64


def _bits(seed: int, stage: str, places: Iterable[tuple[int, int]], count: int) -> np.ndarray:
    """uint64 (places, count): a row for each (index, step), from Philox at counter (0, 0, step + 1, index)."""
    digest = hashlib.blake2b(f"{seed}:{stage}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    generator = np.random.Philox(key=key)
    state = generator.state
    rows = []
    for index, step in places:
        if index < 0 or step < -1:
            raise ValueError(f"frame {index} must be 0 or more, and step {step} -1 or more")
        # The two low words are left to the generator, which counts through them.
        state["state"]["counter"] = np.array([0, 0, step + 1, index], dtype=np.uint64)
        generator.state = state
        rows.append(generator.random_raw(count))
    return np.stack(rows) if rows else np.empty((0, count), dtype=np.uint64)


def _normal(bits: np.ndarray) -> np.ndarray:
    """uint64 (N, M) to standard normal float32 (N, 2 M). In float64 until the end, so that platforms' last bits round away."""
    radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32))
    angle = ((bits & np.uint64(0xFFFFFFFF)).astype(np.float64) + 0.5) * (2 * math.pi * 2.0**-32)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
