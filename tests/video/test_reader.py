"""Reading images and videos, sound and damaged."""

from __future__ import annotations

import re
import struct
import warnings
import wave
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from streamingt2v.errors import MediaError, MediaWarning, RequestError
from streamingt2v.video import reader, stills
from streamingt2v.video.writer import write_video


@pytest.fixture
def video(tmp_path, moving):
    path = tmp_path / "a clip: 50%.mp4"
    write_video(path, moving(70), fps=8)
    return path


def red_left_blue_right(width=80, height=20):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 255
    image[:, width // 2 :, 2] = 255
    return image


def test_a_picture_of_the_right_size_is_read_unchanged(tmp_path, moving):
    Image.fromarray(moving(1)[0]).save(tmp_path / "a.png")
    assert np.array_equal(reader.read_image(tmp_path / "a.png", 16, 32), moving(1)[0])


@pytest.mark.parametrize("height, width", [(20, 20), (64, 64), (40, 8), (6, 60), (1, 1)])
def test_a_picture_is_centred_in_the_size(tmp_path, height, width):
    Image.fromarray(red_left_blue_right()).save(tmp_path / "a.png")
    image = reader.read_image(tmp_path / "a.png", height, width)
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    if width > 6:
        assert (image[:, 0] == [255, 0, 0]).all() and (image[:, -1] == [0, 0, 255]).all()
        assert np.array_equal(image[..., 0], image[:, ::-1, 2])


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    Image.fromarray(red_left_blue_right(32, 32)).save(tmp_path / "a.png", exif=exif)
    image = reader.read_image(tmp_path / "a.png", 32, 32)
    assert (image[0] == [255, 0, 0]).all() and (image[-1] == [0, 0, 255]).all()


def test_transparency_is_over_black(tmp_path):
    image = np.full((8, 8, 4), 200, np.uint8)
    image[:4, :, 3], image[4:, :, 3] = 0, 255
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(image).quantize(8).save(tmp_path / "palette.png")
    for name in ("a.png", "palette.png"):
        read = reader.read_image(tmp_path / name, 8, 8)
        assert (read[:4] == 0).all() and (read[4:] == 200).all()


@pytest.mark.parametrize(
    "values, expected", [(np.full((8, 8), 90, np.uint8), 90), (np.full((8, 8), 90 * 257, np.uint16), 90)]
)
def test_grey_of_8_and_16_bits(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (reader.read_image(tmp_path / "a.png", 8, 8) == expected).all()


@pytest.mark.parametrize(
    "content", [b"", b"just text\n" * 50, b"\x89PNG\r\n\x1a\n", bytes(range(256)) * 20, b"GIF89a"]
)
def test_what_is_no_picture_is_said_to_be_none(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.png: cannot be read as an image: \w+"):
        reader.read_image(path, 8, 8)


def test_missing_and_torn_pictures_and_folders(tmp_path, moving):
    Image.fromarray(moving(1, 64, 64)[0]).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    for path in (tmp_path / "torn.png", tmp_path / "missing.png", tmp_path):
        with pytest.raises(MediaError, match=path.name):
            reader.read_image(path, 8, 8)


@pytest.mark.parametrize("side", [9_000, 30_000])
def test_a_picture_that_unpacks_to_gigabytes_is_refused_unread(tmp_path, side):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    head = b"IHDR" + struct.pack(">II", side, side) + data[24:29]
    (tmp_path / "a.png").write_bytes(data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:])
    with warnings.catch_warnings(), pytest.raises(MediaError, match="pixel"):
        warnings.simplefilter("error")
        reader.read_image(tmp_path / "a.png", 8, 8)


def test_a_video_gives_its_frames_one_by_one(video, moving):
    frames = reader.read_video(video)
    first = next(frames)
    assert first.shape == (16, 32, 3) and first.dtype == np.uint8
    rest = np.stack([first, *frames])
    assert len(rest) == 70 == reader.count_frames(video)
    assert np.abs(rest.astype(int) - moving(70)).mean() < 3
    assert reader.probe_video(video) == reader.VideoInfo(70, 16, 32, 8.0)
    assert np.array_equal(reader.last_frames(video, 9), rest[-9:])
    assert len(reader.last_frames(video, 1000)) == 70


def test_a_video_is_scaled_and_centred(video, moving):
    small = next(reader.read_video(video, 8, 8))
    expected = np.asarray(Image.fromarray(moving(1)[0][:, 8:24]).resize((8, 8), Image.Resampling.BICUBIC))
    assert np.abs(small.astype(int) - expected).max() < 12
    assert reader.last_frames(video, 3, 20, 30).shape == (3, 20, 30, 3)


def test_half_a_size_and_no_frames_are_refused(video):
    with pytest.raises(ValueError, match="together"):
        next(reader.read_video(video, height=8))
    with pytest.raises(RequestError, match="n=0"):
        reader.last_frames(video, 0)


def test_a_turned_video_is_shown_upright(tmp_path):
    for degrees in (90, 180, -90):  # counterclockwise
        path = tmp_path / f"{degrees}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=8, options={"crf": "8"})
            stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
            stream.set_display_rotation(degrees)
            picture = av.VideoFrame.from_ndarray(red_left_blue_right(32, 16), format="rgb24")
            container.mux([*stream.encode(picture), *stream.encode(None)])
        frame = next(reader.read_video(path))
        info = reader.probe_video(path)
        expected = np.rot90(red_left_blue_right(32, 16), degrees // 90)
        assert frame.shape == expected.shape == (info.height, info.width, 3)
        corners = np.ix_([1, -2], [1, -2])
        assert np.abs(frame[corners].astype(int) - expected[corners]).max() < 12


def test_texts_sounds_and_rubbish_are_no_videos(tmp_path):
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    (tmp_path / "text.txt").write_text("A cat running on the street\n" * 40)
    (tmp_path / "text.mp4").write_text("A cat running on the street\n" * 40)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(9000))
    (tmp_path / "away.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    for name in (
        "sound.wav",
        "text.txt",
        "text.mp4",
        "empty.mp4",
        "noise.mp4",
        "away.m3u8",
        "missing.mp4",
        ".",
    ):
        for read in (reader.probe_video, reader.count_frames, lambda path: next(reader.read_video(path))):
            with pytest.raises(MediaError, match=re.escape(str(tmp_path / name))):
                read(tmp_path / name)


def test_a_video_of_too_many_pixels_is_refused(video, monkeypatch):
    monkeypatch.setattr(stills, "MAX_PIXELS", 500)
    with pytest.raises(MediaError, match="32x16 is more than"):
        next(reader.read_video(video))


def test_a_truncated_video_gives_its_good_frames_and_a_warning(video):
    whole, data = list(reader.read_video(video)), video.read_bytes()
    start = data.index(b"mdat") + 4
    with av.open(str(video)) as container:
        between = container.streams.video[0].index_entries[50].pos
    for size in (start + 900, start + 1500, between - 1, between, between + 1, len(data) - 1):
        video.write_bytes(data[:size])
        with pytest.warns(MediaWarning, match="is damaged"):
            frames = list(reader.read_video(video))
        assert 0 < len(frames) < len(whole)
        assert all(np.array_equal(a, b) for a, b in zip(frames, whole, strict=False))
    video.write_bytes(data[: start + 20])
    with pytest.raises(MediaError, match="no frame of this video can be decoded"):
        list(reader.read_video(video))
