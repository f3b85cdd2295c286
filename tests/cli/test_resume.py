"""Interrupted commands around a fake pipeline: what is kept, printed and resumed."""

import errno
import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from commands import JSON_FIELDS, PROMPT, interrupt_at, listing, resume_line, run
from streamingt2v.config import Request
from streamingt2v.errors import RunError
from streamingt2v.runs import render as runner
from streamingt2v.runs.run import RunFolder
from streamingt2v.video.reader import count_frames
from streamingt2v.video.writer import read_metadata

pytestmark = pytest.mark.usefixtures("in_empty_folder")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_to_the_same_bytes(fake_pipeline, capsys, number):
    options = [PROMPT, "--frames", 30, "--device", "cpu", "--dtype", "float16"]
    run(capsys, "generate", *options, "-o", "whole.mp4")
    fake_pipeline.before_chunk = interrupt_at(2, number)
    code, out, err = run(capsys, "generate", *options, "-o", "out.mp4", "--contact-sheet", "my sheet.png")
    assert (code, out) == (130, "") and "interrupted" in err and not Path("out.mp4").exists()
    loads, fake_pipeline.before_chunk, fake_pipeline.loads[:] = (
        fake_pipeline.loads[-1:],
        lambda index: None,
        [],
    )
    code, out, err = run(capsys, *resume_line(err))
    assert code == 0 and fake_pipeline.loads == loads and loads[0][:3] == ("tiny", "cpu", "float16")
    assert Path("out.mp4").read_bytes() == Path("whole.mp4").read_bytes()
    assert listing() == {"whole.mp4", "out.mp4", "my sheet.png"}


def test_interrupted_before_the_first_chunk_leaves_nothing(fake_pipeline, capsys):
    fake_pipeline.before_chunk = interrupt_at(0)
    code, _, err = run(capsys, "generate", PROMPT, "-o", "out.mp4")
    assert code == 130 and "nothing was written" in err and "resume" not in err and listing() == set()


def test_interrupted_while_loading_leaves_nothing(monkeypatch, capsys):
    import streamingt2v.runs.render

    monkeypatch.setattr(
        streamingt2v.runs.render, "load_pipeline", lambda *arguments, **named: interrupt_at(0)(0)
    )
    code, out, err = run(capsys, "generate", PROMPT, "-o", "out.mp4", "--json")
    assert code == 130 and json.loads(out)["exit_code"] == 130 and "interrupted" in err and listing() == set()


def test_an_unfinished_run_in_the_way_is_not_lost(fake_pipeline, capsys):
    fake_pipeline.before_chunk = interrupt_at(1)
    run(capsys, "generate", PROMPT, "--frames", 20, "-o", "out.mp4")
    fake_pipeline.before_chunk = lambda index: None
    code, _, err = run(capsys, "generate", "Another prompt", "-o", "out.mp4", "--overwrite")
    assert code == 2 and f"streamingt2v resume {Path('out.run').absolute()}" in err
    code, out, _ = run(capsys, "resume", "out.run", "--json")
    assert (
        code == 0
        and list(json.loads(out)) == JSON_FIELDS
        and count_frames("out.mp4") == 20
        and listing() == {"out.mp4"}
    )


def test_a_kept_run_can_be_resumed_again_and_elsewhere(fake_pipeline, capsys):
    run(capsys, "generate", PROMPT, "--frames", 12, "--run-dir", "kept", "-o", "out.mp4")
    fake_pipeline.loads.clear()
    first = Path("out.mp4").read_bytes()
    assert run(capsys, "resume", "kept")[0] == 0 and run(capsys, "resume", "kept", "-o", "other.mp4")[0] == 0
    assert Path("out.mp4").read_bytes() == Path("other.mp4").read_bytes() == first
    assert fake_pipeline.loads == [], "nothing was left to make"


