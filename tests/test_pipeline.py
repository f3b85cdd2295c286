"""The pipeline with diffusers' names and kinds of images gives the same stream."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

import streamingt2v
import toy_pipelines
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.errors import RequestError
from streamingt2v.runs.run import RunFolder
from streamingt2v.video.lossless import write_lossless
from streamingt2v.video.reader import count_frames
from toy import write_distilled_model, write_toy_model

PROMPT = "A cat running on the street"
SHORT = {"num_frames": 18, "num_inference_steps": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("model") / "toy", refiner=False)


@pytest.fixture(scope="module")
def pipe(folder) -> LongVideoPipeline:
    return LongVideoPipeline.from_pretrained(folder)


@pytest.fixture
def fresh(folder) -> LongVideoPipeline:
    return LongVideoPipeline.from_pretrained(folder)


def test_every_kind_of_output_is_the_same_video(pipe):
    made = {kind: pipe(PROMPT, **SHORT, output_type=kind).frames for kind in ("np", "pil", "pt")}
    assert made["np"].dtype == np.uint8 and made["np"].shape == (18, 32, 32, 3)
    assert all(isinstance(frame, Image.Image) for frame in made["pil"])
    assert np.array_equal(np.stack([np.asarray(frame) for frame in made["pil"]]), made["np"])
    assert made["pt"].shape == (18, 3, 32, 32)
    assert np.array_equal((made["pt"] * 255).round().byte().movedim(1, -1).numpy(), made["np"])
    streamed = np.concatenate([chunk.frames for chunk in pipe.stream(PROMPT, **SHORT)])
    assert np.array_equal(streamed, made["np"])
    request = Request(PROMPT, 18, num_inference_steps=1)
    assert np.array_equal(pipe(request).frames, made["np"]) and np.array_equal(
        pipe(pipe.resolve(request)).frames, made["np"]
    )


def test_an_image_may_be_a_path_or_in_memory(pipe, tmp_path):
    array = np.kron(
        np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8), np.ones((8, 8, 1), np.uint8)
    )
    image = Image.fromarray(array)
    image.save(tmp_path / "image.png")
    tensor = torch.from_numpy(array).movedim(-1, 0)
    given = [
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        image,
        array,
        array / 255,
        tensor,
        tensor / 255,
    ]
    made = [pipe(PROMPT, **SHORT, image=one).frames for one in given]
    assert all(np.array_equal(made[0], other) for other in made[1:])
    assert not np.array_equal(made[0], pipe(PROMPT, **SHORT).frames)


def test_a_video_may_be_a_path_or_in_memory(pipe, moving, tmp_path):
    frames = moving(11, 32, 32)
    write_lossless(tmp_path / "video.mkv", iter(frames), 8)
    given = [
        tmp_path / "video.mkv",
        frames,
        [Image.fromarray(frame) for frame in frames],
        torch.from_numpy(frames).movedim(-1, 1),
    ]
    made = [pipe(PROMPT, num_frames=9, num_inference_steps=1, video=one).frames for one in given]
    assert all(len(one) == 9 and np.array_equal(made[0], one) for one in made)


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"image": 5}, "image"), ({"image": np.zeros((4, 4))}, "image"),
        ({"image": np.full((4, 4, 3), 2.0)}, "image"),
        ({"image": np.full((4, 4, 3), np.nan)}, "image"), ({"image": np.full((4, 4, 3), -1)}, "image"),
        ({"image": "nowhere.png"}, "image"), ({"video": []}, "video"), ({"video": 3}, "video"),
        ({"image": [Image.new("RGB", (4, 4))]}, "image"),
        ({"video": [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)]}, "video"),
        ({"generator": torch.Generator(), "seed": 3}, "seed"),
        ({"generator": [torch.Generator()]}, "generator"),
        ({"output_type": "latent"}, "output_type"), ({"num_frames": 0}, "num_frames"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(pipe, given, argument):
    with pytest.raises(RequestError, match=f"^{argument}="):
        pipe(PROMPT, **{**SHORT, **given})


def test_several_prompts_and_unknown_arguments_are_refused(pipe):
    with pytest.raises(RequestError, match=r"^prompt='list': give one prompt"):
        pipe([PROMPT, PROMPT], **SHORT)
    with pytest.raises(RequestError, match=r"^arguments=\['eta', 'num_videos_per_prompt'\]"):
        pipe(PROMPT, **SHORT, eta=0.0, num_videos_per_prompt=2)


def test_options_beside_a_request_are_refused(pipe):
    for more in ({"image": "x.png"}, {"num_frames": 3}, {"seed": 1}):
        with pytest.raises(RequestError, match=next(iter(more))):
            pipe.stream(Request(PROMPT), **more)


def test_a_generator_says_the_seed_and_goes_on(pipe):
    first, again = (
        pipe(PROMPT, **SHORT, generator=torch.Generator().manual_seed(4)).frames for _ in range(2)
    )
    generator = torch.Generator().manual_seed(4)
    one, two = (pipe(PROMPT, **SHORT, generator=generator).frames for _ in range(2))
    assert np.array_equal(first, again) and np.array_equal(first, one) and not np.array_equal(one, two)
    assert np.array_equal(pipe(PROMPT, **SHORT).frames, pipe(PROMPT, **SHORT, seed=33).frames)


def test_the_end_of_every_step_is_told(pipe):
    told = []
    pipe(
        PROMPT, num_frames=18, num_inference_steps=2, callback_on_step_end=lambda *values: told.append(values)
    )
    assert [(values[0] is pipe, *values[1:]) for values in told] == [
        (True, step, None, {}) for step in (0, 1, 0, 1)
    ]
    with pytest.raises(RequestError, match="callback_on_step_end"):
        pipe(PROMPT, **SHORT, callback_on_step_end=lambda *values: {"latents": 0})

    def stop(*values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe(PROMPT, **SHORT, callback_on_step_end=stop)


def test_components_are_attributes_that_can_be_set(fresh):
    plain = fresh(PROMPT, num_frames=4, num_inference_steps=2).frames
    for name in ("unet", "cam", "vae", "image_encoder", "text_encoder", "tokenizer", "scheduler"):
        part = getattr(fresh, name)
        setattr(fresh, name, part)
        assert getattr(fresh, name) is part
    assert np.array_equal(fresh(PROMPT, num_frames=4, num_inference_steps=2).frames, plain)
    fresh.scheduler = DDIMScheduler.from_config(fresh.scheduler.config, beta_end=0.02)
    assert not np.array_equal(fresh(PROMPT, num_frames=4, num_inference_steps=2).frames, plain)
    with torch.no_grad():
        for parameter in fresh.unet.parameters():
            parameter.mul_(1.01)
    assert not hasattr(fresh, "transformer")


def test_dtypes_and_devices_are_named_as_diffusers_does(folder, fresh):
    half = LongVideoPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16, device_map="auto")
    assert (
        half.dtype == half.unet.dtype == half.cam.dtype == torch.bfloat16 and half.vae.dtype == torch.float32
    )
    moved = fresh.to("cpu").to(torch.bfloat16)
    assert (
        moved is fresh
        and moved.dtype == torch.bfloat16
        and moved.vae.dtype == torch.float32
        and str(moved.device) == "cpu"
    )
    frames = [one(PROMPT, **SHORT).frames for one in (half, moved)]
    assert np.array_equal(*frames)
    for wrong, argument in (
        ({"dtype": torch.float16, "torch_dtype": torch.float32}, "torch_dtype"),
        ({"device": "cpu", "device_map": "meta"}, "device_map"),
        ({"device": "cuda:77"}, "device"), ({"device_map": "everywhere"}, "device"),
    ):  # fmt: skip
        with pytest.raises(RequestError, match=f"^{argument}="):
            LongVideoPipeline.from_pretrained(folder, **wrong)
    with pytest.raises(RequestError, match=r"^device="):
        fresh.to("cuda:77")


def test_memory_is_saved_by_the_usual_names(fresh):
    plain = fresh(PROMPT, **SHORT).frames.astype(int)
    fresh.enable_vae_slicing()
    fresh.enable_vae_tiling()
    assert fresh.vae.use_slicing and fresh.vae.use_tiling
    assert np.abs(fresh(PROMPT, **SHORT).frames - plain).max() <= 1
    fresh.disable_vae_slicing()
    fresh.disable_vae_tiling()
    assert not fresh.vae.use_slicing and not fresh.vae.use_tiling
    if not torch.accelerator.is_available():
        with pytest.raises(RequestError, match=r"^offload="):
            fresh.enable_model_cpu_offload()
    fresh.enable_model_cpu_offload(device="meta")
    assert all(
        hasattr(network, "_hf_hook") for network in (fresh.unet, fresh.cam, fresh.vae, fresh.text_encoder)
    )
    assert fresh.components.savings.offload == "model" and str(fresh.device) == "meta"
    with pytest.raises(RequestError, match=r"^offload="):
        fresh.to("cpu")


def test_a_model_without_guidance_says_so(tmp_path):
    pipe = LongVideoPipeline.from_pretrained(write_distilled_model(tmp_path / "fast"))
    for asked in ({"guidance_scale": 2.0}, {"negative_prompt": "a dog"}):
        with pytest.raises(RequestError, match=next(iter(asked))):
            pipe(PROMPT, **SHORT, **asked)
    asked = pipe.resolve(Request(PROMPT, 9, preset="full", negative_prompt="a dog"))
    assert asked.refine is not None, "stage 3 reads it"
    assert pipe.resolve(Request(PROMPT, 9, num_inference_steps=7)).extend.steps == 7, "steps mean steps"


def test_a_file_is_exported_and_resumed_to_the_same_bytes(folder, pipe, tmp_path):
    request = Request(PROMPT, 26, num_inference_steps=1)
    whole = streamingt2v.export(pipe, request, tmp_path / "whole.mp4")
    assert count_frames(whole.output) == whole.frames == 26 and sorted(
        path.name for path in tmp_path.iterdir()
    ) == ["whole.mp4"]
    with pytest.raises(RequestError, match=r"^output="):
        streamingt2v.export(pipe, request, tmp_path / "whole.mp4")

    def stop(chunk):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        streamingt2v.export(pipe, request, tmp_path / "cut.mp4", on_chunk=stop)
    with RunFolder.open(tmp_path / "cut.run") as run:
        assert 0 < run.frames_committed < 26
    done = streamingt2v.resume(tmp_path / "cut.run")
    assert done.output.read_bytes() == whole.output.read_bytes() and not (tmp_path / "cut.run").exists()
    kept = streamingt2v.export(
        pipe, replace(request, num_frames=3), tmp_path / "kept.mp4", tmp_path / "kept", overwrite=True
    )
    assert (
        kept.new_frames == 3
        and streamingt2v.resume(tmp_path / "kept", tmp_path / "again.mp4").new_frames == 0
    )
    with pytest.raises(RequestError, match=r"^pipe="):
        streamingt2v.export(LongVideoPipeline(pipe.components), request, tmp_path / "custom.mp4")
    with pytest.raises(RequestError, match=r"^num_frames="):
        streamingt2v.export(pipe, replace(request, num_frames=None), tmp_path / "endless.mp4")


def test_files_given_in_memory_are_gone_afterwards(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stream = pipe.stream(PROMPT, **SHORT, image=Image.new("RGB", (32, 32)))
    assert len(list(tmp_path.iterdir())) == 1
    assert sum(len(chunk.frames) for chunk in stream) == 18
    assert not list(tmp_path.iterdir())


def test_signatures_have_diffusers_names():
    call = inspect.signature(LongVideoPipeline.stream).parameters
    assert {"prompt", "image", "video", "generator", "seed", "callback_on_step_end"} <= set(call)
    assert {"num_frames", "num_inference_steps", "guidance_scale", "negative_prompt"} <= set(
        inspect.signature(Request).parameters
    )


def test_a_model_that_is_a_pipeline_has_the_same_face(tmp_path):
    pipe = LongVideoPipeline.from_pretrained(toy_pipelines.modelscope(tmp_path / "modelscope"))
    inner = pipe.components.pipeline
    assert pipe.unet is inner.unet and pipe.vae is inner.vae and pipe.scheduler is inner.scheduler
    pipe.scheduler = DDIMScheduler.from_config(inner.scheduler.config)
    assert inner.scheduler is pipe.scheduler and not hasattr(pipe, "cam")
    pipe.enable_vae_slicing()
    assert inner.vae.use_slicing
    assert pipe.to(torch.bfloat16).dtype == inner.unet.dtype == torch.bfloat16 and str(pipe.device) == "cpu"


def test_a_pipeline_tells_what_it_is(pipe):
    config, said = pipe.config, repr(pipe)
    assert (
        said.startswith("LongVideoPipeline(") and f"{config.width}x{config.height}" in said and "cpu" in said
    )
