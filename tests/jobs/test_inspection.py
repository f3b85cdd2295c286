"""Inspection of untrusted files in a process with little memory."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from PIL import Image

from films import jpeg2000_with_a_giant
from streamingt2v.errors import MediaError
from streamingt2v.jobs import inspection
from streamingt2v.jobs.inspection import Found, identify, identify_file, inspect
from streamingt2v.jobs.job import QueueFull
from streamingt2v.jobs.settings import Limits
from streamingt2v.video.writer import write_video


def test_a_film_is_counted_and_a_moving_image_of_one_frame_is_an_image(tmp_path, moving):
    write_video(tmp_path / "a.mp4", moving(7), 8)
    stills = [
        Image.fromarray(frame)
        for frame in np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    ]
    stills[0].save(tmp_path / "one.gif")
    stills[0].save(tmp_path / "more.gif", save_all=True, append_images=stills[1:], duration=100)
    found = {path.name: inspect(path, identify_file(path), Limits()) for path in tmp_path.iterdir()}
    assert found == {
        "a.mp4": Found("video", ".mp4", 7, 8),
        "one.gif": Found("image", ".gif"),
        "more.gif": Found("video", ".gif", 3, 10),
    }


def test_a_photograph_of_twelve_megapixels_is_taken(tmp_path):
    Image.new("L", (4032, 3024), 90).save(tmp_path / "photo.jpg")
    assert inspect(tmp_path / "photo.jpg", identify_file(tmp_path / "photo.jpg"), Limits()).kind == "image"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"just text",
        b"#EXTM3U\n",
        b"ffconcat version 1.0\n",
        b"<svg>",
        bytes(100),
        b"%!PS-Adobe-3.0 EPSF",
    ],
)
def test_what_is_neither_is_refused_by_its_first_bytes(head):
    with pytest.raises(MediaError, match="neither an image"):
        identify(head)


def test_what_needs_more_memory_than_there_is_is_refused(tmp_path, moving, monkeypatch):
    """Also if the decoder would report damage: later readers have no limit."""
    film, limits = (
        jpeg2000_with_a_giant(tmp_path / "a.mov", moving(6, 32, 32), 8000),
        Limits(upload_pixels=80_000_000),
    )
    monkeypatch.setattr(inspection, "MEMORY_BYTES", 2**29)
    assert inspect(film.with_suffix(".small.mov"), Found("video", ".mov"), limits).frames == 6
    with pytest.raises(MediaError, match="memory"):
        inspect(film, Found("video", ".mov"), limits)


def test_so_many_are_read_at_once_and_so_many_wait(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", np.zeros((1, 16, 16, 3), np.uint8), 8)
    go, lock, running, most = threading.Event(), threading.Lock(), [0], [0]

    def slow(command):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        go.wait(20)
        with lock:
            running[0] -= 1
        return b'{"kind": "video", "frames": 1, "rate": null, "memory": 0}'

    monkeypatch.setattr(inspection, "_watched", slow)
    answers: list[object] = []

    def ask():
        try:
            answers.append(inspect(tmp_path / "a.mp4", Found("video", ".mp4"), Limits()))
        except QueueFull as error:
            answers.append(error)

    asking = [threading.Thread(target=ask) for _ in range(inspection.AT_ONCE + inspection.WAITING + 5)]
    for thread in asking:
        thread.start()
    while len(answers) < 5:
        pass
    assert all(isinstance(answer, QueueFull) for answer in answers)
    go.set()
    for thread in asking:
        thread.join()
    assert most[0] == inspection.AT_ONCE and len(answers) == len(asking)
    assert inspect(tmp_path / "a.mp4", Found("video", ".mp4"), Limits()) == Found("video", ".mp4", 1)
