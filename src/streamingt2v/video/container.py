"""Videos opened and decoded: the only place where FFmpeg meets a file that somebody gave.

It may open that one file, as one of the containers in `kinds`, and decode frames of so many pixels. Everything unreadable is a
MediaError with path and reason; so is a frame that there is not the memory for, which is no damage.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from ..errors import MediaError
from .kinds import DEMUXERS, PLAIN_FILES, kind_of_file

MAX_PIXELS = 80_000_000
"""Larger images and frames are refused: a few kilobytes of file can unpack to many gigabytes."""


class MediaWarning(UserWarning):
    """A video is damaged: it was read up to the damage."""


@contextmanager
def open_video(path: str | PathLike[str]) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file's container and its first real video stream (no cover pictures). MediaError if there is none."""
    if not Path(path).is_file():
        raise MediaError(f"{path}: no such file")
    # max_pixels: for the decoders that look into the streams as the file is opened
    options = {"protocol_whitelist": PLAIN_FILES, "format_whitelist": ",".join(DEMUXERS), "max_pixels": str(MAX_PIXELS)}
    try:
        container = av.open(f"file:{path}", format=_demuxer(path), options=options)
    except av.error.ArgumentError as error:
        raise MediaError(f"{path}: is no video of a kind that is read; playlists and lists of files are not followed") from error
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path}: cannot be read as a video: {reason(error)}") from error
    with container:
        stream = _video_stream(path, container)
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        yield container, stream


def decoded(path: str | PathLike[str]) -> Iterator[av.VideoFrame]:
    """Every good frame of the video, see `reader.read_video`."""
    good, damage = 0, ""
    with open_video(path) as (container, stream):
        for piece in _pieces(path, container, stream):
            if isinstance(piece, str):
                damage = piece
                if good:
                    break
            else:
                good += 1
                damage = ""
                yield piece
        damage = damage or _cut_short(path, stream)
    if not good:
        raise MediaError(f"{path}: no frame of this video can be decoded{': ' + damage if damage else ''}")
    if damage:
        warnings.warn(f"{path}: damaged after {good} frames ({damage}); read up to there", MediaWarning, stacklevel=3)


def check_pixels(path: str | PathLike[str], width: int, height: int) -> None:
    """MediaError for more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise MediaError(f"{path}: {width}x{height} is more than the {MAX_PIXELS // 1_000_000} million pixels that are read; scale it down")


def reason(error: BaseException) -> str:
    """What went wrong, without the path that messages repeat."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _demuxer(path: str | PathLike[str]) -> str | None:
    """How FFmpeg is to read the file, where its first bytes say so; else it may guess, among `DEMUXERS`."""
    kind = kind_of_file(Path(path))
    return kind.demuxer if kind is not None else None


def _video_stream(path: str | PathLike[str], container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if "attached_pic" not in (stream.disposition.name or ""):
            if stream.codec_context is None:
                raise MediaError(f"{path}: its video is of a codec that is not read here; convert it, for example to H.264")
            check_pixels(path, stream.width, stream.height)
            return stream
    raise MediaError(f"{path}: has no video in it")


def _pieces(path: str | PathLike[str], container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame | str]:
    """The decoded frames in order, and between them a word about every damage, where it lies."""
    packets = container.demux(stream)
    while True:
        damage = ""
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = [] if packet.is_corrupt else packet.decode()
            damage = "a packet is incomplete" if packet.is_corrupt else ""
        except MemoryError as error:
            raise MediaError(f"{path}: a frame cannot be decoded with the memory that there is") from error
        except (av.FFmpegError, OSError) as error:
            damage, frames = reason(error), []
        if damage:  # frames that came before the damage may still wait in the decoder to be put in order
            frames = _drained(stream)
        for frame in frames:
            yield "a frame is incomplete" if frame.is_corrupt else frame
        if damage:
            yield damage


def _cut_short(path: str | PathLike[str], stream: VideoStream) -> str:
    """A word about frames that the file's index has behind the file's end: a cut between two packets makes no error."""
    size = Path(path).stat().st_size
    missing = sum(entry.pos + entry.size > size for entry in stream.index_entries)
    return f"{missing} more are in its index, not in the file" if missing else ""


def _drained(stream: VideoStream) -> list[av.VideoFrame]:
    try:
        return stream.codec_context.decode(None)
    except (av.FFmpegError, OSError):
        return []
    finally:
        stream.codec_context.flush_buffers()
