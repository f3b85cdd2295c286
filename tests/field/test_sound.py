"""Sound of extended and refined videos: copied, in time, and the same after a kill."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from streamingt2v.config import Request
from streamingt2v.errors import RunError
from streamingt2v.runs.render import create_run, render
from streamingt2v.runs.run import RunFolder

HOW = {"device": "cpu", "dtype": "float32"}


def film(path, moving, frames, rate, codec="aac", seconds=None):
    """Write a video with a tone of that length (default: the video's)."""
    seconds = float(frames / Fraction(rate)) if seconds is None else seconds
    with av.open(str(path), "w") as out:
        stream, tone = out.add_stream("mpeg4", rate=rate), out.add_stream(codec, rate=48000, layout="mono")
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for frame in moving(frames):
            out.mux(
                stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p"))
            )
        out.mux(stream.encode(None))
        size = tone.codec_context.frame_size or 960
        for start in range(0, round(48000 * seconds), size):
            wave = 0.3 * np.sin(np.arange(start, start + size) / 17)[None].astype(np.float32)
            fitting = av.AudioResampler(tone.format.name, "mono", 48000)
            heard = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = 48000, start, Fraction(1, 48000)
            for each in fitting.resample(heard):
                out.mux(tone.encode(each))
        out.mux(tone.encode(None))
    return path


def heard_in(path):
    """Return codec and timed packets of a file's sound, and the video's duration in seconds."""
    with av.open(str(path)) as container:
        (tone,) = container.streams.audio
        packets = [(p.pts * p.time_base, bytes(p)) for p in container.demux(tone) if p.size]
        pictures = container.streams.video[0]
        return tone.codec_context.codec.canonical_name, packets, (pictures.duration or 0) * pictures.time_base


@pytest.mark.parametrize(
    "suffix, codec", [("mp4", "aac"), ("mkv", "libmp3lame"), ("mkv", "libopus"), ("mov", "pcm_s16le")]
)
def test_refining_keeps_the_track_and_the_rate(tmp_path, moving, fake_pipeline, suffix, codec):
    source = film(tmp_path / f"a.{suffix}", moving, 20, Fraction(24000, 1001), codec, seconds=1.2)
    request = Request("A cat", num_frames=20, refine=str(source), preset="full")
    with create_run(
        fake_pipeline, fake_pipeline.resolve(request), tmp_path / "run", "tiny", tmp_path / "o.mp4", **HOW
    ) as run:
        render(fake_pipeline, run, fake_pipeline.resolve(request))
    (was, before, _), (now, after, seconds) = heard_in(source), heard_in(tmp_path / "o.mp4")
    assert seconds == Fraction(20 * 1001, 24000)
    if codec in ("aac", "libmp3lame", "libopus"):
        assert now == was and [data for _, data in after] == [data for _, data in before], (
            "nothing is encoded anew"
        )
        assert all(abs(a - b) < Fraction(1, 400) for (a, _), (b, _) in zip(after, before, strict=True))
    else:
        assert now == "aac" and any("AAC" in note for note in run.header.notes)
        assert abs(after[-1][0] - before[-1][0]) < Fraction(1, 10)


def test_extending_keeps_it_under_the_old_frames_after_a_kill_too(tmp_path, moving, fake_pipeline):
    source = film(tmp_path / "a.mp4", moving, 20, Fraction(30000, 1001), seconds=2)
    request = Request("A cat", num_frames=24, video=str(source))
    with create_run(
        fake_pipeline,
        fake_pipeline.resolve(request),
        tmp_path / "whole",
        "tiny",
        tmp_path / "whole.mp4",
        **HOW,
    ) as run:
        render(fake_pipeline, run, fake_pipeline.resolve(request))
        assert any("silent" in note for note in run.header.notes)
    _, heard, seconds = heard_in(tmp_path / "whole.mp4")
    assert seconds == Fraction(44 * 1001, 30000) and 0.6 < heard[-1][0] < 20 * 1001 / 30000

    def die(index):
        if index == 1:
            raise KeyboardInterrupt

    fake_pipeline.before_chunk = die
    asked = fake_pipeline.resolve(request)
    with (
        create_run(fake_pipeline, asked, tmp_path / "run", "tiny", tmp_path / "o.mp4", **HOW) as run,
        pytest.raises(KeyboardInterrupt),
    ):
        render(fake_pipeline, run, asked)
    fake_pipeline.before_chunk = lambda index: None
    with RunFolder.open(tmp_path / "run") as run:
        assert run.fps == Fraction(30000, 1001)
        render(fake_pipeline, run, fake_pipeline.resolve(request))
        assert "EXTINF:0.2669" in run.playlist.read_text()
        assert (tmp_path / "o.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
        source.unlink()
        with pytest.raises(RunError, match="put it back"):
            run.finish()


def test_at_another_rate_it_is_left_out_and_told(tmp_path, moving, fake_pipeline):
    source = film(tmp_path / "a.mp4", moving, 20, 25)
    request = Request("A cat", num_frames=8, video=str(source), fps=8)
    with create_run(
        fake_pipeline, fake_pipeline.resolve(request), tmp_path / "run", "tiny", tmp_path / "o.mp4", **HOW
    ) as run:
        render(fake_pipeline, run, fake_pipeline.resolve(request))
        assert any("left out" in note for note in run.header.notes)
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert not container.streams.audio
