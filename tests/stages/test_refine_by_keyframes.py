"""I2VGen-XL as stage 3: keyframes first, windows spliced at every step;
with the real pipeline at toy size."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy_pipelines
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.checkpoints.opening import opened
from streamingt2v.cli import main
from streamingt2v.config.refine import RefineByConfig
from streamingt2v.errors import ModelError
from streamingt2v.external.steering import Hand, SplicedWindow, late
from streamingt2v.runs.state import pack_state, unpack_state
from streamingt2v.samplers.noise import integer
from streamingt2v.stages.refine_by_keyframes import KeyframeRefineStage
from streamingt2v.video.piece import Piece
from streamingt2v.video.reader import read_video
from toy import generate_line

PROMPT = "A cat running on the street"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("models")
    toy_pipelines.i2vgen_xl(home / "i2vgen")
    toy_pipelines.streaming_svd(home / "svd")
    with_refiner(home)
    Image.new("RGB", (32, 32), (200, 30, 30)).save(home / "red.png")
    return home


def with_refiner(home: Path, **values) -> Path:
    config = json.loads((home / "svd" / "model.json").read_text())
    config["refine_by"] = {
        "pipeline": "../i2vgen",
        "frames": 6,
        "overlap": 2,
        "steps": 3,
        "strength": 0.7,
        **values,
    }
    (home / "svd" / "model.json").write_text(json.dumps(config))
    return home / "svd"


@pytest.fixture(scope="module")
def pipe(home):
    with opened(str(home / "i2vgen"), "cpu", torch.float32) as pipe:
        yield pipe


class Watched:
    """The pipeline, and what it was called with."""

    def __init__(self, pipe):
        self.__dict__["pipe"], self.__dict__["calls"] = pipe, []

    def __getattr__(self, name):
        return getattr(self.pipe, name)

    def __setattr__(self, name, value):
        setattr(self.pipe, name, value)

    def __call__(self, image, **named):
        self.calls.append({"image": np.asarray(image), "scheduler": self.pipe.scheduler, **named})
        return self.pipe(image=image, **named)


def refined(pipe, total: int, pieces: int = 5, state=None, **changes) -> tuple[list[Piece], list[dict]]:
    """A noisy video of `total` frames refined, from pieces of so many frames."""
    watched = Watched(pipe)

    @contextmanager
    def open_pipeline():
        yield watched

    frames_TCHW = torch.rand(total, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    done = 0 if state is None else int(state["done"])
    parts = [
        Piece(part, {"done": done + stop}, done + stop >= total)
        for part, stop in _parts(frames_TCHW[done:], pieces)
    ]
    config = RefineByConfig(
        "", **{"frames": 6, "overlap": 2, "scale": 2, "steps": 3, "strength": 0.7, **changes}
    )
    stage = KeyframeRefineStage(open_pipeline, config, 0, total, (16, 16), "", None, torch.device("cpu"))
    return list(stage.stream(parts, lambda frame: f"frame {frame}", state)), watched.calls


def _parts(frames_TCHW, length):
    stop = 0
    for part in frames_TCHW.split(length):
        stop += len(part)
        yield part, stop


@pytest.mark.parametrize(("total", "windows"), [(1, 1), (6, 1), (7, 2), (14, 3)])
def test_every_frame_comes_once_after_a_pass_over_the_keyframes(pipe, total, windows):
    """First the first frames of all windows, as one short video after the first frame;
    then window by window after its keyframe."""
    pieces, calls = refined(pipe, total)
    frames_TCHW = torch.cat([piece.frames_TCHW for piece in pieces])
    assert frames_TCHW.shape == (total, 3, 16, 16) and frames_TCHW.abs().max() <= 1
    assert [piece.final for piece in pieces] == [False] * (windows - 1) + [True]
    assert [call["num_frames"] for call in calls] == [windows, *[min(6, total)] * windows]
    pictures = [call["image"] for call in calls[1:]]
    assert all(not np.array_equal(a, b) for a, b in pairwise(pictures)), (
        "each window has a picture of its own"
    )
    assert {call["target_fps"] for call in calls} == {38}
    assert len(calls[0]["scheduler"].timesteps) == 2, "int(3 * 0.7) steps"


def test_keyframes_are_made_in_groups(pipe):
    _, calls = refined(pipe, 18, keyframes=3)
    assert [call["num_frames"] for call in calls] == [3, 6, 6, 6, 1, 6]


def test_after_every_step_the_overlap_is_the_window_before_up_to_the_cut(pipe, monkeypatch):
    hands: list[SplicedWindow] = []
    init = SplicedWindow.__init__
    monkeypatch.setattr(SplicedWindow, "__init__", lambda self, *a: (init(self, *a), hands.append(self))[0])
    _, calls = refined(pipe, 10)
    left, right = (hand.made for hand in hands[1:])
    assert left.keys() == right.keys()
    for step in left:
        cut = integer(0, "blend", 1, step, 2)
        assert [torch.equal(left[step][4 + j], right[step][j]) for j in range(2)] == [
            j < cut for j in range(2)
        ]
    assert {integer(0, "blend", 1, step, 2) for step in range(20)} == {0, 1}, (
        "as published: never all of them"
    )
    latents = [call["latents"] for call in calls[1:]]
    assert torch.allclose(latents[0][:, :, 4:], latents[1][:, :, :2], atol=1e-5), (
        "both start from the same noise"
    )


def test_it_starts_at_the_strength(pipe):
    """Run the last 29 of 30 steps at strength 0.97 (method.md: StreamingSVD)."""
    scheduler = late(pipe.scheduler, Hand(), 0.97)
    scheduler.set_timesteps(30)
    own = type(pipe.scheduler).from_config(pipe.scheduler.config)
    own.set_timesteps(30)
    assert scheduler.timesteps.tolist() == own.timesteps[1:].tolist()


def test_the_pipelines_own_scheduler_is_put_back(pipe):
    own = pipe.scheduler
    refined(pipe, 2)
    assert pipe.scheduler is own


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_resumed_is_as_if_never_stopped(pipe, kept):
    whole, _ = refined(pipe, 18, keyframes=2)
    rest, _ = refined(pipe, 18, state=unpack_state(pack_state(whole[kept - 1].state)), keyframes=2)
    again = torch.cat([piece.frames_TCHW for piece in [*whole[:kept], *rest]])
    assert torch.equal(again, torch.cat([piece.frames_TCHW for piece in whole]))


def test_the_size_of_the_pieces_has_no_say(pipe):
    a, b = (torch.cat([piece.frames_TCHW for piece in refined(pipe, 11, pieces=size)[0]]) for size in (1, 11))
    assert torch.equal(a, b)


def test_the_whole_trip_from_the_command_line(home, tmp_path, capsys):
    """StreamingSVD with its published enhancer, from a picture to a file."""
    out, before = tmp_path / "out.mp4", (home / "svd" / "model.json").read_text()
    with_refiner(home, height=40, width=48)
    line = generate_line(home / "svd", out, "--image", home / "red.png", "--preset", "full")
    assert main([*line, "--frames", "11", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["frames"], result["height"], result["width"]) == (11, 40, 48)
    assert sum(1 for _ in read_video(out)) == 11
    (home / "svd" / "model.json").write_text(before)


def test_prompt_and_seed_reach_it(home):
    pipe = LongVideoPipeline.from_pretrained(home / "svd")
    request = Request(PROMPT, 2, image=str(home / "red.png"), preset="full")
    plain = next(pipe.stream(request)).frames
    for change in ({"prompt": "A whale floating under water"}, {"negative_prompt": "a horse"}):
        assert not np.array_equal(plain, next(pipe.stream(replace(request, **change))).frames), change


@pytest.mark.parametrize("values", [{"seam": "cut"}, {"keyframes": 0}, {"target_fps": 0}])
def test_settings_that_it_has_not_are_refused(home, values):
    before = (home / "svd" / "model.json").read_text()
    try:
        with pytest.raises(ModelError, match=next(iter(values))):
            LongVideoPipeline.from_pretrained(with_refiner(home, **values)).resolve(
                Request(PROMPT, 2, image=str(home / "red.png"), preset="full")
            )
    finally:
        (home / "svd" / "model.json").write_text(before)
