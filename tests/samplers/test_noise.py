"""Counter-based noise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingt2v.samplers.noise import frame_noise, integer, mixed_noise


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    frames=st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
    cut=st.integers(0, 6),
    step=st.integers(-1, 1000),
)
def test_does_not_depend_on_chunking_or_order(seed, frames, cut, step):
    whole = frame_noise(seed, "extend", frames, step, (3, 5))
    parts = [frame_noise(seed, "extend", part, step, (3, 5)) for part in (frames[:cut], frames[cut:])]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole.flip(0), frame_noise(seed, "extend", frames[::-1], step, (3, 5)))


def test_same_numbers_on_every_machine():
    """Pinned, so that a video made today can be resumed with a later version;
    float64 leaves room for the last bit only."""
    values = frame_noise(33, "extend", [0, 17], 4, (3,))
    expected = torch.tensor([[0.08334778, 0.44658259, 0.18573792], [-0.89659607, 0.25940785, -1.16518152]])
    assert torch.allclose(values, expected, rtol=0, atol=3e-7)


def test_every_part_of_the_key_counts():
    made = [
        frame_noise(*key, (64,))
        for key in [
            (1, "a", [5], 0),
            (2, "a", [5], 0),
            (1, "b", [5], 0),
            (1, "a", [6], 0),
            (1, "a", [5], 1),
            (1, "a", [5], -1),
        ]
    ]
    correlations = torch.corrcoef(torch.cat(made)) - torch.eye(len(made))
    assert correlations.abs().max() < 0.5


def test_is_standard_normal():
    values = frame_noise(0, "seed", range(64), 0, (4, 32, 31)).double().flatten()
    n = len(values)
    assert abs(float(values.mean())) < 4 / math.sqrt(n)
    assert abs(float(values.var()) - 1) < 4 * math.sqrt(2 / n)
    assert abs(float((values**4).mean()) - 3) < 4 * math.sqrt(96 / n)
    assert abs(float((values < 1).double().mean()) - 0.841345) < 4 * 0.37 / math.sqrt(n)
    pairs = values.reshape(64, -1)  # the two halves of Box-Muller pairs lie half a frame apart
    half = pairs.shape[1] // 2
    assert abs(float((pairs[:, :half] * pairs[:, half:]).mean())) < 4 / math.sqrt(n / 2)


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 3), (4, 8, 8)])
def test_shapes(shape):
    made = frame_noise(0, "seed", range(3), 0, shape)
    assert made.shape == (3, *shape) and made.dtype == torch.float32 and made.isfinite().all()
    assert frame_noise(0, "seed", range(0), 0, shape).shape == (0, *shape)


@pytest.mark.parametrize("frames, step", [([-1], 0), ([0], -2)])
def test_bad_places_are_refused(frames, step):
    with pytest.raises(ValueError, match="must be 0 or more"):
        frame_noise(0, "seed", frames, step, (2,))


def test_integers_are_uniform():
    counts = torch.bincount(
        torch.tensor([integer(7, "blend", index, step, 5) for index in range(50) for step in range(40)]),
        minlength=5,
    )
    assert counts.sum() == 2000 and (counts - 400).abs().max() < 4 * math.sqrt(2000 * 0.2 * 0.8)
    assert integer(7, "blend", 3, 4, 1) == 0
    with pytest.raises(ValueError, match="high=0"):
        integer(7, "blend", 0, 0, 0)


def test_mixed_noise_is_standard_normal_in_each_frame_and_correlated_between_frames():
    values = mixed_noise(0, "seed", range(64), -1, (4, 32, 32), 0.4).flatten(1).double()
    assert abs(float(values.var(1).mean()) - 1) < 0.02
    assert abs(float(torch.corrcoef(values)[0, 1:].mean()) - 0.4) < 0.03
    other = (
        mixed_noise(0, "extend", [99], -1, (4, 32, 32), 0.4).flatten().double()
    )  # another stage of the same video
    assert abs(float(torch.corrcoef(torch.stack([values[0], other]))[0, 1]) - 0.4) < 0.06


def test_no_mixture_is_frame_noise():
    assert torch.equal(
        mixed_noise(3, "seed", range(4), 2, (2, 3), 0.0), frame_noise(3, "seed", range(4), 2, (2, 3))
    )
