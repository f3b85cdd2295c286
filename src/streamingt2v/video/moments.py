"""Read the frames at given times of a video by seeking."""

from collections.abc import Sequence
from os import PathLike

import av
import numpy as np

from ..errors import MediaError
from .container import open_video, pixel_stretch, repeats
from .pixels import Frame, Shown

ROUNDING = 1e-6
"""Seconds by which a time stamp may be late, because of its time base."""


def seconds_of(path: str | PathLike[str]) -> float:
    """Return a video's duration by its header. MediaError if the header has none or cannot be read."""
    with open_video(path) as (container, stream):
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if container.duration:
            return container.duration / av.time_base
        if stream.frames and stream.average_rate:
            return float(stream.frames / stream.average_rate)
    raise MediaError(f"{path}: its header has no duration; copy it into an .mp4 file")


def frames_at(path: str | PathLike[str], times: Sequence[float], height: int, width: int) -> Frame:
    """Return the frame on screen at each of `times`, uint8 (T, height, width, 3), covering the size.

    times: seconds from the first frame, 0 or more, in any order; beyond the end the last frame stays.
    MediaError if the file cannot be decoded there.
    """
    wanted = sorted(set(times))
    found: dict[float, Frame] = {}
    with open_video(path) as (container, stream):
        convert = Shown((height, width), pixel_stretch(stream))
        base, start = stream.time_base, stream.start_time or 0
        if base is None:
            raise MediaError(f"{path}: has no time base")
        try:
            container.seek(start + int(wanted[0] / base), stream=stream)
            before: av.VideoFrame | None = None
            packets = (packet for packet in container.demux(stream) if not repeats(packet))
            for frame in (frame for packet in packets for frame in packet.decode()):
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
