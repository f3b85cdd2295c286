"""Stage 3 by pipelines with randomized blending at every step: real classes at toy size."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import toy_bases
from streamingt2v.config.refine import RefineByConfig
from streamingt2v.runs.state import pack_state, unpack_state
from streamingt2v.stages.refine_by_steps import Grid, SplicedRefineStage
from streamingt2v.video.piece import Piece

VIDEO = ("animatediff_video", "cogvideox_video", "wan_video", "modelscope_video")
TEXT = ("wan", "hunyuan", "ltx", "mochi", "skyreels", "animatediff", "easyanimate", "cogvideox")


pipeline = toy_bases.built


def stage_of(name: str, total: int | None, **changes: Any) -> SplicedRefineStage:
    toy = toy_bases.TOYS[name]
    config = RefineByConfig(
        "", **{"frames": 9, "overlap": 5, "scale": 1, "steps": 4, "strength": 0.6, **changes}
    )
    if name == "mochi":
        config = replace(config, frames=13, overlap=7)
    return SplicedRefineStage(lambda: nullcontext(pipeline(name)), config, 5, total, toy.size)


def pieces_of(total: int, size: tuple[int, int], length: int = 6) -> list[Piece]:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(total, 3, 4, 4, generator=generator).cumsum(0) % 1
    frames = torch.nn.functional.interpolate(coarse, size, mode="bilinear") * 2 - 1
    parts = list(frames.split(length))
    return [Piece(part, {"done": i}, i == len(parts) - 1) for i, part in enumerate(parts)]


def run(stage: SplicedRefineStage, total: int, state=None, skip: int = 0) -> list[Piece]:
    return list(stage.stream(pieces_of(total, stage.size)[skip:], lambda frame: "A cat running", state))


@given(
    frames=st.integers(2, 60),
    overlap=st.integers(0, 59),
    ratio=st.sampled_from([1, 4, 6, 8]),
    total=st.integers(1, 200),
)
def test_windows_give_every_frame_once(frames, overlap, ratio, total):
    grid = Grid.fitting(RefineByConfig("", frames=frames, overlap=min(overlap, frames - 1)), ratio)
    assert (grid.frames - 1) % ratio == 0 and grid.stride % ratio == 0 and grid.stride > 0
    plan = list(grid.windows(total))
    given_out: list[int] = []
    for number, window in enumerate(plan):
        final = number == len(plan) - 1
        first = grid.given_late if number else 0
        given_out += list(
            range(
                window.start + first, window.stop if final else window.start + grid.stride + grid.given_late
            )
        )
        assert final or len(window) == grid.frames
    assert given_out == list(range(total))


@pytest.mark.parametrize("name", toy_bases.lanes([*VIDEO, *TEXT, "ltx2", "hunyuan15", "motif", "kandinsky5"]))
def test_exact_counts_and_the_same_bytes_after_a_resume(name):
    total = 17
    stage = stage_of(name, total, steps=2)
    pieces = run(stage, total)
    whole = torch.cat([piece.frames_TCHW for piece in pieces])
    assert len(whole) == total and [p.final for p in pieces] == [False] * (len(pieces) - 1) + [True]
    middle = (len(pieces) - 1) // 2
    state = unpack_state(pack_state(pieces[middle].state))
    rest = run(stage, total, state, skip=int(state["done"]) + 1)
    assert torch.equal(torch.cat([p.frames_TCHW for p in [*pieces[: middle + 1], *rest]]), whole)


@pytest.mark.parametrize("total", [1, 4, 10])
def test_short_videos_come_out_whole(total):
    for name in ("wan_video", "cogvideox"):
        assert sum(len(piece.frames_TCHW) for piece in run(stage_of(name, total, steps=2), total)) == total


@pytest.mark.parametrize("name", ["animatediff_video", "cogvideox_video", "modelscope_video"])
def test_splicing_brings_windows_nearer_than_shared_noise_and_that_nearer_than_noise_apart(name, monkeypatch):
    """Mean difference of two windows' last latents in their overlap."""
    sizes = {"frames": 17, "overlap": 13} if name == "cogvideox_video" else {"frames": 9, "overlap": 5}

    def difference(**patches: Any) -> float:
        from streamingt2v.external.steering import SplicedWindow

        kept: list[SplicedWindow] = []

        class Kept(SplicedWindow):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                kept.append(self)
                if patches.get("left") is False:
                    self.left = {}
                if patches.get("shared") is False:
                    own = self.noise_of
                    self.noise_of = lambda shape: own(shape).roll(len(kept), -1) * (-1) ** len(kept)

        with monkeypatch.context() as patch:
            patch.setattr("streamingt2v.stages.refine_by_steps.SplicedWindow", Kept)
            run(stage_of(name, 21, **sizes, strength=0.9), 21)
        ratio = 4 if name == "cogvideox_video" else 1
        grid = Grid.fitting(RefineByConfig("", **sizes), ratio)
        first, second = kept[0], kept[1]
        step = max(first.made)
        skip = grid.given_late
        left = first.made[step].narrow(first.axis, grid.stride // ratio + skip, grid.shared - skip)
        right = second.made[step].narrow(first.axis, skip, grid.shared - skip)
        return float((left - right).abs().mean())

    spliced, shared, apart = difference(), difference(left=False), difference(left=False, shared=False)
    assert spliced < shared < apart


@pytest.mark.parametrize("name", TEXT)
def test_a_text_to_video_pipeline_redraws_more_at_a_higher_strength(name):
    total = 9 if name != "mochi" else 13
    source = torch.cat([p.frames_TCHW for p in pieces_of(total, toy_bases.TOYS[name].size)])
    weak, strong = (
        torch.cat([p.frames_TCHW for p in run(stage_of(name, total, steps=8, strength=s), total)])
        for s in (0.25, 0.75)
    )
    assert not torch.equal(weak, strong) and not torch.equal(weak, source)


def test_steps_are_reported_and_cancel():
    seen: list[tuple[int, int]] = []
    stage = replace(stage_of("wan_video", 9), on_step=lambda step, steps: seen.append((step, steps)))
    run(stage, 9)
    assert seen and seen[-1][0] == seen[-1][1]
    plain = pipeline("wan_video").scheduler

    def stop(step: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(replace(stage, on_step=stop), 9)
    assert pipeline("wan_video").scheduler is plain
