"""Write diffusers pipelines and a StreamingSVD model of the real classes at toy size, with random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from lab.tiny import text
from streamingt2v.backbones.refiner import RefinerBackbone
from streamingt2v.backbones.svd import SvdBackbone
from streamingt2v.backbones.text import NoText, TextEncoder
from streamingt2v.checkpoints.load import Components, save
from streamingt2v.config import ExtendConfig, ModelConfig, RefineConfig
from streamingt2v.config.external import SeedConfig, SvdConfig
from streamingt2v.models.svd_cam import SpatioTemporalCam
from streamingt2v.models.svd_unet import StreamingUNetSpatioTemporal
from toy import write_picture
from toy_networks import stir

WIDTH = 32
"""Width of text tokens and image embeddings."""

SVD_SIZES: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "num_attention_heads": (2, 4),
    "addition_time_embed_dim": 16,
    "projection_class_embeddings_input_dim": 48,
}
SVD_UNET = {
    **SVD_SIZES,
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "num_frames": 6,
    "sample_size": 16,
}
EDM: dict[str, Any] = {  # as the published folder of Stable Video Diffusion has it
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction", "steps_offset": 1,
    "timestep_type": "continuous", "timestep_spacing": "leading", "sigma_min": 0.002, "sigma_max": 700.0,
    "use_karras_sigmas": True,
}  # fmt: skip
SPATIAL_VAE: dict[str, Any] = {
    "block_out_channels": (8, 8), "norm_num_groups": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip


def write_home(home: Path, names: Sequence[str], small: Mapping[str, tuple[int, int]]) -> Path:
    """Write toys, the (height, width) of those whose own size is too large for a test, and two images."""
    for name in names:
        globals()[name](home / name)
    for name, (height, width) in small.items():
        (home / name / "seed.json").write_text(json.dumps({"height": height, "width": width, "steps": 1}))
    write_picture(home / "red.png", (200, 30, 30))
    write_picture(home / "blue.png", (30, 30, 200))
    return home


def modelscope(folder: Path) -> Path:
    tokenizer, encoder = _clip_text()
    vae = diffusers.AutoencoderKL(**SPATIAL_VAE)
    return _saved(
        diffusers.TextToVideoSDPipeline(stir(vae), encoder, tokenizer, _unet3d(), diffusers.DDIMScheduler()),
        folder,
    )


def modelscope_video_to_video(folder: Path) -> Path:
    whole = diffusers.TextToVideoSDPipeline.from_pretrained(modelscope(folder))
    return _saved(diffusers.VideoToVideoSDPipeline(**whole.components), folder)


def i2vgen_xl(folder: Path) -> Path:
    tokenizer, encoder = _clip_text()
    unet = diffusers.I2VGenXLUNet(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=WIDTH, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    )  # fmt: skip
    extractor = transformers.CLIPImageProcessor(crop_size=32, size=32)
    scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="leading"
    )
    vae = stir(diffusers.AutoencoderKL(**SPATIAL_VAE))
    parts = (vae, encoder, tokenizer, _clip_vision(32, 16), extractor, stir(unet), scheduler)
    return _saved(diffusers.I2VGenXLPipeline(*parts), folder)


def cogvideox_video_to_video(folder: Path) -> Path:
    whole = diffusers.CogVideoXPipeline.from_pretrained(cogvideox(folder))
    return _saved(diffusers.CogVideoXVideoToVideoPipeline(**whole.components), folder)


def stable_diffusion(folder: Path) -> Path:
    tokenizer, encoder = _clip_text()
    unet = diffusers.UNet2DConditionModel(
        sample_size=20, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=WIDTH, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    parts = (
        stir(diffusers.AutoencoderKL(**SPATIAL_VAE)),
        encoder,
        tokenizer,
        stir(unet),
        diffusers.PNDMScheduler(skip_prk_steps=True),
    )
    return _saved(
        diffusers.StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False), folder
    )


def motion_adapter(folder: Path) -> Path:
    adapter = diffusers.MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=4,
        motion_num_attention_heads=2,
        motion_mid_block_layers_per_block=1,
    )  # fmt: skip
    stir(adapter).save_pretrained(folder)
    return folder


def animatediff(folder: Path) -> Path:
    """A base and a motion adapter apart, joined by a `seed.json`."""
    stable_diffusion(folder / "base")
    motion_adapter(folder / "adapter")
    (folder / "seed.json").write_text(
        json.dumps({"pipeline": "base", "adapter": "adapter", "steps": 1, "resample": "nearest"})
    )
    return folder


def svd(folder: Path) -> Path:
    vision = _clip_vision(image_size=224, patch_size=56)
    unet = stir(diffusers.UNetSpatioTemporalConditionModel(**SVD_UNET))
    extractor = transformers.CLIPImageProcessor(crop_size=224, size=224)
    pipe = diffusers.StableVideoDiffusionPipeline(
        temporal_vae(), vision, unet, diffusers.EulerDiscreteScheduler(**EDM), extractor
    )
    return _saved(pipe, folder)


def cogvideox(folder: Path) -> Path:
    tokenizer, encoder = _t5()
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=WIDTH, num_layers=1,
        sample_width=4, sample_height=4, sample_frames=9, patch_size=2, temporal_compression_ratio=4,
        max_text_seq_length=226,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        latent_channels=4, layers_per_block=1, norm_num_groups=2, temporal_compression_ratio=4,
    )  # fmt: skip
    return _saved(
        diffusers.CogVideoXPipeline(tokenizer, encoder, vae, transformer, diffusers.CogVideoXDDIMScheduler()),
        folder,
    )


def wan(folder: Path) -> Path:
    tokenizer, encoder = _t5("UMT5")
    vae = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1] * 4, num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=32,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    return _saved(diffusers.WanPipeline(tokenizer, encoder, vae, scheduler, transformer), folder)


def ltx_image(folder: Path) -> Path:
    tokenizer, encoder = _t5()
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=4, attention_head_dim=8, cross_attention_dim=WIDTH,
        num_layers=1,
        caption_channels=WIDTH,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5, spatio_temporal_scaling=(True, True, False, False), patch_size=1,
        decoder_spatio_temporal_scaling=(True, True, False, False), decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return _saved(diffusers.LTXImageToVideoPipeline(scheduler, vae, encoder, tokenizer, transformer), folder)


def temporal_vae() -> diffusers.AutoencoderKLTemporalDecoder:
    """2 x 2 pixels to a latent."""
    sizes = {
        "block_out_channels": (32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "layers_per_block": 1,
    }
    return stir(diffusers.AutoencoderKLTemporalDecoder(**sizes))  # type: ignore[return-value]


def svd_backbone(sizes: dict[str, Any] | None = None, **changes: Any) -> SvdBackbone:
    """Build StreamingSVD's networks with every part in effect.

    sizes: changes of the denoising networks' configurations. changes: of the backbone's.
    """
    own = SVD_UNET | (sizes or {})
    unet = stir(StreamingUNetSpatioTemporal(**own, merger_head_dim=16))
    cam = stir(
        SpatioTemporalCam(**{name: own[name] for name in SVD_SIZES}, conditioning_channels=(8, 16)), seed=1
    )
    return SvdBackbone(temporal_vae(), unet, cam, _clip_vision(32, 16), SvdConfig(**changes))  # type: ignore[arg-type]


def streaming_svd(
    folder: Path,
    seed: SeedConfig | None = None,
    refine: RefineConfig | None = None,
    sizes: dict[str, Any] | None = None,
) -> Path:
    """Write a model of 16 x 16 pixels, chunks of 6 frames that overlap by 2, and 2 steps."""
    extend = ExtendConfig(
        frames=6, overlap=2, steps=2, guidance_scale=3.0, eta=0.0, anchor=3, sigmas=(700.0, 54.5, 4.2, 0.002)
    )
    config = ModelConfig("toy-svd", 16, 16, 8, extend, refine, "svd", SvdConfig(), seed)
    text_encoder: NoText | TextEncoder = NoText()
    refiner = None
    if refine is not None:  # its network reads text, and its autoencoder single frames
        text_encoder = TextEncoder(*_clip_text())
        refiner = RefinerBackbone(stir(diffusers.AutoencoderKL(**SPATIAL_VAE)), _unet3d())  # type: ignore[arg-type]
    parts = Components(
        config, text_encoder, svd_backbone(sizes), diffusers.EulerDiscreteScheduler(**EDM), refiner
    )
    save(parts, folder, torch.float32)
    return folder


def _unet3d() -> diffusers.UNet3DConditionModel:
    unet = diffusers.UNet3DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=WIDTH, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    )  # fmt: skip
    return stir(unet)  # type: ignore[return-value]


def _saved(pipe: Any, folder: Path) -> Path:
    pipe.save_pretrained(folder)
    return folder


def _clip_text() -> tuple[Any, Any]:
    tokenizer = text.build_tokenizer()
    clip = text.build_clip(
        text.TextConfig(width=WIDTH, text_layers=1, vision_layers=1, heads=2, image_size=32), tokenizer
    )
    return tokenizer, stir(clip.text_model)


def _clip_vision(image_size: int, patch_size: int) -> Any:
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": WIDTH,
    }
    config = transformers.CLIPVisionConfig(image_size=image_size, patch_size=patch_size, **sizes)
    return stir(transformers.CLIPVisionModelWithProjection(config))


def _t5(kind: str = "T5") -> tuple[Any, Any]:
    tokenizer = text.build_tokenizer()
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **sizes)
    return tokenizer, stir(getattr(transformers, f"{kind}EncoderModel")(config))
