"""`model.safetensors` of PAIR/StreamingSVD, taken apart into diffusers' and transformers' classes (method.md: StreamingSVD).

The file itself could not be looked at. Its names and shapes follow from the published configuration and the classes that it names; a
test writes them out at full size, and every one is taken. A name that no rule knows
ends the conversion with an error that lists it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from .ldm import SVD, rename_temporal_vae, rename_unet
from .openclip import rename_vision
from .streaming_t2v import refuse_unknown

Tensors = dict[str, torch.Tensor]

PREFIXES = {
    "model.diffusion_model.": "unet",
    "controlnet.": "cam",
    "conditioner.": "conditioner",
    "first_stage_model.": "vae",
}
_IMAGE_TOWER = re.compile(r"embedders\.\d+\.open_clip\.model\.(.+)")
_IMAGE_VAE = re.compile(r"embedders\.\d+\.encoder\.((?:encoder|quant_conv|decoder|post_quant_conv)\..+)")
_UNREAD = re.compile(r"denoiser\.sigmas|model_ema\..*")
"""A table of noise levels, and the bookkeeping of averaged weights: nothing of it is part of a network."""


def split_svd(tensors: Mapping[str, torch.Tensor]) -> dict[str, Tensors]:
    """The parts `unet` (with mergers), `cam`, `image_encoder` and `vae` under their classes' names.

    `unet` has the keys of diffusers' `UNetSpatioTemporalConditionModel` and those of the mergers, `cam` the same names for the encoder half
    and `controlnet_cond_embedding.*`. Raises ModelError with the keys that belong nowhere.
    """
    groups, unknown = _by_prefix(tensors)
    image_encoder, image_vae, strange = _conditioner(groups["conditioner"])
    unknown += [f"conditioner.{name}" for name in strange]
    image_encoder, strange = rename_vision(image_encoder)
    unknown += [f"conditioner: {name}" for name in strange]
    parts = {"image_encoder": image_encoder, "vae": _vae(groups["vae"], image_vae)}
    for prefix, part in (("model.diffusion_model.", "unet"), ("controlnet.", "cam")):
        parts[part], strange = rename_unet(groups[part], SVD)
        unknown += [prefix + name for name in strange]
    refuse_unknown(unknown)
    return parts


def _by_prefix(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, Tensors], list[str]]:
    groups: dict[str, Tensors] = {part: {} for part in PREFIXES.values()}
    unknown = []
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is not None:
            groups[PREFIXES[prefix]][name.removeprefix(prefix)] = tensor
        elif not _UNREAD.fullmatch(name):
            unknown.append(name)
    return groups, unknown


def _conditioner(tensors: Tensors) -> tuple[Tensors, Tensors, list[str]]:
    """The image tower, the autoencoder that the condition's picture goes through, and the names that are neither."""
    tower, autoencoder, unknown = {}, {}, []
    for name, tensor in tensors.items():
        if match := _IMAGE_TOWER.fullmatch(name):
            tower[match[1]] = tensor
        elif match := _IMAGE_VAE.fullmatch(name):
            autoencoder[match[1]] = tensor
        else:
            unknown.append(name)
    return tower, autoencoder, unknown


def _vae(first_stage: Tensors, image_vae: Tensors) -> Tensors:
    """Encoder and `quant_conv` of the condition's autoencoder where the file has one, the rest of the first stage.

    The condition's picture is what this package encodes. A file without `quant_conv` has an encoder that needs none: it gets one
    that changes nothing.
    """
    picture = {name: x for name, x in image_vae.items() if name.startswith(("encoder.", "quant_conv."))}
    vae = rename_temporal_vae({**first_stage, **picture})
    if "quant_conv.weight" not in vae and "encoder.conv_out.weight" in vae:
        moments = vae["encoder.conv_out.weight"].shape[0]
        like = vae["encoder.conv_out.bias"]
        vae["quant_conv.weight"] = torch.eye(moments, dtype=like.dtype, device=like.device)[..., None, None]
        vae["quant_conv.bias"] = torch.zeros_like(like)
    return vae
