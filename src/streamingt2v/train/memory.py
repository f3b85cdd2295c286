"""Train CAM and APM on a frozen base (docs/method.md, "Training").

A clip's first frames are the window, the clip is the target. CAM's frame encoder first learns alone to
reproduce the base's first layer from frames: through a zero-initialised encoder and mergers the signal would
be too weak to learn from in a few hundred steps. APM adds the anchor, a frame from before the target. The
base stays unchanged since it also makes the first chunk.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler
from torch import nn

from ..models.apm import ImageTokens, preprocess
from ..models.cam import ConditionalAttentionModule
from ..models.unet3d import StreamingUNet3D
from ..samplers.denoise import denoise, final
from ..video.piece import to_uint8
from . import objective
from .data import Clip, ClipDataset
from .draws import Noise, generators
from .sheet import save_sheet
from .task import Batch

SAMPLE_STEPS = 8
"""Denoising steps of the samples drawn during training."""


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """What makes the memories' training harder than copying.

    disturb: largest noise on the window's latents, since windows are generated at inference. still: share of
    clips whose window repeats one frame, as when a video starts from an image. drift: see `drifted`. reach:
    largest distance in frames from anchor to target. late, changes: see `objective`.
    """

    disturb: float = 0.3
    still: float = 0.1
    drift: float = 0.0
    reach: int = 16
    late: float = 1.0
    changes: float = 0.0


@dataclass(frozen=True)
class Plan(Exercise):
    """Settings of the memories' training.

    anchored: train APM too, else CAM alone. frames, overlap: of a chunk, and of its window. height, width:
    pixels. mixed_noise: see `objective`. encoder_steps: initial steps that train CAM's frame encoder alone.
    """

    anchored: bool
    height: int
    width: int
    frames: int = 16
    overlap: int = 8
    mixed_noise: float = 0.0
    encoder_steps: int = 300

    @property
    def span(self) -> int:
        """Return the frames a clip needs, from the earliest anchor to the target's end."""
        return self.reach + self.frames


@dataclass
class Parts:
    """Networks in float32.

    scheduler: noise schedule of the training. encode: clips (B, T, 3, H, W) to latents; None: by `vae`.
    """

    unet: StreamingUNet3D
    cam: ConditionalAttentionModule
    tokens: ImageTokens
    text: nn.Module
    tokenize: Callable[[list[str]], torch.Tensor]
    vae: AutoencoderKL
    scheduler: DDIMScheduler
    vision: Any = None
    encode: Callable[[torch.Tensor], torch.Tensor] | None = None


def train_memories(unet: StreamingUNet3D, anchored: bool) -> None:
    """Train CAM's mergers in the network, if `anchored` also APM's mixing weights, and nothing else."""
    for name, parameter in unet.named_parameters():
        is_mixer = ".attn2.alpha" in name or ".attn2.conv" in name
        parameter.requires_grad_("cross_attention_merger" in name or (anchored and is_mixer))


