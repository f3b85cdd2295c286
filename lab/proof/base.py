"""Train the embedded base network: a stock UNet3DConditionModel on latents of the world.

    python -m lab.proof.base OUT --text DIR --code FILE --frames 1                   # images first
    python -m lab.proof.base OUT2 --text DIR --code FILE --init OUT --still_init 1   # then clips

It runs until stopped, resumes from its last checkpoint, and regularly writes samples of the averaged weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet3DConditionModel
from diffusers.models.resnet import TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

from .code import CHANNELS, load_code
from .options import parser
from .pool import Example, Pool
from .run import Run, RunConfig, device_of_this_process, quick_arithmetic
from .sampling import clean_of, make_scheduler, sample, save_sheet
from .words import TEXT_LENGTH, WIDTH, load_text, tokenize


def build_unet(
    channels: tuple[int, ...] = (64, 128, 192), side: int = 8, head_dim: int = 32
) -> UNet3DConditionModel:
    """Build a stock network with attention at all levels but the deepest, as ModelScope's has."""
    inner = len(channels) - 1
    return UNet3DConditionModel(
        sample_size=side,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("CrossAttnDownBlock3D",) * inner + ("DownBlock3D",),
        up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * inner,
        block_out_channels=channels,
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=head_dim,
        norm_num_groups=16,
    )


def stand_still(unet: UNet3DConditionModel) -> None:
    """Bypass all layers along time: single images need none, at half the cost."""
    for module in unet.modules():
        if isinstance(module, TransformerTemporalModel):
            module.forward = lambda x, num_frames=1, return_dict=False, **_: (x,)
        elif isinstance(module, TemporalConvLayer):
            module.forward = lambda x, num_frames=1: x


@contextmanager
def standing_still(unet: UNet3DConditionModel) -> Iterator[None]:
    """Bypass all layers along time within the context, for single images among clips."""
    stand_still(unet)
    try:
        yield
    finally:
        for module in unet.modules():
            vars(module).pop("forward", None)


def begin_to_move(unet: UNet3DConditionModel) -> None:
    """Zero the last temporal layers, for a network that learned from images without them."""
    for module in unet.modules():
        last = module.proj_out if isinstance(module, TransformerTemporalModel) else None
        last = module.conv4[-1] if isinstance(module, TemporalConvLayer) else last
        if last is not None:
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)


def compiled(unet: UNet3DConditionModel, batch: int, frames: int) -> Callable[..., Any]:
    """Compile the network for clips (0.6 of the time on a CPU with AMX); return it unchanged if the check
    fails.

    The check is necessary: code from torch 2.13 gives NaN for single images.
    """
    quick = torch.compile(unet, dynamic=False)
    side, like = unet.config.sample_size, next(unet.parameters())
    noisy, words = (
        torch.randn(batch, CHANNELS, frames, side, side).to(like),
        torch.randn(batch, TEXT_LENGTH, WIDTH).to(like),
    )
    t = torch.randint(0, 1000, (batch,), device=like.device)
    made = []
    for network in (unet, quick):
        with quick_arithmetic(like.device):
            clean = network(noisy, t, words).sample.float()
        clean.pow(2).mean().backward()
        finite = all(p.grad is None or bool(p.grad.isfinite().all()) for p in unet.parameters())
        unet.zero_grad(set_to_none=True)
        made.append(clean.detach())
    off = float((made[0] - made[1]).std() / made[0].std())
    print(f"compiled: {off:.3f} of a deviation off, gradients finite: {finite}", flush=True)
    return quick if finite and off < 0.1 else unet


def clean_loss(
    clean_BCTHW: torch.Tensor,
    latents_BCTHW: torch.Tensor,
    t: torch.Tensor,
    cover_BTHW: torch.Tensor,
    scheduler: DDIMScheduler,
    changes: float,
    share_C: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """Return the squared error of the clean latents and of their frame-to-frame changes.

    Weighted by min(snr, 5) + 1 (which equals the velocity error times that over snr + 1), by channel
    (`share_C`), and more on the subject.
    """
    signal = scheduler.alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)
    noise_weight = (signal / (1 - signal).clamp(min=1e-5)).clamp(max=5) + 1
    weight = 1 + 4 * cover_BTHW
    weight = noise_weight * weight / weight.mean((1, 2, 3), keepdim=True)
    error = (clean_BCTHW.float() - latents_BCTHW).movedim(1, -1)
    loss = ((error**2 * share_C).mean(-1) * weight).mean()
    if changes and error.shape[1] > 1:
        loss = loss + 0.5 * changes * ((error.diff(dim=1) ** 2 * share_C).mean(-1) * weight[:, 1:]).mean()
    return loss


