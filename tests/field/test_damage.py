"""Damaged and forged run folders: one line of error, and nothing outside the folder is touched."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from commands import run
from streamingt2v.cli import main
from streamingt2v.config import Request
from streamingt2v.errors import RunError
from streamingt2v.runs.run import RunFolder
from streamingt2v.types import Chunk

DEEP = b"[" * 100_000
HEADERS = {
    "empty": b"",
    "deep": DEEP,
    "a list": b"[1]",
    "null": b"null",
    "Latin-1": b'{"format": "\xff"}',
    "a giant number": b'{"format":' + b"9" * 5000 + b"}",
    "a key twice": b'{"format": 2, "format": 2}',
}
VALUES = {
    "fps": "eight", "height": 10**9, "width": -2, "metadata": [], "versions": {"torch": 1}, "inputs": None,
    "request": {"prompt": 5},
    "model": 5, "device": 5, "dtype": "int8", "threads": -1, "output": 5, "savings": [], "temporary": "yes",
}  # fmt: skip
REQUESTS = [
    [],
    {},
    {"prompt": "a", "num_frames": "x"},
    {"prompt": "a", "schedule": [[1]]},
    {"prompt": "a", "seed": True},
    {"x": 1},
]
ENTRIES = [
    {"segment": "../victim.txt"}, {"segment": "/etc/passwd"}, {"segment": 5}, {"segment": "request.json"},
    {"state": "../victim.txt"},
    {"frames": "x"}, {"frames": -5}, {"frames": 10**30}, {"kind": "x"}, {"start": 3}, {"index": 1},
    {"final": 1}, {"segment_sha256": None},
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with RunFolder.create(folder, Request("a cat", 24), model="tiny", fps=8, height=32, width=48) as made:
        for index in range(2):
            made.commit(
                Chunk(index, 8 * index, np.zeros((8, 32, 48, 3), np.uint8), False, {"chunk": index + 1})
            )
    return folder


@pytest.fixture
def damaged(whole, tmp_path, in_empty_folder):
    """Copy the run, write other bytes to one of its files, and put a victim file beside it."""

    def make(name: str, data: bytes) -> Path:
        shutil.copytree(whole, "run")
        Path("victim.txt").write_text("keep")
        Path("run", name).write_bytes(data)
        return Path("run")

    return make


def refused(folder: Path, capsys) -> None:
    with pytest.raises(RunError):
        RunFolder.open(folder)
    for command in ("resume", "evaluate"):
        code, _, err = run(capsys, command, folder)
        assert (
            code in (1, 2) and len(err.splitlines()) == 1 and "unexpected" not in err and len(err) < 1500
        ), err
    assert Path("victim.txt").read_text() == "keep" and Path("run/seg_00001.m4s").exists()


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS)
def test_a_damaged_header(damaged, capsys, data):
    refused(damaged("request.json", data), capsys)


@pytest.mark.parametrize(("name", "value"), VALUES.items(), ids=VALUES)
def test_a_header_with_a_value_that_cannot_be(damaged, whole, capsys, name, value):
    values = json.loads((whole / "request.json").read_text()) | {name: value}
    refused(damaged("request.json", json.dumps(values).encode()), capsys)


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_a_header_with_another_request(damaged, whole, capsys, request_):
    values = json.loads((whole / "request.json").read_text()) | {"request": request_}
    refused(damaged("request.json", json.dumps(values).encode()), capsys)


@pytest.mark.parametrize("changed", ENTRIES, ids=str)
def test_a_journal_that_names_what_is_no_segment(damaged, whole, changed):
    first, second = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    folder = damaged("journal.jsonl", json.dumps(json.loads(first) | changed).encode() + b"\n" + second)
    with pytest.raises(RunError, match=r"damaged|does not follow"):
        RunFolder.open(folder)
    assert (
        Path("victim.txt").read_text() == "keep"
        and Path("run/seg_00001.m4s").exists()
        and main(["resume", "run"]) == 2
    )


@pytest.mark.parametrize(
    "line", [DEEP, b"[]", b"5", b"\xff", b'{"number": "x", "frame": [], "after": {}, "prompt": 5}']
)
@pytest.mark.parametrize("file", ["journal.jsonl", "prompts.jsonl"])
def test_a_line_that_is_none(damaged, file, line):
    folder = damaged(file, line + b"\n" + b"{}\n")
    with pytest.raises(RunError, match=r"line 1 is damaged"):
        RunFolder.open(folder)


def test_a_last_line_that_names_another_file_is_torn_and_harms_nothing(damaged, whole):
    first, second = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    folder = damaged(
        "journal.jsonl", first + json.dumps(json.loads(second) | {"state": "../victim.txt"}).encode() + b"\n"
    )
    with RunFolder.open(folder) as kept:
        assert kept.frames_committed == 8
    assert Path("victim.txt").read_text() == "keep"


@pytest.mark.parametrize("name", ["init.mp4", "seg_00000.m4s"])
def test_other_bytes_in_a_segment(damaged, capsys, name):
    folder = damaged(name, b"x")
    with pytest.raises(RunError, match="missing or damaged"):
        RunFolder.open(folder)
    assert run(capsys, "resume", folder)[0] == 2
