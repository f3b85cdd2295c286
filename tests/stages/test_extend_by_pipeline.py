"""Chunk after chunk by pipelines of diffusers: real classes at toy size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import toy_bases
from streamingt2v.config import ExtendConfig
from streamingt2v.config.external import ExtendByConfig
from streamingt2v.errors import ModelError
from streamingt2v.stages.extend_by_pipeline import PipelineExtendStage
from streamingt2v.stages.protocols import Words

NAMES = ("animatediff_dpm", "cogvideox_dpm", "wan_unipc", "wan22", "wan22_image")
"""Other schedulers and networks of classes whose whole streams `test_every_pipeline` makes."""


pipeline = toy_bases.built


def words(prompt: str = "A cat running") -> Words:
    return Words(lambda *texts: None, "", lambda frame: prompt)  # type: ignore[arg-type, return-value]


def extender(
    name: str, crossfade: int = 0, overlap: int | None = None, seed: int = 1, on_step=None, **by: Any
) -> PipelineExtendStage:
    frames = {"mochi": 13, "latte": 16, "helios": 42}.get(name, 13)
    overlap = overlap or {"helios": 9, "mochi": 7}.get(name, 5)
    config = ExtendConfig(frames, overlap, crossfade=crossfade)
    return PipelineExtendStage(
        pipeline(name),
        ExtendByConfig("", **{"steps": 2, **by}),
        config,
        toy_bases.TOYS[name].size,
        8,
        seed,
        on_step,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_goes_on_exactly_and_again_the_same(name):
    toy, stage = toy_bases.TOYS[name], extender(name)
    image = (lambda height, width: torch.full((3, height, width), 0.2)) if toy.image else None
    memory = stage.memory(stage.first(words(), image))
    made = [stage.next(memory, words(), 13) for _ in range(2)]
    assert torch.equal(*made) and len(made[0]) == stage.config.frames - stage.config.overlap
    assert torch.equal(stage.next(stage.restored(memory.state_dict()), words(), 13), made[0])
    assert not torch.equal(stage.next(memory.advance(made[0]), words(), 13), made[0])


def test_released_frames_are_shown_again_for_the_crossfade():
    stage = extender("modelscope", crossfade=2, overlap=6)
    memory = stage.memory(stage.first(words()))
    plain, again = stage.next(memory, words("A dog"), 13), stage.next(memory, words("A dog"), 13, again=2)
    assert len(again) == len(plain) + 2 and torch.equal(again[2:], plain)


def test_a_way_that_a_pipeline_has_not_is_refused_with_those_it_has():
    with pytest.raises(ModelError, match=r"how='mask'.*overlap"):
        extender("wan", how="mask").way  # noqa: B018
    assert extender("wan_vace", how="overlap").way == "overlap"
    assert extender("ltx", how="overlap").continuing.__name__ == "LTXPipeline"
    assert extender("ltx").continuing.__name__ == "LTXConditionPipeline"
    assert (
        extender("ltx_image").continuing.__name__ == "LTXImageToVideoPipeline"
    )  # its schedule is shifted by the size


def test_steps_are_reported_and_cancel_in_every_kind():
    for name in ("wan", "skyreels_df"):
        seen: list[tuple[int, int]] = []
        extender(name, on_step=lambda step, steps, seen=seen: seen.append((step, steps))).first(words())
        assert seen[-1][0] == seen[-1][1] >= 2

        def stop(step: int, steps: int) -> None:
            raise KeyboardInterrupt

        own = pipeline(name).scheduler
        with pytest.raises(KeyboardInterrupt):
            extender(name, on_step=stop).first(words())
        assert pipeline(name).scheduler is own


@pytest.mark.parametrize("name", ["modelscope", "cogvideox", "ltx"])
def test_prompt_and_noise_reach_later_chunks(name):
    stage = extender(name, guidance_scale=3.0)
    memory = stage.memory(stage.first(words()))
    cat = stage.next(memory, words(), 13)
    assert not torch.equal(stage.next(memory, words("A whale floating in the deep sea"), 13), cat)
    assert not torch.equal(extender(name, seed=2, guidance_scale=3.0).next(memory, words(), 13), cat)
