"""Copy audio from one file into an MP4; only codecs that MP4 does not hold are encoded again."""

import heapq
import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

from ..errors import MediaError
from .container import Damage, decoded, is_moving_image, open_video, reason

Timed = tuple[Fraction, av.Packet]


@dataclass(frozen=True)
class Sound:
    """All audio tracks of a video file. seconds: how much of them, from the first frame; None for all."""

    path: Path
    seconds: Fraction | None = None


_COPIED = {"aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac", "dts"}
_RESTART, _PRIMING, _CLOSEST = Fraction(1, 2), Fraction(1, 10), Fraction(1, 1000)  # seconds
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}


def codec_of(stream: AudioStream) -> str:
    """Return the codec's name, independent of the decoder."""
    return stream.codec_context.codec.canonical_name


def try_sound(path: Path) -> list[str]:
    """Return the codecs of a video's audio to be encoded again. MediaError if it does not fit an MP4."""
    buffer = io.BytesIO()
    try:
        with open_video(path) as (container, _), av.open(buffer, "w", format="mp4") as target:
            tracks = [Track(stream, target) for stream in _known(container)]
            target.start_encoding()
            return [codec_of(track.source) for track in tracks if not track.is_copied]
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(f"{path}: its sound cannot be put into an MP4: {reason(error)}") from error


class Track:
    """An audio track, copied or encoded again into a container."""

    def __init__(self, source: AudioStream, target: OutputContainer, begins: Fraction = Fraction(0)):
        self.source, self.tick = source, source.time_base or Fraction(1, 1000)
        self._shift = round(begins / self.tick)
        self._last: tuple[int, int] | None = None  # begin and end of the packet before
        codec = codec_of(source)
        # players take no MP3 below 16 kHz in an MP4
        self.is_copied = codec in _COPIED and (codec != "mp3" or source.rate >= 16000)
        if self.is_copied:
            self.stream = target.add_stream_from_template(source)
            return
        rate = source.rate if source.rate in _AAC_RATES else 48000
        layout = _AAC_LAYOUTS.get(source.layout.nb_channels, "stereo")  # files may name none
        self.stream = target.add_stream("aac", rate=rate, layout=layout)
        self.stream.codec_context.open()
        self._fitting = AudioResampler(format=self.stream.format.name, layout=layout, rate=rate)

    def place(self, packet: av.Packet) -> Fraction | None:
        """Put a packet on the output's clock, return its time; None to drop it (early or repeated)."""
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None:
            return None
        delay, begin = (packet.pts if packet.pts is not None else time) - time, time - self._shift
        if self._last is not None:
            begun, ended = self._last
            if (ended - begin) * self.tick > _RESTART:  # joined files: the clock starts again
                self._shift, begin = self._shift + begin - ended, ended
            if (begin - begun) * self.tick < _CLOSEST:  # damage; the MP4's clock may be coarser
                return None
        self._last = begin, begin + (packet.duration or 0)
        packet.dts, packet.pts = begin, begin + delay
        return begin * self.tick if self._last[1] * self.tick > -_PRIMING else None

    def packets(self, packet: av.Packet) -> Iterator[av.Packet]:
        """Yield what to write for a packet of the source; an empty one ends the track."""
        if self.is_copied:
            if packet.size:
                packet.stream = self.stream
                yield packet
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:  # a hole in the sound
            return
        for frame in [*frames, *([] if packet.size else [None])]:
            assert frame is None or isinstance(frame, av.AudioFrame)
            for fitting in self._fitting.resample(frame):
                yield from self.stream.encode(fitting)
        if not packet.size:
            yield from self.stream.encode(None)


def with_sound(pictures: Iterator[Timed], target: OutputContainer, sound: Sound | None) -> Iterator[Timed]:
    """Merge the packets of a video, whose stream `target` already has, with those of the audio, by time."""
    if sound is None or is_moving_image(sound.path):
        yield from pictures
        return
    with open_video(sound.path) as (container, _):
        begins = _first_time(sound.path)
        tracks = {each.index: Track(each, target, begins) for each in _known(container)}
        if not tracks:
            yield from pictures
            return
        audio = _audio(container, tracks, sound.seconds)
        yield from heapq.merge(pictures, audio, key=lambda timed: timed[0])


def _first_time(path: Path) -> Fraction:
    """Return the time of the first frame that decodes; the header's start may be a lost one's."""
    first = next(decoded(path, Damage()))
    if isinstance(first, av.VideoFrame) and first.pts is not None and first.time_base is not None:
        return first.pts * first.time_base
    return Fraction(0)


def _known(container: InputContainer) -> list[AudioStream]:
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def _audio(container: InputContainer, tracks: dict[int, Track], seconds: Fraction | None) -> Iterator[Timed]:
    """Yield the packets of the tracks with their times."""
    time = Fraction(0)
    for packet in container.demux([track.source for track in tracks.values()]):
        track = tracks[packet.stream.index]
        if packet.size:
            placed = track.place(packet)
            if placed is None or (seconds is not None and placed >= seconds):
                continue
            time = placed
        for made in track.packets(packet):
            yield time, made
