"""Facts about diffusers' video pipelines, from signatures, configurations and a table."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..config.values import read_json

FRAME_COUNT = ("num_frames", "video_length", "frames")
"""Names that pipelines have for the number of frames."""
GIVEN = {
    "prompt", "image", "video", "negative_prompt", "height", "width", "strength", "generator", *FRAME_COUNT,
}  # fmt: skip
"""Arguments that a request has a value for."""


@dataclass(frozen=True)
class Family:
    """Facts about a family of pipelines.

    packages: modules that its classes use without checking for them. fps: playback rate of its videos.
    negative: a negative prompt has an effect. edits: what its classes do instead of making videos, None if
    they make videos. least_steps: the fewest denoising steps that it can make. frames, size: what its classes
    make if none is asked for, where their signature does not tell.
    """

    packages: tuple[str, ...] = ()
    fps: int | None = None
    negative: bool = True
    edits: str | None = None
    least_steps: int = 1
    frames: int | None = None
    size: tuple[int, int] | None = None


COSMOS = ("cosmos_guardrail", "torchvision")
FAMILIES: dict[str, Family] = {
    "WanAnimate": Family(("ftfy",), 30, edits="animates a character after a pose video"),
    "WanVideoToVideo": Family(("ftfy",), 16),
    "WanImageToVideo": Family(("ftfy",), 16),
    "WanVACE": Family(("ftfy",), 16),
    "Wan": Family((), 16),
    "LucyEdit": Family(("ftfy",), 24, edits="edits a video"),
    "ChronoEdit": Family(("ftfy",), 16, edits="edits an image"),
    "SkyReelsV2": Family(("ftfy",), 24),
    "Helios": Family(("ftfy",), 24),
    "AnyFlow": Family((), 16),
    "LTX2LatentUpsample": Family((), 24, edits="enlarges latents"),
    "LTX2DFRTemporalRefine": Family((), 24, edits="refines a video"),
    "LTX2HDR": Family((), 24, edits="follows a reference video"),
    "LTX2": Family((), 24, frames=121),
    "LTX": Family((), 25),
    "CogVideoXFunControl": Family((), 8, edits="follows a control video"),
    "ConsisID": Family((), 8, edits="keeps a face, for which it needs further models"),
    "CogVideoX": Family((), 8),
    "HunyuanVideo15": Family((), 24),
    "HunyuanVideo": Family((), 24, negative=False),
    "HunyuanSkyreels": Family((), 24),
    "Cosmos2_5_Transfer": Family(COSMOS, 16, edits="follows a control video"),
    "Cosmos2VideoToWorld": Family(COSMOS, 16, least_steps=2),  # its only step would be one without noise
    "Cosmos2": Family(COSMOS, 16),
    "Cosmos3": Family(COSMOS, 24, frames=189, size=(720, 1280)),
    "Cosmos": Family(COSMOS, 30),
    "Mochi": Family((), 30, least_steps=2, size=(480, 848)),
    "Motif": Family((), 24),
    "Allegro": Family((), 15),
    "Latte": Family((), 8),
    "EasyAnimateControl": Family((), 8, edits="follows a control video"),
    "EasyAnimate": Family((), 8),
    "Kandinsky5": Family((), 24),
    "SanaVideo": Family((), 16),
    "SanaImageToVideo": Family((), 16),
    "SanaWM": Family((), 16, edits="follows a camera path"),
    "AnimateDiffControlNet": Family((), 8, edits="follows a control video"),
    "AnimateDiffSparseControlNet": Family((), 8, edits="follows given frames"),
    "AnimateDiffVideoToVideoControlNet": Family((), 8, edits="follows a control video"),
    "AnimateDiff": Family((), 8),
    "StableVideoDiffusion": Family((), 7),
    "I2VGenXL": Family((), 16),
    "PIA": Family((), 8),
    "TextToVideoSD": Family((), 8),
    "VideoToVideoSD": Family((), 8),
}
"""By the beginning of a class's name. The first match counts, so special cases stand before their family."""


def family(kind: type) -> Family:
    """Return the facts about a class; the defaults if it is unknown."""
    return next((facts for name, facts in FAMILIES.items() if kind.__name__.startswith(name)), Family())


