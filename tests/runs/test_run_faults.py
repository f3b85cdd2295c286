"""A run folder survives whatever interrupts it, and the video is the same bytes as if nothing had."""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run_folders import LENGTHS, TOTAL, Killed, complete, create, digest, failing_after, names, story
from streamingt2v import durable
from streamingt2v.config import Request
from streamingt2v.errors import RunError
from streamingt2v.runs.run import RunFolder
from streamingt2v.video.reader import count_frames, read_video


class Dying:
    """Allow `lives` file operations; every later one raises, as after the end of a process."""

    OPERATIONS = ("write", "fsync", "replace", "unlink", "ftruncate")

    def __init__(self, monkeypatch, lives, error=Killed, torn=False):
        self.lives, self.error, self.torn, self.count, self.held = lives, error, torn, 0, []
        for name in self.OPERATIONS:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name), name))
        monkeypatch.setattr(durable, "lock", self._noting(durable.lock))
        self.unlock = durable.unlock
        monkeypatch.setattr(durable, "unlock", lambda handle: self.held.remove(handle) or self.unlock(handle))

    def _counted(self, operation, name):
        def run(*args, **kwargs):
            self.count += 1
            if self.count <= self.lives:
                return operation(*args, **kwargs)
            if self.torn and name == "write" and self.count == self.lives + 1:
                operation(args[0], args[1][: len(args[1]) // 2])
            raise self.error() if self.error is Killed else self.error

        return run

    def _noting(self, lock):
        def run(path):
            handle = lock(path)
            self.held.append(handle)
            return handle

        return run

    def release_locks(self):
        """Release locks, like the system when a process ends."""
        for handle in self.held:
            self.unlock(handle)


def operations(request_, tmp_path):
    """Count the file operations of a run."""
    folder = tmp_path / "counted"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        counter = Dying(patch, lives=10**9)
        with create(folder / "run", request_, output=folder / "v.mp4") as run:
            complete(run)
    return counter.count


def test_killed_at_every_file_operation_it_goes_on_to_the_same_bytes(tmp_path, request_, undisturbed):
    total = operations(request_, tmp_path)
    assert total > 40
    for lives in range(total):
        folder = tmp_path / str(lives)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            dying = Dying(patch, lives, torn=True)
            with pytest.raises(Killed):
                complete(create(folder / "run", request_, output=folder / "v.mp4"))
        dying.release_locks()
        assert not (folder / "v.mp4").exists() or digest(folder / "v.mp4") == undisturbed
        begun = (folder / "run" / "request.json").exists()
        with (
            RunFolder.open(folder / "run")
            if begun
            else create(folder / "run", request_, output=folder / "v.mp4") as run
        ):
            assert digest(complete(run)) == undisturbed, f"killed after {lives} operations"
            assert not [name for name in names(folder / "run") if name.endswith(".part")]
        assert names(folder) == ["run", "v.mp4"]


def test_a_failing_disk_at_every_file_operation_is_a_clear_error(tmp_path, request_, undisturbed):
    total = operations(request_, tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")
    for lives in range(0, total, 2 if request_.video is None else 5):
        folder = tmp_path / str(lives)
        folder.mkdir()
        run = None
        with pytest.MonkeyPatch.context() as patch:
            Dying(patch, lives, error=full, torn=True)
            with pytest.raises(RunError, match="No space left on device"):
                run = create(folder / "run", request_, output=folder / "v.mp4")
                complete(run)
        if run is not None:
            run.close()
        assert not (folder / "v.mp4").exists() or digest(folder / "v.mp4") == undisturbed
        if run is not None:
            with RunFolder.open(folder / "run") as again:
                assert digest(complete(again)) == undisturbed


def test_after_a_failed_commit_the_same_run_can_try_again(tmp_path, undisturbed, request_):
    with create(tmp_path / "run", request_, output=tmp_path / "v.mp4") as run:
        if not run.source_done:
            run.commit_source(read_video(run.request.video, 16, 32))
        for chunk in story(run.request):
            for calls in range(4):  # of the segment, the state, the folder, the journal
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(os, "fsync", failing_after(calls, os.fsync))
                    with pytest.raises(RunError, match="cannot keep frames"):
                        run.commit(chunk)
            run.commit(chunk)
        assert digest(run.finish()) == undisturbed


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_journal_cut_anywhere_is_gone_on_from_or_said_to_be_lost(tmp_path_factory, data):
    request = Request("a cat", num_frames=TOTAL, seed=3)
    folder = tmp_path_factory.mktemp("cut")
    with create(folder / "run", request, output=folder / "v.mp4") as run:
        for chunk in list(story(request))[: data.draw(st.integers(1, len(LENGTHS)))]:
            run.commit(chunk)
    journal = folder / "run" / "journal.jsonl"
    content = journal.read_bytes()
    size = data.draw(st.integers(0, len(content)))
    journal.write_bytes(content[:size] + data.draw(st.sampled_from([b"", b"\0" * 50, b'{"kind"', b"[]\n"])))
    kept, had = content[:size].count(b"\n"), content.count(b"\n")
    try:
        with RunFolder.open(folder / "run") as run:
            assert run.chunks_committed == kept or (
                kept == 1 and had > 2
            )  # the first chunk's state is long gone: begin again
            complete(run)
    except RunError as error:
        assert 1 < kept < had - 1 and "state_" in str(error)  # its states were thrown away long before
    else:
        with create(folder / "whole", request, output=folder / "w.mp4") as run:
            complete(run)
        assert digest(folder / "v.mp4") == digest(folder / "w.mp4")


def test_kill_9_at_any_time(tmp_path, request_, undisturbed):
    for attempt, seconds in enumerate((0.02, 0.05, 0.09)):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with create(folder / "run", request_, output=folder / "v.mp4"):
            pass
        child = os.fork()
        if child == 0:
            try:
                with RunFolder.open(folder / "run") as run:
                    complete(run)
            finally:
                os._exit(0)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with RunFolder.open(folder / "run") as run:
            assert digest(complete(run)) == undisturbed


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:], lambda data: None]
)
@pytest.mark.parametrize("name", ["seg_00001.m4s", "init.mp4"])
def test_a_damaged_segment_is_named(tmp_path, damage, name):
    with create(tmp_path / "run") as run:
        for chunk in list(story(run.request))[:3]:
            run.commit(chunk)
    change(tmp_path / "run" / name, damage)
    for _ in range(2):  # and the lock is given back
        with pytest.raises(RunError, match=f"{name}: is missing or damaged"):
            RunFolder.open(tmp_path / "run")


