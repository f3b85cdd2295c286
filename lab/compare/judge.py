"""A judge of the world: noun, scene and motion of a clip. Trained on true clips, independent of the
model's CLIP.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from ..world import vocabulary

JUDGE = Path(__file__).parents[1] / "tiny" / "weights" / "judge"
LABELS = tuple(
    tuple(x.name for x in group) for group in (vocabulary.NOUNS, vocabulary.SCENES, vocabulary.MOTIONS)
)


class Verdict(NamedTuple):
    """Noun, scene and motion of a clip."""

    noun: str
    scene: str
    motion: str


class Judge(ModelMixin, ConfigMixin):
    """Convolutions on each frame; noun and scene from the frames' mean, motion from changes between
    frames.
    """

    @register_to_config
    def __init__(self, width: int = 32, size: int = 64):
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = []
        for before, after in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        last = widths[-1]
        self.noun = nn.Linear(last, len(LABELS[0]))
        self.scene = nn.Linear(last, len(LABELS[1]))
        self.place = nn.Linear(last * (size // 16) ** 2, last)
        self.change = nn.Sequential(
            nn.Conv1d(last, last, 5, padding=2),
            nn.SiLU(),
            nn.Conv1d(last, last, 5, padding=2),
            nn.SiLU(),
            nn.AdaptiveMaxPool1d(1),
            nn.Flatten(),
            nn.Linear(last, len(LABELS[2])),
        )

    def forward(self, frames_BTCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map clips in [-1, 1] of the judge's size to logits of noun, scene, motion, each (B, classes)."""
        b, t = frames_BTCHW.shape[:2]
        seen = self.features(frames_BTCHW.flatten(0, 1))
        pooled = seen.mean((2, 3)).unflatten(0, (b, t)).mean(1)
        placed = self.place(seen.flatten(1)).unflatten(0, (b, t)).transpose(1, 2)
        return self.noun(pooled), self.scene(pooled), self.change(placed)

    @torch.no_grad()
    def judge(self, frames_THWC: np.ndarray) -> Verdict:
        """Judge one clip, uint8 (T, H, W, 3) of any size."""
        frames = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2).float() / 127.5 - 1
        size = (self.config.size, self.config.size)
        if tuple(frames.shape[-2:]) != size:
            frames = nn.functional.interpolate(frames, size, mode="bilinear", antialias=True)
        logits = self(frames[None].to(self.device))
        return Verdict(*(names[int(row.argmax())] for names, row in zip(LABELS, logits, strict=True)))


def load_judge(folder: Path | None = None) -> Judge:
    """Load a judge; default: the one that results are measured with."""
    folder = folder or JUDGE
    return Judge.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