def missing_packages(kind: type) -> tuple[str, ...]:
    """Return the packages that a class needs and that are not installed."""
    return tuple(name for name in family(kind).packages if find_spec(name) is None)


def unmet(kind: type) -> tuple[str, ...]:
    """Return the arguments without a default that no request has a value for."""
    return tuple(name for name in needed(kind) if name not in GIVEN)


def needed(kind: type) -> dict[str, None]:
    """Return the names of a class's arguments without a default, in order."""
    takes = list(inspect.signature(kind.__call__).parameters.values())[1:]
    return {p.name: None for p in takes if p.default is p.empty and p.kind is not p.VAR_KEYWORD}


def redraws_videos(kind: type) -> bool:
    """Tell whether a class refines videos by a strength of noise, not by that of a condition."""
    takes = inspect.signature(kind.__call__).parameters
    return {"video", "strength"} <= takes.keys() and "conditions" not in takes and family(kind).edits is None


def default_size(kind: type) -> tuple[int, int] | None:
    """Return a class's default (height, width); None if they depend on its network."""
    takes = inspect.signature(kind.__call__).parameters
    height, width = (takes[name].default if name in takes else None for name in ("height", "width"))
    return (height, width) if isinstance(height, int) and isinstance(width, int) else family(kind).size


def folder_size(folder: Path, kind: type) -> tuple[int, int] | None:
    """Return the (height, width) that a folder's pipeline makes by default; None if its files do not say."""
    own = default_size(kind)
    if own is not None:
        return own
    network = component_config(folder, "transformer", "unet")
    if area := network.get("target_size"):  # HunyuanVideo 1.5: the side of a square as large as its 16:9
        return int(area * 3 / 4) // 16 * 16, int(area * 4 / 3) // 16 * 16
    square = network.get("sample_size")
    height, width = network.get("sample_height") or square, network.get("sample_width") or square
    if isinstance(square, list | tuple):
        height, width = square
    if not height or not width:
        return None
    vae = component_config(folder, "vae")
    packed = vae.get("spatial_compression_ratio") or vae.get("scale_factor_spatial")
    factor = int(packed) if packed else 2 ** (len(vae.get("block_out_channels") or [0] * 4) - 1)
    return int(height) * factor, int(width) * factor


def default_frames(kind: type) -> int | None:
    """Return a class's default number of frames; None if it depends on its network."""
    takes = inspect.signature(kind.__call__).parameters
    counts = (takes[name].default for name in FRAME_COUNT if name in takes)
    return next((count for count in counts if isinstance(count, int)), family(kind).frames)


def default_fps(kind: type) -> int:
    """Return the playback rate of a class's videos."""
    takes = inspect.signature(kind.__call__).parameters
    for name in ("frame_rate", "fps"):
        if name in takes and isinstance(takes[name].default, int | float):
            return round(takes[name].default)
    return family(kind).fps or 8


def folder_ratio(folder: Path) -> int:
    """Return how many frames a folder's autoencoder packs into a latent frame."""
    return ratio_of(component_config(folder, "vae"))


def folder_multiple(folder: Path, kind: type) -> int:
    """Return the number that height and width of a folder's videos must be multiples of."""
    if kind.__name__.startswith(("LTX", "SanaVideo", "SanaImageToVideo")):
        return 32
    return 16 if kind.__name__.startswith("Cosmos") or folder_ratio(folder) > 1 else 8


def ratio_of(config: Mapping[str, Any]) -> int:
    """Read the temporal ratio from an autoencoder's configuration; 1 if it has none."""
    for name in ("temporal_compression_ratio", "scale_factor_temporal"):
        if isinstance(config.get(name), int):
            return int(config[name])
    if config.get("_class_name") == "AutoencoderKLMagvit":
        return 4
    for name in ("temperal_downsample", "spatio_temporal_scaling"):
        if name in config:
            return int(2 ** sum(bool(part) for part in config[name])) * int(config.get("patch_size_t") or 1)
    if "temporal_expansions" in config:
        return math.prod(config["temporal_expansions"])
    return 1


def component_config(folder: Path, *names: str) -> dict[str, Any]:
    """Return the configuration of the first of these components in a pipeline folder, or {}.

    ModelError if the file is damaged.
    """
    for name in names:
        path = folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")
        values = read_json(path) if path.is_file() else None
        if isinstance(values, dict) and values:
            return values
    return {}
