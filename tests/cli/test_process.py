"""The command line in its own process, with real classes at toy size."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import forking
from streamingt2v.cli import main
from streamingt2v.runs.run import RunFolder
from streamingt2v.video.reader import count_frames, probe_video
from streamingt2v.video.writer import write_video
from toy import write_toy_model

COMMAND = str(Path(sys.executable).with_name("streamingt2v"))
PROMPT = "A cat running on the street"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("model") / "toy")


def start(folder: Path, *arguments: object) -> forking.Popen:
    """Start the command in `folder`."""
    command = [sys.executable, "-m", "streamingt2v", *arguments]
    return forking.Popen(command, cwd=folder, stdout=forking.PIPE, stderr=forking.PIPE, text=True)


def run(folder: Path, *arguments: object) -> tuple[int, str, str]:
    """Run the command; return exit code, stdout and stderr."""
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_all_three_stages_from_a_picture_with_json(tmp_path, model):
    Image.new("RGB", (50, 40), "orange").save(tmp_path / "start.png")
    options = ["--image", "start.png", "--frames", 21, "--preset", "full", "--model", model, "--json"]
    words = [COMMAND, "generate", PROMPT, *map(str, options), "-o", "out.mp4"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    out, err = done.stdout, done.stderr
    assert done.returncode == 0, err
    values = json.loads(out)  # nothing else is on stdout
    assert values["frames"] == count_frames(tmp_path / "out.mp4") == 21
    assert (values["width"], values["height"]) == (64, 64)
    assert "Traceback" not in err and "it/s" not in err, "progress bars of libraries do not belong here"


def test_extend_any_video_by_new_frames(tmp_path, model):
    write_video(tmp_path / "first.mp4", (np.full((48, 80, 3), 10 * i, np.uint8) for i in range(9)), fps=12)
    code, out, err = run(
        tmp_path, "extend", "first.mp4", PROMPT, "--frames", 12, "--model", model, "-o", "out.mp4", "--json"
    )
    assert code == 0, err
    assert (
        json.loads(out)["frames"] == count_frames(tmp_path / "out.mp4") == 21
        and probe_video(tmp_path / "out.mp4").fps == 12
    )


def test_ctrl_c_ends_cleanly_and_the_printed_line_goes_on_to_the_same_bytes(tmp_path, model):
    options = [PROMPT, "--frames", "72", "--model", str(model)]
    assert run(tmp_path, "generate", *options, "-o", "whole.mp4")[0] == 0  # same number of threads as below
    process = start(tmp_path, "generate", *options, "-o", "out.mp4")
    journal = tmp_path / "out.run" / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (
        (process.returncode, out) == (130, "")
        and "Traceback" not in err
        and not (tmp_path / "out.mp4").exists()
    )
    line = next(line for line in err.splitlines() if "streamingt2v resume" in line)
    code, out, err = run(tmp_path, *shlex.split(line.partition("streamingt2v ")[2]))
    assert (code, out.strip()) == (0, str(tmp_path / "out.mp4")), err
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not (tmp_path / "out.run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--width", 33], "--width 33"),
        (["--device", "nowhere"], "--device 'nowhere'"),
        (["--fps", 60], "--fps 60"),
    ],
)
def test_what_the_model_cannot_do_is_a_wrong_request(tmp_path, model, capfd, options, message):
    arguments = ["generate", PROMPT, "--model", model, *options, "-o", tmp_path / "out.mp4", "--quiet"]
    assert main([str(a) for a in arguments]) == 2
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and message in err and list(tmp_path.iterdir()) == []


def test_a_model_folder_that_is_not_one_is_a_wrong_request(tmp_path, capfd):
    assert (
        main(["generate", PROMPT, "--model", str(tmp_path), "-o", str(tmp_path / "out.mp4"), "--quiet"]) == 2
    )
    err = capfd.readouterr().err
    assert f"--model '{tmp_path}'" in err and "model.json" in err


def test_a_run_resumed_with_another_number_of_threads_has_the_same_bytes(tmp_path, model):
    options = [PROMPT, "--frames", 24, "--model", model]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert main(["generate", *map(str, options), "-o", str(tmp_path / "whole.mp4")]) == 0
        assert (
            main(
                [
                    "generate",
                    *map(str, options),
                    "-o",
                    str(tmp_path / "out.mp4"),
                    "--run-dir",
                    str(tmp_path / "run"),
                ]
            )
            == 0
        )
    finally:
        torch.set_num_threads(before)
    with RunFolder.open(tmp_path / "run") as kept:
        assert kept.header.threads == 2
    journal = tmp_path / "run" / "journal.jsonl"
    journal.write_bytes(
        b"".join(journal.read_bytes().splitlines(keepends=True)[:-1])
    )  # as if stopped before the last chunk
    (tmp_path / "out.mp4").unlink()
    code, out, err = run(tmp_path, "resume", "run")  # in a new process
    assert (code, out.strip()) == (0, str(tmp_path / "out.mp4")), err
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
