"""Every option of every command: absurd numbers and bytes that are no text are refused before any work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn, get_args

import pytest

from commands import PROMPT, a_video, run
from streamingt2v.cli import app
from streamingt2v.cli.screen import Stopped

ABSURD = {int: (-1, 10**30), float: (-1.0, 1e300, float("nan"), float("inf"))}
WORDS = {
    "generate": [PROMPT, "-o", "o.mp4"],
    "extend": ["in.mp4", PROMPT, "-o", "o.mp4"],
    "refine": ["in.mp4", PROMPT, "-o", "o.mp4"],
    "resume": ["run"],
    "batch": ["t.csv", "-o", "out"],
    "evaluate": ["in.mp4", "--chunk", "8", "--overlap", "4"],
    "bench": ["--lengths", "", "--frames", "24"],
    "plan": [PROMPT],
    "train": ["cam", "--model", "tiny", "--data", ".", "-o", "trained"],
    "serve": ["--data-dir", "jobs"],
    "demo": ["--data-dir", "jobs"],
}


def numbers() -> list[tuple[str, str, type]]:
    """Return (command, option, type) of every option that takes a number."""
    found = []
    for command in (info.callback for info in app.registered_commands):
        for name, hint in command.__annotations__.items():
            kinds = {int, float} & set(get_args(get_args(hint)[0]) or get_args(hint)[:1])
            found += [(command.__name__, f"--{name.replace('_', '-')}", kind) for kind in kinds]
    return found


STARTS = (
    "jobs.service.JobService",
    "train.recipes.run_recipe",
    "metrics.speed.repeated",
    "metrics.suite.evaluate",
    "runs.batch.run_batch",
    "runs.render.render",
)


@pytest.fixture(autouse=True)
def no_work(monkeypatch, tmp_path) -> None:
    """Make inputs in a new folder; commands end where their work would start."""

    def started(*given: object, **named: object) -> NoReturn:
        raise Stopped("work started", 0)

    monkeypatch.chdir(tmp_path)
    for place in STARTS:
        monkeypatch.setattr(f"streamingt2v.{place}", started)
    a_video("in.mp4", 12, 8)
    Path("t.csv").write_text("prompt\nA cat\n")


@pytest.mark.parametrize(("command", "option", "kind"), numbers())
def test_absurd_numbers_are_refused(fake_pipeline, capsys, command, option, kind):
    before = {path.name for path in Path.cwd().iterdir()} | {"jobs"}
    for value in ABSURD[kind]:
        full = ["--preset", "full"] if option == "--strength" and command != "refine" else []
        code, out, err = run(capsys, command, *WORDS[command], *full, f"{option}={value}")
        assert code == 2 and option in err and len(err.splitlines()) == 1, (value, err)
        assert len(err) < 500 and "Traceback" not in err
    assert {path.name for path in Path.cwd().iterdir()} <= before


def texts() -> list[tuple[str, str]]:
    """Return (command, option or argument) of every parameter that takes a text or a path."""
    found = []
    for command in (info.callback for info in app.registered_commands):
        for name, hint in command.__annotations__.items():
            kinds = str(get_args(hint)[0])
            if "str" in kinds or "Path" in kinds:
                found.append((command.__name__, name))
    return found


@pytest.mark.parametrize(("command", "name"), texts())
def test_bytes_that_are_no_text_end_in_one_line(fake_pipeline, capsys, command, name):
    words, option = list(WORDS.get(command, ["x"])), f"--{name.replace('_', '-')}"
    places = {"prompt": PROMPT, "video": "in.mp4", "videos": "in.mp4", "prompts": "t.csv", "run_dir": "run"}
    if places.get(name) in words and command != "plan":
        words[words.index(places[name])] = "\udcff"
    elif name in ("output", "out") and "-o" in words:
        words[words.index("-o") + 1] = "no/\udcff.mp4"
    elif name in ("kind", "source", "target", "name", "recipe"):
        words = {"convert": ["vid2vid", "\udcff", "\udcff"], "get": ["\udcff"]}.get(
            command, ["\udcff", *words[1:]]
        )
    else:
        words += [f"{option}=\udcff"]
    sys.stderr.reconfigure(errors="backslashreplace")
    code, _, err = run(capsys, command, *words)
    assert code in ((2,) if name in ("prompt", "negative_prompt") else (0, 2)), err
    assert "Traceback" not in err and "Unicode" not in err
