"""Recipes `cam` and `apm`: the two memories on a frozen base (spec 7).

`cam`: the window is the target's first 8 frames; the module learns to show them again and to go on. Its frame encoder learns
first, alone, to say of a frame what the base's first layer says of its latents: from zeros, the signal through a silent encoder
and silent mergers is too faint to learn from in a few hundred steps. `apm` starts from `cam` and adds the anchor: one frame from
among the 16 before the target. The base stays as it is, since it also makes the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPVisionModelWithProjection, PreTrainedTokenizerFast

from streamingt2v.models.apm import ImageTokens, preprocess
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.samplers.denoise import denoise, final
from streamingt2v.train.draws import Noise, generators
from streamingt2v.train.task import Batch

from ..world import clip
from . import data, diffusion
from .base import encode_clips, load_unet
from .text import TEXT_LENGTH, load_text, tokenize

FRAME_ENCODER = (16, 32, 48, 64)
"""Widths of the network that looks at the window's pixels."""


@dataclass(frozen=True)
class MemoryConfig:
    """`base`, `text`, `vae`: folders of those recipes. `cam`: folder of the cam recipe, for apm; None trains cam itself.

    `init`: for cam, a folder with the memories of an earlier base, whose mergers and frame encoder to start from.
    `disturb`: largest noise on the window's latents before they are decoded, since at inference the window is generated.
    `still`: share of clips whose window is one frame repeated, as when a video starts from an image.
    `drift`: largest change of a window's colours, contrast and detail, see `drifted`, which the target does not share: what has drifted is
    to come back to what the anchor looks like. `reach`: how many frames before the target the anchor may lie.
    `encoder_steps`: of the cam recipe's steps, the first, for its frame encoder alone. `late`, `mixed_noise`: see `diffusion.noised`.
    `changes`: see `diffusion.velocity_loss`.
    """

    base: Path
    text: Path
    vae: Path
    cam: Path | None = None
    init: Path | None = None
    nouns: int = 12
    size: int = 64
    frames: int = 16
    overlap: int = 8
    disturb: float = 0.3
    still: float = 0.1
    drift: float = 0.0
    reach: int = 16
    encoder_steps: int = 300
    late: float = 1.0
    mixed_noise: float = 0.0
    changes: float = 0.0
    image_tokens: int = 8
    head_dim: int = 16


class MemoryModule(nn.Module):
    """Base with mergers and mixers, CAM, and (for apm) the image tokens, under one forward; only the memories are trained."""

    def __init__(
        self, unet: StreamingUNet3D, cam: ConditionalAttentionModule, tokens: ImageTokens, parts: dict[str, nn.Module], with_anchor: bool,
        config: MemoryConfig,
    ):  # fmt: skip
        super().__init__()
        self.unet, self.cam, self.tokens, self.with_anchor, self.config = unet, cam, tokens, with_anchor, config
        self.frozen: Any = nn.ModuleDict(parts).requires_grad_(False)
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_("cross_attention_merger" in name or (with_anchor and _is_mixer(name)))
        tokens.requires_grad_(with_anchor)
        self.scheduler = diffusion.make_scheduler()

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        if batch["encoder_only"]:
            return self._encoder_loss(batch["window"])
        with torch.no_grad():
            text_BLD = self.frozen["text"](batch["ids"]).last_hidden_state
            window_BTCHW = as_generated(self.frozen["vae"], batch["window"], batch["disturb"], batch["noise"])
        c = self.config
        noisy, velocity, t = diffusion.noised(batch["latents"], self.scheduler, batch["noise"], late=c.late, mixed=c.mixed_noise)
        features = self.cam(noisy, t, text_BLD, self.cam.encode_frames(window_BTCHW))
        predicted = self.unet(noisy, t, text_BLD, self.image_tokens(batch["anchor"]), features)
        loss = diffusion.velocity_loss(predicted, velocity, t, batch["weight"], self.scheduler, c.changes)
        with torch.no_grad():
            seen = window_BTCHW.shape[1]
            errors = ((predicted - velocity) ** 2).float()
        return {"loss": loss, "overlap": errors[:, :, :seen].mean((1, 2, 3, 4)), "new": errors[:, :, seen:].mean((1, 2, 3, 4))}

    def image_tokens(self, anchor_BCHW: torch.Tensor) -> torch.Tensor | None:
        """Tokens of the anchors (B, N, D); None while only CAM is trained."""
        if not self.with_anchor:
            return None
        with torch.no_grad():
            vision = self.frozen["vision"]
            embeds_BD = vision(pixel_values=preprocess(anchor_BCHW, vision.config.image_size)).image_embeds
        return self.tokens(embeds_BD)

    def _encoder_loss(self, latents_BCTHW: torch.Tensor) -> dict[str, torch.Tensor]:
        """How far the frame encoder is from the base's first layer on the same frames' latents."""
        with torch.no_grad():
            frames_BTCHW = as_generated(self.frozen["vae"], latents_BCTHW)
        return {"loss": encoder_loss(self.cam, self.unet, latents_BCTHW, frames_BTCHW)}


