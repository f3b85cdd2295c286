"""A job: one video that was asked for, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..config import Request
from ..video.rates import Rate

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = get_args(Status)
Kind = Literal["create", "extension", "remix", "refinement"]


@dataclass(frozen=True)
class Job:
    """As of one moment. Times are Unix times in seconds.

    model: what clients call it. frames_total: of the finished video, those of an extended one included; frames_done: that can be watched
    now. step of steps: of the denoising of the chunk or window in the making. source: id of the job that was extended, remixed or refined.
    revision: grows with every change of any job. cancelling: it was told to stop and will within one denoising step.
    first_seconds: from the request to the first new frames. worked_seconds: spent on it. notes: what of the prompts has no effect, or
    another than the words say. error_code, error_message: why it failed.
    """

    id: str
    number: int
    kind: Kind
    model: str
    request: Request
    status: Status
    revision: int
    width: int
    height: int
    fps: Rate
    frames_total: int
    frames_done: int
    step: int
    steps: int
    source: str | None
    cancelling: bool
    created_at: float
    started_at: float | None
    completed_at: float | None
    expires_at: float | None
    first_seconds: float | None
    worked_seconds: float
    notes: tuple[str, ...]
    error_code: str | None
    error_message: str | None

    @property
    def ended(self) -> bool:
        """Nothing will change any more."""
        return self.status in ("completed", "failed", "cancelled")

    @property
    def progress(self) -> int:
        """Whole percent of the frames that are done; 100 for a completed job alone."""
        if self.status == "completed":
            return 100
        return min(99, 100 * self.frames_done // self.frames_total)

    @property
    def new_frames(self) -> int:
        """Frames made, without those of the video that was extended."""
        return max(0, self.frames_done - (self.frames_total - (self.request.num_frames or 0)))

    @property
    def frames_per_second(self) -> float | None:
        """New frames for each second of work; None before the first."""
        return self.new_frames / self.worked_seconds if self.new_frames and self.worked_seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the frames so far; None before the first."""
        rate = self.frames_per_second
        return (self.frames_total - self.frames_done) / rate if rate else None
