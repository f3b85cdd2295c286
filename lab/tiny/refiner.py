"""Recipe `refiner`: a text-to-video UNet at twice the resolution for low noise only (method.md: Refining)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet3DConditionModel
from torch import nn
from transformers import CLIPTextModel

from streamingt2v.samplers.sdedit import logsnr_cosine_interp, trailing_nodes
from streamingt2v.train import objective
from streamingt2v.train.draws import generators
from streamingt2v.train.sheet import save_sheet
from streamingt2v.train.task import Batch
from streamingt2v.video.piece import to_uint8

from ..compare.whole import solve
from . import data, diffusion
from .base import build_unet, load_unet
from .text import load_text, tokenize


@dataclass(frozen=True)
class RefinerConfig:
    """text: folder of the text recipe. levels: timesteps below this are trained; refining starts from
    partial noise.

    size: of the images. frames: per clip; every `image_every`th step trains `image_batch` images. soften:
    share of clips shrunk and enlarged before noise, like the refiner's input. init: folder of an earlier
    refiner to start from.
    """

    text: Path
    init: Path | None = None
    nouns: int = 12
    size: int = 128
    frames: int = 8
    image_every: int = 2
    image_batch: int = 8
    levels: int = 250
    soften: float = 0.5
    channels: tuple[int, ...] = (48, 96, 144)


class RefinerModule(nn.Module):
    """The UNet with the frozen text encoder in one forward."""

    def __init__(self, unet: UNet3DConditionModel, text: CLIPTextModel, levels: int):
        super().__init__()
        self.unet, self.text = unet, text.requires_grad_(False)
        self.schedule, self.levels = logsnr_cosine_interp(), levels

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            text_BLD = self.text(batch["ids"]).last_hidden_state
        clean, start = batch["latents"], batch["start"]
        t = batch["noise"].integers(self.levels, clean)
        alpha, sigma = (
            table.to(clean)[t].view(-1, 1, 1, 1, 1) for table in (self.schedule.alphas, self.schedule.sigmas)
        )
        # the noisy input carries what a soft upscaled clip would; the target is the sharp clip's velocity
        noisy = alpha * start + sigma * batch["noise"].normal(clean)
        velocity = (alpha * noisy - clean) / sigma
        predicted = self.unet(noisy, t, text_BLD).sample.float()
        # the base's weight over noise; its sigma^2 keeps softened clips' velocity finite for small sigma
        error = ((predicted - velocity) * sigma) ** 2 * ((alpha / sigma) ** 2).clamp(max=5).add(1)
        return {"loss": (error.mean(1) * batch["weight"]).mean((1, 2, 3))}


class RefinerTask:
    """See `loop.Task`."""

    def __init__(self, config: RefinerConfig):
        self.config = config
        self.nouns = data.noun_names(config.nouns)
        self.tokenizer, text = load_text(config.text)
        if config.init is not None:
            unet = load_unet(config.init)
        else:
            unet = build_unet(
                config.channels, config.size // data.PATCH, text.config.hidden_size, head_dim=16
            )
        self.module = RefinerModule(unet, text, config.levels)

    def batch_size(self, step: int, batch: int) -> int:
        return self.config.image_batch if self._is_of_pictures(step) else batch

    def _is_of_pictures(self, step: int) -> bool:
        return step % self.config.image_every == 0

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        frames = 1 if self._is_of_pictures(step) else self.config.frames
        pixels, masks, specs = data.draw(rngs, frames, self.nouns, self.config.size)
        soft = torch.tensor([rng.random() < self.config.soften for rng in rngs]).view(-1, 1, 1, 1, 1)
        return {
            "latents": data.encode_clips(pixels),
            "start": data.encode_clips(torch.where(soft, softened(pixels), pixels)),
            "weight": diffusion.foreground_weight(masks),
            "ids": tokenize(self.tokenizer, objective.drop_captions([s.caption for s in specs], rngs)),
        }

    def export(self, folder: Path) -> None:
        self.module.unet.save_pretrained(folder / "unet")

    def sample(self, folder: Path, step: int) -> None:
        """Draw softened clips, their refined versions, and the true ones; decoded by the patch PCA."""
        batch = self.batch(generators(0, 1, range(4)), 1)
        refined = refine(self.module, batch)
        rows = torch.stack([batch["start"], refined.cpu(), batch["latents"]], 1).flatten(0, 1)
        flat = data.world_pca().decode(rows.transpose(1, 2).flatten(0, 1)).unflatten(0, rows.shape[:3:2])
        save_sheet(to_uint8(flat), folder / "samples" / f"{step:06d}.png")


@torch.no_grad()
def refine(module: RefinerModule, batch: Batch, steps: int = 4) -> torch.Tensor:
    """Noise a batch's softened latents (B, C, T, h, w) to the highest trained level and denoise without
    guidance.
    """
    device = next(module.unet.parameters()).device
    text_BLD, start = module.text(batch["ids"].to(device)).last_hidden_state, batch["start"].to(device)
    nodes, generator = trailing_nodes(module.schedule, steps, module.levels), torch.Generator().manual_seed(0)

    def noise(step: int) -> torch.Tensor:
        return torch.randn(start.shape, generator=generator).to(device)

    def predict_clean(x_BCTHW: torch.Tensor, timestep: int) -> torch.Tensor:
        return module.schedule.clean_from_v(
            x_BCTHW, module.unet(x_BCTHW, timestep, text_BLD).sample, timestep
        )

    noised = module.schedule.diffuse(start, noise(-1), nodes[0].timestep)
    return list(solve(predict_clean, noised, nodes, noise))[-1].latents_BCTHW


def softened(pixels_BTCHW: torch.Tensor) -> torch.Tensor:
    """Shrink to half size and enlarge again, like stage 3's input."""
    flat, size = pixels_BTCHW.flatten(0, 1), pixels_BTCHW.shape[-2:]
    small = F.interpolate(flat, scale_factor=0.5, mode="bilinear", antialias=True)
    large = F.interpolate(small, size, mode="bicubic", antialias=True).clamp(-1, 1)
    return large.unflatten(0, pixels_BTCHW.shape[:2])
