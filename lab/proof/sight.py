"""Train the image tower to match the frozen text tower; APM sees through it.

    python -m lab.proof.sight OUT --text DIR [--minutes 20]

It must tell from one frame what captions omit: colours, pattern, time of day, arrangement of the scenery. Two
frames of a clip attract each other against other clips, heads classify the looks, and frames match captions
as in CLIP with a frozen text tower (Zhai et al. 2022).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from lab.world2 import clip, vocabulary
from streamingt2v.models.apm import CLIP_MEAN, CLIP_STD

from .code import to_pixels
from .run import Run, RunConfig
from .words import WIDTH, load_text, tokenize

LOOKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("noun", tuple(n.name for n in vocabulary.NOUNS)),
    ("colour", vocabulary.COLOUR_NAMES),
    ("pattern", tuple(vocabulary.PATTERN_WORDS)),
    ("scene", tuple(s.name for s in vocabulary.SCENES)),
    ("time", tuple(t.name for t in vocabulary.TIMES_OF_DAY)),
)


def build_vision() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            projection_dim=WIDTH,
            image_size=64,
            patch_size=8,
        )
    )


class Sight(nn.Module):
    """The tower, the text's projection into the common space, and helpers for training only."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = build_vision()
        self.text_projection = nn.Linear(WIDTH, WIDTH, bias=False)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, len(names)) for _, names in LOOKS)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(
        self, pixels_B2CHW: torch.Tensor, text_BD: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        embeds = self.vision(pixel_values=normalised(pixels_B2CHW.flatten(0, 1))).image_embeds
        first, second = F.normalize(embeds, dim=-1).unflatten(0, (-1, 2)).unbind(1)
        target, scale = torch.arange(len(first)), self.scale.exp().clamp(max=50)
        pairs = scale * first @ second.T
        words = scale * first @ F.normalize(self.text_projection(text_BD), dim=-1).T
        loss = F.cross_entropy(pairs, target) + 0.5 * F.cross_entropy(words, target)
        for i, head in enumerate(self.heads):
            loss = loss + F.cross_entropy(head(embeds), labels[:, i].repeat_interleave(2))
        return loss


def normalised(pixels_NCHW: torch.Tensor) -> torch.Tensor:
    """Normalise pixels in [-1, 1] with CLIP's mean and deviation."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return ((pixels_NCHW + 1) / 2 - mean) / std


def train(out: Path, text_folder: Path, minutes: float, steps: int = 10**9, batch: int = 48) -> None:
    """Train for `minutes` or `steps`, resuming earlier work."""
    torch.manual_seed(0)
    tokenizer, text = load_text(text_folder)
    sight = Sight()
    config = RunConfig(out, 1e-3, steps, minutes, decay=0.5, look_minutes=3, seed=5, muon=False)
    run = Run(config, sight)
    rng = run.rng

    def loss() -> torch.Tensor:
        specs = [
            clip.sample(
                int(rng.integers(2**62)),
                motion=("run", "jump", "float", "rock", "still", "pan")[int(rng.integers(6))],
            )
            for _ in range(batch)
        ]
        pixels = torch.stack(
            [
                to_pixels(clip.render(s, rng.uniform(0, 2) + np.array([0.0, rng.uniform(0.1, 1.5)]))[0])
                for s in specs
            ]
        )
        labels = torch.tensor([[names.index(getattr(s, name)) for name, names in LOOKS] for s in specs])
        with torch.no_grad():
            said = text(tokenize(tokenizer, [s.caption for s in specs])).pooler_output
        return sight(pixels + 0.1 * torch.rand(batch, 1, 1, 1, 1) * torch.randn_like(pixels), said, labels)

    run.go(loss, lambda: _save(sight, out))


def _save(sight: Sight, out: Path) -> None:
    sight.vision.save_pretrained(out / "image_encoder")
    save_file(
        {"weight": sight.text_projection.weight.detach().contiguous()}, out / "text_projection.safetensors"
    )


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--batch", type=int, default=48)
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    train(asked.out, asked.text, asked.minutes, asked.steps, asked.batch)


if __name__ == "__main__":
    main()
