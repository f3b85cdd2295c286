"""Write video files of every kind."""

from __future__ import annotations

import av

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
