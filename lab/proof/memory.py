"""Train the memories on a frozen base: CAM, APM and CAM's rivals, on the same clips, windows and loss.

    python -m lab.proof.memory OUT --kind cam --base DIR --text DIR --code FILE --steps N
    python -m lab.proof.memory OUT --kind apm --cam DIR --sight DIR ...
    python -m lab.proof.memory OUT --kind last-frame|concatenate|additive ...

Rivals get the window's latents from the autoencoder; CAM sees pixels through a small frame encoder, which
random initialisation leaves almost blind after short training (a linear readout misses 53 to 99 % of most
latent channels). So the encoder starts as the exact map it needs (`see_clearly`). Mergers have no positions
and match frames by content, so their projections start as the identity (`start_alike`). `--plain 1` starts
both at random, with `--encoder_steps` for the frame encoder alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet3DConditionModel
from torch import nn
from transformers import CLIPVisionModelWithProjection

from lab.compare import rivals
from streamingt2v.models.apm import ImageTokens, preprocess
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.train.memory import train_memories
from streamingt2v.train.precision import is_quick_in_bfloat16

from .base import clean_loss
from .code import load_code
from .continuing import OVERLAP, Continuation, draw
from .options import parser
from .run import Run, RunConfig, device_of_this_process, quick_arithmetic
from .sampling import clean_of, make_scheduler, save_sheet
from .words import TEXT_LENGTH, WIDTH, load_text, tokenize

FRAME_ENCODER = (16, 32, 48, 64)
IMAGE_TOKENS = 8
SMALL = 0.01  # scale of the frame encoder's inner activations, where SiLU is linear


def start_alike(unet: StreamingUNet3D) -> None:
    """Set every merger's projections to the identity; the last stays zero, so it has no effect yet."""
    for merger in [*unet.cross_attention_merger_down_blocks, unet.cross_attention_merger_mid_block]:
        part: Any = merger.temporal_transformer
        for layer in (
            part.proj_in,
            part.attention.to_q,
            part.attention.to_k,
            part.attention.to_v,
            part.attention.to_out[0],
        ):
            nn.init.eye_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def see_clearly(embedding: Any, code_weight: torch.Tensor, code_mean: torch.Tensor, first: nn.Conv2d) -> None:
    """Make CAM's frame encoder compute the base's `first` layer of the pixels' linear code.

    Its convolutions fold pixels into channels, 2 x 2 three times; code channels are sums of those. SiLU is
    half its input near zero, so pixels are scaled down at the input and the result up at the output.
    """
    layers = [embedding.conv_in, *embedding.blocks]
    for layer in [*layers, embedding.conv_out]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    for channel in range(3):
        embedding.conv_in.weight[channel, channel, 1, 1] = SMALL
    places = [(c, 0, 0) for c in range(3)]  # meaning of a channel: colour, row and column within its cell
    for number, layer in enumerate(embedding.blocks):
        if number % 2 == 0:  # pairs of layers: one copies, one halves the resolution
            for channel in range(len(places)):
                layer.weight[channel, channel, 1, 1] = 2.0
        elif number < 5:
            cell = 2 ** (number // 2)
            finer = [
                (c, y + dy * cell, x + dx * cell) for dy in (0, 1) for dx in (0, 1) for c, y, x in places
            ]
            for new in range(len(finer)):
                corner, old = divmod(new, len(places))
                layer.weight[new, old, 1 + corner // 2, 1 + corner % 2] = 2.0
            places = finer
        else:
            for old, (c, y, x) in enumerate(places):
                for corner in range(4):
                    dy, dx = divmod(corner, 2)
                    numbers = code_weight[:, c, y + 4 * dy, x + 4 * dx]
                    layer.weight[: len(numbers), old, 1 + dy, 1 + dx] = 2.0 * numbers
            layer.bias[: len(code_weight)] = -(code_weight * code_mean).sum((1, 2, 3)) * SMALL
    embedding.conv_out.weight[:, : len(code_weight)] = first.weight * (2.0 / SMALL)
    embedding.conv_out.bias.copy_(first.bias)


class Memory(nn.Module):
    """The frozen base with CAM, with or without APM."""

    def __init__(
        self,
        unet: StreamingUNet3D,
        cam: ConditionalAttentionModule,
        tokens: ImageTokens,
        vision: Any,
        anchored: bool,
    ):
        super().__init__()
        self.unet, self.cam, self.tokens, self.vision, self.anchored = unet, cam, tokens, vision, anchored
        train_memories(unet, anchored)
        tokens.requires_grad_(anchored)
        if vision is not None:
            vision.requires_grad_(False)

    def forward(
        self,
        noisy: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor,
        window: torch.Tensor,
        anchor: torch.Tensor,
    ) -> torch.Tensor:
        image = None
        if self.anchored:
            with torch.no_grad():
                embeds = self.vision(
                    pixel_values=preprocess(anchor, self.vision.config.image_size)
                ).image_embeds
            image = self.tokens(embeds)
        features = self.cam(noisy, t, text, self.cam.encode_frames(window))
        return self.unet(noisy, t, text, image, features)

    def export(self, folder: Path) -> None:
        self.unet.save_pretrained(folder / "unet")
        self.cam.save_pretrained(folder / "cam")
        self.tokens.save_pretrained(folder / "image_tokens")


class Rivalry(nn.Module):
    """The frozen base with a rival of CAM."""

    def __init__(self, unet: StreamingUNet3D, rival: rivals.Rival, encode: Any):
        super().__init__()
        self.unet, self.rival, self.encode = unet.requires_grad_(False), rival, encode

    def forward(
        self,
        noisy: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor,
        window: torch.Tensor,
        anchor: torch.Tensor,
    ) -> torch.Tensor:
        frames = noisy.shape[2]
        if isinstance(self.rival, rivals.AdditiveRival):
            seen = self.rival.see(window, None, frames)  # type: ignore[arg-type]
        else:
            known = self.encode(window.flatten(0, 1)).unflatten(0, window.shape[:2]).transpose(1, 2)
            whole = self.rival.config["whole_window"]
            seen = (
                rivals.with_mask(known, frames) if whole else known[:, :, -1:].expand(-1, -1, frames, -1, -1)
            )
        return self.rival(
            self.unet, noisy, t, self.unet.contexts(text), self.rival.copied.contexts(text), seen
        )

    def export(self, folder: Path) -> None:
        self.rival.save_pretrained(folder / "rival")


class Trainer:
    """A memory with its clips and loss."""

    def __init__(self, a: argparse.Namespace):
        self.a = a
        torch.manual_seed(0)
        self.tokenizer, self.text = load_text(Path(a.text))
        self.text.requires_grad_(False).eval()
        self.code, self.scheduler = load_code(Path(a.code)), make_scheduler()
        self.device = device_of_this_process()
        self.there = self.code.to(self.device)
        self.module = self._module().eval().to(self.device)
        self.text.to(self.device)
        self.run = Run(RunConfig.of(a, decay=0.4, warmup=40), self.module)
        self.kept: list[Continuation] = []

    def _module(self) -> Memory | Rivalry:
        a = self.a
        if a.kind == "apm":
            unet = StreamingUNet3D.from_pretrained(Path(a.cam) / "unet").float()
            cam = ConditionalAttentionModule.from_pretrained(Path(a.cam) / "cam").float()
            vision = CLIPVisionModelWithProjection.from_pretrained(Path(a.sight) / "image_encoder").float()
            return Memory(
                unet,
                cam,
                ImageTokens(vision.config.projection_dim, 2 * WIDTH, IMAGE_TOKENS, WIDTH),
                vision,
                True,
            )
        base = UNet3DConditionModel.from_pretrained(Path(a.base) / "unet").float()
        unet = StreamingUNet3D.from_base(base, 16, TEXT_LENGTH, IMAGE_TOKENS)
        cam = ConditionalAttentionModule.from_base(base, FRAME_ENCODER)
        if a.kind == "cam":
            if not a.plain:
                start_alike(unet)
                encoder = cam.controlnet_cond_embedding
                see_clearly(encoder, self.code.weight, self.code.mean, base.conv_in)
                encoder.requires_grad_(
                    False
                )  # nothing left to learn, and training would spoil its small weights
            return Memory(unet, cam, ImageTokens(WIDTH, 2 * WIDTH, IMAGE_TOKENS, WIDTH), None, False)
        rival = rivals.from_base(a.kind, base, FRAME_ENCODER)
        if a.kind == "additive":
            encoder = rival.copied.controlnet_cond_embedding
            see_clearly(encoder, self.code.weight, self.code.mean, base.conv_in)
            encoder.requires_grad_(False)
        return Rivalry(unet, rival, self.there.encode)

    def batch(self) -> list[Continuation]:
        """Return new clips and reused ones from a pool of 800."""
        count, anchored = self.a.batch, self.a.kind == "apm"
        new = count if len(self.kept) < 4 * count else max(1, round(0.4 * count))
        drawn = [draw(self.run.rng, self.code, anchored) for _ in range(new)]
        self.kept = (self.kept + drawn)[-800:]
        return drawn + [self.kept[i] for i in self.run.rng.integers(len(self.kept), size=count - new)]

    def loss(self) -> torch.Tensor:
        batch = self.batch()
        latents, cover, anchor = (
            torch.stack([getattr(c, name) for c in batch]).float().to(self.device)
            for name in ("latents", "cover", "anchor")
        )
        if self.a.kind in ("cam", "additive") and self.run.step < self.a.encoder_steps:
            return self._encoder_loss(latents[:, :, :OVERLAP])
        self.run.count("clips", len(batch))
        anchor[torch.rand(len(batch), device=self.device) < 0.1] = 0.0  # mid grey is guidance's negative
        captions = [c.spec.caption if self.run.rng.random() > 0.1 else "" for c in batch]
        t = (1000 * torch.rand(len(batch)) ** (1 / self.a.late)).long().clamp(max=999).to(self.device)
        noisy = self.scheduler.add_noise(latents, torch.randn_like(latents), t)
        with torch.no_grad():
            text = self.text(tokenize(self.tokenizer, captions).to(self.device)).last_hidden_state
        window = self.pixels(latents[:, :, :OVERLAP], 0.2 * torch.rand(len(batch), device=self.device))
        with quick_arithmetic(self.device):
            velocity = self.module(noisy, t, text, window, anchor).float()
        clean = clean_of(velocity, noisy, t, self.scheduler)
        return clean_loss(clean, latents, t, cover, self.scheduler, self.a.changes, self.there.share)

    def pixels(self, latents: torch.Tensor, disturb: torch.Tensor) -> torch.Tensor:
        """Decode a window (B, T, 3, H, W) with noise on its latents, as generated windows have."""
        latents = latents + disturb.view(-1, 1, 1, 1, 1) * torch.randn_like(latents)
        b, t = latents.shape[0], latents.shape[2]
        return self.there.decode(latents.transpose(1, 2).flatten(0, 1)).clamp(-1, 1).unflatten(0, (b, t))

    def _encoder_loss(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the frame encoder's error against the base's first layer."""
        owner: Any = self.module.cam if isinstance(self.module, Memory) else self.module.rival.copied
        with torch.no_grad():
            said = self.module.unet.conv_in(latents.transpose(1, 2).flatten(0, 1))
        seen = owner.encode_frames(
            self.pixels(latents, torch.zeros(len(latents), device=self.device))
        ).flatten(0, 1)
        return ((seen - said) ** 2).mean() / said.var()

    def look(self) -> None:
        """Export, and save a sheet of true clips, each above its generated continuation."""
        out = self.run.config.out
        self.module.export(out)
        noise = torch.Generator().manual_seed(5)
        clips = [draw(np.random.default_rng([9, i]), self.code, self.a.kind == "apm") for i in range(4)]
        true = torch.stack([c.latents for c in clips]).float().to(self.device)
        anchor = torch.stack([c.anchor for c in clips]).float().to(self.device)
        window = self.pixels(true[:, :, :OVERLAP], torch.zeros(len(true), device=self.device))
        ids = tokenize(self.tokenizer, [c.spec.caption for c in clips]).to(self.device)
        start = torch.randn(true.shape, generator=noise).to(self.device)
        text = self.text(ids).last_hidden_state
        made = go_on(self.module, self.scheduler, start, text, window, anchor, self.a.look_steps)
        rows = torch.stack([true, made], 1).flatten(0, 1).cpu()
        save_sheet(self.code, rows, out / "samples" / f"{self.run.step:06d}.png", columns=16)


@torch.no_grad()
def go_on(
    module: nn.Module,
    scheduler: Any,
    noise: torch.Tensor,
    text: torch.Tensor,
    window: torch.Tensor,
    anchor: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """Generate latents from windows, anchors and captions, without guidance."""
    from diffusers import DPMSolverMultistepScheduler

    solver = DPMSolverMultistepScheduler.from_config(
        scheduler.config, algorithm_type="dpmsolver++", solver_order=2
    )
    solver.set_timesteps(steps)
    z = noise
    for t in solver.timesteps:
        with torch.autocast(z.device.type, torch.bfloat16, enabled=is_quick_in_bfloat16(z.device)):
            velocity = module(z, t.expand(len(z)), text, window, anchor).float()
        z = solver.step(velocity, t, z).prev_sample
    return z


def main(words: list[str] | None = None) -> None:
    p = parser(
        kind="cam",
        base=None,
        text=None,
        code=None,
        cam=None,
        sight=None,
        batch=8,
        lr=1.5e-3,
        steps=3000,
        minutes=1e9,
        encoder_steps=0,
        late=1.3,
        changes=0.5,
        plain=0,
        save_minutes=8.0,
        look_minutes=15.0,
        look_steps=8,
    )
    torch.set_num_threads(1)
    trainer = Trainer(p.parse_args(words))
    trainer.run.go(trainer.loss, trainer.look)


if __name__ == "__main__":
    main()
