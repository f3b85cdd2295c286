"""Memory of a long video: anchor frame, last frames, position."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..types import State


@dataclass(frozen=True)
class StreamMemory:
    """Memory of constant size. It holds frames, not features, so it can be saved and serves every backbone.

    anchor_CHW: the frame that keeps the appearance. window_TCHW: the last `overlap` frames. position: number
    of frames so far. Frames are float32 on the CPU in [-1, 1], not quantised (method.md: Sampling).
    """

    anchor_CHW: torch.Tensor
    window_TCHW: torch.Tensor
    position: int

    def __post_init__(self) -> None:
        if self.window_TCHW.ndim != 4 or self.anchor_CHW.shape != self.window_TCHW.shape[1:]:
            shapes = tuple(self.window_TCHW.shape), tuple(self.anchor_CHW.shape)
            raise ValueError(f"window and anchor do not match: {shapes}")
        if self.position < 1:
            raise ValueError(f"position={self.position} must be 1 or more")

    @classmethod
    def start(cls, frames_TCHW: torch.Tensor, overlap: int, anchor_index: int = 0) -> StreamMemory:
        """Return the memory after a first chunk.

        If it is shorter than `overlap`, its first frame is repeated in front.

        Raise ValueError if there is no frame, `overlap` is below 1, or the anchor is outside of the frames.
        """
        frames_TCHW = _checked(frames_TCHW)
        if overlap < 1:
            raise ValueError(f"overlap={overlap} must be 1 or more")
        if not 0 <= anchor_index < len(frames_TCHW):
            raise ValueError(f"anchor_index={anchor_index} must be one of the {len(frames_TCHW)} frames")
        missing = max(0, overlap - len(frames_TCHW))
        window_TCHW = torch.cat([frames_TCHW[:1].expand(missing, -1, -1, -1), frames_TCHW])[-overlap:]
        return cls(frames_TCHW[anchor_index].clone(), window_TCHW.clone(), len(frames_TCHW))

    def advance(self, frames_TCHW: torch.Tensor) -> StreamMemory:
        """Return the memory after one or more new frames."""
        frames_TCHW = _checked(frames_TCHW)
        if frames_TCHW.shape[1:] != self.anchor_CHW.shape:
            shapes = tuple(frames_TCHW.shape[1:]), tuple(self.anchor_CHW.shape)
            raise ValueError(f"frames do not fit the memory: {shapes}")
        window_TCHW = torch.cat([self.window_TCHW, frames_TCHW])[-self.overlap :].clone()
        return StreamMemory(self.anchor_CHW, window_TCHW, self.position + len(frames_TCHW))

    @property
    def overlap(self) -> int:
        """Number of frames in the window."""
        return len(self.window_TCHW)

    def state_dict(self) -> State:
        """Return it as a flat mapping, without loss."""
        return {"anchor_CHW": self.anchor_CHW, "window_TCHW": self.window_TCHW, "position": self.position}

    @classmethod
    def from_state(cls, state: State) -> StreamMemory:
        """Read what `state_dict` returned."""
        return cls(state["anchor_CHW"], state["window_TCHW"], int(state["position"]))


def _checked(frames_TCHW: torch.Tensor) -> torch.Tensor:
    if frames_TCHW.ndim != 4 or len(frames_TCHW) == 0 or not frames_TCHW.is_floating_point():
        found = f"{frames_TCHW.dtype} {tuple(frames_TCHW.shape)}"
        raise ValueError(f"frames must be float (T, C, H, W) with T >= 1, not {found}")
    frames_TCHW = frames_TCHW.detach().to("cpu", torch.float32).contiguous()
    low, high = frames_TCHW.aminmax()
    if not (low >= -1 and high <= 1):  # NaN fails as well
        raise ValueError(f"frames must lie in [-1, 1], not [{float(low)}, {float(high)}]")
    return frames_TCHW
