"""Find models; make a model configuration for a folder of a diffusers pipeline, which has no `model.json`."""

import inspect
from dataclasses import replace
from pathlib import Path

from ..checkpoints.find import find_model, locate, misused
from ..config import ExtendConfig, ModelConfig
from ..config.external import ExtendByConfig
from ..errors import ModelError
from . import families
from .abilities import abilities, check_class, pipeline_class
from .continuing import WAYS, sibling, ways

LARGEST_CROSSFADE = 4


def read_model(name_or_folder: str | Path) -> tuple[Path, ModelConfig]:
    """Return folder and configuration of a model, by its name, hub id or folder.

    ModelError if it is missing or broken. No weights are read.
    """
    if wrong := misused(str(name_or_folder), "model"):
        raise ModelError(f"{name_or_folder} {wrong}")
    folder = find_model(name_or_folder)
    if (folder / "model.json").is_file() or not (folder / "model_index.json").is_file():
        return folder, locate(ModelConfig.load(folder))
    config = pipeline_model(folder)
    named = Path(name_or_folder).exists()  # a folder of the hub's cache is named by its commit
    return folder, config if named else replace(config, name=str(name_or_folder))


def pipeline_model(folder: Path) -> ModelConfig:
    """Return a pipeline folder's configuration as a model: its own size, rate and chunk length.

    ModelError if the pipeline makes no videos, cannot continue one, lacks a package, or needs what no request
    has.
    """
    kind = pipeline_class(folder)
    check_class(kind, folder)
    can = abilities(kind)
    if not can.video:
        raise ModelError(f"{folder}: {kind.__name__} makes images, not videos")
    if not ways(_sibling(folder, kind)):
        fix = "use it for the first chunk with --base"
        raise ModelError(f"{folder}: {kind.__name__} cannot continue a video; {fix}")
    multiple = families.folder_multiple(folder, kind)
    height, width = (side // multiple * multiple for side in families.folder_size(folder, kind) or (512, 512))
    extend = _extend(folder, kind, can.guidance)
    takes = inspect.signature(kind.__call__).parameters
    network = families.component_config(folder, "transformer", "unet")
    by = ExtendByConfig(
        str(folder.absolute()),
        image=can.image,
        negative_prompt="negative_prompt" in takes and families.family(kind).negative,
        multiple=multiple,
        free_size=not network.get("use_learned_positional_embeddings"),
    )
    return ModelConfig(
        folder.name,
        height,
        width,
        families.default_fps(kind),
        extend,
        backbone="pipeline",
        guidance=can.guidance,
        extend_by=by,
    )


def way_of(config: ModelConfig, how: str | None = None) -> str:
    """Return the name of the way to continue: the one asked for, the configured one, or the pipeline's best.

    ModelError for one that the pipeline does not have.
    """
    assert config.extend_by is not None, "a model that is a pipeline"
    folder = Path(config.extend_by.pipeline)
    kind = pipeline_class(folder)
    has = dict.fromkeys((*ways(_sibling(folder, kind)), *ways(kind)))
    wanted = how or config.extend_by.how
    if wanted is not None and wanted not in has:
        raise ModelError(f"{kind.__name__} cannot continue by {wanted!r}; it has {', '.join(has)}")
    return wanted or next(iter(has))


def told(way: str) -> str:
    """Describe a way to continue, as the end of a sentence."""
    return WAYS[way].help


def _sibling(folder: Path, kind: type) -> type:
    return sibling(kind, families.component_config(folder, "scheduler"))


def _extend(folder: Path, kind: type, guidance: bool) -> ExtendConfig:
    """Return chunks as long as the pipeline's own clips, each half of it overlap."""
    ratio = families.folder_ratio(folder)
    network = families.component_config(folder, "transformer", "unet")
    own = families.default_frames(kind) or network.get("num_frames") or network.get("sample_frames") or 16
    frames = max(3, (int(own) - 1) // ratio * ratio + 1) if ratio > 1 else max(2, int(own))
    overlap = max(1, (frames // 2 - 1) // ratio * ratio + 1) if ratio > 1 else frames // 2
    crossfade = min(LARGEST_CROSSFADE, overlap - 1, frames - overlap - 1) // ratio * ratio
    return ExtendConfig(frames, overlap, guidance_scale=7.5 if guidance else 1.0, crossfade=max(0, crossfade))
