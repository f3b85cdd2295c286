"""Whole streams by every class of pipelines of diffusers: real classes at toy size.

Each class makes one video of 81 frames; all tests of a class use it. A chunk resumed from its state is
compared with the next chunk and its state, so by induction the rest of the video is the same too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import toy_bases
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.backbones.text import NoText
from streamingt2v.checkpoints.load import Components
from streamingt2v.config import ExtendConfig, ModelConfig
from streamingt2v.config.external import ExtendByConfig
from streamingt2v.external import abilities, as_model, families
from streamingt2v.runs.state import pack_state, unpack_state
from streamingt2v.stages.extend_by_pipeline import PipelineExtendStage
from streamingt2v.types import Chunk

PROMPT, WHALE = "A cat running on the street", "A whale floating in the deep sea"
FRAMES = 81
KINDS = {
    "ltx": "conditions", "wan_vace": "mask", "helios": "history", "skyreels_df": "forcing",
    "anyflow": "context",
    "cosmos2": "world", "wan_image": "image", "wan": "overlap",
}  # fmt: skip
"""One class for each way to continue."""
SAME_CLASS = ("animatediff_dpm", "cogvideox_dpm", "wan_unipc", "wan22", "wan22_image")
NAMES = [n for n in toy_bases.TOYS if not n.endswith("_video") and n not in (*SAME_CLASS, "allegro")]
"""Allegro's toy cannot encode a window."""
CHUNKS = {
    "mochi": (37, 13, 0), "latte": (16, 5, 4), "svd": (16, 5, 4), "helios": (42, 9, 4), "cosmos2": (29, 9, 4),
    "animatediff": (32, 6, 4),
}  # fmt: skip
"""Frames, overlap and crossfade where (33, 9, 4) does not fit."""
SILENT = ("svd",)
"""Reads no prompt."""


@dataclass
class Trip:
    """A video that a class made once: its chunks, and the clips that the pipeline was asked for."""

    pipe: LongVideoPipeline
    image: Image.Image | None
    chunks: list[Chunk] = field(default_factory=list)
    clips: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict)

    @property
    def frames(self) -> np.ndarray:
        return frames_of(self.chunks)

    @property
    def second(self) -> int:
        """First frame of the second chunk."""
        return self.pipe.config.extend.frames

    def stream(self, frames: int = FRAMES, after: int | None = None, **more: Any) -> Iterator[Chunk]:
        """Make a video of this many frames, or its rest after a chunk of the trip."""
        state = None if after is None else unpack_state(pack_state(self.chunks[after].state))
        on_step = more.pop("on_step", None)
        image = {} if self.image is None else {"image": self.image}
        return self.pipe.stream(PROMPT, state, on_step, num_frames=frames, **image, **more)


def frames_of(chunks: Any) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in chunks])


@pytest.fixture(scope="module")
def trip(tmp_path_factory) -> Callable[[str], Trip]:
    """Return a function: the trip of a toy, made at the first call."""
    made: dict[str, Trip] = {}

    def get(name: str) -> Trip:
        if name not in made:
            made[name] = _started(name, tmp_path_factory.mktemp(name))
            with clips(lambda make, stage, position: _kept(made[name].clips, make, stage, position)):
                made[name].chunks = list(made[name].stream())
        return made[name]

    return get


def _started(name: str, folder) -> Trip:
    """A toy in memory as a model. Its folder holds no weights, only what tells the class."""
    pipe, toy = toy_bases.built(name), toy_bases.TOYS[name]
    pipe.save_config(folder)
    pipe.scheduler.save_pretrained(folder / "scheduler")
    frames, overlap, crossfade = CHUNKS.get(name, (33, 9, 4))
    by = ExtendByConfig(
        str(folder), image=abilities.abilities(type(pipe)).image,
        steps=families.family(type(pipe)).least_steps,
        guidance_scale=3.0,
    )  # fmt: skip
    extend = ExtendConfig(frames, overlap, crossfade=crossfade)
    config = ModelConfig(name, *toy.size, 8, extend, backbone="pipeline", extend_by=by)
    image = Image.new("RGB", (40, 40), (200, 90, 30)) if toy.image else None
    return Trip(LongVideoPipeline(Components(config, NoText(), None, None, None, pipeline=pipe), name), image)


