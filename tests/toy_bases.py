"""Many of diffusers' video pipelines, of the real classes at toy size with random weights: `TOYS` by name.

A builder returns a pipeline in memory; `saved` writes its folder. What a class needs is read from its signature and configuration;
sizes are the smallest that its autoencoder and network allow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import tokenizers
import torch
import transformers

import toy_pipelines as parts
from toy_networks import stir

WIDTH = parts.WIDTH
WAN_VAE = {
    "base_dim": 3,
    "z_dim": 16,
    "dim_mult": [1] * 4,
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}
WAN_NET = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": WIDTH, "freq_dim": 32, "ffn_dim": 32, "num_layers": 1,
           "rope_max_seq_len": 32}  # fmt: skip


@dataclass(frozen=True)
class Toy:
    """A pipeline to try. size: (height, width). image: it needs one to start from. more: further arguments of a call."""

    build: Callable[[], Any]
    size: tuple[int, int]
    frames: int = 9
    image: bool = False
    video: bool = False
    more: tuple[tuple[str, Any], ...] = ()


def saved(name: str, folder: Path) -> Path:
    """Write the folder of a toy."""
    torch.manual_seed(0)
    TOYS[name].build().save_pretrained(folder)
    return folder


def _flow(**more: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, **more)


def _unipc() -> Any:
    return diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )


def _wan_vae() -> Any:
    torch.manual_seed(1)
    return diffusers.AutoencoderKLWan(**WAN_VAE).eval()


def _wan_net(**more: Any) -> Any:
    torch.manual_seed(2)
    return diffusers.WanTransformer3DModel(**{**WAN_NET, **more}).eval()


def wan() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    return diffusers.WanPipeline(tokenizer, encoder, _wan_vae(), _flow(), _wan_net())


def wan_unipc() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    return diffusers.WanPipeline(tokenizer, encoder, _wan_vae(), _unipc(), _wan_net())


def wan22() -> Any:
    """Two networks, one for the first half of the schedule."""
    tokenizer, encoder = parts._t5("UMT5")
    return diffusers.WanPipeline(
        tokenizer, encoder, _wan_vae(), _unipc(), _wan_net(), transformer_2=_wan_net(), boundary_ratio=0.875
    )


def wan_image() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    vision = transformers.CLIPVisionModel(_vision()).eval()
    processor = transformers.CLIPImageProcessor(crop_size=32, size=32)
    net = _wan_net(in_channels=36, image_dim=16, added_kv_proj_dim=24)
    return diffusers.WanImageToVideoPipeline(tokenizer, encoder, _wan_vae(), _flow(), processor, vision, net)


def wan22_image() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    nets = _wan_net(in_channels=36), _wan_net(in_channels=36)
    return diffusers.WanImageToVideoPipeline(
        tokenizer, encoder, _wan_vae(), _unipc(), None, None, nets[0], nets[1], boundary_ratio=0.9
    )


def wan_vace() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    torch.manual_seed(3)
    net = diffusers.WanVACETransformer3DModel(**WAN_NET, vace_layers=[0], vace_in_channels=96).eval()
    return diffusers.WanVACEPipeline(tokenizer, encoder, _wan_vae(), _flow(), net)


def wan_video() -> Any:
    return diffusers.WanVideoToVideoPipeline(
        **_only(diffusers.WanVideoToVideoPipeline, wan_unipc().components)
    )


def anyflow() -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    torch.manual_seed(4)
    net = diffusers.AnyFlowTransformer3DModel(**WAN_NET).eval()
    return diffusers.AnyFlowPipeline(
        tokenizer, encoder, net, _wan_vae(), diffusers.FlowMapEulerDiscreteScheduler()
    )


def _skyreels(kind: str, **more: Any) -> Any:
    tokenizer, encoder = parts._t5("UMT5")
    torch.manual_seed(5)
    net = diffusers.SkyReelsV2Transformer3DModel(**{**WAN_NET, **more}).eval()
    return getattr(diffusers, kind)(
        tokenizer=tokenizer, text_encoder=encoder, transformer=net, vae=_wan_vae(), scheduler=_unipc()
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
    vision = transformers.CLIPVisionModelWithProjection(_vision()).eval()
    processor = transformers.CLIPImageProcessor(crop_size=32, size=32)
    return diffusers.SkyReelsV2ImageToVideoPipeline(
        tokenizer=tokenizer, text_encoder=encoder, transformer=net, vae=_wan_vae(), scheduler=_unipc(),
        image_processor=processor, image_encoder=vision,
    )  # fmt: skip


def ltx_image() -> Any:
    tokenizer, encoder = parts._t5()
    torch.manual_seed(6)
    net = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=4, attention_head_dim=8, cross_attention_dim=WIDTH, num_layers=1,
        caption_channels=WIDTH,
    ).eval()  # fmt: skip
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5, spatio_temporal_scaling=(True, True, False, False), patch_size=1,
        decoder_spatio_temporal_scaling=(True, True, False, False), decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4, upsample_factor=(1,) * 4,
    ).eval()  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return diffusers.LTXImageToVideoPipeline(scheduler, vae, encoder, tokenizer, net)


def ltx() -> Any:
    """Build it as its later weights are published: no shift of the schedule by the size."""
    return diffusers.LTXPipeline(**{**ltx_image().components, "scheduler": _flow()})


def ltx_condition() -> Any:
    return diffusers.LTXConditionPipeline(**{**ltx_image().components, "scheduler": _flow()})


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
        num_attention_heads=2, attention_head_dim=16, in_channels=in_channels, out_channels=4, time_embed_dim=2,
        text_embed_dim=WIDTH, num_layers=1, sample_width=4, sample_height=4, sample_frames=9, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=226, use_rotary_positional_embeddings=in_channels != 4,
    ).eval()  # fmt: skip
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4, block_out_channels=(8,) * 4,
        latent_channels=4, layers_per_block=1, norm_num_groups=2, temporal_compression_ratio=4,
    ).eval()  # fmt: skip
    return getattr(diffusers, kind)(tokenizer, encoder, vae, net, scheduler)


def modelscope() -> Any:
    tokenizer, encoder = parts._clip_text()
    vae = stir(diffusers.AutoencoderKL(**parts.SPATIAL_VAE))
    return diffusers.TextToVideoSDPipeline(
        vae, encoder, tokenizer, parts._unet3d(), diffusers.DDIMScheduler(clip_sample=False)
    )


def modelscope_video() -> Any:
    return diffusers.VideoToVideoSDPipeline(**modelscope().components)


def _animatediff(kind: str, scheduler: Any) -> Any:
    tokenizer, encoder = parts._clip_text()
    unet = diffusers.UNet2DConditionModel(
        sample_size=20, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=WIDTH,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    adapter = diffusers.MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=4, motion_num_attention_heads=2,
        motion_mid_block_layers_per_block=1,
    )  # fmt: skip
    vae = stir(diffusers.AutoencoderKL(**parts.SPATIAL_VAE))
    return getattr(diffusers, kind)(vae, encoder, tokenizer, stir(unet), stir(adapter), scheduler)


def animatediff() -> Any:
    return _animatediff("AnimateDiffPipeline", diffusers.DDIMScheduler(clip_sample=False))


def animatediff_dpm() -> Any:
    return _animatediff("AnimateDiffPipeline", diffusers.DPMSolverMultistepScheduler())


def animatediff_video() -> Any:
    return _animatediff("AnimateDiffVideoToVideoPipeline", diffusers.DDIMScheduler(clip_sample=False))


def svd() -> Any:
    vision = parts._clip_vision(image_size=224, patch_size=56)
    unet = stir(diffusers.UNetSpatioTemporalConditionModel(**parts.SVD_UNET))
    extractor = transformers.CLIPImageProcessor(crop_size=224, size=224)
    scheduler = diffusers.EulerDiscreteScheduler(**parts.EDM)
    return diffusers.StableVideoDiffusionPipeline(parts.temporal_vae(), vision, unet, scheduler, extractor)


def mochi() -> Any:
    tokenizer, encoder = parts._t5()
    torch.manual_seed(8)
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=12, encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1, 1, 1, 1, 1),
    ).eval()  # fmt: skip
    net = diffusers.MochiTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16, text_embed_dim=WIDTH,
        time_embed_dim=4,
    ).eval()  # fmt: skip
    return diffusers.MochiPipeline(_flow(invert_sigmas=True), vae, encoder, tokenizer, net)


def latte() -> Any:
    tokenizer, encoder = parts._t5()
    torch.manual_seed(9)
    net = diffusers.LatteTransformer3DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2, caption_channels=WIDTH,
        in_channels=4, cross_attention_dim=16, out_channels=8, attention_bias=True, activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6, video_length=16,
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
        hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, vocab_size=len(tokenizer),
        max_position_embeddings=512, pad_token_id=0,
    )  # fmt: skip
    return tokenizer, transformers.LlamaModel(config).eval()


def _clip77() -> tuple[Any, Any]:
    tokenizer = parts.text.build_tokenizer()
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=WIDTH,
    )  # fmt: skip
    return tokenizer, transformers.CLIPTextModel(config).eval()


def _hunyuan_vae() -> Any:
    torch.manual_seed(10)
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4, mid_block_add_attention=True,
    ).eval()  # fmt: skip


def _hunyuan(kind: str, in_channels: int = 4) -> Any:
    tokenizer, encoder = _llama()
    tokenizer_2, encoder_2 = _clip77()
    torch.manual_seed(11)
    net = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=in_channels, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, text_embed_dim=WIDTH, pooled_projection_dim=WIDTH, rope_axes_dim=(2, 4, 4),
    ).eval()  # fmt: skip
    return getattr(diffusers, kind)(encoder, tokenizer, net, _hunyuan_vae(), _flow(), encoder_2, tokenizer_2)


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
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=2, text_embed_dim=WIDTH,
        num_layers=1, mmdit_layers=1, sample_width=16, sample_height=16, patch_size=2,
    ).eval()  # fmt: skip
    return diffusers.EasyAnimatePipeline(vae, transformers.BertModel(config).eval(), tokenizer, net, _flow())


def allegro() -> Any:
    tokenizer, encoder = parts._t5()
    torch.manual_seed(13)
    net = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=1, cross_attention_dim=24, sample_width=8, sample_height=8,
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


def sana() -> Any:
    tokenizer = parts.text.build_tokenizer()
    torch.manual_seed(14)
    config = transformers.Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    net = diffusers.SanaVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=1, num_cross_attention_heads=2, cross_attention_head_dim=12,
        cross_attention_dim=24, caption_channels=WIDTH, sample_size=30,
    ).eval()  # fmt: skip
    encoder = transformers.Gemma2Model(config).eval()
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return diffusers.SanaVideoPipeline(tokenizer, encoder, _wan_vae(), net, scheduler)


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
    return diffusers.HeliosPipeline(tokenizer, encoder, _wan_vae(), diffusers.HeliosScheduler(stages=1), net)


def _vision() -> Any:
    return transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16,
        projection_dim=16,
    )  # fmt: skip


def _only(kind: type, components: dict[str, Any]) -> dict[str, Any]:
    """Return the components that a class takes."""
    import inspect

    takes = inspect.signature(kind.__init__).parameters
    return {name: value for name, value in components.items() if name in takes}


TOYS = {
    "modelscope": Toy(modelscope, (32, 32)),
    "modelscope_video": Toy(modelscope_video, (32, 32), video=True),
    "animatediff": Toy(animatediff, (32, 32)),
    "animatediff_dpm": Toy(animatediff_dpm, (32, 32)),
    "animatediff_video": Toy(animatediff_video, (32, 32), video=True),
    "svd": Toy(svd, (32, 32), image=True, frames=6),
    "cogvideox": Toy(cogvideox, (32, 32)),
    "cogvideox_dpm": Toy(cogvideox_dpm, (32, 32)),
    "cogvideox_image": Toy(cogvideox_image, (32, 32), image=True),
    "cogvideox_video": Toy(cogvideox_video, (32, 32), video=True),
    "wan": Toy(wan, (16, 16)),
    "wan_unipc": Toy(wan_unipc, (16, 16)),
    "wan22": Toy(wan22, (16, 16)),
    "wan_image": Toy(wan_image, (16, 16), image=True),
    "wan22_image": Toy(wan22_image, (16, 16), image=True),
    "wan_vace": Toy(wan_vace, (16, 16)),
    "wan_video": Toy(wan_video, (16, 16), video=True),
    "anyflow": Toy(anyflow, (16, 16)),
    "skyreels": Toy(skyreels, (16, 16)),
    "skyreels_image": Toy(skyreels_image, (16, 16), image=True),
    "skyreels_df": Toy(skyreels_df, (16, 16), more=(("base_num_frames", 9),)),
    "skyreels_df_image": Toy(skyreels_df_image, (16, 16), image=True, more=(("base_num_frames", 9),)),
    "skyreels_df_video": Toy(
        skyreels_df_video,
        (16, 16),
        frames=17,
        video=True,
        more=(("overlap_history", 5), ("base_num_frames", 9)),
    ),
    "ltx": Toy(ltx, (32, 32)),
    "ltx_image": Toy(ltx_image, (32, 32), image=True),
    "ltx_condition": Toy(ltx_condition, (32, 32)),
    "mochi": Toy(mochi, (16, 16), frames=13),
    "latte": Toy(latte, (16, 16), frames=16),
    "hunyuan": Toy(hunyuan, (16, 16)),
    "hunyuan_skyreels_image": Toy(hunyuan_skyreels_image, (16, 16), image=True),
    "easyanimate": Toy(easyanimate, (16, 16)),
    "allegro": Toy(allegro, (16, 16), frames=16),
    "sana": Toy(sana, (32, 32), more=(("use_resolution_binning", False),)),
    "helios": Toy(helios, (16, 16), frames=33),
}
