"""Videos opened and decoded: the only place where FFmpeg meets a file that somebody gave.

It may open that one file, as one of the containers in `kinds`, and decode frames of so many pixels. Everything unreadable is a
MediaError with path and reason; so is a frame that there is not the memory for, which is no damage. Moving images are Pillow's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike
from pathlib import Path

import av
import av.error
from av.codec.context import CodecContext
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from ..errors import MediaError
from . import stills
from .kinds import DEMUXERS, PLAIN_FILES, kind_of_file
from .pixels import deinterlaced
from .stills import Picture, check_pixels

Decoded = av.VideoFrame | Picture
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders leave the transparency out


class MediaWarning(UserWarning):
    """A video is damaged: what could be read of it was."""


@dataclass
class Damage:
    """What was met that is not as it should be.

    packets: could not be decoded. torn: packets that may lack a part. frames: came with errors in them. end: why the file ends early.
    interlaced: there were frames of two moments, which is no damage.
    """

    packets: int = 0
    torn: int = 0
    frames: int = 0
    end: str = ""
    interlaced: bool = False

    def __str__(self) -> str:
        """In words; empty if there was none."""
        said = [f"{_counted(self.packets, 'packet')} could not be decoded"] if self.packets else []
        said += [f"{_counted(self.torn, 'packet')} may lack a part"] if self.torn else []
        said += [f"{_counted(self.frames, 'frame')} came with errors"] if self.frames else []
        return "; ".join([*said, *([self.end] if self.end else [])])


@contextmanager
def open_video(path: str | PathLike[str]) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file's container and its first real video stream (no cover pictures). MediaError if there is none."""
    with open_container(path) as container:
        stream = _video_stream(path, container)
        stream.codec_context.options = _limits()
        yield container, stream


@contextmanager
def open_container(path: str | PathLike[str]) -> Iterator[InputContainer]:
    """The file's container, opened as what its first bytes say it is. MediaError if it is none that is read."""
    if not Path(path).is_file():
        raise MediaError(f"{path}: no such file")
    # the limits: for the decoders that look into the streams as the file is opened
    options = {"protocol_whitelist": PLAIN_FILES, "format_whitelist": ",".join(DEMUXERS), **_limits()}
    kind = kind_of_file(Path(path))  # else FFmpeg may guess, among those
    try:
        container = av.open(
            f"file:{path}", format=kind.demuxer if kind is not None else None, options=options
        )
    except av.error.ArgumentError as error:
        what = (
            "a picture" if kind is not None and kind.media == "image" else "no video of a kind that is read"
        )
        raise MediaError(
            f"{path}: is {what}; give a video, and no playlist or list of files, which are not followed"
        ) from error
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path}: cannot be read as a video: {reason(error)}") from error
    with container:
        yield container


def is_moving_image(path: str | PathLike[str]) -> bool:
    """Whether it is a GIF, or a PNG, WebP or AVIF that moves. Its frames are read by Pillow."""
    kind = kind_of_file(Path(path)) if Path(path).is_file() else None
    return kind is not None and kind.media == "video" and kind.suffix in (".gif", ".png", ".webp", ".avif")


def decoded(path: str | PathLike[str], damage: Damage | None = None) -> Iterator[Decoded]:
    """Every frame of the video, see `reader.read_video`; a MediaWarning at the end if it is damaged, or, if given, all in `damage`."""
    found = damage if damage is not None else Damage()
    count = 0
    for frame in _pictures(path, found) if is_moving_image(path) else deinterlaced(_frames(path, found)):
        count += 1
        yield frame
    if not count:
        raise MediaError(f"{path}: no frame of this video can be decoded{f': {found}' if str(found) else ''}")
    if str(found) and damage is None:
        warnings.warn(
            f"{path}: is damaged ({found}); {_counted(count, 'frame')} could be read",
            MediaWarning,
            stacklevel=3,
        )


def stretch_of(path: str | PathLike[str]) -> Fraction:
    """Width of a pixel in its heights, as the file says; 1 where it does not."""
    if is_moving_image(path):
        return Fraction(1)
    with open_video(path) as (_, stream):
        return pixel_stretch(stream)


