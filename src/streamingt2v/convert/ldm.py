"""Rename latent-diffusion keys (`input_blocks`, `middle_block`, `encoder.down`, ...) to diffusers' names.

Two U-Net families use them: MS-Vid2Vid-XL (`UNet3DConditionModel`) and Stable Video Diffusion
(`UNetSpatioTemporalConditionModel`). Rules are regular expressions, applied in order.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch

Tensors = dict[str, torch.Tensor]
Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Family:
    """One kind of U-Net. columns: the list that each submodule of a block belongs to, in published order.

    inside: renaming rules within those.
    """

    columns: tuple[str, ...]
    inside: Rules


_RESNET: Rules = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)

VID2VID = Family(
    ("resnets", "attentions", "temp_attentions"),
    (
        (r"resnets\.(\d+)\.temopral_conv\.", r"temp_convs.\1."),  # spelt so upstream
        *((rf"(resnets\.\d+)\.{re.escape(old)}\.", rf"\1.{new}.") for old, new in _RESNET),
    ),
)

SVD = Family(
    ("resnets", "attentions"),
    (
        *(
            (rf"(resnets\.\d+)\.time_stack\.{re.escape(old)}\.", rf"\1.temporal_res_block.{new}.")
            for old, new in _RESNET
        ),
        *((rf"(resnets\.\d+)\.{re.escape(old)}\.", rf"\1.spatial_res_block.{new}.") for old, new in _RESNET),
        (r"(attentions\.\d+)\.time_stack\.", r"\1.temporal_transformer_blocks."),
        (r"time_pos_embed\.0\.", "time_pos_embed.linear_1."),
        (r"time_pos_embed\.2\.", "time_pos_embed.linear_2."),
        (r"cross_attention_merger_input_blocks\.", "cross_attention_merger_down_blocks."),
    ),
)

_STEM = {
    "time_embed.0.": "time_embedding.linear_1.",
    "time_embed.2.": "time_embedding.linear_2.",
    "label_emb.0.0.": "add_embedding.linear_1.",
    "label_emb.0.2.": "add_embedding.linear_2.",
    "input_blocks.0.0.": "conv_in.",
    "input_blocks.0.1.": "transformer_in.",
    "out.0.": "conv_norm_out.",
    "out.2.": "conv_out.",
}
_KEPT = ("controlnet_cond_embedding.", "cross_attention_merger_")
_DOWNSAMPLER = re.compile(r"input_blocks\.(\d+)\.(?:0\.)?op\.(weight|bias)")
_UPSAMPLER = re.compile(r"output_blocks\.(\d+)\.\d+\.conv\.(weight|bias)")
_BLOCK = re.compile(r"(input|output)_blocks\.(\d+)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"middle_block\.(\d+)\.(.+)")


def rename_unet(tensors: Tensors, family: Family) -> tuple[Tensors, list[str]]:
    """Return the tensors under diffusers' names, and the names that no rule matches.

    Temporal attention's projections that are length-1 convolutions become matrices.
    """
    layers = _layers_per_block(tensors)
    renamed, unknown = {}, []
    for name, tensor in tensors.items():
        new = _unet_name(name, layers, family)
        if new is None:
            unknown.append(name)
        else:
            one_by_one = tensor.ndim == 3 and new.endswith(("proj_in.weight", "proj_out.weight"))
            renamed[new] = tensor.squeeze(-1) if one_by_one else tensor
    return renamed, unknown


def _layers_per_block(names: Iterable[str]) -> int:
    """Return the layers per level: a downsampler follows each level; without one there is a single level."""
    names = list(names)
    samplers = [int(match[1]) for name in names if (match := _DOWNSAMPLER.fullmatch(name))]
    blocks = [int(match[2]) for name in names if (match := _BLOCK.fullmatch(name)) and match[1] == "input"]
    return min(samplers) - 1 if samplers else max(blocks, default=1)


def _unet_name(name: str, layers: int, family: Family) -> str | None:
    new = _place(name, layers, family)
    for old, replacement in family.inside if new else ():
        new = re.sub(old, replacement, new or "")
    return new


def _place(name: str, layers: int, family: Family) -> str | None:
    """Return the name with its block renamed and the rest unchanged; None for an unknown name."""
    if stem := next((old for old in _STEM if name.startswith(old)), None):
        return _STEM[stem] + name.removeprefix(stem)
    if name.startswith(_KEPT):
        return name
    if match := _DOWNSAMPLER.fullmatch(name):
        return f"down_blocks.{(int(match[1]) - 1) // (layers + 1)}.downsamplers.0.conv.{match[2]}"
    if match := _UPSAMPLER.fullmatch(name):
        return f"up_blocks.{int(match[1]) // (layers + 1)}.upsamplers.0.conv.{match[2]}"
    if (match := _BLOCK.fullmatch(name)) and int(match[3]) < len(family.columns):
        block, layer = divmod(int(match[2]) - (match[1] == "input"), layers + 1)
        side, column = "down" if match[1] == "input" else "up", family.columns[int(match[3])]
        return f"{side}_blocks.{block}.{column}.{layer}.{match[4]}"
    if (match := _MIDDLE.fullmatch(name)) and int(match[1]) <= len(family.columns):
        last = int(match[1]) == len(family.columns)
        return "mid_block." + ("resnets.1" if last else f"{family.columns[int(match[1])]}.0") + f".{match[2]}"
    return None


_VAE: Rules = (
    (r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets."),
    (r"\.down\.(\d+)\.downsample\.conv\.", r".down_blocks.\1.downsamplers.0.conv."),
    (r"\.up\.(\d+)\.block\.", r".up_blocks.\1.resnets."),
    (r"\.up\.(\d+)\.upsample\.conv\.", r".up_blocks.\1.upsamplers.0.conv."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
    (r"\.conv_out\.time_mix_conv\.", ".time_conv_out."),
)
_TEMPORAL_RESNET: Rules = (
    *(
        (rf"(resnets\.\d+)\.time_stack\.{re.escape(old)}\.", rf"\1.temporal_res_block.{new}.")
        for old, new in _RESNET
    ),
    (r"(resnets\.\d+)\.(norm1|conv1|norm2|conv2|conv_shortcut)\.", r"\1.spatial_res_block.\2."),
    (r"(resnets\.\d+)\.mix_factor", r"\1.time_mixer.mix_factor"),
)
_UP = re.compile(r"decoder\.up_blocks\.(\d+)\.")


def rename_temporal_vae(tensors: Tensors) -> Tensors:
    """Rename an autoencoder to diffusers' `AutoencoderKLTemporalDecoder`.

    Upstream counts decoder levels from the pixels; attention's 1x1 convolutions become matrices.
    """
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in (*_VAE, *(_TEMPORAL_RESNET if name.startswith("decoder.") else ())):
            name = re.sub(old, new, name)
        renamed[name] = tensor[..., 0, 0] if tensor.ndim == 4 and ".attentions." in name else tensor
    levels = max((int(match[1]) for name in renamed if (match := _UP.match(name))), default=0)
    return {
        _UP.sub(lambda match: f"decoder.up_blocks.{levels - int(match[1])}.", name): x
        for name, x in renamed.items()
    }
