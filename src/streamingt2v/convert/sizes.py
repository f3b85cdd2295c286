"""Build networks on the meta device with the sizes of a checkpoint's tensors.

Values that shapes do not show are the published ones: 32 groups per norm, heads of 64 (80 in the image
encoder), activations. Small test checkpoints therefore convert like the published ones.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from ..errors import ModelError
from ..models.apm import ImageTokens
from ..models.cam import ConditionalAttentionModule
from ..models.svd_cam import SpatioTemporalCam
from ..models.svd_unet import StreamingUNetSpatioTemporal
from ..models.unet3d import StreamingUNet3D
from ..models.vid2vid_unet import Vid2VidUNet

Tensors = Mapping[str, torch.Tensor]


class Shapes:
    """Tensor shapes by name; a missing name raises ModelError."""

    def __init__(self, tensors: Tensors, part: str):
        self.tensors, self.part = tensors, part

    def __call__(self, name: str) -> tuple[int, ...]:
        if name not in self.tensors:
            raise ModelError(f"{self.part} does not fit: missing: {name}")
        return tuple(self.tensors[name].shape)

    def count(self, pattern: str) -> int:
        """Count the distinct values of the pattern's group."""
        found = {match[1] for name in self.tensors if (match := re.match(pattern, name))}
        if not found:
            raise ModelError(f"{self.part} does not fit: no name like {pattern}")
        return len(found)

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.tensors)


def streaming_unet(tensors: Tensors) -> StreamingUNet3D:
    """Build the base network with mergers and APM."""
    shape = Shapes(tensors, "unet")
    sizes = _unet3d_encoder(shape) | _unet3d_decoder(shape)
    site = next(
        (name for name in tensors if name.endswith(".attn2.conv.weight")), "down_blocks.0...attn2.conv.weight"
    )
    text, both, _ = shape(site)
    with torch.device("meta"):
        return StreamingUNet3D(
            **sizes,
            merger_head_dim=sizes["attention_head_dim"],
            num_text_tokens=text,
            num_image_tokens=both - text,
        )


def cam(tensors: Tensors) -> ConditionalAttentionModule:
    """Build the conditional attention module."""
    shape = Shapes(tensors, "cam")
    with torch.device("meta"):
        return ConditionalAttentionModule(
            **_unet3d_encoder(shape), conditioning_channels=conditioning_channels(shape)
        )


def conditioning_channels(shape: Shapes) -> tuple[int, ...]:
    """Return the widths of CAM's frame encoder."""
    blocks = shape.count(r"controlnet_cond_embedding\.blocks\.(\d+)\.weight")
    widths = (shape(f"controlnet_cond_embedding.blocks.{block}.weight")[0] for block in range(1, blocks, 2))
    return (shape("controlnet_cond_embedding.conv_in.weight")[0], *widths)


def image_tokens(tensors: Tensors, count: int) -> ImageTokens:
    """Build APM's token network for `count` tokens."""
    shape = Shapes(tensors, "image_tokens")
    hidden, embed = shape("context_embedding.0.weight")
    with torch.device("meta"):
        return ImageTokens(embed, hidden, count, shape("context_embedding.2.weight")[0] // count)


def vid2vid(tensors: Tensors) -> Vid2VidUNet:
    """Build MS-Vid2Vid-XL's network."""
    shape = Shapes(tensors, "refiner")
    with torch.device("meta"):
        return Vid2VidUNet(**_unet3d_encoder(shape), **_unet3d_decoder(shape))


def svd_unet(tensors: Tensors) -> StreamingUNetSpatioTemporal:
    """Build StreamingSVD's network with mergers."""
    shape = Shapes(tensors, "unet")
    sizes = _svd_encoder(shape)
    with torch.device("meta"):
        return StreamingUNetSpatioTemporal(
            **sizes,
            out_channels=shape("conv_out.weight")[0],
            up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(sizes["down_block_types"])),
            transformer_layers_per_block=shape.count(rf"{re.escape(_SVD_SITE)}\.(\d+)\."),
            merger_head_dim=min(64, sizes["block_out_channels"][0]),
        )


def svd_cam(tensors: Tensors) -> SpatioTemporalCam:
    """Build StreamingSVD's conditional attention module."""
    shape = Shapes(tensors, "cam")
    with torch.device("meta"):
        return SpatioTemporalCam(**_svd_encoder(shape), conditioning_channels=conditioning_channels(shape))


_SVD_SITE = "down_blocks.0.attentions.0.transformer_blocks"


