"""Counter-based noise: values depend on (seed, stage, frame, step) only.

Any chunk can be recomputed alone on any machine, which makes resuming, parallel work and tests simple. Bits
come from Philox counters (numpy guarantees the stream), Box-Muller makes them normal.
"""

import hashlib
import math
from collections.abc import Iterable

import numpy as np
import torch


def frame_noise(
    seed: int, stage: str, frames: Iterable[int], step: int, shape_CHW: tuple[int, ...]
) -> torch.Tensor:
    """Return standard normal noise, float32 (T, C, H, W), for frame indices (0 or more) at a denoising step.

    step counts from 0; -1 is the initial latents. `stage` names an independent stream.
    """
    count = math.prod(shape_CHW)
    bits = _bits(seed, stage, ((frame, step) for frame in frames), (count + 1) // 2)
    return torch.from_numpy(_normal(bits)[:, :count].reshape(-1, *shape_CHW))


def mixed_noise(
    seed: int, stage: str, frames: Iterable[int], step: int, shape_CHW: tuple[int, ...], mixed: float
) -> torch.Tensor:
    """Return `frame_noise` with a share `mixed` (0..1) of its variance common to all frames and stages.

    "Mixed noise" of PYoCo (Ge et al. 2023), for networks trained with it. 0 is `frame_noise`.
    """
    own = frame_noise(seed, stage, frames, step, shape_CHW)
    if not mixed:
        return own
    common = frame_noise(seed, "common", [0], step, shape_CHW)
    return (1 - mixed) ** 0.5 * own + mixed**0.5 * common


def integer(seed: int, stage: str, index: int, step: int, high: int) -> int:
    """Return a uniform integer in [0, high), keyed like `frame_noise`; index: e.g. of an overlap."""
    if high < 1:
        raise ValueError(f"high={high} must be 1 or more")
    bits = _bits(seed, stage, [(index, step)], 1)
    return (int(bits[0, 0]) * high) >> 64


def _bits(seed: int, stage: str, places: Iterable[tuple[int, int]], count: int) -> np.ndarray:
    """Return uint64 (places, count), a row per (index, step): Philox at counter (0, 0, step + 1, index)."""
    digest = hashlib.blake2b(f"{seed}:{stage}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    generator = np.random.Philox(key=key)
    state = generator.state
    rows = []
    for index, step in places:
        if index < 0 or step < -1:
            raise ValueError(f"frame {index} must be 0 or more, and step {step} -1 or more")
        # the generator counts through the two low words
        state["state"]["counter"] = np.array([0, 0, step + 1, index], dtype=np.uint64)
        generator.state = state
        rows.append(generator.random_raw(count))
    return np.stack(rows) if rows else np.empty((0, count), dtype=np.uint64)


def _normal(bits: np.ndarray) -> np.ndarray:
    """Map uint64 (N, M) to standard normal float32 (N, 2 M), by float64 to hide platforms' last bits."""
    radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32))
    angle = ((bits & np.uint64(0xFFFFFFFF)).astype(np.float64) + 0.5) * (2 * math.pi * 2.0**-32)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
