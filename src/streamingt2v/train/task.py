"""Protocol between a recipe and the training loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

Batch = dict[str, Any]


class Task(Protocol):
    """A recipe for the loop. Samples of a batch must stay independent, except through `gathered`."""

    @property
    def module(self) -> torch.nn.Module:
        """Everything trained, as module(batch) -> {"loss": ..., other metrics}, each per sample (B,).

        Random values come from batch["noise"], a `Noise`.
        """

    def batch_size(self, step: int, batch: int) -> int:
        """Return the number of samples in batch `step` (1 or more) if `batch` are requested."""

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        """Draw one sample per generator, using only that (CPU tensors, or lists of plain values)."""

    def export(self, folder: Path) -> None:
        """Write the trained parts as model folders; the loop has put the averaged weights in."""

    def sample(self, folder: Path, step: int) -> None:
        """Write images that show the training's progress; may do nothing."""
