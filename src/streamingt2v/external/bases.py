"""Any pipeline of diffusers as a part of the trip: found in its folder and judged by its signature, opened when it is needed.

What a pipeline can do is read from the signature of its class, before any of its weights.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ..checkpoints.placing import offload_pipeline, save_in_vae
from ..config import ModelConfig, Request
from ..config.external import SeedConfig
from ..config.refine import RefineByConfig
from ..config.runtime import PLAIN, Savings
from ..config.values import read_json
from ..errors import ModelError, RequestError

SEED_FILE = "seed.json"
FRAME_COUNT = ("num_frames", "video_length")
"""What pipelines call the number of frames to make."""


@dataclass(frozen=True)
class Abilities:
    """What a pipeline takes. video: it makes videos. image: whether it starts from a picture."""

    video: bool
    image: Literal["no", "optional", "needed"]
    guidance: bool


def abilities(kind: type) -> Abilities:
    """Those of a pipeline's class, by what it can be called with."""
    takes = inspect.signature(kind.__call__).parameters
    needed = "image" in takes and (takes["image"].default is inspect.Parameter.empty or "ImageToVideo" in kind.__name__)
    image: Literal["no", "optional", "needed"] = "needed" if needed else "optional" if "image" in takes else "no"
    return Abilities(any(name in takes for name in FRAME_COUNT), image, "guidance_scale" in takes)


def pipeline_class(folder: Path) -> type:
    """The class that a pipeline's folder names. ModelError if it is no such folder, or diffusers has no such class."""
    path = folder / "model_index.json"
    if not path.is_file():
        raise ModelError(f"{folder} is no pipeline of diffusers: it has no model_index.json")
    values = read_json(path)
    name = values.get("_class_name") if isinstance(values, dict) else None
    import diffusers  # slow, and only needed where there is such a pipeline

    kind = getattr(diffusers, str(name), None)
    if kind is None:
        raise ModelError(f"{path}: diffusers has no pipeline {name!r}")
    return kind


def read_base(folder: Path) -> SeedConfig:
    """The settings of a base: its `seed.json` where it has one, which may name a pipeline elsewhere; else the pipeline it is."""
    own = SeedConfig.load(folder / SEED_FILE) if (folder / SEED_FILE).is_file() else SeedConfig()
    return own.within(folder) if own.pipeline is not None else dataclasses.replace(own.within(folder), pipeline=str(folder))


def with_seed(config: ModelConfig, request: Request) -> ModelConfig:
    """The configuration with stage 1 as the request has it: by its base where it names one, and with the facts of the pipeline filled in.

    RequestError where base and request do not fit together, ModelError if the model's own pipelines cannot be used. No weights are read.
    """
    config = dataclasses.replace(config, seed=_resolved(config.seed, request))
    if config.refine_by is not None:
        config = dataclasses.replace(config, refine_by=_refiner_asked(config.refine_by, request))
    if request.base is not None and request.video is not None:
        raise RequestError("base", request.base, "a video to go on with needs no first chunk; leave the base out")
    if request.base is not None and request.image is not None and not config.reads_image:
        fix = "makes its chunk from text alone, so the image would be frame 0 and the base without effect; leave one of them out"
        raise RequestError("base", request.base, fix)
    pictured = request.image is not None or request.video is not None or (config.seed is not None and config.seed.picture is not None)
    if not pictured and _needs_picture(config):
        raise RequestError("image", None, f"the first chunk of {config.name!r} is made from a picture; give one")
    return config


def pipeline_folders(config: ModelConfig, request: Request) -> list[Path]:
    """The folders of others' pipelines and their settings, whose files the video depends on as well."""
    seed = config.seed if request.video is None else None
    folders = [request.base, seed.pipeline, seed.adapter, seed.picture] if seed is not None else []
    if config.refine_by is not None and request.preset == "full":
        folders.append(config.refine_by.pipeline)
    return [Path(folder) for folder in dict.fromkeys(folders) if folder is not None]


@contextmanager
def opened(
    folder: str, device: str | torch.device, dtype: torch.dtype, adapter: str | None = None, savings: Savings = PLAIN
) -> Iterator[Any]:
    """A pipeline on a device in a dtype, for as long as it is needed: its memory is free afterwards. ModelError if it does not load."""
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
    try:
        yield pipeline.to(device) if savings.offload == "none" else offload_pipeline(pipeline, torch.device(device), savings)
    finally:
        for name in list(pipeline.components):  # let go here, whoever still holds the pipeline itself
            setattr(pipeline, name, None)


