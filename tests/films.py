"""Write video files of every kind."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import numpy as np

# red and green above, blue and black below
L_SHAPE = np.zeros((48, 64, 3), np.uint8)
L_SHAPE[:24, :32] = [255, 0, 0]
L_SHAPE[:24, 32:] = [0, 255, 0]
L_SHAPE[24:, :32] = [0, 0, 255]
PIXELS = {"gif": "rgb8", "apng": "rgb24"}


def written(path, format, codec, frames, **options):
    """Write the frames with this container and codec."""
    with av.open(str(path), "w", format=format, **options) as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], PIXELS.get(format, "yuv420p")
        for frame in frames:
            out.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=stream.pix_fmt)
                )
            )
        out.mux(stream.encode(None))
    return path


def film(
    path, frames, rate=8, codec="libx264", pix_fmt="yuv420p", times=None, format=None, stretch=None, **tags
):
    """Write a file of one video stream. times: in milliseconds."""
    with av.open(str(path), "w", format=format) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pix_fmt
        if stretch is not None:
            stream.codec_context.sample_aspect_ratio = stretch
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(
                frame, format="rgba" if frame.shape[2] == 4 else "rgb24"
            ).reformat(format=pix_fmt)
            picture.pts, picture.time_base = (
                (number, 1 / Fraction(rate)) if times is None else (times[number], Fraction(1, 1000))
            )
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def with_tone(
    path, frames, rate, codec="aac", seconds=None, samples=48000, layout="mono", codec_of_frames="mpeg4"
):
    """Write a video with a tone of that length (default: the video's)."""
    seconds = float(len(frames) / Fraction(rate)) if seconds is None else seconds
    with av.open(str(path), "w") as out:
        stream, tone = (
            out.add_stream(codec_of_frames, rate=rate),
            out.add_stream(codec, rate=samples, layout=layout),
        )
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            image = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            out.mux(stream.encode(image))
        out.mux(stream.encode(None))
        size = tone.codec_context.frame_size or 960
        fitting = av.AudioResampler(tone.format.name, layout, samples)
        for start in range(0, round(samples * seconds), size):
            wave = 0.3 * np.sin(np.arange(start, start + size) / 17)[None].astype(np.float32)
            heard = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = samples, start, Fraction(1, samples)
            for each in fitting.resample(heard):
                out.mux(tone.encode(each))
        out.mux(tone.encode(None))
    return path


def display_matrix(path, a, b, c, d):
    """Put a rotation into an MP4's header: pixel (x, y) is shown at (a x + c y, b x + d y)."""
    data, one = bytearray(path.read_bytes()), 1 << 16
    place = data.index(struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    numbers = [round(value * one) for value in (a, b, 0, c, d, 0, 64, 0)]
    data[place : place + 36] = struct.pack(">9i", *numbers, 1 << 30)
    path.write_bytes(data)


def jpeg2000_with_a_giant(path, frames, side, at=4):
    """Write small JPEG 2000 frames, one of which claims to be `side` pixels wide and high."""
    small = written(path.with_suffix(".small.mov"), "mov", "jpeg2000", frames)
    with av.open(str(small)) as source, av.open(str(path), "w", format="mov") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            data = bytearray(bytes(packet))
            if number == at:
                siz = data.index(b"\xff\x51")
                for place in (6, 10, 22, 26):  # image and tile size
                    data[siz + place : siz + place + 4] = side.to_bytes(4, "big")
            fresh = av.Packet(bytes(data))
            fresh.pts, fresh.dts, fresh.time_base, fresh.stream, fresh.is_keyframe = (
                packet.pts,
                packet.dts,
                packet.time_base,
                stream,
                True,
            )
            out.mux(fresh)
    return path
