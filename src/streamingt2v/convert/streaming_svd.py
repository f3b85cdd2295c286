"""Split the checkpoint of PAIR/StreamingSVD into networks (method.md: StreamingSVD).

Names and shapes follow from the published configuration and its classes; the file itself was not available. A
test builds them at full size and checks that every key is used. Unknown names raise an error that lists them.
"""

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
"""A table of noise levels and the bookkeeping of averaged weights; no network uses them."""


def split_svd(tensors: Mapping[str, torch.Tensor]) -> dict[str, Tensors]:
    """Return the parts `unet` (with mergers), `cam`, `image_encoder` and `vae` under their classes' names.

    `cam` has the encoder's names and `controlnet_cond_embedding.*`. Raise ModelError for unknown keys.
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
    """Return the image tower, the autoencoder of the conditioning image, and the unknown names."""
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
    """Combine the conditioning autoencoder's encoder and `quant_conv` with the rest of the first stage.

    This package encodes the conditioning image. Without a `quant_conv` in the file, add an identity one.
    """
    picture = {name: x for name, x in image_vae.items() if name.startswith(("encoder.", "quant_conv."))}
    vae = rename_temporal_vae({**first_stage, **picture})
    if "quant_conv.weight" not in vae and "encoder.conv_out.weight" in vae:
        moments = vae["encoder.conv_out.weight"].shape[0]
        like = vae["encoder.conv_out.bias"]
        vae["quant_conv.weight"] = torch.eye(moments, dtype=like.dtype, device=like.device)[..., None, None]
        vae["quant_conv.bias"] = torch.zeros_like(like)
    return vae
