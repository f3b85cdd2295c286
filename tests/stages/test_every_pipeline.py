"""Whole streams by every kind of pipeline of diffusers: real classes at toy size,
from text or image to frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import toy_bases
from streamingt2v import LongVideoPipeline, resolve
from streamingt2v.backbones.text import NoText
from streamingt2v.checkpoints.load import Components
from streamingt2v.config import ExtendConfig, ModelConfig
from streamingt2v.config.external import ExtendByConfig
from streamingt2v.external import abilities, as_model
from streamingt2v.runs.state import pack_state, unpack_state

PROMPT = "A cat running on the street"
KINDS = {
    "ltx": "conditions", "wan_vace": "mask", "helios": "history", "skyreels_df": "forcing",
    "anyflow": "context",
    "cosmos2": "world", "wan_image": "image", "wan": "overlap",
}  # fmt: skip
"""One class for each way to continue: these make longer videos and resume after every chunk."""
DEAF = (
    "latte",
    "cosmos2",
    "skyreels",
    "kandinsky5",
    "anyflow",
    "anyflow_far",
    "wan_image",
    "wan22_image",
    "helios",
    "svd",
)
"""Toys whose random networks hide a prompt in 8 bits, or that read none."""
NAMES = [name for name in toy_bases.TOYS if not name.endswith("_video") and name != "allegro"]
"""Allegro's toy cannot encode a window."""


pipeline = toy_bases.built


@pytest.fixture
def model(monkeypatch):
    """Return a function: the model of a toy in memory, with chunks of 17 frames that overlap by 9."""

    def make(name: str, **by: Any) -> LongVideoPipeline:
        pipe, (height, width) = pipeline(name), toy_bases.TOYS[name].size
        for module in (as_model, resolve):
            monkeypatch.setattr(module, "pipeline_class", lambda folder: type(pipe))
        monkeypatch.setattr(as_model.families, "component_config", lambda *names: dict(pipe.scheduler.config))
        extend = ExtendConfig(*toy_bases.TOYS[name].chunk)
        image = abilities.abilities(type(pipe)).image
        given = {"steps": 2 if name == "mochi" else 1, "guidance_scale": 3.0, **by}
        by_pipeline = ExtendByConfig("", image=image, **given)
        config = ModelConfig(name, height, width, 8, extend, backbone="pipeline", extend_by=by_pipeline)
        return LongVideoPipeline(Components(config, NoText(), None, None, None, pipeline=pipe), name)

    return make


def arguments(name: str) -> dict[str, Any]:
    return {"image": Image.new("RGB", (40, 40), (200, 90, 30))} if toy_bases.TOYS[name].image else {}


def frames_of(chunks) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in chunks])


def test_there_are_at_least_25_classes():
    assert len({type(pipeline(name)) for name in ("wan", "wan22")}) == 1
    assert len({toy_bases.TOYS[name].build.__qualname__ for name in NAMES}) >= 25


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_counts_are_exact_and_shorter_videos_are_the_beginning(model, name):
    pipe, most = model(name), 81 if name in KINDS else 41
    whole = frames_of(pipe.stream(PROMPT, num_frames=most, **arguments(name)))
    assert whole.shape == (most, *toy_bases.TOYS[name].size, 3)
    for count in (1, 17, 30) if name in KINDS else (1, 30):
        assert np.array_equal(
            frames_of(pipe.stream(PROMPT, num_frames=count, **arguments(name))), whole[:count]
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_resumed_with_a_new_prompt_and_cancelled_within_a_chunk(model, name):
    pipe = model(name)
    second = sum(toy_bases.TOYS[name].chunk[:1])
    more = {"num_frames": second + 20, **arguments(name)}
    chunks = list(pipe.stream(PROMPT, **more))
    for number in range(0 if name in KINDS else len(chunks) - 2, len(chunks) - 1):
        rest = pipe.stream(PROMPT, unpack_state(pack_state(chunks[number].state)), **more)
        assert np.array_equal(frames_of([*chunks[: number + 1], *rest]), frames_of(chunks))
    schedule = ((second, "A whale floating in the deep sea"),)
    changed = frames_of(pipe.stream(PROMPT, schedule=schedule, **more))
    assert np.array_equal(changed[:second], frames_of(chunks)[:second])
    assert name in DEAF or not np.array_equal(changed[second:], frames_of(chunks)[second:])

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(pipe.stream(PROMPT, on_step=stop, **more))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modelscope", "cogvideox_image", "ltx2_image", "hunyuan"])
def test_a_prompt_turns_into_another_over_chunks(model, name):
    """The first chunk after the change lies between both prompts: neither of them, and again the same."""
    second, more = toy_bases.TOYS[name].chunk[0], arguments(name)
    whale = ((second, "A whale floating in the deep sea"),)
    pipe = model(name)

    def chunk(**options: Any) -> np.ndarray:
        return frames_of(pipe.stream(PROMPT, num_frames=second + 2, **more, **options))[second:]

    mixed = chunk(schedule=whale, transition_chunks=2)
    assert np.array_equal(mixed, chunk(schedule=whale, transition_chunks=2))
    for other in (chunk(), chunk(schedule=whale)):
        assert not np.array_equal(mixed, other)


@pytest.mark.parametrize("name", KINDS)
def test_the_state_of_each_kind_does_not_grow(model, name):
    pipe = model(name)
    assert as_model.way_of(pipe.config) == KINDS[name]
    chunks = list(pipe.stream(PROMPT, num_frames=sum(toy_bases.TOYS[name].chunk) + 30, **arguments(name)))
    sizes = [len(pack_state(chunk.state)) for chunk in chunks]
    assert max(sizes) - min(sizes) < 64 and set(chunks[0].state) == set(chunks[-1].state)
