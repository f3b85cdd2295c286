"""Copy audio from one file into an MP4; only codecs that MP4 does not hold are encoded again."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

from .container import is_moving_image, open_video

Timed = tuple[Fraction, av.Packet]


@dataclass(frozen=True)
class Sound:
    """All audio tracks of a video file. seconds: how much of them, from the first frame; None for all."""

    path: Path
    seconds: Fraction | None = None


_COPIED = {"aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac", "dts", "truehd"}
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def can_be_copied(codec: str) -> bool:
    """Tell whether players in general take this codec in an MP4."""
    return codec in _COPIED


def codec_of(stream: AudioStream) -> str:
    """Return the codec's name, independent of the decoder."""
    return stream.codec_context.codec.canonical_name


class Track:
    """An audio track, copied or encoded again into a container."""

    def __init__(self, source: AudioStream, target: OutputContainer):
        self.source = source
        self._copied = can_be_copied(codec_of(source))
        if self._copied:
            self.stream = target.add_stream_from_template(source)
            return
        rate = source.rate if source.rate in _AAC_RATES else 48000
        self.stream = target.add_stream("aac", rate=rate, layout=source.layout.name)
        self._fitting = AudioResampler(format=self.stream.format.name, layout=source.layout.name, rate=rate)

    def packets(self, packet: av.Packet) -> Iterator[av.Packet]:
        """Yield what to write for a packet of the source; an empty one ends the track."""
        if self._copied:
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
        known = [each for each in container.streams.audio if each.codec_context is not None]
        tracks = {each.index: Track(each, target) for each in known}
        if not tracks:
            yield from pictures
            return
        audio = _audio(container, tracks, begins, sound.seconds)
        yield from heapq.merge(pictures, audio, key=lambda timed: timed[0])


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
