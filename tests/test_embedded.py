"""The embedded model: its size, that it loads and makes videos, and that it follows a prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import streamingt2v
from lab.compare.judge import JUDGE, load_judge
from lab.world import clip, vocabulary
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.config import find_model


@pytest.fixture(scope="module")
def pipe() -> LongVideoPipeline:
    return LongVideoPipeline.from_pretrained("tiny")


@pytest.mark.parametrize(
    ("folder", "most"), [(find_model("tiny"), 80e6), (JUDGE, 2e6)], ids=["tiny", "judge"]
)
def test_the_weights_in_the_repository_are_small(folder, most):
    """The model, and the judge that measures it, which no video needs."""
    assert 0 < sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < most


@pytest.mark.slow  # at the size that users get
def test_the_famous_prompt_through_all_three_stages(pipe):
    chunks = list(
        pipe.stream(Request("A cat running on the street", 20, preset="full", num_inference_steps=2))
    )
    frames = np.concatenate([chunk.frames for chunk in chunks])
    assert frames.shape == (20, 128, 128, 3)
    assert 20 < frames.std() < 100


def test_it_knows_the_words_of_its_nouns_and_says_so_of_others(pipe):
    assert pipe.unknown_words("A cat running on the street") == {}
    assert pipe.unknown_words("A wolf racing in the jungle") == {"wolf": "dog", "jungle": "forest"}
    assert pipe.unknown_words("A kitty on the street") == {
        "kitty": "cat"
    }  # has a token, but no caption of the training had it


def test_the_judge_knows_true_clips():
    judge = load_judge()
    specs = [clip.sample((79, i)) for i in range(24)]
    verdicts = [judge.judge(clip.render(spec, clip.frame_times(16), 64)[0]) for spec in specs]
    assert np.mean([v.scene == s.scene for v, s in zip(verdicts, specs, strict=True)]) > 0.95
    assert np.mean([v.noun == s.noun for v, s in zip(verdicts, specs, strict=True)]) > 0.95


@pytest.mark.parametrize("scene", ["beach", "night", "snow"])
def test_the_scene_of_the_prompt_is_seen(pipe, scene):
    phrase = next(s for s in vocabulary.SCENES if s.name == scene).phrases[0]
    chunk = next(pipe.stream(Request(f"A bus running {phrase}", 16)))
    assert load_judge().judge(chunk.frames).scene == scene


def test_weights_are_where_a_wheel_takes_them_from():
    assert find_model("tiny") == Path(streamingt2v.__file__).parent / "weights" / "tiny"
