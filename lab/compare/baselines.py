"""Other ways to make a long video on the same base: ablations, training-free rivals, trained rivals.

A method is a function (components, request) -> stream of frames, uint8 (H, W, 3). `METHODS` lists those that
need only a model; `trained_rivals` reads the others from their recipe's folders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from streamingt2v.backbones.modelscope import Condition, ModelScopeBackbone, encode_frames
from streamingt2v.checkpoints.load import Components
from streamingt2v.config import ExtendConfig, Request
from streamingt2v.errors import RequestError
from streamingt2v.pipeline import LongVideoPipeline
from streamingt2v.samplers.denoise import Predict
from streamingt2v.samplers.guidance import Guidance
from streamingt2v.types import TextCond
from streamingt2v.video.piece import to_float, to_uint8
from streamingt2v.video.reader import Frame

from .fifo import fifo_calls, fifo_diffusion
from .freenoise import free_noise
from .rivals import NAMES, RivalBackbone, kind_of, load_rival

Frames = Callable[[Components, Request], Iterator[Frame]]


Calls = Callable[[ExtendConfig, int], int]
"""(config, frames) -> number of network calls on a chunk"""


def chunk_calls(config: ExtendConfig, frames: int) -> int:
    """Return the network calls of a video made chunk by chunk."""
    return config.steps * (1 + max(0, math.ceil((frames - config.frames) / (config.frames - config.overlap))))


@dataclass(frozen=True)
class Method:
    """frames: makes the video. chunked: its chunks start where the pipeline's do, so seams can be
    measured.

    calls: its amount of work.
    """

    frames: Frames
    chunked: bool = True
    calls: Calls = chunk_calls


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


def streamed(kind: type[ModelScopeBackbone]) -> Frames:
    """Return the pipeline's stream over a backbone of this kind."""

    return lambda components, request: _frames(with_backbone(components, kind), request)


def _frames(components: Components, request: Request) -> Iterator[Frame]:
    for chunk in LongVideoPipeline(components).stream(request):
        yield from chunk.frames


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


def trained_rivals(folders: Iterable[Path], components: Components) -> dict[str, Method]:
    """Return methods named by `rivals.NAMES`, from rival folders in order, for this model.

    ModelError if a folder holds no rival or one of another base; RequestError for duplicates.
    """
    backbones = rival_backbones(folders, components)
    return {name: Method(partial(_with_rival, backbone)) for name, backbone in backbones.items()}


def rival_backbones(folders: Iterable[Path], components: Components) -> dict[str, RivalBackbone]:
    """Return the base with each rival; errors as in `trained_rivals`."""
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


def _with_rival(backbone: RivalBackbone, components: Components, request: Request) -> Iterator[Frame]:
    return _frames(replace(components, backbone=backbone), request)


def refined(components: Components, request: Request) -> Iterator[Frame]:
    """Add stage 3 to the method."""
    return _frames(components, replace(request, preset="full"))


def enlarged(components: Components, request: Request) -> Iterator[Frame]:
    """Enlarge the method's frames to stage 3's size, without stage 3."""
    height, width = components.config.size("full")
    for frame_HWC in _frames(components, request):
        frame_TCHW = F.interpolate(to_float(frame_HWC[None]), (height, width), mode="bicubic", antialias=True)
        yield from to_uint8(frame_TCHW.clamp(-1, 1))


HELD = "overlap held, no training"

METHODS: dict[str, Method] = {
    "CAM and APM": Method(streamed(ModelScopeBackbone)),
    "CAM alone": Method(streamed(WithoutApm)),
    "APM alone": Method(streamed(WithoutCam)),
    "nothing": Method(streamed(WithoutBoth)),
    HELD: Method(lambda components, request: _frames(with_held_overlap(components), request)),
    "FreeNoise": Method(
        free_noise, False, lambda config, frames: config.steps * math.ceil(frames / config.frames)
    ),
    "FIFO-Diffusion": Method(fifo_diffusion, False, fifo_calls),
}

DISTILLED: dict[str, Method] = {
    "distilled": Method(
        streamed(ModelScopeBackbone), calls=lambda config, frames: chunk_calls(config, frames) // 5
    ),
    "distilled, CAM alone": Method(
        streamed(WithoutApm), calls=lambda config, frames: chunk_calls(config, frames) // 5
    ),
}
"""The model that the compared one was distilled into: half the steps, one prediction instead of two or
three.
"""

REFINING: dict[str, Method] = {
    "refined": Method(refined, calls=lambda config, frames: 4 * chunk_calls(config, frames)),
    "enlarged": Method(enlarged),
}
"""Stage 3 and its reference. A refined pixel costs about as much as a generated one, and there are four
times as many.
"""
