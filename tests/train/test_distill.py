"""A student's step leads where its teacher's steps lead, on the videos that the teacher makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.tiny import data, diffusion, recipes
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.config import ModelConfig
from streamingt2v.errors import RequestError
from streamingt2v.train.distill import student_chunk, velocity_to
from streamingt2v.train.teacher import Lessons, Teacher, student_scheduler
from streamingt2v.video.piece import to_uint8
from toy import write_toy_model
from toy_networks import randn

PROMPT = "A cat running on the street"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A toy model whose sampler draws no noise, in 4 steps."""
    folder = write_toy_model(tmp_path_factory.mktemp("model") / "toy")
    own = ModelConfig.load(folder)
    replace(own, extend=replace(own.extend, eta=0.0, steps=4)).save(folder)
    return folder


def teacher(model: Path, folder: Path, **changes) -> Teacher:
    return Teacher(
        model,
        data.WorldClips(data.noun_names(12)),
        Lessons(**({"steps": 2, "chunks": 3, "still": 0.5} | changes)),
        folder,
    )


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_the_velocity_leads_in_one_step_to_the_place_asked_for(steps):
    scheduler = student_scheduler(diffusion.make_sampler())
    scheduler.set_timesteps(steps)
    x, wanted = randn(steps, 2, 3, 4, 4), randn(steps, 2, 3, 4, 4, seed=1)
    velocity = velocity_to(x, wanted, scheduler.timesteps, scheduler)
    for k, t in enumerate(scheduler.timesteps):
        reached = scheduler.step(velocity[k : k + 1], t, x[k : k + 1], return_dict=False)[0]
        torch.testing.assert_close(reached, wanted[k : k + 1], atol=2e-5, rtol=1e-4)


def test_videos_made_together_are_those_made_alone(model, tmp_path):
    """One of the three begins with a picture; what is in the folder already is not made again."""
    (tmp_path / "alone").mkdir()
    (tmp_path / "together").mkdir()
    alone, together = (
        teacher(model, tmp_path / "alone", still=0.4),
        teacher(model, tmp_path / "together", still=0.4),
    )
    together.together = 2
    together.video(1)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "together").iterdir()}
    together.prepare(range(4))
    assert len(list((tmp_path / "together").iterdir())) == 4
    assert all((tmp_path / "together" / name).stat().st_mtime_ns == time for name, time in before.items())
    starts = []
    for number in range(4):
        one, same = alone.video(number), together.video(number)
        starts.append(one[0].window_TCHW is not None)
        assert [p.prompt for p in one] == [p.prompt for p in same] and len(one) == len(same)
        for a, b in zip(one, same, strict=True):
            torch.testing.assert_close(a.nodes, b.nodes, atol=1e-3, rtol=1e-3)
            if a.window_TCHW is not None:
                torch.testing.assert_close(a.window_TCHW, b.window_TCHW, atol=1e-3, rtol=1e-3)
                torch.testing.assert_close(a.anchor_CHW, b.anchor_CHW, atol=1e-3, rtol=1e-3)
    assert starts.count(True) == 1


def test_passages_are_the_chunks_that_the_model_makes_itself(model, tmp_path, monkeypatch):
    """The last nodes of a video, decoded, are the frames of the stream with the same noise."""
    from streamingt2v.samplers.noise import mixed_noise
    from streamingt2v.stages import extend

    made = teacher(model, tmp_path)
    passages = made.video(0)
    monkeypatch.setattr(extend, "mixed_noise", lambda seed, stage, *place: mixed_noise(0, "distill", *place))
    request = Request(passages[0].prompt, 32, seed=0, schedule=())
    frames = np.concatenate([chunk.frames for chunk in made.pipe.stream(request)])
    decoded = [made.backbone.decode(passage.nodes[-1:]) for passage in passages]
    shown = to_uint8(torch.cat([decoded[0], *(part[8:] for part in decoded[1:])]))
    assert np.array_equal(shown, frames)


def test_a_kept_video_is_the_one_that_was_made(model, tmp_path):
    first, again = (teacher(model, tmp_path).video(1) for _ in range(2))
    assert len(first) == 2 and all(p.window_TCHW is not None for p in first), "it begins with a picture"
    assert all(
        torch.equal(a.nodes, b.nodes) and torch.equal(a.anchor_CHW, b.anchor_CHW)
        for a, b in zip(first, again, strict=True)
    )
    assert len(list(tmp_path.iterdir())) == 1
    teacher(model, tmp_path, chunks=2).video(1)
    assert len(list(tmp_path.iterdir())) == 2, "videos of other lessons are others"


@pytest.mark.parametrize(
    "wrong, says", [({"steps": 3}, "student_steps"), ({"chunks": 1}, "chunks"), ({"still": 1.0}, "still")]
)
def test_lessons_that_cannot_be_given_are_refused(model, tmp_path, wrong, says):
    with pytest.raises(RequestError, match=says):
        teacher(model, tmp_path, **wrong)


def test_no_videos_at_once_are_refused(model, tmp_path):
    with pytest.raises(RequestError, match="together"):
        Teacher(model, data.WorldClips(data.noun_names(12)), Lessons(2, 2, 0.0), tmp_path, together=0)


def test_a_sampler_that_draws_noise_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"extend\.eta"):
        teacher(write_toy_model(tmp_path / "toy", refiner=False), tmp_path)


def test_a_student_comes_nearer_to_its_teacher_and_is_a_whole_model(model, tmp_path):
    """The chunk that it learned from is, in half the steps, nearer to the teacher's than what the teacher
    itself makes in these."""
    settings = {
        "model": str(model),
        "cache": tmp_path / "videos",
        "student_steps": 2,
        "rank": 4,
        "videos": 1,
        "chunks": 2,
        "still": 0.0,
    }
    loop = {
        "steps": 24,
        "batch": 2,
        "lr": 3e-3,
        "ema": 0.5,
        "warmup": 2,
        "precision": "no",
        "log_every": 24,
        "save_every": 100,
    }
    recipes.run_recipe("distill", tmp_path / "run", settings | {"first_every": 1}, loop)
    pipe, made = (
        LongVideoPipeline.from_pretrained(tmp_path / "run" / "model"),
        teacher(model, tmp_path / "videos", chunks=2, still=0.0),
    )
    passage = made.video(0)[0]
    wanted = made.backbone.decode(passage.nodes[-1:])
    errors = [
        (student_chunk(net, made, passage) - wanted).abs().mean()
        for net in (pipe.components.backbone, made.backbone)
    ]
    assert errors[0] < 0.9 * errors[1]
    own = pipe.config.extend
    assert (own.steps, own.guidance_scale, pipe.config.guidance) == (
        2,
        1.0,
        False,
    ) and pipe.config.refine is not None
    frames = next(pipe.stream(Request(PROMPT, 16, seed=5))).frames
    again = tmp_path / "again"
    pipe.save_pretrained(again)
    kept = next(LongVideoPipeline.from_pretrained(again).stream(Request(PROMPT, 16, seed=5))).frames
    assert np.abs(frames.astype(float) - kept).mean() < 1, "weights are kept in half precision"
