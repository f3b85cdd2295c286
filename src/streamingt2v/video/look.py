"""A whole video looked at once: how many frames, how large, how fast, and what there is to say about it. No pixel is converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import av

from ..errors import MediaError
from .container import Damage, Decoded, decoded, is_moving_image, open_video, pixel_stretch
from .pixels import colours_of, has_alpha, is_wide, size_shown
from .rates import Rate, rate_of, rate_of_times, rate_to_json
from .sound import codec_of
from .stills import Picture


@dataclass(frozen=True)
class Look:
    """A video. height, width: as shown. rate: None if nothing tells. steady: all frames last as long as each other.

    sounds: the codecs of its sound. notes: what of it is shown otherwise than it is stored, or lost; a line each.
    """

    frames: int
    height: int
    width: int
    rate: Rate | None
    steady: bool = True
    sounds: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**vars(self), "rate": None if self.rate is None else rate_to_json(self.rate)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Look:
        """The one of `to_json`."""
        lists = {name: tuple(values[name]) for name in ("sounds", "notes")}
        return cls(**{**values, **lists, "rate": rate_of(values["rate"])})


def look(path: str | PathLike[str]) -> Look:
    """Decode all of it, once for as long as the file does not change. MediaError if nothing decodes."""
    try:
        now = Path(path).stat()
    except OSError as error:
        raise MediaError(f"{path}: no such file") from error
    return _look(str(Path(path).absolute()), str(path), now.st_size, now.st_mtime_ns)


@lru_cache(maxsize=64)
def _look(path: str, shown: str, size: int, changed: int) -> Look:
    return look_closely(shown, lambda frame, count: None)


def look_closely(path: str | PathLike[str], watch: Callable[[Decoded, int], None]) -> Look:
    """As `look`, every time. watch: sees each frame with its number, from 1; what it raises ends the looking."""
    seen, damage = _Seen(), Damage()
    for frame in decoded(path, damage):
        seen.add(frame)
        watch(frame, seen.count)
    stretch, named, tick, sounds = _headers(path)
    assert seen.first is not None, "decoded says so"
    height, width = (
        seen.first.pixels.shape[:2] if isinstance(seen.first, Picture) else size_shown(seen.first, stretch)
    )
    rate, steady = seen.rate(named, tick, bool(str(damage)))
    woven = ["the video is interlaced; its fields are made one frame (bwdif)"] if damage.interlaced else []
    notes = (
        woven
        + seen.notes()
        + ([f"the video is damaged: {damage}; {seen.count} frames could be read"] if str(damage) else [])
    )
    return Look(seen.count, height, width, rate, steady, sounds, tuple(notes))


class _Seen:
    """What the frames say."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Decoded | None = None
        self._times: list[Fraction] = []
        self._last: Picture | None = None
        self._said: dict[str, None] = {}

    def add(self, frame: Decoded) -> None:
        """One more."""
        self.count += 1
        self.first = self.first or frame
        if isinstance(frame, Picture):
            self._times.append(frame.time)
            self._last = frame
            return
        if frame.pts is not None and frame.time_base is not None:
            self._times.append(frame.pts * frame.time_base)
        if is_wide(frame):
            self._said[
                f"the video has the colours of {colours_of(frame)}; they are brought into those of a usual screen"
            ] = None
        elif has_alpha(frame) and not frame.format.has_palette:
            self._said["the video can be transparent; it is laid over black"] = None

    def notes(self) -> list[str]:
        """A line a thing."""
        return list(self._said)

    def rate(self, named: list[Rate], tick: Fraction, damaged: bool) -> tuple[Rate | None, bool]:
        """Of all frames, and whether it is steady."""
        if self._last is not None:  # moving images say how long each frame lasts, the last one too
            total = self._last.time + self._last.seconds
            mean = rate_of(self.count / total)
            lasting = {b - a for a, b in zip(self._times, [*self._times[1:], total], strict=True)}
            return mean, len(lasting) == 1
        if self.count > 1 and len(self._times) == self.count and not damaged:
            return rate_of_times(self._times, tick, named)
        return (named[0] if named else None), True


def _headers(path: str | PathLike[str]) -> tuple[Fraction, list[Rate], Fraction, tuple[str, ...]]:
    """Stretch of a pixel, the rates that the file names, what its times are rounded to, and the codecs of its sound."""
    if is_moving_image(path):
        return Fraction(1), [], Fraction(1, 1000), ()
    with open_video(path) as (container, stream):
        rates = (stream.guessed_rate, stream.average_rate, stream.base_rate)
        named = [rate for value in rates if (rate := rate_of(value)) is not None]
        tick = stream.time_base or Fraction(1, 1000)
        return pixel_stretch(stream), list(dict.fromkeys(named)), tick, _sounds(container)


def _sounds(container: av.container.InputContainer) -> tuple[str, ...]:
    return tuple(codec_of(stream) for stream in container.streams.audio if stream.codec_context is not None)
