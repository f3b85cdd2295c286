"""Latents of the embedded model: a linear code of 8 x 8 patches with 64 channels, fitted to the world.

    python -m lab.proof.code FILE

A channel of standard deviation s is scaled to s ** POWER, so the denoiser decides coarse channels first.
POWER stays small: velocity prediction starts from the best linear denoiser only where all channels have
deviation 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from lab.world2 import clip

PATCH = 8
CHANNELS = 64
POWER = 0.35


class PatchCode:
    """`weight` (C, 3, 8, 8) and `mean` (3, 8, 8): encoding is one strided convolution."""

    def __init__(self, weight: torch.Tensor, mean: torch.Tensor):
        self.weight, self.mean = weight, mean
        self.bias = -(weight * mean).sum((1, 2, 3))
        # weight of each channel in the loss: coarse ones count more, though less than in pixels
        self.share = weight.flatten(1).pow(2).sum(1).rsqrt()
        self.share = self.share / self.share.mean()
        self.inverse = torch.linalg.pinv(weight.flatten(1)).T.reshape(weight.shape)

    def to(self, device: torch.device) -> PatchCode:
        return PatchCode(self.weight.to(device), self.mean.to(device))

    def encode(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        """Encode (N, 3, H, W) in [-1, 1] as (N, 64, H/8, W/8)."""
        return F.conv2d(pixels_NCHW, self.weight, self.bias, stride=PATCH)

    def decode(self, latents_NCHW: torch.Tensor) -> torch.Tensor:
        """Return the nearest images, in [-1, 1] up to rounding."""
        return F.conv_transpose2d(latents_NCHW, self.inverse, stride=PATCH) + self.mean.repeat(
            1, *latents_NCHW.shape[2:]
        )


def load_code(path: Path) -> PatchCode:
    stored = load_file(path)
    return PatchCode(stored["weight"], stored["mean"])


def to_pixels(frames_THWC: np.ndarray) -> torch.Tensor:
    """Convert uint8 (T, H, W, 3) to (T, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(frames_THWC).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def fit(pictures: int = 4000) -> PatchCode:
    """Fit the code to a fixed sample of images."""
    rows = []
    for seed in range(pictures):
        frame = clip.render(clip.sample((7, seed)), clip.frame_times(1, 0.37 * (seed % 29)))[0]
        rows.append(F.unfold(to_pixels(frame), PATCH, stride=PATCH)[0].T)
    patches = torch.cat(rows).double()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    values, vectors = values.flip(0)[:CHANNELS], vectors.flip(1)[:, :CHANNELS]
    vectors = vectors * torch.sign(
        vectors[vectors.abs().argmax(0), torch.arange(CHANNELS)]
    )  # eigh leaves the sign undefined
    gain = values ** (0.5 * POWER - 0.5)
    gain = gain / ((values * gain**2).mean() ** 0.5)
    return PatchCode(
        (vectors * gain).T.reshape(CHANNELS, 3, PATCH, PATCH).float(), mean.reshape(3, PATCH, PATCH).float()
    )


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--images", type=int, default=4000)
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    code = fit(asked.images)
    asked.file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"weight": code.weight.contiguous(), "mean": code.mean.contiguous()}, asked.file)


if __name__ == "__main__":
    main()