def change(path, damage):
    data = damage(path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)


def test_a_damaged_state_costs_its_chunk_and_two_the_run(tmp_path):
    with create(tmp_path / "run") as run:
        for chunk in list(story(run.request))[:3]:
            run.commit(chunk)
    change(tmp_path / "run" / "state_00002.safetensors", lambda data: data[:-9])
    with RunFolder.open(tmp_path / "run") as run:
        assert run.chunks_committed == 2 and "seg_00002.m4s" not in names(run.path)
        run.commit(list(story(run.request))[2])
    for number in (1, 2):
        change(tmp_path / "run" / f"state_0000{number}.safetensors", lambda data: None)
    with pytest.raises(RunError, match="state_00002"):
        RunFolder.open(tmp_path / "run")


def test_a_damaged_journal_or_request_is_named(tmp_path):
    with create(tmp_path / "run") as run:
        complete(run)
    change(tmp_path / "run" / "journal.jsonl", lambda data: b"{" + data)
    with pytest.raises(RunError, match=r"journal\.jsonl: line 1 is damaged"):
        RunFolder.open(tmp_path / "run")
    for content in (
        b"",
        b"[]",
        b"{}",
        b'{"format": 99}',
        b'{"format": 2}',
        b'{"format": 2, "request": {"promt": "x"}}',
    ):
        change(tmp_path / "run" / "request.json", lambda data, content=content: content)
        with pytest.raises(RunError, match=r"request\.json: cannot be read"):
            RunFolder.open(tmp_path / "run")


def test_a_create_that_fails_leaves_nothing(tmp_path):
    folder = tmp_path / "deep" / "run"
    for calls in range(4):  # of init.mp4, the folder, request.json, the folder
        for error in (OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "fsync", failing_after(calls, os.fsync, error))
                with pytest.raises((RunError, KeyboardInterrupt)):
                    create(folder)
            assert names(tmp_path) == []
    with pytest.raises(RunError, match="No such file"):
        create(folder, Request("a cat", num_frames=TOTAL, image=str(tmp_path / "none.png")))
    assert names(tmp_path) == []


def test_a_create_that_fails_leaves_what_was_there(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for mine in (
        ["init.mp4"],
        ["init.mp4", "thesis.tex"],
        ["seg_00000.m4s"],
    ):  # without our lock they are not ours
        for name in mine:
            (folder / name).touch()
        with pytest.raises(RunError, match="is not empty"):
            create(folder)
        assert names(folder) == mine
        for name in mine:
            (folder / name).unlink()


def test_a_discard_cut_short_anywhere_leaves_a_folder_to_start_in(tmp_path, undisturbed, request_):
    if request_.video is not None:
        pytest.skip("the files are of the same kinds")
    for lives in range(20):
        folder = tmp_path / str(lives)
        run = create(folder, request_, output=tmp_path / "v.mp4")
        complete(run)
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            patch.setattr(os, "unlink", failing_after(lives, os.unlink, Killed()))
            run.discard()
        run.close()
        if not folder.exists():
            return
        with (
            RunFolder.open(folder)
            if lives == 0
            else create(folder, request_, output=tmp_path / "v.mp4") as again
        ):
            assert digest(complete(again)) == undisturbed
    raise AssertionError("a discard takes more steps than were tried")


def test_a_full_disk_at_the_end_leaves_no_output_and_a_finished_run(tmp_path, monkeypatch):
    with create(tmp_path / "run", output=tmp_path / "v.mp4") as run:
        for chunk in story(run.request):
            run.commit(chunk)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing_after(0, os.fsync))
            with pytest.raises(RunError, match=r"v\.mp4: cannot be written: Input/output error"):
                run.finish()
        assert names(tmp_path) == ["run"]
        assert count_frames(run.finish()) == TOTAL
