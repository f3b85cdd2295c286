"""StreamingSVD: whole trips from an image or text with the real classes at toy size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import toy_pipelines
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.cli import main
from streamingt2v.config import RefineConfig
from streamingt2v.config.external import SeedConfig
from streamingt2v.errors import RequestError
from streamingt2v.runs.state import pack_state, unpack_state
from streamingt2v.video.reader import read_video
from streamingt2v.video.writer import write_video
from toy import collect, generate_line

PROMPT = "A cat running on the street"
SMALL = {"svd": (16, 32), "wan": (32, 48)}
"""Bases and sizes: their own are too large for a test."""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Folders of the models and an image."""
    names = ("streaming_svd", "stable_diffusion", *SMALL)
    return toy_pipelines.write_home(tmp_path_factory.mktemp("models"), names, SMALL)


@pytest.fixture(scope="module")
def svd(home) -> LongVideoPipeline:
    return LongVideoPipeline.from_pretrained(home / "streaming_svd")


@pytest.mark.parametrize("frames", [1, 6, 7, 19])
def test_streaming_svd_gives_exactly_the_frames_asked_for(svd, home, frames):
    chunks = list(svd.stream(Request(PROMPT, frames, image=str(home / "red.png"))))
    assert [c.start for c in chunks] == [0, *range(6, frames, 4)] and [c.final for c in chunks] == [False] * (
        len(chunks) - 1
    ) + [True]
    video = collect(chunks)
    assert video.shape == (frames, 16, 16, 3) and video.std() > 1


def test_streaming_svd_resumed_after_any_chunk_is_as_if_never_stopped(svd, home):
    request = Request(PROMPT, 17, image=str(home / "red.png"))
    whole = list(svd.stream(request))
    for kept in range(1, len(whole)):
        rest = svd.stream(request, unpack_state(pack_state(whole[kept - 1].state)))
        assert np.array_equal(collect([*whole[:kept], *rest]), collect(whole))
    assert np.array_equal(svd(PROMPT, 17, image=request.image).frames, collect(whole)), "stream equals batch"


def test_streaming_svd_remembers_the_anchor_of_its_first_chunk_and_the_last_frames(svd, home):
    request = Request(PROMPT, 17, image=str(home / "red.png"))
    chunks = list(svd.stream(request))
    state = chunks[0].state
    anchor_HWC = ((state["anchor_CHW"] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(anchor_HWC, chunks[0].frames[svd.config.extend.anchor])
    assert torch.equal(chunks[-1].state["anchor_CHW"], state["anchor_CHW"])
    for part in ("window_TCHW", "anchor_CHW"):
        assert not np.array_equal(
            chunks[1].frames, next(svd.stream(request, {**state, part: -state[part]})).frames
        ), part


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"num_inference_steps": 3},
        {"guidance_scale": 1.5},
        {"image": "blue.png"},
        {"base": "svd"},
        {"base": "wan", "image": None},
    ],
)
def test_every_setting_reaches_streaming_svd(svd, home, change):
    change = {
        name: str(home / value) if name in ("image", "base") and value else value
        for name, value in change.items()
    }
    request = Request(PROMPT, 8, num_inference_steps=2, image=str(home / "red.png"))
    plain, other = (collect(svd.stream(r)) for r in (request, replace(request, **change)))
    assert not np.array_equal(plain[:6], other[:6]) and not np.array_equal(plain[6:], other[6:])


@pytest.mark.parametrize("length", [1, 4, 9])
def test_streaming_svd_goes_on_with_a_video(svd, tmp_path, length):
    path = tmp_path / "in.mp4"
    rng = np.random.default_rng(0)
    write_video(path, [np.full((32, 32, 3), rng.integers(256), np.uint8) for _ in range(length)], 8)
    chunks = list(svd.stream(Request(PROMPT, 9, video=str(path))))
    assert [len(c.frames) for c in chunks] == [4, 4, 1]
    seen = np.stack(list(read_video(path, 16, 16)))
    anchor_HWC = (chunks[0].state["anchor_CHW"].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.allclose(anchor_HWC, seen[min(svd.config.extend.anchor, length - 1)], atol=1e-3)


@pytest.mark.parametrize(
    "more, says",
    [
        ({}, "image=None.*made from an image"),
        ({"image": "red.png", "schedule": ((0, "a dog"),)}, "schedule=1.*from images alone"),
        ({"image": "red.png", "negative_prompt": "rain"}, "negative_prompt='rain'.*images alone"),
    ],
)
def test_what_streaming_svd_cannot_use_is_refused(svd, home, more, says):
    more = {name: str(home / value) if name == "image" else value for name, value in more.items()}
    with pytest.raises(RequestError, match=says):
        svd.stream(Request(PROMPT, 9, **more))


def test_streaming_svd_from_text_goes_by_a_picture(home, tmp_path):
    folder = toy_pipelines.streaming_svd(
        tmp_path / "model", SeedConfig(picture=str(home / "stable_diffusion"))
    )
    pipe = LongVideoPipeline.from_pretrained(folder)
    a, b = (
        collect(pipe.stream(Request(prompt, 7, num_inference_steps=2)))
        for prompt in (PROMPT, "A whale floating under water")
    )
    assert len(a) == 7 and not np.array_equal(a[:6], b[:6])


def test_streaming_svd_with_a_refiner_of_its_own_reads_prompts_there(home, tmp_path):
    folder = toy_pipelines.streaming_svd(
        tmp_path / "model", refine=RefineConfig(frames=6, overlap=2, strength=0.5, steps=2)
    )
    pipe = LongVideoPipeline.from_pretrained(folder)
    request = Request(
        PROMPT,
        13,
        image=str(home / "red.png"),
        preset="full",
        schedule=((6, "A whale floating under water"),),
    )
    video = collect(pipe.stream(request))
    assert video.shape == (13, 32, 32, 3)
    assert not np.array_equal(video, collect(pipe.stream(replace(request, schedule=()))))


def test_generate_with_streaming_svd_from_the_command_line(home, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    line = generate_line(home / "streaming_svd", out, "--image", home / "red.png")
    assert main([*line, "--frames", "11", "--json", "--quiet"]) == 0
    assert sum(1 for _ in read_video(out)) == 11
    assert main(generate_line(home / "streaming_svd", tmp_path / "no.mp4", "--json")) == 2
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["argument"] == "image"
