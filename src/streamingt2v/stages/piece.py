"""What passes between the stages: finished frames as floats, with the state to go on from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from streamingt2v.types import State


@dataclass(frozen=True)
class Piece:
    """Consecutive new frames (T, 3, H, W) float32 in [-1, 1]; `state`: all that the stages so far need to go on after them."""

    frames_TCHW: torch.Tensor
    state: State
    final: bool
