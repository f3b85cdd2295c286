"""Metrics of appearance on constructed videos."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constructed import flat, moving, result_of, texture
from lab.world import clip
from streamingt2v.metrics.picture import (
    ColourDrift,
    Cuts,
    Drift,
    Flicker,
    Repetition,
    Sharpness,
    block_means,
    mean_lab,
)


def test_flicker_minds_swings_and_no_steady_ramp():
    assert result_of(Flicker(), flat(*range(10, 200, 5))).values["flicker"] == pytest.approx(0, abs=1e-9)
    assert result_of(Flicker(), flat(*[100, 110] * 5)).values["flicker"] == pytest.approx(20)
    assert math.isnan(result_of(Flicker(), flat(1, 2)).values["flicker"])


def test_sharpness_by_hand_and_under_blur():
    frame = np.zeros((1, 5, 5, 3), np.uint8)
    frame[0, 2, 2] = 10  # Laplacian inside: -40 in the middle, 10 at its four neighbours, 0 at the corners
    assert result_of(Sharpness(), frame).values["sharpness"] == pytest.approx((1600 + 400) / 9)
    sharp = texture()
    soft = ((sharp.astype(int) + np.roll(sharp, 1, 0) + np.roll(sharp, 1, 1)) // 3).astype(np.uint8)
    curve = result_of(Sharpness(), np.stack([sharp, soft])).curves["sharpness"]
    assert curve[1] < curve[0]


@pytest.mark.parametrize(
    ("colour", "lab"),
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_of_known_colours(colour, lab):
    np.testing.assert_allclose(mean_lab(np.full((4, 4, 3), colour, np.uint8)), lab, atol=0.02)


def test_colour_drift_is_the_distance_of_the_ends():
    frames = np.full((20, 4, 4, 3), (255, 255, 255), np.uint8)
    frames[10:] = 0
    result = result_of(ColourDrift(), frames)
    assert result.values["colour_drift"] == result.values["colour_end"] == pytest.approx(100, abs=0.01)
    np.testing.assert_allclose(result.curves["colour_distance"], [0] * 10 + [100] * 10, atol=0.01)
    assert result_of(ColourDrift(), moving(20)).values["colour_drift"] == pytest.approx(0, abs=1e-9)


def test_the_end_may_be_as_the_beginning_and_still_far_from_the_first_frame():
    """Make colours that swing around the first frame's, with a constant mean."""
    frames = np.full((20, 4, 4, 3), (255, 255, 255), np.uint8)
    frames[1::2] = 0
    frames[0] = frames[1::2].mean() + 128
    values = result_of(ColourDrift(), frames).values
    assert values["colour_end"] > 40 > values["colour_drift"]


def test_drift_compares_the_first_and_the_last_15_percent():
    noise = np.random.default_rng(0).integers(0, 60, (1, 32, 32, 1)) * np.ones((20, 1, 1, 3))
    still = 128 + 2 * (noise - noise.mean())
    still[17:] = 128 + (still[17:] - 128) / 2  # the last three of twenty: half the contrast
    values = result_of(Drift(), still.astype(np.uint8)).values
    assert values["drift_contrast"] == pytest.approx(-0.5, abs=0.01) and values[
        "drift_sharpness"
    ] == pytest.approx(-0.75, abs=0.01)
    assert values["drift_brightness"] == pytest.approx(0, abs=0.01) and values["drift_saturation"] == 0
    brighter = result_of(Drift(), flat(*[100] * 3, *range(100, 114), *[120] * 3)).values
    assert brighter["drift_brightness"] == pytest.approx(0.2)


def test_saturation_drifts_with_colour_alone():
    frames = np.full((20, 4, 4, 3), (120, 110, 100), np.uint8)
    frames[10:] = (130, 110, 90)
    values = result_of(Drift(), frames).values
    assert values["drift_saturation"] == pytest.approx(1) and values["drift_contrast"] == 0


@pytest.mark.parametrize("period", [5, 16])
def test_a_loop_is_found_with_its_period(period):
    rng = np.random.default_rng(0)
    loop = rng.integers(0, 256, (period, 16, 16, 3), np.uint8)
    values = result_of(Repetition(), np.concatenate([loop] * 5)).values
    assert values == {"repetition": pytest.approx(1), "period": period}


def test_what_never_comes_back_does_not_repeat():
    assert result_of(Repetition(), flat(*range(0, 250, 5))).values["repetition"] == 0
    assert result_of(Repetition(), flat(*[50] * 30)).values["repetition"] == 0  # a freeze is no loop
    assert result_of(Repetition(), flat(50)).values["repetition"] == 0


def test_repetition_is_bounded_in_memory():
    metric = Repetition(longest=12)
    result_of(metric, flat(*range(100)))
    assert len(metric.seen) == 12 and len(metric.sums) == 12


@given(st.integers(1, 40), st.integers(1, 40))
def test_block_means_keep_the_mean_of_what_divides(height, width):
    blocks = block_means(np.full((height, width), 7.0), 8)
    assert blocks.shape == (min(8, height), min(8, width)) and np.allclose(blocks, 7)
    assert np.allclose(block_means(np.arange(16.0).reshape(4, 4), 2), [[2.5, 4.5], [10.5, 12.5]])


def test_a_cut_is_found_where_it_is():
    pytest.importorskip("scenedetect")
    clips = [
        clip.render(clip.sample((81, i), scene=scene), clip.frame_times(40))[0]
        for i, scene in enumerate(("snow", "night"))
    ]
    assert result_of(Cuts(), clips[0]).events["cuts"] == []
    result = result_of(Cuts(), np.concatenate(clips))
    assert (result.values["cuts"], result.events["cuts"]) == (1, [40])
