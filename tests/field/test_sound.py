"""Sound of extended and refined videos: copied, in time, and the same after a kill."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from films import with_tone
from streamingt2v.config import Request
from streamingt2v.errors import RunError
from streamingt2v.runs.render import create_run, render
from streamingt2v.runs.run import RunFolder
from streamingt2v.video.sound import Sound, try_sound
from streamingt2v.video.writer import write_mp4, write_video

HOW = {"device": "cpu", "dtype": "float32"}


def film(path, moving, frames, rate, codec="aac", seconds=None):
    return with_tone(path, moving(frames), rate, codec, seconds)


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


@pytest.mark.parametrize(
    "codec, samples, layout",
    [
        ("pcm_s16le", 44100, "stereo"),
        ("pcm_mulaw", 8000, "mono"),
        ("pcm_f32le", 96000, "octagonal"),
        ("libmp3lame", 11025, "mono"),
        ("alac", 48000, "7.1(wide)"),
    ],
)
def test_every_codec_and_layout_goes_into_an_mp4(tmp_path, moving, codec, samples, layout):
    source = with_tone(tmp_path / "a.mov", moving(25), 25, codec, samples=samples, layout=layout)
    write_video(tmp_path / "silent.mp4", moving(25), 25)
    segment = (tmp_path / "silent.mp4").read_bytes()
    write_mp4(tmp_path / "o.mp4", [segment], {}, Sound(source))
    now, packets, _ = heard_in(tmp_path / "o.mp4")
    assert now == ("alac" if codec == "alac" else "aac") and 0.75 < packets[-1][0] < 1.1
    assert bool(try_sound(source)) == (codec != "alac")


def test_damaged_and_joined_sound_stays_in_time(tmp_path, moving):
    part = with_tone(tmp_path / "a.ts", moving(50), 25, "mp2", codec_of_frames="libx264").read_bytes()
    packets = [part[at : at + 188] for at in range(0, len(part), 188)]
    kept = np.random.default_rng(1).random(len(packets)) > 0.05
    kept[:6] = True
    files = {
        "joined": part + part,
        "torn": b"".join(p for p, keep in zip(packets, kept, strict=True) if keep),
    }
    write_video(tmp_path / "silent.mp4", moving(100), 25)
    for name, data in files.items():
        (tmp_path / f"{name}.ts").write_bytes(data)
        sound = Sound(tmp_path / f"{name}.ts")
        write_mp4(tmp_path / "o.mp4", [(tmp_path / "silent.mp4").read_bytes()], {}, sound)
        _, heard, _ = heard_in(tmp_path / "o.mp4")
        assert (3.8 if name == "joined" else 1.5) < heard[-1][0] < (4.1 if name == "joined" else 2.1)
