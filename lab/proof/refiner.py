"""Train the refiner: a text-to-video UNet at twice the resolution for low noise only (method.md: Refining).

    python -m lab.proof.refiner OUT --text DIR --code FILE [--minutes 60]

Half of the clips are shrunk and enlarged before noise is added, like stage 3's input; the target is sharp.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from lab.tiny.refiner import RefinerModule, refine, softened
from streamingt2v.train.draws import Noise

from .base import build_unet
from .code import load_code
from .options import parser
from .pool import Pool
from .run import Run, RunConfig, device_of_this_process, quick_arithmetic
from .sampling import save_sheet
from .words import load_text, tokenize

LEVELS = 250  # timesteps below this are trained


class Trainer:
    """The refiner with its data and loss; every second step trains single images."""

    def __init__(self, a: argparse.Namespace):
        self.a = a
        torch.manual_seed(0)
        self.tokenizer, text = load_text(Path(a.text))
        self.device = device_of_this_process()
        self.module = RefinerModule(build_unet(a.channels, a.side // 8, head_dim=16), text.eval(), LEVELS)
        self.module.eval().to(self.device)
        self.run = Run(RunConfig.of(a), self.module)
        self.code = load_code(Path(a.code))
        self.there = self.code.to(self.device)
        shared = (a.fresh, self.run.rng, a.workers // 2, a.side)
        self.pools = Pool(self.code, 1, 3000, *shared), Pool(self.code, a.frames, 400, *shared)

    def batch(self, moving: bool) -> dict:
        count = self.a.batch if moving else self.a.picture_batch
        examples = self.pools[moving].batch(count)
        clean, cover = (
            torch.stack([getattr(e, name) for e in examples]).float().to(self.device)
            for name in ("latents", "cover")
        )
        self.run.count("clips" if moving else "images", count)
        captions = [e.spec.caption if self.run.rng.random() > 0.1 else "" for e in examples]
        soft = torch.from_numpy(self.run.rng.random(count) < 0.5).to(self.device).view(-1, 1, 1, 1, 1)
        weight = 1 + 4 * cover
        return {
            "latents": clean,
            "start": torch.where(soft, self._softened(clean), clean),
            "weight": weight / weight.mean((1, 2, 3), keepdim=True),
            "ids": tokenize(self.tokenizer, captions).to(self.device),
            "noise": Noise([self.run.rng] * count).to(self.device),
        }

    def _softened(self, latents: torch.Tensor) -> torch.Tensor:
        b, _, t = latents.shape[:3]
        frames = self.there.decode(latents.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, t))
        coded = self.there.encode(softened(frames).flatten(0, 1))
        return coded.unflatten(0, (b, t)).transpose(1, 2)

    def loss(self) -> torch.Tensor:
        batch = self.batch(self.run.step % 2 == 1)
        with quick_arithmetic(self.device):
            return self.module(batch)["loss"].mean()

    def look(self) -> None:
        """Export the averaged weights and a sheet: softened clips, refined ones, true ones."""
        out = self.run.config.out
        self.module.unet.save_pretrained(out / "unet")
        batch = self.batch(True)
        batch = {name: value[:2] for name, value in batch.items() if isinstance(value, torch.Tensor)}
        start = self._softened(batch["latents"])
        refined = refine(self.module, batch | {"start": start})
        rows = torch.stack([start, refined, batch["latents"]], 1).flatten(0, 1).cpu()
        save_sheet(self.code, rows, out / "samples" / f"{self.run.step:06d}.png")


def main(words: list[str] | None = None) -> None:
    p = parser(
        text=None,
        code=None,
        side=128,
        frames=8,
        batch=4,
        picture_batch=16,
        fresh=0.25,
        lr=1.5e-3,
        steps=10**9,
        minutes=60.0,
        decay=0.4,
        save_minutes=8.0,
        look_minutes=15.0,
        workers=0,
        channels=(64,),
    )
    torch.set_num_threads(1)
    trainer = Trainer(p.parse_args(words))
    trainer.run.go(trainer.loss, trainer.look)


if __name__ == "__main__":
    main()
