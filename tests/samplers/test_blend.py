"""Randomized blending: windows, seams and their law."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingt2v.samplers.blend import assemble, owners, plan_seams, plan_windows
from streamingt2v.samplers.noise import integer


@st.composite
def plans(draw):
    window = draw(st.integers(1, 30))
    return draw(st.integers(1, 150)), window, draw(st.integers(0, window - 1))


@settings(max_examples=200, deadline=None)
@given(plan=plans())
def test_windows_cover_every_frame(plan):
    frames, size, overlap = plan
    windows = plan_windows(frames, size, overlap)
    assert windows[0].start == 0 and windows[-1].stop == frames
    assert {len(window) for window in windows} == {min(size, frames)}
    for left, right in pairwise(windows):
        assert left.start < right.start and left.stop - right.start >= overlap
    if (frames - overlap) % (size - overlap) == 0 and frames >= size:
        assert all(left.stop - right.start == overlap for left, right in pairwise(windows))


@settings(max_examples=200, deadline=None)
@given(plan=plans(), law=st.sampled_from(["code", "paper"]), seed=st.integers(0, 1000))
def test_every_frame_comes_from_one_window_that_has_it(plan, law, seed):
    windows = plan_windows(*plan)
    seams = plan_seams(windows, law, lambda number, high: integer(seed, "blend", number, 0, high))
    takers = owners(windows, seams)
    assert len(takers) == plan[0]
    assert all(frame in windows[taker] for frame, taker in enumerate(takers))
    assert list(takers) == sorted(takers)
    parts = [
        torch.tensor([[number, frame] for frame in window], dtype=torch.float32).T[None, :, :, None, None]
        for number, window in enumerate(windows)
    ]
    video = assemble(parts, windows, seams)
    assert video.shape == (1, 2, plan[0], 1, 1)
    assert video[0, 0, :, 0, 0].tolist() == list(takers)
    assert video[0, 1, :, 0, 0].tolist() == list(range(plan[0]))


@pytest.mark.parametrize("law, choices", [("code", 4), ("paper", 5)])
def test_marginals(law, choices):
    """Frame j of an overlap of O comes from the left window with probability (O-1-j)/O as coded, (O-j)/(O+1) in the paper (spec 6.5)."""
    windows, draws = plan_windows(12, 8, 4), 4000
    left = Counter()
    for step in range(draws):
        seams = plan_seams(windows, law, lambda number, high, step=step: integer(3, "blend", number, step, high))
        left.update(frame - 4 for frame, owner in enumerate(owners(windows, seams)) if owner == 0 and frame >= 4)
    for j in range(4):
        expected = (choices - 1 - j) / choices
        assert abs(left[j] / draws - expected) < 4 * 0.5 / draws**0.5


def test_one_window_for_a_short_video():
    assert plan_windows(5, 24, 8) == (range(5),)
    assert plan_seams((range(5),), "code", lambda number, high: pytest.fail("nothing to draw")) == (0,)


@pytest.mark.parametrize("frames, window, overlap", [(0, 8, 4), (9, 8, 8), (9, 8, -1), (9, 0, 0)])
def test_bad_plans_are_refused(frames, window, overlap):
    with pytest.raises(ValueError, match="must be"):
        plan_windows(frames, window, overlap)
