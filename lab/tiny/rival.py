"""Recipe `rival`: another short-term memory in place of CAM, trained on the same base, clips, windows and
loss.

`kind`: one of `compare.rivals`. Defaults are those of `cam`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from streamingt2v.errors import RequestError
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.samplers.denoise import denoise, final
from streamingt2v.train import objective
from streamingt2v.train.draws import generators
from streamingt2v.train.memory import SAMPLE_STEPS, Plan, as_generated, continuations, encoder_loss
from streamingt2v.train.sheet import save_sheet
from streamingt2v.train.task import Batch
from streamingt2v.video.piece import to_uint8

from ..compare import rivals
from . import data, diffusion
from .base import load_unet
from .memory import FRAME_ENCODER, MemoryConfig
from .text import load_text, tokenize


@dataclass(frozen=True)
class RivalConfig:
    """kind: of `compare.rivals`. encoder_steps: initial steps of the additive rival's frame encoder alone,
    like CAM's.

    The others are `MemoryConfig`'s.
    """

    base: Path
    text: Path
    vae: Path
    kind: str
    nouns: int = 12
    size: int = 64
    frames: int = 16
    overlap: int = 8
    disturb: float = 0.3
    still: float = 0.1
    encoder_steps: int = 300
    late: float = 1.0
    mixed_noise: float = 0.0
    changes: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in rivals.NAMES:
            raise RequestError("kind", self.kind, f"must be one of {', '.join(rivals.NAMES)}")


class RivalModule(nn.Module):
    """The frozen base and a rival in one forward; only the rival is trained."""

    def __init__(self, unet: StreamingUNet3D, rival: rivals.Rival, parts: dict[str, nn.Module], plan: Plan):
        super().__init__()
        self.unet, self.rival, self.plan = unet.requires_grad_(False), rival, plan
        self.frozen: Any = nn.ModuleDict(parts).requires_grad_(False)
        self.scheduler = diffusion.make_scheduler()

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        plan = self.plan
        with torch.no_grad():
            latents = data.encode_clips(batch["frames"])
        window = latents[:, :, : plan.overlap]
        if batch["encoder_only"]:
            with torch.no_grad():
                frames_BTCHW = as_generated(self.frozen["vae"], window)
            return {"loss": encoder_loss(self.rival.copied, self.unet, window, frames_BTCHW)}
        with torch.no_grad():
            window_BTCHW = as_generated(self.frozen["vae"], window, batch["disturb"], batch["noise"])
        noisy, velocity, t = objective.noised(
            latents, self.scheduler, batch["noise"], late=plan.late, mixed=plan.mixed_noise
        )
        predicted = self.predictor(batch["ids"], window_BTCHW, noisy.shape[2])(noisy, t)
        weight = objective.latent_weight(batch["weight"], data.PATCH)
        loss = objective.denoising_loss(predicted, velocity, t, weight, self.scheduler, plan.changes)
        with torch.no_grad():
            errors = ((predicted - velocity) ** 2).float()
        seen, new = errors[:, :, : plan.overlap], errors[:, :, plan.overlap :]
        return {"loss": loss, "overlap": seen.mean((1, 2, 3, 4)), "new": new.mean((1, 2, 3, 4))}

    def predictor(self, ids: torch.Tensor, window_BTCHW: torch.Tensor, frames: int) -> Any:
        """Return a predictor for captions and windows of as many clips."""
        with torch.no_grad():
            text_BLD = self.frozen["text"](ids).last_hidden_state
            contexts = self.unet.contexts(text_BLD)
        own, seen_BCTHW = (
            self.rival.copied.contexts(text_BLD),
            self.rival.see(window_BTCHW, self.frozen["vae"], frames),
        )
        return lambda noisy_BCTHW, t: self.rival(self.unet, noisy_BCTHW, t, contexts, own, seen_BCTHW)


class RivalTask:
    """See `train.task.Task`. Batches are those of CAM's training."""

    def __init__(self, config: RivalConfig):
        steps = config.encoder_steps if config.kind == "additive" else 0
        names = "base text vae nouns size frames overlap disturb still late mixed_noise changes".split()
        shared = MemoryConfig(**{name: getattr(config, name) for name in names}, encoder_steps=steps)
        self.plan, self.clips = shared.plan(), data.WorldClips(data.noun_names(config.nouns))
        tokenizer, text = load_text(config.text)
        self.tokenize = partial(tokenize, tokenizer)
        base = load_unet(config.base)
        parts = {"text": text, "vae": AutoencoderKL.from_pretrained(config.vae / "vae").float()}
        unet = StreamingUNet3D.from_base(base, shared.head_dim)  # its mergers and mixers are unused
        self.module: Any = RivalModule(
            unet, rivals.from_base(config.kind, base, FRAME_ENCODER), parts, self.plan
        )

    def batch_size(self, step: int, batch: int) -> int:
        return batch

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        return continuations(self.clips, self.plan, self.tokenize, rngs, step < self.plan.encoder_steps)

    def export(self, folder: Path) -> None:
        whole: Any = torch.nn.Module.to(copy.deepcopy(self.module.rival), torch.float16)
        whole.save_pretrained(folder / "rival")

    @torch.no_grad()
    def sample(self, folder: Path, step: int) -> None:
        """Draw clips, each above the rival's continuation from its first frames and its caption."""
        vae, device = self.module.frozen["vae"], next(self.module.rival.parameters()).device
        batch = self.batch(generators(0, 1, range(4)), self.plan.encoder_steps)
        frames, ids = (batch[name].to(device) for name in ("frames", "ids"))
        latents = data.encode_clips(frames)
        predict = self.module.predictor(
            ids, as_generated(vae, latents[:, :, : self.plan.overlap]), self.plan.frames
        )
        noise = objective.sample_noise(latents.shape, self.plan.mixed_noise).to(device)
        made = as_generated(vae, final(denoise(predict, noise, diffusion.make_sampler(), SAMPLE_STEPS)))
        save_sheet(
            to_uint8(torch.stack([frames, made], 1).flatten(0, 1)), folder / "samples" / f"{step:06d}.png"
        )
