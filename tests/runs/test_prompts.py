"""Prompt changes during a run give the frames of a schedule from the start, also after a kill."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamingt2v.config import Request
from streamingt2v.errors import RunError
from streamingt2v.runs.prompts import Change, PromptLog


def test_a_torn_line_is_no_change_and_is_overwritten(tmp_path):
    path = tmp_path / "prompts.jsonl"
    log = PromptLog(path)
    log.append(Change(1, 16, 0, "A dog"))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"number": 2, "fra')
    log = PromptLog.read(path)
    assert log.changes == [Change(1, 16, 0, "A dog")]
    log.append(Change(2, 24, 16, "A bus"))
    assert PromptLog.read(path).changes == log.changes and len(log.changes) == 2


def test_a_damaged_line_is_told(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b"rubbish\n{}\n")
    with pytest.raises(RunError, match="line 1"):
        PromptLog.read(path)


@given(st.lists(st.integers(0, 99), unique=True), st.lists(st.integers(0, 12), unique=True))
def test_every_chunk_has_the_newest_of_schedule_and_changes(scheduled, changed):
    """Return each chunk's prompt: entries begin with the first chunk from them on, changes with theirs."""
    schedule = tuple((frame, f"scheduled {frame}") for frame in sorted(scheduled))
    log = PromptLog(
        path=None,
        changes=[
            Change(n, 8 * c, 8 * c - 8 if c else -1, f"changed {c}") for n, c in enumerate(sorted(changed), 1)
        ],
    )
    merged = Request("first", 104, schedule=log.merged(schedule))
    shown = "first"
    for chunk in range(13):
        due = [prompt for frame, prompt in schedule if 8 * chunk - 8 < frame <= 8 * chunk]
        shown = f"changed {chunk}" if chunk in changed else (due or [shown])[-1]
        assert merged.prompt_at(8 * chunk) == shown
    frames = [frame for frame, _ in merged.schedule]
    assert frames == sorted(set(frames))
