"""Toy checkpoints in the published layouts: real classes, renamed by rules of the tests' own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from lab.tiny import text
from streamingt2v.models.apm import ImageTokens
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.svd_cam import SpatioTemporalCam
from streamingt2v.models.svd_unet import StreamingUNetSpatioTemporal
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.models.vid2vid_unet import Vid2VidUNet
from toy_networks import stir

Tensors = dict[str, torch.Tensor]

ENCODER: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "attention_head_dim": 16,
}
UNET: dict[str, Any] = {**ENCODER, "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D")}
SVD: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (32, 64),
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "num_attention_heads": (1, 1),
}
LEVELS = 4
"""Of the published autoencoders. More make latents smaller and the networks quicker, in the same layout."""


def channels(levels: int) -> tuple[int, ...]:
    """Return the widths of an autoencoder's levels."""
    return (32, 32) + (64,) * (levels - 2)


def conditioning(levels: int) -> tuple[int, ...]:
    """Return the widths of CAM's frame encoder, which halves frames as often as the autoencoder."""
    return (4,) + (8,) * (levels - 1)


def vision(projection: int = 64) -> CLIPVisionModelWithProjection:
    sizes_ = {
        "hidden_size": 80,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "patch_size": 4,
        "image_size": 8,
    }
    return stir(
        CLIPVisionModelWithProjection(
            CLIPVisionConfig(**sizes_, projection_dim=projection, hidden_act="gelu")
        )
    )


def streaming_t2v(depth: int = LEVELS) -> dict[str, torch.nn.Module]:
    """Build the networks; every part has an effect."""
    vocabulary = len(text.build_tokenizer())
    clip = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=1, projection_dim=64,
        max_position_embeddings=text.TEXT_LENGTH, hidden_act="gelu", bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )  # fmt: skip
    levels = {
        "down_block_types": ("DownEncoderBlock2D",) * depth, "up_block_types": ("UpDecoderBlock2D",) * depth
    }  # fmt: skip
    return {
        "unet": stir(
            StreamingUNet3D(**UNET, merger_head_dim=16, num_text_tokens=text.TEXT_LENGTH, num_image_tokens=4)
        ),
        "cam": stir(ConditionalAttentionModule(**ENCODER, conditioning_channels=conditioning(depth)), seed=1),
        "image_tokens": stir(ImageTokens(64, 16, 4, 64)),
        "image_encoder": vision(),
        "text_encoder": stir(CLIPTextModel(clip)),
        "vae": stir(
            AutoencoderKL(**levels, block_out_channels=channels(depth), layers_per_block=1, latent_channels=4)
        ),
    }


def streaming_t2v_names(networks: dict[str, torch.nn.Module]) -> Tensors:
    """Return all parts as one state dict with the published names."""
    parts = {part: network.state_dict() for part, network in networks.items()}
    text_level = "" if next(iter(parts["text_encoder"])).startswith("text_model.") else "text_model."
    return {
        **prefixed("base_model.", parts["unet"]),
        **prefixed("unet.", parts["cam"]),
        **prefixed("resampler.", parts["image_tokens"]),
        **prefixed("image_encoder.model.", openclip_names(parts["image_encoder"])),
        **prefixed(f"text_encoder.{text_level}", parts["text_encoder"]),
        **prefixed("vae.", parts["vae"]),
    }


def vid2vid(**changes: Any) -> Vid2VidUNet:
    return stir(Vid2VidUNet(**{**UNET, **changes}))  # type: ignore[return-value]


def vid2vid_names(network: Vid2VidUNet) -> Tensors:
    """Return its weights under the published names; temporal projections are convolutions of length 1."""
    layers = network.config["layers_per_block"]
    return {
        vid2vid_name(name, layers): x[..., None] if _is_temporal(name) and x.ndim == 2 else x
        for name, x in network.state_dict().items()
    }


def _is_temporal(name: str) -> bool:
    return ("temp_attentions" in name or "transformer_in" in name) and name.endswith(
        ("proj_in.weight", "proj_out.weight")
    )