class Continuations:
    """Batches of captioned clips, each with its first frames as a window and an earlier one as the anchor."""

    def __init__(self, config: MemoryConfig, tokenizer: PreTrainedTokenizerFast):
        self.config, self.tokenizer, self.nouns = config, tokenizer, data.noun_names(config.nouns)

    def batch_size(self, step: int, batch: int) -> int:
        return batch

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        c = self.config
        clips = [self._clip(rng) for rng in rngs]
        pixels = torch.stack([frames for frames, _, _ in clips])
        masks = torch.stack([mask for _, mask, _ in clips])
        latents = encode_clips(pixels[:, 1:])
        anchor = pixels[:, 0].clone()
        anchor[torch.tensor([rng.random() < 0.1 for rng in rngs])] = 0.0  # mid grey is guidance's negative (spec 4.5)
        return {
            "latents": latents,
            "window": encode_clips(drifted(pixels[:, 1 : 1 + c.overlap], c.drift, rngs)) if c.drift else latents[:, :, : c.overlap],
            "encoder_only": c.cam is None and step < c.encoder_steps,
            "disturb": torch.tensor([c.disturb * rng.random() for rng in rngs]),
            "anchor": anchor,
            "weight": diffusion.foreground_weight(masks[:, 1:]),
            "ids": tokenize(self.tokenizer, diffusion.drop_captions([spec.caption for _, _, spec in clips], rngs)),
        }

    def _clip(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, clip.ClipSpec]:
        """An anchor frame, then the target's frames."""
        c = self.config
        steps = np.arange(c.frames, dtype=np.float64)
        if rng.random() < c.still:
            steps = np.maximum(0.0, steps - (c.overlap - 1))
        anchor = -1.0 - rng.integers(c.reach)
        pixels, masks, specs = data.draw(
            [rng], 1 + c.frames, self.nouns, c.size, times=(np.concatenate([[anchor], steps]) + c.reach) / clip.FPS
        )
        return pixels[0], masks[0], specs[0]


class MemoryTask(Continuations):
    """See `loop.Task`."""

    def __init__(self, config: MemoryConfig):
        tokenizer, text = load_text(config.text)
        super().__init__(config, tokenizer)
        vision = CLIPVisionModelWithProjection.from_pretrained(config.text / "image_encoder").float()
        parts = {"text": text, "vision": vision, "vae": AutoencoderKL.from_pretrained(config.vae / "vae").float()}
        if config.cam is None:
            base = load_unet(config.base)
            unet = StreamingUNet3D.from_base(base, config.head_dim, TEXT_LENGTH, config.image_tokens)
            cam = ConditionalAttentionModule.from_base(base, FRAME_ENCODER)
            if config.init is not None:
                _take(unet, StreamingUNet3D.from_pretrained(config.init / "unet"), "cross_attention_merger")
                _take(cam, ConditionalAttentionModule.from_pretrained(config.init / "cam"), "controlnet_cond_embedding")
        else:
            unet = StreamingUNet3D.from_pretrained(config.cam / "unet").float()
            cam = ConditionalAttentionModule.from_pretrained(config.cam / "cam").float()
        width = text.config.hidden_size
        tokens = ImageTokens(vision.config.projection_dim, 2 * width, config.image_tokens, width)
        self.module = MemoryModule(unet, cam, tokens, parts, config.cam is not None, config)

    def export(self, folder: Path) -> None:
        self.module.unet.save_pretrained(folder / "unet")
        self.module.cam.save_pretrained(folder / "cam")
        self.module.tokens.save_pretrained(folder / "image_tokens")

    def sample(self, folder: Path, step: int) -> None:
        """True clips that were not trained on, each above what the memories make of its first frames and its caption."""
        batch = self.batch(generators(0, 1, range(4)), self.config.encoder_steps)
        made = go_on(self.module, batch, self.config.overlap)
        true = self.module.frozen["vae"].decode(batch["latents"].to(made.device).transpose(1, 2).flatten(0, 1)).sample
        rows = torch.stack([true.unflatten(0, made.shape[:2]), made], 1).flatten(0, 1)
        diffusion.save_sheet(diffusion.to_uint8(rows), folder / "samples" / f"{step:06d}.png")


