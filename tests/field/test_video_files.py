"""Real-world video files: display properties are applied, or a note tells."""

from __future__ import annotations

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from films import L_SHAPE, display_matrix, film, written
from streamingt2v.cli import main
from streamingt2v.config import ModelConfig, Request
from streamingt2v.errors import MediaWarning
from streamingt2v.runs.media import plan_media
from streamingt2v.runs.render import create_run, render
from streamingt2v.runs.run import RunFolder
from streamingt2v.video import reader
from streamingt2v.video.look import frame_times, look
from streamingt2v.video.moments import frames_at
from streamingt2v.video.pixels import Graph, Shown

CONFIG = ModelConfig("field", height=32, width=48, fps=8)


@pytest.mark.parametrize(
    "stretch", [Fraction(64, 45), Fraction(16, 15), Fraction(8, 9), Fraction(1, 2), Fraction(2)]
)
def test_a_circle_stays_one_whatever_the_shape_of_its_pixels(tmp_path, stretch):
    height, width = 144, round(192 / stretch)
    y, x = np.mgrid[:height, : width - width % 2]
    disc = np.where(np.hypot((x - width / 2) * float(stretch), y - height / 2) < 50, 235, 16).astype(np.uint8)
    path = film(tmp_path / "a.mp4", [np.repeat(disc[..., None], 3, 2)] * 2, stretch=stretch)
    for size in (None, (96, 96), (96, 120)):
        seen = next(reader.read_video(path, *(size or (None, None))))[..., 1] > 128
        assert abs(int(seen.any(0).sum()) - int(seen.any(1).sum())) <= 2, size
    info, shown = reader.probe_video(path), next(reader.read_video(path)).shape
    assert (info.height, info.width, 3) == shown and info.height >= height


MATRICES = {
    "upright": (1, 0, 0, 1), "mirrored": (-1, 0, 0, 1), "upside down": (-1, 0, 0, -1), "flipped": (1, 0, 0,
    -1),
    "transposed": (0, 1, 1, 0), "right": (0, 1, -1, 0), "transversed": (0, -1, -1, 0), "left": (0, -1, 1, 0),
}  # fmt: skip


def placed(array, a, b, c, d):
    """Move each pixel (x, y) to (a x + c y, b x + d y)."""
    height, width = array.shape[:2]
    y, x = np.mgrid[:height, :width]
    to_x, to_y = a * x + c * y, b * x + d * y
    out = np.zeros((width, height, 3) if b else array.shape, np.uint8)
    out[to_y - to_y.min(), to_x - to_x.min()] = array
    return out


@pytest.mark.parametrize("name", MATRICES)
def test_all_eight_orientations(tmp_path, name):
    a, b, c, d = MATRICES[name]
    path = film(tmp_path / "a.mp4", [L_SHAPE] * 2)
    display_matrix(path, a, b, c, d)
    right, seen = placed(L_SHAPE, a, b, c, d), next(reader.read_video(path))
    assert seen.shape == right.shape
    corners = np.ix_([2, -3], [2, -3])
    assert np.abs(seen[corners].astype(int) - right[corners]).max() < 16
    assert (reader.probe_video(path).height, reader.probe_video(path).width) == right.shape[:2]


RATES = [
    Fraction(24000, 1001),
    Fraction(30000, 1001),
    Fraction(5, 2),
    Fraction(1, 2),
    Fraction(25, 2),
    24,
    60,
]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("rate", RATES)
def test_a_rate_is_exact(tmp_path, moving, rate, suffix):
    path = film(
        tmp_path / f"a.{suffix}", list(moving(20)), rate, codec="mpeg4" if suffix == "avi" else "libx264"
    )
    seen = look(path)
    assert (seen.frames, seen.rate, seen.steady) == (20, rate, True)
    assert plan_media(Request("A cat", refine=str(path), preset="full"), CONFIG).fps == rate


@pytest.mark.parametrize("centiseconds", [2, 3, 4, 7, 10, 50])
@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_moving_images_are_videos_at_their_rate(tmp_path, kind, centiseconds):
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(
        tmp_path / "a.gif", kind, save_all=True, append_images=rest, duration=10 * centiseconds, loop=0
    )
    seen = look(tmp_path / "a.gif")
    assert (seen.frames, seen.rate) == (4, Fraction(100, centiseconds)) and seen.steady
    assert len(list(reader.read_video(tmp_path / "a.gif", 8, 8))) == 4
    assert "first frame is taken" in reader.image_notes(tmp_path / "a.gif")[0]


