"""Other ways to make a long video with the same weights: the method with a part taken away, and rivals that need no training.

A method is a function (components, request) -> frames, uint8 (H, W, 3), as a stream; `METHODS` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..backbones.modelscope import Condition, ModelScopeBackbone
from ..checkpoints.load import Components
from ..config import Request
from ..io.reader import Frame
from ..pipeline import LongVideoPipeline
from ..samplers.denoise import Predict
from ..types import TextCond
from .fifo import fifo_diffusion
from .freenoise import free_noise

Frames = Callable[[Components, Request], Iterator[Frame]]


@dataclass(frozen=True)
class Method:
    """frames: makes the video. chunked: it is made of chunks that begin where the pipeline's do, so that it has seams to measure."""

    frames: Frames
    chunked: bool


class WithoutApm(ModelScopeBackbone):
    """The anchor is forgotten: later chunks see the text alone."""

    def condition(self, text: TextCond, anchor_CHW: torch.Tensor | None, seed: int = 0) -> Condition:
        return super().condition(text, None, seed)


class WithoutCam(ModelScopeBackbone):
    """The frames before are forgotten: every chunk begins anew."""

    def predictor(self, condition: Condition, window_TCHW: torch.Tensor | None, scale: float, rescale: float) -> Predict:
        return super().predictor(condition, None, scale, rescale)


class WithoutBoth(WithoutApm, WithoutCam):
    """Chunks that know nothing of each other but the prompt."""


def with_backbone(components: Components, kind: type[ModelScopeBackbone]) -> Components:
    """The same model with its parts in a backbone of another kind; weights are shared."""
    own: Any = components.backbone
    return replace(components, backbone=kind(own.vae, own.unet, own.cam, own.image_encoder, own.image_tokens))


def streamed(kind: type[ModelScopeBackbone]) -> Frames:
    """The pipeline's own stream over a backbone of this kind."""

    def frames(components: Components, request: Request) -> Iterator[Frame]:
        for chunk in LongVideoPipeline(with_backbone(components, kind)).stream(request):
            yield from chunk.frames

    return frames


METHODS: dict[str, Method] = {
    "CAM and APM": Method(streamed(ModelScopeBackbone), chunked=True),
    "CAM alone": Method(streamed(WithoutApm), chunked=True),
    "APM alone": Method(streamed(WithoutCam), chunked=True),
    "nothing": Method(streamed(WithoutBoth), chunked=True),
    "FreeNoise": Method(free_noise, chunked=False),
    "FIFO-Diffusion": Method(fifo_diffusion, chunked=False),
}