def drifted(frames_BTCHW: torch.Tensor, largest: float, rngs: Sequence[np.random.Generator]) -> torch.Tensor:
    """Frames in [-1, 1] as they look when a video has drifted away; half of the clips as they were.

    Red, green, blue and contrast get gains of exp of up to `largest` either way, and fine detail up to 2.5 `largest` more or less.
    """
    drawn = torch.tensor(np.array([rng.uniform(-largest, largest, 5) * (rng.random() < 0.5) for rng in rngs]), dtype=torch.float32)
    gains_BTCHW, contrast_BTCHW, detail_BTCHW = (part[:, None, :, None, None] for part in drawn.split((3, 1, 1), 1))
    coloured = (frames_BTCHW + 1) * gains_BTCHW.exp() - 1
    mean = coloured.mean((1, 3, 4), keepdim=True)
    soft = F.avg_pool2d(coloured.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(coloured)
    return (mean + (coloured + 2.5 * detail_BTCHW * (coloured - soft) - mean) * contrast_BTCHW.exp()).clamp(-1, 1)


def as_generated(
    vae: AutoencoderKL, latents_BCTHW: torch.Tensor, amount_B: torch.Tensor | None = None, noise: Noise | None = None
) -> torch.Tensor:
    """Frames (B, T, 3, H, W) of a window's latents as a denoiser and the decoder would leave them: with so much of the noise, if any."""
    b, _, t = latents_BCTHW.shape[:3]
    if amount_B is not None and noise is not None:
        latents_BCTHW = latents_BCTHW + amount_B[:, None, None, None, None] * noise.normal(latents_BCTHW)
    frames = vae.decode(latents_BCTHW.transpose(1, 2).flatten(0, 1)).sample
    return frames.float().clamp(-1, 1).unflatten(0, (b, t))


def encoder_loss(
    cam: ConditionalAttentionModule, unet: StreamingUNet3D, latents_BCTHW: torch.Tensor, frames_BTCHW: torch.Tensor
) -> torch.Tensor:
    """(B,) how far the frame encoder is from the base's first layer on the same frames' latents; 1 is as far as their mean."""
    with torch.no_grad():
        seen = unet.conv_in(latents_BCTHW.transpose(1, 2).flatten(0, 1)).float().unflatten(0, frames_BTCHW.shape[:2])
    return ((cam.encode_frames(frames_BTCHW).float() - seen) ** 2).mean((1, 2, 3, 4)) / seen.var((1, 2, 3, 4))


@torch.no_grad()
def go_on(module: MemoryModule, batch: Batch, overlap: int, steps: int = 8) -> torch.Tensor:
    """Frames (B, T, 3, H, W) that the memories make of a batch's windows, anchors and captions, without guidance."""
    device = next(module.unet.parameters()).device
    batch = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    text_BLD = module.frozen["text"](batch["ids"]).last_hidden_state
    window_BTCHW = module.frozen["vae"].decode(batch["window"].transpose(1, 2).flatten(0, 1)).sample.clamp(-1, 1)
    embedding_BTCHW = module.cam.encode_frames(window_BTCHW.unflatten(0, (-1, overlap)))
    contexts = module.unet.contexts(text_BLD, module.image_tokens(batch["anchor"]))

    def predict(latents_BCTHW: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return module.unet(latents_BCTHW, timestep, contexts, cam_features=module.cam(latents_BCTHW, timestep, text_BLD, embedding_BTCHW))

    noise_BCTHW = diffusion.sample_noise(batch["latents"].shape, module.config.mixed_noise).to(device)
    latents_BCTHW = final(denoise(predict, noise_BCTHW, diffusion.make_sampler(), steps))
    return module.frozen["vae"].decode(latents_BCTHW.transpose(1, 2).flatten(0, 1)).sample.unflatten(0, noise_BCTHW.shape[:3:2])


def _take(module: nn.Module, earlier: nn.Module, part: str) -> None:
    """The weights of `earlier` whose names begin with `part`, into `module`."""
    module.load_state_dict({n: w for n, w in earlier.state_dict().items() if n.startswith(part)}, strict=False)


def _is_mixer(name: str) -> bool:
    return ".attn2.alpha" in name or ".attn2.conv" in name
