"""The published procedure on our networks: the same numbers with the redundant work it does.

Each step runs frame encoder and CAM for both halves of guidance and recomputes text and image tokens; each
chunk re-encodes text and anchor, passes the window through the autoencoder twice without use, and decodes
overlap frames. Baseline for speed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from diffusers import DDIMScheduler

from streamingt2v.backbones.modelscope import ModelScopeBackbone, encode_frames
from streamingt2v.checkpoints.load import Components
from streamingt2v.errors import RequestError
from streamingt2v.metrics import speed
from streamingt2v.models.apm import anchor_tokens
from streamingt2v.pipeline import LongVideoPipeline
from streamingt2v.runs.render import load_pipeline
from streamingt2v.samplers.denoise import Predict
from streamingt2v.samplers.guidance import Guidance, frames_alone, guide_pair, steadied
from streamingt2v.types import TextCond

PROCEDURES = ("published", "published-ddim")


@dataclass(frozen=True)
class PublishedSetting(speed.Setting):
    """A way to run the published procedure: with the model's own sampler, or ("published-ddim") 50 DDIM
    steps.
    """

    procedure: str = "published"

    def __post_init__(self) -> None:
        if self.procedure not in PROCEDURES:
            raise RequestError("procedure", self.procedure, f"must be one of {', '.join(PROCEDURES)}")

    @property
    def work(self) -> tuple[object, ...]:
        return super().work + (("ddim",) if self.procedure == "published-ddim" else ())

    def pipeline(self) -> LongVideoPipeline:
        """Load the model. RequestError for another backbone."""
        pipe = load_pipeline(self.model, self.device, self.dtype, self.savings)
        return LongVideoPipeline(
            as_published(pipe.components, speed.PROMPT, self.procedure == "published-ddim"), pipe.name
        )


@dataclass(frozen=True)
class Unprepared:
    """Inputs of a chunk, before any computation."""

    text: TextCond
    anchor_CHW: torch.Tensor | None


class PublishedProcedure(ModelScopeBackbone):
    """See `base.Backbone`. encode_text: encodes the video's prompts."""

    encode_text: Callable[[], TextCond]

    def condition(self, text: TextCond, anchor_CHW: torch.Tensor | None, seed: int = 0) -> Unprepared:  # type: ignore[override]
        """Prepare nothing."""
        return Unprepared(text, anchor_CHW)

    @torch.no_grad()
    def predictor(  # type: ignore[override]
        self, condition: Unprepared, window_TCHW: torch.Tensor | None, guidance: Guidance
    ) -> Predict:
        """Recompute text and anchor, and encode the window twice without use."""
        text, dtype = self.encode_text(), self.unet.dtype
        text_BLD, image_BLD = torch.cat([text.negative_BLD, text.positive_BLD]).to(self.device, dtype), None
        if condition.anchor_CHW is not None:
            anchor_BCHW = condition.anchor_CHW[None].to(self.device, dtype)
            image_BLD = torch.cat(anchor_tokens(self._embed_image, self.image_tokens, anchor_BCHW))
        frames_BTCHW = None
        if window_TCHW is not None:
            for _ in range(2):
                encode_frames(self.vae, window_TCHW, self.device)
            frames_BTCHW = torch.stack([window_TCHW, window_TCHW]).to(self.device, dtype)

        def predict(latents_BCTHW: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            pair_BCTHW = torch.cat([latents_BCTHW, latents_BCTHW]).to(dtype)
            features = None
            if frames_BTCHW is not None:
                features = self.cam(pair_BCTHW, timestep, text_BLD, self.cam.encode_frames(frames_BTCHW))
            prediction = self.unet(pair_BCTHW, timestep, text_BLD, image_BLD, features).float()
            guided = guide_pair(prediction, guidance.scale, guidance.rescale)
            if not guidance.time:
                return guided
            # not part of the procedure, but a model may require it; recomputed like the rest
            shared = features and features.of_the_last(len(features.mid) // 2, pair_BCTHW.shape[2])
            positive = self.unet.contexts(text_BLD[1:], image_BLD[1:] if image_BLD is not None else None)
            alone = frames_alone(
                lambda frames: self.unet(frames, timestep, positive, cam_features=shared), pair_BCTHW[:1]
            )
            return steadied(guided, alone, guidance.time)

        return predict

    def decode(self, latents_BCTHW: torch.Tensor, skip: int = 0) -> torch.Tensor:
        """Decode all frames, including discarded ones."""
        return super().decode(latents_BCTHW)[skip:]


def as_published(components: Components, prompt: str, ddim: bool = False) -> Components:
    """Return the model with the published procedure, for a video of that prompt. ddim: 50 steps of DDIM.

    RequestError for another backbone.
    """
    own = components.backbone
    if not isinstance(own, ModelScopeBackbone):
        raise RequestError(
            "model",
            components.config.name,
            f"the procedure is that of modelscope's backbone, not of {type(own).__name__}",
        )
    backbone = PublishedProcedure(own.vae, own.unet, own.cam, own.image_encoder, own.image_tokens)
    backbone.encode_text = lambda: components.text(prompt)
    found = replace(components, backbone=backbone)
    if not ddim:
        return found
    scheduler = DDIMScheduler.from_config(
        components.scheduler.config, clip_sample=False, set_alpha_to_one=True
    )
    extend = replace(components.config.extend, steps=50, eta=0.0, sigmas=(), time_guidance=0.0)
    return replace(found, scheduler=scheduler, config=replace(found.config, extend=extend))
