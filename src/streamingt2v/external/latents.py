"""Encode frames to the clean latents of a pipeline's denoising loop, for any autoencoder of diffusers.

Families differ in the shift and scale of values, in the order of axes, and in whether latents are packed into
tokens.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch

from ..errors import ModelError

ORDERS = {"BCTHW": (0, 1, 2, 3, 4), "BTCHW": (0, 2, 1, 3, 4), "BTHWC": (0, 2, 3, 4, 1)}
TIME = {"packed": 1, "frames": 0, "BCTHW": 2, "BTCHW": 1, "BTHWC": 1}
LAYOUTS = (  # by the beginning of a class's name, first match; all others hold BCTHW
    # unpacked at their steps, without the first frame
    (("LTXImageToVideoPipeline", "LTX2ImageToVideoPipeline"), "BCTHW"),
    (("LTX",), "packed"),
    (("TextToVideoSD", "VideoToVideoSD", "I2VGenXL"), "frames"),
    (("CogVideoX", "ConsisID", "StableVideoDiffusion", "AnyFlow"), "BTCHW"),
    (("Kandinsky",), "BTHWC"),
)
RATIOS = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor")


def temporal_ratio(pipe: Any) -> int:
    """Return how many frames the pipeline's autoencoder packs into a latent frame."""
    return next((int(getattr(pipe, name)) for name in RATIOS if hasattr(pipe, name)), 1)


def layout(pipe: Any) -> str:
    """Return the layout of the latents at the scheduler's steps: a key of `TIME`."""
    name = type(pipe).__name__
    return next((kind for names, kind in LAYOUTS if name.startswith(names)), "BCTHW")


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of every latent channel, float32 (C,): colour and contrast of a clip."""

    mean_C: torch.Tensor
    std_C: torch.Tensor

    @classmethod
    def of(cls, latents_BCTHW: torch.Tensor) -> Self:
        """Measure a clip's latents."""
        flat = latents_BCTHW.detach().float().cpu().transpose(0, 1).flatten(1)
        return cls(flat.mean(1), flat.std(1, correction=0))

    def pull(self, latents_BCTHW: torch.Tensor, share: float) -> torch.Tensor:
        """Move a clip's moments towards these. share: 0 changes nothing, 1 gives the clip these moments."""
        now = Moments.of(latents_BCTHW)

        def shaped(values_C: torch.Tensor) -> torch.Tensor:
            return values_C.reshape(1, -1, 1, 1, 1).to(latents_BCTHW)

        std_C = now.std_C.clamp(min=1e-6)
        mean, std = torch.lerp(now.mean_C, self.mean_C, share), torch.lerp(now.std_C, self.std_C, share)
        return (latents_BCTHW - shaped(now.mean_C)) * shaped(std / std_C) + shaped(mean)


@torch.no_grad()
def encode(pipe: Any, frames_TCHW: torch.Tensor) -> torch.Tensor:
    """Encode frames, float (T, 3, H, W) in [-1, 1], to the network's latents (1, C, t, h, w).

    For an autoencoder that packs r frames, T is r m + 1. ModelError for an autoencoder that cannot encode.
    """
    vae = pipe.vae
    video_BCTHW = frames_TCHW.transpose(0, 1)[None].to(vae.device, vae.dtype)
    if type(vae).__name__ in ("AutoencoderKL", "AutoencoderKLTemporalDecoder"):  # frame by frame
        latents = _mode(vae.encode(video_BCTHW[0].transpose(0, 1))).transpose(0, 1)[None]
    else:
        latents = _mode(vae.encode(video_BCTHW))
    return _normalised(pipe, latents.float())


def arrange(pipe: Any, latents_BCTHW: torch.Tensor) -> torch.Tensor:
    """Return latents (1, C, t, h, w) in the layout that the pipeline's scheduler sees."""
    how = layout(pipe)
    if how == "packed":
        return pipe._pack_latents(
            latents_BCTHW, pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
        )
    if how == "frames":
        return latents_BCTHW[0].transpose(0, 1)
    return latents_BCTHW.permute(*ORDERS[how])


def time_axis(pipe: Any) -> int:
    """Return the axis of time in the layout that the pipeline's scheduler sees."""
    return TIME[layout(pipe)]


def tokens_per_frame(pipe: Any, latents_BCTHW: torch.Tensor) -> int:
    """Return how many places along the time axis a latent frame takes: more than 1 in packed layouts only."""
    if layout(pipe) != "packed":
        return 1
    return arrange(pipe, latents_BCTHW[:, :, :1]).shape[1]


def _mode(encoded: Any) -> torch.Tensor:
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist.mode()
    for name in ("latents", "latent"):
        if hasattr(encoded, name):
            return getattr(encoded, name)
    raise ModelError(
        f"{type(encoded).__name__}: this autoencoder returns no latents; the overlap cannot be held"
    )


def _normalised(pipe: Any, latents_BCTHW: torch.Tensor) -> torch.Tensor:
    """Shift and scale latents as the network is trained on them."""
    vae, config = pipe.vae, pipe.vae.config
    buffers = dict(vae.named_buffers(recurse=False))  # LTX keeps them there, others in the configuration
    mean, std = buffers.get("latents_mean"), buffers.get("latents_std")
    if mean is None:
        mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        return (latents_BCTHW - (config.get("shift_factor") or 0.0)) * config.scaling_factor
    mean, std = (
        torch.as_tensor(part).float().reshape(1, -1, 1, 1, 1).to(latents_BCTHW) for part in (mean, std)
    )
    scale = (config.get("scaling_factor") or 1.0) * (pipe.scheduler.config.get("sigma_data") or 1.0)
    return (latents_BCTHW - mean) / std * scale
