"""Two servers over one folder: each job is made once, and one resumes what the other leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import forking
from streamingt2v import Request, RunError
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Settings
from streamingt2v.jobs.store import JobStore

FRAMES, JOBS = 80, 2
CAT = Request("A cat running on the street", FRAMES)
SERVICE = """
import sys, time
from pathlib import Path
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Settings
with JobService(Settings.from_json(sys.argv[1])) as service:
    service.wait_until_ready()
    print("ready", *service.supervisor.pids, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def settings(toy, tmp_path) -> Settings:
    return Settings(tmp_path / "shared", (str(toy),), shared=True)


@contextmanager
def started(settings: Settings) -> Iterator[tuple[forking.Popen, list[int]]]:
    """Run a service in its own process; yield the process and the process ids of its workers."""
    process = forking.Popen(
        [sys.executable, "-c", SERVICE, settings.to_json()], stdout=forking.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, [int(word) for word in process.stdout.readline().split()[1:]]
    finally:
        process.kill()
        process.wait()


def until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


@pytest.mark.parametrize("whole_machine", [False, True], ids=["the server", "its worker too"])
def test_what_a_killed_server_was_making_goes_on_at_the_other(service, settings, whole_machine):
    with started(settings) as (first, pids), JobService(settings) as second:
        second.wait_until_ready()
        jobs = [second.submit(replace(CAT, seed=seed)) for seed in range(JOBS)]
        until(
            lambda: any(second.store.ready_workers()[slot] in pids for slot in second.store.places_at_work())
        )
        until(lambda: sum(second.get(job.id).frames_done for job in jobs) >= 48)
        for pid in [first.pid, *(pids if whole_machine else ())]:
            os.kill(pid, signal.SIGKILL)
        assert [second.wait(job.id).status for job in jobs] == ["completed"] * JOBS
        for seed, job in enumerate(jobs):
            alone = service.wait(service.submit(replace(CAT, seed=seed)).id)
            assert second.video(job.id).read_bytes() == service.video(alone.id).read_bytes()
        assert second.store.totals()["frames"] == JOBS * FRAMES, (
            "no chunk was made twice, or at least not committed"
        )


def test_a_folder_is_of_one_server_or_shared_by_all_of_them(settings):
    alone = replace(settings, shared=False)
    with JobService(settings), pytest.raises(RunError, match="another server uses"):
        JobService(alone)
    with JobService(alone), pytest.raises(RunError, match="has it to itself"):
        JobService(settings)
    assert not list(settings.folder.glob("place-1*.lock")), "they leave nothing of theirs"


def test_what_is_just_being_taken_in_by_another_server_is_no_stray(settings):
    service = JobService(settings)
    half, new, old = (
        settings.folder / "uploads" / "half",
        *(settings.folder / "jobs" / f"video_{x * 24}" for x in "ab"),
    )
    for path in (half, new, old):
        service.store.begin(path.name)
        path.mkdir()
    os.utime(old, (1, 1))
    other = JobService(settings)
    assert half.exists() and new.exists() and not old.exists()
    for each in (service, other):
        each.__exit__()


def test_places_are_never_given_twice(tmp_path):
    stores = [JobStore(tmp_path / "jobs.sqlite3", shared=True) for _ in range(2)]
    places = [place for _ in range(5) for store in stores for place in store.new_places(3)]
    assert len(set(places)) == 30


def test_jobs_of_the_version_before_are_kept(tmp_path):
    path: Path = tmp_path / "jobs.sqlite3"
    store = JobStore(path)
    store.add("a", "create", "toy", CAT, (32, 32, 8, FRAMES), None, 9)
    with store.writing() as db:
        before = json.dumps(
            {
                {"num_frames": "frames", "num_inference_steps": "steps"}.get(k, k): v
                for k, v in CAT.to_json().items()
            }
        )
        db.execute("UPDATE jobs SET request = ?", (before,))
        for statement in (
            "DROP TABLE sessions",
            "DROP TABLE begun",
            "ALTER TABLE changes DROP COLUMN event",
            "ALTER TABLE jobs DROP COLUMN reached",
            "ALTER TABLE jobs DROP COLUMN stage",
            "PRAGMA application_id = 0",
            "PRAGMA user_version = 1",
        ):
            db.execute(statement)
    store.close()
    again = JobStore(path)
    assert again.change_prompt("a", "A dog", 9, "dog") == again.change_prompt("a", "A dog", 9, "dog") == 1
    assert again.events("a") == {1: "dog"} and again.get("a").request == CAT
    again.close()
    assert JobStore(path, shared=True).events("a") == {1: "dog"}, "another kind of journal"
