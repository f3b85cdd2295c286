"""Protocol between a recipe and the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

Batch = dict[str, Any]


class Task(Protocol):
    """A recipe for the loop. Nothing in it may mix the samples of a batch, except through `gathered`."""

    @property
    def module(self) -> torch.nn.Module:
        """All that is trained, under one forward: module(batch) -> {"loss": ..., other metrics}, each with a value a sample (B,).

        What it draws at random it draws by batch["noise"], a `Noise`.
        """

    def batch_size(self, step: int, batch: int) -> int:
        """Return how many samples the batch number `step` has, where `batch` is asked for; 1 or more."""

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        """A sample of each generator, drawn with that alone (CPU tensors, or lists of plain values)."""

    def export(self, folder: Path) -> None:
        """Write the trained parts as model folders (the loop has put the averaged weights in)."""

    def sample(self, folder: Path, step: int) -> None:
        """Write pictures that show how far the training is; may do nothing."""
