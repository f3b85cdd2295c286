"""Chunks: made on the device of the network, whatever that is,
and led away from what each frame would be alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from streamingt2v import LongVideoPipeline
from streamingt2v.backbones.modelscope import ModelScopeBackbone
from streamingt2v.config import ExtendConfig
from streamingt2v.errors import ModelError
from streamingt2v.models.apm import ImageTokens
from streamingt2v.samplers.guidance import Guidance
from streamingt2v.stages.extend import ExtendStage
from streamingt2v.stages.protocols import Words
from streamingt2v.types import TextCond
from toy import write_toy_model
from toy_networks import cam, streaming

META = torch.device("meta")
"""A device that computes nothing, but that refuses tensors of another, as a GPU does."""

TEXT = TextCond(torch.zeros(1, 5, 12), torch.zeros(1, 5, 12))


class Elsewhere(ModelScopeBackbone):
    """A backbone on another device, without autoencoder and image encoder.
    `decoded`: the devices of the latents that came back."""

    def __init__(self) -> None:
        super().__init__(None, streaming().to(META), cam().to(META), None, ImageTokens(6, 8, 3, 12).to(META))  # type: ignore[arg-type]
        self.decoded: list[torch.device] = []

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return 4, height // 2, width // 2

    def decode(self, latents_BCTHW: torch.Tensor, skip: int = 0) -> torch.Tensor:
        self.decoded.append(latents_BCTHW.device)
        return torch.zeros(latents_BCTHW.shape[2] - skip, 3, 16, 16)

    def _embed_image(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        return image_BCHW.new_zeros(len(image_BCHW), 6)


class WithoutPictures(ModelScopeBackbone):
    """A backbone that takes a picture's mean colour for its embedding."""

    def _embed_image(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        return image_BCHW.mean((2, 3)).repeat(1, 2)


class Subtract:
    """A scheduler without tables."""

    config: ClassVar[dict[str, Any]] = {}
    init_noise_sigma = 1.0

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Subtract:
        return cls()

    def set_timesteps(self, steps: int, device: torch.device) -> None:
        self.timesteps = torch.arange(steps, device=device)

    def scale_model_input(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return latents

    def step(
        self, prediction: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor, return_dict: bool
    ) -> tuple[torch.Tensor]:
        return (latents - prediction,)


def test_chunks_are_denoised_on_the_backbones_device():
    backbone = Elsewhere()
    stage = ExtendStage(backbone, Subtract(), ExtendConfig(4, 2, 2, eta=0.0), 0, (16, 16))
    words = Words(lambda *prompts: TEXT, "", lambda frame: "A cat")
    first_TCHW = stage.first(words)
    memory = stage.memory(first_TCHW)
    assert len(stage.next(memory, words, 4)) == 2
    assert backbone.decoded == [META, META]


@pytest.mark.parametrize("later", [False, True])
def test_frames_alone_see_the_window_as_the_chunk_does_but_no_other_frame(later):
    torch.manual_seed(0)
    backbone = ModelScopeBackbone(None, streaming(), cam(), None, ImageTokens(6, 8, 3, 12))  # type: ignore[arg-type]
    condition = backbone.condition(TextCond(torch.randn(1, 5, 12), torch.randn(1, 5, 12)), None)
    latents, t, window = (
        torch.randn(1, 4, 3, 8, 8),
        torch.tensor(500),
        torch.rand(2, 3, 16, 16) if later else None,
    )
    plain, steady = (
        backbone.predictor(condition, window, Guidance(2.0, time=weight))(latents, t) for weight in (0.0, 0.5)
    )
    features = None
    if window is not None:
        whole = backbone.cam(latents, t, condition.positive().cam, backbone.cam.encode_frames(window[None]))
        features = whole.of_the_last(2, 1)
    with torch.no_grad():
        each = [
            backbone.unet(latents[:, :, i : i + 1], t, condition.positive().base, cam_features=features)
            for i in range(3)
        ]
    torch.testing.assert_close(steady, 1.5 * plain - 0.5 * torch.cat(each, 2))
    assert not torch.allclose(steady, plain, atol=1e-3), "or the network would not look along time"


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("later", [False, True])
def test_several_videos_at_once_are_predicted_as_each_alone(later, scale):
    torch.manual_seed(0)
    backbone = WithoutPictures(None, streaming(), cam(), None, ImageTokens(6, 8, 3, 12))  # type: ignore[arg-type]
    texts = [TextCond(torch.randn(1, 5, 12), torch.randn(1, 5, 12)) for _ in range(3)]
    anchors, windows, latents = (
        torch.rand(3, 3, 16, 16),
        torch.rand(3, 2, 3, 16, 16),
        torch.randn(3, 4, 3, 8, 8),
    )

    def predicted(text: TextCond, some: slice | int, video: slice) -> torch.Tensor:
        condition = backbone.condition(text, anchors[some] if later else None)
        predict = backbone.predictor(condition, windows[some] if later else None, Guidance(scale, 0.5, 0.7))
        return predict(latents[video], torch.tensor(500))

    together = TextCond(
        *(torch.cat([getattr(t, name) for t in texts]) for name in ("positive_BLD", "negative_BLD"))
    )
    alone = [predicted(text, i, slice(i, i + 1)) for i, text in enumerate(texts)]
    torch.testing.assert_close(
        predicted(together, slice(None), slice(None)), torch.cat(alone), atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("scale", [-1.0, float("nan")])
def test_time_guidance_must_make_sense(scale):
    with pytest.raises(ModelError, match="time_guidance"):
        ExtendConfig(time_guidance=scale)


def test_time_guidance_changes_the_first_chunk_and_the_later_ones(tmp_path):
    pipe = LongVideoPipeline.from_pretrained(write_toy_model(tmp_path / "toy"))
    plain = pipe("A cat", 24, num_inference_steps=2).frames
    pipe.config = replace(pipe.config, extend=replace(pipe.config.extend, time_guidance=1.0))
    steady = pipe("A cat", 24, num_inference_steps=2).frames
    assert (plain[:16] != steady[:16]).any() and (plain[16:] != steady[16:]).any()
