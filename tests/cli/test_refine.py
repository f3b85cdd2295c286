"""`refine`, `extend` and schedules around a fake pipeline."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from commands import JSON_FIELDS, PROMPT, a_video, interrupt_at, listing, resume_line, run
from streamingt2v import ray_backend as distributed
from streamingt2v.config import Request
from streamingt2v.config.schedule import read_schedule
from streamingt2v.errors import RequestError
from streamingt2v.runs.run import RunFolder
from streamingt2v.video.reader import count_frames, probe_video, read_video
from streamingt2v.video.writer import read_metadata

pytestmark = pytest.mark.usefixtures("in_empty_folder")


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
    asked = "--frames 9 --form joint --strength 0.4 --steps 3 --guidance-scale 2.5".split()
    asked += "--negative-prompt dull --seed 7 --schedule story.txt".split()
    Path("story.txt").write_text("4: A dog on the beach")
    assert run(capsys, "refine", "in.mp4", PROMPT, *asked, "--run-dir", "kept")[0] == 0
    with RunFolder.open("kept") as kept:
        path = str(Path("in.mp4").absolute())
        wanted = Request(
            PROMPT, 9, 7, negative_prompt="dull", preset="full", num_inference_steps=3, guidance_scale=2.5
        )
        wanted = dataclasses.replace(wanted, refine=path, form="joint", strength=0.4)
        assert kept.request == dataclasses.replace(wanted, schedule=((4, "A dog on the beach"),))


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
        (["in.mp4", "--workers", 0], "'--workers': Input should be greater than or equal to 1"),
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
    assert code == 2 and "--workers 2: workers share refining" in err


def test_extend_gives_the_input_and_then_new_frames(fake_pipeline, capsys):
    source = a_video("in.mp4", 13, fps=5)
    code, out, _ = run(capsys, "extend", source, PROMPT, "--frames", 10, "-o", "out.mp4", "--json")
    values = json.loads(out)
    assert code == 0 and values["frames"] == 23 and values["fps"] == 5 and probe_video("out.mp4").fps == 5
    before, after = list(read_video(source)), list(read_video("out.mp4"))
    assert len(after) == 23
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(before, after, strict=False)) < 3


@pytest.mark.parametrize(
    ("options", "paces"),
    [([], "30 its motion plays 1 times, the new motion 3.75"), (["--fps", 8], "8 its motion plays 0.267")],
)
def test_a_source_of_another_rate_is_told(fake_pipeline, capsys, options, paces):
    code, _, err = run(
        capsys, "extend", a_video("in.mp4", 13, fps=30), PROMPT, "--frames", 8, "-o", "out.mp4", *options
    )
    assert code == 0 and "has 30 frames a second, the model makes 8" in err and paces in err
    code, _, err = run(
        capsys, "extend", a_video("in.mp4", 13, fps=8), PROMPT, "--frames", 8, "-o", "same.mp4"
    )
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


WRONG_SCHEDULES = [
    b"",
    b"A cat",
    b"x: A cat",
    b"-1: A cat",
    b"{",
    b"[1, 2]",
    b'{"0": 5}',
    b'[["a", "b"]]',
    b'[[1.5, "b"]]',
    b"\xff\xfe",
]


@pytest.mark.parametrize("content", WRONG_SCHEDULES)
def test_a_wrong_schedule_is_refused(content):
    Path("schedule").write_bytes(content)
    with pytest.raises(RequestError, match="schedule"):
        read_schedule(Path("schedule"))


def test_a_schedule_reaches_the_request_and_its_words_are_told(fake_pipeline, capsys):
    Path("story.txt").write_text("16: A lion on the beach\n")
    code, _, err = run(
        capsys, "generate", PROMPT, "--schedule", "story.txt", "--run-dir", "kept", "-o", "out.mp4"
    )
    assert code == 0 and "'lion'" in err
    with RunFolder.open("kept") as kept:
        assert kept.request.schedule == ((16, "A lion on the beach"),)
