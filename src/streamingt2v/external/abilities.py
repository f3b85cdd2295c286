"""Check what a pipeline of diffusers can do, from the signature of its class, before any weights load."""

import dataclasses
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..checkpoints.find import find_model, found_or_same, known_as
from ..checkpoints.packages import command, tokenizer_packages
from ..config.external import SeedConfig
from ..config.refine import RefineByConfig
from ..config.values import read_json
from ..errors import ModelError
from .families import (
    FRAME_COUNT,
    component_config,
    family,
    missing_packages,
    needed,
    redraws_videos,
    unmet,
)

SEED_FILE = "seed.json"
FROM_IMAGES = ("ImageToVideo", "I2VGenXL", "VideoToWorld")
"""Parts of the names of classes that refuse to run without an image, though their signature allows it."""


@dataclass(frozen=True)
class Abilities:
    """Inputs and output of a pipeline. video: it makes videos. image: whether it takes one to start from."""

    video: bool
    image: Literal["no", "optional", "needed"]
    guidance: bool


def abilities(kind: type) -> Abilities:
    """Return the abilities of a pipeline's class."""
    takes = inspect.signature(kind.__call__).parameters
    image: Literal["no", "optional", "needed"] = "optional" if "image" in takes else "no"
    if "image" in needed(kind) or ("image" in takes and any(word in kind.__name__ for word in FROM_IMAGES)):
        image = "needed"
    return Abilities(any(name in takes for name in FRAME_COUNT), image, "guidance_scale" in takes)


def pipeline_class(folder: Path) -> type:
    """Return the class that a pipeline folder names.

    ModelError if it is no such folder, or diffusers has no such class.
    """
    path = folder / "model_index.json"
    if not folder.exists() and known_as(str(folder)):
        find_model(str(folder))  # whose error names the command that gets it
    if not path.is_file():
        raise ModelError(f"{folder} is no pipeline of diffusers: it has no model_index.json")
    values = read_json(path)
    name = values.get("_class_name") if isinstance(values, dict) else None
    import diffusers  # slow to import

    kind = getattr(diffusers, str(name), None)
    if kind is None:
        raise ModelError(f"{path}: diffusers has no pipeline {name!r}")
    return kind


def read_base(folder: Path) -> SeedConfig:
    """Return a base's settings: its `seed.json`, which may name a pipeline elsewhere, or its pipeline."""
    own = SeedConfig.load(folder / SEED_FILE) if (folder / SEED_FILE).is_file() else SeedConfig()
    located = own.within(folder).with_paths(found_or_same)
    return located if own.pipeline is not None else dataclasses.replace(located, pipeline=str(folder))


def checked_seed(seed: SeedConfig) -> SeedConfig:
    """Check the settings of stage 1 against their pipelines; return them with `image` filled in.

    ModelError if they do not fit.
    """
    if seed.picture is not None:
        pipeline_class(Path(seed.picture))
    if seed.pipeline is None:
        return seed
    can = seed_abilities(seed)
    kind = pipeline_class(Path(seed.pipeline))
    if can.video:
        check_class(kind, Path(seed.pipeline))
        if "video" in needed(kind):
            fix = "needs a video to start from; it cannot make a first chunk"
            raise ModelError(f"{seed.pipeline}: {kind.__name__} {fix}")
    else:
        fix = "give a motion adapter in its seed.json, or a pipeline that makes videos"
        raise ModelError(f"{seed.pipeline}: its pipeline makes images, not videos; {fix}")
    if seed.guidance_scale is not None and not can.guidance:
        fix = f"the pipeline in {seed.pipeline} has none; leave it out"
        raise ModelError(f"seed.guidance_scale={seed.guidance_scale}: {fix}")
    if seed.image is False and can.image == "needed":
        raise ModelError(f"seed.image=False: the pipeline in {seed.pipeline} needs an image; leave it out")
    for name, asks in (("image", seed.image), ("picture", seed.picture)):
        if asks and can.image == "no":
            raise ModelError(
                f"seed.{name}={asks!r}: the pipeline in {seed.pipeline} takes no image; leave it out"
            )
    return seed if seed.image is not None else dataclasses.replace(seed, image=can.image != "no")


