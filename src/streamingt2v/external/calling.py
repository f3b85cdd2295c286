"""Calls of diffusers' pipelines: arguments that their signatures take, randomness keyed by the request's seed, frames out.

Their frames are arrays in [0, 1] of their own size and number; here are the ways to this package's, (T, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import ModelError
from ..samplers.noise import frame_noise, integer
from ..video.piece import whole
from .latents import temporal_ratio

NEEDS_NEGATIVE = ("EasyAnimate",)
"""Families that fail where no negative prompt is given; an empty one does."""
Open = Callable[[], AbstractContextManager[Any]]
"""Gives a loaded pipeline of diffusers for the time of a `with`."""


def called(pipe: Any, wanted: Mapping[str, Any], seed: int) -> Any:
    """Return what the pipeline gives for those of the arguments that it takes and that are not empty; frames and pictures as arrays."""
    takes = inspect.signature(pipe.__call__).parameters
    arguments = {name: value for name, value in wanted.items() if name in takes and value not in (None, "")}
    if type(pipe).__name__.startswith(NEEDS_NEGATIVE):
        arguments.setdefault("negative_prompt", "")
    return pipe(
        **arguments,
        **_latents(pipe, arguments, seed),
        **({"output_type": "np"} if "output_type" in takes else {}),
    )


def takes_of(pipe: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a pipeline's call."""
    return inspect.signature(pipe.__call__).parameters


@contextmanager
def own_randomness(seed: int, stage: str, index: int = 0) -> Iterator[torch.Generator]:
    """A generator keyed by seed, stage and index. What a pipeline draws without it, while loading or working, comes from the same key,
    and the global generator is left as it was.
    """
    key = integer(seed, stage, index, -1, 2**63)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(key)
        # on the CPU whatever computes, so that the numbers are the same on every device
        yield torch.Generator("cpu").manual_seed(key)


def video_of(output: Any) -> torch.Tensor:
    """The frames of the first video in a pipeline's output, asked for as arrays: (T, 3, H, W) in [-1, 1]. ModelError if it has none."""
    videos = output.frames if hasattr(output, "frames") else getattr(output, "images", None)
    if videos is None or len(videos) == 0:
        raise ModelError(f"{type(output).__name__} holds no frames")
    return unit_to_float(
        torch.from_numpy(np.stack([np.asarray(frame) for frame in videos[0]])).movedim(-1, -3)
    )


def covered(frames_TCHW: torch.Tensor, height: int, width: int, resample: str = "antialias") -> torch.Tensor:
    """The largest centred part with the asked proportions, scaled to the size: "antialias" bicubic, or "nearest" as published."""
    whole_rows, whole_columns = frames_TCHW.shape[-2:]
    rows, columns = window(whole_rows, whole_columns, height, width)
    top, left = (whole_rows - rows) // 2, (whole_columns - columns) // 2
    part_TCHW = frames_TCHW[..., top : top + rows, left : left + columns]
    if (rows, columns) == (height, width):
        return part_TCHW.contiguous()
    if resample == "nearest":
        return F.interpolate(part_TCHW, (height, width), mode="nearest")
    return F.interpolate(part_TCHW, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)


def window(height: int, width: int, rows: int, columns: int) -> tuple[int, int]:
    """Size of the largest part of height x width with the proportions rows : columns."""
    return min(height, max(1, round(width * rows / columns))), min(
        width, max(1, round(height * columns / rows))
    )


def frames_of_codec(pipe: Any, frames: int) -> int:
    """The fewest frames, `frames` or more, that the pipeline's autoencoder packs without rest: r k + 1 for one that packs r into one."""
    ratio = temporal_ratio(pipe)
    return -(-(frames - 1) // ratio) * ratio + 1


def unit_to_float(frames_TCHW: torch.Tensor) -> torch.Tensor:
    """Frames in [0, 1], as diffusers' arrays are, or bytes, as float32 in [-1, 1]. ModelError for anything else."""
    if frames_TCHW.ndim != 4 or frames_TCHW.shape[1] != 3:
        raise ModelError(f"the pipeline's frames have the shape {tuple(frames_TCHW.shape)}, not (T, 3, H, W)")
    scaled_TCHW = frames_TCHW.float() / 255 if frames_TCHW.dtype == torch.uint8 else frames_TCHW.float()
    low, high = whole(scaled_TCHW).aminmax()
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ModelError(f"the pipeline's frames lie in [{float(low):.4g}, {float(high):.4g}], not in [0, 1]")
    return scaled_TCHW.clamp(0, 1) * 2 - 1


def _latents(pipe: Any, arguments: Mapping[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """The start as noise that belongs to frames, for the networks that denoise a whole clip as one tensor (3D UNets); else nothing."""
    prepare = getattr(pipe, "prepare_latents", None)
    if (
        not hasattr(pipe, "unet")
        or prepare is None
        or "latents" not in inspect.signature(pipe.__call__).parameters
    ):
        return {}
    given = {
        "batch_size": 1,
        "num_channels_latents": pipe.unet.config.in_channels,
        "num_frames": arguments.get("num_frames"),
    }
    given |= {
        "height": arguments.get("height"),
        "width": arguments.get("width"),
        "dtype": torch.float32,
        "device": "cpu",
    }
    given |= {"generator": torch.Generator("cpu"), "latents": None}
    if set(inspect.signature(prepare).parameters) != set(given) or None in (
        given["num_frames"],
        given["height"],
        given["width"],
    ):
        return {}
    shape = prepare(**given).shape  # the layout is the pipeline's: (1, C, T, h, w) or (1, T, C, h, w)
    frames_axis = 2 if shape[2] == given["num_frames"] else 1
    frame_shape = (*shape[1:frames_axis], *shape[frames_axis + 1 :])
    noise = frame_noise(seed, "seed", range(shape[frames_axis]), -1, frame_shape)
    return {"latents": noise.movedim(0, frames_axis - 1)[None].to(pipe.unet.device, pipe.unet.dtype)}
