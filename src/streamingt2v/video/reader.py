"""Read images and videos as RGB frames, uint8 (H, W, 3). Videos are streamed.

Where a size is given, frames cover it: scaled until both sides are filled, then cropped evenly. Orientation,
pixel aspect ratio, colours and transparency (over black) follow the file. MediaError with path and reason for
whatever cannot be read.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike

import numpy as np

from ..errors import RequestError
from . import stills
from .container import decoded, open_video, pixel_stretch, stretch_of
from .look import look
from .pixels import Frame as Frame
from .pixels import Shown, cover, size_shown
from .rates import Rate, rate_of
from .stills import Picture


@dataclass(frozen=True)
class VideoInfo:
    """Facts from a video's header. height, width: as shown. frames, fps: None if unknown."""

    frames: int | None
    height: int
    width: int
    fps: Rate | None


def read_image(path: str | PathLike[str], height: int, width: int) -> Frame:
    """Return an image, or a moving one's first frame, as uint8 (height, width, 3). MediaError for others."""
    with stills.opened_image(path) as image:
        return np.array(cover(stills.as_rgb(image), height, width))


def image_notes(path: str | PathLike[str]) -> list[str]:
    """Return notes on an image to start from, a line each. MediaError for others."""
    moving = stills.is_moving(path)
    return ["the image moves; its first frame is taken (extend goes on with all of them)"] if moving else []


def probe_video(path: str | PathLike[str]) -> VideoInfo:
    """Return size and rate by a video's header and first frame. MediaError if none decodes."""
    first = next(decoded(path))
    if isinstance(first, Picture):
        seen = look(path)
        return VideoInfo(seen.frames, seen.height, seen.width, seen.rate)
    with open_video(path) as (_, stream):
        rate = rate_of(stream.average_rate) or rate_of(stream.guessed_rate)
        return VideoInfo(stream.frames or None, *size_shown(first, pixel_stretch(stream)), rate)


def playback_rate(path: str | PathLike[str]) -> Rate | None:
    """Return a video's exact frame rate, None if unknown. Decodes the file, see `look`."""
    return look(path).rate


def read_video(
    path: str | PathLike[str], height: int | None = None, width: int | None = None
) -> Iterator[Frame]:
    """Yield the frames of the first video stream, uint8 (H, W, 3). Give height and width, or neither.

    Every stored frame comes once, whatever its time stamp; the default size is the first frame's. What cannot
    be decoded is skipped, with a `MediaWarning` at the end. MediaError if nothing decodes.
    """
    shown = _shown(path, height, width)
    for frame in decoded(path):
        yield shown(frame)


def last_frames(
    path: str | PathLike[str], n: int, height: int | None = None, width: int | None = None
) -> Frame:
    """Return the last `n` frames, uint8 (T, H, W, 3), T <= n."""
    if n < 1:
        raise RequestError("n", n, "must be 1 or more")
    shown = _shown(path, height, width)
    return np.stack([shown(frame) for frame in deque(decoded(path), maxlen=n)])


def count_frames(path: str | PathLike[str]) -> int:
    """Return the number of frames that `read_video` yields, by decoding them all."""
    return look(path).frames


def _shown(path: str | PathLike[str], height: int | None, width: int | None) -> Shown:
    if (height is None) != (width is None):
        raise ValueError("give height and width together, or neither")
    return Shown((height, width) if height is not None and width is not None else None, stretch_of(path))
