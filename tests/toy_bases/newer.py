"""Toys of families with large text encoders: a small Llama stands in for Gemma 3 and Qwen 2.5 VL,
T5 for T5Gemma 2."""

from __future__ import annotations

from typing import Any

import diffusers
import tokenizers
import torch
import transformers
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

import toy_pipelines as parts
from toy_networks import stir
from toy_pipelines import WIDTH

from .common import flow
from .transformer_toys import clip77, hunyuan_vae
from .wan import WAN_NET, wan_vae

TEMPLATE = "{{ 'a ' * 120 }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""Pipelines cut a fixed number of tokens off the front, as long as their own templates are."""


def _llama(start: int = 0) -> tuple[Any, Any]:
    """Return tokenizer and encoder. start: tokens in front of every text."""
    tokenizer = parts.text.build_tokenizer()
    tokenizer.chat_template, tokenizer.model_max_length = TEMPLATE, 1024
    if start:
        ids = [("<bos>", tokenizer.bos_token_id), ("<eos>", tokenizer.eos_token_id)]
        tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="<bos> " * start + "$A <eos>", special_tokens=ids
        )
    torch.manual_seed(20)
    config = transformers.LlamaConfig(
        hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=2048, pad_token_id=0,
    )  # fmt: skip
    return tokenizer, transformers.LlamaModel(config).eval()


def _ltx2(kind: str) -> Any:
    tokenizer, encoder = _llama()
    torch.manual_seed(21)
    vae = diffusers.AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(8,) * 3, decoder_block_out_channels=(8,) * 3,
        layers_per_block=(1,) * 4,
        decoder_layers_per_block=(1,) * 4, spatio_temporal_scaling=(True,) * 3,
        decoder_spatio_temporal_scaling=(True,) * 3,
        decoder_inject_noise=(False,) * 4, downsample_type=("spatiotemporal",) * 3,
        upsample_residual=(False,) * 3,
        upsample_factor=(1,) * 3, patch_size=1, patch_size_t=1,
    ).eval()  # fmt: skip
    net = diffusers.LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        audio_in_channels=4,
        audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=4,
        audio_cross_attention_dim=8, num_layers=1,
        caption_channels=WIDTH, rope_double_precision=False, rope_type="split",
    ).eval()  # fmt: skip
    side = {f"{name}_connector_{part}": value for name in ("video", "audio") for part, value in (
        ("num_attention_heads", 4), ("attention_head_dim", 8), ("num_layers", 1),
        ("num_learnable_registers", None),
    )}  # fmt: skip
    connectors = LTX2TextConnectors(
        caption_channels=WIDTH, text_proj_in_factor=4, connector_rope_base_seq_len=32, rope_theta=10000.0,
        rope_double_precision=False, causal_temporal_positioning=False, rope_type="split", **side,
    ).eval()  # fmt: skip
    audio = diffusers.AutoencoderKLLTX2Audio(
        base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1, attn_resolutions=None,
        in_channels=2, resolution=32,
        latent_channels=2, norm_type="pixel", causality_axis="height", mid_block_add_attention=False,
        mel_bins=8,
    ).eval()  # fmt: skip
    vocoder = LTX2Vocoder(
        in_channels=16, hidden_channels=8, out_channels=2, upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]],
    ).eval()  # fmt: skip
    return getattr(diffusers, kind)(
        scheduler=flow(), vae=vae, audio_vae=audio, text_encoder=encoder, tokenizer=tokenizer,
        connectors=connectors,
        transformer=net, vocoder=vocoder,
    )  # fmt: skip


def ltx2() -> Any:
    return _ltx2("LTX2Pipeline")


def ltx2_image() -> Any:
    return _ltx2("LTX2ImageToVideoPipeline")


