"""Count floating-point operations of a denoising step and of the autoencoder on the meta device."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import UNet3DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from ..config import ModelConfig, read_json
from ..models.cam import ConditionalAttentionModule
from ..models.svd_cam import SpatioTemporalCam
from ..models.svd_unet import StreamingUNetSpatioTemporal
from ..models.unet3d import StreamingUNet3D


def step_flops(folder: Path, config: ModelConfig, predictions: int = 2) -> int:
    """Count one step of stage 2 with CAM, for `predictions` network calls; 0 for an uncounted network."""
    size = config.height, config.width
    return _step_flops(folder, size, config.extend.frames, config.extend.overlap, predictions)


@lru_cache(maxsize=8)
def _step_flops(folder: Path, size: tuple[int, int], frames: int, overlap: int, predictions: int) -> int:
    sizes = read_json(folder / "unet" / "config.json")
    count = {StreamingUNet3D.__name__: _modelscope_step, StreamingUNetSpatioTemporal.__name__: _svd_step}.get(
        sizes.get("_class_name")
    )
    return count(folder, sizes, _latents(folder, *size), frames, overlap, predictions) if count else 0


@lru_cache(maxsize=4)
def refine_step_flops(folder: Path, config: ModelConfig) -> int:
    """Count one guided step of a window of stage 3; 0 without stage 3."""
    if config.refine is None:
        return 0
    sizes = read_json(folder / "refiner" / "config.json")
    height, width = _latents(folder, *config.refine.size(config.height, config.width))
    names = UNet3DConditionModel._get_init_keys(UNet3DConditionModel)
    with torch.device("meta"):  # MS-Vid2Vid-XL's differs by a few rows between its levels
        net = UNet3DConditionModel(**{name: value for name, value in sizes.items() if name in names}).eval()
    latents = torch.empty(2, sizes["in_channels"], config.refine.frames, height, width, device="meta")
    text = torch.empty(2, 77, sizes["cross_attention_dim"], device="meta")
    return _counted(lambda: net(latents, torch.zeros((), device="meta"), text))


@lru_cache(maxsize=8)
def decode_flops(folder: Path, height: int, width: int) -> int:
    """Count decoding one frame of this size in pixels."""
    vae = _vae(folder)
    latents = torch.empty(1, vae.config.latent_channels, *_latents(folder, height, width), device="meta")
    temporal = {"num_frames": 1} if isinstance(vae, diffusers.AutoencoderKLTemporalDecoder) else {}
    return _counted(lambda: vae.decode(latents, **temporal))


@lru_cache(maxsize=8)
def encode_flops(folder: Path, height: int, width: int) -> int:
    """Count encoding one frame of this size in pixels."""
    vae = _vae(folder)
    return _counted(lambda: vae.encoder(torch.empty(1, 3, height, width, device="meta")))


def _modelscope_step(
    folder: Path, sizes: dict[str, Any], size: tuple[int, int], frames: int, overlap: int, predictions: int
) -> int:
    net = _on_meta(StreamingUNet3D, folder / "unet")
    cam = _on_meta(ConditionalAttentionModule, folder / "cam")
    latents = torch.empty(predictions, sizes["in_channels"], frames, *size, device="meta")
    text = torch.empty(predictions, sizes["num_text_tokens"], sizes["cross_attention_dim"], device="meta")
    embedding = torch.empty(1, overlap, sizes["block_out_channels"][0], *size, device="meta")
    t = torch.zeros((), device="meta")
    return _counted(lambda: net(latents, t, text, cam_features=cam(latents, t, text, embedding)))


def _svd_step(
    folder: Path, sizes: dict[str, Any], size: tuple[int, int], frames: int, overlap: int, predictions: int
) -> int:
    net = _on_meta(StreamingUNetSpatioTemporal, folder / "unet")
    cam = _on_meta(SpatioTemporalCam, folder / "cam")
    sample = torch.empty(predictions, frames, sizes["in_channels"], *size, device="meta")
    image = torch.empty(predictions, 1, sizes["cross_attention_dim"], device="meta")
    added = torch.empty(predictions, 3, device="meta")
    embedding = torch.empty(1, overlap, sizes["block_out_channels"][0], *size, device="meta")
    t = torch.zeros((), device="meta")
    return _counted(
        lambda: net(sample, t, image, added, cam_features=cam(sample, t, image, added, embedding))
    )


def _latents(folder: Path, height: int, width: int) -> tuple[int, int]:
    factor = 2 ** (len(read_json(folder / "vae" / "config.json")["block_out_channels"]) - 1)
    return height // factor, width // factor


def _vae(folder: Path) -> Any:
    kind = read_json(folder / "vae" / "config.json").get("_class_name", "AutoencoderKL")
    return _on_meta(getattr(diffusers, kind), folder / "vae")


def _on_meta(cls: Any, part: Path) -> Any:
    with torch.device("meta"):
        network = cls.from_config(cls.load_config(part)).eval()
    return network.to("meta")  # what old constructors have made elsewhere as well


@torch.no_grad()
def _counted(work: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
