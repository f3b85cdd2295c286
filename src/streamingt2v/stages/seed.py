"""Stage 1: the first chunk, by the model's own network or by any text- or image-to-video pipeline of diffusers (spec 1.2).

A pipeline makes clips of its own size, length and range. Here they become the model's: the first frames are kept, of each the largest
centred part with the model's proportions, scaled to its size. Randomness is keyed by the request's seed, nothing else has a say.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from streamingt2v.base_config import SeedConfig
from streamingt2v.errors import ModelError
from streamingt2v.samplers.noise import frame_noise, integer
from streamingt2v.types import TextCond

from .extend import ExtendStage
from .piece import to_uint8

Open = Callable[[], AbstractContextManager[Any]]
"""Gives a loaded pipeline of diffusers for the time of a `with`."""

Picture = Callable[[int, int], torch.Tensor]
"""(height, width) -> the picture to start from, covering that size: (3, H, W) in [-1, 1]."""


class Seed(Protocol):
    """Makes the first chunk."""

    def first(self, prompt: str, negative_prompt: str, picture: Picture | None) -> torch.Tensor:
        """(T, 3, H, W) in [-1, 1], of the model's size and chunk length. picture: to start from, where the seed reads one."""


@dataclass(frozen=True)
class NetworkSeed:
    """Stage 1 by the network of stage 2 itself."""

    stage: ExtendStage
    embed: Callable[[str, str], TextCond]
    height: int
    width: int

    def first(self, prompt: str, negative_prompt: str, picture: Picture | None) -> torch.Tensor:
        """See `Seed.first`."""
        picture_CHW = picture(self.height, self.width) if picture is not None else None
        return self.stage.first(self.embed(prompt, negative_prompt), self.height, self.width, picture_CHW)


@dataclass(frozen=True)
class PipelineSeed:
    """Stage 1 by a pipeline. frames, height, width: what is wanted of it. seed: the request's."""

    open: Open
    config: SeedConfig
    frames: int
    height: int
    width: int
    seed: int

    def first(self, prompt: str, negative_prompt: str, picture: Picture | None) -> torch.Tensor:
        """See `Seed.first`. ModelError if the pipeline gives fewer frames or others than it says."""
        with _own_randomness(self.seed, "base") as generator, self.open() as pipe:
            wanted = self._arguments(pipe, picture) | {"prompt": prompt, "negative_prompt": negative_prompt, "generator": generator}
            clip_TCHW = video_of(called(pipe, wanted, self.seed))
        if len(clip_TCHW) < self.frames:
            fix = f"set seed.frames so that it gives {self.frames} or more"
            raise ModelError(f"{type(pipe).__name__} gave {len(clip_TCHW)} frames; {fix}")
        return covered(clip_TCHW[: self.frames], self.height, self.width, self.config.resample)

    def _arguments(self, pipe: Any, picture: Picture | None) -> dict[str, Any]:
        """Of the clip: its sizes, what it starts from, and how it is made, under all names that pipelines have for them."""
        takes = inspect.signature(pipe.__call__).parameters
        height, width = _own_size(pipe, takes, self.config) or (self.height, self.width)
        count = self._frame_count(pipe, takes)
        return {
            "height": height,
            "width": width,
            "num_frames": count,
            "video_length": count,
            "num_inference_steps": self.config.steps,
            "guidance_scale": self.config.guidance_scale,
            "image": None if picture is None else Image.fromarray(to_uint8(self._framed(picture, height, width))),
            "decode_chunk_size": 8,  # as published; some pipelines decode all frames at once
        }

    def _frame_count(self, pipe: Any, takes: Mapping[str, inspect.Parameter]) -> int:
        """As the settings say; else the network's own number, where the pipeline leaves it to it; else the fewest that suffice."""
        if self.config.frames is not None:
            return self.config.frames
        enough = frames_of_codec(pipe, self.frames)
        left_open = any(name in takes and takes[name].default is None for name in ("num_frames", "video_length"))
        return max(enough, _own_frames(pipe)) if left_open else enough

    def _framed(self, picture: Picture, height: int, width: int) -> torch.Tensor:
        """The picture in the pipeline's frame (3, H, W): filling it, or filling what the model's frames are cut out of, beside bars."""
        if self.config.fit == "cover":
            return picture(height, width)
        rows, columns = window(height, width, self.height, self.width)
        frame_CHW = torch.full((3, height, width), -1.0)
        top, left = (height - rows) // 2, (width - columns) // 2
        frame_CHW[:, top : top + rows, left : left + columns] = picture(rows, columns)
        return frame_CHW


def called(pipe: Any, wanted: Mapping[str, Any], seed: int) -> Any:
    """What the pipeline gives for those of the arguments that it takes and that are not empty; frames and pictures as arrays."""
    takes = inspect.signature(pipe.__call__).parameters
    arguments = {name: value for name, value in wanted.items() if name in takes and value not in (None, "")}
    return pipe(**arguments, **_latents(pipe, arguments, seed), **({"output_type": "np"} if "output_type" in takes else {}))


