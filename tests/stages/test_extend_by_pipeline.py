"""Chunk after chunk by pipelines of diffusers: real classes at toy size."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

import toy_bases
from streamingt2v.config.external import ExtendByConfig
from streamingt2v.errors import ModelError
from streamingt2v.stages.extend_by_pipeline import PipelineExtender
from streamingt2v.stages.memory import StreamMemory

NAMES = (
    "modelscope", "animatediff", "cogvideox", "cogvideox_image", "wan", "wan_unipc", "wan22", "wan_image", "wan22_image", "wan_vace",
    "anyflow", "skyreels", "skyreels_image", "skyreels_df", "ltx_condition", "ltx_image", "mochi", "latte", "hunyuan",
    "hunyuan_skyreels_image", "easyanimate", "sana", "helios",
)  # fmt: skip


@cache
def pipeline(name: str) -> Any:
    torch.manual_seed(0)
    pipe = toy_bases.TOYS[name].build()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def extender(name: str, **changes: Any) -> PipelineExtender:
    toy = toy_bases.TOYS[name]
    frames = {"mochi": 13, "latte": 16, "helios": 42}.get(name, 13)
    config = ExtendByConfig("", **{"steps": 2, **changes.pop("config", {})})
    return PipelineExtender(pipeline(name), config, **{"frames": frames, "crossfade": 0, "size": toy.size, "fps": 8, "seed": 1, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_goes_on_exactly_and_again_the_same(name):
    toy, stage = toy_bases.TOYS[name], extender(name)
    image = torch.full((3, *toy.size), 0.2) if toy.image else None
    first = stage.first("A cat running", image)
    overlap = {"helios": 9, "mochi": 7}.get(name, 5)
    memory = StreamMemory.start(first, overlap)
    moments = stage.moments(first)
    made = [stage.next(memory, "A cat running", 0, moments) for _ in range(2)]
    assert torch.equal(*made) and len(made[0]) == stage.frames - overlap
    state = StreamMemory.from_state(memory.state_dict())
    assert torch.equal(stage.next(state, "A cat running", 0, moments), made[0])
    assert not torch.equal(stage.next(memory.advance(made[0]), "A cat running", 0, moments), made[0])


def test_released_frames_are_shown_again_for_the_crossfade():
    stage = extender("modelscope", crossfade=2)
    memory = StreamMemory.start(stage.first("A cat running"), 6)
    plain, again = stage.next(memory, "A dog"), stage.next(memory, "A dog", again=2)
    assert len(again) == len(plain) + 2 and torch.equal(again[2:], plain)


def test_a_way_that_a_pipeline_has_not_is_refused_with_those_it_has():
    with pytest.raises(ModelError, match=r"how='mask'.*overlap"):
        extender("wan", config={"how": "mask"}).way  # noqa: B018
    assert extender("wan_vace", config={"how": "overlap"}).way == "overlap"
    assert extender("ltx", config={"how": "overlap"}).continuing.__name__ == "LTXPipeline"
    assert extender("ltx").continuing.__name__ == "LTXConditionPipeline"
    assert extender("ltx_image").continuing.__name__ == "LTXImageToVideoPipeline"  # its schedule is shifted by the size


def test_steps_are_reported_and_cancel_in_every_kind():
    for name in ("wan", "skyreels_df"):
        seen: list[tuple[int, int]] = []
        extender(name, on_step=lambda step, steps, seen=seen: seen.append((step, steps))).first("A cat")
        assert seen[-1][0] == seen[-1][1] >= 2

        def stop(step: int, steps: int) -> None:
            raise KeyboardInterrupt

        own = pipeline(name).scheduler
        with pytest.raises(KeyboardInterrupt):
            extender(name, on_step=stop).first("A cat")
        assert pipeline(name).scheduler is own


@pytest.mark.parametrize("name", ["modelscope", "cogvideox", "ltx"])
def test_prompt_and_noise_reach_later_chunks(name):
    stage = extender(name, config={"guidance_scale": 3.0})
    first = stage.first("A cat running")
    memory = StreamMemory.start(first, 5)
    cat = stage.next(memory, "A cat running")
    assert not torch.equal(stage.next(memory, "A whale floating in the deep sea"), cat)
    assert not torch.equal(extender(name, seed=2, config={"guidance_scale": 3.0}).next(memory, "A cat running"), cat)
