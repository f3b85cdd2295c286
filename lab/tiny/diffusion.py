"""What the diffusion recipes share: the noise schedule, the weighted loss, and a look at samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from PIL import Image

from streamingt2v.train.draws import Noise
from streamingt2v.video.piece import to_uint8 as to_uint8

from . import data


def make_scheduler() -> DDIMScheduler:
    """v-prediction on a scaled-linear schedule with zero terminal signal (Lin et al. 2024): step one starts from pure noise."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True, steps_offset=1,
    )  # fmt: skip


def make_sampler() -> DPMSolverMultistepScheduler:
    """The same schedule walked by DPM-Solver++(2M) (Lu et al. 2022): eight of its steps look like twenty of DDIM's."""
    trained = make_scheduler().config
    shared = "beta_start beta_end beta_schedule prediction_type rescale_betas_zero_snr timestep_spacing steps_offset".split()
    return DPMSolverMultistepScheduler(**{name: trained[name] for name in shared}, algorithm_type="dpmsolver++", solver_order=2)


def noised(
    latents_BCTHW: torch.Tensor,
    scheduler: DDIMScheduler,
    noise: Noise,
    max_timestep: int = 1000,
    late: float = 1.0,
    mixed: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy latents, the velocity to be predicted, and the timesteps (B,) in 0..max_timestep-1.

    They are uniform for `late` 1; above it there are more with much noise, where it is decided what moves and how: 2 makes the
    share of a timestep proportional to it. `mixed`: see `samplers.noise.mixed_noise`.
    """
    normal_BCTHW = noise.normal(latents_BCTHW)
    if mixed:
        normal_BCTHW = (1 - mixed) ** 0.5 * normal_BCTHW + mixed**0.5 * noise.normal(latents_BCTHW[:, :, :1])
    t = (max_timestep * noise.uniform(latents_BCTHW) ** (1 / late)).long().clamp(max=max_timestep - 1)
    return scheduler.add_noise(latents_BCTHW, normal_BCTHW, t), scheduler.get_velocity(latents_BCTHW, normal_BCTHW, t), t


def sample_noise(shape: Sequence[int], mixed: float, seed: int = 0) -> torch.Tensor:
    """Noise (B, C, T, H, W) to look at samples from, always the same; `mixed`: see `noised`."""
    generator = torch.Generator().manual_seed(seed)
    b, c, t, *sides = shape
    own, common = (torch.randn(b, c, frames, *sides, generator=generator) for frames in (t, 1))
    return (1 - mixed) ** 0.5 * own + mixed**0.5 * common


def velocity_loss(
    predicted_BCTHW: torch.Tensor,
    velocity_BCTHW: torch.Tensor,
    t: torch.Tensor,
    weight_BTHW: torch.Tensor,
    scheduler: DDIMScheduler,
    changes: float = 0.0,
) -> torch.Tensor:
    """Mean squared error of each sample (B,), weighted over the picture by `weight_BTHW` and over noise by (min(snr, 5) + 1) / (snr + 1).

    The noise weight keeps min-SNR's cap (Hang et al. 2023) where there is little noise, but not its zero at pure noise,
    where the text alone decides what the picture will show. `changes`: weight of half the squared error of the changes from frame to
    frame, in which errors that all frames share, as of what cannot be known yet, drop out, and motion and flicker stay.
    """
    alphas = scheduler.alphas_cumprod.to(t.device)[t]
    snr = alphas / (1 - alphas)
    noise_weight = (snr.clamp(max=5) + 1) / (snr + 1)
    error_BCTHW = predicted_BCTHW.float() - velocity_BCTHW
    loss = ((error_BCTHW**2).mean(1) * weight_BTHW).mean((1, 2, 3))
    if changes and error_BCTHW.shape[2] > 1:
        change_BTHW = (error_BCTHW.diff(dim=2) ** 2).mean(1) / 2
        loss = loss + changes * (change_BTHW * (weight_BTHW[:, 1:] + weight_BTHW[:, :-1]) / 2).mean((1, 2, 3))
    return loss * noise_weight


def foreground_weight(masks_BTHW: torch.Tensor, gain: float = 4.0) -> torch.Tensor:
    """1 + gain x coverage of the sprite, per latent pixel, mean 1 in every clip: an equal one is spent on the backdrop."""
    cover = F.avg_pool2d(masks_BTHW, data.PATCH)
    weight = 1 + gain * cover
    return weight / weight.mean((1, 2, 3), keepdim=True)


def drop_captions(captions: list[str], rngs: Sequence[np.random.Generator], share: float = 0.1) -> list[str]:
    """Captions with some replaced by the empty one, so that guidance has something to guide away from."""
    return ["" if rng.random() < share else text for text, rng in zip(captions, rngs, strict=True)]


def save_sheet(frames_NTHWC: np.ndarray, path: Path, columns: int = 8) -> None:
    """A picture of clips: single frames in rows of `columns`, or a row for each clip where there are several frames."""
    n, t = frames_NTHWC.shape[:2]
    cells = frames_NTHWC[:, 0] if t == 1 else frames_NTHWC[:, :: max(1, t // 8)][:, :8].reshape(-1, *frames_NTHWC.shape[2:])
    columns = columns if t == 1 else len(cells) // n
    cells = cells[: len(cells) // columns * columns]
    rows = [np.concatenate(list(cells[i : i + columns]), 1) for i in range(0, len(cells), columns)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows, 0)).save(path)
