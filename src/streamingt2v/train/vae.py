"""Recipe `vae`: a stock AutoencoderKL whose latents are the world's patch PCA.

The encoder learns the linear code (so that any picture can be encoded by the stock class), the decoder learns to draw sharply
from it. The decoder's latents are disturbed a little, since a denoiser's are never perfect.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from ..world import vocabulary
from . import data, diffusion
from .loop import Batch


@dataclass(frozen=True)
class VaeConfig:
    """`size`: side of the training pictures. Half are windows of pictures twice as large, for the refiner; one step in `whole_every` is
    made of such pictures as a whole, a quarter as many, since norms and attention see all of a picture. `init`: folder to start from.

    `disturb`: largest noise on the latents that are decoded. The finest of them have a spread of 0.4: more noise than that, and the
    decoder learns to leave them out.
    """

    size: int = 64
    channels: tuple[int, ...] = (16, 32, 64, 128)
    disturb: float = 0.1
    whole_every: int = 4
    init: Path | None = None


def build_vae(config: VaeConfig) -> AutoencoderKL:
    """An autoencoder that divides height and width by 8."""
    levels = len(config.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=1,
        latent_channels=data.LATENT_CHANNELS,
        norm_num_groups=16,
        sample_size=config.size,
        scaling_factor=1.0,
    )


class VaeModule(nn.Module):
    """Encoder against the PCA, decoder against the pixels; each has its own loss and neither sees the other."""

    def __init__(self, vae: AutoencoderKL, disturb: float):
        super().__init__()
        self.vae, self.disturb = vae, disturb

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        pixels, latents = batch["pixels"], batch["latents"]
        coded = self.vae.encode(pixels).latent_dist
        encoder = F.mse_loss(coded.mean.float(), latents) + 1e-4 * ((coded.logvar.float() + 12) ** 2).mean()
        amount = self.disturb * torch.rand(len(latents), 1, 1, 1, device=latents.device)
        drawn = self.vae.decode(latents + amount * torch.randn_like(latents)).sample.float()
        l1, l2 = F.l1_loss(drawn, pixels), F.mse_loss(drawn, pixels)
        edges = sum(F.l1_loss(drawn.diff(dim=d), pixels.diff(dim=d)) for d in (2, 3))
        return {"loss": encoder + l1 + edges + l2, "encoder": encoder, "l1": l1, "psnr": 10 * torch.log10(4 / l2)}


class VaeTask:
    """See `loop.Task`."""

    def __init__(self, config: VaeConfig):
        self.config = config
        self.vae = AutoencoderKL.from_pretrained(config.init / "vae").float() if config.init else build_vae(config)
        self.module = VaeModule(self.vae, config.disturb)
        self.nouns = data.noun_names(len(vocabulary.NOUNS))

    def batch(self, rng: np.random.Generator, step: int, size: int) -> Batch:
        side = self.config.size
        if step % self.config.whole_every == self.config.whole_every - 1:
            whole = data.draw(rng, max(1, size // 4), 1, self.nouns, 2 * side)[0][:, 0]
            return {"pixels": whole, "latents": data.world_pca().encode(whole)}
        small, _, _ = data.draw(rng, size - size // 2, 1, self.nouns, side)
        large, _, _ = data.draw(rng, size // 2, 1, self.nouns, 2 * side)
        windows = [_window(large[i, 0], side, rng) for i in range(len(large))]
        pixels = torch.cat([small[:, 0], *(w[None] for w in windows)])
        return {"pixels": pixels, "latents": data.world_pca().encode(pixels)}

    def export(self, folder: Path) -> None:
        self.vae.save_pretrained(folder / "vae")

    @torch.no_grad()
    def sample(self, folder: Path, step: int) -> None:
        batch = self.batch(np.random.default_rng(0), 0, 16)
        device = next(self.vae.parameters()).device
        drawn = self.vae.decode(self.vae.encode(batch["pixels"].to(device)).latent_dist.mean).sample.cpu()
        rows = torch.stack([batch["pixels"], drawn], 1).flatten(0, 1)[:, None]
        diffusion.save_sheet(diffusion.to_uint8(rows), folder / "samples" / f"{step:06d}.png")


def _window(picture_CHW: torch.Tensor, side: int, rng: np.random.Generator) -> torch.Tensor:
    y, x = (data.PATCH * int(rng.integers((n - side) // data.PATCH + 1)) for n in picture_CHW.shape[-2:])
    return picture_CHW[:, y : y + side, x : x + side]
