"""The command line around a stand-in pipeline: messages, exit codes, files, resuming, interruption."""

import dataclasses
import errno
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from streamingt2v import distributed, runner
from streamingt2v.cli import main, train
from streamingt2v.cli.options import RefineOptions, RequestOptions
from streamingt2v.cli.schedule import read_schedule
from streamingt2v.config import Request
from streamingt2v.errors import RequestError, RunError
from streamingt2v.io.reader import count_frames, probe_video, read_video
from streamingt2v.io.run import RunFolder
from streamingt2v.io.writer import read_metadata, write_video

PROMPT = "A cat running on the street"
JSON_FIELDS = (
    "output frames fps width height seed model preset seconds first_frame_seconds new_frames_per_second peak_rss_mb run_dir".split()
)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of a command."""
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    return (code, *capsys.readouterr())


def listing() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def resume_line(stderr: str) -> list[str]:
    """The arguments of the `streamingt2v resume ...` line that was printed."""
    line = next(line for line in stderr.splitlines() if "streamingt2v resume" in line)
    return shlex.split(line.partition("streamingt2v ")[2])


def interrupt_at(chunk: int, number: int = signal.SIGINT):
    """A hook for the pipeline that gets the process a signal before that chunk."""

    def hook(index: int) -> None:
        if index == chunk:
            os.kill(os.getpid(), number)

    return hook


def a_video(path: str, frames: int, fps: int) -> str:
    write_video(Path(path), (np.full((32, 48, 3), 7 * i, np.uint8) for i in range(frames)), fps)
    return path


# --- help and start -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], [], ["--version"], ["generate", "--help"], ["resume", "nothing-here"]])
def test_the_door_imports_nothing_heavy(arguments):
    heavy = "{'torch', 'diffusers', 'transformers', 'av'} & set(sys.modules)"
    check = f"import sys; from streamingt2v.cli import main; main({arguments!r}); print({heavy})"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_installed_command_starts():
    done = subprocess.run([Path(sys.executable).with_name("streamingt2v"), "--version"], capture_output=True, text=True, check=True)
    from streamingt2v import __version__

    assert done.stdout.strip() == __version__


def test_every_field_of_a_request_has_an_option_or_argument():
    options = {field.name for field in dataclasses.fields(RequestOptions)}
    assert options | {"prompt", "image", "video", "refine", "base"} == {field.name for field in dataclasses.fields(Request)}
    assert {field.name for field in dataclasses.fields(RefineOptions)} < options


def test_defaults_are_those_of_a_request():
    given = {field.name: field.default for field in dataclasses.fields(RequestOptions) if field.name != "schedule"}
    assert given == {name: getattr(Request("x"), name) for name in given}


# --- generate -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 8, 21])
def test_generate_makes_exactly_that_many_frames(fake_pipeline, capsys, frames):
    code, out, _ = run(capsys, "generate", PROMPT, "--frames", frames, "-o", "out.mp4")
    assert (code, out.splitlines()[-1]) == (0, str(Path("out.mp4").absolute()))
    assert count_frames("out.mp4") == frames
    assert listing() == {"out.mp4"}


def test_json_is_the_last_line_and_complete(fake_pipeline, capsys):
    code, out, err = run(capsys, "generate", PROMPT, "--frames", 20, "--seed", 5, "-o", "out.mp4", "--json")
    values = json.loads(out)  # alone on stdout
    assert code == 0 and list(values) == JSON_FIELDS
    assert values["output"] == str(Path("out.mp4").absolute()) and values["run_dir"] is None
    assert [values[k] for k in ("frames", "fps", "width", "height", "seed", "model", "preset")] == [20, 8, 48, 32, 5, "tiny", "preview"]
    assert 0 < values["first_frame_seconds"] < values["seconds"] and values["peak_rss_mb"] > 1
    assert "20/20 frames" in err


def test_options_reach_the_model_and_the_request(fake_pipeline, capsys):
    model = "--model m --device cuda:1 --dtype bfloat16".split()
    asked = "--steps 7 --guidance-scale 3.5 --negative-prompt dull --fps 6".split()
    assert run(capsys, "generate", PROMPT, *model, *asked, "--run-dir", "kept", "-o", "out.mp4")[0] == 0
    assert fake_pipeline.loads == [("m", "cuda:1", "bfloat16")]
    with RunFolder.open("kept") as kept:
        assert (kept.request.steps, kept.request.guidance_scale, kept.request.negative_prompt, kept.fps) == (7, 3.5, "dull", 6)
    assert probe_video("out.mp4").fps == 6


def test_a_run_dir_is_kept_and_without_output_holds_the_video(fake_pipeline, capsys):
    code, out, _ = run(capsys, "generate", PROMPT, "--frames", 9, "--run-dir", "deep/run", "--json")
    values = json.loads(out)
    assert code == 0 and values["run_dir"] == str(Path("deep/run").absolute())
    assert count_frames("deep/run/video.mp4") == 9 and Path("deep/run/request.json").exists()


def test_unknown_words_are_told_unless_quiet(fake_pipeline, capsys):
    code, out, err = run(capsys, "generate", "A lion with a blorp", "-o", "a.mp4")
    assert code == 0 and "'lion'; it takes it for 'tiger'" in err and "'blorp'; it is left out" in err
    assert run(capsys, "generate", "A lion with a blorp", "-o", "b.mp4", "--quiet") == (0, str(Path("b.mp4").absolute()) + "\n", "")


def test_prompts_without_effect_are_told(fake_pipeline, capsys):
    code, _, err = run(capsys, "generate", "blorp", "-o", "a.mp4")
    assert code == 0 and "knows no word of 'blorp'" in err and "too long" not in err
    code, _, err = run(capsys, "generate", "A cat" + " and so on" * 10, "-o", "b.mp4")
    assert code == 0 and "too long for the model by 2 tokens" in err and "knows no word" not in err


def test_pictures_are_written(fake_pipeline, capsys):
    assert run(capsys, "generate", PROMPT, "--frames", 20, "-o", "o.mp4", "--xt-slice", "x.png", "--contact-sheet", "c.png")[0] == 0
    from PIL import Image

    assert Image.open("x.png").height % 20 == 0 and Image.open("c.png").width == 3 * 48
    assert listing() == {"o.mp4", "x.png", "c.png"}


def test_overwrite_replaces_what_is_refused_otherwise(fake_pipeline, capsys):
    Path("out.mp4").write_text("precious")
    code, _, err = run(capsys, "generate", PROMPT, "-o", "out.mp4")
    assert code == 2 and "--overwrite" in err and Path("out.mp4").read_text() == "precious"
    assert run(capsys, "generate", PROMPT, "-o", "out.mp4", "--overwrite")[0] == 0
    assert count_frames("out.mp4") == 80


# --- wrong requests -------------------------------------------------------------------------------------------------------


WRONG = [
    (["generate", "  ", "-o", "o.mp4"], "PROMPT '  '", "must not be empty"),
    (["generate", PROMPT, "-o", "o.mp4", "--frames", "0"], "--frames 0", "1 or more"),
    (["generate", PROMPT, "-o", "o.mp4", "--frames", "many"], "--frames", "integer"),
    (["generate", PROMPT, "-o", "o.mp4", "--seed", "-1"], "--seed -1", "0 or more"),
    (["generate", PROMPT, "-o", "o.mp4", "--guidance-scale", "nan"], "--guidance-scale nan", "finite"),
    (["generate", PROMPT, "-o", "o.mp4", "--preset", "best"], "--preset", "preview"),
    (["generate", PROMPT, "-o", "o.mp4", "--dtype", "int8"], "--dtype", "bfloat16"),
    (["generate", PROMPT, "-o", "o.mp4", "--length", "5"], "--length", "No such option"),
    (["generate", "-o", "o.mp4"], "PROMPT", "Missing"),
    (["generate", PROMPT], "--output", "-o out.mp4"),
    (["generate", PROMPT, "-o", "o.avi"], "--output 'o.avi'", "must end in .mp4"),
    (["generate", PROMPT, "-o", "."], "--output '.'", "is a folder"),
    (["generate", PROMPT, "-o", "no/o.mp4"], "--output 'no/o.mp4'", "mkdir -p no"),
    (["generate", PROMPT, "-o", "folder.mp4"], "--output 'folder.mp4'", "is a folder"),
    (["generate", PROMPT, "-o", "/proc/o.mp4"], "--output '/proc/o.mp4'", "cannot be written"),
    (["generate", PROMPT, "-o", "o.mp4", "--run-dir", "folder.mp4"], "--run-dir", "is there already"),
    (["generate", PROMPT, "-o", "o.mp4", "--run-dir", "/proc/run"], "--run-dir '/proc/run'", "cannot be written"),
    (["generate", PROMPT, "-o", "o.mp4", "--xt-slice", "x.gif"], "--xt-slice 'x.gif'", "must end in .png"),
    (["generate", PROMPT, "-o", "o.mp4", "--contact-sheet", "text.png"], "--contact-sheet 'text.png'", "--overwrite"),
    (["generate", PROMPT, "-o", "o.mp4", "--image", "none.png"], "--image 'none.png'", "no such file"),
    (["generate", PROMPT, "-o", "o.mp4", "--image", "text.png"], "--image 'text.png'", "cannot be read as a picture"),
    (["generate", PROMPT, "-o", "o.mp4", "--schedule", "none.txt"], "--schedule 'none.txt'", "no such file"),
    (["generate", PROMPT, "-o", "o.mp4", "--schedule", "text.png"], "--schedule 'text.png'", "line 1"),
    (["extend", "none.mp4", PROMPT, "-o", "o.mp4"], "VIDEO 'none.mp4'", "no such file"),
    (["extend", "text.png", PROMPT, "-o", "o.mp4"], "VIDEO 'text.png'", "decoded"),
    (["resume", "no-run"], "RUN_DIR 'no-run'", "no such folder"),
    (["resume", "folder.mp4"], "RUN_DIR 'folder.mp4'", "no run folder"),
    (["make"], "make", "No such command"),
    (["train", "everything", "-o", "runs"], "RECIPE 'everything'", "must be one of text, vae"),
    (["train", "text", "-o", "runs", "--set", "steps"], "--set 'steps'", "NAME=VALUE"),
    (["train", "text", "-o", "runs", "--set", "steps=1", "--set", "steps=2"], "--set 'steps=2'", "twice"),
    (["train", "text"], "--output", "Missing"),
]


@pytest.mark.parametrize(("arguments", "names", "fix"), WRONG, ids=lambda x: " ".join(x)[:50] if isinstance(x, list) else "")
def test_a_wrong_request_is_one_line_before_any_loading(fake_pipeline, capsys, arguments, names, fix):
    Path("text.png").write_text("no picture, no video, no schedule")
    Path("folder.mp4").mkdir()
    Path("folder.mp4/mine.txt").write_text("keep")
    before = listing()
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and err.startswith("error: ") and names in err and fix in err
    assert fake_pipeline.loads == [] and listing() == before


def test_what_the_model_cannot_do_leaves_nothing_behind(fake_pipeline, capsys):
    code, _, err = run(capsys, "generate", PROMPT, "-o", "o.mp4", "--width", 99)
    assert code == 2 and "--width 99: model 'fake' with preset 'preview' makes 48" in err and listing() == set()


def test_an_error_as_json_says_the_same(fake_pipeline, capsys):
    code, out, err = run(capsys, "generate", PROMPT, "-o", "o.mp4", "--frames", 0, "--json")
    values = json.loads(out)
    assert (code, values["exit_code"], values["argument"], values["value"]) == (2, 2, "frames", 0)
    assert values["error"] in err and values["fix"] in err


def test_an_unknown_model_or_device_is_a_wrong_request(capsys):
    for arguments, names in ((["--model", "huge"], "--model 'huge'"), (["--device", "toaster"], "--device 'toaster'")):
        code, _, err = run(capsys, "generate", PROMPT, "-o", "o.mp4", *arguments)
        assert code == 2 and names in err and listing() == set()


# --- interruption, failure, resuming --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_to_the_same_bytes(fake_pipeline, capsys, number):
    options = [PROMPT, "--frames", 30, "--device", "cpu", "--dtype", "float16"]
    run(capsys, "generate", *options, "-o", "whole.mp4")
    fake_pipeline.before_chunk = interrupt_at(2, number)
    code, out, err = run(capsys, "generate", *options, "-o", "out.mp4", "--contact-sheet", "my sheet.png")
    assert (code, out) == (130, "") and "interrupted" in err and not Path("out.mp4").exists()
    fake_pipeline.before_chunk, fake_pipeline.loads[:] = lambda index: None, []
    code, out, err = run(capsys, *resume_line(err))
    assert code == 0 and fake_pipeline.loads == [("tiny", "cpu", "float16")]
    assert Path("out.mp4").read_bytes() == Path("whole.mp4").read_bytes()
    assert listing() == {"whole.mp4", "out.mp4", "my sheet.png"}


def test_interrupted_before_the_first_chunk_leaves_nothing(fake_pipeline, capsys):
    fake_pipeline.before_chunk = interrupt_at(0)
    code, _, err = run(capsys, "generate", PROMPT, "-o", "out.mp4")
    assert code == 130 and "nothing was written" in err and "resume" not in err and listing() == set()


def test_interrupted_while_loading_leaves_nothing(monkeypatch, capsys):
    import streamingt2v.runner

    monkeypatch.setattr(streamingt2v.runner, "load_pipeline", lambda *arguments: interrupt_at(0)(0))
    code, out, err = run(capsys, "generate", PROMPT, "-o", "out.mp4", "--json")
    assert code == 130 and json.loads(out)["exit_code"] == 130 and "interrupted" in err and listing() == set()


def test_an_unfinished_run_in_the_way_is_not_lost(fake_pipeline, capsys):
    fake_pipeline.before_chunk = interrupt_at(1)
    run(capsys, "generate", PROMPT, "--frames", 20, "-o", "out.mp4")
    fake_pipeline.before_chunk = lambda index: None
    code, _, err = run(capsys, "generate", "Another prompt", "-o", "out.mp4", "--overwrite")
    assert code == 2 and f"streamingt2v resume {Path('out.run').absolute()}" in err
    code, out, _ = run(capsys, "resume", "out.run", "--json")
    assert code == 0 and list(json.loads(out)) == JSON_FIELDS and count_frames("out.mp4") == 20 and listing() == {"out.mp4"}


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
    """Leaves out.run (or the --run-dir in `options`), 8 of 20 frames made; what follows is not interrupted."""
    fake_pipeline.before_chunk = interrupt_at(1)
    assert run(capsys, "generate", PROMPT, "--frames", 20, "-o", "out.mp4", *options)[0] == 130
    fake_pipeline.before_chunk = lambda index: None


def test_a_run_of_the_python_interface_resumes(fake_pipeline, capsys):
    request = Request(PROMPT, frames=20)
    with runner.create_run(fake_pipeline, request, Path("a.run"), "tiny", Path("a.mp4"), device="cpu", dtype="float16"):
        pass
    assert run(capsys, "resume", "a.run")[0] == 0 and fake_pipeline.loads == [("tiny", "cpu", "float16")]
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
    assert code == 2 and len(err.splitlines()) == 1 and "RUN_DIR 'out.run': the files of its model 'tiny' are not those" in err
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
        assert run(capsys, "generate", PROMPT, "--model", model, "--frames", 8, "--run-dir", f"{model}.run")[0] == 0
        with RunFolder.open(f"{model}.run") as kept:
            assert kept.model == lasting


@pytest.mark.parametrize("left", [["lock"], ["lock", "init.mp4"], ["lock", "journal.jsonl", "playlist.m3u8", "seg_00000.m4s"]])
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
    assert code == 2 and "--output" in err and "--overwrite" in err and Path("out.mp4").read_text() == "precious"
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


# --- refine ---------------------------------------------------------------------------------------------------------------


def test_refine_makes_as_many_frames_as_the_video_has_at_its_rate(fake_pipeline, capsys):
    a_video("in.mp4", 21, 12)
    code, out, _ = run(capsys, "refine", "in.mp4", PROMPT, "-o", "out.mp4", "--json")
    values = json.loads(out)
    assert code == 0 and list(values) == JSON_FIELDS
    assert [values[k] for k in ("frames", "fps", "width", "height", "preset")] == [21, 12, 48, 32, "full"]
    assert count_frames("out.mp4") == 21 and read_metadata("out.mp4")["refine"] == "in.mp4"
    assert listing() == {"in.mp4", "out.mp4"}


def test_options_reach_the_request_to_refine(fake_pipeline, capsys):
    a_video("in.mp4", 12, 8)
    asked = "--frames 9 --form joint --strength 0.4 --steps 3 --guidance-scale 2.5 --negative-prompt dull --seed 7".split()
    assert run(capsys, "refine", "in.mp4", PROMPT, *asked, "--run-dir", "kept")[0] == 0
    with RunFolder.open("kept") as kept:
        path = str(Path("in.mp4").absolute())
        wanted = Request(PROMPT, 9, 7, negative_prompt="dull", preset="full", steps=3, guidance_scale=2.5)
        assert kept.request == dataclasses.replace(wanted, refine=path, form="joint", strength=0.4)


def test_a_stopped_refinement_goes_on_to_the_same_file(fake_pipeline, capsys):
    a_video("in.mp4", 30, 8)
    assert run(capsys, "refine", "in.mp4", PROMPT, "-o", "out.mp4")[0] == 0
    whole = Path("out.mp4").read_bytes()
    Path("out.mp4").unlink()
    fake_pipeline.before_chunk = interrupt_at(2)
    code, _, err = run(capsys, "refine", "in.mp4", PROMPT, "-o", "out.mp4")
    assert code == 130
    fake_pipeline.before_chunk = lambda index: None
    assert run(capsys, *resume_line(err))[0] == 0
    assert Path("out.mp4").read_bytes() == whole


def test_a_refinement_is_not_gone_on_with_when_its_video_is_another(fake_pipeline, capsys):
    a_video("in.mp4", 30, 8)
    fake_pipeline.before_chunk = interrupt_at(2)
    err = run(capsys, "refine", "in.mp4", PROMPT, "-o", "out.mp4")[2]
    a_video("in.mp4", 29, 8)
    assert "in.mp4 is not the file that the run began with" in run(capsys, *resume_line(err))[2]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["in.mp4", "--frames", 13], "--frames 13: the video has 12"),
        (["none.mp4"], "VIDEO 'none.mp4': no such file"),
        (["text.mp4"], "VIDEO 'text.mp4': cannot be read"),
        (["in.mp4", "--strength", 2], "--strength 2.0: must be above 0"),
        (["in.mp4", "--workers", 0], "--workers 0: must be 1 or more"),
        (["in.mp4", "--workers", 2], "pip install 'streamingt2v[ray]'"),
    ],
)
def test_a_wrong_refinement_is_refused_at_the_door(fake_pipeline, capsys, monkeypatch, arguments, says):
    monkeypatch.setattr(distributed, "find_spec", lambda name: None)
    a_video("in.mp4", 12, 8)
    Path("text.mp4").write_text("not a video")
    before = listing()
    code, _, err = run(capsys, "refine", *arguments[:1], PROMPT, "-o", "out.mp4", *arguments[1:])
    assert (code, fake_pipeline.loads, listing()) == (2, [], before)
    assert says in err


def test_workers_are_for_refining_only(fake_pipeline, capsys):
    fake_pipeline.before_chunk = interrupt_at(1)
    err = run(capsys, "generate", PROMPT, "-o", "out.mp4")[2]
    code, _, err = run(capsys, *resume_line(err), "--workers", 2)
    assert code == 2 and "--workers 2: they share the work of refining" in err


# --- extend and schedules -------------------------------------------------------------------------------------------------


def test_extend_gives_the_input_and_then_new_frames(fake_pipeline, capsys):
    source = a_video("in.mp4", 13, fps=5)
    code, out, _ = run(capsys, "extend", source, PROMPT, "--frames", 10, "-o", "out.mp4", "--json")
    values = json.loads(out)
    assert code == 0 and values["frames"] == 23 and values["fps"] == 5 and probe_video("out.mp4").fps == 5
    before, after = list(read_video(source)), list(read_video("out.mp4"))
    assert len(after) == 23
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(before, after, strict=False)) < 3


@pytest.mark.parametrize(
    ("options", "paces"), [([], "30 its motion plays 1 times, the new motion 3.75"), (["--fps", 8], "8 its motion plays 0.267")]
)
def test_a_source_of_another_rate_is_told(fake_pipeline, capsys, options, paces):
    code, _, err = run(capsys, "extend", a_video("in.mp4", 13, fps=30), PROMPT, "--frames", 8, "-o", "out.mp4", *options)
    assert code == 0 and "has 30 frames a second, the model makes 8" in err and paces in err
    code, _, err = run(capsys, "extend", a_video("in.mp4", 13, fps=8), PROMPT, "--frames", 8, "-o", "same.mp4")
    assert code == 0 and "frames a second" not in err


def test_an_interrupted_extension_goes_on_to_the_same_bytes(fake_pipeline, capsys):
    source = a_video("in.mp4", 13, fps=8)
    run(capsys, "extend", source, PROMPT, "--frames", 20, "-o", "whole.mp4")
    fake_pipeline.before_chunk = interrupt_at(0)
    code, _, err = run(capsys, "extend", source, PROMPT, "--frames", 20, "-o", "out.mp4")
    fake_pipeline.before_chunk = lambda index: None
    assert code == 130 and run(capsys, *resume_line(err))[0] == 0
    assert Path("out.mp4").read_bytes() == Path("whole.mp4").read_bytes()


SCHEDULES = {
    "lines": "# a story\n\n0: A cat on the street\n 48 : A cat: asleep\n",
    "object": '{"0": "A cat on the street", "48": "A cat: asleep"}',
    "list": '[[0, "A cat on the street"], [48, "A cat: asleep"]]',
}


@pytest.mark.parametrize("text", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_is_read(text):
    Path("schedule").write_text(text)
    assert read_schedule(Path("schedule")) == ((0, "A cat on the street"), (48, "A cat: asleep"))


WRONG_SCHEDULES = [b"", b"A cat", b"x: A cat", b"-1: A cat", b"{", b"[1, 2]", b'{"0": 5}', b'[["a", "b"]]', b'[[1.5, "b"]]', b"\xff\xfe"]


@pytest.mark.parametrize("content", WRONG_SCHEDULES)
def test_a_wrong_schedule_is_refused(content):
    Path("schedule").write_bytes(content)
    with pytest.raises(RequestError, match="schedule"):
        read_schedule(Path("schedule"))


def test_a_schedule_reaches_the_request_and_its_words_are_told(fake_pipeline, capsys):
    Path("story.txt").write_text("16: A lion on the beach\n")
    code, _, err = run(capsys, "generate", PROMPT, "--schedule", "story.txt", "--run-dir", "kept", "-o", "out.mp4")
    assert code == 0 and "'lion'" in err
    with RunFolder.open("kept") as kept:
        assert kept.request.schedule == ((16, "A lion on the beach"),)


# --- train ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded_training(monkeypatch):
    """What `run_recipe` was called with; `error` in it is raised."""
    from streamingt2v.train import recipes

    calls: dict = {}

    def record(name, out, settings, loop_settings, stop_after):
        calls.update(name=name, out=out, settings=settings, loop=loop_settings, stop_after=stop_after)
        print("step 1/2")
        if "error" in calls:
            raise calls["error"]
        return {"loss": 0.5, "step": 2}

    monkeypatch.setattr(recipes, "run_recipe", record)
    return calls


def test_train_hands_its_settings_to_the_recipe(recorded_training, capsys):
    Path("runs/text").mkdir(parents=True)
    settings = ["--set", "text=runs/text", "--set", "channels=32,64", "--set", "steps=9", "--set", "lr=1e-4"]
    code, out, err = run(capsys, "train", "base", "-o", "runs/base", *settings, "--stop-after", 3, "--json")
    assert code == 0 and json.loads(out) == {"recipe": "base", "output": "runs/base", "loss": 0.5, "step": 2} and "step 1/2" in err
    assert recorded_training["settings"] == {"text": Path("runs/text"), "channels": (32, 64)}
    assert recorded_training["loop"] == {"steps": 9, "lr": 1e-4} and recorded_training["stop_after"] == 3


@pytest.mark.parametrize(
    ("setting", "fix"),
    [("lenght=3", "no such setting"), ("steps=few", "a number (int)"), ("text=nowhere", "no such folder"), (None, "needs text")],
)
def test_train_refuses_wrong_settings(recorded_training, capsys, setting, fix):
    code, _, err = run(capsys, "train", "base", "-o", "runs/base", "-q", *(["--set", setting] if setting else []))
    assert code == 2 and len(err.splitlines()) == 1 and "--set" in err and fix in err and not recorded_training


def test_an_interrupted_training_prints_the_command_that_goes_on(recorded_training, capsys):
    recorded_training["error"] = KeyboardInterrupt()
    code, _, err = run(capsys, "train", "text", "-o", "runs/text", "--set", "steps=9")
    assert code == 130 and err.splitlines()[-1] == "go on with: streamingt2v train text -o runs/text --set steps=9"


def test_every_recipe_is_a_command_and_every_setting_can_be_given():
    from streamingt2v.train.loop import LoopConfig
    from streamingt2v.train.recipes import RECIPES

    assert tuple(RECIPES) == train.NAMES
    for recipe in RECIPES.values():
        own, loop = get_type_hints(recipe.config), get_type_hints(LoopConfig)
        assert not set(own) & set(loop), "a name must mean one thing"
        for name, hint in (own | loop).items():
            text = "." if Path in (hint, *get_args(hint)) else "yes" if hint is bool else "3"
            assert train.parse_setting(name, text, hint) in (3, "3", (3,), Path(), True)


def test_a_setting_that_is_yes_or_no_takes_nothing_else():
    assert train.parse_setting("x", "no", bool) is False
    with pytest.raises(RequestError, match="must be yes or no"):
        train.parse_setting("x", "False", bool)