def hunyuan15() -> Any:
    tokenizer, encoder = _llama()
    tokenizer_2, encoder_2 = parts._t5()
    torch.manual_seed(22)
    net = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
        num_refiner_layers=1,
        mlp_ratio=2.0, patch_size=1, patch_size_t=1, text_embed_dim=WIDTH, text_embed_2_dim=WIDTH,
        image_embed_dim=12,
        rope_axes_dim=(2, 2, 4), target_size=16, task_type="t2v",
    ).eval()  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(16,) * 3, layers_per_block=1, spatial_compression_ratio=8,
        temporal_compression_ratio=4, downsample_match_channel=False, upsample_match_channel=False,
    ).eval()  # fmt: skip
    guider = diffusers.ClassifierFreeGuidance(guidance_scale=1.0)
    return diffusers.HunyuanVideo15Pipeline(
        encoder, tokenizer, net, vae, flow(), encoder_2, tokenizer_2, guider
    )


def motif() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    torch.manual_seed(23)
    net = diffusers.MotifVideoTransformer3DModel(
        in_channels=33, out_channels=16, num_attention_heads=2, attention_head_dim=12, num_layers=1,
        num_single_layers=1,
        patch_size=1, patch_size_t=1, text_embed_dim=WIDTH, rope_axes_dim=(4, 4, 4),
    ).eval()  # fmt: skip
    guider = diffusers.AdaptiveProjectedGuidance()
    return diffusers.MotifVideoPipeline(flow(), wan_vae(), encoder, tokenizer, net, guider)


def kandinsky5() -> Any:
    tokenizer, encoder = _llama(start=120)
    tokenizer_2, encoder_2 = clip77()
    torch.manual_seed(24)
    kandinsky = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=WIDTH, in_text_dim2=WIDTH, time_dim=32, out_visual_dim=4,
        patch_size=(1, 2, 2), model_dim=48,
        ff_dim=32, num_text_blocks=1, num_visual_blocks=1, axes_dims=(8, 8, 8), visual_cond=False,
    )  # fmt: skip
    net = stir(kandinsky)  # its modulations start at zero, where no prompt has an effect
    return diffusers.Kandinsky5T2VPipeline(
        net, hunyuan_vae(), encoder, tokenizer, encoder_2, tokenizer_2, flow()
    )


class Unguarded:
    """Stand-in for the guardrail of Cosmos, which is a package with large networks of its own."""

    def to(self, device: Any) -> None: ...

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video


def cosmos2() -> Any:
    tokenizer, encoder = parts._t5()
    torch.manual_seed(25)
    cosmos = diffusers.CosmosTransformer3DModel(
        in_channels=17, out_channels=16, num_attention_heads=2, attention_head_dim=16, num_layers=1,
        mlp_ratio=2,
        text_embed_dim=WIDTH, adaln_lora_dim=4, max_size=(8, 32, 32), patch_size=(1, 2, 2),
        rope_scale=(2.0, 1.0, 1.0),
        concat_padding_mask=False, extra_pos_embed_type="learnable",
    )  # fmt: skip
    net = stir(cosmos)  # a prompt has no effect in it before
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    return diffusers.Cosmos2VideoToWorldPipeline(encoder, tokenizer, net, wan_vae(), scheduler, Unguarded())


def framepack() -> Any:
    tokenizer, encoder = _llama(start=90)
    tokenizer_2, encoder_2 = clip77()
    torch.manual_seed(26)
    net = diffusers.HunyuanVideoFramepackTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1, patch_size=2, patch_size_t=1, text_embed_dim=WIDTH, pooled_projection_dim=WIDTH,
        rope_axes_dim=(2, 4, 4), has_image_proj=True, image_proj_dim=16, has_clean_x_embedder=True,
    ).eval()  # fmt: skip
    vision = transformers.SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    encoder_3 = transformers.SiglipVisionModel(vision).eval()
    return diffusers.HunyuanVideoFramepackPipeline(
        encoder, tokenizer, net, hunyuan_vae(), flow(), encoder_2, tokenizer_2, encoder_3, processor
    )


def anyflow_far() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    torch.manual_seed(27)
    net = diffusers.AnyFlowFARTransformer3DModel(**WAN_NET, chunk_partition=(1, 2, 2)).eval()
    return diffusers.AnyFlowFARPipeline(
        tokenizer, encoder, net, wan_vae(), diffusers.FlowMapEulerDiscreteScheduler()
    )
