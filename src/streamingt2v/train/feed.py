"""The batches of a training in their order, drawn when they are asked for or ahead by processes of their own.

A sample follows from (seed, number of the batch, its place in it) alone, so who draws it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .draws import Noise, generators, share
from .task import Batch, Task


@dataclass(frozen=True)
class Feed(Dataset):
    """The share of process `rank` of `processes` in each batch; `batch`: samples that are asked for, of all processes.

    `repeat`: how many steps in a row use a batch, each with noise of its own. `workers`: processes that draw ahead, 0 for none.
    """

    task: Task
    seed: int
    batch: int
    rank: int = 0
    processes: int = 1
    repeat: int = 1
    workers: int = 0

    def total(self, step: int) -> int:
        """Return how many samples the step has, of all processes."""
        return self.task.batch_size(step // self.repeat, self.batch)

    def mine(self, step: int) -> range:
        """Return which of them this process computes; may be none."""
        return share(self.total(step), self.rank, self.processes)

    def steps(self, first: int, end: int, device: torch.device) -> Iterator[Batch]:
        """Yield what each of the steps `first` to `end` - 1 trains on, noise included, on the device."""
        numbers = range(first // self.repeat, (end - 1) // self.repeat + 1)
        for number, drawn in zip(numbers, self._drawn(numbers) if numbers else (), strict=True):
            moved = {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in drawn.items()
            }
            for step in range(max(first, number * self.repeat), min(end, (number + 1) * self.repeat)):
                yield {**moved, "noise": Noise(self._generators(number, step % self.repeat)).to(device)}

    def __getitem__(self, number: int) -> Batch:
        """A batch without its noise."""
        rngs = self._generators(number)
        Noise(rngs)  # what it takes from the generators comes before what the samples take
        return self.task.batch(rngs, number)

    def __len__(self) -> int:
        raise TypeError("a training has as many batches as it asks for")

    def _drawn(self, numbers: Sequence[int]) -> Iterator[Batch]:
        if not self.workers:
            return map(self.__getitem__, numbers)
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=numbers,
            num_workers=self.workers,
            prefetch_factor=2,
            collate_fn=_as_it_is,
        )
        return iter(loader)

    def _generators(self, number: int, again: int = 0) -> list[Any]:
        samples = self.mine(number * self.repeat) or range(1)  # one without a share goes along, for nothing
        return generators(self.seed, number, samples, again)


def _as_it_is(batch: Any) -> Any:
    return batch
