"""Batches by the command: every row once, with a single run's bytes, whatever fails or is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import fsspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamingt2v.cli import main
from streamingt2v.cli.table import read_table
from streamingt2v.config import Request
from streamingt2v.errors import RequestError
from streamingt2v.ray_backend import Farm
from streamingt2v.runs import batch
from streamingt2v.runs import render as runner
from streamingt2v.runs.run import RunFolder
from streamingt2v.runs.store import Store
from toy import write_toy_model

PROMPT = "A cat running on the street"
FRAMES = 24


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("model") / "toy", refiner=False)


@pytest.fixture(scope="module")
def singles(toy, tmp_path_factory) -> dict[int, bytes]:
    """Map seed -> the file that `generate` makes with one thread."""
    folder, before = tmp_path_factory.mktemp("singles"), torch.get_num_threads()
    torch.set_num_threads(1)
    for seed in range(4):
        words = [
            "generate",
            PROMPT,
            "--seed",
            seed,
            "--frames",
            FRAMES,
            "--model",
            toy,
            "-o",
            folder / f"{seed}.mp4",
            "-q",
        ]
        assert main([str(word) for word in words]) == 0
    torch.set_num_threads(before)
    return {seed: (folder / f"{seed}.mp4").read_bytes() for seed in range(4)}


@pytest.fixture
def table(tmp_path) -> Path:
    """Write two rows, named s0 and s1 after their seeds."""
    return write_table(tmp_path / "rows.jsonl", 2)


def write_table(path: Path, rows: int, **more: object) -> Path:
    lines = [
        {"prompt": PROMPT, "name": f"s{seed}", "seed": seed, "frames": FRAMES, **more} for seed in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(table: Path, toy: Path, out: object, *more: str) -> int:
    return main(["batch", str(table), "--out", str(out), "--model", str(toy), "--quiet", *more])


def lines_of(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def count_commits(monkeypatch, stop_after: int | None = None) -> list[int]:
    """Collect the chunks committed from now on; interrupt after so many."""
    commit, made = RunFolder.commit, []

    def committed(run: RunFolder, chunk) -> None:
        commit(run, chunk)
        made.append(chunk.index)
        if len(made) == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "commit", committed)
    return made


def test_stopped_anywhere_a_second_start_does_what_is_missing(
    table, toy, singles, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        count_commits(patch, stop_after=3)  # a row has two chunks: in the middle of the second row
        assert run(table, toy, tmp_path / "out") == 130
    assert "resume with: streamingt2v batch" in capsys.readouterr().err
    made = count_commits(monkeypatch)
    assert run(table, toy, tmp_path / "out", "--json") == 0
    assert made == [1], "the first row was made again, or the second from its beginning"
    row, total = lines_of(capsys)
    assert (row["name"], row["status"], row["new_frames"]) == ("s1", "done", 8)
    assert (total["rows"], total["done_before"], total["done"]) == (2, 1, 1)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").glob("*.mp4")} == {
        "s0.mp4": singles[0],
        "s1.mp4": singles[1],
    }
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "s0.json",
        "s0.mp4",
        "s1.json",
        "s1.mp4",
    ]
    assert run(table, toy, tmp_path / "out") == 0
    assert len(made) == 1


def test_to_an_address_the_run_folders_stay_here(table, toy, singles, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        count_commits(patch, stop_after=1)
        assert run(table, toy, "memory://night/one") == 130
    assert (tmp_path / "rows.runs" / "s0.run" / "request.json").is_file()
    assert run(table, toy, "memory://night/one") == 0
    files = fsspec.filesystem("memory")
    assert sorted(Path(name).name for name in files.ls("/night/one", detail=False)) == [
        "s0.json",
        "s0.mp4",
        "s1.json",
        "s1.mp4",
    ]
    assert files.cat_file("/night/one/s1.mp4") == singles[1]
    assert list((tmp_path / "rows.runs").iterdir()) == []


def fail(monkeypatch, seed: int, times: int) -> None:
    """Let rendering this seed fail so many times."""
    left = [times]

    def render(pipe, run, *arguments, **more):
        if run.request.seed == seed and left[0]:
            left[0] -= 1
            raise OSError("the disk is full")
        return runner.render(pipe, run, *arguments, **more)

    monkeypatch.setattr(batch, "render", render)


def test_a_row_that_fails_stops_no_other_and_is_tried_again(
    table, toy, singles, tmp_path, monkeypatch, capsys
):
    fail(monkeypatch, seed=0, times=2)
    assert run(table, toy, tmp_path, "--json") == 0
    first, second, _ = lines_of(capsys)
    assert (first["name"], first["attempts"], second["name"], second["attempts"]) == ("s1", 1, "s0", 3)
    assert (tmp_path / "s0.mp4").read_bytes() == singles[0]


def test_a_row_that_fails_too_often_is_recorded_and_left_for_the_next_start(
    table, toy, singles, tmp_path, monkeypatch, capsys
):
    fail(monkeypatch, seed=0, times=2)
    assert run(table, toy, tmp_path, "--retries", "1", "--json") == 1
    *_, total = lines_of(capsys)
    assert (total["done"], total["failed"]) == (1, 1)
    record = json.loads((tmp_path / "s0.json").read_text())
    assert (record["status"], record["attempts"], record["error"]) == ("failed", 2, "the disk is full")
    assert run(table, toy, tmp_path) == 0
    assert (tmp_path / "s0.mp4").read_bytes() == singles[0]
    assert json.loads((tmp_path / "s0.json").read_text())["status"] == "done"


@pytest.mark.parametrize("stop_after", [3, None])
def test_rows_changed_since_are_told_and_nothing_is_made(
    table, toy, tmp_path, monkeypatch, capsys, stop_after
):
    """Finish s0, and begin or finish s1."""
    with monkeypatch.context() as patch:
        count_commits(patch, stop_after)
        run(table, toy, tmp_path / "out")
    capsys.readouterr()
    made = count_commits(monkeypatch)
    assert run(write_table(table, 2, steps=1), toy, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert (
        made == []
        and "s0.mp4 is there" in error
        and "s1." in error
        and "steps=None where 1 is asked for" in error
    )


def test_a_table_says_the_same_in_every_format(tmp_path):
    """An empty cell is the default; so is the float that it makes of its column in a parquet file."""
    (tmp_path / "t.csv").write_text(
        '\ufeffprompt,seed,guidance_scale,steps\na cat,3,2.5,\n"a dog, running",,,4\n'
    )
    rows = [
        {"prompt": "a cat", "seed": 3, "guidance_scale": 2.5},
        {"prompt": "a dog, running", "steps": 4, "seed": None},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    expected = [
        ("0001", Request("a cat", seed=3, guidance_scale=2.5)),
        ("0002", Request("a dog, running", num_inference_steps=4)),
    ]
    assert (
        read_table(tmp_path / "t.csv", Request.validate)
        == read_table(tmp_path / "t.jsonl", Request.validate)
        == expected
    )
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", Request.validate) == expected


def test_all_wrong_rows_are_told_at_once_before_any_work(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "load_pipeline", lambda *arguments: pytest.fail("weights were loaded"))
    lines = [
        "prompt,name,frames,image",
        "a cat,a,x,",
        "a cat,b,8,",
        ",c,8,",
        "a cat,d,8,no.png",
        "a cat,b,9,",
        "a cat,../e,9,",
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    assert run(tmp_path / "t.csv", toy, tmp_path / "out") == 2
    error = capsys.readouterr().err
    for part in (
        "row 1: frames='x': must be a whole",
        "row 3: prompt",
        "row 4: image='no.png'",
        "'b' is given to several",
        "row 6: name=",
    ):
        assert part in error
    assert "row 2" not in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.csv", "prompt,sed\na cat,1\n", "column 'sed'"),
        ("t.csv", "prompt,seed\na cat\n", "fewer cells"),
        ("t.csv", "seed\n1\n", "no column 'prompt'"),
        ("t.csv", "prompt\n", "no row"),
        ("t.jsonl", '{"prompt": "a cat"\n', "cannot be read"),
        ("t.jsonl", "[1]\n", "JSON object"),
        ("t.jsonl", '{"prompt": "a cat", "seed": 1.5}\n', "whole number"),
        ("t.jsonl", '{"prompt": "a cat", "schedule": [[8, 5]]}\n', "a frame and a prompt"),
        ("t.txt", "a cat\n", "must end in one of"),
    ],
)
def test_wrong_tables_are_explained(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=said):
        read_table(tmp_path / name, Request.validate)


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers() | st.text(), max_size=2)
)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("prompt", "name", "seed", "strength", "schedule", "preset", "image"), VALUES),
    )
)
def test_whatever_a_row_holds_it_is_a_request_or_an_explained_error(tmp_path_factory, row):
    path = tmp_path_factory.mktemp("any") / "t.jsonl"
    path.write_text(json.dumps(row) + "\n")
    try:
        ((_, request),) = read_table(path, Request.validate)
    except RequestError:
        return
    assert request == request.validate() and request.prompt == row["prompt"]


def test_a_place_of_no_known_kind_is_refused():
    with pytest.raises(RequestError, match="fsspec"):
        Store("nowhere://x")


def test_a_farm_of_one_needs_no_ray(monkeypatch):
    monkeypatch.setattr("streamingt2v.ray_backend.find_spec", lambda name: None)
    with Farm(lambda: str.upper, 1) as farm:
        assert list(farm.work_off(["a", "b"])) == [(0, "A"), (1, "B")]


def hands() -> list[int]:
    """Return this process's Ray workers that work on rows."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::MapWorker" in (folder / "cmdline").read_bytes() and is_ours(int(folder.name)):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def is_ours(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def kill_one_at_work(out: Path, killed: list[int]) -> None:
    """Kill (-9) a worker once a chunk of a row is committed."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(journal.stat().st_size for journal in out.glob("*.run/journal.jsonl")) and (pids := hands()):
            os.kill(pids[0], signal.SIGKILL)
            killed.append(pids[0])
            return
        time.sleep(0.02)


def test_two_workers_of_which_one_is_killed_make_every_row_once(toy, singles, tmp_path, capsys):
    pytest.importorskip("ray")
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_at_work, args=(tmp_path / "out", killed))
    killer.start()
    assert (
        run(
            write_table(tmp_path / "rows.jsonl", 4),
            toy,
            f"file://{tmp_path}/out",
            "--workers",
            "2",
            "--json",
            "--run-dir",
            str(tmp_path / "out"),
        )
        == 0
    )
    killer.join()
    assert killed, "nobody was killed"
    *rows, total = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert sorted(row["name"] for row in rows) == ["s0", "s1", "s2", "s3"] and total["done"] == 4
    assert {int(file.stem[1:]): file.read_bytes() for file in (tmp_path / "out").glob("*.mp4")} == singles
    assert sorted(file.suffix for file in (tmp_path / "out").iterdir()) == [".json"] * 4 + [".mp4"] * 4, (
        "run folders are left"
    )
