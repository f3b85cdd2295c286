"""What a pipeline of diffusers can do, read from the signature of its class before any of its weights."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config.external import SeedConfig
from ..config.refine import RefineByConfig
from ..config.values import read_json
from ..errors import ModelError
from .families import FRAME_COUNT, family, missing_packages, redraws_videos, unmet

SEED_FILE = "seed.json"


@dataclass(frozen=True)
class Abilities:
    """What a pipeline takes. video: it makes videos. image: whether it starts from a picture."""

    video: bool
    image: Literal["no", "optional", "needed"]
    guidance: bool


def abilities(kind: type) -> Abilities:
    """Those of a pipeline's class, by what it can be called with."""
    takes = inspect.signature(kind.__call__).parameters
    needed = "image" in takes and (
        takes["image"].default is inspect.Parameter.empty or "ImageToVideo" in kind.__name__
    )
    image: Literal["no", "optional", "needed"] = (
        "needed" if needed else "optional" if "image" in takes else "no"
    )
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
    return (
        own.within(folder)
        if own.pipeline is not None
        else dataclasses.replace(own.within(folder), pipeline=str(folder))
    )


def checked_seed(seed: SeedConfig) -> SeedConfig:
    """Settings of stage 1 with `image` as the pipeline has it; ModelError where one is missing or cannot do what they say."""
    if seed.picture is not None:
        pipeline_class(Path(seed.picture))
    if seed.pipeline is None:
        return seed
    can = seed_abilities(seed)
    kind = pipeline_class(Path(seed.pipeline))
    if can.video:
        check_class(kind, Path(seed.pipeline))
        if "video" in unmet_files(kind):
            raise ModelError(
                f"{seed.pipeline}: {kind.__name__} needs a video to start from; it cannot make a first chunk"
            )
    if not can.video:
        fix = "give a motion adapter in its seed.json, or a pipeline that makes videos"
        raise ModelError(f"{seed.pipeline}: its pipeline makes pictures, not videos; {fix}")
    if seed.guidance_scale is not None and not can.guidance:
        raise ModelError(
            f"seed.guidance_scale={seed.guidance_scale}: the pipeline in {seed.pipeline} has none; leave it out"
        )
    if seed.image is False and can.image == "needed":
        raise ModelError(f"seed.image=False: the pipeline in {seed.pipeline} needs a picture; leave it out")
    for name, asks in (("image", seed.image), ("picture", seed.picture)):
        if asks and can.image == "no":
            raise ModelError(
                f"seed.{name}={asks!r}: the pipeline in {seed.pipeline} takes no picture; leave it out"
            )
    return seed if seed.image is not None else dataclasses.replace(seed, image=can.image != "no")


def unmet_files(kind: type) -> set[str]:
    """Return which of image and video a class cannot do without."""
    takes = inspect.signature(kind.__call__).parameters
    return {
        name
        for name in ("image", "video")
        if name in takes and takes[name].default is inspect.Parameter.empty
    }


def check_class(kind: type, folder: Path) -> None:
    """ModelError for a pipeline that needs what is not installed, or what no request can give."""
    if missing := missing_packages(kind):
        extra = (
            "pip install 'streamingt2v[bases]'"
            if missing == ("ftfy",)
            else f"pip install {' '.join(missing)}"
        )
        raise ModelError(f"{folder}: {kind.__name__} needs the package {', '.join(missing)}: {extra}")
    facts = family(kind)
    if facts.edits is not None:
        raise ModelError(f"{folder}: {kind.__name__} {facts.edits}; it makes no videos from a prompt")
    if lacking := unmet(kind):
        raise ModelError(f"{folder}: {kind.__name__} needs {', '.join(lacking)}, which no request has")


def redraws_from_keyframes(refine: RefineByConfig) -> bool:
    """Whether the pipeline is I2VGen-XL's, which starts from noisy latents and a picture."""
    return pipeline_class(Path(refine.pipeline)).__name__ == "I2VGenXLPipeline"


def check_refiner(refine: RefineByConfig) -> None:
    """ModelError unless its pipeline makes videos from videos and a strength, or from a picture as I2VGen-XL does."""
    kind = pipeline_class(Path(refine.pipeline))
    if refine.guidance_scale is not None and not abilities(kind).guidance:
        raise ModelError(
            f"refine_by.guidance_scale={refine.guidance_scale}: the pipeline in {refine.pipeline} has none; leave it out"
        )
    by_keyframes = redraws_from_keyframes(refine)
    for name in ("seam",) if by_keyframes else ("keyframes", "target_fps"):
        if (value := getattr(refine, name)) is not None:
            raise ModelError(
                f"refine_by.{name}={value!r}: the pipeline in {refine.pipeline} has none; leave it out"
            )
    if by_keyframes:
        return
    from .continuing import (
        redrawing_class,
        redraws,
    )  # imports torch, which a door without pipelines does without

    by_strength = redraws_videos(kind) or redrawing_class(kind) is not kind
    if by_strength or (redraws(kind) and refine.seam in (None, "steps")):
        return
    if redraws(kind):
        raise ModelError(
            f"refine_by.seam={refine.seam!r}: {kind.__name__} redraws step by step alone; leave it out"
        )
    raise ModelError(
        f"{refine.pipeline}: {kind.__name__} takes no video with a strength of noise, so it cannot refine"
    )


def seed_abilities(seed: SeedConfig) -> Abilities:
    """Those of the pipeline that makes the first chunk. ModelError if it is missing."""
    kind = pipeline_class(Path(str(seed.pipeline)))
    if seed.adapter is not None:
        from diffusers import AnimateDiffPipeline

        kind = AnimateDiffPipeline
        if not (Path(seed.adapter) / "config.json").is_file():
            raise ModelError(f"{seed.adapter} is no motion adapter: it has no config.json")
    return abilities(kind)
