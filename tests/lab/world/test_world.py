"""The world: the same from a seed everywhere, any length and size, honest labels, captions in known words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.world import clip, vocabulary
from lab.world.captions import caption
from lab.world.scenery import backdrop
from lab.world.sprites import sprite

SCENES = [s.name for s in vocabulary.SCENES]
MOTIONS = [m.name for m in vocabulary.MOTIONS]
RECORDED_CAPTION = "A cat running rightwards on the street"
RECORDED_QUARTERS = [[[184.7, 186.1], [139.3, 143.1]], [[184.8, 186.3], [140.8, 143.1]]]


def test_it_is_as_large_as_promised():
    assert len(vocabulary.NOUNS) == 36 and len(SCENES) == 8 and len(MOTIONS) == 7
    assert len({n.name for n in vocabulary.NOUNS}) == 36 and len({n.icon for n in vocabulary.NOUNS}) == 36


@given(st.integers(0, 2**62))
@settings(max_examples=10, deadline=None)
def test_a_seed_says_everything(seed):
    a, b = (clip.render(clip.sample(seed), clip.frame_times(3), 32) for _ in range(2))
    assert clip.sample(seed) == clip.sample(seed)
    assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])


def test_pixels_are_those_of_every_other_machine():
    """Means of the picture's quarters; another rounding of the last bit may pass, another picture not."""
    spec = clip.sample(5, noun="cat", scene="street", motion="run")
    frames, _ = clip.render(spec, clip.frame_times(2), 64)
    quarters = frames.reshape(2, 2, 32, 2, 32, 3).mean((2, 4, 5)).round(1)
    assert spec.caption == RECORDED_CAPTION
    np.testing.assert_allclose(quarters, RECORDED_QUARTERS, atol=0.15)


@given(st.integers(0, 2**62), st.integers(0, 500))
@settings(max_examples=10, deadline=None)
def test_any_frame_can_be_drawn_alone(seed, frame):
    spec = clip.sample(seed)
    together, _ = clip.render(spec, clip.frame_times(3, frame / clip.FPS), 32)
    alone, _ = clip.render(spec, clip.frame_times(1, (frame + 1) / clip.FPS), 32)
    assert np.array_equal(together[1], alone[0])


@pytest.mark.parametrize("scene", SCENES)
def test_a_scene_looks_the_same_at_every_resolution(scene):
    small, large = (backdrop(scene, 2, np.array([1.3]), side, side)[0] for side in (32, 128))
    shrunk = large.reshape(32, 4, 32, 4, 3).mean((1, 3))
    assert np.abs(shrunk - small).mean() < 4


@pytest.mark.parametrize("scene", SCENES)
def test_a_camera_can_travel_for_ever(scene):
    near, far = (backdrop(scene, 0, np.array([x]), 32, 32) for x in (0.25, 0.25 + 4 * 1000))
    # layers of speeds 1, 0.6, 0.4 ... all return after a whole number of periods
    assert np.isfinite(far).all() and near.shape == far.shape == (1, 32, 32, 3)
    assert far.min() >= 0 and far.max() <= 255.001


@pytest.mark.parametrize("noun", [n.name for n in vocabulary.NOUNS])
def test_every_noun_has_a_sprite(noun):
    pixels = np.asarray(sprite(noun, 40))
    assert pixels.shape == (40, 40, 4)
    assert 0.15 < (pixels[..., 3] > 127).mean() < 0.95
    assert max(np.ptp(np.nonzero(pixels[..., 3].max(axis))[0]) for axis in (0, 1)) >= 37, (
        "it fills its square"
    )


@pytest.mark.parametrize("motion", MOTIONS)
def test_something_always_moves_and_the_sprite_stays_in_view(motion):
    spec = clip.sample(3, noun="turtle", motion=motion)
    frames, masks = clip.render(spec, clip.frame_times(64), 64)
    assert (np.abs(np.diff(frames.astype(int), axis=0)).mean((1, 2, 3)) > 0.1).all()
    assert (masks.mean((1, 2)) > 0.05).all()


def test_sprites_face_their_motion():
    left, right = (next(s for s in map(clip_of_a_cat, range(50)) if s.direction == d) for d in (-1, 1))
    drawn = []
    for spec in (left, right):
        still = {"x": 0.5, "y": 0.5, "size": 0.6, "sprite_cast": (1.0, 1.0, 1.0), "motion": "still"}
        from dataclasses import replace

        drawn.append(clip.render(replace(spec, **still), np.array([0.0]), 64)[1][0])
    assert np.abs(drawn[0] - drawn[1][:, ::-1]).mean() < np.abs(drawn[0] - drawn[1]).mean() / 2


@given(st.integers(0, 2**62))
@settings(max_examples=100, deadline=None)
def test_a_caption_without_a_direction_means_the_way_the_picture_faces(seed):
    spec = clip.sample(seed)
    told = [d for d, phrases in vocabulary.DIRECTIONS.items() if any(p in spec.caption for p in phrases)]
    assert told == ([spec.told_direction] if spec.told_direction else [])
    assert spec.direction == (spec.told_direction or vocabulary.noun(spec.noun).facing or 1)


def clip_of_a_cat(seed: int) -> clip.ClipSpec:
    return clip.sample(seed, noun="cat", motion="run")


def test_the_famous_caption_is_one_of_them():
    rng = np.random.default_rng(0)
    assert "A cat running on the street" in {caption("cat", "street", "run", 0, rng) for _ in range(800)}


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=200, deadline=None)
def test_captions_hold_known_words_and_what_they_describe(seed, held_out):
    spec = clip.sample(seed, held_out=held_out)
    words = spec.caption.lower().replace(",", " ,").split()
    assert set(words) <= {*vocabulary.words(), *(vocabulary.held_out_words() if held_out else ())}
    noun = vocabulary.noun(spec.noun)
    assert set(words) & {*noun.synonyms, *noun.held_out}


def test_held_out_words_never_occur_in_training_captions():
    held_out = set(vocabulary.held_out_words())
    assert {w for n in vocabulary.NOUNS for w in n.held_out} | {
        "speeding",
        "bobbing",
        "clip",
        "dusk",
        "starry",
        "along",
    } <= held_out
    seen = {w for seed in range(1500) for w in clip.sample(seed).caption.lower().replace(",", "").split()}
    assert not seen & held_out and len(seen) > 100


def test_every_held_out_word_has_a_nearest_one():
    assert {*vocabulary.held_out_words()} <= {*vocabulary.NEAREST}


def test_nearest_words_lead_into_the_world():
    known = set(vocabulary.words())
    assert all(target in known for target in vocabulary.NEAREST.values())
    assert not set(vocabulary.NEAREST) & known
    assert set(vocabulary.NEAREST_NOUN) <= {n.name for n in vocabulary.NOUNS}
