"""Recipe `judge`: a classifier of noun, scene and motion. It never sees generated clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from streamingt2v.train.draws import Noise
from streamingt2v.train.task import Batch

from ..compare.judge import LABELS, Judge
from ..world import vocabulary
from . import data

FLICKER = 0.4
"""Largest flicker in training: a standard deviation on latents of about unit variance."""


@dataclass(frozen=True)
class JudgeConfig:
    """frames: per clip. Every `clip_every`th step trains clips, the others `image_batch` images for noun
    and scene.

    init: folder of a judge to start from.
    """

    frames: int = 16
    clip_every: int = 2
    image_batch: int = 64
    width: int = 32
    size: int = 64
    init: Path | None = None


class JudgeModule(nn.Module):
    """The judge with its loss, on degraded clips, so that it looks at shapes and not at exact pixels."""

    def __init__(self, judge: Judge):
        super().__init__()
        self.judge = judge

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        logits = self.judge(_worse(batch["pixels"], batch["noise"]))
        losses = [
            F.cross_entropy(row.float(), batch["labels"][:, i], reduction="none")
            for i, row in enumerate(logits)
        ]
        if batch["pixels"].shape[1] == 1:
            losses[2] = (
                0 * losses[2]
            )  # one image shows no motion; the head stays in the graph for several processes
        right = [(row.argmax(1) == batch["labels"][:, i]).float() for i, row in enumerate(logits)]
        return {"loss": sum(losses), "noun": right[0], "scene": right[1], "motion": right[2]}


class JudgeTask:
    """See `loop.Task`."""

    def __init__(self, config: JudgeConfig):
        self.config = config
        self.judge = (
            Judge.from_pretrained(config.init / "judge").float()
            if config.init
            else Judge(config.width, config.size)
        )
        self.module = JudgeModule(self.judge)

    def batch_size(self, step: int, batch: int) -> int:
        return self.config.image_batch if self._is_of_pictures(step) else batch

    def _is_of_pictures(self, step: int) -> bool:
        return step % self.config.clip_every != 0

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        frames = 1 if self._is_of_pictures(step) else self.config.frames
        pixels, _, specs = data.draw(rngs, frames, data.noun_names(len(vocabulary.NOUNS)), self.config.size)
        labels = [
            [names.index(v) for names, v in zip(LABELS, (s.noun, s.scene, s.motion), strict=True)]
            for s in specs
        ]
        return {"pixels": pixels, "labels": torch.tensor(labels)}

    def export(self, folder: Path) -> None:
        self.judge.save_pretrained(folder / "judge")

    def sample(self, folder: Path, step: int) -> None:
        """Do nothing: the metrics suffice."""


def _worse(pixels_BTCHW: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Add noise, blur and flicker of random strength per clip.

    Flicker changes whole patches at once, like a generator's: latents differ slightly per frame.
    """
    flat = pixels_BTCHW.flatten(0, 1)
    soft = F.interpolate(F.avg_pool2d(flat, 2), scale_factor=2, mode="bilinear").view_as(pixels_BTCHW)
    share, amount, unsteady = (noise.uniform(flat).view(-1, 1, 1, 1, 1) for _ in range(3))
    b, t, _, height, width = pixels_BTCHW.shape
    like = torch.empty(
        b, t, data.LATENT_CHANNELS, height // data.PATCH, width // data.PATCH, device=flat.device
    )
    flicker = data.world_pca().pixels_of(noise.normal(like).flatten(0, 1)).view_as(pixels_BTCHW)
    return (
        pixels_BTCHW
        + share * (soft - pixels_BTCHW)
        + 0.2 * amount * noise.normal(pixels_BTCHW)
        + FLICKER * unsteady * flicker
    )
