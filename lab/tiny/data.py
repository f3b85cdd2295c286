"""Batches of the world as tensors: pixels in [-1, 1], sprite coverage, captions, labels, patch-PCA
latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from streamingt2v.train.data import Clip

from ..world import clip, vocabulary

PATCH = 8  # pixels per latent along one side
LATENT_CHANNELS = 16
PCA_FILE = Path(__file__).with_name("patch_pca.safetensors")


def noun_names(count: int) -> tuple[str, ...]:
    """Return the first `count` nouns of the world, boldest first."""
    return tuple(n.name for n in vocabulary.NOUNS[:count])


def draw(
    rngs: Sequence[np.random.Generator],
    frames: int,
    nouns: tuple[str, ...],
    height: int,
    times: np.ndarray | None = None,
) -> tuple[torch.Tensor, torch.Tensor, list[clip.ClipSpec]]:
    """Draw a clip per generator: frames_BTCHW float in [-1, 1], masks_BTHW in [0, 1], specs.

    times: (T,); None: a random start.
    """
    pixels, masks, specs = [], [], []
    for rng in rngs:
        spec = clip.sample(int(rng.integers(2**62)), nouns)
        at = clip.frame_times(frames, rng.uniform(0, 4)) if times is None else times + rng.uniform(0, 4)
        image, mask = clip.render(spec, at, height)
        pixels.append(image)
        masks.append(mask)
        specs.append(spec)
    frames_BTHWC = torch.from_numpy(np.stack(pixels))
    return frames_BTHWC.permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0, torch.from_numpy(np.stack(masks)), specs


@dataclass(frozen=True)
class WorldClips:
    """The world's clips of these nouns as a `train.data.ClipDataset`; sprites weigh more than the
    backdrop.
    """

    nouns: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"world of {','.join(self.nouns)}"

    def draw(self, rng: np.random.Generator, offsets: Sequence[int], height: int, width: int) -> Clip:
        pixels, masks, specs = draw(
            [rng], len(offsets), self.nouns, height, times=np.asarray(offsets, np.float64) / clip.FPS
        )
        return Clip(pixels[0], specs[0].caption, pixel_weight(masks[0]))


def pixel_weight(masks: torch.Tensor, gain: float = 4.0) -> torch.Tensor:
    """Return 1 + gain x sprite coverage: with equal weights the backdrop takes all of the training."""
    return 1 + gain * masks


def encode_clips(pixels_BTCHW: torch.Tensor) -> torch.Tensor:
    """Return patch-PCA latents (B, C, T, H/8, W/8) of clips in [-1, 1]."""
    return world_pca().encode(pixels_BTCHW.flatten(0, 1)).unflatten(0, pixels_BTCHW.shape[:2]).transpose(1, 2)


class PatchPCA:
    """Linear latents: the first principal components of 8x8 patches, partly whitened to about unit
    variance.

    They need no training: the autoencoder's encoder learns them and the base can train on them at once.
    `weight` (C, 3, 8, 8) and `mean` (3, 8, 8) make encoding one strided convolution.
    """

    def __init__(self, weight: torch.Tensor, mean: torch.Tensor):
        self.weight, self.mean = weight, mean

    def encode(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        """Encode (N, 3, H, W) in [-1, 1] as (N, 16, H/8, W/8)."""
        weight, mean = self.weight.to(pixels_NCHW.device), self.mean.to(pixels_NCHW.device)
        return F.conv2d(pixels_NCHW, weight, -(weight * mean).sum((1, 2, 3)), stride=PATCH)

    def decode(self, latents_NCHW: torch.Tensor) -> torch.Tensor:
        """Return the nearest images, in [-1, 1] up to rounding: blocky, but needs no training."""
        return self.pixels_of(latents_NCHW) + self.mean.repeat(1, *latents_NCHW.shape[2:])

    def pixels_of(self, change_NCHW: torch.Tensor) -> torch.Tensor:
        """Return each latent channel's image."""
        return F.conv_transpose2d(change_NCHW, self._inverse.to(change_NCHW.device), stride=PATCH)

    @cached_property
    def _inverse(self) -> torch.Tensor:
        return torch.linalg.pinv(self.weight.flatten(1)).T.reshape(self.weight.shape)  # (C, 3, 8, 8)


@lru_cache(maxsize=1)
def world_pca() -> PatchPCA:
    """Return the embedded model's patch PCA, from a file, so that latents outlive changes of the world."""
    stored = load_file(PCA_FILE)
    return PatchPCA(stored["weight"], stored["mean"])


def fit_pca() -> PatchPCA:
    """Fit the patch PCA to a fixed sample of images at both resolutions; this once made `PCA_FILE`."""
    rng = np.random.default_rng(7)
    names = noun_names(len(vocabulary.NOUNS))
    patches = [
        F.unfold(draw([rng] * 400, 1, names, 64)[0][:, 0], PATCH, stride=PATCH),
        F.unfold(draw([rng] * 100, 1, names, 128)[0][:, 0], PATCH, stride=PATCH),
    ]
    rows = torch.cat([p.transpose(1, 2).reshape(-1, p.shape[1]) for p in patches]).double()
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    values, vectors = values.flip(0)[:LATENT_CHANNELS], vectors.flip(1)[:, :LATENT_CHANNELS]
    vectors = vectors * torch.sign(
        vectors[vectors.abs().argmax(0), torch.arange(LATENT_CHANNELS)]
    )  # eigh leaves the sign undefined
    # deviation s becomes s**0.75: fine detail keeps a small scale, so the denoiser decides it last
    gain = values**-0.125
    gain = gain / ((values * gain**2).mean() ** 0.5)
    weight = (vectors * gain).T.reshape(LATENT_CHANNELS, 3, PATCH, PATCH).float()
    return PatchPCA(weight, mean.reshape(3, PATCH, PATCH).float())
