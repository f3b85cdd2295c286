"""The first chunk by pipelines of diffusers, and StreamingSVD:
whole trips with the real classes at toy size, saved and loaded."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy_pipelines
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.checkpoints.opening import opened
from streamingt2v.cli import main
from streamingt2v.config.external import SeedConfig
from streamingt2v.errors import ModelError, RequestError, RunError
from streamingt2v.external.calling import covered, frames_of_codec, video_of, window
from streamingt2v.runs.render import create_run, reload_pipeline, resolve_run
from streamingt2v.runs.run import RunFolder
from streamingt2v.stages.first_chunk import PipelineFirstChunk
from streamingt2v.video.reader import read_video
from toy import collect, write_toy_model

PROMPT = "A cat running on the street"
BASES = ("modelscope", "animatediff", "svd", "cogvideox", "wan", "ltx_image")
READ_IMAGES = ("svd", "ltx_image")
SMALL = {"svd": (16, 32), "wan": (32, 48), "ltx_image": (32, 64)}
"""Sizes for those whose own are too large for a test."""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Folders of every kind."""
    home = tmp_path_factory.mktemp("models")
    write_toy_model(home / "toy")
    return toy_pipelines.write_home(home, (*BASES, "stable_diffusion"), SMALL)


@pytest.fixture(scope="module")
def toy(home) -> LongVideoPipeline:
    return LongVideoPipeline.from_pretrained(home / "toy")


def request_of(home: Path, base: str, frames: int, **more) -> Request:
    image = str(home / "red.png") if base in READ_IMAGES else None
    return Request(
        PROMPT, frames, **{"base": str(home / base), "image": image, "num_inference_steps": 1, **more}
    )


@pytest.mark.parametrize("base", BASES)
def test_any_base_seeds_the_stream(toy, home, base):
    """Exactly the frames asked for, chunks where the grid has them,
    and other frames than the network's own or another seed's."""
    request = request_of(home, base, 21)
    chunks = list(toy.stream(request))
    assert [len(chunk.frames) for chunk in chunks] == [16, 5]
    video = collect(chunks)
    assert video.shape == (21, 32, 32, 3) and video.std() > 1
    assert not np.array_equal(video[:16], collect(toy.stream(Request(PROMPT, 16, num_inference_steps=1))))
    assert not np.array_equal(video[:16], collect(toy.stream(replace(request, num_frames=16, seed=1))))


