"""Random values of a training step: they belong to a sample of its batch, whichever process computes it.

A batch is that of all processes together. Sample `i` of step `s` follows from (seed, s, i) alone, its clip as well as its noise; so
however many processes share a batch, they take the step that one would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch


def share(total: int, rank: int, processes: int) -> range:
    """The samples of a batch of `total` that process `rank` computes: each by one process, in order, as evenly as it can be."""
    return range(total * rank // processes, total * (rank + 1) // processes)


def generators(seed: int, step: int, samples: Sequence[int], again: int = 0) -> list[np.random.Generator]:
    """A generator for each sample of the step; others for every time that the samples are used `again`."""
    return [
        np.random.default_rng([seed, step, sample, again] if again else [seed, step, sample])
        for sample in samples
    ]


class Noise:
    """Random values for the samples of a batch, each sample's from a generator of its own.

    A sequence of calls gives a sample the same values whatever other samples the batch holds.
    """

    def __init__(self, rngs: Sequence[np.random.Generator]):
        self.seeds = [int(rng.integers(2**62)) for rng in rngs]

    @cached_property
    def _own(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def normal(self, like_B: torch.Tensor) -> torch.Tensor:
        """Standard normal values of the shape, dtype and device of `like_B`, whose first axis is the batch."""
        return torch.stack([torch.randn(like_B.shape[1:], generator=own) for own in self._own]).to(like_B)

    def uniform(self, like: torch.Tensor) -> torch.Tensor:
        """A value in [0, 1) for each sample (B,), float32, on the device of `like`."""
        return torch.cat([torch.rand(1, generator=own) for own in self._own]).to(like.device)

    def integers(self, high: int, like: torch.Tensor) -> torch.Tensor:
        """A whole number in 0..high-1 for each sample (B,), on the device of `like`."""
        return torch.cat([torch.randint(high, (1,), generator=own) for own in self._own]).to(like.device)

    def to(self, device: torch.device) -> Noise:
        """For a device that would wait for the CPU's: values of its own, from the same seeds."""
        return self if device.type == "cpu" else HashedNoise(torch.tensor(self.seeds, device=device))


class HashedNoise(Noise):
    """Noise made on the device where it is used: hashes of (key, call, place).

    keys_B: int64, on that device. No call waits for another device, or depends on anything but the keys, so a step that draws from it
    can be compiled.
    """

    def __init__(self, keys_B: torch.Tensor):
        self.keys_B, self._calls = keys_B, 0

    def normal(self, like_B: torch.Tensor) -> torch.Tensor:
        count = math.prod(like_B.shape[1:])
        bits = self._bits((count + 1) // 2)
        radius, angle = (_unit(bits >> 32).log() * -2).sqrt(), _unit(bits) * (2 * math.pi)
        both = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)  # Box-Muller: two values of 64 bits
        return both[:, :count].reshape(like_B.shape).to(like_B.dtype)

    def uniform(self, like: torch.Tensor) -> torch.Tensor:
        return (self._bits(1)[:, 0] >> 40 & 0xFFFFFF).float() * 2.0**-24

    def integers(self, high: int, like: torch.Tensor) -> torch.Tensor:
        return (self._bits(1)[:, 0] >> 32 & 0xFFFFFFFF) % high

    def _bits(self, count: int) -> torch.Tensor:
        """int64 (B, count) of 64 random bits each, the next call's: SplitMix64 (Steele et al. 2014) from the key on."""
        place = torch.arange(1, count + 1, device=self.keys_B.device) + (self._calls << 40)
        self._calls += 1
        bits = self.keys_B[:, None] + place * -0x61C8864680B583EB
        for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
            bits = (bits ^ (bits >> shift & (1 << 64 - shift) - 1)) * factor
        return bits


def _unit(bits: torch.Tensor) -> torch.Tensor:
    """The low 32 bits as a float32 in (0, 1]."""
    return ((bits & 0xFFFFFFFF).float() + 0.5) * 2.0**-32
