"""Motion-aware warp error."""

import math

import numpy as np
import pytest

from lab.compare.whole import warp_errors
from streamingt2v.metrics.mawe import WarpErrors, warp


def moving_square(frames: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Make a pattern that moves two pixels right and one down, and its flows."""
    pattern = np.random.default_rng(0).integers(0, 256, (3, 20, 30), np.uint8)
    video = np.stack([np.roll(pattern, (k, 2 * k), axis=(1, 2)) for k in range(frames)])
    flows = np.zeros((frames - 1, 2, 20, 30), np.float32)
    flows[:, 0], flows[:, 1] = 2, 1
    return video, flows


def test_true_flow_has_no_error():
    errors = warp_errors(*moving_square())
    assert not errors.error.any()
    assert errors.motion == pytest.approx([math.sqrt(5)] * 3)
    assert errors.mean_of_ratios() == errors.ratio_of_means() == 0


def test_warp_moves_drops_and_overwrites():
    frame = np.arange(4, dtype=np.uint8).reshape(1, 1, 4)
    flow = np.zeros((2, 1, 4))
    flow[0, 0] = [2, 1, 0.5, 9]  # 0 and 1 and 2.5 (to the even 2) all arrive at 2; the last leaves
    warped, known = warp(frame, flow)
    assert warped[0, 0].tolist() == [0, 0, 2, 0]
    assert known[0].tolist() == [False, False, True, False]


def test_definitions_differ_and_mind_still_pairs():
    errors = WarpErrors(np.array([2.0, 4.0]), np.array([1.0, 4.0]))
    assert errors.mean_of_ratios(1) == 1.5 and errors.ratio_of_means(1) == 1.2
    still = WarpErrors(np.array([2.0, 4.0]), np.array([0.0, 4.0]))
    assert still.mean_of_ratios() == math.inf and still.ratio_of_means(1) == 1.5
    assert WarpErrors(np.array([1.0]), np.array([0.0])).ratio_of_means() == math.inf


def test_flow_count_is_checked():
    video, flows = moving_square()
    with pytest.raises(ValueError, match="2 flows for 4 frames"):
        warp_errors(video, flows[:2])