def test_a_varying_rate_keeps_its_length_and_is_told(tmp_path, moving):
    times = list(itertools.accumulate([0, 40, 100, 40, 40, 200, 40, 80, 40]))
    path = film(tmp_path / "a.mkv", list(moving(9)), 25, times=times)
    plan = plan_media(Request("A cat", refine=str(path), preset="full"), CONFIG)
    assert not look(path).steady and any("unequally" in note for note in plan.notes)
    assert float(9 / plan.fps) == pytest.approx((times[-1] + 40) / 1000, abs=0.01)


@pytest.mark.parametrize(
    "codec, pix_fmt, suffix",
    [
        ("qtrle", "argb", "mov"),
        ("png", "rgba", "mov"),
        ("libvpx-vp9", "yuva420p", "webm"),
        ("prores_ks", "yuva444p10le", "mov"),
        ("ffv1", "yuva420p", "mkv"),
    ],
)
def test_transparency_is_laid_over_black_in_videos(tmp_path, codec, pix_fmt, suffix):
    hidden = np.zeros((48, 64, 4), np.uint8)
    hidden[..., 0] = 255
    hidden[24:, :, 3] = 255
    path = film(tmp_path / f"a.{suffix}", [hidden] * 2, codec=codec, pix_fmt=pix_fmt)
    seen = next(reader.read_video(path))
    assert seen[:16].max() < 12 and (seen[32:, :, 0] > 220).all()
    assert any("black" in note for note in look(path).notes)


def pq(nits):
    """Return the level, 0..1, of SMPTE ST 2084 (PQ) for a luminance."""
    light = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * light) / (1 + 18.6875 * light)) ** 78.84375


def hdr(nits):
    """Make a grey BT.2020 frame of this luminance."""
    levels = np.full((48, 32), 512, np.uint16)
    levels[:32] = round(64 + 876 * pq(nits))
    frame = av.VideoFrame.from_ndarray(levels, format="yuv420p10le")
    frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = 9, 16, 9, 1
    return frame


def test_what_is_brighter_than_a_screen_is_brought_into_it():
    shown = Shown(None)
    levels = [int(shown(hdr(nits))[16, 16, 1]) for nits in (0, 1, 18, 100, 203, 1000, 4000)]
    assert levels == sorted(levels) and levels[0] == 0 and 170 < levels[3] < 230 and levels[4] > 250


