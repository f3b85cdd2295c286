"""`train` on a folder of anybody's videos: memories and a student of a model, resumed as if never stopped,
and whole models at the end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from commands import run
from lab.tiny import base as lab_base
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.config import ModelConfig
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.train.distill import DistillTask
from streamingt2v.train.memory import MemoryTask
from streamingt2v.train.recipes import RECIPES, run_recipe
from streamingt2v.video.writer import write_video
from toy import write_toy_model
from toy_training import weights

LOOP = {"batch": 2, "seed": 5, "log_every": 1, "save_every": 100, "warmup": 2, "precision": "no", "steps": 2}
OWN = {
    "cam": {"reach": 4},
    "apm": {"reach": 4, "drift": 0.1},
    "distill": {"videos": 1, "chunks": 2, "student_steps": 2, "still": 0.0},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A toy whose sampler draws no noise, so that it can be distilled."""
    folder = write_toy_model(tmp_path_factory.mktemp("model") / "toy")
    own = ModelConfig.load(folder)
    replace(own, extend=replace(own.extend, eta=0.0, steps=4)).save(folder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (24, 8, 8, 3), np.uint8)
        write_video(
            folder / f"{number}.mp4", (np.kron(frame, np.ones((4, 4, 1), np.uint8)) for frame in noise), 8
        )
        (folder / f"{number}.txt").write_text(f"a cat running, take {number}")
    return folder


@pytest.fixture(autouse=True)
def no_samples(monkeypatch) -> None:
    """They take longer than the toys' steps; the laboratory's recipes draw them in their tests."""
    for task in (MemoryTask, DistillTask):
        monkeypatch.setattr(task, "sample", lambda *_: None)


def trained(
    name: str, model: Path, clips: Path, out: Path, stop_after: int | None = None, **more: object
) -> Path:
    run_recipe(
        RECIPES[name], out, {"model": str(model), "data": clips, **OWN[name], **more}, LOOP, stop_after
    )
    return out / "model"


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_and_resumed_equals_never_stopped_and_leaves_a_whole_model(name, model, clips, tmp_path):
    whole = trained(name, model, clips, tmp_path / "whole")
    for _ in range(2):
        stopped = trained(name, model, clips, tmp_path / "stopped", stop_after=1)
    one, other, before = weights(whole), weights(stopped), weights(model)
    assert one.keys() == other.keys() == before.keys() and all(
        torch.equal(one[key], other[key]) for key in one
    )
    changed = {key for key in one if not torch.equal(one[key].float(), before[key].float())}
    kinds = {
        "cam": ("cross_attention_merger", "cam."),
        "apm": ("cross_attention_merger", "cam.", ".attn2.", "image_tokens."),
    }
    assert changed and (
        name == "distill" or all(any(part in key for part in kinds[name]) for key in changed)
    ), "the base was touched"
    chunks = list(LongVideoPipeline.from_pretrained(whole).stream(Request("a cat running", 20)))
    assert sum(len(chunk.frames) for chunk in chunks) == 20
    assert ModelConfig.load(whole).extend.guidance_scale == (1.0 if name == "distill" else 3.0)


def test_memories_are_begun_on_a_pipeline_of_diffusers(model, clips, tmp_path):
    """The pipeline is as published: without memories, without an image encoder,
    with a sampler that predicts noise."""
    pipeline = tmp_path / "pipeline"
    for part in ("vae", "text_encoder", "tokenizer"):
        (pipeline / part).parent.mkdir(exist_ok=True)
        (pipeline / part).symlink_to(model / part)
    (pipeline / "model_index.json").write_text(json.dumps({"_class_name": "TextToVideoSDPipeline"}))
    StreamingUNet3D.from_pretrained(model / "unet").stock().save_pretrained(pipeline / "unet")
    scheduler = {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "clip_sample": False,
    }
    (pipeline / "scheduler").mkdir()
    (pipeline / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    new = {"head_dim": 16, "image_tokens": 2, "encoder_steps": 1}
    with pytest.raises(RequestError, match="image_encoder"):
        trained("cam", pipeline, clips, tmp_path / "none", **new)
    made = trained("cam", pipeline, clips, tmp_path / "out", image_encoder=model / "image_encoder", **new)
    pipe = LongVideoPipeline.from_pretrained(made)
    assert len(next(pipe.stream(Request("a cat running", 16, num_inference_steps=1))).frames) == 16
    before, after = (
        weights(pipeline / "unet"),
        {key: value for key, value in weights(made).items() if key.startswith("unet.")},
    )
    assert all(torch.equal(after[key], value) for key, value in before.items()) and len(after) > len(before)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda folder: folder / "nowhere", "model"),
        (
            lambda folder: (
                lab_base.build_unet((16, 32), 4, 32, head_dim=16).save_pretrained(folder / "unet") or folder
            ),
            "model",
        ),
    ],
)
def test_what_is_no_model_is_said_before_anything_is_written(spoil, named, clips, tmp_path):
    with pytest.raises(RequestError) as raised:
        trained("cam", spoil(tmp_path), clips, tmp_path / "out")
    assert raised.value.argument == named and not (tmp_path / "out").exists()


def test_another_recipe_does_not_resume_and_the_command_goes_the_whole_way(model, clips, tmp_path, capsys):
    words = ("train", "cam", "--model", model, "--data", clips, "-o", tmp_path / "out", "--json", "-q")
    settings = [
        word
        for name, value in (LOOP | OWN["cam"] | {"steps": 1}).items()
        for word in ("--set", f"{name}={value}")
    ]
    code, out, _ = run(capsys, *words, *settings)
    assert (
        code == 0
        and json.loads(out)["model"] == str(tmp_path / "out" / "model")
        and (tmp_path / "out" / "model").is_dir()
    )
    with pytest.raises(ModelError, match="another recipe"):
        trained("apm", model, clips, tmp_path / "out")
