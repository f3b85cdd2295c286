"""Stage 3 by pipelines: windows joined in pixels, exact counts, a stream that resumes;
with real pipelines at toy size."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import toy_pipelines
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.config import ModelConfig
from streamingt2v.config.refine import RefineByConfig
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.runs.state import pack_state, unpack_state
from streamingt2v.stages.refine_by_pipeline import PipelineRefineStage
from streamingt2v.video.piece import Piece
from streamingt2v.video.writer import write_video
from toy import write_toy_model

PROMPT = "A cat running on the street"


class Brighten:
    """A pipeline's signature; what it gives is its video, one level brighter with every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def __call__(self, prompt, video, strength, num_inference_steps=3, generator=None, output_type="pil"):
        self.calls.append((prompt, len(video)))
        frames = np.stack([np.asarray(frame) for frame in video]) / 255
        return SimpleNamespace(frames=[np.clip(frames + len(self.calls) / 255, 0, 1)])


def stage_of(pipe: Brighten, total: int | None, **changes) -> PipelineRefineStage:
    config = RefineByConfig("", **{"frames": 6, "overlap": 2, "scale": 1, **changes})
    return PipelineRefineStage(lambda: nullcontext(pipe), config, 0, total, (4, 4))


def pieces_of(total: int, length: int) -> list[Piece]:
    """Frame i is i levels bright."""
    frames_TCHW = (torch.arange(total) / 127.5 - 1)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()
    parts = list(frames_TCHW.split(length))
    return [Piece(part, {"done": i}, i == len(parts) - 1) for i, part in enumerate(parts)]


def levels(pieces) -> torch.Tensor:
    """Return how much brighter each frame came out."""
    frames_TCHW = torch.cat([piece.frames_TCHW for piece in pieces])
    return ((frames_TCHW[:, 0, 0, 0] + 1) * 127.5) - torch.arange(len(frames_TCHW))


@settings(max_examples=30, deadline=None)
@given(
    total=st.integers(1, 40), length=st.integers(1, 9), frames=st.integers(2, 8), overlap=st.integers(0, 7),
    seam=st.sampled_from(["cut", "fade"]),
)  # fmt: skip
def test_every_frame_comes_once_and_from_its_windows(total, length, frames, overlap, seam):
    overlap = min(overlap, frames - 1)
    pipe = Brighten()
    made = list(
        stage_of(pipe, total, frames=frames, overlap=overlap, seam=seam).stream(
            pieces_of(total, length), lambda frame: PROMPT
        )
    )
    assert [piece.final for piece in made] == [False] * (len(made) - 1) + [True] and all(
        len(piece.frames_TCHW) for piece in made
    )
    brighter = levels(made)
    assert len(brighter) == total and (brighter > 0.99).all() and (brighter.diff() > -1e-3).all(), (
        "later windows take over, in order"
    )
    assert brighter[-1] == pytest.approx(len(pipe.calls), abs=1e-2)
    assert max(count for _, count in pipe.calls) <= frames


def test_the_seam_is_a_cut_at_random_or_a_fade():
    fade = levels(stage_of(Brighten(), 10, seam="fade").stream(pieces_of(10, 10), lambda frame: PROMPT))
    assert torch.allclose(fade, torch.tensor([1, 1, 1, 1, 4 / 3, 5 / 3, 2, 2, 2, 2]), atol=1e-3)
    cuts = set()
    for seed in range(12):
        stage = replace(stage_of(Brighten(), 10), seed=seed)
        cut = levels(stage.stream(pieces_of(10, 10), lambda frame: PROMPT)).round().int().tolist()
        cuts.add(cut.index(2))
        assert set(cut) == {1, 2}
    assert cuts == {4, 5, 6}


def test_a_window_follows_the_prompt_of_the_middle_of_what_it_gives():
    pipe = Brighten()
    list(stage_of(pipe, 14).stream(pieces_of(14, 5), lambda frame: str(frame)))
    assert [prompt for prompt, _ in pipe.calls] == ["1", "5", "10"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("models")
    write_toy_model(home / "toy", refiner=False)
    for name in ("modelscope_video_to_video", "cogvideox_video_to_video", "modelscope"):
        getattr(toy_pipelines, name)(home / name)
    return home


def with_refiner(home: Path, **values) -> LongVideoPipeline:
    """The toy model with stage 3 by a pipeline, from its folder."""
    config = json.loads((home / "toy" / "model.json").read_text())
    config["refine_by"] = {"frames": 8, "overlap": 3, "steps": 2, "strength": 0.5, **values}
    (home / "toy" / "model.json").write_text(json.dumps(config))
    return LongVideoPipeline.from_pretrained(home / "toy")


@pytest.mark.parametrize("name", ["modelscope_video_to_video", "cogvideox_video_to_video"])
def test_the_whole_trip(home, name):
    pipe = with_refiner(home, pipeline=f"../{name}")
    request = Request(PROMPT, 13, preset="full", num_inference_steps=1)
    chunks = list(pipe.stream(request))
    video = np.concatenate([chunk.frames for chunk in chunks])
    assert video.shape == (13, 64, 64, 3) and chunks[-1].final
    rest = pipe.stream(request, unpack_state(pack_state(chunks[0].state)))
    assert np.array_equal(np.concatenate([c.frames for c in [chunks[0], *rest]]), video)
    other = next(pipe.stream(replace(request, seed=1))).frames
    assert not np.array_equal(other, video[: len(other)])
    assert next(pipe.stream(replace(request, preset="preview"))).frames.shape[1:] == (32, 32, 3)


@pytest.mark.parametrize(
    "values", [{"overlap": 8}, {"strength": 0.0}, {"steps": 1}, {"seam": "blur"}, {"scale": 0}]
)
def test_a_pipeline_or_settings_that_cannot_refine_are_refused(home, values):
    with pytest.raises(ModelError, match=next(iter(values))):
        with_refiner(home, **{"pipeline": "../modelscope_video_to_video", **values}).resolve(
            Request(PROMPT, 8, preset="full")
        )


def test_one_refiner_is_enough():
    from streamingt2v.config import RefineConfig

    with pytest.raises(ModelError, match="refine_by"):
        ModelConfig("m", 32, 32, 8, refine=RefineConfig(), refine_by=RefineByConfig("p"))


def test_a_video_is_refined_as_asked(home, tmp_path):
    """`refine` with a pipeline: steps, guidance and strength of the request reach it;
    with `generate` steps are those of stages 1 and 2."""
    pipe = with_refiner(home, pipeline="../modelscope_video_to_video", frames=3, overlap=1)
    rng = np.random.default_rng(0)
    write_video(
        tmp_path / "in.mp4", [rng.integers(256, size=(64, 64, 3), dtype=np.uint8) for _ in range(4)], 8
    )
    request = Request(PROMPT, None, refine=str(tmp_path / "in.mp4"), preset="full")

    def video(**changes) -> np.ndarray:
        return np.concatenate([chunk.frames for chunk in pipe.stream(replace(request, **changes))])

    plain = video()
    assert plain.shape == (4, 64, 64, 3)
    for change in ({"num_inference_steps": 4}, {"guidance_scale": 2.0}, {"strength": 1.0}):
        assert not np.array_equal(plain, video(**change)), change
    for change in ({"strength": 0.1}, {"num_inference_steps": 1}, {"form": "joint"}):
        (argument,) = change
        with pytest.raises(RequestError, match=argument):
            video(**change)
