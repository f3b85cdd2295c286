"""The last frames of a chunk turn into the next chunk's version of them, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from streamingt2v import LongVideoPipeline, Request
from streamingt2v.config import ExtendConfig
from streamingt2v.errors import ModelError
from streamingt2v.runs.state import pack_state, unpack_state
from streamingt2v.stages.extend import faded
from streamingt2v.stages.making import extender
from streamingt2v.stages.protocols import Words
from toy import write_toy_model

FADE = 3


@pytest.fixture(scope="module")
def longest(pipe) -> Callable[[int], np.ndarray]:
    """Return 40 frames with a fade of this length, made once."""
    return cache(lambda fade: frames_of(fading(pipe, fade), request(40)))


@pytest.fixture(scope="module")
def pipe(tmp_path_factory) -> LongVideoPipeline:
    return LongVideoPipeline.from_pretrained(write_toy_model(tmp_path_factory.mktemp("crossfade") / "toy"))


def fading(pipe: LongVideoPipeline, frames: int) -> LongVideoPipeline:
    config = replace(pipe.config, extend=replace(pipe.config.extend, crossfade=frames))
    return LongVideoPipeline(replace(pipe.components, config=config))


def request(frames: int | None, **more) -> Request:
    return Request("A cat", frames, seed=3, num_inference_steps=2, **more)


def frames_of(pipe: LongVideoPipeline, asked: Request) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in pipe.stream(asked)])


def test_only_the_frames_before_a_later_chunk_change(pipe, longest):
    hard, soft = frames_of(pipe, request(40)), longest(FADE)
    changed = {int(i) for i in np.flatnonzero((hard != soft).any((1, 2, 3)))}
    assert changed == {13, 14, 15, 21, 22, 23, 29, 30, 31}


def test_a_fade_takes_even_steps_between_what_both_chunks_show(pipe):
    """The window's frames against those that the stage shows again, by hand."""
    soft, asked = fading(pipe, FADE), request(24)
    stage, words = (
        extender(soft.components, soft.resolve(asked)),
        Words(soft.components.text, "", asked.prompt_at),
    )
    first = stage.first(words, None)
    later = stage.next(stage.memory(first), words, 16, FADE)
    assert len(later) == FADE + 8
    wanted = [
        (1 - share) * old + share * new
        for share, old, new in zip((0.25, 0.5, 0.75), first[-FADE:], later, strict=False)
    ]
    shown = frames_of(soft, asked)[16 - FADE : 16]
    np.testing.assert_allclose(
        shown, ((torch.stack(wanted).clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1), atol=1
    )


@settings(max_examples=7, deadline=None)
@given(total=st.integers(1, 34), fade=st.integers(1, 7))
def test_any_length_is_met_exactly_and_begins_like_a_longer_video(pipe, longest, total, fade):
    soft = fading(pipe, fade)
    chunks = list(soft.stream(request(total)))
    frames = np.concatenate([chunk.frames for chunk in chunks])
    assert len(frames) == total and all(len(chunk.frames) for chunk in chunks)
    assert [chunk.final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    settled = max(0, total - fade)  # its own last frames turn into nothing
    np.testing.assert_array_equal(frames[:settled], longest(fade)[:settled])


def test_an_endless_stream_gives_the_same_frames(pipe, longest):
    soft, chunks = fading(pipe, FADE), []
    for chunk in soft.stream(request(None)):
        chunks.append(chunk.frames)
        if len(chunks) == 4:
            break
    frames = np.concatenate(chunks)
    assert len(frames) == 13 + 3 * 8
    np.testing.assert_array_equal(frames, longest(FADE)[: len(frames)])


@pytest.mark.parametrize("preset", ["preview", "full"])
def test_a_stream_goes_on_after_any_chunk_with_the_same_bytes(pipe, preset):
    soft, asked = fading(pipe, FADE), request(36, preset=preset)
    chunks = list(soft.stream(asked))
    for number, chunk in enumerate(chunks[:-1]):
        rest = list(soft.stream(asked, unpack_state(pack_state(chunk.state))))
        np.testing.assert_array_equal(
            np.concatenate([c.frames for c in rest]), np.concatenate([c.frames for c in chunks[number + 1 :]])
        )


def test_a_given_picture_stays_as_it_is(pipe, tmp_path):
    side = pipe.config.height
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    asked = request(20, image=str(tmp_path / "picture.png"))
    hard, soft = frames_of(pipe, asked), frames_of(fading(pipe, FADE), asked)
    np.testing.assert_array_equal(soft[0], picture)
    assert {int(i) for i in np.flatnonzero((hard != soft).any((1, 2, 3)))} == {6, 7, 8, 14, 15, 16}


def test_a_chunk_asks_for_its_prompt_at_its_own_first_frame(pipe):
    asked_at: list[int] = []

    def prompt_at(frame: int) -> str:
        asked_at.append(frame)
        return "A cat"

    assert len(list(fading(pipe, FADE).stream(request(32), prompt_at=prompt_at)))
    assert set(asked_at) == {0, 16, 24}


def test_faded_is_between_both_and_reaches_neither():
    old, new = torch.zeros(4, 1, 1, 1), torch.ones(4, 1, 1, 1)
    torch.testing.assert_close(faded(old, new).flatten(), torch.tensor([0.2, 0.4, 0.6, 0.8]))
    assert torch.equal(faded(new, new), new)


@pytest.mark.parametrize("wrong", [-1, 8, 16])
def test_a_fade_must_fit_into_overlap_and_new_frames(wrong):
    with pytest.raises(ModelError, match="crossfade"):
        ExtendConfig(frames=16, overlap=8, crossfade=wrong)
