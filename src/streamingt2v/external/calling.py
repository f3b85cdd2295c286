"""Call diffusers' pipelines: arguments by signature, randomness by the seed, frames in our form.

Pipelines return arrays in [0, 1] of their own size and number; this package's frames are (T, 3, H, W) in [-1,
1].
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import ModelError, StreamingT2VError
from ..samplers.noise import frame_noise, integer
from ..video.piece import whole
from .families import FRAME_COUNT
from .latents import temporal_ratio
from .steering import was_cancelled

NEEDS_NEGATIVE = ("EasyAnimate",)
"""Families that fail without a negative prompt, even an empty one."""
FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors that pipelines raise for values that they cannot use, many of them by accident."""
Open = Callable[[], AbstractContextManager[Any]]
"""Opens a pipeline of diffusers for the time of a `with`."""


class PipelineError(ModelError):
    """A pipeline failed. fix: what clients of a server are told."""

    def __init__(self, pipe: Any, error: Exception):
        self.fix = f"{type(pipe).__name__} cannot make a video with these settings"
        super().__init__(f"{self.fix}: {type(error).__name__}: {error}")


def call_arguments(
    prompt: str,
    negative_prompt: str,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return arguments for `called`, under all names that pipelines have for them. size: (height, width)."""
    height, width = size or (None, None)
    return {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "height": height,
        "width": width,
        **dict.fromkeys(FRAME_COUNT, frames),
        "use_resolution_binning": False,  # keep the size that was asked for
        "decode_chunk_size": 8,  # as published; some pipelines decode all frames at once
        **more,
    }


def called(pipe: Any, wanted: Mapping[str, Any], seed: int | None = None) -> Any:
    """Call a pipeline with those arguments that it takes and that are neither None nor empty text.

    seed: start from noise that belongs to frames, where the pipeline can be given it; None for the pipeline's
    own noise. PipelineError if the pipeline fails; what `on_step` raises passes through.
    """
    takes = takes_of(pipe)
    arguments = {
        name: value
        for name, value in wanted.items()
        if name in takes and value is not None and not (isinstance(value, str) and not value)
    }
    if type(pipe).__name__.startswith(NEEDS_NEGATIVE):
        arguments.setdefault("negative_prompt", "")
    if "chunk_partition" in takes:
        arguments.setdefault("chunk_partition", _partition(pipe, arguments))
    if "output_type" in takes:
        arguments["output_type"] = "np"
    noise = {} if seed is None else _latents(pipe, arguments, seed)
    try:
        return pipe(**arguments, **noise)
    except StreamingT2VError:
        raise
    except FAULTS as error:
        if was_cancelled(error):
            raise
        raise PipelineError(pipe, error) from error


def takes_of(pipe: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a pipeline's call."""
    return inspect.signature(pipe.__call__).parameters


def mixing(pipe: Any, shares: Sequence[tuple[str, float]]) -> Any:
    """Return a pipeline with the same parts that reads the first prompt as a mixture of all."""
    mixed, encode = copy.copy(pipe), pipe.encode_prompt
    signature, own = inspect.signature(encode), shares[0][0]

    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        asked = given.arguments.get("prompt")
        if asked not in (own, [own]):  # the negative prompt, for some pipelines
            return encode(*args, **kwargs)
        parts = []
        for prompt, _ in shares:
            given.arguments["prompt"] = [prompt] if isinstance(asked, list) else prompt
            parts.append(encode(*given.args, **given.kwargs))
        return _mean(parts, [share for _, share in shares])

    mixed.encode_prompt = encode_prompt
    return mixed


def _mean(parts: Sequence[Any], shares: Sequence[float]) -> Any:
    """Return the weighted mean of embeddings, padded to one length; of masks and lengths the largest."""
    first = parts[0]
    if isinstance(first, tuple | list):
        return type(first)(_mean(several, shares) for several in zip(*parts, strict=True))
    if not isinstance(first, torch.Tensor):
        return first
    sizes = [max(part.shape[axis] for part in parts) for axis in range(first.ndim)]
    ends = [[(0, size - have) for size, have in zip(sizes, part.shape, strict=True)] for part in parts]
    padded = [
        F.pad(part, [n for pair in reversed(end) for n in pair])
        for part, end in zip(parts, ends, strict=True)
    ]
    if not first.is_floating_point():
        return torch.stack(padded).amax(0)
    return sum(share * part for share, part in zip(shares, padded, strict=True))


@contextmanager
def with_scheduler(pipe: Any, scheduler: Any) -> Iterator[None]:
    """Replace a pipeline's scheduler for the time of a `with`."""
    own = pipe.scheduler
    pipe.scheduler = scheduler
    try:
        yield
    finally:
        pipe.scheduler = own


@contextmanager
def own_randomness(seed: int, stage: str, index: int = 0) -> Iterator[torch.Generator]:
    """Yield a generator keyed by seed, stage and index.

    What a pipeline draws without it, while loading or working, comes from the same key. The global generator
    is restored afterwards.
    """
    key = integer(seed, stage, index, -1, 2**63)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(key)
        # on the CPU, so that the numbers are the same on every device
        yield torch.Generator("cpu").manual_seed(key)


def video_of(output: Any) -> torch.Tensor:
    """Return the first video of a pipeline's output: (T, 3, H, W) in [-1, 1]. ModelError if it has none."""
    videos = output.frames if hasattr(output, "frames") else getattr(output, "images", None)
    if videos is None or len(videos) == 0:
        raise ModelError(f"{type(output).__name__} holds no frames")
    return unit_to_float(
        torch.from_numpy(np.stack([np.asarray(frame) for frame in videos[0]])).movedim(-1, -3)
    )


def covered(frames_TCHW: torch.Tensor, height: int, width: int, resample: str = "antialias") -> torch.Tensor:
    """Crop frames to the proportions of a size, centred, and scale them to it.

    resample: "antialias" is bicubic, "nearest" as published.
    """
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
    """Return the size of the largest part of height x width with the proportions rows : columns."""
    return min(height, max(1, round(width * rows / columns))), min(
        width, max(1, round(height * columns / rows))
    )


def frames_of_codec(pipe: Any, frames: int) -> int:
    """Round a number of frames up to one that the autoencoder can pack: r k + 1 for a ratio of r."""
    ratio = temporal_ratio(pipe)
    return -(-(frames - 1) // ratio) * ratio + 1


def unit_to_float(frames_TCHW: torch.Tensor) -> torch.Tensor:
    """Convert frames in [0, 1], or bytes, to float32 in [-1, 1]. ModelError for anything else."""
    if frames_TCHW.ndim != 4 or frames_TCHW.shape[1] != 3:
        raise ModelError(f"the pipeline's frames have the shape {tuple(frames_TCHW.shape)}, not (T, 3, H, W)")
    scaled_TCHW = frames_TCHW.float() / 255 if frames_TCHW.dtype == torch.uint8 else frames_TCHW.float()
    low, high = whole(scaled_TCHW).aminmax()
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ModelError(f"the pipeline's frames lie in [{float(low):.4g}, {float(high):.4g}], not in [0, 1]")
    return scaled_TCHW.clamp(0, 1) * 2 - 1


def _partition(pipe: Any, arguments: Mapping[str, Any]) -> list[int]:
    """Return latent frames of each part that an autoregressive pipeline makes; a given video ends one."""
    ratio, own = temporal_ratio(pipe), pipe.transformer.config.chunk_partition
    total = (arguments["num_frames"] - 1) // ratio + 1
    context = (arguments["video"].shape[1] - 1) // ratio + 1 if "video" in arguments else 0
    sizes, parts = chain(own, repeat(max(own))), []
    for left in (context, total - context):
        while left:
            parts.append(min(left, next(sizes)))
            left -= parts[-1]
    return parts


def _latents(pipe: Any, arguments: Mapping[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Return starting noise that belongs to frames, for 3D UNets; nothing for other networks."""
    prepare = getattr(pipe, "prepare_latents", None)
    if not hasattr(pipe, "unet") or prepare is None or "latents" not in takes_of(pipe):
        return {}
    size = {name: arguments.get(name) for name in ("num_frames", "height", "width")}
    given = {"batch_size": 1, "num_channels_latents": pipe.unet.config.in_channels, **size}
    given |= {"dtype": torch.float32, "device": "cpu", "generator": torch.Generator("cpu"), "latents": None}
    if set(inspect.signature(prepare).parameters) != set(given) or None in size.values():
        return {}
    shape = prepare(**given).shape  # the pipeline's layout: (1, C, T, h, w) or (1, T, C, h, w)
    frames_axis = 2 if shape[2] == size["num_frames"] else 1
    frame_shape = (*shape[1:frames_axis], *shape[frames_axis + 1 :])
    noise = frame_noise(seed, "seed", range(shape[frames_axis]), -1, frame_shape)
    return {"latents": noise.movedim(0, frames_axis - 1)[None].to(pipe.unet.device, pipe.unet.dtype)}
