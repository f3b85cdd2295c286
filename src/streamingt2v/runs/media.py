"""What a run makes of the files that its request names: the rate it plays at, their sound, and what there is to say about them."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import ModelConfig, Request
from ..video.look import Look, look
from ..video.rates import Rate
from ..video.reader import image_notes
from ..video.sound import can_be_copied
from .header import KeptSound


@dataclass(frozen=True)
class MediaPlan:
    """fps: of the video to make. sound: how much of that of the source goes into it. notes: a line each, for people."""

    fps: Rate
    sound: KeptSound
    notes: tuple[str, ...]


def plan_media(request: Request, config: ModelConfig) -> MediaPlan:
    """The plan of a request. It is played at the rate asked for, else at that of the video it goes on from, else at the model's own.

    Videos are decoded once to their end for it, see `look`. MediaError for a file that cannot be read.
    """
    source = request.video or request.refine
    if source is None:
        notes = image_notes(request.image) if request.image is not None else []
        return MediaPlan(request.fps or config.fps, "none", tuple(notes))
    seen = look(source)
    fps = request.fps or seen.rate or config.fps
    keeps_pace = seen.rate in (None, fps)
    notes = [*seen.notes, *_pace_notes(request, config, seen, fps), *_sound_notes(request, seen, keeps_pace)]
    sound: KeptSound = "none"
    if seen.sounds and keeps_pace:
        sound = (
            "whole" if request.refine is not None and request.num_frames in (None, seen.frames) else "under"
        )
    return MediaPlan(fps, sound, tuple(notes))


def _pace_notes(request: Request, config: ModelConfig, seen: Look, fps: Rate) -> list[str]:
    """Where something will not play at its own pace."""
    rate, notes = seen.rate, []
    if rate is None:
        return [f"the video names no rate; it is played at {_said(fps)} frames a second"]
    if not seen.steady:
        same = f"all are given the same time, {_said(fps)} a second, and in all as much as before"
        notes += [f"the video's frames last unequally long; {same}"]
    if request.video is not None and (rate != config.fps or fps != rate):
        pace = f"its motion plays {float(fps / rate):.3g} times, the new motion {float(fps / config.fps):.3g} times as fast as it is"
        notes += [
            f"the video has {_said(rate)} frames a second, the model makes {config.fps}; at {_said(fps)} {pace}"
        ]
    elif fps != rate:
        notes += [
            f"the video has {_said(rate)} frames a second; at {_said(fps)} it plays {float(fps / rate):.3g} times as fast"
        ]
    return notes


def _sound_notes(request: Request, seen: Look, keeps_pace: bool) -> list[str]:
    if not seen.sounds:
        return []
    if not keeps_pace:
        return ["the video's sound is left out, since its frames are played at another rate"]
    notes = (
        ["the video's sound is kept under its own frames; the new ones are silent"]
        if request.video is not None
        else []
    )
    anew = [codec for codec in seen.sounds if not can_be_copied(codec)]
    return notes + (
        [f"the video's sound ({', '.join(anew)}) is encoded as AAC, since an MP4 does not hold it as it is"]
        if anew
        else []
    )


def _said(rate: Rate) -> str:
    return f"{float(rate):.5g}"
