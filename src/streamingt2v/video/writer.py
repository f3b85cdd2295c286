"""Encode frames to H.264 segment by segment, so that a video can be watched while it is made.

A segment is a closed group of pictures: it begins with a key frame, refers to nothing outside, and its bytes
depend only on its frames, its place and the `VideoSpec`. Segments are MP4 fragments as in HLS and CMAF:
`init_segment` followed by the media of consecutive `encode_segment`s is a playable stream. `write_mp4` copies
segments, without encoding again, into a seekable MP4.
"""

import contextlib
import hashlib
import io
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from ..durable import replacing
from ..errors import RequestError, RunError
from ..texts import parse_json
from .container import is_moving_image, open_video
from .pixels import Frame
from .rates import Rate
from .sound import Sound, Timed, with_sound

LONGEST_SEGMENT = 32
"""Frames in a segment where this package chooses the length."""
_FINEST = 1_000_000  # ticks a second

# crf 16 looks like the source. No B-frames, so that segments join. One thread, no macroblock tree and no
# processor-specific code: else a few encodings in a hundred have other bytes (x264's SIMD tree is inexact).
_X264 = {
    "bframes": "0",
    "keyint": "infinite",
    "scenecut": "0",
    "threads": "1",
    "lookahead-threads": "1",
    "sliced-threads": "0",
    "mbtree": "0",
    "cpu-independent": "1",
}
_ENCODER = {
    "crf": "16",
    "preset": "veryfast",
    "x264-params": ":".join(f"{name}={value}" for name, value in _X264.items()),
}
_FRAGMENT = "empty_moov+default_base_moof+frag_custom+frag_discont+skip_trailer"
_BT709 = 1  # primaries, transfer function and matrix in H.264; also limited range in FFmpeg
_SCALING = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT  # equal on all processors


@dataclass(frozen=True)
class VideoSpec:
    """Size, both sides even (H.264 stores colour at half the size), and exact rate. RequestError if odd."""

    height: int
    width: int
    fps: Rate

    def __post_init__(self) -> None:
        for name, value in (("height", self.height), ("width", self.width)):
            if value < 2 or value % 2:
                fix = f"must be even and 2 or more to be written as a video; try {max(2, value + value % 2)}"
                raise RequestError(name, value, fix)
        if self.fps <= 0:
            raise RequestError("fps", self.fps, "must be above 0")

    @property
    def tick(self) -> Fraction:
        """Seconds a frame lasts."""
        return 1 / Fraction(self.fps)


@dataclass(frozen=True)
class Segment:
    """An encoded segment. init: the same for all segments of a `VideoSpec`. frames: their number."""

    init: bytes
    media: bytes
    frames: int


def init_segment(spec: VideoSpec) -> bytes:
    """Return the header that a player needs before the first segment."""
    buffer = io.BytesIO()
    with _fragment(buffer, 0) as container:
        _h264(container, spec)
        container.start_encoding()
    return buffer.getvalue()


def encode_segment(frames: Iterable[Frame], spec: VideoSpec, index: int, start: int) -> Segment:
    """Encode uint8 (H, W, 3) frames as segment number `index`, which begins with frame `start` of the video.

    Streams the frames. RequestError if there are none, or one has another size.
    """
    buffer, count = io.BytesIO(), 0
    tick, to_yuv = spec.tick, VideoReformatter()
    with _fragment(buffer, index) as container:
        stream = _h264(container, spec)
        for count, frame in enumerate(frames, 1):
            picture = _to_yuv420(frame, spec, to_yuv)
            picture.pts, picture.time_base = start + count - 1, tick
            _mux(container, stream, picture)
        if count == 0:
            raise RequestError("frames", 0, "a segment needs at least one frame")
        _mux(container, stream, None)
    data = buffer.getvalue()
    border = _offset_of(b"moof", data)
    return Segment(data[:border], data[border:], count)


def write_mp4(
    path: Path,
    segments: Iterable[bytes],
    metadata: Mapping[str, Any],
    sound: Sound | None = None,
    times: Sequence[Fraction] | None = None,
) -> int:
    """Copy segments (each init + media) into a seekable MP4, with `sound`; return the number of frames.

    metadata: JSON values for the comment; "prompt" is also the title. times: seconds when each frame appears,
    and the end of the last; None: the segments' constant rate. The file appears atomically, after its packets
    were compared with the segments'. RunError if it cannot be written.
    """
    try:
        with replacing(path) as part:
            count, digest = _remux(part, segments, metadata, sound, times)
            if _packets(part) != (count, digest):
                raise RunError(f"{path}: differs from its segments; is another process writing it?")
    except (OSError, av.FFmpegError) as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    return count


def write_video(
    path: str | PathLike[str], frames: Iterable[Frame], fps: Rate, metadata: Mapping[str, Any] | None = None
) -> int:
    """Stream frames, uint8 (H, W, 3) of one even size, into an MP4; return their number.

    RequestError if there are none or the size is odd, RunError if the file cannot be written.
    """
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise RequestError("frames", 0, "there is nothing to write")
    spec = VideoSpec(first.shape[0], first.shape[1], fps)
    segments = _segments(itertools.chain([first], rest), spec)
    return write_mp4(Path(path), segments, metadata or {})


