"""What training draws: noise levels, and windows whose colours have drifted."""

import numpy as np
import torch

from streamingt2v.train import diffusion
from streamingt2v.train.draws import Noise, generators
from streamingt2v.train.memory import drifted


def test_late_draws_more_timesteps_with_much_noise_and_stays_in_range():
    latents = torch.zeros(4000, 1, 1, 1, 1)
    noise = Noise(generators(0, 0, range(4000)))
    even, late = (diffusion.noised(latents, diffusion.make_scheduler(), noise, 800, late)[2].float() for late in (1.0, 2.0))
    assert abs(even.mean() - 400) < 15 and abs(late.mean() - 533) < 15  # means of u and of its square root
    assert late.min() >= 0 and late.max() <= 799


def test_drift_changes_colours_of_about_half_the_clips_alike_in_all_their_frames():
    frames = torch.rand(400, 2, 3, 4, 4) * 0.8 - 0.9
    changed = drifted(frames, 0.2, generators(0, 0, range(400)))
    gains = (changed + 1) / (frames + 1)
    assert torch.allclose(gains, gains[:, :1, :, :1, :1].expand_as(gains), atol=1e-3)
    touched = (gains[:, 0, :, 0, 0] - 1).abs().amax(1) > 1e-4
    assert 150 < touched.sum() < 250
    assert gains.min() > np.exp(-0.21) and gains.max() < np.exp(0.21)


def test_no_drift_is_no_change():
    frames = torch.rand(3, 2, 3, 4, 4) * 2 - 1
    assert torch.allclose(drifted(frames, 0.0, generators(0, 0, range(3))), frames, atol=1e-6)