def _with_adapter(folder: str, adapter: str, dtype: torch.dtype) -> Any:
    """AnimateDiff: a text-to-image pipeline with a motion adapter, and the scheduler that the published seed has (method.md: Chunks)."""
    from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter

    motion = MotionAdapter.from_pretrained(adapter, torch_dtype=dtype, local_files_only=True)
    pipeline = AnimateDiffPipeline.from_pretrained(folder, motion_adapter=motion, torch_dtype=dtype, local_files_only=True)
    changes = {"clip_sample": False, "timestep_spacing": "linspace", "beta_schedule": "linear", "steps_offset": 1}
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **changes)
    return pipeline


def _resolved(own: SeedConfig | None, request: Request) -> SeedConfig | None:
    """The seed's configuration with `image` as its pipeline has it."""
    if request.base is None:
        return _filled(own) if own is not None else None
    try:
        return _filled(read_base(Path(request.base)))
    except ModelError as error:
        raise RequestError("base", request.base, str(error)) from error


def _filled(seed: SeedConfig) -> SeedConfig:
    """ModelError where the pipelines are missing or cannot do what the settings say."""
    if seed.picture is not None:
        pipeline_class(Path(seed.picture))
    if seed.pipeline is None:
        return seed
    can = _abilities_of(seed)
    if not can.video:
        fix = "give a motion adapter in its seed.json, or a pipeline that makes videos"
        raise ModelError(f"{seed.pipeline}: its pipeline makes pictures, not videos; {fix}")
    if seed.guidance_scale is not None and not can.guidance:
        raise ModelError(f"seed.guidance_scale={seed.guidance_scale}: the pipeline in {seed.pipeline} has none; leave it out")
    if seed.image is False and can.image == "needed":
        raise ModelError(f"seed.image=False: the pipeline in {seed.pipeline} needs a picture; leave it out")
    for name, asks in (("image", seed.image), ("picture", seed.picture)):
        if asks and can.image == "no":
            raise ModelError(f"seed.{name}={asks!r}: the pipeline in {seed.pipeline} takes no picture; leave it out")
    return seed if seed.image is not None else dataclasses.replace(seed, image=can.image != "no")


def redraws_from_keyframes(refine: RefineByConfig) -> bool:
    """Whether the pipeline is I2VGen-XL's, which starts from noisy latents and a picture."""
    return pipeline_class(Path(refine.pipeline)).__name__ == "I2VGenXLPipeline"


def _refiner_asked(own: RefineByConfig, request: Request) -> RefineByConfig:
    """The settings of stage 3 with what the request asks of it; see `_check_refiner`."""
    _check_refiner(own)
    if request.refine is None:  # then steps and guidance are those of stages 1 and 2
        return own.asked(request.strength, None, None)
    if request.guidance_scale is not None and not abilities(pipeline_class(Path(own.pipeline))).guidance:
        raise RequestError("guidance_scale", request.guidance_scale, f"the pipeline in {own.pipeline} has none; leave it out")
    return own.asked(request.strength, request.num_inference_steps, request.guidance_scale)


def _check_refiner(refine: RefineByConfig) -> None:
    """ModelError unless its pipeline makes videos from videos and a strength, or from a picture as I2VGen-XL does."""
    kind = pipeline_class(Path(refine.pipeline))
    if refine.guidance_scale is not None and not abilities(kind).guidance:
        raise ModelError(f"refine_by.guidance_scale={refine.guidance_scale}: the pipeline in {refine.pipeline} has none; leave it out")
    by_keyframes = redraws_from_keyframes(refine)
    for name in ("seam",) if by_keyframes else ("keyframes", "target_fps"):
        if (value := getattr(refine, name)) is not None:
            raise ModelError(f"refine_by.{name}={value!r}: the pipeline in {refine.pipeline} has none; leave it out")
    if by_keyframes:
        return
    lacking = {"video", "strength"} - inspect.signature(kind.__call__).parameters.keys()
    if lacking:
        raise ModelError(f"{refine.pipeline}: its pipeline takes no {' and no '.join(sorted(lacking))}, so it cannot refine")


def _abilities_of(seed: SeedConfig) -> Abilities:
    kind = pipeline_class(Path(str(seed.pipeline)))
    if seed.adapter is not None:
        from diffusers import AnimateDiffPipeline

        kind = AnimateDiffPipeline
        if not (Path(seed.adapter) / "config.json").is_file():
            raise ModelError(f"{seed.adapter} is no motion adapter: it has no config.json")
    return abilities(kind)


def _needs_picture(config: ModelConfig) -> bool:
    if config.seed is None or config.seed.pipeline is None:
        return config.backbone == "svd"
    return _abilities_of(config.seed).image == "needed"
