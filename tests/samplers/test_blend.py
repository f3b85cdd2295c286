"""Randomized blending: windows, seams and their law."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.compare.whole import plan_seams
from streamingt2v.samplers import blend
from streamingt2v.samplers.blend import assemble
from streamingt2v.samplers.noise import integer


def owners(windows: Sequence[range], seams: Sequence[int]) -> tuple[int, ...]:
    """For each frame the number of the window that it is taken from."""
    return tuple(max(k for k, seam in enumerate(seams) if seam <= frame) for frame in range(windows[-1].stop))


@st.composite
def plans(draw):
    window = draw(st.integers(1, 30))
    return draw(st.integers(1, 150)), window, draw(st.integers(0, window - 1))


@settings(max_examples=200, deadline=None)
@given(plan=plans())
def test_windows_cover_every_frame(plan):
    frames, size, overlap = plan
    windows = tuple(blend.windows(frames, size, overlap))
    assert windows[0].start == 0 and windows[-1].stop == frames
    assert {len(window) for window in windows} == {min(size, frames)}
    for left, right in pairwise(windows):
        assert left.start < right.start and left.stop - right.start >= overlap
    if (frames - overlap) % (size - overlap) == 0 and frames >= size:
        assert all(left.stop - right.start == overlap for left, right in pairwise(windows))


@settings(max_examples=200, deadline=None)
@given(plan=plans(), law=st.sampled_from(["code", "paper"]), seed=st.integers(0, 1000))
def test_every_frame_comes_from_one_window_that_has_it(plan, law, seed):
    windows = tuple(blend.windows(*plan))
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
    """Frame j of an overlap of O comes from the left window with probability (O-1-j)/O as coded,
    (O-j)/(O+1) in the paper."""
    windows, draws = tuple(blend.windows(12, 8, 4)), 4000
    left = Counter()
    for step in range(draws):
        seams = plan_seams(
            windows, law, lambda number, high, step=step: integer(3, "blend", number, step, high)
        )
        left.update(
            frame - 4 for frame, owner in enumerate(owners(windows, seams)) if owner == 0 and frame >= 4
        )
    for j in range(4):
        expected = (choices - 1 - j) / choices
        assert abs(left[j] / draws - expected) < 4 * 0.5 / draws**0.5


def test_one_window_for_a_short_video():
    assert tuple(blend.windows(5, 24, 8)) == (range(5),)
    assert plan_seams((range(5),), "code", lambda number, high: pytest.fail("nothing to draw")) == (0,)


@pytest.mark.parametrize("frames, window, overlap", [(0, 8, 4), (9, 8, 8), (9, 8, -1), (9, 0, 0)])
def test_bad_plans_are_refused(frames, window, overlap):
    with pytest.raises(ValueError, match="must be"):
        tuple(blend.windows(frames, window, overlap))


@settings(max_examples=100, deadline=None)
@given(plan=plans())
def test_windows_by_number_are_all_there_and_without_end_begin_alike(plan):
    frames, size, overlap = plan
    whole = list(blend.windows(frames, size, overlap))
    assert [blend.window_at(number, frames, size, overlap) for number in range(len(whole))] == whole
    assert all(blend.window_at(len(whole) + later, frames, size, overlap) is None for later in range(3))
    assert [blend.window_at(number, None, size, overlap) for number in range(len(whole) - 1)] == whole[:-1]


@pytest.mark.parametrize("law", ["code", "paper"])
@pytest.mark.parametrize("shared", [1, 2, 3, 5])
def test_the_laws_over_all_draws(law, shared):
    """Every draw counted once: frame j is the left window's in (O-1-j)/O of the cases as coded,
    (O-j)/(O+1) in the paper."""
    left, right = range(8), range(8 - shared, 16 - shared)
    highs: list[int] = []
    blend.seam(0, left, right, law, lambda number, high: highs.append(high) or 0)
    (high,) = highs
    seams = [blend.seam(0, left, right, law, lambda number, high, draw=draw: draw) for draw in range(high)]
    for j in range(shared):
        taken = sum(seam > right.start + j for seam in seams)
        assert (taken, high) == ((shared - 1 - j, shared) if law == "code" else (shared - j, shared + 1))


@settings(max_examples=100, deadline=None)
@given(plan=plans())
def test_a_cross_fade_keeps_what_windows_agree_on_and_rises_evenly(plan):
    windows = list(blend.windows(*plan))
    frames = range(plan[0])
    same = [torch.tensor(list(window), dtype=torch.float32).view(1, 1, -1, 1, 1) for window in windows]
    assert torch.allclose(
        blend.cross_fade(same, windows, frames).flatten(), torch.arange(float(plan[0])), atol=1e-3
    )
    if len(windows) == 2:
        ones = [torch.full((1, 1, len(window), 1, 1), float(number)) for number, window in enumerate(windows)]
        shared = windows[0].stop - windows[1].start
        rising = blend.cross_fade(ones, windows, frames).flatten()[windows[1].start :][:shared]
        assert torch.allclose(rising, (torch.arange(shared) + 1) / (shared + 1))
