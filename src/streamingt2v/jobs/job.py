"""A job: one requested video and its progress."""

from dataclasses import dataclass
from typing import Literal, get_args

from ..config import Request
from ..errors import StreamingT2VError
from ..video.rates import Rate

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = get_args(Status)
Kind = Literal["create", "extension", "remix", "refinement"]


class NoSuchJob(StreamingT2VError):
    """There is no such job, or it was deleted."""


class QueueFull(StreamingT2VError):
    """Too many jobs wait, or too many connections are open; try again later."""

    def __init__(self, most: int, what: str = "jobs wait"):
        super().__init__(f"{most} {what} already; try again later")


class Conflict(StreamingT2VError):
    """The state of the job does not allow this, or an idempotency key was used for another request."""


@dataclass(frozen=True)
class Key:
    """An idempotency key: requests with the same name make one job. digest: hash of the request."""

    name: str
    digest: str


@dataclass(frozen=True)
class Job:
    """A snapshot of a job. Times are Unix times in seconds.

    model: the name that clients use. frames_total: of the finished video, including a source that it extends;
    frames_done: playable now. stage, step of steps: denoising progress of the current chunk or window.
    source: id of the job that was extended, remixed or refined. revision: increases with every change of any
    job. cancelling: it was told to stop, and will within one denoising step. first_seconds: from the request
    to the first new frames. worked_seconds: time spent on it. notes: parts of the request that have no
    effect, or another one than expected. error_code, error_message: why it failed.
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
    stage: str | None
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
        """Return whether the job will not change any more."""
        return self.status in ("completed", "failed", "cancelled")

    @property
    def progress(self) -> int:
        """Return the whole percent of frames done; 100 only for a completed job."""
        if self.status == "completed":
            return 100
        return min(99, 100 * self.frames_done // self.frames_total)

    @property
    def new_frames(self) -> int:
        """Return the number of frames made, without the source of an extension."""
        return max(0, self.frames_done - (self.frames_total - (self.request.num_frames or 0)))

    @property
    def frames_per_second(self) -> float | None:
        """Return new frames per second of work; None before the first."""
        return self.new_frames / self.worked_seconds if self.new_frames and self.worked_seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Return the estimated time to completion; None before the first frame."""
        rate = self.frames_per_second
        return (self.frames_total - self.frames_done) / rate if rate else None
