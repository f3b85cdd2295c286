"""Recipe `vae`: a stock AutoencoderKL whose latents are the world's patch PCA.

The encoder learns the linear code, so the stock class can encode any image; the decoder learns to draw
sharply from it. Latents get a little noise, as a denoiser leaves some.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from streamingt2v.train.draws import generators
from streamingt2v.train.sheet import save_sheet
from streamingt2v.train.task import Batch
from streamingt2v.video.piece import to_uint8

from ..world import vocabulary
from . import data


@dataclass(frozen=True)
class VaeConfig:
    """size: of training images; half are crops of images twice as large, for the refiner. whole_every:
    every Nth step trains

    a quarter as many whole ones, since norms and attention see the entire image. init: folder to start from.

    disturb: largest noise on decoded latents. The finest latents have deviation 0.4; with more noise the
    decoder learns to drop them.
    """

    size: int = 64
    channels: tuple[int, ...] = (16, 32, 64, 128)
    disturb: float = 0.1
    whole_every: int = 4
    init: Path | None = None


def build_vae(config: VaeConfig) -> AutoencoderKL:
    """Build an autoencoder that divides height and width by 8."""
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
    """Train encoder against PCA, decoder against pixels; separate losses, neither depends on the other."""

    def __init__(self, vae: AutoencoderKL, disturb: float):
        super().__init__()
        self.vae, self.disturb = vae, disturb

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        pixels, latents = batch["pixels"], batch["latents"]
        coded = self.vae.encode(pixels).latent_dist
        encoder = ((coded.mean.float() - latents) ** 2 + 1e-4 * (coded.logvar.float() + 12) ** 2).mean(
            (1, 2, 3)
        )
        amount = self.disturb * batch["noise"].uniform(latents).view(-1, 1, 1, 1)
        error = self.vae.decode(latents + amount * batch["noise"].normal(latents)).sample.float() - pixels
        l1, l2 = error.abs().mean((1, 2, 3)), (error**2).mean((1, 2, 3))
        edges = sum(error.diff(dim=d).abs().mean((1, 2, 3)) for d in (2, 3))
        return {
            "loss": encoder + l1 + edges + l2,
            "encoder": encoder,
            "l1": l1,
            "psnr": 10 * torch.log10(4 / l2),
        }


class VaeTask:
    """See `loop.Task`."""

    def __init__(self, config: VaeConfig):
        self.config = config
        self.vae = (
            AutoencoderKL.from_pretrained(config.init / "vae").float() if config.init else build_vae(config)
        )
        self.module = VaeModule(self.vae, config.disturb)
        self.nouns = data.noun_names(len(vocabulary.NOUNS))

    def batch_size(self, step: int, batch: int) -> int:
        return max(1, batch // 4) if self._is_of_whole(step) else batch

    def _is_of_whole(self, step: int) -> bool:
        return step % self.config.whole_every == self.config.whole_every - 1

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        pixels = torch.stack([self._picture(rng, self._is_of_whole(step)) for rng in rngs])
        return {"pixels": pixels, "latents": data.world_pca().encode(pixels)}

    def _picture(self, rng: np.random.Generator, whole: bool) -> torch.Tensor:
        side = self.config.size
        large = whole or rng.random() < 0.5
        pixels_CHW = data.draw([rng], 1, self.nouns, 2 * side if large else side)[0][0, 0]
        return _window(pixels_CHW, side, rng) if large and not whole else pixels_CHW

    def export(self, folder: Path) -> None:
        self.vae.save_pretrained(folder / "vae")

    @torch.no_grad()
    def sample(self, folder: Path, step: int) -> None:
        batch = self.batch(generators(0, 0, range(16)), 0)
        device = next(self.vae.parameters()).device
        drawn = self.vae.decode(self.vae.encode(batch["pixels"].to(device)).latent_dist.mean).sample.cpu()
        rows = torch.stack([batch["pixels"], drawn], 1).flatten(0, 1)[:, None]
        save_sheet(to_uint8(rows), folder / "samples" / f"{step:06d}.png")


def _window(picture_CHW: torch.Tensor, side: int, rng: np.random.Generator) -> torch.Tensor:
    y, x = (data.PATCH * int(rng.integers((n - side) // data.PATCH + 1)) for n in picture_CHW.shape[-2:])
    return picture_CHW[:, y : y + side, x : x + side]
