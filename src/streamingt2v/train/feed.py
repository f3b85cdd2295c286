"""The batches of a training in order, drawn on demand or ahead by worker processes.

A sample depends on (seed, batch number, position) only, so it does not matter who draws it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .draws import Noise, generators, share
from .task import Batch, Task


@dataclass(frozen=True)
class Feed(Dataset):
    """The share of process `rank` of `processes` in each batch.

    batch: requested samples per step, over all processes. repeat: consecutive steps that reuse a batch, with
    new noise each. workers: processes that draw ahead; 0: none.
    """

    task: Task
    seed: int
    batch: int
    rank: int = 0
    processes: int = 1
    repeat: int = 1
    workers: int = 0

    def total(self, step: int) -> int:
        """Return the number of samples in the step, over all processes."""
        return self.task.batch_size(step // self.repeat, self.batch)

    def mine(self, step: int) -> range:
        """Return the samples of this process; may be empty."""
        return share(self.total(step), self.rank, self.processes)

    def steps(self, first: int, end: int, device: torch.device) -> Iterator[Batch]:
        """Yield the batches of steps `first` to `end` - 1, with noise, on the device."""
        numbers = range(first // self.repeat, (end - 1) // self.repeat + 1)
        for number, drawn in zip(numbers, self._drawn(numbers) if numbers else (), strict=True):
            moved = {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in drawn.items()
            }
            for step in range(max(first, number * self.repeat), min(end, (number + 1) * self.repeat)):
                yield {**moved, "noise": Noise(self._generators(number, step % self.repeat)).to(device)}

    def __getitem__(self, number: int) -> Batch:
        """Draw a batch without noise."""
        rngs = self._generators(number)
        Noise(rngs)  # keeps the generators' order: noise seeds first, then samples
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
        samples = self.mine(number * self.repeat) or range(
            1
        )  # a process without a share computes one sample, which is not counted
        return generators(self.seed, number, samples, again)


def _as_it_is(batch: Any) -> Any:
    return batch
