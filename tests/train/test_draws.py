"""Random values of training: noise levels, and windows whose colours have drifted."""

import numpy as np
import torch

from lab.tiny import diffusion
from streamingt2v.train import objective
from streamingt2v.train.draws import HashedNoise, Noise, generators
from streamingt2v.train.memory import drifted


def test_late_draws_more_timesteps_with_much_noise_and_stays_in_range():
    latents = torch.zeros(4000, 1, 1, 1, 1)
    noise = Noise(generators(0, 0, range(4000)))
    even, late = (
        objective.noised(latents, diffusion.make_scheduler(), noise, 800, late)[2].float()
        for late in (1.0, 2.0)
    )
    assert abs(even.mean() - 400) < 15 and abs(late.mean() - 533) < 15  # means of u and of its square root
    assert late.min() >= 0 and late.max() <= 799


def test_half_of_the_clips_drift_and_all_their_frames_alike():
    still = (torch.rand(400, 1, 3, 8, 8) * 0.6 - 0.6).expand(-1, 2, -1, -1, -1)
    changed = drifted(still, 0.2, generators(0, 0, range(400)))
    assert torch.allclose(changed[:, 0], changed[:, 1], atol=1e-6)
    touched = (changed - still).abs().amax((1, 2, 3, 4)) > 1e-4
    assert 150 < touched.sum() < 250


def test_a_plain_picture_drifts_in_colour_alone_and_no_further_than_asked():
    plain = (torch.rand(400, 1, 3, 1, 1) * 0.8 - 0.9).expand(-1, 2, -1, 4, 4)
    gains = (drifted(plain, 0.2, generators(0, 0, range(400))) + 1) / (plain + 1)
    assert torch.allclose(gains, gains[..., :1, :1].expand_as(gains), atol=1e-4)
    assert np.exp(-0.201) < gains.min() < 0.85 and 1.17 < gains.max() < np.exp(0.201)


def test_contrast_and_detail_drift_around_the_mean_colour():
    clips = (torch.rand(400, 1, 3, 8, 8) * 0.6 - 0.3).expand(-1, 2, -1, -1, -1)
    changed = drifted(clips, 0.2, generators(0, 0, range(400)))
    spread = (
        changed.std((1, 3, 4))
        / clips.std((1, 3, 4))
        / ((changed.mean((1, 3, 4)) + 1) / (clips.mean((1, 3, 4)) + 1))
    )
    assert spread.min() < 0.7 and spread.max() > 1.4


def test_no_drift_is_no_change():
    frames = torch.rand(3, 2, 3, 4, 4) * 2 - 1
    assert torch.allclose(drifted(frames, 0.0, generators(0, 0, range(3))), frames, atol=1e-6)


def hashed(count: int) -> HashedNoise:
    return HashedNoise(torch.tensor(Noise(generators(0, 0, range(count))).seeds))


def test_hashed_noise_is_normal_uniform_and_of_no_pattern():
    noise, like = hashed(64), torch.zeros(64, 5, 33, 31)
    normal, other = noise.normal(like).flatten(1), noise.normal(like).flatten(1)
    for statistic, expected in (
        (normal.mean(), 0),
        (normal.var(), 1),
        ((normal**3).mean(), 0),
        ((normal**4).mean(), 3),
    ):
        assert abs(statistic - expected) < 0.05
    for a, b in (
        (normal, other),
        (normal[:, 1:], normal[:, :-1]),
        (normal[1:], normal[:-1]),
        (normal[:, :2557], normal[:, 2558:]),
    ):
        assert abs((a * b).mean()) < 0.01
    many = hashed(4000)
    uniform, numbers = many.uniform(like), many.integers(7, like)
    assert (
        abs(uniform.mean() - 0.5) < 0.02
        and abs(uniform.var() - 1 / 12) < 0.005
        and 0 <= uniform.min() <= uniform.max() < 1
    )
    assert numbers.bincount(minlength=7).min() > 480 and numbers.max() == 6


def test_hashed_noise_is_splitmix64():
    key, mask = Noise(generators(0, 0, range(1))).seeds[0], 2**64 - 1

    def splitmix(state: int) -> int:
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
        state = (state ^ state >> 27) * 0x94D049BB133111EB & mask
        return state ^ state >> 31

    bits = hashed(1)._bits(3)[0].tolist()
    assert [value & mask for value in bits] == [
        splitmix(key + i * 0x9E3779B97F4A7C15 & mask) for i in (1, 2, 3)
    ]


def test_hashed_noise_of_a_sample_does_not_depend_on_the_others():
    seeds = Noise(generators(3, 1, range(4))).seeds
    whole, part = (HashedNoise(torch.tensor(some)) for some in (seeds, seeds[2:]))
    like = torch.zeros(4, 3, 5)
    for _ in range(2):
        assert torch.equal(whole.normal(like)[2:], part.normal(like[2:]))
    assert torch.equal(whole.uniform(like)[2:], part.uniform(like))
    assert torch.equal(whole.integers(9, like)[2:], part.integers(9, like))


def test_errors_that_all_frames_share_are_no_error_of_changes():
    velocity, t, weight = torch.zeros(2, 4, 6, 2, 2), torch.tensor([100, 900]), torch.ones(2, 6, 2, 2)
    scheduler = diffusion.make_scheduler()

    def loss(error: torch.Tensor, changes: float) -> torch.Tensor:
        return objective.denoising_loss(error, velocity, t, weight, scheduler, changes)

    shared = torch.randn(2, 4, 1, 2, 2).expand_as(velocity)
    assert torch.equal(loss(shared, 0.0), loss(shared, 2.0))
    flicker = torch.tensor([1.0, -1.0]).repeat(3)[None, None, :, None, None].expand_as(velocity)
    assert torch.allclose(loss(flicker, 2.0), 5 * loss(flicker, 0.0))  # 1, and twice half of (1 - -1) squared
    picture = torch.randn(2, 4, 1, 2, 2)
    ones = torch.ones(2, 1, 2, 2)
    alone = [
        objective.denoising_loss(picture, velocity[:, :, :1], t, ones, scheduler, changes)
        for changes in (0.0, 2.0)
    ]
    assert torch.equal(*alone)
