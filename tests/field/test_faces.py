"""Real-world video files give the same result through every interface: command, batch, API, Python."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import streamingt2v.runs.batch
from commands import run
from films import L_SHAPE, display_matrix, film, with_tone, written
from streamingt2v import Request, export
from streamingt2v.runs.run import RunFolder
from streamingt2v.video import pixels, reader
from streamingt2v.video.look import frame_times, look

NEW = 8
NTSC = Fraction(30000, 1001)
UNEQUAL = list(itertools.accumulate([0, 40, 100, 40, 40, 200, 40, 80, 40]))


@dataclass(frozen=True)
class Kind:
    """A kind of file. write: to a path of that suffix. notes: words in its notes. shows: L_SHAPE, upright."""

    suffix: str
    write: Callable[[Path], object]
    frames: int = 6
    rate: Fraction | int = 25
    notes: tuple[str, ...] = ()
    shows: bool = True


def narrow(path):
    film(path, [L_SHAPE[:, ::2]] * 6, 25, stretch=Fraction(2))


def transposed(path):
    film(path, [L_SHAPE.transpose(1, 0, 2)] * 6, 25)
    display_matrix(path, 0, 1, 1, 0)


def slanted(path):
    film(path, [L_SHAPE] * 6, 25)
    display_matrix(path, math.cos(0.1), math.sin(0.1), -math.sin(0.1), math.cos(0.1))


def hidden(path):
    frame = np.full((48, 64, 4), 255, np.uint8)
    frame[..., :3] = np.where(L_SHAPE.any(-1, keepdims=True), L_SHAPE, [255, 255, 255])
    frame[24:, 32:, 3] = 0
    film(path, [frame] * 6, 25, codec="qtrle", pix_fmt="argb")


def wide(path):
    tags = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}
    film(path, [L_SHAPE] * 6, 25, codec="ffv1", pix_fmt="yuv420p10le", **tags)


def interlaced(path):
    film(path, [L_SHAPE] * 6, 25, codec="mpeg2video", flags=1 << 29 | 1 << 18)


def joined(path):
    part = written(path.with_suffix(".part"), "mpegts", "libx264", np.stack([L_SHAPE] * 8)).read_bytes()
    path.write_bytes(part + part)


def torn(path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    data = written(path, "mpegts", "libx264", noise).read_bytes()
    path.write_bytes(data[: 188 * 100] + data[188 * 101 :])


def moving_image(path):
    image = Image.fromarray(L_SHAPE)
    others = [Image.fromarray(np.roll(L_SHAPE, n % 2, 0)) for n in range(1, 6)]  # equal ones are merged
    image.save(path, save_all=True, append_images=others, duration=40, minimize_size=False, lossless=True)


def with_free_box_first(path):
    film(path, [L_SHAPE] * 6, 25)
    path.write_bytes(path.read_bytes().replace(b"ftyp", b"free", 1))


KINDS = {
    "plain": Kind(".mp4", lambda path: film(path, [L_SHAPE] * 6, 25)),
    "pixels that are not square": Kind(".mp4", narrow),
    "transposed": Kind(".mp4", transposed),
    "slanted": Kind(".mp4", slanted, notes=("at a slant",)),
    "NTSC": Kind(".mkv", lambda path: film(path, [L_SHAPE] * 6, NTSC), rate=NTSC),
    "slow": Kind(".mp4", lambda path: film(path, [L_SHAPE] * 6, Fraction(5, 2)), rate=Fraction(5, 2)),
    "a rate that varies": Kind(
        ".mkv", lambda path: film(path, [L_SHAPE] * 9, 25, times=UNEQUAL), 9, Fraction(450, 31),
        ("unequally",),
    ),
    "sound": Kind(".mov", lambda path: with_tone(path, [L_SHAPE] * 6, 25), notes=("sound",)),
    "transparent": Kind(".mov", hidden, notes=("laid over black",)),
    "HDR": Kind(".mkv", wide, notes=("BT.2020",), shows=False),
    "interlaced": Kind(".mpg", interlaced, notes=("interlaced",)),
    "joined": Kind(".ts", joined, 16, notes=("damaged",)),
    "torn": Kind(".ts", torn, 12, notes=("damaged",), shows=False),
    "WebP": Kind(".webp", moving_image),
    "GIF": Kind(".gif", moving_image),
    "a free box first": Kind(".mp4", with_free_box_first),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _graphs_are_kept() -> Iterator[None]:
    """FFmpeg computes tables for 4 seconds when a graph begins to bring HDR to a screen."""
    new, kept = pixels.Graph, {}

    def graph(frame, *filters):
        if filters[0][0] != "scale":  # others remember frames
            return new(frame, *filters)
        kind = (frame.width, frame.height, frame.format.name, filters)
        if kind not in kept:
            kept[kind] = new(frame, *filters)
        return kept[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "Graph", graph)
        yield


each_kind = pytest.mark.parametrize("name", KINDS)


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """Write a file of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    paths = {name: folder / f"{name.replace(' ', '-')}{kind.suffix}" for name, kind in KINDS.items()}
    for name, kind in KINDS.items():
        kind.write(paths[name])
    return paths


