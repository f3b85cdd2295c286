"""`evaluate` on real files: table, JSON, charts and early refusals."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from constructed import constant_flow, moving
from streamingt2v.cli import evaluate, main
from streamingt2v.metrics import suite
from streamingt2v.metrics.eyes import Eyes
from streamingt2v.metrics.metric import Tools, measure
from streamingt2v.metrics.seams import Grid
from streamingt2v.video.writer import write_video

EYES = Eyes("one way", lambda frame: np.ones(1), lambda prompt: np.ones(1))
CHEAP = "seam,drift,sharpness"
MADE = {"chunk": 16, "overlap": 8, "image": None, "video": None, "num_frames": 30, "prompt": "a cat"}


@pytest.fixture(autouse=True)
def videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(Path("a.mp4"), moving(30), 8, MADE)
    write_video(Path("b.mp4"), np.repeat(moving(1), 20, 0), 8)


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["evaluate", *map(str, arguments)])
    return (code, *capsys.readouterr())


def test_the_command_knows_all_metrics_and_no_other():
    assert tuple(suite.METRICS) == evaluate.NAMES


def test_the_command_knows_what_metrics_use_and_draw():
    for needed, names in (("flow", evaluate.FLOWING), ("eyes", evaluate.SEEING)):
        assert names == {name for name, kind in suite.METRICS.items() if needed in kind.needs}
    setting = suite.Setting(Tools(constant_flow(1, 0), EYES), Grid(16, 8), "a cat")
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    drawn = {
        n
        for n in suite.METRICS
        if n != "cuts" and measure(frames, suite.make_metrics([n], setting), setting.tools).curves
    }
    assert drawn == evaluate.WITH_CURVES


def test_a_table_of_videos_with_their_mean(capsys):
    code, out, _ = run(capsys, "a.mp4", "b.mp4", "--metrics", "sharpness,flicker")
    assert code == 0
    row = next(line for line in out.splitlines() if "sharpness" in line).split()
    assert float(row[3]) == pytest.approx((float(row[1]) + float(row[2])) / 2, abs=1)
    assert "30 frames" in out and "of 2" in out


def test_json_is_one_line_with_null_for_what_is_undefined(capsys):
    code, out, err = run(capsys, "a.mp4", "--metrics", CHEAP + ",repetition", "--json")
    values = json.loads(out)
    (video,) = values["videos"]
    assert code == 0 and video["frames"] == 30 and 0.5 < video["values"]["seam"] < 2
    assert video["values"]["drift_saturation"] in (0, None) and "sharpness" in err
    assert values["means"] == video["values"] and values["curves"] is None


def test_means_leave_out_what_is_not_a_number():
    def report(value: float) -> suite.Report:
        return suite.Report(Path("x.mp4"), 1, suite.Result({"mawe": value}), (), {}, {})

    assert evaluate.means([report(1.0), report(math.inf), report(3.0)]) == {"mawe": 2.0}
    assert math.isnan(evaluate.means([report(math.nan)])["mawe"])


def test_pictures_are_written_and_not_over_others(capsys):
    options = (
        "a.mp4",
        "b.mp4",
        "--metrics",
        CHEAP,
        "--chunk",
        16,
        "--overlap",
        8,
        "--curves",
        "c.png",
        "--slice",
        "s.png",
    )
    assert run(capsys, *options)[0] == 0
    assert Path("c.png").stat().st_size > 1000 and Path("s.png").stat().st_size > 1000
    code, _, err = run(capsys, *options)
    assert code == 2 and "--curves 'c.png': exists" in err
    assert run(capsys, *options, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.mp4"], "VIDEO 'none.mp4': no such file"),
        (["a.mp4", "--metrics", "beauty"], "--metrics 'beauty': no such metric; there are mawe,"),
        (["b.mp4", "--metrics", "seam"], "--metrics 'seam': needs to know where chunks begin"),
        (["b.mp4", "--metrics", "text"], "--metrics 'text': needs the prompt"),
        (["a.mp4", "--metrics", "drift", "--chunk", "16"], "--overlap: give it together with --chunk"),
        (
            ["a.mp4", "--metrics", "drift", "--chunk", "8", "--overlap", "8"],
            "--overlap 8: must be 0 or more and below --chunk 8",
        ),
        (["a.mp4", "--metrics", "anchor", "--clip", "."], "--clip '.': there is no CLIP"),
        (
            ["a.mp4", "--metrics", "drift", "--prompt", "x"],
            "--metrics 'drift': --prompt has no effect with these; leave it out, or add one of text",
        ),
        (["a.mp4", "--metrics", "drift", "--clip", "x"], "--metrics 'drift': --clip has no effect"),
        (
            ["a.mp4", "--metrics", "drift", "--flow-size", "64"],
            "--metrics 'drift': --flow-size has no effect",
        ),
        (["a.mp4", "--metrics", "drift", "--curves", "c.png"], "--metrics 'drift': --curves has no effect"),
        (["a.mp4", "--curves", "c.jpg"], "--curves 'c.jpg': must end in .png"),
    ],
)
def test_wrong_requests_are_said_at_the_door(capsys, arguments, said):
    code, _, err = run(capsys, *arguments)
    assert code == 2 and said in err
    assert not Path("c.jpg").exists()


def test_a_fault_of_the_last_video_is_told_before_the_first_is_read(capsys, monkeypatch):
    monkeypatch.setattr(suite, "measure", lambda *_: pytest.fail("a video was read"))
    code, _, err = run(capsys, "a.mp4", "b.mp4", "--metrics", "seam")
    assert code == 2 and "--metrics 'seam': needs to know where chunks begin" in err


def test_without_a_seam_known_it_is_left_out_with_a_note(capsys, monkeypatch):
    monkeypatch.setattr(suite, "find_spec", lambda name: None)
    code, out, err = run(capsys, "b.mp4")
    assert code == 0 and "note: seam is skipped: it needs to know where chunks begin" in err
    assert "note: mawe is skipped: it needs packages" in err and "anchor" in out and "mawe" not in out
