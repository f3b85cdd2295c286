"""Open and decode videos: the only place where FFmpeg reads a user's file.

FFmpeg may open that one file, as one of the containers in `kinds`, with a limit on the pixels of a frame.
Whatever cannot be read raises MediaError with path and reason. Pillow decodes moving images (GIF, WebP, ...).
"""

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

from ..errors import MediaError, MediaWarning
from ..texts import why_no_file
from . import stills
from .kinds import DEMUXERS, JPEG, PLAIN_FILES, kind_of_file
from .pixels import deinterlaced
from .stills import Picture, check_pixels, reason

Decoded = av.VideoFrame | Picture
_MOST_WAITING = 16  # frames with errors that may turn out to be the last ones
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders drop the alpha channel


@dataclass
class Damage:
    """Damage found while decoding.

    early: frames before the first that decodes. packets: that could not be decoded. torn: packets that may
    lack a part. frames: decoded with errors. end: why the file ends early. interlaced: some frames were
    interlaced (no damage; not in the text).
    """

    early: int = 0
    packets: int = 0
    torn: int = 0
    frames: int = 0
    end: str = ""
    interlaced: bool = False

    def __str__(self) -> str:
        """Describe the damage; empty if there is none."""
        early = f"the first {_counted(self.early, 'frame')} could not be decoded"
        parts = [early] if self.early else []
        parts += [f"{_counted(self.packets, 'packet')} could not be decoded"] if self.packets else []
        parts += [f"{_counted(self.torn, 'packet')} may lack a part"] if self.torn else []
        parts += [f"{_counted(self.frames, 'frame')} came with errors"] if self.frames else []
        return "; ".join([*parts, *([self.end] if self.end else [])])


@contextmanager
def open_video(path: str | PathLike[str]) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file; give its container and first video stream (no cover art). MediaError if it has none."""
    with open_container(path) as container:
        stream = _video_stream(path, container)
        stream.codec_context.options = _limits()
        yield container, stream


@contextmanager
def open_container(path: str | PathLike[str]) -> Iterator[InputContainer]:
    """Open a file as the container that its first bytes show. MediaError for other files."""
    if not Path(path).is_file():
        raise MediaError(f"{path}: {why_no_file(path)}")
    # FFmpeg already decodes some frames while it opens a file, so the limits are needed here too
    options = {"protocol_whitelist": PLAIN_FILES, "format_whitelist": ",".join(DEMUXERS), **_limits()}
    kind = kind_of_file(Path(path))
    is_image = kind is not None and kind.media == "image"
    what = "is an image" if is_image else "is no video of a supported type"
    problem = MediaError(f"{path}: {what}; give a video (playlists are not followed)")
    if (
        is_image and kind != JPEG
    ):  # FFmpeg takes others for videos of a frame; a JPEG may begin a stream of them
        raise problem
    demuxer = kind.demuxer if kind is not None else None  # None: FFmpeg guesses among DEMUXERS
    try:
        container = av.open(f"file:{path}", format=demuxer, options=options)
    except av.error.ArgumentError as error:
        raise problem from error
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path}: cannot be read as a video: {reason(error)}") from error
    with container:
        yield container


def is_moving_image(path: str | PathLike[str]) -> bool:
    """Tell whether the file is a GIF, or an animated PNG, WebP or AVIF, which Pillow decodes."""
    kind = kind_of_file(Path(path)) if Path(path).is_file() else None
    return kind is not None and kind.media == "video" and kind.suffix in (".gif", ".png", ".webp", ".avif")


def decoded(path: str | PathLike[str], damage: Damage | None = None) -> Iterator[Decoded]:
    """Yield every frame, see `reader.read_video`. Damage goes into `damage`, or a MediaWarning."""
    found = damage if damage is not None else Damage()
    count = 0
    for frame in _pictures(path, found) if is_moving_image(path) else deinterlaced(_frames(path, found)):
        count += 1
        yield frame
    if not count:
        raise MediaError(f"{path}: no frame of this video can be decoded{f': {found}' if str(found) else ''}")
    if str(found) and damage is None:
        text = f"{path}: is damaged ({found}); {_counted(count, 'frame')} could be read"
        warnings.warn(text, MediaWarning, stacklevel=3)


def stretch_of(path: str | PathLike[str]) -> Fraction:
    """Return the pixels' aspect ratio, width / height, by the file's header; 1 where it names none."""
    if is_moving_image(path):
        return Fraction(1)
    with open_video(path) as (_, stream):
        return pixel_stretch(stream)


def pixel_stretch(stream: VideoStream) -> Fraction:
    """Return the pixels' aspect ratio, see `stretch_of`; values outside 1/8..8 count as mistakes."""
    stretch = stream.sample_aspect_ratio
    return Fraction(stretch) if stretch and Fraction(1, 8) <= stretch <= 8 else Fraction(1)


