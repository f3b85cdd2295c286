"""The world: seeds, ground truth that agrees with the pixels, motion that can be learned."""

import numpy as np
import pytest

from lab.world2 import captions, clip, motion, scenery, things, vocabulary

NOUNS = [n.name for n in vocabulary.NOUNS]
MOTIONS = [m.name for m in vocabulary.MOTIONS]
CAM_WINDOW = 8


def whole_cycle(spec: clip.ClipSpec) -> np.ndarray:
    return clip.frame_times(int(motion.cycle(spec.motion, spec.pose) * motion.FPS) + 1)


def test_a_seed_gives_the_same_clip_again_and_any_frame_alone():
    spec = clip.sample((3, 5))
    assert clip.sample((3, 5)) == spec
    times = clip.frame_times(6, 1.5)
    frames, masks = clip.render(spec, times)
    alone, mask = clip.render(spec, times[4:5])
    assert (frames[4] == alone[0]).all() and (masks[4] == mask[0]).all()


@pytest.mark.parametrize("name", MOTIONS)
def test_nothing_moves_faster_than_three_pixels_of_64_a_frame(name):
    for seed in range(20):
        spec = clip.sample(seed, motion=name)
        p = clip.poses(spec, clip.frame_times(400))
        for path in (p.camera, p.x, p.rise):
            assert np.abs(np.diff(path)).max() <= motion.FASTEST + 1e-9


def test_no_texture_repeats_within_four_steps_of_its_own_motion():
    fastest_ground, fastest_thing = 0.34 / motion.FPS, 0.34 / motion.FPS
    for _, layers in scenery.SCENES.values():
        for layer in layers:
            assert layer.slot >= 4 * fastest_ground * layer.speed
    assert (
        2 * fastest_thing <= things.STRIPE_PERIOD * 0.42 * 0.8
    )  # on a thing that walks; on one that is followed it stands still
    for name in ("run", "hide", "away"):  # legs and wheels: a turn takes four frames or more
        for seed in range(20):
            p = clip.poses(clip.sample(seed, motion=name), clip.frame_times(200))
            steps = np.abs(np.diff(p.step))
            assert np.median(steps[steps > 0]) <= 0.25


@pytest.mark.parametrize("name", ["hide", "away"])
def test_a_hidden_thing_stays_away_for_longer_than_cams_window_and_comes_back_as_it_was(name):
    for seed in range(8):
        spec = clip.sample(seed, motion=name, pattern="plain", time="day")
        frames, masks = clip.render(spec, whole_cycle(spec))
        covered = masks.sum((1, 2))
        hidden = covered < 1.0
        assert hidden.sum() > CAM_WINDOW and (~hidden).any()
        main = np.array(things.COLOURS[spec.colour])
        if spec.noun in ("turtle", "snail", "penguin", "butterfly"):
            continue
        seen = [i for i in range(len(frames)) if covered[i] > 0.9 * covered.max()]
        for i in (seen[0], seen[-1]):
            pixels = frames[i][masks[i] > 0.99].astype(int)
            assert (np.abs(pixels - main).max(1) < 12).mean() > 0.15


def test_the_mask_is_where_the_thing_is():
    """Two clips that differ in the thing's colour differ where its mask is, and nowhere else."""
    for seed in range(12):
        times = clip.frame_times(3, 0.7)
        red, mask = clip.render(clip.sample(seed, colour="red"), times)
        blue, _ = clip.render(clip.sample(seed, colour="blue"), times)
        changed = np.abs(red.astype(int) - blue).max(-1) > 0
        assert not changed[mask == 0].any()
        assert changed.any() or mask.max() < 0.5


def test_the_camera_of_a_follower_shifts_the_ground_by_what_the_pose_says():
    spec = clip.sample(4, motion="run", scene="street", time="day")
    p = clip.poses(spec, clip.frame_times(2))
    pixels = float((p.camera[1] - p.camera[0]) * 64)
    again = scenery.backdrop("street", "day", spec.arrangement, p.camera[:1] + round(pixels) / 64, 64, 64)
    rows = slice(48, 64)
    shifted = scenery.backdrop("street", "day", spec.arrangement, p.camera[:1], 64, 128)[
        0, rows, round(pixels) : round(pixels) + 64
    ]
    assert np.abs(again[0, rows] - shifted).mean() < 1.0
    assert 0 < abs(pixels) <= 3


@pytest.mark.parametrize("name", ["run", "pan", "float"])
def test_the_flow_leads_from_each_frame_to_the_next(name):
    spec = clip.sample(11, motion=name, noun="balloon", pattern="plain")
    times, side = clip.frame_times(2, 1.0), 192
    before, after = clip.render(spec, times, side)[0].transpose(0, 3, 1, 2).astype(float)
    moved = clip.flow(spec, times, side)[0]
    y, x = np.mgrid[:side, :side]

    def error(way: float) -> float:
        to_x = np.clip(np.rint(x + way * moved[0]).astype(int), 0, side - 1)
        to_y = np.clip(np.rint(y + way * moved[1]).astype(int), 0, side - 1)
        return float(np.abs(after[:, to_y, to_x] - before)[:, :, 12:-12].mean())

    assert error(1) < 0.75 * error(0) and error(0) < error(-1)


def test_scenery_goes_on_without_end_and_differs_from_arrangement_to_arrangement():
    here, far = (scenery.backdrop("forest", "day", 1, np.array([x]), 32, 32) for x in (0.0, 700.0))
    other = scenery.backdrop("forest", "day", 2, np.array([0.0]), 32, 32)
    assert np.abs(here - far).mean() > 3 and np.abs(here - other).mean() > 3


def test_every_thing_can_be_drawn_in_every_colour_and_pattern():
    for noun in NOUNS:
        for colour in things.COLOURS:
            for pattern in things.PATTERNS:
                shapes = things.figure(noun, colour, pattern, 0.3).shapes
                reach = np.concatenate([points for points, _ in shapes])
                assert (
                    np.abs(reach[:, 0]).max() < 0.75 and reach[:, 1].min() > -1.3 and reach[:, 1].max() < 0.2
                )
                if pattern != "plain":
                    assert len(shapes) > len(things.figure(noun, colour, "plain", 0.3).shapes), (
                        noun,
                        pattern,
                    )


def test_a_caption_says_what_is_told_and_nothing_else():
    rng = np.random.default_rng(0)
    text = captions.caption(captions.Told("cat", "street", "run"), rng)
    assert not set(text.lower().split()) & {
        *vocabulary.COLOUR_NAMES,
        "striped",
        "spotted",
        "plain",
        "stripes",
        "spots",
        "dots",
    }
    told = captions.Told(
        "cat", "street", "run", colour="green", pattern="striped", time="night", direction=-1
    )
    words = captions.caption(told, rng).lower()
    assert (
        "green" in words and "strip" in words and ("night" in words or "stars" in words) and "left" in words
    )


def test_the_readmes_prompt_is_a_caption_and_captions_have_only_words_of_the_vocabulary():
    known = set(vocabulary.words())
    texts = {clip.sample(seed).caption for seed in range(400)}
    assert {w for t in texts for w in vocabulary.words_of([t])} <= known
    assert not set(vocabulary.held_out_words()) & known
    rng = np.random.default_rng(1)
    assert "A cat running on the street" in {
        captions.caption(captions.Told("cat", "street", "run"), rng) for _ in range(400)
    }
