"""Toys of transformers with autoencoders of their own."""

from __future__ import annotations

from typing import Any

import diffusers
import tokenizers
import torch
import transformers

import toy_pipelines as parts
from toy_networks import stir
from toy_pipelines import WIDTH

from .common import flow


def ltx_image() -> Any:
    tokenizer, encoder = parts._t5()
    torch.manual_seed(6)
    net = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=4, attention_head_dim=8, cross_attention_dim=WIDTH,
        num_layers=1,
        caption_channels=WIDTH,
    ).eval()  # fmt: skip
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5, spatio_temporal_scaling=(True, True, False, False), patch_size=1,
        decoder_spatio_temporal_scaling=(True, True, False, False), decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4, upsample_factor=(1,) * 4,
    ).eval()  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return diffusers.LTXImageToVideoPipeline(scheduler, vae, encoder, tokenizer, net)


def ltx() -> Any:
    """Build it as its later weights are published: no shift of the schedule by the size."""
    return diffusers.LTXPipeline(**{**ltx_image().components, "scheduler": flow()})


def ltx_condition() -> Any:
    return diffusers.LTXConditionPipeline(**{**ltx_image().components, "scheduler": flow()})


def cogvideox() -> Any:
    return _cogvideox("CogVideoXPipeline", diffusers.CogVideoXDDIMScheduler())


def cogvideox_dpm() -> Any:
    return _cogvideox("CogVideoXPipeline", diffusers.CogVideoXDPMScheduler())


def cogvideox_video() -> Any:
    return _cogvideox("CogVideoXVideoToVideoPipeline", diffusers.CogVideoXDDIMScheduler())


def cogvideox_image() -> Any:
    return _cogvideox("CogVideoXImageToVideoPipeline", diffusers.CogVideoXDDIMScheduler(), in_channels=8)


def _cogvideox(kind: str, scheduler: Any, in_channels: int = 4) -> Any:
    tokenizer, encoder = parts._t5()
    torch.manual_seed(7)
    net = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=in_channels, out_channels=4,
        time_embed_dim=2,
        text_embed_dim=WIDTH, num_layers=1, sample_width=4, sample_height=4, sample_frames=9, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=226,
        use_rotary_positional_embeddings=in_channels != 4,
    ).eval()  # fmt: skip
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        latent_channels=4, layers_per_block=1, norm_num_groups=2, temporal_compression_ratio=4,
    ).eval()  # fmt: skip
    return getattr(diffusers, kind)(tokenizer, encoder, vae, net, scheduler)


def mochi() -> Any:
    tokenizer, encoder = parts._t5()
    torch.manual_seed(8)
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=12, encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1, 1, 1, 1, 1),
    ).eval()  # fmt: skip
    net = diffusers.MochiTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16,
        text_embed_dim=WIDTH,
        time_embed_dim=4,
    ).eval()  # fmt: skip
    return diffusers.MochiPipeline(flow(invert_sigmas=True), vae, encoder, tokenizer, net)


def latte() -> Any:
    tokenizer, encoder = parts._t5()
    torch.manual_seed(9)
    net = diffusers.LatteTransformer3DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2,
        caption_channels=WIDTH,
        in_channels=4, cross_attention_dim=16, out_channels=8, attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
        video_length=16,
    ).eval()  # fmt: skip
    vae = stir(diffusers.AutoencoderKL(**parts.SPATIAL_VAE))
    return diffusers.LattePipeline(tokenizer, encoder, vae, net, diffusers.DDIMScheduler(clip_sample=False))


def _llama() -> tuple[Any, Any]:
    """Its tokenizer begins with many tokens: of the pipeline's long template a fixed number is cut off."""
    tokenizer = parts.text.build_tokenizer()
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> " * 40 + "$A <eos>",
        special_tokens=[("<bos>", begin), ("<eos>", tokenizer.eos_token_id)],
    )
    config = transformers.LlamaConfig(
        hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=512, pad_token_id=0,
    )  # fmt: skip
    return tokenizer, transformers.LlamaModel(config).eval()


def clip77() -> tuple[Any, Any]:
    tokenizer = parts.text.build_tokenizer()
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77, projection_dim=WIDTH,
    )  # fmt: skip
    return tokenizer, transformers.CLIPTextModel(config).eval()


def hunyuan_vae() -> Any:
    torch.manual_seed(10)
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4, mid_block_add_attention=True,
    ).eval()  # fmt: skip


def _hunyuan(kind: str, in_channels: int = 4) -> Any:
    tokenizer, encoder = _llama()
    tokenizer_2, encoder_2 = clip77()
    torch.manual_seed(11)
    net = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=in_channels, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1, text_embed_dim=WIDTH, pooled_projection_dim=WIDTH, rope_axes_dim=(2, 4, 4),
    ).eval()  # fmt: skip
    return getattr(diffusers, kind)(encoder, tokenizer, net, hunyuan_vae(), flow(), encoder_2, tokenizer_2)


def hunyuan() -> Any:
    return _hunyuan("HunyuanVideoPipeline")


def hunyuan_skyreels_image() -> Any:
    return _hunyuan("HunyuanSkyreelsImageToVideoPipeline", in_channels=8)


def easyanimate() -> Any:
    tokenizer = parts.text.build_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'][0]['text'] }}{% endfor %}"
    torch.manual_seed(12)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    vae = diffusers.AutoencoderKLMagvit(
        latent_channels=4, block_out_channels=[8] * 4, layers_per_block=1, norm_num_groups=2,
    ).eval()  # fmt: skip
    net = diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=WIDTH,
        num_layers=1, mmdit_layers=1, sample_width=16, sample_height=16, patch_size=2,
    ).eval()  # fmt: skip
    return diffusers.EasyAnimatePipeline(vae, transformers.BertModel(config).eval(), tokenizer, net, flow())


def allegro() -> Any:
    tokenizer, encoder = parts._t5()
    torch.manual_seed(13)
    net = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=1, cross_attention_dim=24, sample_width=8,
        sample_height=8,
        sample_frames=8, caption_channels=WIDTH,
    ).eval()  # fmt: skip
    vae = diffusers.AutoencoderKLAllegro(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=16,
    ).eval()
    return diffusers.AllegroPipeline(tokenizer, encoder, vae, net, diffusers.DDIMScheduler(clip_sample=False))
