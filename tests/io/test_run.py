"""A run folder survives whatever interrupts it, and the video is the same bytes as if nothing had."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingt2v.config import Request
from streamingt2v.errors import RequestError, RunError
from streamingt2v.io import durable
from streamingt2v.io import run as run_module
from streamingt2v.io.reader import count_frames, read_video
from streamingt2v.io.run import RunFolder
from streamingt2v.io.writer import read_metadata, write_video
from streamingt2v.types import Chunk

LENGTHS = (7, 1, 4, 2)
TOTAL = sum(LENGTHS)


class Killed(BaseException):
    """Stands for the end of the process: nothing of it may be caught."""


def story(request, state=None, lengths=LENGTHS):
    """A stand-in for a pipeline's stream: every frame depends on all before it, through the state alone."""
    first, start = (state["next"], state["frame"]) if state else (0, 0)
    memory = state["memory"] if state else torch.arange(16 * 32 * 3).reshape(16, 32, 3).double() % 61
    for index in range(first, len(lengths)):
        frames = []
        for _ in range(lengths[index]):
            memory = (memory * 1.37 + torch.roll(memory, 1, 1) + request.seed) % 251
            frames.append(memory.to(torch.uint8).numpy())
        stop = start + lengths[index]
        kept = {"next": index + 1, "frame": stop, "memory": memory, "names": ["a", None, 0.1]}
        yield Chunk(index, start, np.stack(frames), stop == sum(lengths), kept)
        start = stop


def create(path, request=None, **more):
    return RunFolder.create(path, request or Request("a cat", frames=TOTAL, seed=3), "tiny", 8, 16, 32, **more)


def complete(run, output=None):
    """What the command line does with a new or opened run."""
    if not run.source_done:
        run.commit_source(read_video(run.request.video, run.height, run.width))
    if not run.finished:
        for chunk in story(run.request, run.state):
            run.commit(chunk)
    return run.finish(output)


def digest(path):
    return durable.sha256_of(path)


def names(folder):
    return sorted(file.name for file in Path(folder).iterdir())


@pytest.fixture(scope="module")
def source(tmp_path_factory, moving):
    path = tmp_path_factory.mktemp("source") / "input.mp4"
    write_video(path, moving(75), fps=8)
    return path


