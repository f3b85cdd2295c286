"""Plan a run's use of the request's files: frame rate, sound, and notes for people."""

from dataclasses import dataclass
from pathlib import Path

from ..config import ModelConfig, Request
from ..errors import MediaError
from ..video.look import Look, look
from ..video.rates import Rate
from ..video.reader import image_notes
from ..video.sound import try_sound
from .header import KeptSound

_UNEQUAL = "the video's frames last unequally long"


@dataclass(frozen=True)
class MediaPlan:
    """Plan of the output. sound: the part of the source's that it keeps. notes: a line each.

    keeps_times: the source's frames are shown when it shows them, instead of at a constant rate.
    """

    fps: Rate
    sound: KeptSound
    notes: tuple[str, ...]
    keeps_times: bool = False


def plan_media(request: Request, config: ModelConfig) -> MediaPlan:
    """Plan a request. Its rate is the requested one, else that of the source video, else the model's.

    Decodes the source video, see `look`. MediaError for a file that cannot be read.
    """
    source = request.video or request.refine
    if source is None:
        notes = image_notes(request.image) if request.image is not None else []
        return MediaPlan(request.fps or config.fps, "none", tuple(notes))
    seen = look(source)
    fps = request.fps or seen.rate or config.fps
    keeps_times = request.fps is None and not seen.steady
    sound, notes = _plan_sound(request, seen, source, seen.rate in (None, fps))
    notes = [*seen.notes, *notes]
    if keeps_times:
        new = f"; the new ones come at {_rounded(fps)} a second" if request.video is not None else ""
        notes.append(f"{_UNEQUAL}; each keeps its time{new}")
    notes += _pace_notes(request, config, seen, fps)
    return MediaPlan(fps, sound, tuple(notes), keeps_times)


def _pace_notes(request: Request, config: ModelConfig, seen: Look, fps: Rate) -> list[str]:
    """Return notes on frames that will not play at their own pace."""
    rate, notes = seen.rate, []
    if rate is None:
        return [f"the video names no rate; it is played at {_rounded(fps)} frames a second"]
    if not seen.steady and fps != rate:
        same = f"all are given the same time, {_rounded(fps)} a second"
        notes.append(f"{_UNEQUAL}; {same}")
    faster = f"{float(fps / rate):.3g} times"
    if request.video is not None and (rate != config.fps or fps != rate):
        rates = f"{_rounded(rate)} frames a second, the model makes {config.fps}; at {_rounded(fps)}"
        pace = (
            f"its motion plays {faster}, the new motion {float(fps / config.fps):.3g} times as fast as it is"
        )
        notes.append(f"the video has {rates} {pace}")
    elif fps != rate:
        rates = f"{_rounded(rate)} frames a second; at {_rounded(fps)}"
        notes.append(f"the video has {rates} it plays {faster} as fast")
    return notes


def _plan_sound(request: Request, seen: Look, source: str, keeps_pace: bool) -> tuple[KeptSound, list[str]]:
    """Return the part of the sound to keep, and notes."""
    if not seen.sounds:
        return "none", []
    if not keeps_pace:
        return "none", ["the video's sound is left out, since its frames are played at another rate"]
    try:
        encoded = try_sound(Path(source))
    except MediaError:
        codecs = ", ".join(seen.sounds)
        return "none", [f"the video's sound ({codecs}) is left out: it cannot be put into an MP4"]
    notes = []
    if request.video is not None:
        notes.append("the video's sound is kept under its own frames; the new ones are silent")
    if encoded:
        notes.append(f"the video's sound ({', '.join(encoded)}) is encoded as AAC, which an MP4 can hold")
    is_whole = request.refine is not None and request.num_frames in (None, seen.frames)
    return "whole" if is_whole else "under", notes


def _rounded(rate: Rate) -> str:
    return f"{float(rate):.5g}"
