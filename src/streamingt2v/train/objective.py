"""Training objective of a denoiser, for "epsilon" and "v_prediction" schedulers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from ..errors import ModelError
from .draws import Noise

_BETAS = ("beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
_SCHEDULE = ("num_train_timesteps", "prediction_type", *_BETAS)
SNR_CAP = 5.0
"""Cap of min-SNR weighting (Hang et al. 2023)."""


def training_scheduler(scheduler: Any) -> DDIMScheduler:
    """Return the scheduler's noise schedule for training. ModelError unless it predicts noise or velocity."""
    known = {name: scheduler.config[name] for name in _SCHEDULE if name in scheduler.config}
    if known.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"its networks predict {known['prediction_type']!r}; only epsilon and v_prediction can be trained"
        )
    return DDIMScheduler(
        **known, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True, steps_offset=1
    )


def quick_sampler(scheduler: Any) -> DPMSolverMultistepScheduler:
    """Return DPM-Solver++(2M) (Lu et al. 2022) on this schedule: 8 of its steps look like 20 of DDIM's."""
    known = {name: scheduler.config[name] for name in (*_SCHEDULE, "timestep_spacing", "steps_offset")}
    return DPMSolverMultistepScheduler(**known, algorithm_type="dpmsolver++", solver_order=2)


def noised(
    latents_BCTHW: torch.Tensor,
    scheduler: DDIMScheduler,
    noise: Noise,
    max_timestep: int = 1000,
    late: float = 1.0,
    mixed: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return noisy latents, the target, and timesteps (B,) in 0..max_timestep-1.

    late: 1 draws timesteps uniformly; 2 in proportion to the timestep, i.e. more often at high noise, where
    motion is decided. mixed: share of the noise's variance that frames have in common, see
    `samplers.noise.mixed_noise`.
    """
    normal_BCTHW = noise.normal(latents_BCTHW)
    if mixed:
        normal_BCTHW = (1 - mixed) ** 0.5 * normal_BCTHW + mixed**0.5 * noise.normal(latents_BCTHW[:, :, :1])
    t = (max_timestep * noise.uniform(latents_BCTHW) ** (1 / late)).long().clamp(max=max_timestep - 1)
    noisy_BCTHW = scheduler.add_noise(latents_BCTHW, normal_BCTHW, t)
    if scheduler.config.prediction_type == "epsilon":
        return noisy_BCTHW, normal_BCTHW, t
    return noisy_BCTHW, scheduler.get_velocity(latents_BCTHW, normal_BCTHW, t), t


def sample_noise(shape: Sequence[int], mixed: float) -> torch.Tensor:
    """Return the same noise (B, C, T, H, W) each time, for sample images. mixed: see `noised`."""
    generator = torch.Generator().manual_seed(0)
    b, c, t, *sides = shape
    own, common = (torch.randn(b, c, frames, *sides, generator=generator) for frames in (t, 1))
    return (1 - mixed) ** 0.5 * own + mixed**0.5 * common


def denoising_loss(
    predicted_BCTHW: torch.Tensor,
    target_BCTHW: torch.Tensor,
    t: torch.Tensor,
    weight_BTHW: torch.Tensor,
    scheduler: DDIMScheduler,
    changes: float = 0.0,
) -> torch.Tensor:
    """Return each sample's mean squared error (B,), weighted by `weight_BTHW` and `_noise_weight`.

    changes: weight of half the squared error of frame-to-frame changes. Errors common to all frames cancel
    out; motion and flicker stay.
    """
    error_BCTHW = predicted_BCTHW.float() - target_BCTHW
    loss = ((error_BCTHW**2).mean(1) * weight_BTHW).mean((1, 2, 3))
    if changes and error_BCTHW.shape[2] > 1:
        change_BTHW = (error_BCTHW.diff(dim=2) ** 2).mean(1) / 2
        loss = loss + changes * (change_BTHW * (weight_BTHW[:, 1:] + weight_BTHW[:, :-1]) / 2).mean((1, 2, 3))
    return loss * _noise_weight(t, scheduler)


def _noise_weight(t: torch.Tensor, scheduler: DDIMScheduler) -> torch.Tensor:
    """Return weights (B,) of timesteps: min-SNR for noise; for velocity above 0 at pure noise."""
    alphas = scheduler.alphas_cumprod.to(t.device)[t]
    snr = alphas / (1 - alphas)
    if scheduler.config.prediction_type == "epsilon":
        return snr.clamp(max=SNR_CAP) / snr.clamp(min=1e-8)
    return (snr.clamp(max=SNR_CAP) + 1) / (snr + 1)


def latent_weight(weight_BTHW: torch.Tensor, factor: int) -> torch.Tensor:
    """Pool pixel weights to latents, with mean 1 in every clip. factor: pixels per latent along one side."""
    pooled = F.avg_pool2d(weight_BTHW, factor)
    return pooled / pooled.mean((1, 2, 3), keepdim=True)


def drop_captions(captions: list[str], rngs: Sequence[np.random.Generator], share: float = 0.1) -> list[str]:
    """Replace a share of the captions by "": guidance needs an unconditional prediction."""
    return ["" if rng.random() < share else text for text, rng in zip(captions, rngs, strict=True)]
