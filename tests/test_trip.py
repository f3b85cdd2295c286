"""Whole videos with the real classes at toy size: exact counts, equal streams, equal bytes when resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from streamingt2v import Chunk, LongVideoPipeline, Request
from streamingt2v.errors import MediaError, RequestError
from streamingt2v.runs.state import pack_state, unpack_state
from streamingt2v.types import TextCond
from streamingt2v.video.piece import to_uint8
from streamingt2v.video.reader import read_video
from streamingt2v.video.writer import write_video
from toy import collect

PROMPT = "A cat running on the street"


@pytest.fixture(scope="module")
def pipe(toy) -> LongVideoPipeline:
    return LongVideoPipeline.from_pretrained(toy)


@pytest.fixture(scope="module")
def made(pipe) -> Callable[[Request], list[Chunk]]:
    """Return the chunks of a request, made once: tests compare them with what they make themselves."""
    return cache(lambda request: list(pipe.stream(request)))


def assert_well_formed(chunks: list[Chunk], frames: int) -> None:
    assert [c.index for c in chunks] == list(range(len(chunks)))
    assert [c.start for c in chunks] == list(np.cumsum([0, *(len(c.frames) for c in chunks[:-1])]))
    assert [c.final for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert sum(len(c.frames) for c in chunks) == frames
    assert all(c.frames.dtype == np.uint8 for c in chunks)


@pytest.mark.parametrize("preset, side", [("preview", 32), ("full", 64)])
@pytest.mark.parametrize("frames", [1, 7, 8, 15, 16, 17, 24, 80])
def test_exactly_the_frames_asked_for(made, preset, side, frames):
    chunks = made(Request(PROMPT, frames, preset=preset))
    assert_well_formed(chunks, frames)
    assert chunks[0].frames.shape[1:] == (side, side, 3)


@pytest.mark.parametrize("preset, form", [("preview", None), ("full", "causal"), ("full", "joint")])
def test_a_stream_taken_up_after_any_chunk_goes_on_bit_for_bit(pipe, made, preset, form):
    request = Request(PROMPT, 42, preset=preset, form=form)
    whole = made(request)
    for kept in range(1, len(whole)):
        rest = list(pipe.stream(request, unpack_state(pack_state(whole[kept - 1].state))))
        assert_well_formed([*whole[:kept], *rest], 42)
        assert np.array_equal(collect([*whole[:kept], *rest]), collect(whole))


@pytest.mark.parametrize("preset", ["preview", "full"])
def test_a_longer_video_begins_as_the_shorter_one(made, preset):
    """Chunks do not depend on the video's length; only refinement's last window, at the end, does."""
    short, long = (collect(made(Request(PROMPT, n, preset=preset))) for n in (24, 80))
    same = 24 if preset == "preview" else 8
    assert np.array_equal(short[:same], long[:same])


def test_calling_the_pipeline_collects_the_stream(pipe, made):
    assert np.array_equal(pipe(PROMPT, 20, seed=4).frames, collect(made(Request(PROMPT, 20, seed=4))))


def test_same_seed_same_frames_other_seed_other_frames(pipe):
    a, b, c = (collect(pipe.stream(Request(PROMPT, 24, seed=seed))) for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a[:16], c[:16]) and not np.array_equal(a[16:], c[16:])


@pytest.mark.parametrize(
    "change",
    [
        {"num_inference_steps": 3},
        {"guidance_scale": 1.0},
        {"negative_prompt": "a horse"},
        {"prompt": "A whale floating under water"},
    ],
)
def test_every_setting_changes_the_seed_chunk_and_the_later_ones(pipe, made, change):
    plain = collect(made(Request(PROMPT, 24)))
    other = collect(pipe.stream(replace(Request(PROMPT, 24), **change)))
    assert not np.array_equal(plain[:16], other[:16]) and not np.array_equal(plain[16:], other[16:])


def test_a_schedule_takes_over_at_its_frame(pipe, made):
    """An entry takes over with the first chunk that begins at or after its frame."""
    plain = collect(made(Request(PROMPT, 40)))
    turned = collect(pipe.stream(Request(PROMPT, 40, schedule=((24, "A whale floating under water"),))))
    assert np.array_equal(plain[:24], turned[:24])
    assert not np.array_equal(plain[24:32], turned[24:32])
    between = collect(pipe.stream(Request(PROMPT, 40, schedule=((17, "A whale floating under water"),))))
    assert np.array_equal(between, turned)


@pytest.mark.parametrize(
    "start, frames, schedule, says",
    [
        ("text", 40, [25], None),
        ("text", 40, [33], "33.*the last begins at 32"),
        ("text", 8, [1], "1.*the last begins at 0"),
        ("text", 40, [0, 1, 17, 32], None),
        ("text", 40, [17, 24], "17.*starts with the same chunk, at 24.*the chunk before begins at 16"),
        ("text", None, [10**12 + 1, 10**12 + 8], "1000000000001.*the same chunk, at 1000000000008"),
        ("image", 40, [0, 2, 17, 33], None),
        ("image", 40, [0, 1], "0.*the same chunk, at 1, so it would never be used$"),
        ("image", 40, [34], "34.*the last begins at 33"),
        ("image", 1, [0], "0: no chunk begins there or later, so this entry would never be used$"),
        ("video", 40, [0, 1, 9], None),
        ("video", 40, [0, 1, 8], "1.*the same chunk, at 8"),
    ],
)
def test_a_schedule_entry_that_no_chunk_would_use_is_refused(pipe, tmp_path, start, frames, schedule, says):
    (tmp_path / "file").touch()
    source = {start: str(tmp_path / "file")} if start != "text" else {}
    request = Request(
        PROMPT, frames, schedule=tuple((frame, f"A cat, {frame}") for frame in schedule), **source
    )
    if says is None:
        pipe.resolve(request)
        return
    with pytest.raises(RequestError, match=f"schedule={says}"):
        pipe.resolve(request)


def test_each_window_is_refined_with_the_prompt_of_its_middle_and_prompts_are_embedded_once(
    pipe, monkeypatch
):
    """40 frames: the middles 5, 17, 31 of the windows' frames belong to the chunks at 0, 16 and 24."""
    embedded, refined = [], []
    text, refiner = pipe.components.text, pipe.components.refiner

    def embed(prompt: str, negative: str) -> TextCond:
        embedded.append(prompt)
        return TextCond(text(prompt, negative).positive_BLD, prompt)

    def velocity(
        latents: torch.Tensor, timesteps: list[int], texts: list[TextCond], scale: float, rescale: float
    ):
        refined.extend(text.negative_BLD for text in texts)
        return torch.zeros_like(latents)

    def condition(cond: TextCond, anchor_CHW: torch.Tensor | None, seed: int):
        return plain(text(cond.negative_BLD, ""), anchor_CHW)

    plain = pipe.components.backbone.condition
    monkeypatch.setattr(pipe.components, "text", embed)
    monkeypatch.setattr(refiner, "velocity", velocity)
    monkeypatch.setattr(pipe.components.backbone, "condition", condition)
    schedule = ((14, "A whale floating under water"), (20, "A bird flying over the sea"))
    list(pipe.stream(Request(PROMPT, 40, preset="full", schedule=schedule)))
    steps = pipe.config.refine.steps
    assert refined == [PROMPT] * steps + [schedule[0][1]] * steps + [schedule[1][1]] * steps
    assert embedded == [PROMPT, schedule[0][1], schedule[1][1]]


