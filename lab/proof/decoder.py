"""Train the autoencoder: a stock AutoencoderKL that encodes as the linear code does and decodes sharp
edges.

    python -m lab.proof.decoder OUT --code FILE [--minutes 60]

Pixels and edges weigh equally in the loss; latents get a little noise, as a denoiser leaves some. `check`
returns PSNR and the share of the true gradient energy that remains.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from .code import CHANNELS, PatchCode, load_code, to_pixels
from .run import Run, RunConfig, quick_arithmetic


def build_vae(channels: tuple[int, ...] = (32, 48, 96, 128)) -> AutoencoderKL:
    """Build an autoencoder that divides height and width by 8, widest at its lowest resolution."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=16,
        sample_size=64,
        scaling_factor=1.0,
    )


class Coding(nn.Module):
    """Train encoder against the code, decoder against pixels; neither depends on the other."""

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae

    def forward(self, pixels: torch.Tensor, latents: torch.Tensor, encoder: bool) -> torch.Tensor:
        loss = torch.zeros(())
        if encoder:
            coded = self.vae.encode(pixels).latent_dist
            loss = ((coded.mean.float() - latents) ** 2 + 1e-4 * (coded.logvar.float() + 12) ** 2).mean()
        disturb = 0.06 * torch.rand(len(latents), 1, 1, 1) * torch.randn_like(latents)
        error = self.vae.decode(latents + disturb).sample.float() - pixels
        edges = sum(error.diff(dim=d).abs().mean() for d in (2, 3))
        return loss + error.abs().mean() + edges + (error**2).mean()


def pictures(rng: np.random.Generator, count: int) -> torch.Tensor:
    """Draw 64-pixel images, four per clip; a quarter are crops of 128-pixel images, for the refiner."""
    from lab.world2 import clip

    frames = []
    while len(frames) < count:
        spec = clip.sample(int(rng.integers(2**62)))
        large = rng.random() < 0.25
        drawn = to_pixels(
            clip.render(spec, rng.uniform(0, 8) + rng.uniform(0, 4, 4), 128 if large else 64)[0]
        )
        y, x = (8 * rng.integers(0, 9, 2)) if large else (0, 0)
        frames += list(drawn[:, :, y : y + 64, x : x + 64])
    return torch.stack(frames[:count])


def train(
    out: Path, code: PatchCode, minutes: float, steps: int, batch: int, channels: tuple[int, ...]
) -> None:
    """Train for `minutes` or `steps`, resuming earlier work."""
    torch.manual_seed(0)
    vae = build_vae(channels)
    module = Coding(vae)
    run = Run(RunConfig(out, 1e-3, steps, minutes, warmup=50, decay=0.5, look_minutes=3, muon=False), module)
    kept = torch.zeros(0, 3, 64, 64)

    def loss() -> torch.Tensor:
        nonlocal kept
        if run.step % 4 == 0 or not len(kept):
            kept = torch.cat([kept, pictures(run.rng, batch)])[-2000:]
        pixels = kept[torch.from_numpy(run.rng.integers(len(kept), size=batch))]
        with quick_arithmetic(torch.device("cpu")):
            return module(pixels, code.encode(pixels), run.step % 3 == 0)

    run.go(loss, lambda: vae.save_pretrained(out / "vae"))


@torch.no_grad()
def check(vae: AutoencoderKL, code: PatchCode, count: int = 96) -> dict[str, float]:
    """Return PSNR in dB and the remaining share of gradient energy, for decoder and linear code."""
    pixels = pictures(np.random.default_rng(99), count)
    found = {}
    for name, drawn in (
        ("decoder", vae.decode(code.encode(pixels)).sample),
        ("code", code.decode(code.encode(pixels))),
    ):
        drawn = drawn.clamp(-1, 1)
        found[f"{name} psnr"] = float((10 * torch.log10(4 / ((drawn - pixels) ** 2).mean((1, 2, 3)))).mean())
        found[f"{name} sharpness"] = energy(drawn) / energy(pixels)
    return {name: round(value, 3) for name, value in found.items()}


def energy(pixels: torch.Tensor) -> float:
    """Return the mean squared gradient."""
    return float(sum((pixels.diff(dim=d) ** 2).mean() for d in (-1, -2)))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--code", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--check", type=int, default=96, help="images or clips to test on")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--channels", type=lambda s: tuple(map(int, s.split(","))), default=(32, 48, 96, 128))
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    code = load_code(asked.code)
    train(asked.out, code, asked.minutes, asked.steps, asked.batch, asked.channels)
    print(check(AutoencoderKL.from_pretrained(asked.out / "vae").float(), code, asked.check))


if __name__ == "__main__":
    main()
