"""Output files are tried before the work, and complete or absent; odd names, links and terminals work."""

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from commands import PROMPT, a_video, interrupt_at, listing, resume_line, run
from streamingt2v import durable
from streamingt2v.cli import main, streams
from streamingt2v.cli.memory import is_out_of_memory, ways_out
from streamingt2v.cli.screen import Screen
from streamingt2v.config import ModelConfig, Request
from streamingt2v.config.runtime import Savings
from streamingt2v.errors import RunError
from streamingt2v.video.reader import count_frames

pytestmark = pytest.mark.usefixtures("in_empty_folder")
NAMES = {
    "255 bytes": "x" * 251 + ".mp4",
    "Chinese, 253 bytes": "猫" * 83 + ".mp4",
    "no UTF-8": os.fsdecode(b"\xff\xfe.mp4"),
    "a line end": "a\nb.mp4",
    "a quote": "it's $HOME `x`.mp4",
    "percent": "%d %s [red].mp4",
    "a dash": "-o.mp4",
    "a colon": "file:x.mp4",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_whatever_a_file_may_be_called_it_is_made_and_gone_on_with(fake_pipeline, printed_to, name):
    fake_pipeline.before_chunk = interrupt_at(2)
    printed_to("said", err=True)
    code = main(
        [
            "generate",
            PROMPT,
            "--frames",
            "24",
            f"--output={name}",
            "--xt-slice",
            str(Path(name).with_suffix(".png")),
        ]
    )
    assert code == 130
    fake_pipeline.before_chunk = lambda index: None
    words = shlex.split(os.fsdecode(Path("said").read_bytes()).rpartition("resume with: streamingt2v ")[2])
    assert main(words) == 0
    Path("said").unlink()
    assert listing() == {name, str(Path(name).with_suffix(".png"))} and count_frames(Path(name)) == 24


@pytest.mark.parametrize("option", ["--output", "--xt-slice", "--contact-sheet"])
@pytest.mark.parametrize("name", ["x" * 252, "猫" * 84, "y" * 5000, "no/" + "x" * 300 + "/a"])
def test_a_name_that_cannot_be_is_refused_before_any_work(fake_pipeline, capsys, option, name):
    given = {"--output": "o.mp4", option: name + (".mp4" if option == "--output" else ".png")}
    code, _, err = run(capsys, "generate", PROMPT, *(word for pair in given.items() for word in pair))
    assert (
        code == 2
        and f"{option} " in err
        and len(err) < 1000
        and fake_pipeline.loads == []
        and listing() == set()
    )


def test_other_paths_that_cannot_be_are_refused(fake_pipeline, capsys):
    name, video = "x" * 300, a_video("v.mp4", 8, 8)
    for words, says in (
        (["generate", PROMPT, "-o", "o.mp4", "--run-dir", name], "--run-dir"),
        (["generate", PROMPT, "-o", "o.mp4", "--image", name], "--image"),
        (["generate", PROMPT, "-o", "o.mp4", "--schedule", name], "--schedule"),
        (["extend", name, PROMPT, "-o", "o.mp4"], "VIDEO"),
        (["refine", name, PROMPT, "-o", "o.mp4"], "VIDEO"),
        (["resume", name], "RUN_DIR"),
        (["evaluate", name], "VIDEO"),
        (["evaluate", video, "--curves", name + ".png"], "--curves"),
        (["batch", name + ".csv", "--out", "out"], "PROMPTS"),
    ):
        code, _, err = run(capsys, *words)
        assert code == 2 and says in err and len(err.splitlines()) == 1, (words, err)
    assert fake_pipeline.loads == [] and listing() == {"v.mp4"}


def test_two_files_in_one_place_are_refused(fake_pipeline, capsys):
    a_video("v.mp4", 8, 8)
    Path("link.png").symlink_to("a.png")
    Path("a.png").write_text("old")
    for words in (
        ["generate", PROMPT, "-o", "o.mp4", "--xt-slice", "b.png", "--contact-sheet", "./b.png"],
        [
            "generate",
            PROMPT,
            "-o",
            "o.mp4",
            "--xt-slice",
            "a.png",
            "--contact-sheet",
            "link.png",
            "--overwrite",
        ],
        ["evaluate", "v.mp4", "--curves", "b.png", "--slice", "b.png"],
        ["generate", PROMPT, "-o", "r.mp4", "--run-dir", "r.mp4"],
    ):
        assert run(capsys, *words)[0] == 2
    Path("r").mkdir()
    assert run(capsys, "generate", PROMPT, "-o", "r/init.mp4", "--run-dir", "r")[0] == 2
    assert fake_pipeline.loads == [] and listing() == {"v.mp4", "a.png", "link.png", "r"}


def test_a_link_is_written_through_as_cp_does(fake_pipeline, capsys):
    Path("real").mkdir()
    for name in ("o.mp4", "x.png"):
        Path("real", name).write_text("old")
        Path("real", name).chmod(0o600)
        Path(name).symlink_to(Path("real", name))
    words = ["generate", PROMPT, "--frames", 8, "-o", "o.mp4", "--xt-slice", "x.png"]
    code, _, err = run(capsys, *words)
    assert code == 2 and "--overwrite" in err
    assert run(capsys, *words, "--overwrite")[0] == 0
    assert (
        Path("o.mp4").is_symlink()
        and count_frames("real/o.mp4") == 8
        and Path("real/x.png").read_bytes()[1:4] == b"PNG"
    )
    assert (Path("real/o.mp4").stat().st_mode & 0o777, Path("real/x.png").stat().st_mode & 0o777) == (
        0o600,
        0o600,
    )
    assert listing() == {"real", "real/o.mp4", "real/x.png", "o.mp4", "x.png"}


def test_a_link_to_nothing_is_refused_as_cp_does(fake_pipeline, capsys):
    Path("o.mp4").symlink_to("gone.mp4")
    Path("round.mp4").symlink_to("round.mp4")
    for name in ("o.mp4", "round.mp4"):
        for more in ([], ["--overwrite"]):
            code, _, err = run(capsys, "generate", PROMPT, "-o", name, *more)
            assert code == 2 and "is a broken link" in err
    assert fake_pipeline.loads == [] and listing() == {"o.mp4", "round.mp4"}


def test_trying_leaves_nothing_and_touches_nothing():
    Path("there").write_text("old")
    durable.try_file(Path("there"))
    durable.try_file(Path("new"))
    assert listing() == {"there"} and Path("there").read_text() == "old"
    with pytest.raises(OSError, match="File name too long"):
        durable.try_file(Path("x" * 256))


def test_a_file_that_fails_half_way_leaves_the_old_one():
    for name in ("old", "x" * 255):
        Path(name).write_text("old")
        with pytest.raises(RunError), durable.replacing(Path(name)) as part:
            part.write_text("half")
            raise RunError("no more")
        assert Path(name).read_text() == "old"
    assert len(listing()) == 2


@pytest.fixture
def printed_to(monkeypatch):
    """Redirect stdout to a file descriptor, like a process's."""
    files = []

    def go(path: str, encoding: str = "utf-8", err: bool = False) -> None:
        file = Path(path).open("w", encoding=encoding)  # noqa: SIM115
        files.append(file)
        streams.codecs.register_error(streams._RAW, streams._as_bytes)
        monkeypatch.setattr(sys, "stderr" if err else "stdout", streams._stream(file, file.fileno()))

    yield go
    for file in files:
        file.close()


def test_a_full_stdout_costs_no_video(fake_pipeline, printed_to, capsys):
    printed_to("/dev/full")
    for name, more in (("a.mp4", []), ("b.mp4", ["--json"])):
        assert main(["generate", PROMPT, "--frames", "8", "-o", name, *more]) == 0
        assert count_frames(name) == 8
    err = capsys.readouterr().err
    assert str(Path("a.mp4").absolute()) in err and "No space left" in err and "Traceback" not in err
    assert streams.failure().errno == errno.ENOSPC


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_path_is_printed_so_that_it_is_the_path(fake_pipeline, printed_to, encoding):
    printed_to("said", encoding)
    for name in ("ü猫.mp4", os.fsdecode(b"\xff.mp4")):
        assert main(["generate", PROMPT, "--frames", "8", "-o", name]) == 0
        assert (
            encoding == "latin-1" or Path(os.fsdecode(Path("said").read_bytes().splitlines()[-1])).is_file()
        )
    assert main(["generate", PROMPT, "--frames", "8", "-o", "猫.mp4", "--json"]) == 0
    assert Path(json.loads(Path("said").read_bytes().splitlines()[-1])["output"]).is_file()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_table_is_shown_on_any_terminal(printed_to, encoding):
    printed_to("said", encoding)
    a_video("[red]v :cat:[bold].mp4", 8, 8)
    assert main(["evaluate", "[red]v :cat:[bold].mp4", "--metrics", "flicker,drift"]) == 0
    said = Path("said").read_bytes()
    assert said.isascii() and b"[red]v" in said and b":cat:[bold]" in said and b"-> 0" in said


def in_a_shell(line: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a line of sh, in which S is the command."""
    variables = os.environ | environment | {"S": f"{sys.executable} -m streamingt2v"}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=variables, check=False)


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("$S models > /dev/full", 1, "No space left"),
        ("$S models --json > /dev/full", 1, "No space left"),
        ("$S models | head -1; exit ${PIPESTATUS[0]}", 0, ""),
        ("$S --help >&-", 0, ""),
        ("$S models 2>&- >&-", 0, ""),
        ("$S generate x 2>/dev/full", 2, ""),
        ("$S generate x 2>&-", 2, ""),
        ("$S generate x --json 2>&- <&-", 2, ""),
        ("$S models --x 2>/dev/full >/dev/full", 2, ""),
    ],
)
def test_streams_that_are_full_closed_or_left(line, code, says):
    done = in_a_shell(line)
    assert done.returncode == code and says in done.stderr and "Traceback" not in done.stderr + done.stdout
    assert "Exception ignored" not in done.stderr
    if "--json" in line and code == 2:
        assert json.loads(done.stdout)["exit_code"] == 2


def test_a_closed_stream_gives_its_number_to_no_file():
    begin = "from streamingt2v.cli import streams; streams.prepare()"
    show = f"{begin}; f = open('mine', 'wb'); import os; os.write(2, b'x'); print(f.fileno())"
    done = in_a_shell(f'{sys.executable} -c "{show}" 2>&- <&-')
    assert int(done.stdout) > 2 and Path("mine").read_bytes() == b""


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "A cat \udcff", "-o", "o.mp4"],
        ["generate", PROMPT, "-o", "o.mp4", "--negative-prompt", "\udcff"],
        ["generate", PROMPT, "-o", "o.mp4", "--model", "\udcff"],
        ["generate", PROMPT, "-o", "o.mp4", "--device", "\udcff"],
        ["generate", PROMPT, "-o", "o.mp4", "--base", "\udcff"],
        ["generate", PROMPT, "-o", "o.mp4", "--preset", "\udcff"],
        ["generate", PROMPT, "-o", "o.mp4", "--frames", "\udcff"],
        ["generate", PROMPT, "-o", "o.mp4", "--image", "\udcff"],
        ["extend", "\udcff", PROMPT, "-o", "o.mp4"],
        ["refine", "\udcff", PROMPT, "-o", "o.mp4"],
        ["resume", "\udcff"],
        ["evaluate", "\udcff"],
        ["evaluate", "\udcff", "--metrics", "\udcff"],
        ["plan", "\udcff"],
        ["plan", "--model", "\udcff"],
        ["batch", "\udcff.csv", "--out", "o"],
        ["train", "\udcff", "-o", "o"],
        ["bench", "--lengths", "\udcff"],
        ["\udcff"],
    ],
    ids=lambda words: " ".join(words).encode("ascii", "backslashreplace").decode(),
)
def test_bytes_that_are_no_text_are_refused_in_one_line(words, capsys):
    sys.stderr.reconfigure(errors="backslashreplace")  # as Python has it, other than pytest
    code, _, err = run(capsys, *words)
    lines = [line for line in err.splitlines() if not line.startswith("loading")]
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: ")


def test_files_may_have_names_that_are_no_text(fake_pipeline, capsys):
    name = os.fsdecode(b"v\xff.mp4")
    a_video("v.mp4", 16, 8)
    Path("v.mp4").rename(name)
    for words in (
        ["extend", name, PROMPT, "--frames", 8, "-o", "o.mp4"],
        ["refine", name, PROMPT, "-o", "r.mp4"],
    ):
        assert run(capsys, *words)[0] == 0
    assert (count_frames("o.mp4"), count_frames("r.mp4")) == (24, 16)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: "
            "can't allocate memory: you tried to allocate 9 bytes."
        ),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."),
    ],
)
def test_out_of_memory_advises_what_helps(fake_pipeline, capsys, error):
    def fail(index):
        if index == 1:
            raise error

    fake_pipeline.before_chunk = fail
    code, _, err = run(capsys, "generate", PROMPT, "-o", "o.mp4", "--preset", "full", "--vae-slicing")
    first, second = err.splitlines()[-2:]
    assert code == 1 and "Traceback" not in err and "--width" not in err
    assert (
        first.startswith("error: out of memory: ") and "--preset preview" in first and "--vae-tiling" in first
    )
    assert "--vae-slicing" not in first and "--offload" not in first and "streamingt2v resume" in second
    fake_pipeline.before_chunk = lambda index: None
    assert main(resume_line(err)) == 0 and count_frames("o.mp4") == 80


def test_out_of_memory_is_known_by_its_cause_and_nothing_else():
    wrapped = RunError("cannot load")
    wrapped.__cause__ = MemoryError()
    assert (
        is_out_of_memory(wrapped)
        and not is_out_of_memory(RuntimeError("shapes differ"))
        and not is_out_of_memory(OSError(28, "full"))
    )


def test_every_way_out_of_memory_is_a_way():
    config, request = ModelConfig("m", 32, 48, 8), Request(PROMPT)
    for device, savings in (
        ("cuda", Savings()),
        ("cuda", Savings(offload="model")),
        ("cpu", Savings(engine="openvino")),
        ("cpu", Savings()),
    ):
        for word in ways_out(device, "float32", savings, request, config).replace(",", "").split():
            assert word != f"--offload {savings.offload}" and word not in ("--width", "--height")
    assert "--offload group" in ways_out("cuda", "float32", Savings(offload="model"), request, config)
    assert "--offload" not in ways_out("cpu", "float32", Savings(), request, config)
    assert "--dtype" not in ways_out("cuda", "bfloat16", Savings(), request, config)


def test_why_a_path_is_no_file_is_told(fake_pipeline, capsys):
    os.mkfifo("pipe.mp4")
    Path("folder").mkdir()
    a_video("v.mp4", 8, 8)
    for path, says in (
        ("folder", "is a folder"),
        ("pipe.mp4", "is a pipe or device"),
        ("/dev/null", "is a pipe or device"),
        ("~/v.mp4", "only a shell knows ~"),
        ("http://x/v.mp4", "addresses are not followed"),
    ):
        for words in (
            ["extend", path, PROMPT, "-o", "o.mp4"],
            ["refine", path, PROMPT, "-o", "o.mp4"],
            ["evaluate", path],
            ["generate", PROMPT, "-o", "o.mp4", "--image", path],
        ):
            code, _, err = run(capsys, *words)
            assert code == 2 and says in err, (words, err)
    for path, says in (
        ("~/o.mp4", "only a shell knows ~"),
        ("s3://b/o.mp4", "addresses are not followed"),
        ("v.mp4/o.mp4", "v.mp4 is a file"),
        ("new/o.mp4", "mkdir -p new"),
    ):
        code, _, err = run(capsys, "generate", PROMPT, "-o", path)
        assert code == 2 and says in err and ("mkdir" in err) == (path == "new/o.mp4"), err


def test_a_terminal_is_not_given_the_control_characters_of_a_name(fake_pipeline, capsys):
    name = "\x1b[31mred\x07.mp4"
    a_video(name, 8, 8)
    for words in (["evaluate", name, "--metrics", "flicker"], ["extend", f"no{name}", PROMPT, "-o", "o.mp4"]):
        _, out, err = run(capsys, *words)
        assert "\x1b" not in out + err and "\x07" not in out + err and "\\x1b[31mred" in out + err
    show = Screen()
    show.note(f"note: {name}")
    assert capsys.readouterr().err == "note: \\x1b[31mred\\x07.mp4\n"