@pytest.fixture(scope="module", params=["generate", "extend"])
def request_(request, source):
    return Request("a cat", frames=TOTAL, seed=3, video=str(source) if request.param == "extend" else None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, request_):
    """The digest of the video of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with create(folder / "run", request_, output=folder / "v.mp4") as run:
        return digest(complete(run))


class Dying:
    """Lets `lives` file operations happen, then ends the process: every later one raises, so that nothing is tidied up."""

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
        """As the system does when a process ends."""
        for handle in self.held:
            self.unlock(handle)


def operations(request_, tmp_path):
    """How many file operations a run takes."""
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
        with RunFolder.open(folder / "run") if begun else create(folder / "run", request_, output=folder / "v.mp4") as run:
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


def failing_after(calls, operation, error=None):
    count = iter(range(10**6))

    def run(*args):
        if next(count) == calls:
            raise error or OSError(errno.EIO, "Input/output error")
        return operation(*args)

    return run


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_journal_cut_anywhere_is_gone_on_from_or_said_to_be_lost(tmp_path_factory, data):
    request = Request("a cat", frames=TOTAL, seed=3)
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
            assert run.chunks_committed == kept or (kept == 1 and had > 2)  # the first chunk's state is long gone: begin again
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


def test_the_output_is_the_input_and_then_the_new_frames(tmp_path, source):
    with create(tmp_path / "run", Request("a cat", frames=TOTAL, video=str(source)), output=tmp_path / "v.mp4") as run:
        with pytest.raises(RunError, match="come first"):
            run.commit(next(story(run.request)))
        complete(run)
        assert (run.source_frames, run.frames_committed, run.chunks_committed) == (75, TOTAL, len(LENGTHS))
    frames = np.stack(list(read_video(tmp_path / "v.mp4")))
    assert len(frames) == 75 + TOTAL
    original = np.stack(list(read_video(source))).astype(int)
    assert np.abs(frames[:75] - original).mean() < 3 and np.abs(frames[75] - original[-1]).mean() > 20


def test_what_is_committed_can_be_watched_while_it_grows(tmp_path):
    folder = tmp_path / "run"
    with create(folder) as run:
        for chunk in story(run.request):
            run.commit(chunk)
            assert watched(run.playlist) == list(range(chunk.stop))
            text = run.playlist.read_text()
            segments = [line for line in text.splitlines() if line.startswith("seg_")]
            assert len(segments) == chunk.index + 1 and ("#EXT-X-ENDLIST" in text) == chunk.final
            durations = [float(line[8:-1]) for line in text.splitlines() if line.startswith("#EXTINF:")]
            assert durations == [n / 8 for n in LENGTHS[: chunk.index + 1]]
            for tag in ("VERSION:7", "TARGETDURATION:4", "PLAYLIST-TYPE:EVENT", "INDEPENDENT-SEGMENTS", 'MAP:URI="init.mp4"'):
                assert f"#EXT-X-{tag}\n" in text
            assert len([name for name in names(folder) if name.startswith("state_")]) <= 2
            run.export(tmp_path / "so far.mp4")
            assert count_frames(tmp_path / "so far.mp4") == chunk.stop


def watched(playlist):
    """The times of the frames that a player of the playlist gets, in frames."""
    snapshot = playlist.with_name("snapshot.m3u8")
    snapshot.write_text(playlist.read_text().replace("#EXT-X-ENDLIST\n", "") + "#EXT-X-ENDLIST\n")  # or the player waits for more
    with av.open(str(snapshot)) as container:
        return [frame.pts * frame.time_base * 8 for frame in container.decode(video=0)]


def test_a_chunk_longer_than_any_before_raises_the_target_duration(tmp_path):
    with create(tmp_path / "run", Request("a cat", frames=50)) as run:
        run.commit(next(story(run.request, lengths=(50,))))
        assert "#EXT-X-TARGETDURATION:7\n" in run.playlist.read_text()


def test_the_state_comes_back_without_loss(tmp_path):
    state = {
        "half": torch.randn(3, 4).half(),
        "brain": torch.randn(5).bfloat16(),
        "flags": torch.tensor([True, False]),
        "count": torch.tensor(2**62),
        "turned": torch.randn(4, 5).T,
        "none": torch.empty(0, 3),
        "text": "Straße",
        "nested": {"a": [1, 2.5, None, True]},
    }
    state["same"] = state["half"]
    with create(tmp_path / "run") as run:
        assert run.state is None
        run.commit(Chunk(0, 0, np.zeros((4, 16, 32, 3), np.uint8), False, state))
        read = run.state
    assert read.keys() == state.keys()
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            assert read[name].dtype == value.dtype and torch.equal(read[name], value)
        else:
            assert read[name] == value


@pytest.mark.parametrize("value", [(1, 2), float("nan"), {1: 2}, object()])
def test_a_state_that_would_not_come_back_is_refused(tmp_path, value):
    with create(tmp_path / "run") as run:
        with pytest.raises(TypeError):
            run.commit(Chunk(0, 0, np.zeros((4, 16, 32, 3), np.uint8), False, {"x": value}))
        assert run.chunks_committed == 0


def test_a_run_that_cannot_be_gone_on_with_starts_again(tmp_path, undisturbed, request_):
    with create(tmp_path / "run", request_, output=tmp_path / "v.mp4") as run:
        if not run.source_done:
            run.commit_source(read_video(run.request.video, 16, 32))
        for chunk in list(story(request_))[:2]:
            run.commit(Chunk(chunk.index, chunk.start, chunk.frames_THWC))  # no state
    with RunFolder.open(tmp_path / "run") as run:
        assert run.frames_committed == 0 and run.state is None
        assert digest(complete(run)) == undisturbed


def test_a_finished_run_gives_its_video_again(tmp_path):
    with create(tmp_path / "run", output=tmp_path / "v.mp4") as run:
        with pytest.raises(RunError, match=f"has 0 of {TOTAL} frames"):
            run.finish()
        with pytest.raises(RunError, match="no frames yet"):
            run.export(tmp_path / "v.mp4")
        first = digest(complete(run))
        with pytest.raises(RunError, match="is finished"):
            run.commit(Chunk(5, TOTAL, np.zeros((4, 16, 32, 3), np.uint8)))
    (tmp_path / "v.mp4").unlink()
    with RunFolder.open(tmp_path / "run") as run:
        assert run.finished and run.state["next"] == len(LENGTHS)
        assert run.finish() == tmp_path / "v.mp4" and digest(run.finish()) == first
        assert digest(run.finish(tmp_path / "w.mp4")) == first
        run.discard()
    assert names(tmp_path) == ["v.mp4", "w.mp4"]


def test_without_an_output_the_video_is_in_the_folder_and_stays(tmp_path):
    with create(tmp_path / "run") as run:
        assert complete(run) == tmp_path / "run" / "video.mp4"
        run.discard()
    assert names(tmp_path / "run") == ["video.mp4"]


def test_the_video_says_what_it_is_and_not_where_it_was_made(tmp_path, source):
    request = Request("a cat", frames=TOTAL, video=str(source), schedule=((4, "a dog"),))
    with create(tmp_path / "run", request, output=tmp_path / "v.mp4", metadata={"weights": "abc"}) as run:
        complete(run)
    told = read_metadata(tmp_path / "v.mp4")
    expected = {"prompt": "a cat", "seed": 33, "model": "tiny", "fps": 8, "height": 16, "width": 32, "video": "input.mp4", "weights": "abc"}
    assert expected.items() <= told.items() and told["schedule"] == [[4, "a dog"]] and "av" in told["versions"]
    assert str(tmp_path) not in json.dumps(told) and str(source.parent) not in json.dumps(told)


def test_one_process_at_a_time(tmp_path):
    with create(tmp_path / "run") as run:
        with pytest.raises(RunError, match="another process is writing"):
            RunFolder.open(tmp_path / "run")
        run.commit(next(story(run.request)))
    with RunFolder.open(tmp_path / "run") as again:
        assert again.frames_committed == LENGTHS[0]
    with pytest.raises(RunError, match="was closed"):
        run.commit(list(story(run.request))[1])


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:], lambda data: None])
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
    for content in (b"", b"[]", b"{}", b'{"format": 99}', b'{"format": 2}', b'{"format": 2, "request": {"promt": "x"}}'):
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
        create(folder, Request("a cat", frames=TOTAL, image=str(tmp_path / "none.png")))
    assert names(tmp_path) == []


def test_a_create_that_fails_leaves_what_was_there(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for mine in (["init.mp4"], ["init.mp4", "thesis.tex"], ["seg_00000.m4s"]):  # without our lock they are not ours
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
        with RunFolder.open(folder) if lives == 0 else create(folder, request_, output=tmp_path / "v.mp4") as again:
            assert digest(complete(again)) == undisturbed
    raise AssertionError("a discard takes more steps than were tried")


def test_files_of_others_are_left_alone(tmp_path):
    with create(tmp_path / "run") as run:
        run.commit(next(story(run.request)))
    mine = ["notes.txt", ".hidden.part", "seg_notes.m4s"]
    for name in [*mine, "seg_00007.m4s", "state_00007.safetensors", ".seg_00001.m4s.part", ".journal.jsonl.part"]:
        (tmp_path / "run" / name).write_text("x")
    with RunFolder.open(tmp_path / "run") as run:
        assert set(mine) < set(names(run.path)) and "seg_00007.m4s" not in names(run.path)
        assert not [name for name in names(run.path) if name.endswith(".part") and name not in mine]
        run.discard()
    assert names(tmp_path / "run") == sorted(mine)


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(RunError, match=r"not empty \(it holds thesis.tex\)"):
        create(tmp_path / "full")
    with create(tmp_path / "run"):
        pass
    with pytest.raises(RunError, match="holds a run already"):
        create(tmp_path / "run")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be made a run folder"):
        create(tmp_path / "file")
    for path in (tmp_path / "missing", tmp_path / "full", tmp_path / "file"):
        with pytest.raises(RunError, match="is no run folder"):
            RunFolder.open(path)
    with pytest.raises(RequestError, match="even"):
        RunFolder.create(tmp_path / "odd", Request("a cat"), "tiny", 8, 15, 32)
    for output, why in ((tmp_path / "no" / "v.mp4", "no such folder"), (tmp_path, "is a folder"), (tmp_path / "file" / "v.mp4", "no such")):
        with pytest.raises(RunError, match=why):
            create(tmp_path / "new", output=output)
    assert names(tmp_path) == ["file", "full", "run"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="Permission denied"):
        create(tmp_path / "run")


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


def test_chunks_out_of_order_and_wrong_counts_are_refused(tmp_path):
    with create(tmp_path / "run") as run:
        first, second, *_ = chunks = list(story(run.request))
        frames = np.zeros((TOTAL, 16, 32, 3), np.uint8)
        for wrong in (second, Chunk(0, 1, frames[:3]), Chunk(1, 0, frames[:3])):
            with pytest.raises(RunError, match="is not the next"):
                run.commit(wrong)
        for wrong in (Chunk(0, 0, frames[:3], True), Chunk(0, 0, frames, False), Chunk(0, 0, np.repeat(frames, 2, 0), True)):
            with pytest.raises(RunError, match=f"{TOTAL} frames were asked for"):
                run.commit(wrong)
        run.commit(first)
        with pytest.raises(RunError, match="is not the next"):
            run.commit(first)
        assert run.frames_committed == len(first.frames) and len(chunks) == len(LENGTHS)


def test_an_input_that_changed_is_noticed(tmp_path, source):
    video = tmp_path / "input.mp4"
    video.write_bytes(source.read_bytes())
    with create(tmp_path / "run", Request("a cat", frames=TOTAL, video=str(video)), output=tmp_path / "v.mp4") as run:
        with pytest.raises(RunError, match="did it change"):
            run.commit_source(iter(()))
        frames = read_video(video)
        with pytest.raises(KeyboardInterrupt):
            run.commit_source(interrupted(frames, after=40))
        assert run.source_frames == 32 and not run.source_done
    video.write_bytes(source.read_bytes()[:-1])
    with pytest.raises(RunError, match="not the file that the run began with"):
        RunFolder.open(tmp_path / "run")
    video.unlink()
    with pytest.raises(RunError, match=r"No such file or directory.*input\.mp4"):
        RunFolder.open(tmp_path / "run")
    video.write_bytes(source.read_bytes())
    with RunFolder.open(tmp_path / "run") as run:
        complete(run)
    video.unlink()
    with RunFolder.open(tmp_path / "run") as run:  # finished: the input is not needed any more
        assert count_frames(run.finish()) == 75 + TOTAL


def interrupted(frames, after):
    for i, frame in enumerate(frames):
        if i == after:
            raise KeyboardInterrupt
        yield frame


def test_relative_inputs_are_found_from_anywhere(tmp_path, monkeypatch, source):
    monkeypatch.chdir(source.parent)
    with create(tmp_path / "run", Request("a cat", frames=TOTAL, video=source.name)):
        pass
    monkeypatch.chdir(tmp_path)
    with RunFolder.open("run") as run:
        assert Path(run.request.video) == source and count_frames(complete(run)) == 75 + TOTAL


def test_other_versions_are_told(tmp_path, monkeypatch):
    with create(tmp_path / "run") as run:
        assert run.changed_versions() == {}
        run.commit(next(story(run.request)))
    now = run_module.versions() | {"torch": "99.0"}
    monkeypatch.setattr(run_module, "versions", lambda: now)
    with RunFolder.open(tmp_path / "run") as run:
        assert run.changed_versions() == {"torch": (torch.__version__, "99.0")}


def test_another_cpu_is_told_where_it_computes(tmp_path, monkeypatch):
    for device in ("cpu", "cuda:1"):
        with create(tmp_path / device, device=device):
            pass
    then = run_module.cpu_capability()
    monkeypatch.setattr(run_module, "cpu_capability", lambda: "other")
    for device, told in (("cpu", {"CPU capability": (then, "other")}), ("cuda:1", {})):
        with RunFolder.open(tmp_path / device) as run:
            assert run.changed_versions() == told and run.header.threads == torch.get_num_threads()


def test_an_encoder_with_another_head_is_refused(tmp_path, monkeypatch):
    from streamingt2v.io import writer

    with create(tmp_path / "run") as run:
        run.commit(next(story(run.request)))
        monkeypatch.setitem(writer._ENCODER, "preset", "ultrafast")
        with pytest.raises(RunError, match="do not fit the earlier ones"):
            run.commit(list(story(run.request))[1])
        assert run.chunks_committed == 1


def test_a_run_knows_its_own_video(tmp_path):
    with create(tmp_path / "run", Request("a cat", frames=TOTAL, schedule=((4, "a dog"),)), output=tmp_path / "v.mp4") as run:
        assert not run.wrote(tmp_path / "v.mp4")
        complete(run)
        (tmp_path / "text.mp4").write_text("precious")
        assert run.wrote(tmp_path / "v.mp4")
        assert not any(run.wrote(tmp_path / name) for name in ("text.mp4", "missing.mp4", "run"))
