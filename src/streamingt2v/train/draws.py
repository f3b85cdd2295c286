"""Random values of a training step, which belong to a sample and not to a process.

A batch spans all processes. Clip and noise of sample `i` in step `s` depend on (seed, s, i) only, so any
number of processes takes the same step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch


def share(total: int, rank: int, processes: int) -> range:
    """Return the samples of process `rank`, as evenly distributed as possible, in order."""
    return range(total * rank // processes, total * (rank + 1) // processes)


def generators(seed: int, step: int, samples: Sequence[int], again: int = 0) -> list[np.random.Generator]:
    """Return a generator per sample; `again` numbers the reuses of a batch."""
    return [
        np.random.default_rng([seed, step, sample, again] if again else [seed, step, sample])
        for sample in samples
    ]


class Noise:
    """Random values for a batch, with one generator per sample.

    The same calls give a sample the same values, whatever else is in the batch.
    """

    def __init__(self, rngs: Sequence[np.random.Generator]):
        self.seeds = [int(rng.integers(2**62)) for rng in rngs]

    @cached_property
    def _own(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def normal(self, like_B: torch.Tensor) -> torch.Tensor:
        """Return standard normal values with shape, dtype and device of `like_B`; axis 0 is the batch."""
        return torch.stack([torch.randn(like_B.shape[1:], generator=own) for own in self._own]).to(like_B)

    def uniform(self, like: torch.Tensor) -> torch.Tensor:
        """Return one float32 value in [0, 1) per sample (B,), on the device of `like`."""
        return torch.cat([torch.rand(1, generator=own) for own in self._own]).to(like.device)

    def integers(self, high: int, like: torch.Tensor) -> torch.Tensor:
        """Return one integer in 0..high-1 per sample (B,), on the device of `like`."""
        return torch.cat([torch.randint(high, (1,), generator=own) for own in self._own]).to(like.device)

    def to(self, device: torch.device) -> Noise:
        """Return a source that draws on `device` without waiting for the CPU: other values, same seeds."""
        return self if device.type == "cpu" else HashedNoise(torch.tensor(self.seeds, device=device))


class HashedNoise(Noise):
    """Noise drawn on its device: hashes of (key, call, position).

    keys_B: int64, on that device. Calls depend on the keys only and need no other device, so a step can be
    compiled.
    """

    def __init__(self, keys_B: torch.Tensor):
        self.keys_B, self._calls = keys_B, 0

    def normal(self, like_B: torch.Tensor) -> torch.Tensor:
        count = math.prod(like_B.shape[1:])
        bits = self._bits((count + 1) // 2)
        radius, angle = (_unit(bits >> 32).log() * -2).sqrt(), _unit(bits) * (2 * math.pi)
        both = torch.cat(
            [radius * angle.cos(), radius * angle.sin()], 1
        )  # Box-Muller: two values per 64 bits
        return both[:, :count].reshape(like_B.shape).to(like_B.dtype)

    def uniform(self, like: torch.Tensor) -> torch.Tensor:
        return (self._bits(1)[:, 0] >> 40 & 0xFFFFFF).float() * 2.0**-24

    def integers(self, high: int, like: torch.Tensor) -> torch.Tensor:
        return (self._bits(1)[:, 0] >> 32 & 0xFFFFFFFF) % high

    def _bits(self, count: int) -> torch.Tensor:
        """Return int64 (B, count) of 64 random bits: SplitMix64 (Steele et al. 2014) from the key."""
        place = torch.arange(1, count + 1, device=self.keys_B.device) + (self._calls << 40)
        self._calls += 1
        bits = self.keys_B[:, None] + place * -0x61C8864680B583EB
        for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
            bits = (bits ^ (bits >> shift & (1 << 64 - shift) - 1)) * factor
        return bits


def _unit(bits: torch.Tensor) -> torch.Tensor:
    """Map the low 32 bits to float32 in (0, 1]."""
    return ((bits & 0xFFFFFFFF).float() + 0.5) * 2.0**-32