def vid2vid_name(name: str, layers: int) -> str:
    words = name.split(".")
    if words[0] == "transformer_in":
        return name.replace("transformer_in", "input_blocks.0.1")
    if words[0] == "mid_block":
        kind, index = words[1], int(words[2])
        place = {"resnets": 3 * index, "temp_convs": 3 * index, "attentions": 1, "temp_attentions": 2}[kind]
        return f"middle_block.{place}.{vid2vid_inner(kind, words[3:])}"
    if words[0] in ("down_blocks", "up_blocks") and words[2] in (
        "resnets",
        "temp_convs",
        "attentions",
        "temp_attentions",
    ):
        down = words[0] == "down_blocks"
        block = int(down) + int(words[1]) * (layers + 1) + int(words[3])
        column = {"resnets": 0, "temp_convs": 0, "attentions": 1, "temp_attentions": 2}[words[2]]
        return f"{'input' if down else 'output'}_blocks.{block}.{column}.{vid2vid_inner(words[2], words[4:])}"
    return sgm_name(name, layers).replace(".0.op.", ".op.")


def vid2vid_inner(kind: str, words: list[str]) -> str:
    if kind == "temp_convs":
        return ".".join(["temopral_conv", *words])
    return ".".join([dict(_RESNET).get(words[0], words[0]) if kind == "resnets" else words[0], *words[1:]])


def streaming_svd(depth: int = LEVELS) -> dict[str, torch.nn.Module]:
    """Build the networks; every part has an effect."""
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * depth, block_out_channels=channels(depth),
        layers_per_block=1,
    )  # fmt: skip
    encoder = {name: value for name, value in SVD.items() if name != "up_block_types"}
    return {
        "unet": stir(StreamingUNetSpatioTemporal(**SVD, merger_head_dim=32)),
        "cam": stir(SpatioTemporalCam(**encoder, conditioning_channels=conditioning(depth)), seed=1),
        "image_encoder": vision(16),
        "vae": stir(vae),
    }


def streaming_svd_names(parts: dict[str, Tensors]) -> Tensors:
    """Return all parts as one state dict with the published names."""
    vae = {ldm_vae_name(name, len_ups(parts["vae"])): unsquared(name, x) for name, x in parts["vae"].items()}
    quant = {name: vae.pop(name) for name in list(vae) if name.startswith("quant_conv.")}
    picture = {name: x for name, x in vae.items() if name.startswith("encoder.")}
    return {
        **prefixed("model.diffusion_model.", sgm_names(parts["unet"])),
        **prefixed("controlnet.", sgm_names(parts["cam"])),
        **prefixed("conditioner.embedders.0.open_clip.model.", openclip_names(parts["image_encoder"])),
        **prefixed("conditioner.embedders.3.encoder.", {**picture, **quant}),
        **prefixed("first_stage_model.", vae),
    }


def write(path: Path, tensors: Tensors) -> Path:
    """Write a checkpoint as a trainer does, with its bookkeeping around the weights."""
    torch.save(
        {"epoch": 3, "global_step": 7, "state_dict": tensors, "callbacks": {"x": [1, 2.0, None]}}, path
    )
    return path


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: x for name, x in tensors.items()}


# ---------------------------------------------------------------- names turned back

_RESNET = [
    ("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"), ("conv_shortcut", "skip_connection"),
]  # fmt: skip


def sgm_names(tensors: Tensors) -> Tensors:
    """Rename a spatio-temporal U-Net of diffusers, or its encoder half, to Stability's names."""
    layers = len({name.split(".")[3] for name in tensors if name.startswith("down_blocks.0.resnets.")})
    return {sgm_name(name, layers): x for name, x in tensors.items()}


