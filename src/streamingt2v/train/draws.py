"""What a training step draws at random: values that belong to a sample of the step's batch, whoever computes it.

A batch is that of all processes together. Sample `i` of step `s` follows from (seed, s, i) alone, its clip as well as its noise; so
however many processes share a batch, they take the step that one would.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def share(total: int, rank: int, processes: int) -> range:
    """The samples of a batch of `total` that process `rank` computes: each by one process, in order, as evenly as it can be."""
    return range(total * rank // processes, total * (rank + 1) // processes)


def generators(seed: int, step: int, samples: Sequence[int], again: int = 0) -> list[np.random.Generator]:
    """A generator for each sample of the step; others for every time that the samples are used `again`."""
    return [np.random.default_rng([seed, step, sample, again] if again else [seed, step, sample]) for sample in samples]


class Noise:
    """Random values for the samples of a batch, each sample's from a generator of its own, on the CPU, so that every device gets the same.

    A sequence of calls gives a sample the same values whatever other samples the batch holds.
    """

    def __init__(self, rngs: Sequence[np.random.Generator]):
        self._own = [torch.Generator().manual_seed(int(rng.integers(2**62))) for rng in rngs]

    def normal(self, like_B: torch.Tensor) -> torch.Tensor:
        """Standard normal values of the shape, dtype and device of `like_B`, whose first axis is the batch."""
        return torch.stack([torch.randn(like_B.shape[1:], generator=own) for own in self._own]).to(like_B)

    def uniform(self, like: torch.Tensor) -> torch.Tensor:
        """A value in [0, 1) for each sample (B,), float32, on the device of `like`."""
        return torch.cat([torch.rand(1, generator=own) for own in self._own]).to(like.device)

    def integers(self, high: int, like: torch.Tensor) -> torch.Tensor:
        """A whole number in 0..high-1 for each sample (B,), on the device of `like`."""
        return torch.cat([torch.randint(high, (1,), generator=own) for own in self._own]).to(like.device)
