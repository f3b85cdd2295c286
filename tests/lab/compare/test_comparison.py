"""The comparison from its plan to its page, and what the page says of the bars."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lab.compare import bars, comparison, sheet
from lab.compare.baselines import METHODS, chunk_calls
from lab.compare.comparison import (
    COMPARED,
    FAST,
    FAST_WITHOUT_ANCHOR,
    FIRST,
    FULL,
    LONG,
    OURS,
    WITHOUT_ANCHOR,
)
from lab.compare.results import Item
from lab.compare.rivals import NAMES
from lab.compare.statistics import share
from streamingt2v.config import ExtendConfig, Request
from streamingt2v.errors import RunError
from toy import write_distilled_model, write_toy_model

TRUTH = {"noun": share(99, 100), "scene": share(100, 100), "motion": share(95, 100)}
SEEN = {"noun": True, "scene": True, "motion": True}


def items(part: str, method: str, count: int = 20, seen: dict | None = None, **values: float) -> list[Item]:
    """Videos whose numbers lie a little around the given ones, in the same way for every method."""
    around = np.random.default_rng(0).normal(0, 1e-3, count)
    seen = seen or SEEN
    return [
        Item(
            part,
            method,
            i,
            0,
            "a cat",
            40,
            {n: v + float(around[i]) * (n != "cuts") for n, v in values.items()},
            seen,
            seen,
            {},
            1.0,
        )
        for i in range(count)
    ]


GOOD = [
    *items(FIRST, OURS),
    *items(COMPARED, OURS, seam=1.01, cuts=0.0),
    *items(COMPARED, WITHOUT_ANCHOR, seam=1.02, mawe=1.0),
    *(
        item
        for rival in (*bars.NAMES.values(), "nothing")
        for item in items(COMPARED, rival, seam=1.2, mawe=2.0)
    ),
    *items(LONG, OURS, seam=1.0, cuts=0.0, motion_kept=0.9, anchor_end=0.8, colour_drift=2.0, colour_end=2.0),
    *items(LONG, WITHOUT_ANCHOR, anchor_end=0.7, colour_drift=4.0, colour_end=4.0),
    *items(FULL, "refined", sharpness=200.0, seam=1.0),
    *items(FULL, "enlarged", sharpness=100.0, seam=1.0),
]


def changed(part: str, method: str, **values: float) -> list[Item]:
    """`GOOD` with other numbers of one method."""
    return [replace(i, values=i.values | values) if (i.part, i.method) == (part, method) else i for i in GOOD]


def failing(some: list[Item], nouns: int = 36) -> list[str]:
    found = bars.bars(some, TRUTH, nouns)
    assert all(bar.holds is not None for bar in found)
    return [bar.claim for bar in found if not bar.holds]


def test_a_good_model_passes_every_bar():
    assert failing(GOOD) == []


@pytest.mark.parametrize(
    ("worse", "claim"),
    [
        (changed(COMPARED, OURS, seam=1.2), "seam score"),
        (changed(COMPARED, OURS, cuts=1.0), "no cut"),
        (changed(LONG, OURS, motion_kept=0.7), "motion at least"),
        (changed(LONG, OURS, colour_drift=4.0), "`colour_drift`"),
        (changed(LONG, OURS, colour_end=4.0), "`colour_end`"),
        (changed(LONG, OURS, anchor_end=0.7), "`anchor_end`"),
        (changed(COMPARED, "concatenated frames", mawe=1.0), "concatenated frames in `mawe`"),
        (changed(COMPARED, "added features", seam=1.0), "added features in `seam`"),
        (changed(FULL, "refined", sharpness=100.0), "sharper"),
        ([*GOOD, *items(FIRST, OURS, 40, {**SEEN, "motion": False})], "motion within 10"),
        (
            [replace(i, last={**SEEN, "noun": False}) if i.part == LONG else i for i in GOOD],
            "end of long videos: noun",
        ),
    ],
)
def test_each_bar_can_fail(worse, claim):
    failed = failing(worse)
    assert len(failed) == 1 and claim in failed[0]


def test_where_there_is_a_distilled_network_it_is_what_is_shipped():
    still = {**SEEN, "motion": False}
    poor = [*items(FIRST, FAST, seen=still), *items(COMPARED, FAST, seen=still, seam=1.2, cuts=0.0)]
    failed = failing([*GOOD, *poor])
    assert len(failed) == 4 and all("motion" in claim for claim in failed[:1])
    assert (
        any("seam score" in claim for claim in failed)
        and sum("distilled, " in claim for claim in failed) == 2
    )
    good = [*items(FIRST, FAST), *items(COMPARED, FAST, seam=1.0, cuts=0.0)]
    assert failing([*GOOD, *good]) == []


def test_few_nouns_are_not_enough():
    assert len(failing(GOOD, nouns=12)) == 3


def test_what_was_not_measured_is_said():
    """And a part that was left out is not asked about."""
    found = bars.bars(items(COMPARED, OURS), TRUTH, 0)
    assert [bar.holds for bar in found[:3]] == [True] * 3 and {bar.row[2] for bar in found[3:]} == {
        "not measured"
    }
    assert len(found) == 3 + 2 * (len(NAMES) + 1)
    assert len(bars.bars([], TRUTH, 0)) == 3


def test_the_calls_of_a_method_are_counted(monkeypatch):
    config = ExtendConfig(frames=16, overlap=8, steps=8)
    assert [chunk_calls(config, frames) for frames in (1, 16, 17, 24, 25)] == [8, 8, 16, 16, 24]
    assert METHODS["FIFO-Diffusion"].calls(config, 80) == 8 + 8 * 128


@pytest.mark.parametrize("total", [1, 5, 8, 100])
def test_a_strip_shows_frames_from_the_first_to_the_last(total):
    strip = sheet.Strip(total)
    for number in range(total):
        strip.add(np.full((2, 3, 3), number, np.uint8))
    numbers = [int(sheet.frame_of(strip.picture, i)[0, 0, 0]) for i in range(sheet.COUNT)]
    assert (
        strip.picture.shape == (2, 24, 3)
        and numbers == sorted(numbers)
        and (numbers[0], numbers[-1]) == (0, total - 1)
    )


def test_a_sheet_has_all_pictures_in_rows(tmp_path):
    sheet.draw_sheet([np.full((2, 3, 3), i, np.uint8) for i in range(5)], 2, tmp_path / "s.png")
    drawn = np.array(Image.open(tmp_path / "s.png"))
    assert drawn.shape == (6, 6, 3) and drawn[::2, ::3, 0].tolist() == [[0, 1], [2, 3], [4, 255]]


def test_methods_are_compared_on_the_models_own_network_and_the_distilled_one_is_a_method(tmp_path):
    teacher, shipped = write_toy_model(tmp_path / "toy"), write_distilled_model(tmp_path / "fast")
    maker = comparison.Maker(comparison.Source(str(teacher), (), tmp_path, shipped=str(shipped)))
    made = {}
    for method in (OURS, WITHOUT_ANCHOR, FAST, FAST_WITHOUT_ANCHOR):
        made[method] = np.stack(
            list(maker._video(comparison.Task(COMPARED, method, 0, 0, 24), maker.spec(0)))
        )
    for method, pipe in ((OURS, maker.pipe), (FAST, maker.shipped)):
        streamed = [chunk.frames for chunk in pipe.stream(Request(maker.spec(0).caption, 24, 0))]
        assert np.array_equal(made[method], np.concatenate(streamed))
    for with_anchor, without in ((OURS, WITHOUT_ANCHOR), (FAST, FAST_WITHOUT_ANCHOR)):
        same = (made[with_anchor] == made[without]).all((1, 2, 3))
        assert same[:16].all() and not same[16:].all(), "the anchor is for later chunks"
    assert not np.array_equal(made[OURS][:16], made[FAST][:16])


@pytest.fixture(scope="module")
def quality():
    pytest.importorskip("scenedetect")
    spec = importlib.util.spec_from_file_location(
        "quality", Path(__file__).parents[3] / "lab" / "benchmarks" / "quality.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(quality, tmp_path, monkeypatch, capsys):
    model = write_toy_model(tmp_path / "toy")
    small = f"--model {model} --frames 24 --long-frames 24 --seeds 5 --truth 2".split()
    small += ["--page", f"{tmp_path}/docs/results.md"]

    def run(*more: str) -> dict:
        monkeypatch.setattr(sys, "argv", ["quality.py", str(tmp_path / "out"), *small, *more])
        quality.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_the_benchmark_goes_on_where_it_was_stopped_and_writes_its_page(run, tmp_path, monkeypatch):
    assert run(*"--first 1 --compared 0 --long 0 --full 0".split())["videos"] == 1
    before = (tmp_path / "out" / "items.jsonl").read_text()
    made = []
    make = comparison.Maker.make
    monkeypatch.setattr(
        comparison.Maker, "make", lambda maker, task: made.append(task.key) or make(maker, task)
    )
    assert (
        run("--first", "1", "--compared", "1", "--long", "1", "--full", "1", "--methods", OURS, "nothing")[
            "videos"
        ]
        == 8
    )
    assert (FIRST, OURS, 0, 5) not in made and len(made) == 7
    assert (tmp_path / "out" / "items.jsonl").read_text().startswith(before)
    page = (tmp_path / "docs" / "results.md").read_text()
    for said in (
        "## What is meant to hold",
        "### What is not won",
        "Not compared:",
        "- last frame: needs as much training as CAM",
        "**does not hold**",
    ):
        assert said in page
    drawn = {path.name for path in (tmp_path / "docs" / "images").iterdir()}
    assert drawn == {f"results-{name}.png" for name in ("slices", "curves", "long", "refined", "first")}
    assert all(f"images/{name}" in page for name in drawn)
    with pytest.raises(RunError, match="another frames, long"):
        run("--long-frames", "32")


@pytest.fixture
def one_thread():
    """Sums on a CPU differ in their last bits by how many threads share them,
    and two processes share the machine's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_two_processes_make_what_one_makes(run, tmp_path, one_thread):
    asked = ["--first", "2", "--compared", "0", "--long", "0", "--full", "0"]
    run(*asked, "--jobs", "2")
    lines = [json.loads(line) for line in (tmp_path / "out" / "items.jsonl").read_text().splitlines()]
    (tmp_path / "out").rename(tmp_path / "before")
    run(*asked)
    alone = [json.loads(line) for line in (tmp_path / "out" / "items.jsonl").read_text().splitlines()]
    without_time = [sorted(json.dumps(line | {"seconds": 0}) for line in some) for some in (lines, alone)]
    assert without_time[0] == without_time[1] and len(alone) == 2


def test_long_videos_of_a_distilled_network_are_compared_with_each_other(run, tmp_path):
    model = write_distilled_model(tmp_path / "fast")
    assert (
        run("--first", "1", "--compared", "0", "--long", "1", "--full", "0", "--shipped", str(model))[
            "videos"
        ]
        == 5
    )
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "Differences to distilled:" in page and "distilled, CAM alone" in page
    assert page.split("ten in a row:")[1].count("\n1. ") == 1, "a prompt is told once"