def sgm_name(name: str, layers: int) -> str:
    for theirs, ours in {
        "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2", "cross_attention_merger_down_blocks": "cross_attention_merger_input_blocks",
    }.items():  # fmt: skip
        if name.startswith(theirs + "."):
            return ours + name.removeprefix(theirs)
    words = name.split(".")
    if words[0] == "mid_block" and words[1] in ("resnets", "attentions"):
        place = "middle_block.1" if words[1] == "attentions" else f"middle_block.{2 * int(words[2])}"
        return f"{place}.{inner(words[3:])}"
    if words[0] == "down_blocks":
        first = 1 + int(words[1]) * (layers + 1)
        if words[2] == "downsamplers":
            return f"input_blocks.{first + layers}.0.op.{words[-1]}"
        return f"input_blocks.{first + int(words[3])}.{int(words[2] == 'attentions')}.{inner(words[4:])}"
    if words[0] == "up_blocks":
        first = int(words[1]) * (layers + 1)
        if words[2] == "upsamplers":
            return f"output_blocks.{first + layers}.{1 if words[1] == '0' else 2}.conv.{words[-1]}"
        return f"output_blocks.{first + int(words[3])}.{int(words[2] == 'attentions')}.{inner(words[4:])}"
    return name


def inner(words: list[str]) -> str:
    text_ = (
        ".".join(words)
        .replace("temporal_transformer_blocks", "time_stack")
        .replace("time_pos_embed.linear_1", "time_pos_embed.0")
    )
    text_ = text_.replace("time_pos_embed.linear_2", "time_pos_embed.2")
    for kind, level in (("spatial_res_block.", ""), ("temporal_res_block.", "time_stack.")):
        for theirs, ours in _RESNET:
            text_ = text_.replace(f"{kind}{theirs}.", f"{level}{ours}.")
    return text_


def len_ups(vae: Tensors) -> int:
    return len({name.split(".")[2] for name in vae if name.startswith("decoder.up_blocks.")})


def ldm_vae_name(name: str, levels: int) -> str:
    name = name.replace("decoder.time_conv_out", "decoder.conv_out.time_mix_conv").replace(
        "conv_norm_out", "norm_out"
    )
    name = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{levels - 1 - int(match[1])}", name)
    name = re.sub(r"down_blocks\.(\d+)", r"down.\1", name)
    for theirs, ours in {
        "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2",
        "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
        "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out", "mid_block.attentions.0.to_": "mid.attn_1.",
        ".resnets.": ".block.",
        "downsamplers.0.": "downsample.", "upsamplers.0.": "upsample.", "spatial_res_block.": "",
        "time_mixer.": "",
        "conv_shortcut": "nin_shortcut",
    }.items():  # fmt: skip
        name = name.replace(theirs, ours)
    for theirs, ours in _RESNET:
        name = name.replace(f"temporal_res_block.{theirs}.", f"time_stack.{ours}.")
    return name


def unsquared(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return matrices of attention as convolutions of size 1."""
    return tensor[..., None, None] if ".attentions." in name and tensor.ndim == 2 else tensor


def openclip_names(tensors: Tensors) -> Tensors:
    """Rename the image tower of transformers to OpenCLIP's names; add remains of a text tower."""
    stem = {
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    }
    named: Tensors = {"logit_scale": torch.zeros(()), "ln_final.weight": torch.ones(2)}
    joined: dict[str, dict[str, torch.Tensor]] = {}
    for name, x in tensors.items():
        if name == "visual_projection.weight":
            named["visual.proj"] = x.T.contiguous()
        elif name in stem:
            named[stem[name]] = x
        elif match := re.fullmatch(r"vision_model\.(pre_layrnorm|post_layernorm)\.(\w+)", name):
            named[f"visual.ln_{match[1].split('_')[0]}.{match[2]}"] = x
        elif match := re.fullmatch(
            r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)", name
        ):
            joined.setdefault(f"visual.transformer.resblocks.{match[1]}.attn.in_proj_{match[3]}", {})[
                match[2]
            ] = x
        else:
            name = name.replace("vision_model.encoder.layers", "visual.transformer.resblocks").replace(
                "self_attn.", "attn."
            )
            name = (
                name.replace("layer_norm", "ln_")
                .replace("mlp.fc1", "mlp.c_fc")
                .replace("mlp.fc2", "mlp.c_proj")
            )
            named[name] = x
    return named | {name: torch.cat([parts[key] for key in "qkv"]) for name, parts in joined.items()}
