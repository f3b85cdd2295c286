"""Segments that join seamlessly, and the file made of them."""

from __future__ import annotations

import io
import itertools
import resource
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingt2v.errors import MediaError, RequestError, RunError
from streamingt2v.video.reader import count_frames, probe_video, read_video
from streamingt2v.video.writer import (
    VideoSpec,
    encode_segment,
    init_segment,
    read_metadata,
    write_mp4,
    write_video,
)

SPEC = VideoSpec(16, 32, 8)


def encoded(moving, lengths, spec=SPEC):
    """Encode a moving image in segments of these lengths."""
    starts = np.cumsum([0, *lengths])
    frames = moving(starts[-1], spec.height, spec.width)
    return [
        encode_segment(frames[a:b], spec, i, int(a)) for i, (a, b) in enumerate(itertools.pairwise(starts))
    ]


def times(container):
    """Return (seconds, is key frame) of every packet."""
    return [(p.pts * p.time_base, p.is_keyframe) for p in container.demux(video=0) if p.size]


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8), fps=st.sampled_from([1, 8, 24, 30]))
@settings(max_examples=25, deadline=None)
def test_any_segments_join_to_every_frame_at_its_time(moving, tmp_path_factory, lengths, fps):
    spec, total = VideoSpec(16, 32, fps), sum(lengths)
    segments = encoded(moving, lengths, spec)
    assert [s.frames for s in segments] == lengths
    assert {s.init for s in segments} == {init_segment(spec)}
    path = tmp_path_factory.mktemp("writer") / "v.mp4"
    assert write_mp4(path, (s.init + s.media for s in segments), {}) == total
    starts = set(np.cumsum([0, *lengths]))
    expected = [(Fraction(i, fps), i in starts) for i in range(total)]
    for file in (
        io.BytesIO(segments[0].init + b"".join(s.media for s in segments)),
        str(path),
    ):  # while it grows, and at the end
        with av.open(file) as container:
            assert times(container) == expected
        if isinstance(file, io.BytesIO):
            file.seek(0)
        with av.open(file) as container:
            assert sum(1 for _ in container.decode(video=0)) == total
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate, stream.duration * stream.time_base) == (
            total,
            fps,
            Fraction(total, fps),
        )


def test_every_segment_plays_alone_and_looks_like_its_frames(moving, tmp_path):
    for segment, start, length in zip(encoded(moving, [5, 1, 9]), (0, 5, 6), (5, 1, 9), strict=True):
        (tmp_path / "alone.mp4").write_bytes(segment.init + segment.media)
        frames = np.stack(list(read_video(tmp_path / "alone.mp4")))
        assert np.abs(frames.astype(int) - moving(length, start=start)).mean() < 3


def test_a_segment_depends_on_its_frames_and_place_alone(moving):
    once, again = encoded(moving, [8, 8, 3]), encoded(moving, [8, 8, 3])
    assert once == again
    assert encode_segment(iter(moving(8, start=8)), SPEC, 1, 8) == once[1]
    assert encode_segment(moving(8, start=8), SPEC, 2, 16) != once[1]


def test_the_bytes_do_not_depend_on_what_lay_in_memory(moving):
    # x264's vectorised macroblock tree fails this a few times in a hundred, at sizes like these
    rng, seen = np.random.default_rng(0), set()
    for _ in range(120):
        dirt = [np.full(size, size % 251, np.uint8) for size in rng.integers(16, 120_000, 60)]
        del dirt
        seen.add(encode_segment(moving(6, 48, 48), VideoSpec(48, 48, 8), 0, 0))
    assert len(seen) == 1


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 30, 90)]
)
def test_colours_come_back_and_are_tagged(tmp_path, colour):
    write_video(tmp_path / "v.mp4", np.full((3, 16, 16, 3), colour, np.uint8), fps=8)
    assert np.abs(next(read_video(tmp_path / "v.mp4")).astype(int) - colour).max() <= 1
    with av.open(str(tmp_path / "v.mp4")) as container:
        context = container.streams.video[0].codec_context
        tags = context.color_primaries, context.color_trc, context.colorspace, context.color_range
        assert (context.name, context.pix_fmt, *tags) == ("h264", "yuv420p", 1, 1, 1, 1)


