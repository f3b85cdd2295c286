"""Test plans: counts from headers and configurations, and refusals with remedies."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import toy_pipelines
from lab.benchmarks.published import skeleton
from streamingt2v.checkpoints.load import load, networks_of
from streamingt2v.config import EMBEDDED, ModelConfig, RefineByConfig, Request, find_model
from streamingt2v.config.runtime import Savings
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.estimate import plan as planning
from streamingt2v.estimate.duration import count_steps
from streamingt2v.estimate.facts import parameters_of
from streamingt2v.estimate.flops import decode_flops, encode_flops, refine_step_flops, step_flops
from streamingt2v.estimate.plan import plan
from streamingt2v.estimate.published import names, published
from streamingt2v.resolve import resolve

TINY = find_model(EMBEDDED[0])


def asked(*values, **named):
    return resolve(ModelConfig.load(TINY), Request("a cat", *values, **named))


def made(frames=240, preset="full", dtype="float32", **named):
    return plan(TINY, asked(frames, preset=preset), name="tiny", device="cpu", dtype=dtype, **named)


def numbers(network):
    return sum(x.numel() for x in network.state_dict().values() if x.is_floating_point())


@pytest.mark.parametrize("preset", ["preview", "full"])
def test_weights_are_those_that_loading_holds(preset):
    components = load(TINY, refiner=preset == "full")
    every, vae = sum(map(numbers, networks_of(components).values())), numbers(components.backbone.vae)
    whole, half = (made(preset=preset, seconds_per_step=1.0, dtype=dtype) for dtype in ("float32", "float16"))
    assert (whole.parameters, whole.weights) == (every, 4 * every)
    assert half.weights == 2 * (every - vae) + 4 * vae  # the autoencoder stays in float32


@pytest.mark.parametrize(
    ("frames", "image", "steps"),
    [
        (1, False, 1),
        (16, False, 1),
        (17, False, 2),
        (24, False, 2),
        (25, False, 3),
        (1, True, 0),
        (2, True, 1),
        (9, True, 1),
        (10, True, 2),
    ],
)
def test_steps_are_chunks_times_steps(tmp_path, frames, image, steps):
    picture = tmp_path / "x.png"
    picture.touch()
    assert count_steps(asked(frames, image=str(picture) if image else None, num_inference_steps=5)) == (
        5 * steps,
        0,
    )


def test_time_is_measured_seconds_or_says_that_it_is_an_estimate():
    found, full = made(preset="preview", seconds_per_step=0.5), made(seconds_per_step=0.5)
    assert (found.steps, found.refine_steps) == (29 * 4, 0) and "given" in found.seconds_from
    step = step_flops(TINY, ModelConfig.load(TINY), 1)
    decoded = 29 * 16 * decode_flops(TINY, 64, 64) / step
    assert found.seconds == pytest.approx(0.5 * (29 * 4 + decoded)) and 0 < decoded < 29 * 4
    frame = decode_flops(TINY, 128, 128) + encode_flops(TINY, 128, 128)
    refined = (20 * 4 * refine_step_flops(TINY, ModelConfig.load(TINY)) + 240 * frame) / step
    assert full.seconds == pytest.approx(found.seconds + 0.5 * refined) and refined > 40
    guess = made(frames=16, preset="preview")
    assert guess.seconds_from.startswith("estimate") and guess.seconds > 0


def test_guidance_takes_more_predictions_and_the_autoencoder_no_more(toy):
    """Count three predictions a step with both kinds of guidance, two with one."""
    own = ModelConfig.load(toy)

    def seconds(**extend):
        config = replace(own, extend=replace(own.extend, **extend))
        request = resolve(config, Request("a cat", 240))
        return plan(toy, request, name="toy", device="cpu", dtype="float32", seconds_per_step=1.0)

    plain, two, three = (
        seconds(guidance_scale=scale, time_guidance=time)
        for scale, time in ((1.0, 0.0), (2.0, 0.0), (2.0, 0.5))
    )
    assert plain.steps == two.steps == three.steps == 29 * own.extend.steps
    one = step_flops(toy, own, 1)
    for found, predictions in ((two, 2), (three, 3)):
        ratio = one / step_flops(toy, own, predictions)
        assert found.seconds == pytest.approx(found.steps + (plain.seconds - plain.steps) * ratio)


@pytest.mark.parametrize(("values", "chunks"), [({"fps": 16}, 2), ({"fps": 24}, 1), ({}, 4)])
def test_interpolated_frames_need_no_steps(values, chunks):
    assert count_steps(asked(40, num_inference_steps=3, **values)) == (3 * chunks, 0)


def test_longer_videos_need_no_more_memory_but_more_disk_and_time():
    short, long = (made(frames=frames, preset="preview", seconds_per_step=1.0) for frames in (240, 2400))
    assert long.memory == short.memory and long.disk > short.disk and long.seconds > 9 * short.seconds


def test_what_does_not_fit_is_refused_with_a_way_out(monkeypatch):
    monkeypatch.setattr(planning, "free_memory", lambda device: 700 * 10**6)
    with pytest.raises(
        RequestError,
        match=r"needs about .* on cpu, but 700 MB are free; use --preset preview or --dtype bf",
    ):
        made(seconds_per_step=1.0)
    monkeypatch.undo()
    monkeypatch.setattr(planning, "free_bytes", lambda folder: 10)
    with pytest.raises(
        RequestError, match=r"num_frames=240: needs about .* on the disk, but 10 B are free; make fewer"
    ):
        made(preset="preview", seconds_per_step=1.0)


def test_a_device_that_is_not_there():
    with pytest.raises(
        RequestError,
        match=r"device='cuda:77': there is no usable cuda device on this machine; .* plan --memory 24GB",
    ):
        planning.free_memory("cuda:77")
    with pytest.raises(RequestError, match="device='gpu': must be auto, cpu, or one of cuda, xpu, mps"):
        planning.free_memory("gpu")


def test_broken_folders_are_told(tmp_path):
    ModelConfig("x", 64, 64, 8).save(tmp_path)
    with pytest.raises(ModelError, match="is incomplete: it has no weights in cam, unet, vae"):
        plan(
            tmp_path,
            resolve(ModelConfig("x", 64, 64, 8), Request("a cat")),
            name="x",
            device="cpu",
            dtype="float32",
        )
    for content in (b"", b"\xff" * 8, (5).to_bytes(8, "little") + b"{}"):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.safetensors: is truncated"):
            parameters_of(tmp_path)


def test_offloading_needs_less_of_the_device_and_the_machine_as_well(monkeypatch):
    monkeypatch.setattr(planning, "free_memory", lambda device: 10**12)
    request = asked(16, preset="full")
    named = {"name": "tiny", "device": "cuda", "dtype": "float32", "seconds_per_step": 1.0}
    whole, model, group = (
        plan(TINY, request, **named, savings=Savings(kind)) for kind in ("none", "model", "group")
    )
    assert whole.memory > model.memory > group.memory and whole.weights == model.offloaded == group.offloaded
    converted = plan(TINY, request, **{**named, "device": "cpu"}, savings=Savings(engine="openvino"))
    assert 1.5 * whole.weights < converted.weights < 2.5 * whole.weights
    sliced = plan(TINY, request, **named, savings=Savings(vae_slicing=True))
    assert sliced.working <= whole.working
    monkeypatch.setattr(planning, "free_memory", lambda device: 10**12 if device == "cuda" else 10**6)
    with pytest.raises(RequestError, match=r"offload=.*of CPU memory"):
        plan(TINY, request, **named, savings=Savings("model"))


@pytest.mark.slow  # networks of full size
@pytest.mark.parametrize("name", names())
def test_facts_of_published_models_are_those_of_their_networks(name):
    """`published.json` equals what the full-size networks give; a guided step takes tens of teraflops."""
    with (
        skeleton(name, full=name == "streaming-t2v") as (folder, parts),
        published(name, full=True) as (data, config, facts),
    ):
        assert ModelConfig.load(folder) == ModelConfig.load(data) == config and facts.parts == parts
        for part in ("unet", "cam", "vae"):
            own, told = (json.loads((root / part / "config.json").read_text()) for root in (folder, data))
            assert own == told
        height, width = config.height, config.width
        assert facts.decode_flops(height, width) == decode_flops(folder, height, width)
        step = step_flops(folder, config)
        assert facts.step_flops(2) == step and (
            5e12 < step < 5e13 if name == "streaming-t2v" else step > 1e13
        )
        if name == "streaming-svd":
            assert sum(parts.values()) == 2_996_355_290


@pytest.mark.parametrize("preset", ["preview", "full"])
@pytest.mark.parametrize("memory", [6e9, 12e9, 24e9])
def test_a_plan_for_a_device_elsewhere_asks_nothing_here(monkeypatch, preset, memory):
    monkeypatch.setattr(planning, "free_memory", lambda device: pytest.fail("asked"))
    with published("streaming-t2v", preset == "full") as (folder, config, facts):
        asked = resolve(config, Request("a cat", 240, preset=preset))
        found = plan(folder, asked, name="x", device="cuda", dtype="float16", facts=facts, memory=int(memory))
    assert (
        found.fits == (found.memory <= memory)
        and found.seconds is None
        and "no speed is known for such a device" in found.seconds_from
    )
    assert [level.offload for level in found.levels] == ["none", "model", "group"]
    needs = [level.memory for level in found.levels]
    assert needs == sorted(needs, reverse=True) and [level.fits for level in found.levels] == [
        need <= memory for need in needs
    ]
    assert set(found.stages) == {"chunks", "decoding", *(["refine"] if preset == "full" else [])}
    assert found.memory == max(found.stages.values())


def test_pipelines_count_with_the_one_set_of_weights_that_is_loaded(tmp_path, monkeypatch):
    """Count external base and refiner once, also if they have several precisions."""
    base, refiner = (
        toy_pipelines.modelscope(tmp_path / "base"),
        toy_pipelines.modelscope_video_to_video(tmp_path / "refiner"),
    )
    monkeypatch.setattr(planning, "free_memory", lambda device: 10**12)
    model = toy_pipelines.streaming_svd(tmp_path / "model")
    config = replace(ModelConfig.load(model), refine_by=RefineByConfig(str(refiner), frames=6, overlap=2))
    (tmp_path / "x.png").touch()

    def asked(**named):
        request = Request("a cat", 16, **({"image": str(tmp_path / "x.png")} | named))
        return plan(
            model, resolve(config, request), name="x", device="cuda", dtype="float16", seconds_per_step=1.0
        )

    plain, full = asked(), asked(preset="full")
    based = asked(base=str(base), image=None)
    numbers = sum(parameters_of(part) for part in base.iterdir() if part.is_dir())
    vae = parameters_of(base / "vae")
    assert (
        based.stages["base"] == based.weights + 2 * (numbers - vae) + 4 * vae
        and full.stages["refine"] == based.stages["base"]
    )
    assert "base" not in plain.stages and based.memory >= based.stages["base"] > based.weights
    assert "without base" in based.seconds_from and "without refine_by" in full.seconds_from
    for part in ("unet", "vae"):
        weights = base / part / "diffusion_pytorch_model.safetensors"
        shutil.copy(weights, base / part / "diffusion_pytorch_model.fp16.safetensors")
    assert asked(base=str(base), image=None).stages == based.stages


def test_measured_speeds_are_those_of_the_docs_and_nothing_is_claimed_for_gpus():
    from streamingt2v.estimate.duration import measured_speeds

    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    for preset, engine in (
        ("preview", "torch"),
        ("full", "torch"),
        ("preview", "openvino"),
        ("full", "openvino"),
    ):
        found = measured_speeds("tiny", preset, engine, "cpu")
        assert len(found) >= 2
        for line in found:
            assert f"| {float(line.split()[0])} |" in page and "docs/performance.md" in line
    for device, model in (("cuda", "tiny"), ("cuda:1", "streaming-t2v"), ("cpu", "streaming-t2v")):
        assert measured_speeds(model, "preview", "torch", device)[0].startswith("nothing for ")