def check_class(kind: type, folder: Path) -> None:
    """Raise ModelError for a pipeline that needs a missing package, or an argument no request has."""
    if missing := [*missing_packages(kind), *tokenizer_packages(folder)]:
        names = ", ".join(missing)
        raise ModelError(f"{folder}: {kind.__name__} needs the package {names}: {command(missing)}")
    facts = family(kind)
    if facts.edits is not None:
        raise ModelError(f"{folder}: {kind.__name__} {facts.edits}; it makes no videos from a prompt")
    if lacking := unmet(kind):
        raise ModelError(f"{folder}: {kind.__name__} needs {', '.join(lacking)}, which no request has")


def check_steps(folder: Path, steps: int | None, fixed: bool = False) -> None:
    """Raise ModelError for a number of denoising steps that a folder's pipeline cannot make; None is its own
    number.

    fixed: refuse any number for a pipeline whose steps cannot be chosen. Asks the scheduler, without weights.
    """
    if steps is None:
        return
    kind = pipeline_class(folder)
    if "num_inference_steps" not in inspect.signature(kind.__call__).parameters:
        if fixed:
            raise ModelError(f"{kind.__name__} has a fixed list of steps; leave it out")
        return
    if steps < (least := family(kind).least_steps):
        raise ModelError(f"{kind.__name__} makes {least} steps or more")
    config = component_config(folder, "scheduler")
    import diffusers  # slow to import

    scheduler = getattr(diffusers, str(config.get("_class_name")), None)
    if scheduler is None or config.get("use_dynamic_shifting"):  # its steps depend on the size too
        return
    try:
        scheduler.from_config(config).set_timesteps(steps)
    except (ValueError, ArithmeticError, LookupError) as error:
        fix = f"{scheduler.__name__} of {kind.__name__} cannot make them"
        raise ModelError(f"{fix}: {' '.join(str(error).split())}") from error


def redraws_from_keyframes(refine: RefineByConfig) -> bool:
    """Tell whether the pipeline is I2VGen-XL, which starts from noisy latents and an image."""
    return pipeline_class(Path(refine.pipeline)).__name__ == "I2VGenXLPipeline"


def check_refiner(refine: RefineByConfig) -> None:
    """Raise ModelError unless the pipeline can refine as configured."""
    kind = pipeline_class(Path(refine.pipeline))
    if refine.guidance_scale is not None and not abilities(kind).guidance:
        raise _unused("guidance_scale", refine)
    by_keyframes = redraws_from_keyframes(refine)
    for name in ("seam",) if by_keyframes else ("keyframes", "target_fps"):
        if getattr(refine, name) is not None:
            raise _unused(name, refine)
    if by_keyframes:
        return
    from .continuing import redrawing_class, redraws  # imports torch

    by_strength = redraws_videos(kind) or redrawing_class(kind) is not kind
    if by_strength or (redraws(kind) and refine.seam in (None, "steps")):
        return
    if redraws(kind):
        raise ModelError(
            f"refine_by.seam={refine.seam!r}: {kind.__name__} can blend at every step only; leave it out"
        )
    raise ModelError(
        f"{refine.pipeline}: {kind.__name__} takes no video with a strength of noise, so it cannot refine"
    )


def _unused(name: str, refine: RefineByConfig) -> ModelError:
    value = getattr(refine, name)
    return ModelError(f"refine_by.{name}={value!r}: the pipeline in {refine.pipeline} has none; leave it out")


def seed_abilities(seed: SeedConfig) -> Abilities:
    """Return the abilities of the pipeline that makes the first chunk. ModelError if it is missing."""
    kind = pipeline_class(Path(str(seed.pipeline)))
    if seed.adapter is not None:
        from diffusers import AnimateDiffPipeline

        kind = AnimateDiffPipeline
        if not (Path(seed.adapter) / "config.json").is_file():
            raise ModelError(f"{seed.adapter} is no motion adapter: it has no config.json")
    return abilities(kind)
