"""Recipe `rival`: another short-term memory in the place of CAM, trained on the same frozen base, clips, windows and loss.

What rivals there are is told in `eval.rivals`. `kind` names one. The recipe's defaults are those of `cam`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn

from streamingt2v.errors import RequestError
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.samplers.denoise import denoise, final
from streamingt2v.train.draws import generators
from streamingt2v.train.task import Batch

from ..compare import rivals
from . import diffusion
from .base import load_unet
from .memory import FRAME_ENCODER, Continuations, MemoryConfig, as_generated, encoder_loss
from .text import load_text


@dataclass(frozen=True)
class RivalConfig:
    """`kind`: of `eval.rivals`. `encoder_steps`: the first, in which the additive one's frame encoder learns alone, as CAM's does.

    The others are those of `MemoryConfig`.
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
    """The frozen base and a rival under one forward; only the rival is trained."""

    def __init__(self, unet: StreamingUNet3D, rival: rivals.Rival, parts: dict[str, nn.Module], config: MemoryConfig):
        super().__init__()
        self.unet, self.rival, self.config = unet.requires_grad_(False), rival, config
        self.frozen: Any = nn.ModuleDict(parts).requires_grad_(False)
        self.scheduler = diffusion.make_scheduler()

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        if batch["encoder_only"]:
            with torch.no_grad():
                frames_BTCHW = as_generated(self.frozen["vae"], batch["window"])
            return {"loss": encoder_loss(self.rival.copied, self.unet, batch["window"], frames_BTCHW)}
        with torch.no_grad():
            window_BTCHW = as_generated(self.frozen["vae"], batch["window"], batch["disturb"], batch["noise"])
        c = self.config
        noisy, velocity, t = diffusion.noised(batch["latents"], self.scheduler, batch["noise"], late=c.late, mixed=c.mixed_noise)
        predicted = self.predictor(batch["ids"], window_BTCHW, noisy.shape[2])(noisy, t)
        loss = diffusion.velocity_loss(predicted, velocity, t, batch["weight"], self.scheduler, c.changes)
        with torch.no_grad():
            seen = window_BTCHW.shape[1]
            errors = ((predicted - velocity) ** 2).float()
        return {"loss": loss, "overlap": errors[:, :, :seen].mean((1, 2, 3, 4)), "new": errors[:, :, seen:].mean((1, 2, 3, 4))}

    def predictor(self, ids: torch.Tensor, window_BTCHW: torch.Tensor, frames: int) -> Any:
        """(noisy latents, timestep) -> prediction, for captions and windows of as many clips."""
        with torch.no_grad():
            text_BLD = self.frozen["text"](ids).last_hidden_state
            contexts = self.unet.contexts(text_BLD)
        own, seen_BCTHW = self.rival.copied.contexts(text_BLD), self.rival.see(window_BTCHW, self.frozen["vae"], frames)
        return lambda noisy_BCTHW, t: self.rival(self.unet, noisy_BCTHW, t, contexts, own, seen_BCTHW)


class RivalTask(Continuations):
    """See `loop.Task`. Batches are those that CAM is trained on."""

    def __init__(self, config: RivalConfig):
        steps = config.encoder_steps if config.kind == "additive" else 0
        shared = {
            name: getattr(config, name) for name in "base text vae nouns size frames overlap disturb still late mixed_noise changes".split()
        }
        tokenizer, text = load_text(config.text)
        super().__init__(MemoryConfig(**shared, encoder_steps=steps), tokenizer)
        base = load_unet(config.base)
        parts = {"text": text, "vae": AutoencoderKL.from_pretrained(config.vae / "vae").float()}
        unet = StreamingUNet3D.from_base(base, self.config.head_dim)  # its mergers and mixers are not used
        self.module = RivalModule(unet, rivals.from_base(config.kind, base, FRAME_ENCODER), parts, self.config)

    def export(self, folder: Path) -> None:
        whole: Any = torch.nn.Module.to(copy.deepcopy(self.module.rival), torch.float16)
        whole.save_pretrained(folder / "rival")

    @torch.no_grad()
    def sample(self, folder: Path, step: int) -> None:
        """True clips that were not trained on, each above what the rival makes of its first frames and its caption."""
        vae, device = self.module.frozen["vae"], next(self.module.rival.parameters()).device
        batch = self.batch(generators(0, 1, range(4)), self.config.encoder_steps)
        true, window, ids = (batch[name].to(device) for name in ("latents", "window", "ids"))
        predict = self.module.predictor(ids, as_generated(vae, window), self.config.frames)
        noise = diffusion.sample_noise(true.shape, self.config.mixed_noise).to(device)
        made = final(denoise(predict, noise, diffusion.make_sampler(), 8))
        rows = torch.stack([as_generated(vae, latents) for latents in (true, made)], 1).flatten(0, 1)
        diffusion.save_sheet(diffusion.to_uint8(rows), folder / "samples" / f"{step:06d}.png")
