"""The command line around a fake pipeline: messages, exit codes, files."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from commands import JSON_FIELDS, PROMPT, listing, run
from streamingt2v.cli import settle
from streamingt2v.cli.options import RefineOptions, RequestOptions
from streamingt2v.config import Request
from streamingt2v.config.request import SHORT_NAMES
from streamingt2v.runs.run import RunFolder
from streamingt2v.video.reader import count_frames, probe_video

pytestmark = pytest.mark.usefixtures("in_empty_folder")


@pytest.mark.parametrize(
    "arguments", [["--help"], [], ["--version"], ["generate", "--help"], ["resume", "nothing-here"]]
)
def test_the_door_imports_nothing_heavy(arguments):
    heavy = "{'torch', 'diffusers', 'transformers', 'av'} & set(sys.modules)"
    check = f"import sys; from streamingt2v.cli import main; main({arguments!r}); print({heavy})"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_installed_command_starts():
    done = subprocess.run(
        [Path(sys.executable).with_name("streamingt2v"), "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    from streamingt2v import __version__

    assert done.stdout.strip() == __version__


LONG = {short: name for name, short in SHORT_NAMES.items()}


def test_every_field_of_a_request_has_an_option_or_argument():
    options = {LONG.get(field.name, field.name) for field in dataclasses.fields(RequestOptions)}
    assert options | {"prompt", "image", "video", "refine", "base"} == {
        field.name for field in dataclasses.fields(Request)
    }
    assert {LONG.get(field.name, field.name) for field in dataclasses.fields(RefineOptions)} < options


def test_defaults_are_those_of_a_request():
    given = {
        LONG.get(field.name, field.name): field.default
        for field in dataclasses.fields(RequestOptions)
        if field.name != "schedule"
    }
    assert given == {name: getattr(Request("x"), name) for name in given}


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
    assert [values[k] for k in ("frames", "fps", "width", "height", "seed", "model", "preset")] == [
        20,
        8,
        48,
        32,
        5,
        "tiny",
        "preview",
    ]
    assert 0 < values["first_frame_seconds"] < values["seconds"] and values["peak_rss_mb"] > 1
    assert "20/20 frames" in err


def test_options_reach_the_model_and_the_request(fake_pipeline, capsys, monkeypatch):
    monkeypatch.setattr(settle, "choose_device", lambda asked: (asked, "as asked"))
    model = "--model m --device cuda:1 --dtype bfloat16 --offload none".split()
    asked = "--steps 7 --guidance-scale 3.5 --negative-prompt dull --fps 6".split()
    assert run(capsys, "generate", PROMPT, *model, *asked, "--run-dir", "kept", "-o", "out.mp4")[0] == 0
    with RunFolder.open("kept") as kept:
        assert fake_pipeline.loads == [("m", "cuda:1", "bfloat16", False)]
        asked = kept.request
        assert (asked.num_inference_steps, asked.guidance_scale, asked.negative_prompt, kept.fps) == (
            7,
            3.5,
            "dull",
            6,
        )
    assert probe_video("out.mp4").fps == 6


def test_a_run_dir_is_kept_and_without_output_holds_the_video(fake_pipeline, capsys):
    code, out, _ = run(capsys, "generate", PROMPT, "--frames", 9, "--run-dir", "deep/run", "--json")
    values = json.loads(out)
    assert code == 0 and values["run_dir"] == str(Path("deep/run").absolute())
    assert count_frames("deep/run/video.mp4") == 9 and Path("deep/run/request.json").exists()


def test_unknown_words_are_told_unless_quiet(fake_pipeline, capsys):
    code, out, err = run(capsys, "generate", "A lion with a blorp", "-o", "a.mp4")
    assert code == 0 and "'lion'; it takes it for 'tiger'" in err and "'blorp'; it is left out" in err
    assert run(capsys, "generate", "A lion with a blorp", "-o", "b.mp4", "--quiet") == (
        0,
        str(Path("b.mp4").absolute()) + "\n",
        "",
    )


def test_prompts_without_effect_are_told(fake_pipeline, capsys):
    code, _, err = run(capsys, "generate", "blorp", "-o", "a.mp4")
    assert code == 0 and "knows no word of 'blorp'" in err and "too long" not in err
    code, _, err = run(capsys, "generate", "A cat" + " and so on" * 10, "-o", "b.mp4")
    assert code == 0 and "too long for the model by 2 tokens" in err and "knows no word" not in err


@pytest.mark.parametrize("preset", ["preview", "full"])
def test_what_the_request_needs_is_loaded(fake_pipeline, capsys, preset):
    assert run(capsys, "generate", PROMPT, "--frames", 8, "--preset", preset, "-o", "out.mp4")[0] == 0
    assert fake_pipeline.loads == [("tiny", "cpu", "float32", preset == "full")]


def test_pictures_are_written(fake_pipeline, capsys):
    assert (
        run(
            capsys,
            "generate",
            PROMPT,
            "--frames",
            20,
            "-o",
            "o.mp4",
            "--xt-slice",
            "x.png",
            "--contact-sheet",
            "c.png",
        )[0]
        == 0
    )
    from PIL import Image

    assert Image.open("x.png").height % 20 == 0 and Image.open("c.png").width == 3 * 48
    assert listing() == {"o.mp4", "x.png", "c.png"}


def test_overwrite_replaces_what_is_refused_otherwise(fake_pipeline, capsys):
    Path("out.mp4").write_text("precious")
    code, _, err = run(capsys, "generate", PROMPT, "-o", "out.mp4")
    assert code == 2 and "--overwrite" in err and Path("out.mp4").read_text() == "precious"
    assert run(capsys, "generate", PROMPT, "-o", "out.mp4", "--overwrite")[0] == 0
    assert count_frames("out.mp4") == 80


OWN_CLIPS = ("--model", "tiny", "--data", ".")

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
    (
        ["generate", PROMPT, "-o", "o.mp4", "--run-dir", "folder.mp4"],
        "--run-dir",
        "exists and is no run folder",
    ),
    (
        ["generate", PROMPT, "-o", "o.mp4", "--run-dir", "/proc/run"],
        "--run-dir '/proc/run'",
        "cannot be written",
    ),
    (["generate", PROMPT, "-o", "o.mp4", "--xt-slice", "x.gif"], "--xt-slice 'x.gif'", "must end in .png"),
    (
        ["generate", PROMPT, "-o", "o.mp4", "--contact-sheet", "text.png"],
        "--contact-sheet 'text.png'",
        "--overwrite",
    ),
    (["generate", PROMPT, "-o", "o.mp4", "--image", "none.png"], "--image 'none.png'", "no such file"),
    (
        ["generate", PROMPT, "-o", "o.mp4", "--image", "text.png"],
        "--image 'text.png'",
        "cannot be read as an image",
    ),
    (["generate", PROMPT, "-o", "o.mp4", "--schedule", "none.txt"], "--schedule 'none.txt'", "no such file"),
    (["generate", PROMPT, "-o", "o.mp4", "--schedule", "text.png"], "--schedule 'text.png'", "line 1"),
    (["extend", "none.mp4", PROMPT, "-o", "o.mp4"], "VIDEO 'none.mp4'", "no such file"),
    (["extend", "text.png", PROMPT, "-o", "o.mp4"], "VIDEO 'text.png'", "no video"),
    (["resume", "no-run"], "RUN_DIR 'no-run'", "no such folder"),
    (["resume", "folder.mp4"], "RUN_DIR 'folder.mp4'", "no run folder"),
    (["make"], "make", "No such command"),
    (
        ["train", "everything", *OWN_CLIPS, "-o", "runs"],
        "RECIPE 'everything'",
        "must be one of cam, apm, distill",
    ),
    (["train", "cam", *OWN_CLIPS, "-o", "runs", "--set", "steps"], "--set 'steps'", "NAME=VALUE"),
    (
        ["train", "cam", *OWN_CLIPS, "-o", "runs", "--set", "steps=1", "--set", "steps=2"],
        "--set 'steps=2'",
        "twice",
    ),
    (["train", "cam", *OWN_CLIPS], "--output", "Missing"),
]


@pytest.mark.parametrize(
    ("arguments", "names", "fix"), WRONG, ids=lambda x: " ".join(x)[:50] if isinstance(x, list) else ""
)
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
    assert (
        code == 2 and "--width 99: model 'fake' with preset 'preview' makes 48" in err and listing() == set()
    )


def test_an_error_as_json_says_the_same(fake_pipeline, capsys):
    code, out, err = run(capsys, "generate", PROMPT, "-o", "o.mp4", "--frames", 0, "--json")
    values = json.loads(out)
    assert (code, values["exit_code"], values["argument"], values["value"]) == (2, 2, "frames", 0)
    assert values["error"] in err and values["fix"] in err


def test_an_unknown_model_or_device_is_a_wrong_request(capsys):
    for arguments, names in (
        (["--model", "huge"], "--model 'huge'"),
        (["--device", "toaster"], "--device 'toaster'"),
    ):
        code, _, err = run(capsys, "generate", PROMPT, "-o", "o.mp4", *arguments)
        assert code == 2 and names in err and listing() == set()