def test_tokens_beyond_what_the_model_reads_are_told(pipe):
    assert pipe.surplus_tokens(PROMPT) == 0
    assert pipe.surplus_tokens("cat " * 100) > 70


def test_without_end_until_the_consumer_stops(pipe, made):
    stream = pipe.stream(Request(PROMPT, None))
    chunks = [next(stream) for _ in range(5)]
    assert not any(chunk.final for chunk in chunks)
    assert np.array_equal(collect(chunks), collect(made(Request(PROMPT, 80)))[:48])


def test_endless_refinement_begins_as_that_of_a_long_video(pipe, made):
    stream = pipe.stream(Request(PROMPT, None, preset="full"))
    endless = collect([next(stream) for _ in range(3)])
    assert np.array_equal(endless, collect(made(Request(PROMPT, 80, preset="full")))[: len(endless)])


def write_noise(path: Path, frames: int, height: int = 32, width: int = 32) -> str:
    rng = np.random.default_rng(0)
    write_video(
        path,
        (
            np.kron(
                rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8)
            )
            for _ in range(frames)
        ),
        8,
    )
    return str(path)


@pytest.mark.parametrize("form", ["causal", "joint"])
@pytest.mark.parametrize("frames", [1, 17, 40])
def test_a_file_is_refined_frame_by_frame_and_taken_up_anywhere(pipe, tmp_path, form, frames):
    request = Request(PROMPT, None, refine=write_noise(tmp_path / "in.mp4", frames), preset="full", form=form)
    whole = list(pipe.stream(request))
    assert_well_formed(whole, frames)
    assert whole[0].frames.shape[1:] == (64, 64, 3)
    for kept in range(1, len(whole)):
        rest = list(pipe.stream(request, unpack_state(pack_state(whole[kept - 1].state))))
        assert np.array_equal(collect([*whole[:kept], *rest]), collect(whole))


def test_frames_that_have_the_refined_size_are_not_made_smaller(pipe, tmp_path, monkeypatch):
    seen = []
    encode = pipe.components.refiner.encode
    monkeypatch.setattr(
        pipe.components.refiner, "encode", lambda frames_TCHW: seen.append(frames_TCHW) or encode(frames_TCHW)
    )
    path = write_noise(tmp_path / "in.mp4", 5, 64, 64)
    list(pipe.stream(Request(PROMPT, 5, refine=path, preset="full")))
    assert np.array_equal(to_uint8(seen[0]), np.stack(list(read_video(path))))


def test_part_of_a_file_is_refined_and_more_than_there_is_refused(pipe, tmp_path):
    path = write_noise(tmp_path / "in.mp4", 20)
    assert_well_formed(list(pipe.stream(Request(PROMPT, 9, refine=path, preset="full"))), 9)
    with pytest.raises(MediaError, match="has 20 frames, 21 were to be refined"):
        list(pipe.stream(Request(PROMPT, 21, refine=path, preset="full")))


