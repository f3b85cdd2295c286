"""Noise schedule, plain sampler and contact sheet for networks in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet3DConditionModel
from PIL import Image
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from streamingt2v.train.precision import is_quick_in_bfloat16

from .code import PatchCode
from .words import tokenize


def make_scheduler() -> DDIMScheduler:
    """Return a scaled-linear schedule with zero terminal SNR (Lin et al. 2024): sampling starts from pure
    noise.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def clean_of(
    velocity_BCTHW: torch.Tensor, noisy_BCTHW: torch.Tensor, t: torch.Tensor, scheduler: DDIMScheduler
) -> torch.Tensor:
    """Return the clean latents for a predicted velocity."""
    signal = scheduler.alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1, 1)
    return signal.sqrt() * noisy_BCTHW - (1 - signal).sqrt() * velocity_BCTHW


@torch.no_grad()
def sample(
    unet: UNet3DConditionModel,
    text: CLIPTextModel,
    tokenizer: PreTrainedTokenizerFast,
    scheduler: DDIMScheduler,
    captions: list[str],
    frames: int,
    steps: int = 10,
    guidance: float = 3.0,
    seed: int = 0,
    rescale: float = 0.5,
) -> torch.Tensor:
    """Return latents (B, C, T, h, w) for captions, by DPM-Solver++ with guidance."""
    solver = DPMSolverMultistepScheduler.from_config(
        scheduler.config, algorithm_type="dpmsolver++", solver_order=2
    )
    solver.set_timesteps(steps)
    device = next(unet.parameters()).device
    words = text(tokenize(tokenizer, [""] * len(captions) + captions).to(device)).last_hidden_state
    side = unet.config.sample_size
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn((len(captions), unet.config.in_channels, frames, side, side), generator=generator).to(
        device
    )
    for t in solver.timesteps:
        with torch.autocast(device.type, torch.bfloat16, enabled=is_quick_in_bfloat16(device)):
            negative, positive = unet(torch.cat([z, z]), t, words).sample.float().chunk(2)
        guided = negative + guidance * (positive - negative)
        axes = tuple(range(1, z.ndim))
        like = guided * (positive.std(axes, keepdim=True) / guided.std(axes, keepdim=True))
        z = solver.step(rescale * like + (1 - rescale) * guided, t, z).prev_sample
    return z.cpu()


def pictures(code: PatchCode, latents_BCTHW: torch.Tensor) -> np.ndarray:
    """Decode to uint8 (B, T, H, W, 3) with the linear code."""
    b, t = latents_BCTHW.shape[0], latents_BCTHW.shape[2]
    flat = code.decode(latents_BCTHW.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, t))
    return ((flat.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 1, 3, 4, 2).numpy()


def save_sheet(code: PatchCode, latents_BCTHW: torch.Tensor, path: Path, columns: int = 8) -> None:
    """Save frames in rows of `columns`, or one clip per row; at twice their size."""
    frames = pictures(code, latents_BCTHW)
    if frames.shape[1] == 1:
        cells = frames[:, 0]
    else:
        cells = frames[:, :: max(1, frames.shape[1] // columns)][:, :columns].reshape(-1, *frames.shape[2:])
    rows = [np.concatenate(list(cells[i : i + columns]), 1) for i in range(0, len(cells), columns)]
    picture = Image.fromarray(np.concatenate(rows, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(path)
