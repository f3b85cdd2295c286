"""A pipeline of diffusers in memory for as long as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..config.runtime import PLAIN, Savings
from ..errors import ModelError
from .placing import offload_pipeline, save_in_vae

ONLY_TILED = ("AutoencoderKLAllegro",)
"""Autoencoders that decode in tiles alone."""


@contextmanager
def opened(
    folder: str, device: str | torch.device, dtype: torch.dtype, adapter: str | None = None, savings: Savings = PLAIN
) -> Iterator[Any]:
    """A pipeline on a device in a dtype, for as long as it is needed: its memory is free afterwards. ModelError if it does not load."""
    pipeline = load_pipeline(folder, device, dtype, adapter, savings)
    try:
        yield pipeline
    finally:
        for name in list(pipeline.components):  # let go here, whoever still holds the pipeline itself
            setattr(pipeline, name, None)


def load_pipeline(
    folder: str | Path, device: str | torch.device, dtype: torch.dtype, adapter: str | None = None, savings: Savings = PLAIN
) -> Any:
    """Load a pipeline of diffusers to a device in a dtype. ModelError if it does not load."""
    from diffusers import DiffusionPipeline

    try:
        if adapter is not None:
            pipeline = _with_adapter(folder, adapter, dtype)
        else:
            pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=dtype, local_files_only=True)
    except (OSError, ValueError, RuntimeError, TypeError, ImportError) as error:
        raise ModelError(f"{folder}: the pipeline cannot be loaded: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    if hasattr(pipeline, "vae"):
        save_in_vae(pipeline.vae, savings)
        if type(pipeline.vae).__name__ in ONLY_TILED:
            pipeline.vae.enable_tiling()
    return pipeline.to(device) if savings.offload == "none" else offload_pipeline(pipeline, torch.device(device), savings)


def _with_adapter(folder: str, adapter: str, dtype: torch.dtype) -> Any:
    """AnimateDiff: a text-to-image pipeline with a motion adapter, and the scheduler that the published seed has (method.md: Chunks)."""
    from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter

    motion = MotionAdapter.from_pretrained(adapter, torch_dtype=dtype, local_files_only=True)
    pipeline = AnimateDiffPipeline.from_pretrained(folder, motion_adapter=motion, torch_dtype=dtype, local_files_only=True)
    changes = {"clip_sample": False, "timestep_spacing": "linspace", "beta_schedule": "linear", "steps_offset": 1}
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **changes)
    return pipeline
