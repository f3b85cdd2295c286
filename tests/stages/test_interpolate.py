"""Frames between frames: exact counts, the model's own frames among them, motion that is followed,
and a stream that resumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingt2v import LongVideoPipeline, Request
from streamingt2v.config import ModelConfig
from streamingt2v.errors import MissingExtra, RequestError
from streamingt2v.resolve import resolve
from streamingt2v.runs.state import pack_state, unpack_state
from streamingt2v.stages.interpolate import InterpolateStage
from streamingt2v.video.piece import Piece
from toy import write_toy_model

PROMPT = "A cat running on the street"


def video(frames: int, speed: float = 3.0) -> torch.Tensor:
    """(T, 3, 48, 64): a soft textured disc that moves to the right before a still background."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    background = 0.3 * torch.sin(x / 5) * torch.cos(y / 4) - 0.4
    made = []
    for t in range(frames):
        dx, dy = x - 16 - speed * t, y - 24
        disc = torch.sigmoid(2 * (10 - (dx.square() + dy.square()).sqrt()))
        made.append((1 - disc) * background + disc * (0.5 + 0.4 * torch.sin(dx) * torch.cos(dy)))
    return torch.stack(made)[:, None].expand(-1, 3, -1, -1).clamp(-1, 1).contiguous()


def pieces_of(frames_TCHW: torch.Tensor, lengths: list[int]) -> list[Piece]:
    parts = list(frames_TCHW.split(lengths))
    return [Piece(part, {"done": i}, i == len(parts) - 1) for i, part in enumerate(parts)]


def test_a_moving_thing_is_between_its_places():
    """The frame left out is met better than by a cross-fade or by holding the frame before."""
    truth = video(3, speed=2.0)
    (piece,) = InterpolateStage(2, None).stream(pieces_of(truth[::2], [2]))
    error = (piece.frames_TCHW[1] - truth[1]).square().mean()
    fade = ((truth[0] + truth[2]) / 2 - truth[1]).square().mean()
    assert error < fade / 4 and error < (truth[0] - truth[1]).square().mean() / 4
    assert torch.equal(piece.frames_TCHW[::2], truth[::2])


@settings(max_examples=20, deadline=None)
@given(
    total=st.integers(1, 40),
    factor=st.integers(2, 5),
    cuts=st.lists(st.integers(1, 6), min_size=1, max_size=12),
)
def test_exactly_the_frames_asked_for_whatever_the_pieces(total, factor, cuts):
    """The stages before get enough frames, and none without use."""
    config = ModelConfig("m", 48, 64, 8)
    native = resolve(config, Request(PROMPT, total, fps=8 * factor)).made_frames
    assert factor * (native - 2) + 1 < total <= factor * (native - 1) + 1
    lengths = []
    while sum(lengths) < native:
        lengths.append(min(cuts[len(lengths) % len(cuts)], native - sum(lengths)))
    source = torch.linspace(-1, 1, native)[:, None, None, None].expand(-1, 3, 16, 16).contiguous()
    made = list(InterpolateStage(factor, total).stream(pieces_of(source, lengths)))
    assert all(len(piece.frames_TCHW) for piece in made) and [piece.final for piece in made] == [False] * (
        len(made) - 1
    ) + [True]
    whole = torch.cat([piece.frames_TCHW for piece in made])
    assert len(whole) == total and torch.equal(whole[::factor], source[: len(whole[::factor])])


def test_the_cut_into_pieces_has_no_say_and_a_stream_resumes():
    source = video(7)
    whole = torch.cat([p.frames_TCHW for p in InterpolateStage(3, 18).stream(pieces_of(source, [7]))])
    parts = pieces_of(source, [3, 1, 3])
    made = list(InterpolateStage(3, 18).stream(parts))
    assert torch.equal(torch.cat([p.frames_TCHW for p in made]), whole)
    for kept in (1, 2):
        rest = InterpolateStage(3, 18).stream(parts[kept:], unpack_state(pack_state(made[kept - 1].state)))
        assert torch.equal(torch.cat([p.frames_TCHW for p in [*made[:kept], *rest]]), whole)


def test_the_whole_trip_at_a_higher_rate(tmp_path):
    pipe = LongVideoPipeline.from_pretrained(write_toy_model(tmp_path / "toy"))
    request = Request(
        PROMPT,
        38,
        preset="full",
        num_inference_steps=1,
        fps=16,
        schedule=((17, "A whale floating under water"),),
    )
    chunks = list(pipe.stream(request))
    video = np.concatenate([chunk.frames for chunk in chunks])
    assert (
        len(video) == 38
        and chunks[-1].final
        and [c.start for c in chunks] == list(np.cumsum([0, *(len(c.frames) for c in chunks[:-1])]))
    )
    slow = Request(
        PROMPT, 20, preset="full", num_inference_steps=1, schedule=((9, "A whale floating under water"),)
    )
    assert np.array_equal(video[::2], np.concatenate([chunk.frames for chunk in pipe.stream(slow)])[:19])
    rest = list(pipe.stream(request, unpack_state(pack_state(chunks[0].state))))
    assert np.array_equal(np.concatenate([c.frames for c in [chunks[0], *rest]]), video)


@pytest.mark.parametrize("fps, says", [(20, "set 16 or 24, or less"), (9, "set 8 or 16, or less")])
def test_a_rate_between_multiples_is_refused(fps, says):
    with pytest.raises(RequestError, match=says):
        resolve(ModelConfig("m", 48, 64, 8), Request(PROMPT, 8, fps=fps))


def test_a_higher_rate_is_refused_where_it_cannot_be_made(monkeypatch, tmp_path):
    config, request = ModelConfig("m", 48, 64, 8), Request(PROMPT, 8, fps=16)
    (tmp_path / "v.mp4").touch()
    with pytest.raises(RequestError, match="an extended video is not interpolated"):
        resolve(config, replace(request, video=str(tmp_path / "v.mp4")))
    resolve(config, request)
    monkeypatch.setattr("streamingt2v.resolve.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"streamingt2v\[interpolate\]"):
        resolve(config, request)