def test_the_index_stands_before_the_pictures(tmp_path, moving):
    write_video(tmp_path / "v.mp4", moving(3), fps=8)
    data = (tmp_path / "v.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@given(
    metadata=st.dictionaries(
        st.text(max_size=5) | st.just("prompt"),
        st.text(max_size=30) | st.integers() | st.lists(st.booleans(), max_size=3),
        max_size=4,
    )
)
@settings(max_examples=25, deadline=None)
def test_metadata_comes_back(moving, tmp_path_factory, metadata):
    path = tmp_path_factory.mktemp("writer") / "v.mp4"
    write_video(path, moving(1), 8, metadata)
    assert read_metadata(path) == metadata


def test_the_prompt_is_the_title(tmp_path, moving):
    write_video(tmp_path / "v.mp4", moving(1), 8, {"prompt": "Eine Katze läuft\nüber die Straße 🐈"})
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.metadata["title"] == "Eine Katze läuft über die Straße 🐈"


def test_metadata_of_other_files(tmp_path, moving):
    with av.open(str(tmp_path / "other.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        container.metadata["comment"] = "made by hand"
        container.mux([*stream.encode(av.VideoFrame.from_ndarray(moving(1)[0])), *stream.encode(None)])
    assert read_metadata(tmp_path / "other.mp4") == {}
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("text.mp4", "missing.mp4"):
        with pytest.raises(MediaError, match=name):
            read_metadata(tmp_path / name)


@pytest.mark.parametrize(
    "height, width, name", [(15, 32, "height"), (16, 31, "width"), (0, 32, "height"), (16, -2, "width")]
)
def test_sizes_that_h264_cannot_hold_are_refused(height, width, name):
    with pytest.raises(RequestError, match=f"{name}=.*even"):
        VideoSpec(height, width, 8)


def test_wrong_frames_are_refused_and_leave_no_file(tmp_path, moving):
    with pytest.raises(RequestError, match="fps"):
        write_video(tmp_path / "v.mp4", moving(2), 0)
    with pytest.raises(RequestError, match="nothing to write"):
        write_video(tmp_path / "v.mp4", iter(()), 8)
    for wrong in (moving(1, 16, 16)[0], moving(1)[0].astype(np.float32), moving(1)[0][..., :1]):
        with pytest.raises(RequestError, match="uint8 of shape"):
            write_video(tmp_path / "v.mp4", [moving(1)[0], wrong], 8)
    with pytest.raises(RequestError, match="at least one frame"):
        encode_segment([], SPEC, 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path, moving):
    path = tmp_path / "v.mp4"
    write_video(path, moving(4), 8)
    before = path.read_bytes()

    def breaks():
        yield from moving(40)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, breaks(), 8)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("room", [0, 100, 3000, 9000])
def test_a_full_disk_is_an_error_and_leaves_no_file(tmp_path, room):
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(RunError, match=r"v\.mp4: cannot be written: "):
            write_video(tmp_path / "v.mp4", noise, 8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_is_an_error(tmp_path, moving):
    for path in (tmp_path / "missing" / "v.mp4", tmp_path):
        with pytest.raises(RunError, match="cannot be written"):
            write_video(path, moving(1), 8)


def test_writing_and_reading_hold_few_frames(tmp_path):
    def frames(count):
        return (np.full((64, 64, 3), i % 256, np.uint8) for i in range(count))

    write_video(tmp_path / "v.mp4", frames(2), 8)
    tracemalloc.start()
    write_video(tmp_path / "v.mp4", frames(600), 8)
    assert sum(1 for _ in read_video(tmp_path / "v.mp4")) == 600
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 64 * 64 * 3
    assert count_frames(tmp_path / "v.mp4") == probe_video(tmp_path / "v.mp4").frames == 600
