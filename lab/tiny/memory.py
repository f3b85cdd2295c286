"""Recipes `cam` and `apm` on the world: `streamingt2v.train.memory` with earlier recipes' folders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from diffusers import AutoencoderKL
from transformers import CLIPVisionModelWithProjection

from streamingt2v.errors import RequestError
from streamingt2v.models.apm import ImageTokens
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.train.memory import MemoryModule, MemoryTask, Parts, Plan

from . import data, diffusion
from .base import load_unet
from .text import TEXT_LENGTH, load_text, tokenize

FRAME_ENCODER = (16, 32, 48, 64)
"""Widths of CAM's frame encoder."""


@dataclass(frozen=True)
class MemoryConfig:
    """Settings of both recipes; the others are `train.memory.Plan`'s.

    base, text, vae: folders of those recipes. cam: folder of the cam recipe, for apm; None trains cam. init:
    for cam, a folder with memories of an earlier base, whose mergers and frame encoder to start from.
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

    def plan(self) -> Plan:
        """Return the plan; apm continues with a trained frame encoder."""
        names = "frames overlap mixed_noise disturb still drift reach late changes".split()
        shared = {name: getattr(self, name) for name in names}
        anchored = self.cam is not None
        return Plan(
            anchored, self.size, self.size, encoder_steps=0 if anchored else self.encoder_steps, **shared
        )


def memory_task(config: MemoryConfig, anchored: bool) -> MemoryTask:
    """Build the task; RequestError for folders of other recipes."""
    if anchored and config.cam is None:
        raise RequestError("cam", None, "the apm recipe goes on from a folder of the cam recipe; name it")
    if anchored and config.init is not None:
        raise RequestError(
            "init", str(config.init), "the apm recipe starts from cam's folder alone; leave it out"
        )
    if not anchored and config.cam is not None:
        raise RequestError(
            "cam", str(config.cam), "the cam recipe starts from the base; leave it out, or train apm"
        )
    return MemoryTask(_parts(config), config.plan(), data.WorldClips(data.noun_names(config.nouns)), save)


def save(module: MemoryModule, folder: Path) -> None:
    """Write each trained part as a folder."""
    module.unet.save_pretrained(folder / "unet")
    module.cam.save_pretrained(folder / "cam")
    module.tokens.save_pretrained(folder / "image_tokens")


def _parts(config: MemoryConfig) -> Parts:
    tokenizer, text = load_text(config.text)
    vision = CLIPVisionModelWithProjection.from_pretrained(config.text / "image_encoder").float()
    vae = AutoencoderKL.from_pretrained(config.vae / "vae").float()
    if config.cam is None:
        base = load_unet(config.base)
        unet = StreamingUNet3D.from_base(base, config.head_dim, TEXT_LENGTH, config.image_tokens)
        cam = ConditionalAttentionModule.from_base(base, FRAME_ENCODER)
        if config.init is not None:
            _take(unet, StreamingUNet3D.from_pretrained(config.init / "unet"), "cross_attention_merger")
            _take(
                cam,
                ConditionalAttentionModule.from_pretrained(config.init / "cam"),
                "controlnet_cond_embedding",
            )
    else:
        unet = StreamingUNet3D.from_pretrained(config.cam / "unet").float()
        cam = ConditionalAttentionModule.from_pretrained(config.cam / "cam").float()
    width = text.config.hidden_size
    tokens = ImageTokens(vision.config.projection_dim, 2 * width, config.image_tokens, width)
    scheduler = diffusion.make_scheduler()
    return Parts(
        unet, cam, tokens, text, partial(tokenize, tokenizer), vae, scheduler, vision, data.encode_clips
    )


def _take(
    module: StreamingUNet3D | ConditionalAttentionModule,
    earlier: StreamingUNet3D | ConditionalAttentionModule,
    part: str,
) -> None:
    """Copy the weights of `earlier` whose names start with `part` into `module`."""
    module.load_state_dict(
        {n: w for n, w in earlier.state_dict().items() if n.startswith(part)}, strict=False
    )
