"""Train the autoencoder: a stock AutoencoderKL that encodes as the linear code does and decodes sharp
edges.

    python -m lab.proof.decoder OUT --code FILE --base DIR --text DIR [--minutes 60]

Pixels and edges weigh equally in the loss. With a base of single images, half of the latents come from it:
true ones, noised and denoised in one step. The decoder then also removes the errors that the base makes in
the fine channels. `check` returns PSNR and the share of the true gradient energy that remains.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from torch import nn

from .base import stand_still
from .code import CHANNELS, PatchCode, load_code, to_pixels
from .run import Run, RunConfig, quick_arithmetic
from .sampling import clean_of, make_scheduler
from .words import load_text, tokenize

Captioned = tuple[torch.Tensor, list[str]]  # images (N, 3, H, W) in [-1, 1] and their captions


def build_vae(channels: tuple[int, ...] = (32, 48, 64, 96)) -> AutoencoderKL:
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

    def forward(
        self, pixels: torch.Tensor, latents: torch.Tensor, target: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the decoder's loss, and the encoder's where its `target` is given."""
        loss = torch.zeros(())
        if target is not None:
            coded = self.vae.encode(pixels).latent_dist
            loss = ((coded.mean.float() - target) ** 2 + 1e-4 * (coded.logvar.float() + 12) ** 2).mean()
        disturb = 0.06 * torch.rand(len(latents), 1, 1, 1) * torch.randn_like(latents)
        error = self.vae.decode(latents + disturb).sample.float() - pixels
        edges = sum(error.diff(dim=d).abs().mean() for d in (2, 3))
        return loss + error.abs().mean() + edges + (error**2).mean()


class Denoised:
    """Latents with the errors of a base of single images: noised at a random step, denoised in one."""

    def __init__(self, base: Path, text: Path, latest: int = 500):
        self.unet = UNet3DConditionModel.from_pretrained(base / "unet").float().eval()
        stand_still(self.unet)
        self.tokenizer, self.text = load_text(text)
        self.text.eval()
        self.scheduler, self.latest = make_scheduler(), latest

    @torch.no_grad()
    def __call__(self, latents: torch.Tensor, captions: list[str]) -> torch.Tensor:
        t = torch.randint(0, self.latest, (len(latents),))
        words = self.text(tokenize(self.tokenizer, captions)).last_hidden_state
        noisy = self.scheduler.add_noise(latents, torch.randn_like(latents), t)[:, :, None]
        with quick_arithmetic(torch.device("cpu")):
            velocity = self.unet(noisy, t, words).sample.float()
        return clean_of(velocity, noisy, t, self.scheduler)[:, :, 0]


def captioned(rng: np.random.Generator, count: int) -> Captioned:
    """Draw 64-pixel images, four per clip; a quarter are crops of 128-pixel images, for the refiner."""
    from lab.world2 import clip

    frames: list[torch.Tensor] = []
    captions: list[str] = []
    while len(frames) < count:
        spec = clip.sample(int(rng.integers(2**62)))
        large = rng.random() < 0.25
        drawn = to_pixels(
            clip.render(spec, rng.uniform(0, 8) + rng.uniform(0, 4, 4), 128 if large else 64)[0]
        )
        y, x = (8 * rng.integers(0, 9, 2)) if large else (0, 0)
        frames += list(drawn[:, :, y : y + 64, x : x + 64])
        captions += [spec.caption] * 4
    return torch.stack(frames[:count]), captions[:count]


class Seen:
    """Recent images and their latents; a batch is drawn from them at random."""

    def __init__(self, code: PatchCode, denoised: Denoised | None, limit: int = 2000):
        self.code, self.denoised, self.limit = code, denoised, limit
        self.pixels, self.latents = torch.zeros(0, 3, 64, 64), torch.zeros(0, CHANNELS, 8, 8)

    def draw(self, rng: np.random.Generator, count: int) -> None:
        """Add new images; the base's latents for the first half of them."""
        pixels, captions = captioned(rng, count)
        latents, half = self.code.encode(pixels), count // 2
        if self.denoised:
            latents = torch.cat([self.denoised(latents[:half], captions[:half]), latents[half:]])
        self.pixels = torch.cat([self.pixels, pixels])[-self.limit :]
        self.latents = torch.cat([self.latents, latents])[-self.limit :]

    def batch(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.from_numpy(rng.integers(len(self.pixels), size=count))
        return self.pixels[chosen], self.latents[chosen]


def train(
    config: RunConfig, vae: AutoencoderKL, code: PatchCode, batch: int, denoised: Denoised | None = None
) -> None:
    """Train for the minutes or steps of `config`, resuming earlier work."""
    module, seen = Coding(vae), Seen(code, denoised)
    run = Run(config, module)

    def loss() -> torch.Tensor:
        if run.step % 4 == 0 or not len(seen.pixels):
            seen.draw(run.rng, batch)
        pixels, latents = seen.batch(run.rng, batch)
        with quick_arithmetic(torch.device("cpu")):
            return module(pixels, latents, code.encode(pixels) if run.step % 3 == 0 else None)

    run.go(loss, lambda: vae.save_pretrained(config.out / "vae"))


@torch.no_grad()
def check(vae: AutoencoderKL, code: PatchCode, count: int = 96) -> dict[str, float]:
    """Return PSNR in dB and the remaining share of gradient energy, for decoder and linear code."""
    pixels, _ = captioned(np.random.default_rng(99), count)
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
    parser.add_argument("--channels", type=lambda s: tuple(map(int, s.split(","))), default=(32, 48, 64, 96))
    parser.add_argument("--base", type=Path, help="base of single images, whose errors the decoder removes")
    parser.add_argument("--text", type=Path, help="text tower of that base")
    asked = parser.parse_args(words)
    if (asked.base is None) != (asked.text is None):
        parser.error("--base and --text go together")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    code = load_code(asked.code)
    config = RunConfig(
        asked.out, 1e-3, asked.steps, asked.minutes, warmup=50, decay=0.5, look_minutes=3, muon=False
    )
    denoised = Denoised(asked.base, asked.text) if asked.base else None
    train(config, build_vae(asked.channels), code, asked.batch, denoised)
    print(check(AutoencoderKL.from_pretrained(asked.out / "vae").float(), code, asked.check))


if __name__ == "__main__":
    main()