def pixel_stretch(stream: VideoStream) -> Fraction:
    """See `stretch_of`. What no screen or camera has is taken for a mistake."""
    stretch = stream.sample_aspect_ratio
    return Fraction(stretch) if stretch and Fraction(1, 8) <= stretch <= 8 else Fraction(1)


def reason(error: BaseException) -> str:
    """What went wrong, without the path that messages repeat."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _limits() -> dict[str, str]:
    return {"max_pixels": str(stills.MAX_PIXELS)}


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _video_stream(path: str | PathLike[str], container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if "attached_pic" not in (stream.disposition.name or ""):
            if stream.codec_context is None:
                raise MediaError(
                    f"{path}: its video is of a codec that is not read here; convert it, for example to H.264"
                )
            check_pixels(path, stream.width, stream.height)
            return stream
    raise MediaError(f"{path}: has no video in it")


def _decoder(stream: VideoStream) -> VideoCodecContext:
    """Who decodes the stream: its own, but for one that would leave transparency out."""
    name = _WITH_ALPHA.get(stream.codec_context.name, "")
    if (
        stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1"
        and name in av.codecs_available
    ):
        decoder = CodecContext.create(name, "r")
        assert isinstance(decoder, VideoCodecContext), "it is asked for one of video"
        decoder.options = _limits()
        return decoder
    return stream.codec_context


def _frames(path: str | PathLike[str], damage: Damage) -> Iterator[av.VideoFrame]:
    """All frames in order. What is broken is passed over, as FFmpeg does; frames with errors in them come only before sound ones."""
    waiting: list[av.VideoFrame] = []
    with open_video(path) as (container, stream):
        begun = False
        for frame in _packets(path, container, stream, damage):
            if frame.is_corrupt:
                waiting += (
                    [frame] if begun else []
                )  # of a recording that begins in the middle, the first ones are none
                continue
            damage.frames += len(waiting)
            yield from waiting
            waiting, begun = [], True
            damage.interlaced = damage.interlaced or frame.interlaced_frame
            yield frame
        damage.packets += len(waiting)
        damage.end = _cut_short(path, stream)
        if not begun and not damage.packets and not damage.end:
            damage.end = "there is no data that a decoder takes"


def _packets(
    path: str | PathLike[str], container: InputContainer, stream: VideoStream, damage: Damage
) -> Iterator[av.VideoFrame]:
    """What the decoder makes of the packets, one after the other; nothing of those that it cannot take."""
    packets, decoder, begun = container.demux(stream), _decoder(stream), False
    while True:
        try:
            packet = _next(packets, damage)
            damage.torn += begun and packet is not None and packet.is_corrupt
            frames = decoder.decode(packet)
        except MemoryError as error:
            raise MediaError(f"{path}: a frame cannot be decoded with the memory that there is") from error
        except av.error.EOFError:
            frames = []
        except (av.FFmpegError, OSError):
            frames = []
            damage.packets += begun
        begun = begun or bool(frames)
        yield from frames
        if packet is None or not packet.size:
            return


def _next(packets: Iterator[av.Packet], damage: Damage) -> av.Packet | None:
    """The next packet, one without data at the end; None where the rest of the file cannot be reached."""
    try:
        packet = next(packets, None)
    except MemoryError:
        raise
    except (av.FFmpegError, OSError) as error:
        damage.end = reason(error)
        return None
    return packet


def _pictures(path: str | PathLike[str], damage: Damage) -> Iterator[Picture]:
    count = 0
    try:
        for picture in stills.pictures(path):
            count += 1
            yield picture
    except MediaError as error:
        if not count:
            raise
        damage.end = str(error).removeprefix(f"{path}: ")


def _cut_short(path: str | PathLike[str], stream: VideoStream) -> str:
    """A word about frames that the file's index has behind the file's end: a cut between two packets makes no error."""
    size = Path(path).stat().st_size
    missing = sum(entry.pos + entry.size > size for entry in stream.index_entries)
    return f"{missing} more are in its index, not in the file" if missing else ""
