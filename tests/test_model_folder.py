"""Model folders: saved and loaded again, saved in part, damaged."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from streamingt2v import LongVideoPipeline, Request
from streamingt2v.errors import ModelError
from toy import collect

PROMPT = "A cat running on the street"


@pytest.fixture(scope="module")
def pipe(toy) -> LongVideoPipeline:
    return LongVideoPipeline.from_pretrained(toy)


def test_saved_and_loaded_again_gives_the_same_video(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "copy")
    assert not any(
        "_name_or_path" in path.read_text() for path in (tmp_path / "copy").glob("*/config.json")
    ), "it names another folder"
    again = LongVideoPipeline.from_pretrained(tmp_path / "copy")
    request = Request(PROMPT, 24, preset="full")
    assert np.array_equal(collect(again.stream(request)), collect(pipe.stream(request)))


def test_saving_leaves_the_weights_in_memory_alone(tmp_path, toy):
    pipe = LongVideoPipeline.from_pretrained(toy)
    unet = pipe.components.backbone.unet
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter += 1e-6  # what float16 cannot hold
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    pipe.save_pretrained(tmp_path / "half")
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
    pipe.save_pretrained(tmp_path / "single", dtype=torch.float32)
    again = LongVideoPipeline.from_pretrained(tmp_path / "single").components.backbone.unet.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in again.items())


def test_a_save_that_fails_changes_nothing(pipe, tmp_path, monkeypatch):
    there = tmp_path / "there"
    pipe.save_pretrained(there)
    (there / "README.md").write_text("mine")
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    monkeypatch.setattr(
        type(pipe.components.backbone.image_tokens), "save_config", lambda self, folder: 1 / 0
    )
    for folder in (there, tmp_path / "new"):
        with pytest.raises(ZeroDivisionError):
            pipe.save_pretrained(folder)
    assert list(tmp_path.iterdir()) == [there]
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before
    monkeypatch.undo()
    pipe.save_pretrained(there, dtype=torch.float32)
    assert (there / "README.md").read_text() == "mine"
    assert LongVideoPipeline.from_pretrained(there).components.backbone.unet.dtype == torch.float32


@pytest.mark.parametrize("name", ["model.json", "vocabulary.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("content", ["{", "5", "[]"])
def test_a_broken_file_is_named(toy, tmp_path, name, content):
    copy = shutil.copytree(toy, tmp_path / "model")
    (copy / name).write_text(content)
    with pytest.raises(ModelError, match=name):
        LongVideoPipeline.from_pretrained(copy)


@pytest.mark.parametrize(
    "part, wrong",
    [
        ("extend", {"overlap": 16}), ("extend", {"overlap": 0}), ("extend", {"steps": 0}),
        ("extend", {"eta": 2}),
        ("extend", {"frames": "16"}), ("refine", {"overlap": 16}), ("refine", {"strength": 0}),
        ("refine", {"guidance_scale": -1}),
        ("refine", {"form": "both"}), ("refine", {"blend": "soft"}), ("refine", {"law": "mine"}),
        ("refine", {"splice": ""}),
        ("refine", {"shared_noise": 1}), ("refine", {"batch": 0}),
        ("", {"height": 33}), ("", {"width": 0}), ("", {"fps": 0}), ("", {"height": 36}), ("", {"colour": 1}),
    ],
)  # fmt: skip
def test_a_model_with_values_that_make_no_sense_is_refused(toy, tmp_path, part, wrong):
    copy = shutil.copytree(toy, tmp_path / "model")
    values = json.loads((copy / "model.json").read_text())
    (values[part] if part else values).update(wrong)
    (copy / "model.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="model"):
        LongVideoPipeline.from_pretrained(copy)


def test_the_weights_of_a_folder_are_all_needed(toy, tmp_path):
    for part in ("unet", "cam", "vae", "tokenizer", "scheduler", "image_tokens"):
        copy = shutil.copytree(toy, tmp_path / part)
        shutil.rmtree(copy / part)
        with pytest.raises(ModelError, match=part):
            LongVideoPipeline.from_pretrained(copy)
