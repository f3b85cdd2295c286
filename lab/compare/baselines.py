"""Other ways to make a long video on the same base: ablations, training-free and trained rivals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from streamingt2v.backbones.modelscope import Condition, ModelScopeBackbone, encode_frames
from streamingt2v.checkpoints.load import Components
from streamingt2v.config import Request
from streamingt2v.errors import RequestError
from streamingt2v.samplers.denoise import Predict
from streamingt2v.samplers.guidance import Guidance
from streamingt2v.types import TextCond
from streamingt2v.video.reader import Frame

from .fifo import fifo_diffusion
from .freenoise import free_noise
from .rivals import NAMES, RivalBackbone, kind_of, load_rival

HELD = "overlap held, no training"

FREE: dict[str, Callable[[Components, Request], Iterator[Frame]]] = {
    "FreeNoise": free_noise,
    "FIFO-Diffusion": fifo_diffusion,
}
"""Training-free rivals, which yield frames, uint8 (H, W, 3)."""


class WithoutApm(ModelScopeBackbone):
    """Drop the anchor: later chunks see the text alone."""

    def condition(self, text: TextCond, anchor_CHW: torch.Tensor | None, seed: int = 0) -> Condition:
        return super().condition(text, None, seed)


class WithoutCam(ModelScopeBackbone):
    """Drop the previous frames: every chunk starts anew."""

    def predictor(
        self, condition: Condition, window_TCHW: torch.Tensor | None, guidance: Guidance
    ) -> Predict:
        return super().predictor(condition, None, guidance)


class WithoutBoth(WithoutApm, WithoutCam):
    """Make chunks that share only the prompt."""


def with_backbone(components: Components, kind: type[ModelScopeBackbone]) -> Components:
    """Return the model with its parts in another kind of backbone; weights are shared."""
    own: Any = components.backbone
    backbone = kind(own.vae, own.unet, own.cam, own.image_encoder, own.image_tokens)
    return replace(components, backbone=backbone)


def with_held_overlap(components: Components) -> Components:
    """Return the model with the training-free memory `HeldOverlap`."""
    own: Any = components.backbone
    backbone = HeldOverlap(own.vae, own.unet, own.cam, own.image_encoder, own.image_tokens)
    backbone.alphas = components.scheduler.alphas_cumprod
    return replace(components, backbone=backbone)


class HeldOverlap(WithoutBoth):
    """Show the window to the base without training: its latents replace the overlap's, noised to each step.

    As in RePaint (Lugmayr et al. 2022) without resampling; the noise is that of the chunk's start. For
    schedulers whose timesteps index `alphas_cumprod`.
    """

    alphas: torch.Tensor

    def predictor(
        self, condition: Condition, window_TCHW: torch.Tensor | None, guidance: Guidance
    ) -> Predict:
        predict = super().predictor(condition, window_TCHW, guidance)
        if window_TCHW is None:
            return predict
        held = encode_frames(self.vae, window_TCHW, self.device)
        count, kept = held.shape[2], {}

        def holding(latents_BCTHW: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            noise = kept.setdefault("noise", latents_BCTHW[:, :, :count])
            signal = self.alphas[int(timestep)].to(latents_BCTHW)
            known = signal.sqrt() * held.to(latents_BCTHW) + (1 - signal).sqrt() * noise
            return predict(torch.cat([known, latents_BCTHW[:, :, count:]], 2), timestep)

        return holding


def rival_backbones(folders: Iterable[Path], components: Components) -> dict[str, RivalBackbone]:
    """Return the base with each rival by its name in `rivals.NAMES`, from rival folders in order.

    ModelError if a folder holds no rival or one of another base; RequestError for duplicates.
    """
    own: Any = components.backbone
    found: dict[str, RivalBackbone] = {}
    for folder in folders:
        rival = load_rival(folder, own.unet)
        name = NAMES[kind_of(rival)]
        if name in found:
            raise RequestError(
                "rivals", str(folder), f"is the second of kind {kind_of(rival)!r}; give one of each"
            )
        found[name] = RivalBackbone(own, rival, components.config.extend.frames)
    return found
