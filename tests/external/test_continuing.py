"""Every kind of pipeline continues a video: real classes of diffusers at toy size."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import toy_bases
from streamingt2v.external.calling import video_of
from streamingt2v.external.continuing import (
    WAYS,
    Window,
    as_sibling,
    held_overlap,
    sibling,
    ways,
    window_length,
)
from streamingt2v.external.latents import Moments, arrange, encode, time_axis
from streamingt2v.external.steering import Hand, steered

STEERED = [n for n in toy_bases.TOYS if not n.startswith("skyreels_df") and not n.endswith("_video")]
HELD = [n for n in STEERED if n not in ("allegro", "svd", "helios", "framepack", "anyflow_far")]
NATIVE = {
    "ltx": "conditions",
    "ltx_condition": "conditions",
    "wan_vace": "mask",
    "helios": "history",
    "skyreels_df": "forcing",
    "anyflow": "context",
}


pipeline = toy_bases.built


def clip(frames: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Smooth moving frames, (T, 3, H, W) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(3, 4, 4, generator=generator)[None].repeat(frames, 1, 1, 1)
    rolled = torch.stack([frame.roll(i, -1) for i, frame in enumerate(coarse)])
    return torch.nn.functional.interpolate(rolled, size, mode="bilinear") * 2 - 1


def call(pipe: Any, name: str, **more: Any) -> torch.Tensor:
    toy = toy_bases.TOYS[name]
    height, width = toy.size
    wanted = {
        "prompt": "A cat running", "negative_prompt": "a dog", "height": height, "width": width,
        "num_frames": toy.frames,
        "frames": toy.frames, "num_inference_steps": 3, "output_type": "np", **dict(toy.more),
    }  # fmt: skip
    if toy.image:
        wanted["image"] = Image.new("RGB", (width, height), (90, 120, 40))
    wanted |= more
    takes = inspect.signature(pipe.__call__).parameters
    torch.manual_seed(7)  # for what a pipeline draws besides its generator
    given = {k: v for k, v in wanted.items() if k in takes}
    return video_of(pipe(**given, generator=torch.Generator().manual_seed(3)))


class Ledger(Hand):
    """Keeps the latents after the last step."""

    last: torch.Tensor | None = None

    def after(self, scheduler, index, latents):
        self.last = latents.detach().clone()
        return latents


def steered_call(name: str, hand: Hand, **more: Any) -> torch.Tensor:
    pipe = pipeline(name)
    plain = pipe.scheduler
    try:
        pipe.scheduler = steered(plain, hand)
        return call(pipe, name, **more)
    finally:
        pipe.scheduler = plain


@pytest.mark.parametrize("name", toy_bases.lanes(STEERED))
def test_an_idle_hand_leaves_a_pipelines_bytes_unchanged(name):
    assert torch.equal(call(pipeline(name), name), steered_call(name, Hand()))


@pytest.mark.parametrize("name", toy_bases.lanes(HELD))
def test_the_overlap_is_held_bitwise_and_repeats(name):
    """After the last step the first latents are those of the window, and what follows has seen them."""
    pipe, toy = pipeline(name), toy_bases.TOYS[name]
    count = window_length(pipe, 7 if toy.frames < 20 else 9)
    made = []
    for seed in (1, 1, 2):
        frames = clip(count, toy.size, seed)
        way = held_overlap(pipe, Window(frames, toy.frames, frames[0]))
        ledger = Ledger()
        known, axis = way.hand.known, time_axis(pipe)

        class Both(Hand):
            def before(self, *a, way=way):
                way.hand.before(*a)

            def after(self, scheduler, index, latents, way=way, ledger=ledger):
                return ledger.after(scheduler, index, way.hand.after(scheduler, index, latents))

        made.append(steered_call(name, Both()))
        outside = way.hand.total - ledger.last.shape[axis]
        held = known.shape[axis] - outside
        assert held > 0 or outside >= known.shape[axis]
        if held > 0:
            end = ledger.last.narrow(axis, 0, held)
            assert torch.equal(end, known.narrow(axis, outside, held).to(end))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize("name", ["ltx", "wan_vace", "anyflow", "skyreels_df", "helios"])
def test_native_ways_hear_their_window_and_repeat(name):
    pipe = as_sibling(pipeline(name), sibling(type(pipeline(name)), pipeline(name).scheduler.config))
    toy = toy_bases.TOYS[name]
    way = WAYS[ways(type(pipe))[0]]
    assert way.name == NATIVE[name]
    frames = 17 if name != "helios" else 65
    made = []
    for seed in (1, 1, 2):
        window = clip(window_length(pipe, 9 if name != "helios" else 33), toy.size, seed)
        goes = way.prepare(pipe, Window(window, frames, window[0]))
        video = call(pipe, name, **{"num_frames": frames, **goes.arguments})
        assert len(video) - goes.shown >= frames - len(window)
        made.append(video[goes.shown :])
    assert torch.equal(made[0], made[1])
    if name != "helios":  # a toy autoencoder of one channel hides its history
        assert not torch.equal(made[0], made[2])


def test_ways_are_read_from_the_class():
    import diffusers

    found = {n: ways(getattr(diffusers, n)) for n in (
        "WanPipeline", "WanImageToVideoPipeline", "WanVACEPipeline", "LTXPipeline", "LTXConditionPipeline",
        "HunyuanVideoPipeline",
        "HeliosPipeline", "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
        "SkyReelsV2DiffusionForcingPipeline", "AnyFlowPipeline",
        "LucyEditPipeline", "CogVideoXImageToVideoPipeline", "Cosmos2VideoToWorldPipeline",
        "StableDiffusionPipeline",
    )}  # fmt: skip
    assert found["WanPipeline"] == found["LTXPipeline"] == found["HunyuanVideoPipeline"] == ("overlap",)
    assert found["WanImageToVideoPipeline"] == found["CogVideoXImageToVideoPipeline"] == ("image",)
    assert found["WanVACEPipeline"][0] == "mask" and found["HeliosPipeline"][0] == "history"
    assert found["LTXConditionPipeline"][0] == "conditions" and found["AnyFlowPipeline"][0] == "context"
    assert found["SkyReelsV2DiffusionForcingVideoToVideoPipeline"] == ("forcing",)
    assert found["SkyReelsV2DiffusionForcingPipeline"] == () == found["LucyEditPipeline"]
    assert found["Cosmos2VideoToWorldPipeline"][0] == "world"


def test_moments_are_pulled_half_way():
    latents = torch.randn(1, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 2 + 1
    first = Moments(torch.zeros(4), torch.ones(4))
    half = Moments.of(first.pull(latents, 0.5))
    now = Moments.of(latents)
    assert torch.allclose(half.mean_C, now.mean_C / 2, atol=1e-5) and torch.allclose(
        half.std_C, (now.std_C + 1) / 2, atol=1e-5
    )
    assert torch.allclose(first.pull(latents, 0.0), latents, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["wan", "cogvideox", "ltx", "mochi", "hunyuan", "modelscope", "animatediff", "sana"]
)
def test_what_the_decoder_is_given_is_brought_back(name, monkeypatch):
    """Encoded frames, arranged as the loop has them and held over all frames, are what the decoder gets,
    undone by the pipeline."""
    pipe, toy = pipeline(name), toy_bases.TOYS[name]
    frames = clip(toy.frames, toy.size, 5)
    held = held_overlap(pipe, Window(frames, toy.frames, frames[0]))
    seen: list[torch.Tensor] = []
    decode = pipe.vae.decode
    monkeypatch.setattr(
        pipe.vae, "decode", lambda z, *a, **k: (seen.append(z.detach().clone()), decode(z, *a, **k))[1]
    )
    steered_call(name, held.hand)
    given = torch.cat(seen) if seen[0].ndim == 4 else seen[0]
    vae, video = pipe.vae, frames.transpose(0, 1)[None]
    if given.ndim == 4:
        raw = vae.encode(frames).latent_dist.mode()
        assert torch.allclose(given.reshape(raw.shape), raw, atol=1e-3 * float(raw.abs().max()))
    else:
        raw = vae.encode(video).latent_dist.mode()
        assert torch.allclose(given, raw, atol=1e-3 * float(raw.abs().max()))


def test_encode_is_in_the_loops_layout():
    pipe = pipeline("ltx")
    frames = clip(9, (32, 32))
    assert arrange(pipe, encode(pipe, frames)).ndim == 3
    assert isinstance(np.asarray(Window(frames, 9, frames[0]).anchor), np.ndarray)
