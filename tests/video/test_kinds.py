"""File types are told by content, not by name, and no file leads to another."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from films import jpeg2000_with_a_giant, written
from streamingt2v.errors import MediaError, MediaWarning
from streamingt2v.video import container, reader
from streamingt2v.video.kinds import DEMUXERS, HEAD_BYTES, PICTURES, kind_of

CONTAINERS = {
    "mp4": "libx264", "mov": "libx264", "matroska": "libx264", "webm": "libvpx", "avi": "mpeg4",
    "flv": "flv", "asf": "mpeg4",
    "mpegts": "libx264", "mpeg": "mpeg2video", "vob": "mpeg2video", "nut": "mpeg4",
    "yuv4mpegpipe": "rawvideo", "gif": "gif",
    "ivf": "libvpx", "apng": "apng", "h264": "libx264", "ipod": "libx264", "3gp": "mpeg4",
    "mpeg2video": "mpeg2video", "ogg": "libvpx",
}  # fmt: skip


@pytest.mark.parametrize("format", CONTAINERS)
def test_every_container_is_known_by_its_first_bytes_under_any_name(tmp_path, moving, format):
    path = written(tmp_path / "clip", format, CONTAINERS[format], moving(10, 96, 128))
    kind = kind_of(path.read_bytes()[:HEAD_BYTES])
    assert kind is not None and kind.media == "video"
    assert reader.count_frames(path) == 10
    path = path.rename(tmp_path / "clip.txt")
    assert reader.count_frames(path) == 10


@pytest.mark.parametrize("box", [b"free", b"wide", b"skip"])
def test_a_film_need_not_begin_with_its_type(tmp_path, moving, box):
    fragments = {
        "movflags": "empty_moov+default_base_moof+frag_keyframe"
    }  # places in them are counted from their own beginning
    path = written(tmp_path / "clip.mp4", "mp4", "libx264", moving(4, 32, 32), container_options=fragments)
    path.write_bytes((8).to_bytes(4, "big") + box + path.read_bytes())
    assert kind_of(path.read_bytes()).demuxer == "mov" and reader.count_frames(path) == 4


def test_every_type_of_image_that_is_read_is_known_by_its_first_bytes(tmp_path):
    Image.init()
    for name in sorted((set(PICTURES) & set(Image.SAVE)) - {"GIF"}):
        path = tmp_path / name
        Image.new("1" if name in ("XBM", "MSP") else "RGB", (32, 32), 1).save(path, name)
        kind = kind_of(path.read_bytes()[:HEAD_BYTES])
        assert kind is not None and kind.media == "image", name
        assert reader.read_image(path, 8, 8).shape == (8, 8, 3)


def test_nothing_that_opens_other_files_may_open_one():
    assert not {
        "concat",
        "hls",
        "dash",
        "image2",
        "sdp",
        "rtsp",
        "lavfi",
        "tty",
        "vobsub",
        "mlv",
        "webm_dash_manifest",
    } & set(DEMUXERS)
    for name in DEMUXERS:
        if name in av.formats_available:
            av.format.ContainerFormat(name, "r")
    Image.init()
    assert set(PICTURES) <= set(Image.OPEN) and not {"EPS", "WMF", "MPEG"} & set(PICTURES)


def lists(target):
    """Return files of several types that refer to `target`."""
    return {
        "concat": f"ffconcat version 1.0\nfile '{target.name}'\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target.name}\n#EXT-X-ENDLIST\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
        'type="static" mediaPresentationDuration="PT1S">'
        f'<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
        f"<BaseURL>{target}</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5000 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "smil": f'<smil><body><video src="{target}"/></body></smil>',
    }


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat", ".mpd", ".sdp", ".ts", ""])
@pytest.mark.parametrize("kind", ["concat", "hls", "dash", "sdp", "smil"])
def test_a_list_of_files_is_not_followed(tmp_path, moving, kind, suffix):
    target = written(tmp_path / "target.mkv", "matroska", "libx264", moving(4, 32, 32))
    path = tmp_path / f"list{suffix}"
    path.write_text(lists(target)[kind])
    for read in (reader.count_frames, reader.probe_video, lambda path: next(reader.read_video(path))):
        with pytest.raises(MediaError, match="list"):
            read(path)


def test_a_pattern_of_names_is_a_name(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "frame1.png")
    with pytest.raises(MediaError, match="no such file"):
        reader.count_frames(tmp_path / "frame%d.png")


def test_a_frame_of_too_many_pixels_is_never_decoded(tmp_path, moving):
    path = jpeg2000_with_a_giant(tmp_path / "a.mov", moving(6, 32, 32), 13_000)
    with pytest.warns(MediaWarning):
        assert max(frame.width for frame in container.decoded(path)) == 32


def test_no_memory_is_no_damage(tmp_path, moving, monkeypatch):
    path = written(tmp_path / "a.mp4", "mp4", "libx264", moving(9, 32, 32))

    def demux(self, stream):
        for number, packet in enumerate(real(self, stream)):
            if number == 5:
                raise av.error.MemoryError(12, "Cannot allocate memory")
            yield packet

    class Container:
        def __init__(self, opened):
            self._opened = opened

        def __getattr__(self, name):
            return getattr(self._opened, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._opened.close()

        def demux(self, stream):
            return demux(self._opened, stream)

    real, opening = lambda opened, stream: opened.demux(stream), av.open
    monkeypatch.setattr(container.av, "open", lambda *a, **k: Container(opening(*a, **k)))
    with pytest.raises(MediaError, match="memory"):
        np.stack(list(reader.read_video(path)))
