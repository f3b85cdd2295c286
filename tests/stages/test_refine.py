"""Stage 3 as a stream: equal to the whole video in memory bit for bit, in any order of work,
and from any piece on."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.compare.whole import advance, plan_seams, solve
from streamingt2v.backbones.refiner import RefinerBackbone
from streamingt2v.config import RefineConfig
from streamingt2v.ray_backend import Alone
from streamingt2v.runs.state import pack_state, unpack_state
from streamingt2v.samplers import blend
from streamingt2v.samplers.noise import frame_noise, integer
from streamingt2v.samplers.sdedit import begin, model_input
from streamingt2v.stages.refine import RefineStage
from streamingt2v.stages.wavefront import Wavefront
from streamingt2v.types import TextCond
from streamingt2v.video.piece import Piece
from toy_networks import randn, stock

SEED = 5
SIZE = (2, 3)
WEIGHT = randn(3, 3, 3, 3, 3) * 0.1


class Toy:
    """A refiner whose latents are the pixels, and whose network looks at neighbouring frames,
    so that window borders matter."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def encode(self, frames_TCHW: torch.Tensor) -> torch.Tensor:
        self.calls.append(("encode", len(frames_TCHW)))
        return frames_TCHW.transpose(0, 1)[None] * 0.5

    def decode(self, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        self.calls.append(("decode", latents_BCTHW.shape[2]))
        return (latents_BCTHW[0].transpose(0, 1) * 2).contiguous()

    def velocity(
        self,
        latents_BCTHW: torch.Tensor,
        timesteps: list[int],
        texts: list[TextCond],
        scale: float,
        rescale: float,
    ):
        self.calls.append(("velocity", len(latents_BCTHW)))
        shift = torch.tensor(
            [float(t) / 1000 + float(text.positive_BLD) for t, text in zip(timesteps, texts, strict=True)]
        )
        # one by one: what is to be equal here is the work of windows, whatever the batch
        hidden = torch.cat([F.conv3d(one, WEIGHT, padding=1) for one in latents_BCTHW.split(1)])
        return torch.tanh(scale * hidden + shift.view(-1, 1, 1, 1, 1))


class Threads:
    """A crew of several that finishes its work in an order of its own."""

    def __init__(self, size: int):
        self.size, self._worker, self._pool = size, Toy(), ThreadPoolExecutor(size)

    def submit(self, method: str, *arguments: Any) -> Future:
        return self._pool.submit(
            self._late, random.Random(str(arguments[0].sum())).random() * 0.002, method, *arguments
        )

    def _late(self, seconds: float, method: str, *arguments: Any) -> torch.Tensor:
        time.sleep(seconds)
        return getattr(self._worker, method)(*arguments)


def text_at(frame: int) -> TextCond:
    return TextCond(torch.tensor(frame / 50), torch.tensor(0.0))


def frames_of(total: int) -> torch.Tensor:
    return frame_noise(1, "video", range(total), 0, (3, *SIZE)).clamp(-1, 1)


def pieces(total: int, length: int, start: int = 0) -> Iterator[Piece]:
    """A video in pieces; each one's state tells how far it has come."""
    for first in range(start, total, length):
        last = min(first + length, total)
        yield Piece(frames_of(total)[first:last], {"source": last}, last == total)


def stage(config: RefineConfig, total: int | None, crew: Any = None) -> RefineStage:
    return RefineStage(crew or Alone(Toy()), config, SEED, total, SIZE)


def streamed(config: RefineConfig, total: int, length: int = 4, crew: Any = None) -> list[Piece]:
    return list(stage(config, total, crew).stream(pieces(total, length), text_at))


def pixels(made: list[Piece]) -> torch.Tensor:
    return torch.cat([piece.frames_TCHW for piece in made])


def offline(config: RefineConfig, total: int) -> torch.Tensor:
    """The whole video in memory, step by step, all windows at each."""
    toy, made = Toy(), stage(config, total)
    nodes, schedule = made.nodes, made.schedule
    windows = list(blend.windows(total, config.frames, config.overlap))
    owns = [range(w.start, after.start) for w, after in pairwise(windows)] + [windows[-1]]
    texts = [text_at((own.start + own.stop - 1) // 2) for own in owns]
    clean_BCTHW = toy.encode(frames_of(total))

    def noise(k: int, step: int) -> torch.Tensor:
        name = "refine" if config.shared_noise else f"refine {k}"
        return frame_noise(SEED, name, windows[k], step, (3, *SIZE)).transpose(0, 1)[None]

    def within(video: torch.Tensor, frames: range) -> torch.Tensor:
        return video[:, :, frames.start : frames.stop]

    numbers = range(len(windows))
    noised = [
        schedule.diffuse(within(clean_BCTHW, windows[k]), noise(k, -1), nodes[0].timestep) for k in numbers
    ]
    latents, previous = [begin(x, nodes) for x in noised], [None for _ in numbers]
    for step, node in enumerate(nodes):
        seams = plan_seams(
            windows, config.law, lambda number, high, step=step: integer(SEED, "blend", number, step, high)
        )

        def joined(parts: list[torch.Tensor], k: int) -> torch.Tensor:
            if config.blend != "random":
                return parts[k]
            known = len(windows) if config.form == "joint" else k + 1
            return within(blend.assemble(parts[:known], windows[:known], seams[:known]), windows[k])  # noqa: B023

        shown = [model_input(latents[k], node) for k in numbers]
        answers = [
            toy.velocity(shown[k], [node.timestep], [texts[k]], config.guidance_scale, 0.0) for k in numbers
        ]
        cleans = [schedule.clean_from_v(shown[k], answers[k], node.timestep) for k in numbers]
        if config.splice == "clean":
            cleans = [joined(cleans, k) for k in numbers]
        latents = [
            advance(nodes, step, latents[k], cleans[k], previous[k], lambda i, k=k: noise(k, i))
            for k in numbers
        ]
        if config.splice == "latents":
            latents = [joined(latents, k) for k in numbers]
        previous = cleans
    if config.blend == "linear":
        whole = blend.cross_fade(latents, windows, range(total))
    else:
        whole = torch.cat([latents[k][:, :, : len(owns[k])] for k in numbers], dim=2)
    return toy.decode(whole)


@st.composite
def configs(draw, **fixed: Any) -> RefineConfig:
    frames = draw(st.integers(1, 9))
    given_ = {
        "form": st.sampled_from(["joint", "causal"]),
        "law": st.sampled_from(["code", "paper"]),
        "splice": st.sampled_from(["clean", "latents"]),
        "blend": st.sampled_from(["random", "random", "random", "linear", "none"]),
        "shared_noise": st.booleans(),
        "steps": st.integers(1, 5),
    }
    values = {name: fixed[name] if name in fixed else draw(choice) for name, choice in given_.items()}
    return RefineConfig(frames, draw(st.integers(0, frames - 1)), 0.6, guidance_scale=2.0, **values)


@settings(max_examples=80, deadline=None)
@given(config=configs(), total=st.integers(1, 40), length=st.integers(1, 12))
def test_the_stream_is_the_whole_video_in_memory_bit_for_bit(config, total, length):
    """Every form, law, splice and control, any window, overlap (frames in many windows too),
    step count and length."""
    made = streamed(config, total, length)
    assert torch.equal(pixels(made), offline(config, total))
    assert [piece.final for piece in made] == [False] * (len(made) - 1) + [True]


@settings(max_examples=30, deadline=None)
@given(
    config=configs(form="joint", splice="clean", blend="random", shared_noise=True), total=st.integers(1, 40)
)
def test_the_joint_form_is_the_published_one(config, total):
    """One video-wide solver around all windows' predictions, blended at each step
    (method.md: Refining, Randomized blending)."""
    toy, made = Toy(), stage(config, total)
    windows = list(blend.windows(total, config.frames, config.overlap))
    owns = [range(w.start, after.start) for w, after in pairwise(windows)] + [windows[-1]]
    texts = [text_at((own.start + own.stop - 1) // 2) for own in owns]
    timesteps = [node.timestep for node in made.nodes]

    def predict_clean(x: torch.Tensor, timestep: int) -> torch.Tensor:
        shown = [x[:, :, window.start : window.stop].contiguous() for window in windows]
        answers = [
            toy.velocity(one, [timestep], [text], config.guidance_scale, 0.0)
            for one, text in zip(shown, texts, strict=True)
        ]
        parts = [
            made.schedule.clean_from_v(one, answer, timestep)
            for one, answer in zip(shown, answers, strict=True)
        ]
        step = timesteps.index(timestep)
        return blend.assemble(
            parts,
            windows,
            plan_seams(windows, config.law, lambda n, high: integer(SEED, "blend", n, step, high)),
        )

    def noise(step: int) -> torch.Tensor:
        return frame_noise(SEED, "refine", range(total), step, (3, *SIZE)).transpose(0, 1)[None]

    noised = made.schedule.diffuse(toy.encode(frames_of(total)), noise(-1), timesteps[0])
    (*_, last) = solve(predict_clean, noised, made.nodes, noise)
    assert torch.equal(pixels(streamed(config, total)), toy.decode(last.latents_BCTHW))


@settings(max_examples=15, deadline=None)
@given(config=configs(), total=st.integers(1, 30), length=st.integers(1, 8))
def test_resumed_after_any_piece_it_goes_on_bit_for_bit(config, total, length):
    whole = streamed(config, total, length)
    for kept, piece in enumerate(whole[:-1], 1):
        state = unpack_state(pack_state(piece.state))
        rest = list(stage(config, total).stream(pieces(total, length, state["source"]), text_at, state))
        assert torch.equal(pixels([*whole[:kept], *rest]), pixels(whole))


@settings(max_examples=40, deadline=None)
@given(config=configs(), total=st.integers(1, 40), order=st.randoms(use_true_random=False))
def test_the_order_of_work_has_no_say(config, total, order):
    """Windows come in and predictions come back in any order that there can be."""
    toy, made = Toy(), stage(config, total)
    front = Wavefront(config, made.schedule, made.nodes, SEED, total)
    clean_BCTHW, admitted, parts = toy.encode(frames_of(total)), 0, []
    while front.window(front.released) is not None:
        ready, window = front.ready(), front.window(admitted)
        if window is not None and (not ready or order.random() < 0.3):
            front.admit(admitted, clean_BCTHW[:, :, window.start : window.stop])
            admitted += 1
        elif ready:
            work = order.choice(ready)
            own = front.own(work.number)
            text = text_at((own.start + own.stop - 1) // 2)
            front.put(
                work, toy.velocity(work.latents_BCTHW, [work.timestep], [text], config.guidance_scale, 0.0)
            )
        while (latents_BCTHW := front.finished()) is not None:
            parts.append(latents_BCTHW)
            front.release()
    assert torch.equal(toy.decode(torch.cat(parts, dim=2)), offline(config, total))
    assert not front.state_dict()["refine.tracks"] and not front.state_dict()["refine.proposals"]


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("form", ["joint", "causal"])
def test_a_crew_of_several_makes_the_same(form, size):
    config = RefineConfig(6, 2, 0.6, 4, form=form)
    made = streamed(config, 45, crew=Threads(size))
    assert torch.equal(pixels(made), offline(config, 45))
    state = made[2].state
    rest = list(stage(config, 45).stream(pieces(45, 4, state["source"]), text_at, state))
    assert torch.equal(pixels([*made[:3], *rest]), pixels(made))


@pytest.mark.parametrize("form", ["joint", "causal"])
def test_windows_can_be_asked_for_in_batches(form):
    """Windows of one diagonal have timesteps of their own."""
    config, toy = RefineConfig(6, 2, 0.6, 4, form=form, batch=3), Toy()
    made = streamed(config, 60, crew=Alone(toy))
    assert torch.equal(pixels(made), offline(config, 60))
    calls = [count for method, count in toy.calls if method == "velocity"]
    assert max(calls) == 3 and sum(calls) == 4 * 15 and sum(calls) / len(calls) > 2


@pytest.mark.parametrize("form, windows", [("causal", 1), ("joint", 4)])
def test_first_frames_come_after_that_many_windows(form, windows):
    toy = Toy()
    next(stage(RefineConfig(6, 2, 0.6, 4, form=form), None, Alone(toy)).stream(pieces(1000, 4), text_at))
    calls = [method for method, _ in toy.calls]
    assert calls.count("encode") == windows
    assert calls.count("velocity") == (4 if form == "causal" else 4 + 3 + 2 + 1)


@pytest.mark.parametrize("form", ["causal", "joint"])
@pytest.mark.parametrize("crew", [1, 4])
def test_what_is_kept_does_not_grow_with_the_length(form, crew):
    """In latent frames: some for each window in flight, as docs/refining.md says."""
    config = RefineConfig(6, 2, 0.6, 4, form=form)

    def kept(piece: Piece) -> int:
        return sum(
            value.shape[2]
            for name, value in piece.state.items()
            if name.startswith("refine.") and getattr(value, "ndim", 0) == 5
        )

    sizes = [kept(piece) for piece in streamed(config, 202, crew=Threads(crew) if crew > 1 else None)]
    window = {"causal": config.overlap, "joint": 2 * config.frames + config.overlap}[form]
    assert max(sizes) <= (config.steps + crew) * window + crew * 3 * config.frames
    if crew == 1:  # nothing else is under way when a piece comes
        assert len(set(sizes[10:40])) == 1 and max(sizes) <= config.steps * window + config.overlap


def test_every_frame_is_encoded_and_decoded_once():
    toy = Toy()
    streamed(RefineConfig(6, 4, 0.6, 3, form="joint"), 41, crew=Alone(toy))
    for method in ("encode", "decode"):
        assert sum(count for name, count in toy.calls if name == method) == 41


def test_frames_of_another_size_are_resized_and_others_left_alone():
    seen = []

    class Looking(Toy):
        def encode(self, frames_TCHW: torch.Tensor) -> torch.Tensor:
            seen.append(frames_TCHW)
            return super().encode(frames_TCHW)

    for size in (SIZE, (4, 6)):
        list(
            RefineStage(Alone(Looking()), RefineConfig(6, 2, 0.6, 1), SEED, 5, size).stream(
                pieces(5, 5), text_at
            )
        )
    assert torch.equal(seen[0], frames_of(5)) and seen[1].shape == (5, 3, 4, 6)


@pytest.mark.parametrize(
    "change",
    [
        {"law": "code"},
        {"splice": "latents"},
        {"shared_noise": False},
        {"blend": "linear"},
        {"blend": "none"},
        {"form": "joint"},
    ],
)
def test_every_setting_has_an_effect(change):
    plain = RefineConfig(6, 3, 0.6, 4)
    assert not torch.equal(offline(plain, 20), offline(replace(plain, **change), 20))


def test_windows_at_their_own_timesteps_in_one_call_are_as_each_alone():
    backbone = RefinerBackbone(None, stock())  # type: ignore[arg-type]
    texts = [TextCond(randn(1, 5, 12, seed=n), randn(1, 5, 12, seed=n + 9)) for n in (1, 2)]
    pair_BCTHW = randn(2, 4, 3, 8, 8)
    both = backbone.velocity(pair_BCTHW, [500, 20], texts, 2.0, 0.3)
    alone = [
        backbone.velocity(pair_BCTHW[n : n + 1], [(500, 20)[n]], texts[n : n + 1], 2.0, 0.3) for n in (0, 1)
    ]
    assert torch.allclose(both, torch.cat(alone), atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_windows_are_refined_on_the_networks_device(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: self)  # meta tensors hold nothing to copy
    backbone = RefinerBackbone(None, stock().to("meta"))  # type: ignore[arg-type]
    text = TextCond(randn(1, 5, 12), randn(1, 5, 12))
    assert backbone.velocity(randn(1, 4, 3, 8, 8), [5], [text], 2.0, 0.0).device.type == "meta"
