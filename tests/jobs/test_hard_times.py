"""Full disks, and jobs that kill their worker: nothing is lost, others go on, the log stays small."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from serving import served
from streamingt2v import Request
from streamingt2v.jobs import supervisor
from streamingt2v.jobs.patience import Patience
from streamingt2v.jobs.room import Reserve, StorageFull, is_full
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Settings

LONG = Request("A cat running on the street", 4000)


def until(condition, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """Mount a disk of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> Path:
    """Fill the disk; return the file that takes the space."""
    with (disk / "filler").open("ab", buffering=0) as file, suppress(OSError):
        for size in (2**16, 2**12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return disk / "filler"


@pytest.mark.slow
def test_a_full_disk_costs_no_job_and_can_be_emptied(toy, small_disk, capfd):
    with JobService(Settings(small_disk / "data", (str(toy),))) as service, served(service) as url:
        service.wait_until_ready()
        old = service.wait(service.submit(replace(LONG, num_frames=160)).id)
        running = service.submit(LONG)
        until(lambda: service.get(running.id).frames_done >= 16)
        filler = fill(small_disk)
        began, log = time.monotonic(), ""
        answers = []
        while time.monotonic() < began + 4:
            with suppress(OSError):
                fill(small_disk)
            image = {"input_reference": ("x.png", b"\x89PNG\r\n\x1a\n" + bytes(100_000))}
            answers.append(
                httpx2.post(f"{url}/v1/videos", data={"prompt": "A cat"}, files=image, timeout=30).status_code
            )
            log += capfd.readouterr().err
        assert set(answers) == {507} and service.get(running.id).status == "in_progress"
        assert httpx2.get(f"{url}/v1/videos", timeout=30).status_code == 200, "it can be seen what there is"
        assert len(log) < 10_000 * 4 / 60 + 500, log
        assert httpx2.delete(f"{url}/v1/videos/{old.id}", timeout=30).status_code == 200
        until(lambda: not service.files.of(old.id).exists())
        frames = service.get(running.id).frames_done
        filler.unlink()
        until(lambda: service.get(running.id).frames_done > frames)
        assert httpx2.post(f"{url}/v1/videos/{running.id}/cancel", timeout=30).status_code == 200
        assert service.wait(running.id).status == "cancelled"
        assert service.wait(service.submit(replace(LONG, num_frames=8)).id).status == "completed"
        until(lambda: (small_disk / "data" / "reserve").exists())
        assert service.supervisor.restarts == 0


DEADLY = """
import os, signal, sys
from streamingt2v.jobs import worker

class Deadly(worker.Worker):
    def _warm_up(self):
        pass  # imports torch

    def _make(self, job):
        if job.request.prompt == "deadly":
            self.store.report(job.id, frames_done=8)  # as its run folder does each time
            os.kill(os.getpid(), signal.SIGKILL)
        super()._make(job)

worker.Worker = Deadly
sys.exit(worker.main())
"""


@pytest.mark.slow
def test_a_job_that_kills_its_worker_fails_after_five_tries_and_the_next_one_is_made(
    toy, tmp_path, monkeypatch
):
    monkeypatch.setattr(supervisor, "WORKER", (sys.executable, "-c", DEADLY))
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.1)
    with JobService(Settings(tmp_path / "data", (str(toy),))) as service:
        deadly, next_ = (service.submit(Request(prompt, 8)) for prompt in ("deadly", "A cat"))
        failed = service.wait(deadly.id)
        assert (failed.status, failed.error_code) == ("failed", "worker_died")
        assert "5 times" in failed.error_message
        assert service.wait(next_.id).status == "completed"
        assert service.supervisor.restarts == 6, "the first start made new frames, so it was no try"


def test_a_full_disk_leaves_a_reserve_for_what_ends_something(tmp_path, monkeypatch):
    from streamingt2v.jobs.store import JobStore

    store = JobStore(tmp_path / "jobs.sqlite3")
    store.add("a", "create", "toy", replace(LONG, num_frames=8), (32, 32, 8, 8), None, 9)
    store.take_reserve()
    assert (tmp_path / "reserve").stat().st_size == 256 * 2**10
    whole, tried = store._database.writing, []

    def full():
        tried.append((tmp_path / "reserve").exists())
        if tried[-1]:
            raise StorageFull("full")
        return whole()

    for deed in (
        lambda: store.cancel("a"),
        lambda: store.end("a", "failed"),
        lambda: store.delete("a"),
        lambda: store.forget("a"),
    ):
        store.take_reserve()
        monkeypatch.setattr(store, "writing", full)
        deed()
        assert tried[-2:] == [True, False] and not (tmp_path / "reserve").exists()
    store.take_reserve()
    with pytest.raises(StorageFull):
        store.add("b", "create", "toy", LONG, (32, 32, 8, 8), None, 9)
    assert (tmp_path / "reserve").exists(), "what is new may not have it"
    assert not Reserve(tmp_path / "nowhere").give()


def test_what_fails_is_tried_less_and_less_often_and_told_once(caplog):
    patience = Patience("_looking_after")
    for _ in range(6):
        with patience.trying():
            raise OSError(errno.EIO, "broken")
    assert (
        patience.pause == 16.0
        and not patience.is_over
        and len(caplog.records) == 1
        and "looking after" in caplog.text
    )
    with patience.trying():
        pass
    assert patience.pause == 0.0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_known_through_what_is_made_of_it(code):
    def wrapped() -> Exception:
        try:
            try:
                raise OSError(code, "full")
            except OSError as error:
                raise RuntimeError("outer") from error
        except RuntimeError as error:
            return error

    assert (
        is_full(wrapped())
        and not is_full(RuntimeError())
        and not is_full(OSError(errno.EIO, "x"))
        and not is_full(None)
    )


def test_threads_that_write_take_turns(tmp_path):
    from streamingt2v.jobs.store import JobStore

    store = JobStore(tmp_path / "jobs.sqlite3")
    threads = [threading.Thread(target=store.count, args=("x", 1.0)) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.totals()["x"] == 60
