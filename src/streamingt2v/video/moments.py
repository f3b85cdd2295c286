"""Single moments of a video file: the frames shown at given times, found by seeking instead of reading from the start."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import av
import numpy as np

from ..errors import MediaError
from .container import open_video, pixel_stretch
from .pixels import Frame, Shown

ROUNDING = 1e-6
"""Seconds by which a time stamp may be late, since time bases are fractions."""


def seconds_of(path: str | PathLike[str]) -> float:
    """Return how long a video is shown, by its header. MediaError if it does not say or cannot be read."""
    with open_video(path) as (container, stream):
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if container.duration:
            return container.duration / av.time_base
        if stream.frames and stream.average_rate:
            return float(stream.frames / stream.average_rate)
    raise MediaError(f"{path}: its header does not say how long it is; copy it into an .mp4 file")


def frames_at(path: str | PathLike[str], times: Sequence[float], height: int, width: int) -> Frame:
    """Return the frame on screen at each of `times`, uint8 (T, height, width, 3), upright and covering the size.

    times: seconds from the first frame, 0 or more, in any order; beyond the end the last frame stays on screen. MediaError if the file
    cannot be decoded there.
    """
    wanted = sorted(set(times))
    found: dict[float, Frame] = {}
    with open_video(path) as (container, stream):
        base, start, convert = (
            stream.time_base,
            stream.start_time or 0,
            Shown((height, width), pixel_stretch(stream)),
        )
        if base is None:
            raise MediaError(f"{path}: has no time base")
        try:
            container.seek(start + int(wanted[0] / base), stream=stream)
            before: av.VideoFrame | None = None
            for frame in container.decode(stream):
                shown = float(((frame.pts or 0) - start) * base)
                while len(found) < len(wanted) and wanted[len(found)] < shown - ROUNDING:
                    found[wanted[len(found)]] = convert(before or frame)
                before = frame
                if len(found) == len(wanted):
                    break
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"{path}: cannot be decoded at {wanted[len(found)]:.2f} s: {error}") from error
        if before is None:
            raise MediaError(f"{path}: no frame can be decoded at {wanted[0]:.2f} s")
        for time in wanted[len(found) :]:
            found[time] = convert(before)
    return np.stack([found[time] for time in times])