def read_metadata(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the metadata of `write_mp4`; empty for videos made elsewhere. MediaError if it is no video."""
    if is_moving_image(path):
        return {}
    with open_video(path) as (container, _):
        comment = container.metadata.get("comment", "")
    try:
        values = parse_json(comment)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def batches(frames: Iterable[Frame], length: int) -> Iterator[tuple[Iterator[Frame], Callable[[], bool]]]:
    """Split frames into streams of `length`; yield each with a function that tells if it is the last.

    Read each batch to its end before asking either. Holds one frame.
    """
    rest = iter(frames)
    ahead = next(rest, None)

    def batch() -> Iterator[Frame]:
        nonlocal ahead
        for _ in range(length):
            if ahead is None:
                return
            frame, ahead = ahead, next(rest, None)
            yield frame

    while ahead is not None:
        yield batch(), lambda: ahead is None


def _segments(frames: Iterable[Frame], spec: VideoSpec) -> Iterator[bytes]:
    start = 0
    for index, (batch, _) in enumerate(batches(frames, LONGEST_SEGMENT)):
        segment = encode_segment(batch, spec, index, start)
        start += segment.frames
        yield segment.init + segment.media


@contextlib.contextmanager
def _fragment(buffer: io.BytesIO, index: int) -> Iterator[OutputContainer]:
    """Open a container that writes a header and one fragment, of sequence number `index + 1`; no trailer."""
    # avoid_negative_ts would move a later segment's time stamps to zero
    times = {"use_editlist": "0", "avoid_negative_ts": "disabled"}
    options = {"movflags": _FRAGMENT, "fragment_index": str(index + 1), "fflags": "+bitexact"} | times
    with av.open(buffer, "w", format="mp4", container_options=options) as container:
        yield container


def _h264(container: OutputContainer, spec: VideoSpec) -> VideoStream:
    stream = container.add_stream("libx264", rate=spec.fps, options=_ENCODER)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = spec.width, spec.height, "yuv420p"
    context.time_base = spec.tick
    context.thread_count = 1
    context.color_primaries = context.color_trc = context.colorspace = context.color_range = _BT709
    return stream


def _to_yuv420(frame: Frame, spec: VideoSpec, convert: VideoReformatter) -> av.VideoFrame:
    shape = (spec.height, spec.width, 3)
    if frame.dtype != np.uint8 or frame.shape != shape:
        raise RequestError("frames", (str(frame.dtype), frame.shape), f"must be uint8 of shape {shape}")
    return convert.reformat(
        av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
        format="yuv420p",
        interpolation=_SCALING,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        threads=1,
    )


def _mux(container: OutputContainer, stream: VideoStream, picture: av.VideoFrame | None) -> None:
    for packet in stream.encode(picture):
        packet.duration = 1  # in units of the encoder's time base, one frame
        container.mux(packet)


def _offset_of(kind: bytes, data: bytes) -> int:
    """Return the offset of the first MP4 box of a type."""
    offset = 0
    while data[offset + 4 : offset + 8] != kind:
        offset += int.from_bytes(data[offset : offset + 4], "big")
    return offset


def _remux(
    part: Path,
    segments: Iterable[bytes],
    metadata: Mapping[str, Any],
    sound: Sound | None,
    times: Sequence[Fraction] | None,
) -> tuple[int, str]:
    """Write the MP4; return number and digest of its video packets."""
    count, digest, rest = 0, hashlib.sha256(), iter(segments)
    with _seekable_mp4(part, metadata) as container:
        first = next(rest, None)
        if first is None:
            return count, digest.hexdigest()
        with av.open(io.BytesIO(first), "r") as source:
            stream = container.add_stream_from_template(source.streams.video[0])
        pictures = _pictures(itertools.chain([first], rest), stream)
        if times is not None:
            stream.time_base = _time_base(times)
            pictures = _retimed(pictures, times, stream.time_base)
        for _, packet in with_sound(pictures, container, sound):
            if packet.stream is stream:
                count += 1
                digest.update(bytes(packet))
            container.mux(packet)
    return count, digest.hexdigest()


def _pictures(segments: Iterable[bytes], stream: VideoStream) -> Iterator[Timed]:
    """Yield the segments' packets for a stream, with their times."""
    for segment in segments:
        with av.open(io.BytesIO(segment), "r") as source:
            for packet in source.demux(source.streams.video[0]):
                if packet.size:
                    time = (packet.dts or 0) * Fraction(packet.time_base)
                    packet.stream = stream
                    yield time, packet


def _time_base(times: Sequence[Fraction]) -> Fraction:
    """Return the time base in which all times are whole, or MPEG's where that is too fine."""
    ticks = math.lcm(*(time.denominator for time in times))
    return Fraction(1, ticks if ticks <= _FINEST else 90_000)


def _retimed(pictures: Iterator[Timed], times: Sequence[Fraction], base: Fraction) -> Iterator[Timed]:
    """Give the packets other times. They come in the order of display: segments have no B-frames."""
    for number, (_, packet) in enumerate(pictures):
        begins, ends = times[number : number + 2]
        packet.time_base = base
        packet.pts = packet.dts = round(begins / base)
        packet.duration = round(ends / base) - packet.pts
        yield begins, packet


@contextlib.contextmanager
def _seekable_mp4(part: Path, metadata: Mapping[str, Any]) -> Iterator[OutputContainer]:
    options = {"movflags": "faststart", "fflags": "+bitexact"}
    with av.open(f"file:{part}", "w", format="mp4", container_options=options) as container:
        title = str(metadata.get("prompt", ""))
        container.metadata["title"] = "".join(c if c.isprintable() else " " for c in title)
        container.metadata["comment"] = json.dumps(metadata, sort_keys=True)
        yield container


def _packets(path: Path) -> tuple[int, str]:
    """Return number and digest of the video packets in a file."""
    count, digest = 0, hashlib.sha256()
    with av.open(f"file:{path}", "r", format="mp4") as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                count += 1
                digest.update(bytes(packet))
    return count, digest.hexdigest()
