"""Steps that a pipeline cannot make are refused before weights load; one that fails at work is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import toy_bases
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.cli import main
from streamingt2v.config.refine import RefineByConfig
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.external.as_model import pipeline_model, read_model
from streamingt2v.resolve import resolve
from toy import generate_line

PROMPT = "A cat running on the street"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("pipelines")
    for name in ("wan", "skyreels_df"):
        toy_bases.model_folder(name, home / name, (9, 5))
    return home


@pytest.mark.parametrize(
    ("kind", "scheduler", "steps", "message"),
    [
        ("MochiPipeline", None, 1, "MochiPipeline makes 2 steps or more"),
        ("LTX2DFRPipeline", None, 4, "LTX2DFRPipeline has a fixed list of steps; leave it out"),
        (
            "TextToVideoSDPipeline",
            {"scheduler": "DDIMScheduler", "num_train_timesteps": 50},
            51,
            "cannot make them.*51",
        ),
        (
            "TextToVideoSDPipeline",
            {"scheduler": "LCMScheduler"},
            60,
            "LCMScheduler of TextToVideoSDPipeline.*60",
        ),
    ],
)  # fmt: skip
def test_steps_that_a_pipeline_cannot_make_are_refused_before_weights_load(
    tmp_path, kind, scheduler, steps, message
):
    config = pipeline_model(toy_bases.folder_of(tmp_path, kind, **(scheduler or {})))
    assert resolve(config, Request(PROMPT, 9)).extend_by is not None
    with pytest.raises(RequestError, match=f"num_inference_steps={steps}: .*{message}"):
        resolve(config, Request(PROMPT, 9, num_inference_steps=steps))
    own = replace(config, extend_by=replace(config.extend_by, steps=steps))
    with pytest.raises(ModelError, match=message):
        resolve(own, Request(PROMPT, 9))


def test_steps_of_a_first_chunk_and_of_a_refiner_are_checked_too(tmp_path, home):
    mochi = toy_bases.folder_of(tmp_path, "MochiPipeline")
    refining = replace(read_model(home / "wan")[1], refine_by=RefineByConfig(str(mochi), steps=2, strength=1))
    video = tmp_path / "x.mkv"
    video.touch()
    asked = Request(PROMPT, None, preset="full", refine=str(video))
    assert resolve(refining, asked).refine_by.steps == 2
    for config, request in (
        (refining, replace(asked, num_inference_steps=1)),
        (read_model("tiny")[1], Request(PROMPT, 9, base=str(mochi), num_inference_steps=1)),
    ):
        with pytest.raises(RequestError, match="num_inference_steps=1: MochiPipeline makes 2 steps or more"):
            resolve(config, request)


def test_a_pipeline_that_fails_is_named_with_what_it_said(home, tmp_path, monkeypatch, capsys):
    from diffusers import WanPipeline

    def fails(self, *arguments, **named):
        return 1 // 0

    monkeypatch.setattr(WanPipeline, "prepare_latents", fails)
    command = generate_line(home / "wan", tmp_path / "a.mp4", "--frames", 9, "--quiet")
    assert main(command) == 1
    said = "WanPipeline cannot make a video with these settings: ZeroDivisionError: integer division"
    assert said in capsys.readouterr().err


def test_what_a_callback_raises_is_not_taken_for_the_pipelines_error(home):
    def wrong(step: int, steps: int, stage: str) -> None:
        raise ValueError("mine")

    for name in ("wan", "skyreels_df"):
        with pytest.raises(ValueError, match="mine"):
            next(LongVideoPipeline.from_pretrained(home / name).stream(Request(PROMPT, 9), on_step=wrong))
