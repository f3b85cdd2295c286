"""Run folders: contents, opening, watching, finishing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from run_folders import LENGTHS, TOTAL, complete, create, digest, interrupted, names, story
from streamingt2v.config import Request
from streamingt2v.errors import RequestError, RunError
from streamingt2v.runs import run as run_module
from streamingt2v.runs.run import RunFolder
from streamingt2v.types import Chunk
from streamingt2v.video.reader import count_frames, read_video
from streamingt2v.video.writer import read_metadata


def test_the_output_is_the_input_and_then_the_new_frames(tmp_path, source):
    with create(
        tmp_path / "run", Request("a cat", num_frames=TOTAL, video=str(source)), output=tmp_path / "v.mp4"
    ) as run:
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
            for tag in (
                "VERSION:7",
                "TARGETDURATION:4",
                "PLAYLIST-TYPE:EVENT",
                "INDEPENDENT-SEGMENTS",
                'MAP:URI="init.mp4"',
            ):
                assert f"#EXT-X-{tag}\n" in text
            assert len([name for name in names(folder) if name.startswith("state_")]) <= 2
            run.export(tmp_path / "so far.mp4")
            assert count_frames(tmp_path / "so far.mp4") == chunk.stop


def watched(playlist):
    """Return the times of the frames that a player of the playlist gets, in frames."""
    snapshot = playlist.with_name("snapshot.m3u8")
    snapshot.write_text(
        playlist.read_text().replace("#EXT-X-ENDLIST\n", "") + "#EXT-X-ENDLIST\n"
    )  # or the player waits for more
    with av.open(str(snapshot)) as container:
        return [frame.pts * frame.time_base * 8 for frame in container.decode(video=0)]


def test_a_chunk_longer_than_any_before_raises_the_target_duration(tmp_path):
    with create(tmp_path / "run", Request("a cat", num_frames=50)) as run:
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
    request = Request("a cat", num_frames=TOTAL, video=str(source), schedule=((4, "a dog"),))
    with create(tmp_path / "run", request, output=tmp_path / "v.mp4", metadata={"weights": "abc"}) as run:
        complete(run)
    told = read_metadata(tmp_path / "v.mp4")
    expected = {
        "prompt": "a cat",
        "seed": 33,
        "model": "tiny",
        "fps": 8,
        "height": 16,
        "width": 32,
        "video": "input.mp4",
        "weights": "abc",
    }
    assert (
        expected.items() <= told.items() and told["schedule"] == [[4, "a dog"]] and "av" in told["versions"]
    )
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


def test_files_of_others_are_left_alone(tmp_path):
    with create(tmp_path / "run") as run:
        run.commit(next(story(run.request)))
    mine = ["notes.txt", ".hidden.part", "seg_notes.m4s"]
    for name in [
        *mine,
        "seg_00007.m4s",
        "state_00007.safetensors",
        ".seg_00001.m4s.part",
        ".journal.jsonl.part",
    ]:
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
    for output, why in (
        (tmp_path / "no" / "v.mp4", "no such folder"),
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "v.mp4", "no such"),
    ):
        with pytest.raises(RunError, match=why):
            create(tmp_path / "new", output=output)
    assert names(tmp_path) == ["file", "full", "run"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="Permission denied"):
        create(tmp_path / "run")


def test_chunks_out_of_order_and_wrong_counts_are_refused(tmp_path):
    with create(tmp_path / "run") as run:
        first, second, *_ = chunks = list(story(run.request))
        frames = np.zeros((TOTAL, 16, 32, 3), np.uint8)
        for wrong in (second, Chunk(0, 1, frames[:3]), Chunk(1, 0, frames[:3])):
            with pytest.raises(RunError, match="is not the next"):
                run.commit(wrong)
        for wrong in (
            Chunk(0, 0, frames[:3], True),
            Chunk(0, 0, frames, False),
            Chunk(0, 0, np.repeat(frames, 2, 0), True),
        ):
            with pytest.raises(RunError, match=f"{TOTAL} frames were asked for"):
                run.commit(wrong)
        run.commit(first)
        with pytest.raises(RunError, match="is not the next"):
            run.commit(first)
        assert run.frames_committed == len(first.frames) and len(chunks) == len(LENGTHS)


def test_an_input_that_changed_is_noticed(tmp_path, source):
    video = tmp_path / "input.mp4"
    video.write_bytes(source.read_bytes())
    with create(
        tmp_path / "run", Request("a cat", num_frames=TOTAL, video=str(video)), output=tmp_path / "v.mp4"
    ) as run:
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


def test_relative_inputs_are_found_from_anywhere(tmp_path, monkeypatch, source):
    monkeypatch.chdir(source.parent)
    with create(tmp_path / "run", Request("a cat", num_frames=TOTAL, video=source.name)):
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
    from streamingt2v.video import writer

    with create(tmp_path / "run") as run:
        run.commit(next(story(run.request)))
        monkeypatch.setitem(writer._ENCODER, "preset", "ultrafast")
        with pytest.raises(RunError, match="do not fit the earlier ones"):
            run.commit(list(story(run.request))[1])
        assert run.chunks_committed == 1


def test_a_run_knows_its_own_video(tmp_path):
    with create(
        tmp_path / "run",
        Request("a cat", num_frames=TOTAL, schedule=((4, "a dog"),)),
        output=tmp_path / "v.mp4",
    ) as run:
        assert not run.wrote(tmp_path / "v.mp4")
        complete(run)
        (tmp_path / "text.mp4").write_text("precious")
        assert run.wrote(tmp_path / "v.mp4")
        assert not any(run.wrote(tmp_path / name) for name in ("text.mp4", "missing.mp4", "run"))
