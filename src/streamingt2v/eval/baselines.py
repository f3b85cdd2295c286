"""Other ways to make a long video on the same base: the method with a part taken away, rivals without training, rivals with it.

A method is a function (components, request) -> frames, uint8 (H, W, 3), as a stream. `METHODS` names those that need nothing
but a model; `trained_rivals` reads the others from their recipe's folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
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
from .rivals import NAMES, RivalBackbone, kind_of, load_rival

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

    return lambda components, request: _frames(with_backbone(components, kind), request)


def _frames(components: Components, request: Request) -> Iterator[Frame]:
    for chunk in LongVideoPipeline(components).stream(request):
        yield from chunk.frames


def trained_rivals(folders: Iterable[Path], components: Components) -> dict[str, Method]:
    """Methods by the names of `rivals.NAMES`, from folders of the rival recipe, for this model alone.

    ModelError if a folder holds no rival, or one that was trained on another base.
    """
    own: Any = components.backbone
    methods: dict[str, Method] = {}
    for folder in folders:
        rival = load_rival(folder, own.unet)
        backbone = RivalBackbone(own, rival, components.config.extend.frames)
        methods[NAMES[kind_of(rival)]] = Method(partial(_with_rival, backbone), chunked=True)
    return methods


def _with_rival(backbone: RivalBackbone, components: Components, request: Request) -> Iterator[Frame]:
    return _frames(replace(components, backbone=backbone), request)


METHODS: dict[str, Method] = {
    "CAM and APM": Method(streamed(ModelScopeBackbone), chunked=True),
    "CAM alone": Method(streamed(WithoutApm), chunked=True),
    "APM alone": Method(streamed(WithoutCam), chunked=True),
    "nothing": Method(streamed(WithoutBoth), chunked=True),
    "FreeNoise": Method(free_noise, chunked=False),
    "FIFO-Diffusion": Method(fifo_diffusion, chunked=False),
}