def count_videos(container: InputContainer) -> int:
    """Return the number of video streams, cover art apart."""
    return sum(not _is_cover(stream) for stream in container.streams.video)


def _is_cover(stream: VideoStream) -> bool:
    return "attached_pic" in (stream.disposition.name or "")


def repeats(packet: av.Packet) -> bool:
    """Tell whether an empty packet repeats the frame before (Theora); decoders take it for the end."""
    return not packet.size and packet.dts is not None


def _limits() -> dict[str, str]:
    return {"max_pixels": str(stills.MAX_PIXELS)}


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _video_stream(path: str | PathLike[str], container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if not _is_cover(stream):
            if stream.codec_context is None:
                raise MediaError(
                    f"{path}: its video codec is not supported; convert it, for example to H.264"
                )
            check_pixels(path, stream.width, stream.height)
            return stream
    raise MediaError(f"{path}: has no video in it")


def _decoder(stream: VideoStream) -> VideoCodecContext:
    """Return the stream's decoder, or another that keeps an alpha channel which its own would drop."""
    name = _WITH_ALPHA.get(stream.codec_context.name, "")
    has_alpha = stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1"
    if has_alpha and name in av.codecs_available:
        decoder = CodecContext.create(name, "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.options = _limits()
        return decoder
    return stream.codec_context


def _frames(path: str | PathLike[str], damage: Damage) -> Iterator[av.VideoFrame]:
    """Yield the frames in order, skipping broken packets. Frames with errors at either end are dropped."""
    waiting: list[av.VideoFrame] = []
    with open_video(path) as (container, stream):
        begun = False
        for frame in _packets(path, container, stream, damage):
            if frame.is_corrupt and not begun:  # e.g. without its reference, in a recording that was cut
                damage.early += 1
                continue
            if frame.is_corrupt and len(waiting) < _MOST_WAITING:
                waiting.append(frame)
                continue
            damage.frames += len(waiting) + frame.is_corrupt
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
    """Yield the frames of all packets that the decoder accepts; count the others in `damage`."""
    packets, decoder, begun, keyed, early = container.demux(stream), _decoder(stream), False, False, 0
    while True:
        failed = False
        try:
            packet = _next(packets, damage)
            if packet is not None and repeats(packet):
                continue
            damage.torn += packet is not None and packet.is_corrupt
            frames = decoder.decode(packet)
        except MemoryError as error:
            raise MediaError(f"{path}: out of memory while decoding a frame") from error
        except av.error.EOFError:
            frames = []
        except (av.FFmpegError, OSError):
            frames, failed = [], True
        if not begun:  # packets before the first key frame are lost; some formats mark no key frames
            keyed = keyed or (packet is not None and packet.is_keyframe)
            early += failed or not keyed
            begun = bool(frames)
            damage.early += early if begun and keyed else 0
        else:
            damage.packets += failed
        yield from frames
        if packet is None or not packet.size:
            return


def _next(packets: Iterator[av.Packet], damage: Damage) -> av.Packet | None:
    """Return the next packet, an empty one at the end; None where the rest of the file cannot be read."""
    try:
        return next(packets, None)
    except MemoryError:  # PyAV's is an OSError too
        raise
    except (av.FFmpegError, OSError) as error:
        damage.end = reason(error)
        return None


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
    """Tell of frames that the index lists beyond the file's end: a cut between packets raises no error."""
    size = Path(path).stat().st_size
    missing = sum(entry.pos + entry.size > size for entry in stream.index_entries)
    return f"the file ends before {_counted(missing, 'frame')} of its index" if missing else ""