@pytest.mark.parametrize("base", ["modelscope", "wan"])
def test_a_base_draws_from_the_seed_alone(toy, home, base):
    request = request_of(home, base, 16)
    torch.manual_seed(1)
    first = collect(toy.stream(request))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert np.array_equal(first, collect(toy.stream(request)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("base", READ_IMAGES)
def test_a_picture_shapes_the_first_chunk(toy, home, base):
    red = request_of(home, base, 3)
    assert not np.array_equal(
        *(collect(toy.stream(replace(red, image=str(home / name)))) for name in ("red.png", "blue.png"))
    )


def test_prompt_steps_and_guidance_reach_the_base(toy, home):
    request = request_of(home, "modelscope", 2)
    plain = collect(toy.stream(request))
    guided = {"num_inference_steps": 2, "guidance_scale": 2.0}
    for change in ({"prompt": "A whale floating under water"}, {"negative_prompt": "a horse"}, guided):
        assert not np.array_equal(plain, collect(toy.stream(replace(request, **change)))), change


def test_a_chunk_by_modelscopes_pipeline_is_that_of_the_same_network_here(home, toy, tmp_path):
    """Same parts, noise, steps and guidance: two ways of one first chunk."""
    from diffusers import TextToVideoSDPipeline

    parts = toy.components
    backbone = parts.backbone
    pipe = TextToVideoSDPipeline(
        backbone.vae, parts.text.encoder, parts.text.tokenizer, backbone.unet.stock(), parts.scheduler
    )
    pipe.save_pretrained(tmp_path / "same")
    request = Request(
        "a cat running on the street",
        16,
        num_inference_steps=2,
        guidance_scale=3.0,
        base=str(tmp_path / "same"),
    )
    config = replace(toy.config, extend=replace(toy.config.extend, eta=0.0))
    own = LongVideoPipeline(replace(parts, config=config))
    ours, theirs = collect(own.stream(replace(request, base=None))), collect(own.stream(request))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("base", ["modelscope", "svd"])
def test_a_run_with_a_base_resumes_to_the_same_bytes(home, toy, tmp_path, base, monkeypatch):
    """Stopped after the first chunk, opened again, and gone on with: the same frames;
    the base is not needed again."""
    request = request_of(home, base, 20)
    whole = collect(toy.stream(request))
    with create_run(toy, toy.resolve(request), tmp_path / "run", str(home / "toy")) as run:
        run.commit(next(toy.stream(run.request)))
    monkeypatch.setattr(
        "streamingt2v.stages.making.opened", lambda *args: pytest.fail("the base was read again")
    )
    with RunFolder.open(tmp_path / "run") as run:
        assert run.request.base == str(home / base)
        rest = collect(reload_pipeline(run)[0].stream(run.request, run.state))
    assert np.array_equal(np.concatenate([whole[:16], rest]), whole)


@pytest.mark.parametrize(
    "base, change",
    [("animatediff", "seed.json"), ("animatediff", "adapter/config.json"), ("wan", "seed.json")],
)
def test_a_changed_base_is_told_when_a_run_is_opened(home, toy, tmp_path, base, change):
    shutil.copytree(home / base, tmp_path / "base")
    request = replace(request_of(home, base, 33), base=str(tmp_path / "base"))
    with create_run(toy, toy.resolve(request), tmp_path / "run", str(home / "toy")) as run:
        resolve_run(run)
        file = tmp_path / "base" / change
        file.write_text(file.read_text() + "\n")
        with pytest.raises(RunError, match="are not those that the run began with"):
            reload_pipeline(run)


def test_a_model_can_name_its_base_and_how_pictures_are_made(home, tmp_path):
    """`seed` in model.json, by paths relative to it; SVD from text goes by a text-to-image pipeline."""
    copy = shutil.copytree(home / "toy", tmp_path / "toy")
    values = json.loads((copy / "model.json").read_text())
    shutil.copytree(home / "svd", copy / "first")
    (copy / "first" / "seed.json").unlink()
    values["seed"] = {
        "pipeline": "first",
        "height": 16,
        "width": 32,
        "steps": 1,
        "fit": "pad",
        "picture": str(home / "stable_diffusion"),
    }
    (copy / "model.json").write_text(json.dumps(values))
    pipe = LongVideoPipeline.from_pretrained(copy)
    pipe.save_pretrained(tmp_path / "again", torch.float32)
    again = LongVideoPipeline.from_pretrained(tmp_path / "again")
    made = collect(again.stream(Request(PROMPT, 17, num_inference_steps=2)))
    pictured = collect(pipe.stream(Request(PROMPT, 17, num_inference_steps=2, image=str(home / "red.png"))))
    assert len(made) == len(pictured) == 17 and not np.array_equal(made[:16], pictured[:16])


@pytest.mark.parametrize(
    "base, more, says",
    [
        ("stable_diffusion", {}, "base=.*makes images, not videos"),
        ("toy", {}, "base=.*no pipeline of diffusers"),
        ("nowhere", {}, "base=.*nowhere.*no model"),
        ("modelscope", {"image": "red.png"}, "base=.*reads no image"),
        ("modelscope", {"video": "red.png"}, "base=.*needs no first chunk"),
        ("svd", {"image": None}, "image=None.*made from an image"),
        ("modelscope", {"schedule": ((17, "a dog"), (20, "a horse"))}, "schedule"),
        ("svd", {"schedule": ((1, "a dog"), (2, "a horse"))}, "schedule"),
    ],
)
def test_a_base_that_does_not_fit_is_refused_before_weights_load(toy, home, base, more, says, monkeypatch):
    monkeypatch.setattr("streamingt2v.stages.making.opened", lambda *args: pytest.fail("weights were read"))
    more = {name: str(home / value) if isinstance(value, str) else value for name, value in more.items()}
    with pytest.raises(RequestError, match=says):
        toy.stream(request_of(home, base, 20, **more))


@pytest.mark.parametrize(
    "values",
    [
        {"frames": 0}, {"fit": "squeeze"}, {"resample": "cubic"}, {"height": 32}, {"colour": 1},
        {"guidance_scale": 2.0},
        {"adapter": "nowhere"}, {"picture": "nowhere"}, {"image": False}, [],
    ],
)  # fmt: skip
def test_settings_of_a_base_that_make_no_sense_are_refused(toy, home, tmp_path, values):
    copy = shutil.copytree(home / "svd", tmp_path / "base")
    (copy / "seed.json").write_text(json.dumps(values))
    with pytest.raises(RequestError, match="base"):
        toy.stream(Request(PROMPT, 20, image=str(home / "red.png"), base=str(copy)))


def test_a_pipelines_networks_are_let_go_when_it_has_worked(home):
    with opened(str(home / "modelscope"), "cpu", torch.float32) as pipe:
        networks = [weakref.ref(pipe.unet), weakref.ref(pipe.vae), weakref.ref(pipe.text_encoder)]
    gc.collect()
    assert pipe is not None and [network() for network in networks] == [None] * 3


def test_a_base_that_does_not_load_is_named(toy, home, tmp_path):
    copy = shutil.copytree(home / "modelscope", tmp_path / "base")
    shutil.rmtree(copy / "unet")
    with pytest.raises(ModelError, match=r"base.*cannot be loaded"):
        next(toy.stream(Request(PROMPT, 20, base=str(copy))))


def test_the_anchor_of_a_picture_alone_is_the_picture(home, toy):
    """A model whose anchor is a later frame keeps the looks of what there is."""
    config = replace(toy.config, extend=replace(toy.config.extend, anchor=3))
    chunk = next(
        LongVideoPipeline(replace(toy.components, config=config)).stream(
            Request(PROMPT, 9, image=str(home / "red.png"))
        )
    )
    assert len(chunk.frames) == 1
    assert np.array_equal(
        ((chunk.state["anchor_CHW"] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy(), chunk.frames[0]
    )


@pytest.mark.parametrize("preset, side", [("preview", 32), ("full", 64)])
def test_generate_with_a_base_from_the_command_line(home, tmp_path, capsys, preset, side):
    out = tmp_path / "out.mp4"
    line = [
        "generate",
        PROMPT,
        "-o",
        str(out),
        "--model",
        str(home / "toy"),
        "--base",
        str(home / "modelscope"),
    ]
    assert main([*line, "--frames", "19", "--preset", preset, "--steps", "1", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["frames"], result["height"], result["width"]) == (19, side, side)
    assert sum(1 for _ in read_video(out)) == 19


def test_a_picture_of_another_shape_fills_the_frame_or_stands_beside_bars(home):
    """Published (method.md: Chunks): a square model's picture in SVD's wide frame stands between black bars,
    which are cut off again."""

    def framed(fit: str) -> torch.Tensor:
        seed = PipelineFirstChunk(lambda: pytest.fail(), SeedConfig(fit=fit), 6, 32, 32, 0)
        return seed._framed(lambda height, width: torch.ones(3, height, width), 36, 64)

    assert (framed("cover") == 1).all()
    padded = framed("pad")
    assert (
        (padded[:, :, 14:50] == 1).all()
        and (padded[:, :, :14] == -1).all()
        and (padded[:, :, 50:] == -1).all()
    )
    assert covered(padded[None], 32, 32).min() > 0.999, "no bar is left"


def test_frames_of_another_shape_are_cut_and_scaled_not_squeezed():
    assert window(576, 1024, 256, 256) == (576, 576) and window(512, 512, 90, 160) == (288, 512)
    wide = torch.zeros(1, 3, 4, 8)
    wide[..., 2:6] = 1
    assert torch.equal(covered(wide, 4, 4), torch.ones(1, 3, 4, 4))
    assert (
        covered(torch.rand(1, 3, 9, 16), 4, 4).shape
        == covered(torch.rand(1, 3, 9, 16), 4, 4, "nearest").shape
        == (1, 3, 4, 4)
    )


@pytest.mark.parametrize(
    "base, frames, counts",
    [("modelscope", 6, 6), ("cogvideox", 6, 9), ("wan", 7, 9), ("wan", 5, 5), ("ltx_image", 6, 9)],
)
def test_clips_have_the_fewest_frames_that_the_autoencoder_packs(home, base, frames, counts):
    with opened(str(home / base), "cpu", torch.float32) as pipe:
        assert frames_of_codec(pipe, frames) == counts


@pytest.mark.parametrize(
    "frames", [np.full((1, 2, 4, 4, 3), 2.0), np.full((1, 2, 4, 4, 3), np.nan), np.zeros((1, 2, 4, 4, 4))]
)
def test_frames_of_another_range_or_kind_are_refused(frames):
    with pytest.raises(ModelError, match=r"pipeline's frames|NaN"):
        video_of(type("Output", (), {"frames": frames})())


def test_frames_may_come_as_pictures_or_bytes():
    pictures = [[Image.new("RGB", (4, 4), (0, 255, 0))] * 2]
    video = video_of(type("Output", (), {"frames": pictures})())
    assert video.shape == (2, 3, 4, 4) and video[0, :, 0, 0].tolist() == [-1, 1, -1]


def test_a_saved_folder_names_its_pipelines_by_their_way(home, tmp_path):
    """Moved with what lies beside it, it is whole; no path of this machine is in it."""
    place = tmp_path / "here"
    for name in ("toy", "modelscope"):
        shutil.copytree(home / name, place / name)
    values = json.loads((place / "toy" / "model.json").read_text())
    (place / "toy" / "model.json").write_text(json.dumps(values | {"seed": {"pipeline": "../modelscope"}}))
    LongVideoPipeline.from_pretrained(place / "toy").save_pretrained(place / "deep" / "again", torch.float32)
    assert (
        json.loads((place / "deep" / "again" / "model.json").read_text())["seed"]["pipeline"]
        == "../../modelscope"
    )
    place.rename(tmp_path / "there")
    moved = LongVideoPipeline.from_pretrained(tmp_path / "there" / "deep" / "again")
    assert collect(moved.stream(Request(PROMPT, 2, num_inference_steps=1))).shape == (2, 32, 32, 3)
