"""Noise schedule, sampler and loss weights of the embedded model."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from streamingt2v.train.objective import latent_weight, quick_sampler

from . import data


def make_scheduler() -> DDIMScheduler:
    """Return v-prediction on a scaled-linear schedule with zero terminal SNR (Lin et al. 2024)."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
        set_alpha_to_one=True, steps_offset=1,
    )  # fmt: skip


def make_sampler() -> DPMSolverMultistepScheduler:
    """Return DPM-Solver++(2M) on the same schedule."""
    return quick_sampler(make_scheduler())


def foreground_weight(masks_BTHW: torch.Tensor) -> torch.Tensor:
    """Return latent weights from sprite coverage; else the backdrop takes all of the training."""
    return latent_weight(data.pixel_weight(masks_BTHW), data.PATCH)
