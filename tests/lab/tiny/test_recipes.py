"""Every recipe for a few steps at toy size: stopped and resumed it does what a run never stopped does,
and its exports assemble."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.tiny import assemble, base, recipes, refiner, rival, vae
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.metrics.eyes import load_text_projection
from streamingt2v.train import draws, memory
from streamingt2v.train.distill import DistillTask
from streamingt2v.train.memory import MemoryTask
from toy_training import (
    LOOP,
    TEXT,
    assert_equal_up_to_rounding,
    gradients,
    run_in_two_processes,
    settings,
    weights,
)

SHORT = {**LOOP, "steps": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """All recipes run without a stop, 2 steps each, in the order in which they need each other."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for module in (base, memory, rival):
            patch.setattr(module, "SAMPLE_STEPS", 1)
        train_all(root)
    return root


def train_all(root: Path) -> None:
    for name in recipes.RECIPES:
        if name == "distill":  # it needs a whole model
            parts = (root / part for part in ("text", "vae", "apm", "refiner"))
            assemble.assemble(assemble.AssembleConfig(*parts), root / "model")
        recipes.run_recipe(name, root / name, settings(name, root), SHORT)


@pytest.fixture
def no_pictures(trained, monkeypatch) -> None:
    """Draw no samples: `trained` has them, and they take longer than the toys' steps."""
    for task in (base.BaseTask, MemoryTask, refiner.RefinerTask, rival.RivalTask, vae.VaeTask, DistillTask):
        monkeypatch.setattr(task, "sample", lambda *_: None)