class MemoryModule(nn.Module):
    """The base with mergers, mixers, CAM and image tokens in one forward; only these are trained."""

    def __init__(self, parts: Parts, plan: Plan):
        super().__init__()
        self.unet, self.cam, self.tokens = parts.unet, parts.cam, parts.tokens
        self.plan, self.scheduler = plan, parts.scheduler
        frozen = {"text": parts.text, "vae": parts.vae} | ({"vision": parts.vision} if plan.anchored else {})
        self.frozen: Any = nn.ModuleDict(frozen).requires_grad_(False)
        train_memories(self.unet, plan.anchored)
        self.cam.requires_grad_(True)
        self.tokens.requires_grad_(plan.anchored)
        self._encode = parts.encode

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        plan = self.plan
        with torch.no_grad():
            latents = self.encode(batch["frames"])
            window = self.encode(batch["window"]) if "window" in batch else latents[:, :, : plan.overlap]
            if batch["encoder_only"]:
                window_BTCHW = as_generated(self.frozen["vae"], window)
        if batch["encoder_only"]:
            return {"loss": encoder_loss(self.cam, self.unet, window, window_BTCHW)}
        with torch.no_grad():
            text_BLD = self.frozen["text"](batch["ids"]).last_hidden_state
            window_BTCHW = as_generated(self.frozen["vae"], window, batch["disturb"], batch["noise"])
        noisy, target, t = objective.noised(
            latents, self.scheduler, batch["noise"], late=plan.late, mixed=plan.mixed_noise
        )
        features = self.cam(noisy, t, text_BLD, self.cam.encode_frames(window_BTCHW))
        predicted = self.unet(noisy, t, text_BLD, self.image_tokens(batch["anchor"]), features)
        weight = objective.latent_weight(batch["weight"], batch["weight"].shape[-1] // latents.shape[-1])
        loss = objective.denoising_loss(predicted, target, t, weight, self.scheduler, plan.changes)
        with torch.no_grad():
            errors = ((predicted - target) ** 2).float()
        seen, new = errors[:, :, : plan.overlap], errors[:, :, plan.overlap :]
        return {"loss": loss, "overlap": seen.mean((1, 2, 3, 4)), "new": new.mean((1, 2, 3, 4))}

    def encode(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        """Return latents (B, C, T, h, w)."""
        if self._encode is not None:
            return self._encode(frames_BTCHW)
        vae, shape = self.frozen["vae"], frames_BTCHW.shape[:2]
        latents = vae.encode(frames_BTCHW.flatten(0, 1)).latent_dist.mode() * vae.config.scaling_factor
        return latents.float().unflatten(0, shape).transpose(1, 2)

    def image_tokens(self, anchor_BCHW: torch.Tensor) -> torch.Tensor | None:
        """Return the anchors' tokens (B, N, D); None if only CAM is trained."""
        if not self.plan.anchored:
            return None
        with torch.no_grad():
            vision = self.frozen["vision"]
            embeds_BD = vision(pixel_values=preprocess(anchor_BCHW, vision.config.image_size)).image_embeds
        return self.tokens(embeds_BD)


class MemoryTask:
    """See `task.Task`. save: write the trained parts into the output folder."""

    def __init__(
        self, parts: Parts, plan: Plan, dataset: ClipDataset, save: Callable[[MemoryModule, Path], None]
    ):
        self.plan, self.dataset, self.tokenize, self._save = plan, dataset, parts.tokenize, save
        self.module: Any = MemoryModule(parts, plan)

    def batch_size(self, step: int, batch: int) -> int:
        return batch

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        return continuations(self.dataset, self.plan, self.tokenize, rngs, step < self.plan.encoder_steps)

    def export(self, folder: Path) -> None:
        self._save(self.module, folder)

    def sample(self, folder: Path, step: int) -> None:
        """Draw clips, each above its continuation from the first frames and the caption."""
        batch = self.batch(generators(0, 1, range(4)), self.plan.encoder_steps)
        device = next(self.module.unet.parameters()).device
        batch = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        made_BTCHW = go_on(self.module, batch)
        rows = torch.stack([batch["frames"], made_BTCHW], 1).flatten(0, 1)
        save_sheet(to_uint8(rows), folder / "samples" / f"{step:06d}.png")


def continuations(
    dataset: ClipDataset,
    plan: Plan,
    tokenize: Callable[[list[str]], torch.Tensor],
    rngs: Sequence[np.random.Generator],
    encoder_only: bool,
) -> Batch:
    """Draw captioned clips with an earlier frame as anchor, one per generator."""
    clips = [_draw(dataset, plan, rng) for rng in rngs]
    pixels_BTCHW = torch.stack([one.frames_TCHW for one in clips])
    frames_BTCHW, anchor_BCHW = pixels_BTCHW[:, 1:], pixels_BTCHW[:, 0].clone()
    anchor_BCHW[torch.tensor([rng.random() < 0.1 for rng in rngs])] = 0.0  # mid grey is guidance's negative
    batch: Batch = {
        "frames": frames_BTCHW,
        "encoder_only": encoder_only,
        "disturb": torch.tensor([plan.disturb * rng.random() for rng in rngs]),
        "anchor": anchor_BCHW,
        "weight": torch.stack([_weight(one)[1:] for one in clips]),
        "ids": tokenize(objective.drop_captions([one.caption for one in clips], rngs)),
    }
    return batch | (
        {"window": drifted(frames_BTCHW[:, : plan.overlap], plan.drift, rngs)} if plan.drift else {}
    )


def _draw(dataset: ClipDataset, plan: Plan, rng: np.random.Generator) -> Clip:
    """Draw an anchor frame and the target's frames."""
    steps = np.arange(plan.frames)
    if rng.random() < plan.still:
        steps = np.maximum(0, steps - (plan.overlap - 1))
    anchor = plan.reach - 1 - int(rng.integers(plan.reach))
    return dataset.draw(rng, [anchor, *(int(step) + plan.reach for step in steps)], plan.height, plan.width)


def _weight(clip: Clip) -> torch.Tensor:
    return torch.ones_like(clip.frames_TCHW[:, 0]) if clip.weight_THW is None else clip.weight_THW


def drifted(frames_BTCHW: torch.Tensor, largest: float, rngs: Sequence[np.random.Generator]) -> torch.Tensor:
    """Imitate the drift of long videos on frames in [-1, 1]; leave half of the clips unchanged.

    Red, green, blue and contrast get gains of exp(+-`largest`), fine detail +-2.5 `largest`. The target stays
    clean, so that the model learns to return to the anchor's look.
    """
    drawn = torch.tensor(
        np.array([rng.uniform(-largest, largest, 5) * (rng.random() < 0.5) for rng in rngs]),
        dtype=torch.float32,
    )
    gains_BTCHW, contrast_BTCHW, detail_BTCHW = (
        part[:, None, :, None, None] for part in drawn.split((3, 1, 1), 1)
    )
    coloured = (frames_BTCHW + 1) * gains_BTCHW.exp() - 1
    mean = coloured.mean((1, 3, 4), keepdim=True)
    soft = F.avg_pool2d(coloured.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(coloured)
    return (mean + (coloured + 2.5 * detail_BTCHW * (coloured - soft) - mean) * contrast_BTCHW.exp()).clamp(
        -1, 1
    )


def as_generated(
    vae: AutoencoderKL,
    latents_BCTHW: torch.Tensor,
    amount_B: torch.Tensor | None = None,
    noise: Noise | None = None,
) -> torch.Tensor:
    """Return the window's frames (B, T, 3, H, W) as noised by `amount_B` and decoded, like generated ones."""
    b, _, t = latents_BCTHW.shape[:3]
    if amount_B is not None and noise is not None:
        latents_BCTHW = latents_BCTHW + amount_B[:, None, None, None, None] * noise.normal(latents_BCTHW)
    frames = vae.decode(latents_BCTHW.transpose(1, 2).flatten(0, 1) / vae.config.scaling_factor).sample
    return frames.float().clamp(-1, 1).unflatten(0, (b, t))


def encoder_loss(
    cam: ConditionalAttentionModule,
    unet: StreamingUNet3D,
    latents_BCTHW: torch.Tensor,
    frames_BTCHW: torch.Tensor,
) -> torch.Tensor:
    """Return the frame encoder's error (B,) against the base's first layer; 1: no better than the mean."""
    with torch.no_grad():
        seen = unet.conv_in(latents_BCTHW.transpose(1, 2).flatten(0, 1)).float()
        seen = seen.unflatten(0, frames_BTCHW.shape[:2])
    return ((cam.encode_frames(frames_BTCHW).float() - seen) ** 2).mean((1, 2, 3, 4)) / seen.var((1, 2, 3, 4))


@torch.no_grad()
def go_on(module: MemoryModule, batch: Batch) -> torch.Tensor:
    """Generate frames (B, T, 3, H, W) from a batch's windows, anchors and captions, without guidance."""
    text_BLD = module.frozen["text"](batch["ids"]).last_hidden_state
    latents_BCTHW = module.encode(batch["frames"])
    window_BTCHW = as_generated(module.frozen["vae"], latents_BCTHW[:, :, : module.plan.overlap])
    embedding_BTCHW = module.cam.encode_frames(window_BTCHW)
    contexts = module.unet.contexts(text_BLD, module.image_tokens(batch["anchor"]))

    def predict(x_BCTHW: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return module.unet(
            x_BCTHW, timestep, contexts, cam_features=module.cam(x_BCTHW, timestep, text_BLD, embedding_BTCHW)
        )

    noise_BCTHW = objective.sample_noise(latents_BCTHW.shape, module.plan.mixed_noise).to(latents_BCTHW)
    return as_generated(
        module.frozen["vae"],
        final(denoise(predict, noise_BCTHW, objective.quick_sampler(module.scheduler), SAMPLE_STEPS)),
    )
