"""Anybody's clips: folders of videos with captions, read at the model's rate,
a function of the generator alone."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingt2v.errors import MediaError, RequestError
from streamingt2v.train.data import VideoFolder
from streamingt2v.video.moments import frames_at, seconds_of
from streamingt2v.video.writer import write_video

FRAMES, FPS = 40, 20


def grey(index: int) -> np.ndarray:
    return np.full((16, 24, 3), 20 + 5 * index, np.uint8)


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Two seconds whose frames tell their number by their brightness."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, (grey(i) for i in range(FRAMES)), FPS)
    return path


@pytest.fixture
def folder(film, tmp_path) -> Path:
    for name in ("b", "a"):
        (tmp_path / f"{name}.mp4").write_bytes(film.read_bytes())
        (tmp_path / f"{name}.txt").write_text(f"film {name}\n")
    return tmp_path


def shown(frames: np.ndarray) -> list[int]:
    return [round((float(frame.mean()) - 20) / 5) for frame in frames]


@settings(max_examples=25, deadline=None)
@given(times=st.lists(st.floats(0, 2.5), min_size=1, max_size=6))
def test_the_frame_on_screen_at_any_time(film, times):
    expected = [min(FRAMES - 1, int(time * FPS + 1e-4)) for time in times]
    assert shown(frames_at(film, times, 16, 24)) == expected
    assert seconds_of(film) == pytest.approx(FRAMES / FPS)


def test_a_file_without_frames_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for call in (lambda path: frames_at(path, [0.0], 16, 16), seconds_of):
        with pytest.raises(MediaError, match=r"a\.mp4"):
            call(tmp_path / "a.mp4")


def test_clips_are_taken_at_the_models_rate_and_follow_from_the_generator(folder):
    clips = VideoFolder(folder, fps=5, seconds=1.0)
    drawn = [clips.draw(np.random.default_rng(seed), [2, 0, 3], 16, 16) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0].frames_TCHW, drawn[1].frames_TCHW) and not torch.equal(
        drawn[0].frames_TCHW, drawn[2].frames_TCHW
    )
    for clip in drawn:
        assert (
            clip.frames_TCHW.shape == (3, 3, 16, 16)
            and clip.weight_THW is None
            and clip.caption in ("film a", "film b")
        )
        first, second, third = shown((clip.frames_TCHW.permute(0, 2, 3, 1).numpy() + 1) * 127.5)
        assert abs(first - second - 8) <= 1 and abs(third - second - 12) <= 1, (
            "4 frames of the film for one of the model's"
        )


def listed_as_csv(folder: Path, rows: list[dict]) -> None:
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def listed_as_jsonl(folder: Path, rows: list[dict]) -> None:
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")


@pytest.mark.parametrize("write", [listed_as_csv, listed_as_jsonl])
@pytest.mark.parametrize("names", [("file_name", "caption"), ("video", "text"), ("path", "prompt")])
def test_captions_in_a_list(folder, write, names):
    write(folder, [dict(zip(names, (f"{name}.mp4", f"a dog, {name}"), strict=True)) for name in "ab"])
    expected = [("a.mp4", "a dog, a"), ("b.mp4", "a dog, b")]
    for path in (folder, next(folder.glob("metadata.*"))):
        assert [(file.name, caption) for file, caption, _ in VideoFolder(path, 8, 1.0).videos] == expected


def test_the_key_changes_with_what_is_told_and_not_with_the_place(folder, tmp_path_factory):
    first = VideoFolder(folder, 8, 1.0).key
    moved = folder.rename(tmp_path_factory.mktemp("moved") / "there")
    assert VideoFolder(moved, 8, 1.0).key == first
    (moved / "a.txt").write_text("another film")
    assert VideoFolder(moved, 8, 1.0).key != first


def test_short_videos_are_left_out_and_named(folder, film):
    write_video(folder / "c.mp4", (grey(i) for i in range(4)), FPS)
    (folder / "c.txt").write_text("short")
    clips = VideoFolder(folder, 8, 1.0)
    assert [path.name for path in clips.short] == ["c.mp4"] and len(clips.videos) == 2
    with pytest.raises(RequestError, match=r"3.00 s.*2.00 s"):
        VideoFolder(folder, 8, 3.0)


WRONG = {
    "no video": lambda f: [path.unlink() for path in f.iterdir()],
    "a.txt beside it": lambda f: (f / "a.txt").unlink(),
    "row 2 needs file_name and caption": lambda f: listed_as_jsonl(
        f, [{"file": "a.mp4", "text": "x"}, {"file": "b.mp4"}]
    ),
    "row 1 names c.mp4, which is not there": lambda f: listed_as_csv(f, [{"file": "c.mp4", "caption": "x"}]),
    "cannot be read as JSONL": lambda f: (f / "metadata.jsonl").write_text("[1]"),
    "metadata.csv and metadata.jsonl": lambda f: [
        (f / f"metadata.{kind}").write_text("") for kind in ("csv", "jsonl")
    ],
    "lists no video": lambda f: (f / "captions.csv").write_text("file_name,caption\n"),
    "cannot be read as a video": lambda f: (f / "b.mp4").write_bytes(b"none"),
}


@pytest.mark.parametrize("says", WRONG)
def test_what_is_no_data_set_is_said(folder, says):
    WRONG[says](folder)
    with pytest.raises(RequestError, match=says) as raised:
        VideoFolder(folder, 8, 1.0)
    assert raised.value.argument == "data"