def made_picture(open_pipeline: Open, prompt: str, negative_prompt: str, seed: int, steps: int | None) -> Picture:
    """The picture that a text-to-image pipeline makes of the prompt, at its own size."""
    with _own_randomness(seed, "picture") as generator, open_pipeline() as pipe:
        wanted = {"prompt": prompt, "negative_prompt": negative_prompt, "num_inference_steps": steps, "generator": generator}
        made = called(pipe, wanted, seed)
    made_TCHW = _checked(torch.from_numpy(np.asarray(made.images[:1])).movedim(-1, -3))
    return lambda height, width: covered(made_TCHW, height, width)[0]


def video_of(output: Any) -> torch.Tensor:
    """The frames of the first video in a pipeline's output, asked for as arrays: (T, 3, H, W) in [-1, 1]. ModelError if it has none."""
    videos = output.frames if hasattr(output, "frames") else getattr(output, "images", None)
    if videos is None or len(videos) == 0:
        raise ModelError(f"{type(output).__name__} holds no frames")
    return _checked(torch.from_numpy(np.stack([np.asarray(frame) for frame in videos[0]])).movedim(-1, -3))


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
    return min(height, max(1, round(width * rows / columns))), min(width, max(1, round(height * columns / rows)))


def frames_of_codec(pipe: Any, frames: int) -> int:
    """The fewest frames, `frames` or more, that the pipeline's autoencoder packs without rest: r k + 1 for one that packs r into one."""
    names = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio", "temporal_compression_ratio")
    codec = getattr(getattr(pipe, "vae", None), "config", {})
    ratio = next((getattr(pipe, name) for name in names if hasattr(pipe, name)), codec.get("temporal_compression_ratio", 1)) or 1
    return -(-(frames - 1) // int(ratio)) * int(ratio) + 1


@contextmanager
def _own_randomness(seed: int, stage: str) -> Iterator[torch.Generator]:
    """A generator keyed by seed and stage. What a pipeline draws without it, while loading or working, comes from the same key, and the
    global generator is left as it was."""
    key = integer(seed, stage, 0, -1, 2**63)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(key)
        # on the CPU whatever computes, so that the numbers are the same on every device
        yield torch.Generator("cpu").manual_seed(key)


def _latents(pipe: Any, arguments: Mapping[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """The start as noise that belongs to frames, for the networks that denoise a whole clip as one tensor (3D UNets); else nothing."""
    prepare = getattr(pipe, "prepare_latents", None)
    if not hasattr(pipe, "unet") or prepare is None or "latents" not in inspect.signature(pipe.__call__).parameters:
        return {}
    given = {"batch_size": 1, "num_channels_latents": pipe.unet.config.in_channels, "num_frames": arguments.get("num_frames")}
    given |= {"height": arguments.get("height"), "width": arguments.get("width"), "dtype": torch.float32, "device": "cpu"}
    given |= {"generator": torch.Generator("cpu"), "latents": None}
    if set(inspect.signature(prepare).parameters) != set(given) or None in (given["num_frames"], given["height"], given["width"]):
        return {}
    shape = prepare(**given).shape  # the layout is the pipeline's: (1, C, T, h, w) or (1, T, C, h, w)
    frames_axis = 2 if shape[2] == given["num_frames"] else 1
    frame_shape = (*shape[1:frames_axis], *shape[frames_axis + 1 :])
    noise = frame_noise(seed, "seed", range(shape[frames_axis]), -1, frame_shape)
    return {"latents": noise.movedim(0, frames_axis - 1)[None].to(pipe.unet.device, pipe.unet.dtype)}


def _own_size(pipe: Any, takes: Mapping[str, inspect.Parameter], config: SeedConfig) -> tuple[int, int] | None:
    """(height, width) that the pipeline is called with: the settings', else its own; None where it takes none or names none."""
    if "height" not in takes or "width" not in takes:
        return None
    if config.height is not None and config.width is not None:
        return config.height, config.width
    if takes["height"].default is not None:
        return takes["height"].default, takes["width"].default
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    sizes = getattr(network, "config", {})
    square = sizes.get("sample_size")
    height, width = (sizes.get(name) or square for name in ("sample_height", "sample_width"))
    factor = getattr(pipe, "vae_scale_factor_spatial", None) or getattr(pipe, "vae_scale_factor", None)
    if isinstance(square, list | tuple):
        height, width = square
    return (height * factor, width * factor) if height and width and factor else None


def _own_frames(pipe: Any) -> int:
    """How many frames the pipeline's network is made for, 0 where it does not say."""
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    sizes = getattr(network, "config", {})
    return sizes.get("num_frames") or sizes.get("sample_frames") or 0


def _checked(frames_TCHW: torch.Tensor) -> torch.Tensor:
    """Frames in [0, 1], as diffusers' arrays are, or bytes, as float32 in [-1, 1]. ModelError for anything else."""
    if frames_TCHW.ndim != 4 or frames_TCHW.shape[1] != 3:
        raise ModelError(f"the pipeline's frames have the shape {tuple(frames_TCHW.shape)}, not (T, 3, H, W)")
    scaled_TCHW = frames_TCHW.float() / 255 if frames_TCHW.dtype == torch.uint8 else frames_TCHW.float()
    low, high = scaled_TCHW.aminmax()
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # NaN fails as well
        raise ModelError(f"the pipeline's frames lie in [{float(low):.4g}, {float(high):.4g}], not in [0, 1]")
    return scaled_TCHW.clamp(0, 1) * 2 - 1
