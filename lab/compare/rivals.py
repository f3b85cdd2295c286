"""Trained rivals of CAM: other ways to tell a network the previous frames, on the same frozen base.

Each is a copy of the base's encoder half, like CAM, with about as many trained weights. They start without
effect.

  - last-frame: latents of the window's last frame beside every frame's, as in Stable Video Diffusion;
  - concatenate: the window's latents beside the noisy ones, zeros and a mask (the paper's "Conc");
  - additive: the window's pixels through a copy without noisy latents; zero-initialised convolutions add its
    features to the skips, as in SparseCtrl (Guo et al., ECCV 2024) and ControlNet.

`seen`: a rival's encoding of the window, (B, channels, T, h, w) for all T frames of a chunk, computed once
per chunk.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from streamingt2v.backbones.modelscope import Condition, ModelScopeBackbone, encode_frames
from streamingt2v.config.values import read_json
from streamingt2v.errors import ModelError
from streamingt2v.models import encoder
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.context import Contexts
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.samplers.denoise import Predict
from streamingt2v.samplers.guidance import Guidance, frames_alone, guide_pair, steadied

Sizes = dict[str, Any]
"""Arguments of `ConditionalAttentionModule` for the copied half; `in_channels` is the base's."""


class ConcatenatedRival(ModelMixin, ConfigMixin):  # mixins disagree on the type of `config_name`
    """Replace the base's encoder half by a copy that sees the window beside the noisy latents.

    whole_window: all frames in place with a mask; else the last one everywhere. base: fingerprint of the
    base's weights.
    """

    _skip_layerwise_casting_patterns = ("norm", "time_embedding")  # diffusers declares it as None

    @register_to_config
    def __init__(self, sizes: Sizes, whole_window: bool, base: str):
        super().__init__()
        channels = sizes["in_channels"]
        self.copied = ConditionalAttentionModule(**{**sizes, "in_channels": 2 * channels + whole_window})
        del self.copied.controlnet_cond_embedding  # the window comes as latents

    def see(self, window_BTCHW: torch.Tensor, vae: AutoencoderKL, frames: int) -> torch.Tensor:
        """Encode a window's frames in [-1, 1] for a chunk of `frames`."""
        batch, known = window_BTCHW.shape[:2]
        latents_BCTHW = (
            encode_frames(vae, window_BTCHW.flatten(0, 1), window_BTCHW.device)[0]
            .unflatten(1, (batch, known))
            .transpose(0, 1)
        )
        if not self.config["whole_window"]:
            return latents_BCTHW[:, :, -1:].expand(-1, -1, frames, -1, -1)
        return with_mask(latents_BCTHW, frames)

    def forward(
        self,
        unet: StreamingUNet3D,
        sample_BCTHW: torch.Tensor,
        timestep: torch.Tensor | float,
        contexts: Contexts,
        own: Contexts,
        seen_BCTHW: torch.Tensor,
    ) -> torch.Tensor:
        """Predict (B, C, T, H, W). contexts: the base's; own: the copied half's; seen: of B videos or one."""
        beside_BCTHW = seen_BCTHW.to(sample_BCTHW.dtype).expand(len(sample_BCTHW), -1, -1, -1, -1)
        joined_BCTHW = torch.cat([sample_BCTHW, beside_BCTHW], dim=1)
        conditions, hidden = encoder.begin(self.copied, joined_BCTHW, timestep, own)
        hidden, skips = encoder.descend(self.copied, hidden, conditions)
        hidden = encoder.bottom(self.copied, hidden, conditions)
        emb = encoder.embed_timestep(unet, timestep, sample_BCTHW)
        return unet.decode(hidden, skips, conditions._replace(emb=emb, context=contexts))


class AdditiveRival(ModelMixin, ConfigMixin):  # mixins disagree on the type of `config_name`
    """Add features of a copy that sees the known frames' pixels and a mask, but no latents (zeros)."""

    _skip_layerwise_casting_patterns = ("norm", "time_embedding")  # diffusers declares it as None

    @register_to_config
    def __init__(self, sizes: Sizes, base: str):
        super().__init__()
        self.copied = ConditionalAttentionModule(**{**sizes, "in_channels": 1})
        self.joints = nn.ModuleList(_silent(channels) for channels in encoder.skip_channels(self.copied))
        self.joint_mid = _silent(sizes["block_out_channels"][-1])

    def see(self, window_BTCHW: torch.Tensor, vae: AutoencoderKL, frames: int) -> torch.Tensor:
        """Encode a window's frames in [-1, 1] for a chunk of `frames`."""
        return with_mask(self.copied.encode_frames(window_BTCHW).transpose(1, 2), frames)

    def forward(
        self,
        unet: StreamingUNet3D,
        sample_BCTHW: torch.Tensor,
        timestep: torch.Tensor | float,
        contexts: Contexts,
        own: Contexts,
        seen_BCTHW: torch.Tensor,
    ) -> torch.Tensor:
        """Predict like `ConcatenatedRival.forward`."""
        mask_BCTHW = seen_BCTHW[:, -1:].expand(len(sample_BCTHW), -1, -1, -1, -1)
        features = self.copied(mask_BCTHW, timestep, own, seen_BCTHW[:, :-1].transpose(1, 2))
        conditions, hidden = encoder.begin(unet, sample_BCTHW, timestep, contexts)
        hidden, skips = encoder.descend(unet, hidden, conditions)
        hidden = encoder.bottom(unet, hidden, conditions) + self.joint_mid(features.mid)
        skips = tuple(
            skip + joint(new) for skip, joint, new in zip(skips, self.joints, features.down, strict=True)
        )
        return unet.decode(hidden, skips, conditions)


