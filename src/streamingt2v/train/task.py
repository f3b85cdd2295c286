"""What a recipe is to the loop that trains it, and to those that draw its batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

Batch = dict[str, Any]


class Task(Protocol):
    """What a recipe brings to the loop. Nothing in it may mix the samples of a batch, but by `gathered`."""

    @property
    def module(self) -> torch.nn.Module:
        """All that is trained, under one forward: module(batch) -> {"loss": ..., other metrics}, each with a value a sample (B,).

        What it draws at random it draws by batch["noise"], a `Noise`.
        """

    def batch_size(self, step: int, batch: int) -> int:
        """How many samples the batch number `step` has, where `batch` is asked for; 1 or more."""

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        """A sample of each generator, drawn with that alone (CPU tensors, or lists of plain values)."""

    def export(self, folder: Path) -> None:
        """Write the trained parts as model folders (the loop has put the averaged weights in)."""

    def sample(self, folder: Path, step: int) -> None:
        """Write pictures that show how far the training is; may do nothing."""
