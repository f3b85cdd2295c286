"""Copy audio from one file into an MP4; only codecs that MP4 does not hold are encoded again."""

from __future__ import annotations

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
from .container import is_moving_image, open_video, reason

Timed = tuple[Fraction, av.Packet]


@dataclass(frozen=True)
class Sound:
    """All audio tracks of a video file. seconds: how much of them, from the first frame; None for all."""

    path: Path
    seconds: Fraction | None = None


_COPIED = {"aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac", "dts"}
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}


def codec_of(stream: AudioStream) -> str:
    """Return the codec's name, independent of the decoder."""
    return stream.codec_context.codec.canonical_name


def try_sound(path: Path) -> list[str]:
    """Return the codecs of a video's audio that must be encoded again. MediaError if it cannot go into an MP4."""
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

    def __init__(self, source: AudioStream, target: OutputContainer):
        self.source = source
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
    with open_video(sound.path) as (container, stream):
        begins = (stream.start_time or 0) * (stream.time_base or Fraction(0))
        tracks = {each.index: Track(each, target) for each in _known(container)}
        if not tracks:
            yield from pictures
            return
        audio = _audio(container, tracks, begins, sound.seconds)
        yield from heapq.merge(pictures, audio, key=lambda timed: timed[0])


def _known(container: InputContainer) -> list[AudioStream]:
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def _audio(
    container: InputContainer, tracks: dict[int, Track], begins: Fraction, seconds: Fraction | None
) -> Iterator[Timed]:
    """Yield the packets of the tracks with their times, `begins` being 0."""
    time = Fraction(0)
    for packet in container.demux([track.source for track in tracks.values()]):
        track = tracks[packet.stream.index]
        tick = track.source.time_base
        if packet.size:
            if packet.pts is None or tick is None:
                continue
            shift = round(begins / tick)
            packet.pts -= shift
            packet.dts = packet.pts if packet.dts is None else packet.dts - shift
            if seconds is not None and packet.pts * tick >= seconds:
                continue
            time = packet.dts * tick
        for made in track.packets(packet):
            yield time, made