Rival = ConcatenatedRival | AdditiveRival

NAMES = {"last-frame": "last frame", "concatenate": "concatenated frames", "additive": "added features"}
"""Kinds of rivals and their names in results."""


def from_base(kind: str, unet: UNet3DConditionModel, conditioning_channels: Sequence[int]) -> Rival:
    """Return a rival of that kind with the base's weights in its copied half; new parts have no effect."""
    names = [
        name
        for name in inspect.signature(ConditionalAttentionModule).parameters
        if name != "conditioning_channels"
    ]
    sizes = {name: unet.config[name] for name in names} | {
        "conditioning_channels": list(conditioning_channels)
    }
    mark = mark_of(unet)
    rival = (
        AdditiveRival(sizes, mark)
        if kind == "additive"
        else ConcatenatedRival(sizes, kind == "concatenate", mark)
    )
    own, theirs = rival.copied.state_dict(), unet.state_dict()
    taken = {name: theirs[name] for name in own if name in theirs}
    taken["conv_in.weight"] = torch.zeros_like(own["conv_in.weight"])
    if kind != "additive":
        taken["conv_in.weight"][:, : sizes["in_channels"]] = theirs["conv_in.weight"]
    rival.copied.load_state_dict(taken, strict=False)
    return rival


def kind_of(rival: Rival) -> str:
    """Return the rival's kind, one of `NAMES`."""
    if isinstance(rival, AdditiveRival):
        return "additive"
    return "concatenate" if rival.config["whole_window"] else "last-frame"


def load_rival(folder: Path, unet: StreamingUNet3D) -> Rival:
    """Load a rival from a recipe's output folder for this base, on its device and in its dtype.

    ModelError if there is none, or one trained on another base.
    """
    classes = {kind.__name__: kind for kind in (ConcatenatedRival, AdditiveRival)}
    path = folder / "rival" / "config.json"
    if not path.is_file():
        raise ModelError(
            f"{folder} holds no rival: train one into it with: python -m lab.tiny rival -o {folder}"
        )
    kind = classes.get(str(read_json(path).get("_class_name")))
    if kind is None:
        raise ModelError(f"{path}: is of no rival; there are {', '.join(classes)}")
    rival: Any = kind.from_pretrained(folder / "rival", dtype=torch.float32, local_files_only=True)
    if rival.config["base"] != mark_of(unet):
        raise ModelError(
            f"{folder}: the rival was trained on another base than this model's; train it again on this one"
        )
    # Module.to, since diffusers' version warns about float32 parts that these networks lack
    return nn.Module.to(rival, unet.device, unet.dtype).eval().requires_grad_(False)


def mark_of(unet: UNet3DConditionModel) -> str:
    """Return a fingerprint of the base: equal in any precision from half upwards, different after any
    training.
    """
    first, last = unet.conv_in.weight, unet.conv_out.weight
    return hashlib.sha256(
        b"".join(w.detach().cpu().half().numpy().tobytes() for w in (first, last))
    ).hexdigest()[:16]


def with_mask(known_BCTHW: torch.Tensor, frames: int) -> torch.Tensor:
    """Pad features of the first frames with zeros up to `frames` and append a mask channel: (B, C + 1, T,
    h, w).
    """
    marked_BCTHW = torch.cat([known_BCTHW, torch.ones_like(known_BCTHW[:, :1])], dim=1)
    return nn.functional.pad(marked_BCTHW, (0, 0, 0, 0, 0, frames - known_BCTHW.shape[2]))


def _silent(channels: int) -> nn.Conv2d:
    joint = nn.Conv2d(channels, channels, kernel_size=1)
    nn.init.zeros_(joint.weight)
    nn.init.zeros_(joint.bias)  # type: ignore[arg-type]
    return joint


class RivalBackbone(ModelScopeBackbone):
    """The base with a rival in place of CAM, without anchor; compare it with CAM alone."""

    def __init__(self, own: ModelScopeBackbone, rival: Rival, frames: int):
        super().__init__(own.vae, own.unet, own.cam, own.image_encoder, own.image_tokens)
        self.rival, self.frames = rival, frames

    @torch.no_grad()
    def condition(self, text: Any, anchor_CHW: torch.Tensor | None, seed: int = 0) -> Condition:
        text_BLD = torch.cat([text.negative_BLD, text.positive_BLD]).to(self.device, self.unet.dtype)
        return Condition(self.unet.contexts(text_BLD), self.rival.copied.contexts(text_BLD))

    @torch.no_grad()
    def predictor(
        self, condition: Condition, window_TCHW: torch.Tensor | None, guidance: Guidance
    ) -> Predict:
        if window_TCHW is None:
            return super().predictor(condition, None, guidance)
        seen_BCTHW = self.rival.see(window_TCHW[None].to(self.device, self.unet.dtype), self.vae, self.frames)
        positive, seen_TC1HW = condition.positive(), seen_BCTHW[0].transpose(0, 1)[:, :, None]

        def alone(timestep: torch.Tensor, frames_TC1HW: torch.Tensor) -> torch.Tensor:
            return self.rival(self.unet, frames_TC1HW, timestep, positive.base, positive.cam, seen_TC1HW)

        def predict(latents_BCTHW: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            pair_BCTHW = torch.cat([latents_BCTHW, latents_BCTHW]).to(self.unet.dtype)
            prediction = self.rival(
                self.unet, pair_BCTHW, timestep, condition.base, condition.cam, seen_BCTHW
            )
            guided = guide_pair(prediction.float(), guidance.scale, guidance.rescale)
            if not guidance.time:
                return guided
            return steadied(guided, frames_alone(partial(alone, timestep), pair_BCTHW[:1]), guidance.time)

        return predict