def _kept(clips: dict, make: Callable[[], torch.Tensor], *key: Any) -> torch.Tensor:
    clips[key] = make()
    return clips[key]


@contextmanager
def clips(get: Callable[[Callable[[], torch.Tensor], str, int], torch.Tensor]) -> Iterator[None]:
    """Ask `get` for the clip of a stage and position, instead of the pipeline; it may call the pipeline."""
    own = PipelineExtendStage._clip

    def clip(self, pipe, words, frame, stage, position, goes):
        return get(lambda: own(self, pipe, words, frame, stage, position, goes), stage, position)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PipelineExtendStage, "_clip", clip)
        yield


def test_there_are_at_least_25_classes():
    assert len({type(toy_bases.built(name)) for name in NAMES}) == len(NAMES) >= 25


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in KINDS else pytest.mark.slow) for n in NAMES]
)
def test_counts_are_exact_in_a_state_that_does_not_grow(trip, name):
    """Shorter videos are the beginning of longer ones, and ask for no other clips."""
    whole = trip(name)
    assert whole.frames.shape == (FRAMES, *toy_bases.TOYS[name].size, 3) and whole.chunks[-1].final
    assert name not in KINDS or as_model.way_of(whole.pipe.config) == KINDS[name]
    with clips(lambda make, stage, position: whole.clips[stage, position]):
        for count in (1, 17, 30, whole.second + 1, FRAMES - 1):
            chunks = list(whole.stream(count))
            same = max(1, count - 4)  # the last ones are crossfaded where the video goes on
            assert [chunk.final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
            assert np.array_equal(frames_of(chunks)[:same], whole.frames[:same])
            assert len(frames_of(chunks)) == count
    sizes = [len(pack_state(chunk.state)) for chunk in whole.chunks[:-1]]
    assert max(sizes) - min(sizes) < 64 and len({tuple(chunk.state) for chunk in whole.chunks}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_after_every_chunk_it_resumes_to_the_same_frames_and_state(trip, name):
    whole = trip(name)
    for before, chunk in enumerate(whole.chunks[1:]):
        again = next(whole.stream(after=before))
        assert np.array_equal(again.frames, chunk.frames)
        assert (again.index, again.start, again.final) == (chunk.index, chunk.start, chunk.final)
        assert pack_state(again.state) == pack_state(chunk.state)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_new_prompt_reaches_the_next_chunk_and_it_is_cancelled_within(trip, name, monkeypatch):
    """Toy networks may hide a prompt in 8 bits, so what the decoder gets is compared."""
    whole, pipe, scheduler = trip(name), toy_bases.built(name), toy_bases.built(name).scheduler
    latents: list[torch.Tensor] = []
    decode = pipe.vae.decode
    monkeypatch.setattr(
        pipe.vae, "decode", lambda z, *a, **k: (latents.append(z.clone()), decode(z, *a, **k))[1]
    )
    decoded = []
    for more in ({}, {"schedule": ((whole.second, WHALE),)}):
        latents.clear()
        next(whole.stream(after=0, **more))
        decoded.append(torch.cat([part.flatten() for part in latents]))
    assert torch.equal(*decoded) == (name in SILENT)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(whole.stream(after=0, on_step=stop))
    assert pipe.scheduler is scheduler


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modelscope", "cogvideox_image", "ltx2_image", "hunyuan"])
def test_a_prompt_turns_into_another_over_chunks(trip, name):
    """The first chunk after the change lies between both prompts: neither of them."""
    whole = trip(name)
    schedule = ((whole.second, WHALE),)
    mixed = next(whole.stream(after=0, schedule=schedule, transition_chunks=2)).frames
    for other in (whole.chunks[1], next(whole.stream(after=0, schedule=schedule))):
        assert not np.array_equal(mixed, other.frames)


def test_a_request_is_checked_against_the_class(trip):
    """A toy without weights in its folder is resolved as any model is."""
    asked = trip("wan").pipe.resolve(Request(PROMPT, FRAMES))
    assert asked.extend_by is not None and asked.extend_by.how == "overlap"