def test_there_are_pictures_of_what_was_learnt(trained):
    assert all(
        (trained / name / "samples" / "000002.png").stat().st_size > 200
        for name in recipes.RECIPES
        if name not in ("text", "judge")
    )


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_stopped_and_resumed_equals_never_stopped(name, trained, tmp_path):
    for _ in range(2):
        recipes.run_recipe(name, tmp_path / name, settings(name, trained), SHORT, stop_after=1)
    resumed, whole = weights(tmp_path / name), weights(trained / name)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_metrics_have_a_line_for_every_logged_step(name, trained):
    lines = [json.loads(line) for line in (trained / name / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["loss"] == line["loss"] and line["seconds_per_step"] > 0 for line in lines)


def test_the_base_is_not_touched_by_its_memories(trained):
    base = {k.split("/")[1]: v for k, v in weights(trained / "base" / "unet").items()}
    for name in ("cam", "apm"):
        after = {k.split("/")[1]: v for k, v in weights(trained / name / "unet").items()}
        assert all(torch.equal(after[key], value) for key, value in base.items())


def test_cam_trains_the_mergers_and_apm_the_mixers_too(trained):
    cam, apm = (weights(trained / name / "unet") for name in ("cam", "apm"))
    mixers, mergers = ([k for k in cam if part in k] for part in (".attn2.alpha", "cross_attention_merger"))
    assert all(not cam[k].any() for k in mixers) and any(apm[k].any() for k in mixers)
    assert all(cam[k].any() for k in mergers if "proj_out" in k)


@pytest.mark.usefixtures("no_pictures")
def test_a_recipe_goes_on_from_weights_in_half_precision(trained, tmp_path):
    """The shipped weights are so, in a folder where the memories are joined on to the base."""
    model = tmp_path / "model"
    assemble.assemble(assemble.AssembleConfig(trained / "text", trained / "vae", trained / "apm"), model)
    base = {**settings("base", trained), "text": model, "init": model}
    recipes.run_recipe("base", tmp_path / "base", base, {**LOOP, "steps": 1, "lr": 0.0})
    before, after = weights(model / "unet"), weights(tmp_path / "base")
    assert all(torch.equal(before[key].float(), value) for key, value in after.items())
    cam = {**settings("cam", trained), "init": trained / "apm"}
    recipes.run_recipe("cam", tmp_path / "cam", cam, {**LOOP, "steps": 1, "lr": 0.0})
    taken = [
        key
        for key in weights(tmp_path / "cam")
        if "cross_attention_merger" in key or "controlnet_cond_embedding" in key
    ]
    old, new = weights(trained / "apm"), weights(tmp_path / "cam")
    assert taken and all(torch.equal(old[key], new[key]) for key in taken)


def test_the_projection_of_the_text_is_trained_alone(trained, tmp_path):
    only = {"init": trained / "text", "only_projection": True}
    recipes.run_recipe("text", tmp_path / "text", only, {**LOOP, "steps": 3, "batch": 8, "lr": 0.01})
    before, after = weights(trained / "text"), weights(tmp_path / "text")
    assert before.keys() == after.keys()
    assert [key for key in before if not torch.equal(before[key], after[key])] == [
        "text.text_projection/weight"
    ]
    with pytest.raises(RequestError, match="only_projection"):
        recipes.run_recipe("text", tmp_path / "none", {"only_projection": True}, LOOP)


def train_in_two_processes(name: str, out: Path, trained: Path, **more: object) -> None:
    words = [name, "-o", str(out), "-q"]
    for key, value in {**settings(name, trained), **SHORT}.items():
        words += ["--set", f"{key}={','.join(map(str, value)) if isinstance(value, tuple) else value}"]
    words += [word for key, value in more.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    run_in_two_processes(["-m", "lab.tiny", *words])


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", ["text", "base", "judge"])
def test_two_processes_take_the_steps_of_one_and_one_goes_on_with_them(name, trained, tmp_path):
    """Contrast over all samples; a process without a share (a batch of one picture);
    shares of different size (three pictures)."""
    recipes.run_recipe(name, tmp_path / "one", settings(name, trained), SHORT, stop_after=1)
    train_in_two_processes(name, tmp_path / "two", trained, stop_after=1)
    assert_equal_up_to_rounding(gradients(tmp_path / "two"), gradients(tmp_path / "one"))
    recipes.run_recipe(name, tmp_path / "two", settings(name, trained), SHORT)
    assert_equal_up_to_rounding(gradients(tmp_path / "two"), gradients(trained / name))
    lines = {
        out: [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (tmp_path / "two", trained / name)
    }
    losses = [[line["loss"] for line in of] for of in lines.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4), "a metric is not that of the whole batch"


def test_contrast_needs_a_batch_that_the_processes_can_share(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RequestError, match="batch=2"):
        recipes.run_recipe("text", tmp_path, TEXT, {**LOOP, "steps": 1})


def test_accelerates_own_ways_to_split_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ModelError, match="shard=yes"):
        recipes.run_recipe("text", tmp_path, TEXT, {**LOOP, "steps": 1})


@given(st.integers(1, 100), st.integers(1, 16))
def test_every_sample_is_computed_by_one_process(total, processes):
    shares = [draws.share(total, rank, processes) for rank in range(processes)]
    assert [sample for mine in shares for sample in mine] == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_sample_has_its_noise_whatever_else_is_in_the_batch():
    like, whole = torch.zeros(4, 3, 5), draws.Noise(draws.generators(5, 2, range(4)))
    part = draws.Noise(draws.generators(5, 2, range(2, 4)))
    for call in (
        lambda n, x: n.normal(x),
        lambda n, x: n.uniform(x),
        lambda n, x: n.integers(1000, x),
        lambda n, x: n.normal(x),
    ):
        values = call(whole, like)
        assert len(values.unique()) > 1 and torch.equal(values[2:], call(part, like[2:]))


def test_another_size_does_not_resume(trained):
    with pytest.raises(ModelError, match=r"another recipe or size"):
        recipes.run_recipe("judge", trained / "vae", settings("judge", trained), {**LOOP, "steps": 6})


def test_apm_goes_on_from_cam(trained, tmp_path):
    with pytest.raises(RequestError, match="cam"):
        recipes.run_recipe("apm", tmp_path, settings("cam", trained), {**LOOP, "steps": 1})
    with pytest.raises(RequestError, match="init"):
        recipes.run_recipe(
            "apm", tmp_path, {**settings("apm", trained), "init": trained / "apm"}, {**LOOP, "steps": 1}
        )


def test_the_exports_assemble_to_a_model_that_runs(trained):
    assert load_text_projection(trained / "model") is not None
    pipe = LongVideoPipeline.from_pretrained(trained / "model")
    chunks = list(
        pipe.stream(Request("A cat running on the street", 18, num_inference_steps=1, preset="full"))
    )
    assert sum(len(chunk.frames) for chunk in chunks) == 18
