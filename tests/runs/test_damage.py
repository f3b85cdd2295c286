"""Damaged and forged run folders: an error that names the file, and no other effect."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from run_folders import complete, create, digest, story
from streamingt2v.errors import RunError
from streamingt2v.runs.folder import JOURNAL, PROMPTS, REQUEST
from streamingt2v.runs.journal import Entry, Journal
from streamingt2v.runs.run import RunFolder
from streamingt2v.runs.state import pack_state, unpack_state


@pytest.fixture
def begun(tmp_path):
    """Make a run that was interrupted after its second chunk."""
    with create(tmp_path / "run") as run:
        for chunk in islice(story(run.request), 2):
            run.commit(chunk)
    (tmp_path / "victim.txt").write_text("dear")
    return tmp_path / "run"


def changed(folder, line, **values):
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    lines[line] = json.dumps(json.loads(lines[line]) | values).encode() + b"\n"
    (folder / JOURNAL).write_bytes(b"".join(lines))


OUTSIDE = [
    "../victim.txt",
    "/etc/hostname",
    "seg_00000.m4s/../../victim.txt",
    "request.json",
    "",
    "seg_0.m4s",
    "SEG_00000.m4s",
    "lock",
]


@pytest.mark.parametrize("field", ["segment", "state"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_journal_names_its_own_files_and_no_others(begun, field, name):
    changed(begun, 0, **{field: name})
    before = {path: path.read_bytes() for path in begun.parent.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="line"):
        RunFolder.open(begun)
    assert {path: path.read_bytes() for path in begun.parent.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "other"},
        {"index": "0"},
        {"index": 5},
        {"start": -1},
        {"start": 3},
        {"frames": 0},
        {"frames": 1.5},
        {"frames": True},
        {"final": "no"},
        {"segment": 5},
        {"segment_sha256": None},
        {"state": ["x"]},
        {"state": None},
        {"unknown": 1},
        {"kind": "source"},
        {"state_sha256": None},
    ],
)
def test_a_journal_of_wrong_values_is_damaged(begun, values):
    changed(begun, 0, **values)
    with pytest.raises(RunError, match=r"line \d (is damaged|does not follow)"):
        RunFolder.open(begun)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, "5", "null", '"x"', "[]", "\xff", "{}"])
def test_junk_in_the_journal_is_damage_before_the_last_line_and_torn_in_it(begun, text):
    lines = (begun / JOURNAL).read_bytes().splitlines(keepends=True)
    (begun / JOURNAL).write_bytes(lines[0] + text.encode("latin-1") + b"\n" + lines[1])
    with pytest.raises(RunError, match="line 2 is damaged"):
        RunFolder.open(begun)
    (begun / JOURNAL).write_bytes(b"".join(lines) + text.encode("latin-1"))
    with RunFolder.open(begun) as run:
        assert run.chunks_committed == 2


@pytest.mark.parametrize(
    "text", [DEEP, "5", "null", "[]", '{"format": 3}', '{"format": 3, "request": 5}', "\xff", ""]
)
def test_junk_for_a_request_is_told(begun, text):
    (begun / REQUEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=REQUEST):
        RunFolder.open(begun)


@pytest.mark.parametrize(
    "values",
    [
        {"fps": 0},
        {"fps": "eight"},
        {"fps": -8},
        {"height": 15},
        {"height": 2**40},
        {"width": None},
        {"threads": 0},
        {"model": 5},
        {"device": []},
        {"output": 5},
        {"overwrite": "yes"},
        {"temporary": 1},
        {"metadata": []},
        {"versions": {"torch": 5}},
        {"inputs": {"image": 5}},
        {"init_sha256": None},
        {"request": None},
        {"request": {"prompt": 5}},
        {"request": {"prompt": "a", "seed": "x"}},
        {"request": {"prompt": "a", "schedule": 5}},
        {"savings": 5},
        {"savings": {"offload": 5}},
        {"cpu": None},
        {"weights": 5},
    ],
)
def test_a_request_of_wrong_types_is_told(begun, values):
    header = json.loads((begun / REQUEST).read_bytes())
    (begun / REQUEST).write_text(json.dumps(header | values))
    with pytest.raises(RunError, match=REQUEST):
        RunFolder.open(begun)


@pytest.mark.parametrize(
    "line", [DEEP, "5", '{"number": "x", "frame": 0, "after": 0, "prompt": "A"}', '{"number": 1}']
)
def test_damaged_prompts_are_told(begun, line):
    good = '{"number": 1, "frame": 0, "after": -1, "prompt": "A dog"}\n'
    (begun / PROMPTS).write_text(f"{line}\n{good}")
    with pytest.raises(RunError, match="line 1 is damaged"):
        RunFolder.open(begun)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([REQUEST, JOURNAL]), st.floats(0, 1), st.binary(max_size=6), st.integers(0, 40))
def test_whatever_is_overwritten_it_opens_or_is_told(begun, name, where, junk, cut):
    whole = (begun / name).read_bytes()
    at = int(where * len(whole))
    try:
        (begun / name).write_bytes(whole[:at] + junk + whole[at + cut :])
        try:
            RunFolder.open(begun).close()
        except RunError as error:
            assert str(begun) in str(error)
        assert (begun.parent / "victim.txt").read_text() == "dear"
    finally:
        for path, data in ((begun / name, whole),):
            path.write_bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 20,
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        pack_state({"a": 1})[:-3],
    ],
)
def test_a_damaged_state_is_told(data):
    with pytest.raises(RunError, match="damaged"):
        unpack_state(data)


def test_a_journal_that_was_edited_is_cut_where_its_lines_end(begun, tmp_path):
    """With other spaces than ours, and a damaged newest state, which costs its chunk."""
    text = (begun / JOURNAL).read_text().replace(": ", ":    ")
    (begun / JOURNAL).write_text(text)
    (begun / "state_00001.safetensors").write_bytes(b"x")
    with RunFolder.open(begun) as run:
        assert run.chunks_committed == 1
        complete(run)
    assert len(Journal.read(begun / JOURNAL).entries) == 4
    with create(tmp_path / "other") as other:
        assert digest(complete(other)) == digest(begun / "video.mp4")


def test_an_entry_comes_back_as_it_went_in():
    entry = Entry("chunk", 0, 0, 5, False, "seg_00000.m4s", "0" * 64)
    assert Entry.from_line(entry.to_line()) == entry
    entry.check_names(0)
    for wrong in (
        replace(entry, segment="seg_00001.m4s"),
        replace(entry, state="state_00001.safetensors", state_sha256="0" * 64),
    ):
        with pytest.raises(ValueError, match="not the names"):
            wrong.check_names(0)
