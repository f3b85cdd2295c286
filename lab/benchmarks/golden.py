"""Recorded inputs, outputs and random weights of the published code, and our networks with these weights."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from safetensors.torch import load_file

from streamingt2v.backbones.modelscope import ModelScopeBackbone
from streamingt2v.config import ExtendConfig
from streamingt2v.convert.streaming_t2v import load_part, split
from streamingt2v.models.apm import ImageTokens
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.stages.extend import ExtendStage
from streamingt2v.stages.memory import StreamMemory
from streamingt2v.types import TextCond

Tensors = dict[str, torch.Tensor]


class Golden:
    """A folder: `config`, and tensors by name, float16 as float32."""

    def __init__(self, path: Path):
        self.path = path
        self.config: dict[str, Any] = json.loads((path / "config.json").read_text())

    @cached_property
    def inputs(self) -> Tensors:
        return read(self.path / "inputs.safetensors")

    @cached_property
    def outputs(self) -> Tensors:
        return read(self.path / "outputs.safetensors")

    @cached_property
    def traces(self) -> Tensors:
        path = self.path / "traces.safetensors"
        return read(path) if path.is_file() else {}

    @cached_property
    def weights(self) -> Tensors:
        return read(self.path / "weights.safetensors")


def read(path: Path) -> Tensors:
    """Read a safetensors file; half precision becomes single."""
    return {name: x.float() if x.dtype == torch.float16 else x for name, x in load_file(path).items()}


def known(config: dict[str, Any], cls: type) -> dict[str, Any]:
    """Return the entries of a recorded configuration that a class accepts."""
    names = set(inspect.signature(cls).parameters)
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.items()
        if name in names
    }


def build_unet(arch: dict[str, Any], parts: dict[str, Tensors]) -> StreamingUNet3D:
    """Build the recorded base network with its weights."""
    net = StreamingUNet3D(
        **known(arch["unet"], StreamingUNet3D),
        merger_head_dim=arch["cam_merger_head_dim"],
        num_text_tokens=arch["num_text_tokens"],
        num_image_tokens=arch["num_image_tokens"],
    )
    load_part(net, parts["unet"], "unet")
    return net.eval()


def build_cam(arch: dict[str, Any], parts: dict[str, Tensors]) -> ConditionalAttentionModule:
    """Build the recorded CAM with its weights."""
    channels = tuple(arch["cam"]["conditioning_embedding_out_channels"])
    cam = ConditionalAttentionModule(
        **known(arch["unet"], ConditionalAttentionModule), conditioning_channels=channels
    )
    load_part(cam, parts["cam"], "cam")
    return cam.eval()


def build_tokens(parts: dict[str, Tensors], num_tokens: int) -> ImageTokens:
    """Build APM's token network; its sizes follow from its weights."""
    hidden, embed = parts["image_tokens"]["context_embedding.0.weight"].shape
    out = parts["image_tokens"]["context_embedding.2.weight"].shape[0]
    tokens = ImageTokens(embed, hidden, num_tokens, out // num_tokens)
    load_part(tokens, parts["image_tokens"], "image_tokens")
    return tokens.eval()


def build_vae(config: dict[str, Any], parts: dict[str, Tensors]) -> AutoencoderKL:
    """Build the autoencoder with its weights."""
    vae = AutoencoderKL(**known(config, AutoencoderKL))
    load_part(vae, parts["vae"], "vae")
    return vae.eval()


def group(tensors: Tensors, prefix: str, keep: bool = False) -> Tensors:
    """Return the tensors whose names start with a prefix, which is removed unless `keep`."""
    return {
        name if keep else name.removeprefix(prefix): x
        for name, x in tensors.items()
        if name.startswith(prefix)
    }


class RecordedEncoder:
    """Stand in for the image encoder, which is not recorded: return its outputs for a grey frame and the
    anchor.
    """

    def __init__(self, golden: Golden):
        self.config = SimpleNamespace(image_size=8)
        self.embeds = torch.cat([golden.inputs["clip_embed_zero_image"], golden.inputs["clip_embed_anchor"]])

    def __call__(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(image_embeds=self.embeds)


class ChunkMaker:
    """The package's own backbone with recorded weights, scheduler, prompts and guidance."""

    def __init__(self, golden: Golden, home: Golden, weights: Iterable[Path]):
        parts = split({name: x for path in weights for name, x in read(path).items()})
        arch, self.settings = home.config["arch"], golden.config
        self.overlap = int(arch["num_control_input_frames"])
        self.backbone = ModelScopeBackbone(
            build_vae(home.config["vae"], parts),
            build_unet(arch, parts),
            build_cam(arch, parts),
            RecordedEncoder(golden),  # type: ignore[arg-type]
            build_tokens(parts, arch["num_image_tokens"]),
        )
        self.text = TextCond(golden.inputs["prompt_embeds"], golden.inputs["negative_prompt_embeds"])
        self.scheduler = DDIMScheduler(**self.settings["scheduler"])

    def latents(
        self, memory: StreamMemory, start: torch.Tensor, eta: float = 0.0, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return latents after each step, (steps, B, C, T, H, W), of the chunk after `memory`.

        noise: the same shape, for eta above 0.
        """
        condition = self.backbone.condition(self.text, memory.anchor_CHW)
        steps, scale = self.settings["num_inference_steps"], self.settings["guidance_scale"]
        config = ExtendConfig(start.shape[2], self.overlap, steps, scale, eta=eta)
        draws = {-1: start} | dict(enumerate(noise if noise is not None else ()))
        stage = ExtendStage(self.backbone, self.scheduler, config, 0, tuple(memory.anchor_CHW.shape[-2:]))
        trajectory = stage.denoise(condition, memory.window_TCHW, draws.__getitem__)
        return torch.stack([step.latents_BCTHW for step in trajectory])