def check(kind: Kind, output: Path, frames: int, notes: object) -> None:
    """Check count, rate, orientation and notes of a video made from a file of this kind."""
    seen = look(output)
    assert (seen.frames, seen.notes) == (frames, ())
    assert seen.rate == kind.rate or "unequally" in kind.notes  # the mean of new and old frames
    for words in kind.notes:
        assert sum(words in str(note) for note in notes) == 1, notes
    assert kind.notes or not [note for note in notes if "the model makes" not in note]
    if kind.shows:
        first = next(reader.read_video(output)).astype(int)
        height, width = first.shape[:2]
        corners = first[np.ix_([height // 5, height - height // 5], [width // 5, width - width // 5])]
        assert np.abs(corners - L_SHAPE[np.ix_([5, -5], [5, -5])]).max() < 60, corners


@each_kind
def test_extend(files, name, tmp_path, capsys, fake_pipeline):
    kind, output = KINDS[name], tmp_path / "o.mp4"
    code, out, err = run(capsys, "extend", files[name], "a cat", "--frames", NEW, "-o", output, "--json")
    assert code == 0 and "Traceback" not in err and err.count("damaged") == ("damaged" in kind.notes)
    check(kind, output, kind.frames + NEW, json.loads(out)["notes"])


@each_kind
def test_refine_keeps_count_and_times(files, name, tmp_path, capsys, fake_pipeline):
    kind, output = KINDS[name], tmp_path / "o.mp4"
    code, out, err = run(capsys, "refine", files[name], "a cat", "-o", output, "--json")
    assert code == 0 and err.count("damaged") == ("damaged" in kind.notes), err
    assert json.loads(out)["frames"] == kind.frames
    notes = json.loads(out)["notes"]
    assert all(words in str(notes) for words in kind.notes if words != "sound")
    if name == "joined":
        assert look(output).rate == kind.rate
    else:
        gaps = zip(frame_times(output), frame_times(files[name]), strict=True)
        assert all(abs(a - b) < Fraction(1, 500) for a, b in gaps)


def test_evaluate_all_in_one_command(files, capsys):
    code, out, err = run(capsys, "evaluate", *files.values(), "--metrics", "flicker", "--json")
    reports = json.loads(out)["videos"]
    assert code == 0 and err.count("could be read") == 2, err
    for report, kind in zip(reports, KINDS.values(), strict=True):
        assert report["frames"] == kind.frames
        assert all(
            words in str(report["notes"]) for words in kind.notes if words not in ("sound", "unequally")
        )


def test_batch_of_all(files, tmp_path, capsys, fake_pipeline, monkeypatch):
    monkeypatch.setattr(streamingt2v.runs.batch, "load_pipeline", lambda *args, **named: fake_pipeline)
    rows = [
        {"prompt": "a cat", "video": str(path), "name": f"v{number}", "frames": NEW}
        for number, path in enumerate(files.values())
    ]
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = run(capsys, "batch", table, "--out", tmp_path / "out")
    assert code == 0, err
    for number, kind in enumerate(KINDS.values()):
        record = json.loads((tmp_path / "out" / f"v{number}.json").read_text())
        check(kind, tmp_path / "out" / f"v{number}.mp4", kind.frames + NEW, record["notes"])
        assert all(f"v{number}: {note}" in err for note in record["notes"])


@each_kind
def test_python(files, name, tmp_path, fake_pipeline):
    fake_pipeline.name, fake_pipeline.components.device = "tiny", "cpu"
    fake_pipeline.components.dtype = "torch.float32"
    kind, path = KINDS[name], files[name]
    request = Request("a cat", num_frames=NEW, video=str(path))
    export(fake_pipeline, request, tmp_path / "o.mp4", tmp_path / "run")
    with RunFolder.open(tmp_path / "run") as kept:
        check(kind, tmp_path / "o.mp4", kind.frames + NEW, kept.header.notes)


@pytest.fixture(scope="session")
def extended(files, client) -> dict[str, dict]:
    """Let the API extend all files."""
    answers = {name: client.extend(path, "a cat", num_frames=NEW) for name, path in files.items()}
    return {name: client.wait(answer["id"], 300) for name, answer in answers.items()}


@each_kind
def test_the_api(extended, client, name, tmp_path):
    kind, job = KINDS[name], extended[name]
    assert job["status"] == "completed", job
    assert job["fps"] == pytest.approx(float(kind.rate), abs=1e-5)
    output = client.download(job["id"], tmp_path / "o.mp4")
    check(kind, output, kind.frames + NEW, job["notes"])