def test_a_full_disk_is_one_line_with_the_way_to_go_on(fake_pipeline, capsys, monkeypatch):
    def full(index: int) -> None:
        if index == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "seg_00001.m4s")

    fake_pipeline.before_chunk = full
    code, _, err = run(capsys, "generate", PROMPT, "-o", "out.mp4", "--quiet")
    assert code == 1 and len(err.splitlines()) == 2 and "No space left on device: seg_00001.m4s" in err
    fake_pipeline.before_chunk = lambda index: None
    assert run(capsys, *resume_line(err))[0] == 0 and count_frames("out.mp4") == 80


def test_a_bug_shows_its_traceback_and_keeps_the_run(fake_pipeline, capsys):
    def bug(index: int) -> None:
        if index == 1:
            raise KeyError("oops")

    fake_pipeline.before_chunk = bug
    code, out, err = run(capsys, "generate", PROMPT, "-o", "out.mp4", "--json")
    assert code == 1 and "Traceback" in err and "unexpected KeyError" in json.loads(out)["error"]
    assert resume_line(err) == shlex.split(json.loads(out)["resume"])[1:]


def cut_after_one_chunk(fake_pipeline, capsys, *options: object) -> None:
    """Leave out.run (or the --run-dir in `options`) with 8 of 20 frames; later runs are not interrupted."""
    fake_pipeline.before_chunk = interrupt_at(1)
    assert run(capsys, "generate", PROMPT, "--frames", 20, "-o", "out.mp4", *options)[0] == 130
    fake_pipeline.before_chunk = lambda index: None


def test_a_run_of_the_python_interface_resumes(fake_pipeline, capsys):
    request = Request(PROMPT, num_frames=20)
    asked = fake_pipeline.resolve(request)
    with runner.create_run(
        fake_pipeline, asked, Path("a.run"), "tiny", Path("a.mp4"), device="cpu", dtype="float16"
    ):
        pass
    assert run(capsys, "resume", "a.run")[0] == 0 and fake_pipeline.loads == [
        ("tiny", "cpu", "float16", False)
    ]
    assert count_frames("a.mp4") == 20 and Path("a.run").is_dir(), "nobody said that the folder may go"


def test_a_resumed_run_computes_with_the_threads_it_began_with(fake_pipeline, capsys):
    import torch

    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(3)
        cut_after_one_chunk(fake_pipeline, capsys)
        torch.set_num_threads(1)
        fake_pipeline.before_chunk = lambda index: seen.append(torch.get_num_threads())
        assert run(capsys, "resume", "out.run")[0] == 0
        assert seen == [3, 3] and torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert "threads" not in read_metadata("out.mp4")


def test_other_weights_are_a_wrong_run(fake_pipeline, capsys):
    weights = fake_pipeline.folder / "unet" / "weights.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"then")
    cut_after_one_chunk(fake_pipeline, capsys)
    fake_pipeline.loads.clear()
    weights.write_bytes(b"now!")
    code, _, err = run(capsys, "resume", "out.run", "-q")
    assert (
        code == 2
        and len(err.splitlines()) == 1
        and "RUN_DIR 'out.run': the files of its model 'tiny' are not those" in err
    )
    assert fake_pipeline.loads == []
    weights.write_bytes(b"then")
    assert run(capsys, "resume", "out.run")[0] == 0


def test_a_run_dir_asked_for_is_kept_whatever_its_name(fake_pipeline, capsys):
    assert run(capsys, "generate", PROMPT, "--frames", 8, "-o", "cat.mp4", "--run-dir", "cat.run")[0] == 0
    cut_after_one_chunk(fake_pipeline, capsys, "--run-dir", "out.run")
    assert run(capsys, "resume", "out.run")[0] == 0
    assert Path("cat.run/request.json").exists() and Path("out.run/request.json").exists()


def test_an_embedded_name_stays_a_name_beside_a_folder_called_so(fake_pipeline, capsys):
    Path("tiny").mkdir()
    Path("m").mkdir()
    for model, lasting in (("tiny", "tiny"), ("m", str(Path("m").absolute()))):
        assert (
            run(capsys, "generate", PROMPT, "--model", model, "--frames", 8, "--run-dir", f"{model}.run")[0]
            == 0
        )
        with RunFolder.open(f"{model}.run") as kept:
            assert kept.model == lasting


