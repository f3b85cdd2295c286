"""Absurd numbers: a clear refusal in bounded time and memory, wherever a number goes in."""

import json
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from commands import PROMPT, a_video, listing, run
from streamingt2v.cli.table import read_table
from streamingt2v.config import ExtendConfig, ModelConfig, Request
from streamingt2v.config.request import MOST_FRAMES
from streamingt2v.errors import RequestError
from streamingt2v.estimate.duration import count_chunks
from streamingt2v.resolve import resolve
from streamingt2v.runs.store import Store
from streamingt2v.video.images import MOST_ROWS, MOST_TILES, contact_sheet, xt_slice

pytestmark = pytest.mark.usefixtures("in_empty_folder")
GIANT = "1" + "0" * 12
DIGITS = "9" * 5000
MAKE = ["generate", PROMPT, "-o", "o.mp4"]
ABSURD = [
    (["plan", "--frames", GIANT], "--frames"),
    (["plan", "--fps", "1000000"], "--fps"),
    (["plan", "--seconds-per-step", "nan"], "--seconds-per-step"),
    (["plan", "--seconds-per-step", "inf"], "--seconds-per-step"),
    (["plan", "x" * 20_000], "PROMPT"),
    ([*MAKE, "--frames", GIANT], "--frames"),
    ([*MAKE, "--frames", DIGITS], "--frames"),
    ([*MAKE, "--fps", "1000000"], "--fps"),
    ([*MAKE, "--seed", DIGITS], "--seed"),
    ([*MAKE, "--steps", GIANT], "--steps"),
    ([*MAKE, "--guidance-scale", "1e308"], "--guidance-scale"),
    ([*MAKE, "--guidance-scale", "1e999"], "--guidance-scale"),
    ([*MAKE, "--width", GIANT], "--width"),
    ([*MAKE, "--height", GIANT], "--height"),
    ([*MAKE, "--preset", "full", "--strength", "1e300"], "--strength"),
    ([*MAKE, "--negative-prompt", "x" * 20_000], "--negative-prompt"),
    (["refine", "v.mp4", PROMPT, "-o", "o.mp4", "--workers", GIANT], "--workers"),
    (["refine", "v.mp4", PROMPT, "-o", "o.mp4", "--frames", GIANT], "--frames"),
    (["resume", "v.mp4", "--workers", GIANT], "--workers"),
    (["evaluate", "v.mp4", "--flow-size", GIANT], "--flow-size"),
    (["evaluate", "v.mp4", "--chunk", GIANT, "--overlap", "1"], "--chunk"),
    (["evaluate", "v.mp4", "--chunk", "16", "--overlap", GIANT], "--overlap"),
    (["batch", "t.csv", "--out", "out", "--workers", GIANT], "--workers"),
    (["batch", "t.csv", "--out", "out", "--threads", GIANT], "--threads"),
    (["batch", "t.csv", "--out", "out", "--retries", GIANT], "--retries"),
    (
        ["batch", "t.csv", "--out", "out", "--device", "cuda", "--workers", "2", "--gpus-per-worker", "nan"],
        "--gpus-per-worker",
    ),
    (["bench", "--frames", GIANT], "--frames"),
    (["bench", "--lengths", f"16,{GIANT}"], "--lengths"),
    (["bench", "--lengths", DIGITS], "--lengths"),
    (["bench", "--threads", GIANT], "--threads"),
    (["bench", "--repeats", GIANT], "--repeats"),
    (["bench", "--steps", GIANT], "--steps"),
]


@pytest.mark.parametrize(
    ("words", "names"), ABSURD, ids=lambda x: " ".join(x)[:60] if isinstance(x, list) else ""
)
def test_an_absurd_number_is_refused_at_once(fake_pipeline, capsys, words, names):
    a_video("v.mp4", 4, 8)
    Path("t.csv").write_text("prompt\na cat\n")
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    code, out, err = run(capsys, *words)
    assert code == 2 and names in err and len(err.splitlines()) == 1 and len(err) < 1500, err
    assert (
        time.monotonic() - began < 20
        and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    )
    assert fake_pipeline.loads == [] and listing() == {"v.mp4", "t.csv"}


def test_plan_refuses_what_no_disk_holds(capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=10**9))
    code, _, err = run(capsys, "plan", "--frames", "2000000000")
    assert code == 2 and "--frames 2000000000: needs about" in err


def test_a_video_that_no_disk_of_this_machine_holds_is_refused(fake_pipeline, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=10**9))
    assert run(capsys, *MAKE, "--frames", "80")[0] == 0
    code, _, err = run(capsys, *MAKE, "--overwrite", "--frames", "2000000000")
    assert code == 2 and "--frames 2000000000: need at least" in err and listing() == {"o.mp4"}


@pytest.mark.parametrize(
    "row",
    [
        {"frames": 10**12},
        {"fps": 10**6},
        {"seed": 10**30},
        {"guidance_scale": 1e308},
        {"steps": 10**9},
        {"width": 10**9},
    ],
)
def test_an_absurd_number_in_a_table_is_refused_with_its_line(row):
    Path("t.jsonl").write_text(
        json.dumps({"prompt": "a cat"}) + "\n" + json.dumps({"prompt": "a cat"} | row) + "\n"
    )
    with pytest.raises(RequestError, match=r"row 2: .*\(line 2\)"):
        read_table(Path("t.jsonl"), Request.validate)


@pytest.mark.parametrize(
    ("backbone", "image"), [("modelscope", None), ("modelscope", "x.png"), ("svd", "x.png")]
)
@pytest.mark.parametrize(("chunk", "overlap"), [(16, 8), (8, 7), (14, 6), (2, 1)])
def test_chunks_are_counted_without_listing_frames(chunk, overlap, backbone, image):
    Path("x.png").touch()
    config = ModelConfig(
        "m", 32, 48, 8, extend=ExtendConfig(frames=chunk, overlap=overlap), backbone=backbone
    )
    for frames in range(1, 50):
        asked = resolve(config, Request("a", frames, image=image))
        made = range(1 if asked.start == "image" else 0, frames)
        assert count_chunks(asked) == len({asked.grid.start(frame) for frame in made})
    assert count_chunks(resolve(config, Request("a", MOST_FRAMES, image=image))) > 10**7


def test_pictures_of_endless_videos_have_a_size():
    frame = np.zeros((2, 2, 3), np.uint8)
    count = 2 * MOST_ROWS + 1
    xt_slice((frame + number % 2 for number in range(count)), "x.png")
    assert (
        Image.open("x.png").height <= MOST_ROWS * 64 and not np.asarray(Image.open("x.png")).any()
    )  # even frames alone
    contact_sheet((frame for _ in range(3 * MOST_TILES)), "c.png", every=1)
    width, height = Image.open("c.png").size
    assert width * height // 4 <= MOST_TILES


def test_what_a_batch_hands_over_is_there_whole_or_not_at_all(monkeypatch):
    store = Store("out")
    store.check()
    Path("video").write_bytes(b"new")
    store.put(Path("video"), "a.mp4")
    store.write_json("a.json", {"status": "done"})
    monkeypatch.setattr("shutil.copyfile", lambda source, target: (Path(target).write_bytes(b"ne"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        store.put(Path("video"), "a.mp4")
    assert Path("out/a.mp4").read_bytes() == b"new" and store.names() == {"a.mp4", "a.json"}
    Path("out/a.json").write_text("[" * 100_000)
    assert store.read_json("a.json") == {}