def test_two_fields_are_made_one_frame(tmp_path, moving):
    frames = moving(6, 48, 64)
    comb = [
        np.where(np.arange(48)[:, None, None] % 2, 255, 0).astype(np.uint8) * np.ones((48, 64, 3), np.uint8)
    ] * 6
    for name, content in (("moving", list(frames)), ("comb", comb)):
        path = tmp_path / f"{name}.mkv"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("mpeg2video", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.codec_context.flags |= 1 << 29 | 1 << 18  # fields are coded as such
            for frame in content:
                out.mux(
                    stream.encode(
                        av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
                    )
                )
            out.mux(stream.encode(None))
        seen = look(path)
        assert seen.frames == 6 == len(list(reader.read_video(path)))
        assert any("interlaced" in note for note in seen.notes)


def test_a_stream_joined_of_two_or_cut_within_goes_on(tmp_path, moving):
    parts = [
        written(tmp_path / f"{n}.ts", "mpegts", "libx264", moving(16, 96, 128, start=40 * n)).read_bytes()
        for n in range(2)
    ]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    with pytest.warns(MediaWarning, match="lack a part"):
        assert (
            look(tmp_path / "joined.ts").frames == 32 == len(list(reader.read_video(tmp_path / "joined.ts")))
        )
    lost = parts[0] + parts[1]
    middle = len(parts[0]) // 188 // 2 * 188
    (tmp_path / "lost.ts").write_bytes(lost[:middle] + lost[middle + 188 :])
    seen = look(tmp_path / "lost.ts")
    assert seen.frames >= 30 and any("damaged" in note for note in seen.notes)


def test_filters_take_frames_of_another_size_anew():
    small, large = hdr(100), av.VideoFrame(64, 64, "yuv420p10le")
    assert not Graph(small, ("format", "rgb24")).fits(large)


def test_damage_is_told_once(tmp_path, moving, fake_pipeline, capsys):
    parts = [
        written(tmp_path / f"{n}.ts", "mpegts", "libx264", moving(16, 32, 48, start=40 * n)).read_bytes()
        for n in range(2)
    ]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    options = ["--frames", "8", "--steps", "1", "-o", str(tmp_path / "o.mp4")]
    assert main(["extend", str(tmp_path / "joined.ts"), "A cat", *options]) == 0
    assert capsys.readouterr().err.count("lack a part") == 1


def test_an_unknown_codec_is_told_in_one_line(tmp_path, moving, fake_pipeline, capsys):
    path = film(tmp_path / "a.mp4", list(moving(9)))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzZ"))
    for words in (["extend", str(path), "A cat"], ["refine", str(path), "A cat"]):
        assert main([*words, "--frames", "8", "-o", str(tmp_path / "o.mp4")]) != 0
        said = capsys.readouterr().err
        assert "codec is not supported" in said and "Traceback" not in said


def test_what_is_lost_at_the_start_is_told(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (24, 96, 128, 3), np.uint8)
    data = written(tmp_path / "a.ts", "mpegts", "libx264", noise).read_bytes()
    (tmp_path / "torn.ts").write_bytes(data[: 20 * 188] + data[21 * 188 :])  # within the first key frame
    seen = look(tmp_path / "torn.ts")
    assert seen.frames == 23 and "the first 1 frame could not be decoded" in seen.notes[0]


def test_a_varying_rate_is_kept_by_refine_after_a_kill_too(tmp_path, moving, fake_pipeline):
    times = list(itertools.accumulate([0, 40, 100, 40, 40, 200, 40, 80, 40, 40, 40, 120]))
    path = film(tmp_path / "a.mkv", list(moving(12)), 25, times=times)
    asked = fake_pipeline.resolve(Request("A cat", num_frames=12, refine=str(path), preset="full"))
    where = {"device": "cpu", "dtype": "float32"}
    for name in ("whole", "killed"):
        run = create_run(fake_pipeline, asked, tmp_path / name, "tiny", tmp_path / f"{name}.mp4", **where)
        if name == "killed":
            run.commit(next(fake_pipeline.stream(asked)))
            run.close()
            run = RunFolder.open(tmp_path / name)
            part = look(run.export(tmp_path / "part.mp4"))
            assert part.frames == 8 and frame_times(tmp_path / "part.mp4") == frame_times(path)[:9]
        with run:
            render(fake_pipeline, run, asked)
        assert frame_times(tmp_path / f"{name}.mp4")[:-1] == frame_times(path)[:-1]
    assert (tmp_path / "killed.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_varying_rate_is_kept_by_extend_and_new_frames_come_at_its_mean(tmp_path, moving, fake_pipeline):
    times = list(itertools.accumulate([0, 40, 100, 40, 40, 200, 40, 80, 40]))
    path = film(tmp_path / "a.mkv", list(moving(9)), 25, times=times)
    asked = fake_pipeline.resolve(Request("A cat", num_frames=4, video=str(path)))
    where = {"device": "cpu", "dtype": "float32"}
    with create_run(fake_pipeline, asked, tmp_path / "run", "tiny", tmp_path / "o.mp4", **where) as run:
        tick = 1 / Fraction(run.fps)
        render(fake_pipeline, run, asked)
    old = frame_times(path)
    wanted = [*old, *(old[-1] + number * tick for number in range(1, 5))]
    assert all(
        abs(a - b) < Fraction(1, 500) for a, b in zip(frame_times(tmp_path / "o.mp4"), wanted, strict=True)
    )


def test_a_frame_that_repeats_the_one_before_does_not_end_the_video(tmp_path):
    whole = written(tmp_path / "whole.mkv", "matroska", "mpeg4", np.stack([L_SHAPE] * 8))
    path = tmp_path / "a.nut"
    with av.open(str(whole)) as source, av.open(str(path), "w", format="nut") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            fresh = av.Packet(b"" if number in (3, 5) else bytes(packet))
            fresh.pts = fresh.dts = packet.pts
            fresh.time_base, fresh.stream, fresh.is_keyframe = packet.time_base, stream, packet.is_keyframe
            out.mux(fresh)
    assert (look(path).frames, look(path).notes) == (6, ())
    assert len(frames_at(path, [0.0, 0.28], 8, 8)) == 2


def test_what_is_left_out_or_cropped_is_told(tmp_path):
    both = tmp_path / "both.h264"
    for number, frame in enumerate((L_SHAPE, np.tile(L_SHAPE, (2, 1, 1)))):
        part = written(tmp_path / f"{number}.h264", "h264", "libx264", np.stack([frame] * 3))
        both.write_bytes((both.read_bytes() if number else b"") + part.read_bytes())
    assert "changes its size" in str(look(both).notes)
    assert {frame.shape for frame in reader.read_video(both)} == {(48, 64, 3)}
    with av.open(str(tmp_path / "two.mkv"), "w") as out:
        streams = [out.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for stream in streams:
            for frame in (av.VideoFrame.from_ndarray(L_SHAPE).reformat(format="yuv420p"), None):
                out.mux(stream.encode(frame))
    assert "2 videos; the first is used" in str(look(tmp_path / "two.mkv").notes)
