"""Images and videos from files, as RGB frames of the size that is asked for. Videos are streamed, never held.

A frame is uint8 (H, W, 3). When a size is given, a frame covers it: scaled until both sides are filled, the overhang cut off evenly.
What a file says about how it is to be shown is obeyed: turned and mirrored, pixels that are not square, colours, transparency (over black).
Everything unreadable is a MediaError with path and reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike

import numpy as np

from ..errors import RequestError
from . import stills
from .container import MediaWarning, decoded, open_video, pixel_stretch, stretch_of
from .look import look
from .pixels import Frame, Shown, cover, size_shown
from .rates import Rate, rate_of
from .stills import Picture

__all__ = [
    "Frame",
    "MediaWarning",
    "VideoInfo",
    "count_frames",
    "last_frames",
    "playback_rate",
    "probe_video",
    "read_image",
    "read_video",
]


@dataclass(frozen=True)
class VideoInfo:
    """frames: as the file's header says, None if it does not. height, width: as shown. fps: frames a second, None if unknown."""

    frames: int | None
    height: int
    width: int
    fps: Rate | None


def read_image(path: str | PathLike[str], height: int, width: int) -> Frame:
    """The image as uint8 (height, width, 3), covering the size; of a moving one the first frame. MediaError if it is none."""
    with stills.opened_image(path) as image:
        return np.array(cover(stills.as_rgb(image), height, width))


def image_notes(path: str | PathLike[str]) -> list[str]:
    """What there is to say about an image to start from, a line each. MediaError if it is none."""
    moving = stills.is_moving(path)
    return ["the image moves; its first frame is taken (extend goes on with all of them)"] if moving else []


def probe_video(path: str | PathLike[str]) -> VideoInfo:
    """Size and rate of a video, from its header and its first frame. MediaError if none decodes."""
    first = next(decoded(path))
    if isinstance(first, Picture):
        seen = look(path)
        return VideoInfo(seen.frames, seen.height, seen.width, seen.rate)
    with open_video(path) as (_, stream):
        height, width = size_shown(first, pixel_stretch(stream))
        return VideoInfo(
            stream.frames or None, height, width, rate_of(stream.average_rate) or rate_of(stream.guessed_rate)
        )


def playback_rate(path: str | PathLike[str]) -> Rate | None:
    """Frames a second that a video is played at, exact; None if the file does not tell. Decodes it, see `look`."""
    return look(path).rate


def read_video(
    path: str | PathLike[str], height: int | None = None, width: int | None = None
) -> Iterator[Frame]:
    """The frames of the first video stream, uint8 (H, W, 3), one at a time; `height` and `width` are given together or not at all.

    Frames come as they are stored, whatever their time stamps, in the size of the first where none is given. What cannot be decoded is
    passed over, and a `MediaWarning` at the end says so. MediaError if nothing decodes.
    """
    shown = _shown(path, height, width)
    for frame in decoded(path):
        yield shown(frame)


def last_frames(
    path: str | PathLike[str], n: int, height: int | None = None, width: int | None = None
) -> Frame:
    """The last `n` frames, uint8 (T, H, W, 3); T is less than `n` only if the video is shorter. Holds `n` frames."""
    if n < 1:
        raise RequestError("n", n, "must be 1 or more")
    shown = _shown(path, height, width)
    return np.stack([shown(frame) for frame in deque(decoded(path), maxlen=n)])


def count_frames(path: str | PathLike[str]) -> int:
    """How many frames `read_video` gives: exact, by decoding them all."""
    return look(path).frames


def _shown(path: str | PathLike[str], height: int | None, width: int | None) -> Shown:
    if (height is None) != (width is None):
        raise ValueError("give height and width together, or neither")
    return Shown((height, width) if height is not None and width is not None else None, stretch_of(path))
