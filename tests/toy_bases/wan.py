"""Toys with Wan's autoencoder: Wan, AnyFlow, SkyReels, Helios, Sana."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

import toy_pipelines as parts
from toy_pipelines import WIDTH

from .common import flow, taken_by, unipc, vision_config

WAN_VAE = {
    "base_dim": 3,
    "z_dim": 16,
    "dim_mult": [1] * 4,
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}
WAN_NET = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": WIDTH, "freq_dim": 32,
           "ffn_dim": 32, "num_layers": 1, "rope_max_seq_len": 32}  # fmt: skip


def wan_vae() -> Any:
    torch.manual_seed(1)
    return diffusers.AutoencoderKLWan(**WAN_VAE).eval()


def wan_net(**more: Any) -> Any:
    torch.manual_seed(2)
    return diffusers.WanTransformer3DModel(**{**WAN_NET, **more}).eval()


def wan() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    return diffusers.WanPipeline(tokenizer, encoder, wan_vae(), flow(), wan_net())


def wan_unipc() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    return diffusers.WanPipeline(tokenizer, encoder, wan_vae(), unipc(), wan_net())


def wan22() -> Any:
    """Two networks, one for the first half of the schedule."""
    tokenizer, encoder = parts._t5("UMT5")
    return diffusers.WanPipeline(
        tokenizer, encoder, wan_vae(), unipc(), wan_net(), transformer_2=wan_net(), boundary_ratio=0.875
    )


def wan_image() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    vision = transformers.CLIPVisionModel(vision_config()).eval()
    processor = transformers.CLIPImageProcessor(crop_size=32, size=32)
    net = wan_net(in_channels=36, image_dim=16, added_kv_proj_dim=24)
    return diffusers.WanImageToVideoPipeline(tokenizer, encoder, wan_vae(), flow(), processor, vision, net)


def wan22_image() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    nets = wan_net(in_channels=36), wan_net(in_channels=36)
    return diffusers.WanImageToVideoPipeline(
        tokenizer, encoder, wan_vae(), unipc(), None, None, nets[0], nets[1], boundary_ratio=0.9
    )


def wan_vace() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    torch.manual_seed(3)
    net = diffusers.WanVACETransformer3DModel(**WAN_NET, vace_layers=[0], vace_in_channels=96).eval()
    return diffusers.WanVACEPipeline(tokenizer, encoder, wan_vae(), flow(), net)


def wan_video() -> Any:
    return diffusers.WanVideoToVideoPipeline(
        **taken_by(diffusers.WanVideoToVideoPipeline, wan_unipc().components)
    )


def anyflow() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    torch.manual_seed(4)
    net = diffusers.AnyFlowTransformer3DModel(**WAN_NET).eval()
    return diffusers.AnyFlowPipeline(
        tokenizer, encoder, net, wan_vae(), diffusers.FlowMapEulerDiscreteScheduler()
    )


def _skyreels(kind: str, **more: Any) -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    torch.manual_seed(5)
    net = diffusers.SkyReelsV2Transformer3DModel(**{**WAN_NET, **more}).eval()
    return getattr(diffusers, kind)(
        tokenizer=tokenizer, text_encoder=encoder, transformer=net, vae=wan_vae(), scheduler=unipc()
    )


def skyreels() -> Any:
    return _skyreels("SkyReelsV2Pipeline")


def skyreels_df() -> Any:
    return _skyreels("SkyReelsV2DiffusionForcingPipeline")


def skyreels_df_image() -> Any:
    return _skyreels("SkyReelsV2DiffusionForcingImageToVideoPipeline")


def skyreels_df_video() -> Any:
    return _skyreels("SkyReelsV2DiffusionForcingVideoToVideoPipeline")


def skyreels_image() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    torch.manual_seed(5)
    net = diffusers.SkyReelsV2Transformer3DModel(**{**WAN_NET, "in_channels": 36, "image_dim": 16}).eval()
    vision = transformers.CLIPVisionModelWithProjection(vision_config()).eval()
    processor = transformers.CLIPImageProcessor(crop_size=32, size=32)
    return diffusers.SkyReelsV2ImageToVideoPipeline(
        tokenizer=tokenizer, text_encoder=encoder, transformer=net, vae=wan_vae(), scheduler=unipc(),
        image_processor=processor, image_encoder=vision,
    )  # fmt: skip


def helios() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    torch.manual_seed(15)
    net = diffusers.HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=1,
        rope_dim=(4, 4, 4),
    ).eval()
    return diffusers.HeliosPipeline(tokenizer, encoder, wan_vae(), diffusers.HeliosScheduler(stages=1), net)


def sana() -> Any:
    tokenizer = parts.text.build_tokenizer()
    torch.manual_seed(14)
    config = transformers.Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    net = diffusers.SanaVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=1, num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24, caption_channels=WIDTH, sample_size=30,
    ).eval()  # fmt: skip
    encoder = transformers.Gemma2Model(config).eval()
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return diffusers.SanaVideoPipeline(tokenizer, encoder, wan_vae(), net, scheduler)