@pytest.mark.parametrize(
    "left", [["lock"], ["lock", "init.mp4"], ["lock", "journal.jsonl", "playlist.m3u8", "seg_00000.m4s"]]
)
def test_leftovers_do_not_lock_the_user_out(fake_pipeline, capsys, left):
    Path("out.run").mkdir()
    for name in left:
        Path("out.run", name).write_text("left")
    assert run(capsys, "generate", PROMPT, "--frames", 20, "-o", "out.mp4")[0] == 0
    assert count_frames("out.mp4") == 20 and listing() == {"out.mp4"}


def test_a_folder_of_others_is_not_taken_for_leftovers(fake_pipeline, capsys):
    Path("out.run").mkdir()
    Path("out.run/init.mp4").write_text("mine")
    code, _, err = run(capsys, "generate", PROMPT, "-o", "out.mp4")
    assert code == 2 and "it holds init.mp4" in err and listing() == {"out.run", "out.run/init.mp4"}


def test_what_this_command_did_not_make_is_not_removed(fake_pipeline, capsys):
    fake_pipeline.before_chunk = interrupt_at(0)
    for run_dir in ("mine", "out.run"):
        code, _, err = run(capsys, "generate", PROMPT, "--frames", 9, "-o", "out.mp4", "--run-dir", run_dir)
        assert code == 130 and resume_line(err)[:2] == ["resume", str(Path(run_dir).absolute())]
        code, _, err = run(capsys, *resume_line(err))
        assert code == 130 and resume_line(err) and Path(run_dir, "request.json").exists()


def test_a_discard_that_fails_does_not_hide_the_error(fake_pipeline, capsys, monkeypatch):
    def failing(self) -> None:
        raise RunError("cannot be deleted")

    fake_pipeline.before_chunk = interrupt_at(0)
    monkeypatch.setattr(RunFolder, "discard", failing)
    code, _, err = run(capsys, "generate", PROMPT, "-o", "out.mp4")
    assert code == 130 and "interrupted" in err and "cannot be deleted" not in err


def test_resume_replaces_no_file_that_it_was_not_told_to(fake_pipeline, capsys):
    cut_after_one_chunk(fake_pipeline, capsys)
    fake_pipeline.loads.clear()
    Path("out.mp4").write_text("precious")
    code, _, err = run(capsys, "resume", "out.run")
    assert (
        code == 2 and "--output" in err and "--overwrite" in err and Path("out.mp4").read_text() == "precious"
    )
    assert fake_pipeline.loads == []
    assert run(capsys, "resume", "out.run", "--overwrite")[0] == 0 and count_frames("out.mp4") == 20


def test_resume_remembers_that_it_may_overwrite(fake_pipeline, capsys):
    Path("out.mp4").write_text("old")
    cut_after_one_chunk(fake_pipeline, capsys, "--overwrite")
    assert run(capsys, "resume", "out.run")[0] == 0 and count_frames("out.mp4") == 20


def test_a_finished_run_replaces_its_own_video_only(fake_pipeline, capsys):
    run(capsys, "generate", PROMPT, "--frames", 9, "--run-dir", "kept", "-o", "out.mp4")
    assert run(capsys, "resume", "kept")[0] == 0
    run(capsys, "generate", PROMPT, "--frames", 9, "--seed", 1, "-o", "other.mp4")
    os.replace("other.mp4", "out.mp4")
    code, _, err = run(capsys, "resume", "kept")
    assert code == 2 and "--overwrite" in err


def test_resume_checks_the_remembered_folder_before_loading(fake_pipeline, capsys):
    Path("there").mkdir()
    cut_after_one_chunk(fake_pipeline, capsys, "-o", "there/out.mp4", "--run-dir", "kept")
    fake_pipeline.loads.clear()
    Path("there").rmdir()
    code, _, err = run(capsys, "resume", "kept")
    assert code == 2 and "mkdir -p" in err and fake_pipeline.loads == []
    assert run(capsys, "resume", "kept", "-o", "here.mp4")[0] == 0