def _svd_encoder(shape: Shapes) -> dict[str, Any]:
    """Return the arguments that the network and the copy of its encoder share."""
    channels = _channels(shape, "down_blocks", "spatial_res_block.conv1.weight")
    attends = _attention_levels(shape, "down_blocks", len(channels))
    return {
        "in_channels": shape("conv_in.weight")[1],
        "down_block_types": tuple(
            f"{'CrossAttn' if level else ''}DownBlockSpatioTemporal" for level in attends
        ),
        "block_out_channels": channels,
        "addition_time_embed_dim": shape("add_embedding.linear_1.weight")[1]
        // 3,  # frame rate, motion, noise
        "projection_class_embeddings_input_dim": shape("add_embedding.linear_1.weight")[1],
        "layers_per_block": shape.count(r"down_blocks\.0\.resnets\.(\d+)\."),
        "cross_attention_dim": shape(f"{_SVD_SITE}.0.attn2.to_k.weight")[1],
        "num_attention_heads": tuple(max(1, width // 64) for width in channels),
    }


def vae(tensors: Tensors) -> AutoencoderKL:
    """Build ModelScope's image autoencoder."""
    sizes = _autoencoder(Shapes(tensors, "vae"))
    up = ("UpDecoderBlock2D",) * len(sizes["block_out_channels"])
    with torch.device("meta"):
        return AutoencoderKL(**sizes, up_block_types=up)


def temporal_vae(tensors: Tensors) -> AutoencoderKLTemporalDecoder:
    """Build Stable Video Diffusion's autoencoder."""
    with torch.device("meta"):
        return AutoencoderKLTemporalDecoder(**_autoencoder(Shapes(tensors, "vae")), sample_size=768)


def _autoencoder(shape: Shapes) -> dict[str, Any]:
    channels = _channels(shape, "encoder.down_blocks", "conv1.weight")
    return {
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "block_out_channels": channels,
        "layers_per_block": shape.count(r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "latent_channels": shape("decoder.conv_in.weight")[1],
    }


def image_encoder(tensors: Tensors) -> CLIPVisionModelWithProjection:
    """Build OpenCLIP's image tower."""
    shape = Shapes(tensors, "image_encoder")
    width, _, patch, _ = shape("vision_model.embeddings.patch_embedding.weight")
    places = shape("vision_model.embeddings.position_embedding.weight")[0] - 1  # one is the class token's
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=shape("vision_model.encoder.layers.0.mlp.fc1.weight")[0],
        num_hidden_layers=shape.count(r"vision_model\.encoder\.layers\.(\d+)\."),
        num_attention_heads=max(1, width // 80),
        patch_size=patch,
        image_size=math.isqrt(places) * patch,
        projection_dim=shape("visual_projection.weight")[0],
        hidden_act="gelu",
    )
    with torch.device("meta"):
        return CLIPVisionModelWithProjection(config)


def text_encoder(tensors: Tensors) -> CLIPTextModel:
    """Build OpenCLIP's text tower without its last layer; the prefix `text_model.` is optional."""
    shape = Shapes({name.removeprefix("text_model."): x for name, x in tensors.items()}, "text_encoder")
    words, width = shape("embeddings.token_embedding.weight")
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=shape("encoder.layers.0.mlp.fc1.weight")[0],
        num_hidden_layers=shape.count(r"encoder\.layers\.(\d+)\."),
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=shape("embeddings.position_embedding.weight")[0],
        projection_dim=width,
        hidden_act="gelu",
        bos_token_id=words - 2,  # CLIP's vocabulary ends with these two
        eos_token_id=words - 1,
    )
    with torch.device("meta"):
        return CLIPTextModel(config)


def _unet3d_encoder(shape: Shapes) -> dict[str, Any]:
    """Return the arguments that a 3D U-Net and the copy of its encoder share."""
    channels = _channels(shape, "down_blocks", "conv1.weight")
    kinds = _attention_levels(shape, "down_blocks", len(channels))
    return {
        "in_channels": shape("conv_in.weight")[1],
        "down_block_types": tuple("CrossAttnDownBlock3D" if attends else "DownBlock3D" for attends in kinds),
        "block_out_channels": channels,
        "layers_per_block": shape.count(r"down_blocks\.0\.resnets\.(\d+)\."),
        "cross_attention_dim": shape("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight")[1],
        "attention_head_dim": shape("transformer_in.proj_in.weight")[0] // 8,  # it always has eight heads
    }


def _unet3d_decoder(shape: Shapes) -> dict[str, Any]:
    levels = shape.count(r"up_blocks\.(\d+)\.")
    kinds = _attention_levels(shape, "up_blocks", levels)
    return {
        "out_channels": shape("conv_out.weight")[0],
        "up_block_types": tuple("CrossAttnUpBlock3D" if attends else "UpBlock3D" for attends in kinds),
    }


def _channels(shape: Shapes, blocks: str, layer: str) -> tuple[int, ...]:
    levels = shape.count(rf"{re.escape(blocks)}\.(\d+)\.")
    return tuple(shape(f"{blocks}.{level}.resnets.0.{layer}")[0] for level in range(levels))


def _attention_levels(shape: Shapes, blocks: str, levels: int) -> tuple[bool, ...]:
    return tuple(shape.has(f"{blocks}.{level}.attentions.") for level in range(levels))