def test_settings_of_refining_reach_it(pipe, tmp_path):
    request = Request(PROMPT, None, refine=write_noise(tmp_path / "in.mp4", 24), preset="full")
    plain = collect(pipe.stream(request))
    for change in (
        {"num_inference_steps": 3},
        {"guidance_scale": 1.0},
        {"strength": 0.3},
        {"form": "joint"},
        {"negative_prompt": "a dog"},
    ):
        assert not np.array_equal(plain, collect(pipe.stream(replace(request, **change)))), change


def test_settings_of_refining_reach_stage_3_of_the_whole_trip_too(pipe, made):
    request = Request(PROMPT, 24, preset="full")
    plain = collect(made(request))
    for change in ({"strength": 0.3}, {"form": "joint"}):
        assert not np.array_equal(plain, collect(pipe.stream(replace(request, **change)))), change


@pytest.mark.parametrize(
    "wrong, name",
    [
        ({"preset": "preview"}, "refine"), ({"preset": "preview", "refine": None, "form": "joint"}, "form"),
        ({"strength": 0.0}, "strength"), ({"strength": 1.5}, "strength"), ({"form": "other"}, "form"),
        ({"schedule": ((9, "A cat"),)}, "schedule"), ({"refine": "nowhere.mp4"}, "refine"),
        ({"video": "in.mp4"}, "video"),
    ],
)  # fmt: skip
def test_a_wrong_request_to_refine_is_refused(pipe, tmp_path, wrong, name):
    request = Request(PROMPT, 9, refine=write_noise(tmp_path / "in.mp4", 1), preset="full")
    with pytest.raises(RequestError, match=f"^{name}="):
        pipe.stream(replace(request, **wrong))


def test_an_image_is_the_first_frame_and_shapes_the_rest(pipe, tmp_path):
    videos = []
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        Image.new("RGB", (64, 48), colour).save(tmp_path / f"{name}.png")
        video = collect(pipe.stream(Request(PROMPT, 20, image=str(tmp_path / f"{name}.png"))))
        assert len(video) == 20 and np.abs(video[0].astype(int) - colour).max() <= 1
        videos.append(video)
    assert not np.array_equal(videos[0][1:], videos[1][1:])


@pytest.mark.parametrize("length", [1, 5, 8, 30])
def test_a_video_is_gone_on_with_by_new_frames_only(pipe, tmp_path, length):
    path = tmp_path / "in.mp4"
    rng = np.random.default_rng(0)
    write_video(path, (np.full((32, 32, 3), rng.integers(256), np.uint8) for _ in range(length)), 8)
    chunks = list(pipe.stream(Request(PROMPT, 21, video=str(path))))
    assert_well_formed(chunks, 21)
    rest = list(pipe.stream(Request(PROMPT, 21, video=str(path)), chunks[0].state))
    assert np.array_equal(collect(chunks[1:]), collect(rest))
    anchor_HWC = np.asarray((chunks[0].state["anchor_CHW"].permute(1, 2, 0) + 1) * 127.5)
    assert np.allclose(anchor_HWC, next(read_video(path, 32, 32)), atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_frames": 0},
        {"prompt": "  "},
        {"width": 33},
        {"height": 1},
        {"fps": 9},
        {"num_inference_steps": 0},
        {"image": "nowhere.png"},
        {"seed": -1},
    ],
)
def test_a_wrong_request_is_refused_before_any_work(pipe, wrong):
    with pytest.raises(RequestError, match=next(iter(wrong))):
        pipe.stream(replace(Request(PROMPT, 8), **wrong))


def test_a_text_file_is_no_image(pipe, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(MediaError, match=r"text\.png"):
        next(pipe.stream(Request(PROMPT, 8, image=str(tmp_path / "text.png"))))


def test_steps_are_told_and_an_error_in_the_callback_cancels(pipe):
    told = []

    def on_step(step: int, steps: int, stage: str) -> None:
        told.append((step, steps, stage))
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(pipe.stream(Request(PROMPT, 40), on_step=on_step))
    assert told == [(1, 2, "first_chunk"), (2, 2, "first_chunk"), (1, 2, "extend")]


def test_the_global_random_state_has_no_say(pipe):
    torch.manual_seed(1)
    a = collect(pipe.stream(Request(PROMPT, 20)))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert np.array_equal(a, collect(pipe.stream(Request(PROMPT, 20))))
    assert torch.equal(state, torch.get_rng_state())


def test_the_memories_shape_what_comes(pipe):
    """A chunk depends on the window (CAM) and, with the window equal, on the anchor (APM)."""
    chunk = next(pipe.stream(Request(PROMPT, 40)))
    state = dict(chunk.state)
    plain = next(pipe.stream(Request(PROMPT, 40), state)).frames
    for part in ("window_TCHW", "anchor_CHW"):
        changed = {**state, part: -state[part]}
        assert not np.array_equal(plain, next(pipe.stream(Request(PROMPT, 40), changed)).frames), part
