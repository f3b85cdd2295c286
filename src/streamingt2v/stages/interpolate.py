"""Insert frames for a higher playback rate (method.md: StreamingSVD).

OpenCV's dense inverse search estimates motion in both directions; both neighbours are moved along it to the
time between them, and mixed. It runs on the CPU, reads two frames at a time, and is deterministic.

For a rate of k times the model's, the model makes every k-th frame of the file, starting with the first. The
file has exactly the frames asked for; none is extrapolated after the last.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import MissingExtra
from ..types import State
from ..video.piece import Piece, to_uint8


class InterpolateStage:
    """Insert `factor` - 1 frames, one or more, between two.

    total: number of frames to yield, None without end.
    """

    def __init__(self, factor: int, total: int | None):
        self.factor, self.total = factor, total
        self._search = _motion_search()

    def stream(self, pieces: Iterable[Piece], state: State | None = None) -> Iterator[Piece]:
        """Yield each piece with the frames that lead to it; stop at `total`.

        A piece's state is that of the piece taken in, with its last frame. state: of the last piece kept;
        `pieces` then continue after the one that it came from.
        """
        last_CHW: torch.Tensor | None = state["interpolate.last"] if state else None
        given = int(state["interpolate.given"]) if state else 0
        for piece in pieces:
            frames_TCHW = self._between(last_CHW, piece.frames_TCHW)
            if self.total is not None:
                frames_TCHW = frames_TCHW[: self.total - given]
            last_CHW, given = piece.frames_TCHW[-1].clone(), given + len(frames_TCHW)
            yield Piece(
                frames_TCHW,
                {**piece.state, "interpolate.last": last_CHW, "interpolate.given": given},
                piece.final,
            )

    def _between(self, last_CHW: torch.Tensor | None, frames_TCHW: torch.Tensor) -> torch.Tensor:
        """Return the frames with those that lead to each.

        last_CHW: the frame before the first, None at the start.
        """
        made = [frames_TCHW[:1]] if last_CHW is None else []
        seen_TCHW = frames_TCHW if last_CHW is None else torch.cat([last_CHW[None], frames_TCHW])
        for before_CHW, after_CHW in pairwise(seen_TCHW):
            made += [self._lead(before_CHW, after_CHW), after_CHW[None]]
        return torch.cat(made)

    def _lead(self, before_CHW: torch.Tensor, after_CHW: torch.Tensor) -> torch.Tensor:
        """Return the `factor` - 1 frames between two."""
        forth_2HW, back_2HW = self._motion(before_CHW, after_CHW), self._motion(after_CHW, before_CHW)
        moments = [k / self.factor for k in range(1, self.factor)]
        return torch.stack([_at_moment(t, before_CHW, after_CHW, forth_2HW, back_2HW) for t in moments])

    def _motion(self, source_CHW: torch.Tensor, target_CHW: torch.Tensor) -> torch.Tensor:
        """Return the motion from `source` to `target`, (2, H, W): pixels right and down."""
        grey = (
            np.ascontiguousarray(to_uint8(frame).astype(np.float32).mean(-1).round().astype(np.uint8))
            for frame in (source_CHW, target_CHW)
        )
        return torch.from_numpy(self._search.calc(*grey, None)).permute(2, 0, 1)


def _motion_search() -> Any:
    """Return OpenCV's dense inverse search. MissingExtra if it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra("fps", "interpolate") from error
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def _at_moment(
    t: float,
    before_CHW: torch.Tensor,
    after_CHW: torch.Tensor,
    forth_2HW: torch.Tensor,
    back_2HW: torch.Tensor,
) -> torch.Tensor:
    """Return the frame at time 0 < t < 1 for even motion; the nearer frame's motion weighs more."""
    to_before_2HW = -(1 - t) * t * forth_2HW + t * t * back_2HW
    to_after_2HW = (1 - t) * (1 - t) * forth_2HW - t * (1 - t) * back_2HW
    return (1 - t) * _fetched(before_CHW, to_before_2HW) + t * _fetched(after_CHW, to_after_2HW)


def _fetched(frame_CHW: torch.Tensor, offset_2HW: torch.Tensor) -> torch.Tensor:
    """Sample the frame at each pixel's offset (right, down), bilinearly; the border is repeated outside."""
    height, width = frame_CHW.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x_HW, y_HW = columns + offset_2HW[0], rows + offset_2HW[1]
    grid_HW2 = torch.stack([(2 * x_HW + 1) / width - 1, (2 * y_HW + 1) / height - 1], dim=-1)
    return F.grid_sample(frame_CHW[None], grid_HW2[None], padding_mode="border", align_corners=False)[0]
