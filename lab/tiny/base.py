"""Recipe `base`: the text-to-video UNet, first on single images (`frames=1`), then on clips from those
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet3DConditionModel
from torch import nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.samplers.guidance import guide
from streamingt2v.train import objective
from streamingt2v.train.draws import generators
from streamingt2v.train.precision import is_quick_in_bfloat16
from streamingt2v.train.sheet import save_sheet
from streamingt2v.train.task import Batch
from streamingt2v.video.piece import to_uint8

from . import data, diffusion
from .text import load_text, tokenize

SAMPLE_STEPS = 20
"""Denoising steps of samples drawn during training."""


@dataclass(frozen=True)
class BaseConfig:
    """text: folder of the text recipe. init: folder of an earlier base to start from. nouns: number of the
    world's.

    frames: 1 for images, else clips; then every `image_every`th step (0: none) trains `image_batch` images.
    late, mixed_noise: see `objective.noised`. changes: see `objective.denoising_loss`. only_time: train only
    temporal layers and the text's projections.
    """

    text: Path
    init: Path | None = None
    nouns: int = 12
    frames: int = 1
    size: int = 64
    image_every: int = 7
    image_batch: int = 32
    late: float = 1.0
    mixed_noise: float = 0.0
    changes: float = 0.0
    only_time: bool = False
    channels: tuple[int, ...] = (64, 128, 192)


def build_unet(
    channels: tuple[int, ...], sample_size: int, text_width: int, head_dim: int = 32
) -> UNet3DConditionModel:
    """Build a stock UNet3DConditionModel with attention at all levels but the deepest, as ModelScope's
    has.

    head_dim: width of an attention head; must divide all `channels`.
    """
    inner = len(channels) - 1
    return UNet3DConditionModel(
        sample_size=sample_size,
        in_channels=data.LATENT_CHANNELS,
        out_channels=data.LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock3D",) * inner + ("DownBlock3D",),
        up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * inner,
        block_out_channels=channels,
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=head_dim,
        norm_num_groups=16,
    )


def load_unet(folder: Path) -> UNet3DConditionModel:
    """Load the stock network in float32 from the base recipe's folder, or without memories from a later
    one.
    """
    if UNet3DConditionModel.load_config(folder / "unet")["_class_name"] == "UNet3DConditionModel":
        return UNet3DConditionModel.from_pretrained(folder / "unet").float()
    return StreamingUNet3D.from_pretrained(folder / "unet").stock().float()


class BaseModule(nn.Module):
    """The UNet with the frozen text encoder in one forward."""

    def __init__(self, unet: UNet3DConditionModel, text: CLIPTextModel, config: BaseConfig):
        super().__init__()
        self.unet, self.text, self.config = unet, text.requires_grad_(False), config
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(not config.only_time or _is_of_time(name))
        self.scheduler = diffusion.make_scheduler()

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            text_BLD = self.text(batch["ids"]).last_hidden_state
        late = self.config.late if batch["latents"].shape[2] > 1 else 1.0
        noisy, velocity, t = objective.noised(
            batch["latents"], self.scheduler, batch["noise"], late=late, mixed=self.config.mixed_noise
        )
        predicted = self.unet(noisy, t, text_BLD).sample
        return {
            "loss": objective.denoising_loss(
                predicted, velocity, t, batch["weight"], self.scheduler, self.config.changes
            )
        }


def _is_of_time(name: str) -> bool:
    # conv_in too: torch 2.13 crashes on CPUs in the backward of a group norm that needs only weight gradients
    return any(part in name for part in ("temp_", "transformer_in", "attn2.to_k", "attn2.to_v", "conv_in."))


class BaseTask:
    """See `loop.Task`."""

    def __init__(self, config: BaseConfig):
        self.config = config
        self.nouns = data.noun_names(config.nouns)
        self.tokenizer, text = load_text(config.text)
        if config.init is not None:
            unet = load_unet(config.init)
        else:
            unet = build_unet(config.channels, config.size // data.PATCH, text.config.hidden_size)
        self.module = BaseModule(unet, text, config)

    def batch_size(self, step: int, batch: int) -> int:
        return self.config.image_batch if self._is_of_pictures(step) else batch

    def _is_of_pictures(self, step: int) -> bool:
        return self.config.frames > 1 and self.config.image_every > 0 and step % self.config.image_every == 0

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        frames = 1 if self._is_of_pictures(step) else self.config.frames
        pixels, masks, specs = data.draw(rngs, frames, self.nouns, self.config.size)
        return {
            "latents": data.encode_clips(pixels),
            "weight": diffusion.foreground_weight(masks),
            "ids": tokenize(self.tokenizer, objective.drop_captions([s.caption for s in specs], rngs)),
        }

    def export(self, folder: Path) -> None:
        self.module.unet.save_pretrained(folder / "unet")

    def sample(self, folder: Path, step: int) -> None:
        count = 48 if self.config.frames == 1 else 8
        _, _, specs = data.draw(generators(0, 0, range(count)), 1, self.nouns, 16)
        frames = sample_clips(
            self.module,
            self.tokenizer,
            [s.caption for s in specs],
            self.config.frames,
            self.config.size // data.PATCH,
        )
        save_sheet(frames, folder / "samples" / f"{step:06d}.png")


@torch.no_grad()
def sample_clips(
    module: BaseModule,
    tokenizer: PreTrainedTokenizerFast,
    captions: list[str],
    frames: int,
    side: int,
    guidance: float = 4.0,
) -> np.ndarray:
    """Sample clips (N, T, H, W, 3) uint8 by DDIM, decoded by the patch PCA: shows the denoiser without the
    autoencoder.
    """
    device = next(module.unet.parameters()).device
    ids = tokenize(tokenizer, [""] * len(captions) + captions).to(device)
    text_BLD = module.text(ids).last_hidden_state
    scheduler = diffusion.make_scheduler()
    scheduler.set_timesteps(SAMPLE_STEPS, device=device)
    shape = (len(captions), data.LATENT_CHANNELS, frames, side, side)
    z = objective.sample_noise(shape, module.config.mixed_noise).to(device)
    for t in scheduler.timesteps:
        with torch.autocast(device.type, torch.bfloat16, enabled=is_quick_in_bfloat16(device)):
            negative, positive = module.unet(torch.cat([z, z]), t, text_BLD).sample.float().chunk(2)
        z = scheduler.step(guide(negative, positive, guidance, rescale=0.5), t, z).prev_sample
    flat = data.world_pca().decode(z.transpose(1, 2).flatten(0, 1).cpu())
    return to_uint8(flat.unflatten(0, (len(captions), frames)))