class Trainer:
    """The base network with its data and loss."""

    def __init__(self, a: argparse.Namespace):
        self.a = a
        torch.manual_seed(0)
        self.tokenizer, self.text = load_text(Path(a.text))
        self.text.requires_grad_(False).eval()
        self.code, self.scheduler = load_code(Path(a.code)), make_scheduler()
        self.unet = (
            UNet3DConditionModel.from_pretrained(Path(a.init) / "unet").float()
            if a.init
            else build_unet(a.channels)
        )
        self.device = device_of_this_process()
        self.unet.eval().to(self.device)  # no dropout: almost nothing is seen twice
        self.text.to(self.device)
        if a.still_init:
            begin_to_move(self.unet)
        self.quick = compiled(self.unet, a.batch, a.frames) if a.compile and a.frames > 1 else self.unet
        self.run = Run(RunConfig.of(a), self.unet)
        self.of_clips = Pool(
            self.code, a.frames, 1500, a.fresh, self.run.rng, a.workers if a.frames > 1 else 0
        )
        self.of_pictures = Pool(self.code, 1, 6000, a.fresh, self.run.rng, a.workers if a.frames == 1 else 0)

    def go(self) -> None:
        self.run.go(self.loss, self.look)

    def batch(self) -> list[Example]:
        a = self.a
        if a.frames == 1 or (a.picture_every and self.run.step % a.picture_every == 0):
            self.run.count("pictures", a.picture_batch)
            return self.of_pictures.batch(a.picture_batch)
        self.run.count("clips", a.batch)
        return self.of_clips.batch(a.batch)

    def loss(self) -> torch.Tensor:
        examples = self.batch()
        latents = torch.stack([e.latents for e in examples]).float().to(self.device)
        cover = torch.stack([e.cover for e in examples]).float().to(self.device)
        captions = [e.spec.caption if self.run.rng.random() > 0.1 else "" for e in examples]
        late = self.a.late if latents.shape[2] > 1 else 1.0
        t = (1000 * torch.rand(len(examples)) ** (1 / late)).long().clamp(max=999).to(self.device)
        noisy = self.scheduler.add_noise(latents, torch.randn_like(latents), t)
        with torch.no_grad():
            text = self.text(tokenize(self.tokenizer, captions).to(self.device)).last_hidden_state
        still = latents.shape[2] == 1
        network = self.unet if still else self.quick
        with quick_arithmetic(self.device), standing_still(self.unet) if still else nullcontext():
            velocity = network(noisy, t, text).sample.float()
        clean = clean_of(velocity, noisy, t, self.scheduler)
        return clean_loss(
            clean, latents, t, cover, self.scheduler, self.a.changes, self.code.share.to(self.device)
        )

    def look(self) -> None:
        """Export the averaged weights and a sheet of samples for fixed captions."""
        out = self.run.config.out
        self.unet.save_pretrained(out / "unet")
        path = out / "samples" / f"{self.run.step:06d}.png"
        captions = [*LOOKED_AT, *MORE, *LOOKED_AT, *MORE] if self.a.frames == 1 else list(LOOKED_AT)
        with standing_still(self.unet) if self.a.frames == 1 else nullcontext():
            made = sample(
                self.unet,
                self.text,
                self.tokenizer,
                self.scheduler,
                captions,
                self.a.frames,
                self.a.look_steps,
            )
        save_sheet(self.code, made, path)


LOOKED_AT = (
    "A cat running on the street",
    "A green dog with stripes dancing on the beach",
    "A red bus is hiding behind a wall in the snow",
    "An elephant jumping in the forest",
    "A blue penguin standing still in the desert at night",
    "A yellow car running on the beach",
    "A turtle floating under water",
    "A giraffe standing still while the camera looks around in the forest",
)
MORE = (
    "A rabbit jumping in the snow",
    "A duck by the sea",
    "A purple fish floating under water",
    "A spotted butterfly in the forest",
    "A snail in the desert",
    "A red train running on the street at night",
    "A rocket in the desert at sunset",
    "A striped balloon by the sea",
)


def main(words: list[str] | None = None) -> None:
    p = parser(
        text=None,
        code=None,
        init=None,
        frames=16,
        batch=16,
        picture_batch=128,
        picture_every=0,
        lr=2e-3,
        seed=0,
        fresh=0.25,
        late=1.3,
        changes=0.5,
        ema=0.998,
        steps=10**9,
        minutes=1e9,
        decay=0.0,
        save_minutes=8.0,
        look_minutes=15.0,
        look_steps=10,
        agree_every=8,
        compile=1,
        workers=0,
        still_init=0,
        channels=(64, 128, 192),
    )
    torch.set_num_threads(1)
    Trainer(p.parse_args(words)).go()


if __name__ == "__main__":
    main()
