"""Examine a whole video once: frame count, size, rate and notes for people. No pixel is converted."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from os import PathLike
from pathlib import Path

import av

from ..errors import MediaError
from .container import Damage, Decoded, count_videos, decoded, is_moving_image, open_video, pixel_stretch
from .pixels import colours_of, has_alpha, is_askew, is_wide, size_shown
from .rates import Rate, rate_of, rate_of_times
from .sound import codec_of
from .stills import Picture


@dataclass(frozen=True)
class Look:
    """Facts about a video. height, width: as shown. rate: None if unknown. steady: frames last equally long.

    sounds: codecs of its audio tracks. notes: what is shown differently than stored, or lost; a line each.
    """

    frames: int
    height: int
    width: int
    rate: Rate | None
    steady: bool = True
    sounds: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def look(path: str | PathLike[str]) -> Look:
    """Decode the whole file, once until it changes. MediaError if nothing decodes."""
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise MediaError(f"{path}: no such file") from error
    return _look(str(Path(path).absolute()), str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _look(path: str, shown: str, size: int, changed: int) -> Look:
    return look_closely(shown, lambda frame, count: None)


def look_closely(path: str | PathLike[str], watch: Callable[[Decoded, int], None]) -> Look:
    """Decode the whole file like `look`, uncached. watch: gets each frame and its number, from 1."""
    seen, damage = _Seen(), Damage()
    for frame in decoded(path, damage):
        seen.add(frame)
        watch(frame, seen.count)
    stretch, named, tick, sounds, others = _headers(path)
    first = seen.first
    assert first is not None, "`decoded` raises without a frame"
    height, width = first.pixels.shape[:2] if isinstance(first, Picture) else size_shown(first, stretch)
    rate, steady = seen.rate(named, tick, bool(str(damage)))
    notes = ["the video is interlaced; it is deinterlaced (bwdif)"] if damage.interlaced else []
    notes += [*others, *seen.notes]
    if str(damage):
        notes.append(f"the video is damaged: {damage}; {seen.count} frames could be read")
    return Look(seen.count, height, width, rate, steady, sounds, tuple(notes))


def frame_times(path: str | PathLike[str]) -> list[Fraction]:
    """Return when each frame appears, in seconds from the first, then when the last one ends.

    MediaError if a frame has no time, or times do not rise.
    """
    times: list[Fraction] = []
    last = Fraction(0)
    for frame in decoded(path, Damage()):
        if isinstance(frame, Picture):
            times.append(frame.time)
            last = frame.seconds
        elif frame.pts is not None and frame.time_base is not None:
            times.append(frame.pts * frame.time_base)
            last = (frame.duration or 0) * frame.time_base
        else:
            raise MediaError(f"{path}: a frame has no time stamp")
    gaps = sorted(b - a for a, b in itertools.pairwise(times))
    if not gaps or gaps[0] <= 0:
        raise MediaError(f"{path}: its time stamps do not rise")
    return [time - times[0] for time in [*times, times[-1] + (last if last > 0 else gaps[len(gaps) // 2])]]


class _Seen:
    """Facts gathered from the frames."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Decoded | None = None
        self.notes: dict[str, None] = {}  # an ordered set
        self._times: list[Fraction] = []
        self._last: Picture | None = None

    def add(self, frame: Decoded) -> None:
        """Take the next frame."""
        self.count += 1
        self.first = self.first or frame
        if isinstance(frame, Picture):
            self._times.append(frame.time)
            self._last = frame
            return
        if frame.pts is not None and frame.time_base is not None:
            self._times.append(frame.pts * frame.time_base)
        first = self.first
        if isinstance(first, av.VideoFrame) and (frame.width, frame.height) != (first.width, first.height):
            self.notes["the video changes its size on the way; all frames get that of the first"] = None
        if is_askew(frame):
            self.notes["the video is to be shown at a slant; it is rotated to the nearest quarter turn"] = (
                None
            )
        if is_wide(frame):
            self.notes[f"the video's {colours_of(frame)} colours are converted to BT.709 (SDR)"] = None
        elif has_alpha(frame) and not frame.format.has_palette:
            self.notes["the video can be transparent; it is laid over black"] = None

    def rate(self, named: list[Rate], tick: Fraction, damaged: bool) -> tuple[Rate | None, bool]:
        """Return the frame rate, and whether it is steady."""
        if self._last is not None:  # moving images store how long each frame lasts, the last one too
            total = self._last.time + self._last.seconds
            mean = rate_of(self.count / total)
            if mean is None or self.count == 1:
                return mean, True
            rate, steady = rate_of_times(self._times, tick, [mean])
            return (rate, True) if steady else (mean, False)
        rate, steady = named[0] if named else None, True
        if self.count > 1 and len(self._times) == self.count:
            mean, steady = rate_of_times(self._times, tick, named)
            rate = rate if damaged else mean  # lost frames do not change the pace of the others
        return rate, steady


def _headers(path: str | PathLike[str]) -> tuple[Fraction, list[Rate], Fraction, tuple[str, ...], list[str]]:
    """Return pixel aspect ratio, rates in the header, time base, codecs of the audio, notes."""
    if is_moving_image(path):
        return Fraction(1), [], Fraction(1, 100), (), []  # GIFs round to hundredths of a second
    with open_video(path) as (container, stream):
        rates = (stream.guessed_rate, stream.average_rate, stream.base_rate)
        named = [rate for value in rates if (rate := rate_of(value)) is not None]
        tick = stream.time_base or Fraction(1, 1000)
        sounds = tuple(codec_of(s) for s in container.streams.audio if s.codec_context is not None)
        notes = ["the video's subtitles are left out"] if container.streams.subtitles else []
        if (streams := count_videos(container)) > 1:
            notes.append(f"the file holds {streams} videos; the first is used")
        return pixel_stretch(stream), list(dict.fromkeys(named)), tick, sounds, notes
