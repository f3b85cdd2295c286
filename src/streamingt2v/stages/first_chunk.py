"""Stage 1 by a text- or image-to-video pipeline of diffusers (method.md: Chunks).

A pipeline makes clips of its own size, length and range. The first frames are kept, cropped to the model's
proportions and scaled to its size. Randomness depends on the request's seed alone.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..config.external import SeedConfig
from ..errors import ModelError
from ..external.calling import (
    Open,
    call_arguments,
    called,
    covered,
    frames_of_codec,
    own_randomness,
    takes_of,
    unit_to_float,
    video_of,
    window,
)
from ..external.families import FRAME_COUNT, default_size
from ..video.piece import to_uint8
from .protocols import Image, Words


@dataclass(frozen=True)
class PipelineFirstChunk:
    """Make the first chunk with a pipeline. frames, height, width: of the chunk."""

    open: Open
    config: SeedConfig
    frames: int
    height: int
    width: int
    seed: int

    def first(self, words: Words, image: Image | None) -> torch.Tensor:
        """See `protocols.FirstChunk`.

        ModelError if the pipeline returns too few frames or is misconfigured.
        """
        with own_randomness(self.seed, "base") as generator, self.open() as pipe:
            takes = takes_of(pipe)
            size = _own_size(pipe, takes, self.config) or (self.height, self.width)
            wanted = call_arguments(
                words.prompt_at(0),
                words.negative_prompt,
                size,
                self._frame_count(pipe, takes),
                num_inference_steps=self.config.steps,
                guidance_scale=self.config.guidance_scale,
                generator=generator,
                image=None if image is None else PIL.Image.fromarray(to_uint8(self._framed(image, *size))),
            )
            clip_TCHW = video_of(called(pipe, wanted, self.seed))
        if len(clip_TCHW) < self.frames:
            fix = f"set seed.frames so that it gives {self.frames} or more"
            raise ModelError(f"{type(pipe).__name__} gave {len(clip_TCHW)} frames; {fix}")
        return covered(clip_TCHW[: self.frames], self.height, self.width, self.config.resample)

    def _frame_count(self, pipe: Any, takes: Mapping[str, inspect.Parameter]) -> int:
        """Return the number of frames to ask for: as configured, the network's own, or the fewest."""
        if self.config.frames is not None:
            return self.config.frames
        enough = frames_of_codec(pipe, self.frames)
        left_open = any(name in takes and takes[name].default is None for name in FRAME_COUNT)
        return max(enough, _own_frames(pipe)) if left_open else enough

    def _framed(self, image: Image, height: int, width: int) -> torch.Tensor:
        """Return the image as the pipeline's frame (3, H, W): cropped, or between black bars."""
        if self.config.fit == "cover":
            return image(height, width)
        rows, columns = window(height, width, self.height, self.width)
        frame_CHW = torch.full((3, height, width), -1.0)
        top, left = (height - rows) // 2, (width - columns) // 2
        frame_CHW[:, top : top + rows, left : left + columns] = image(rows, columns)
        return frame_CHW


def made_image(open_pipeline: Open, words: Words, seed: int, steps: int | None) -> Image:
    """Make the image to start from with a text-to-image pipeline, at its own size."""
    with own_randomness(seed, "picture") as generator, open_pipeline() as pipe:
        wanted = call_arguments(
            words.prompt_at(0), words.negative_prompt, num_inference_steps=steps, generator=generator
        )
        made = called(pipe, wanted, seed)
    made_TCHW = unit_to_float(torch.from_numpy(np.asarray(made.images[:1])).movedim(-1, -3))
    return lambda height, width: covered(made_TCHW, height, width)[0]


def _own_size(
    pipe: Any, takes: Mapping[str, inspect.Parameter], config: SeedConfig
) -> tuple[int, int] | None:
    """Return the (height, width) for the call: as configured, or the pipeline's own; None if it has none."""
    if "height" not in takes or "width" not in takes:
        return None
    if config.height is not None and config.width is not None:
        return config.height, config.width
    if (own := default_size(type(pipe))) is not None:
        return own
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    sizes = getattr(network, "config", {})
    square = sizes.get("sample_size")
    height, width = (sizes.get(name) or square for name in ("sample_height", "sample_width"))
    factor = getattr(pipe, "vae_scale_factor_spatial", None) or getattr(pipe, "vae_scale_factor", None)
    if isinstance(square, list | tuple):
        height, width = square
    return (height * factor, width * factor) if height and width and factor else None


def _own_frames(pipe: Any) -> int:
    """Return the number of frames that the pipeline's network is made for, 0 if unknown."""
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    sizes = getattr(network, "config", {})
    return sizes.get("num_frames") or sizes.get("sample_frames") or 0
