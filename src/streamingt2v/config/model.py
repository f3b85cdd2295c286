"""Model configuration: the contents of `model.json`. Frozen dataclasses, nothing heavy imported."""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

from .. import durable
from ..errors import ModelError, RequestError
from .external import ExtendByConfig, SeedConfig, SvdConfig
from .refine import RefineByConfig, RefineConfig
from .request import Preset
from .values import check_fields, check_sampling, read_json, reject_unknown, require

Backbone = Literal["modelscope", "svd", "pipeline"]
BACKBONES: tuple[Backbone, ...] = ("modelscope", "svd", "pipeline")
_LOCATED = ("seed", "refine_by", "extend_by")
_OPTIONAL: dict[str, Any] = {
    "refine": RefineConfig,
    "svd": SvdConfig,
    "seed": SeedConfig,
    "refine_by": RefineByConfig,
    "extend_by": ExtendByConfig,
}
EMBEDDED = ("tiny",)
"""Models included in the package."""


@dataclass(frozen=True)
class ExtendConfig:
    """Stages 1 and 2: chunk length and overlap in frames, steps, guidance, eta (method.md: Sampling).

    guidance_rescale: pulls the guided prediction's spread back to the conditional one's (0..1). anchor: frame
    of the first chunk that APM keeps the appearance from. sigmas: descending noise levels that the steps
    interpolate logarithmically; empty for the scheduler's. mixed_noise: share of noise common to all frames,
    as in training, see `samplers.noise`. time_guidance: guidance away from frames predicted alone, see
    `guidance.steadied`; 0 for none. crossfade: frames at a chunk's end that fade into the next chunk's, see
    `stages.extend.faded`; 0 as published. Raise ModelError for invalid values.
    """

    frames: int = 16
    overlap: int = 8
    steps: int = 50
    guidance_scale: float = 7.5
    guidance_rescale: float = 0.0
    eta: float = 1.0
    anchor: int = 0
    sigmas: tuple[float, ...] = ()
    mixed_noise: float = 0.0
    time_guidance: float = 0.0
    crossfade: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(self.sigmas))  # JSON has lists
        check_sampling("extend", self.steps, self.guidance_scale, self.guidance_rescale)
        below, most = f"below extend.frames={self.frames}", min(self.overlap, self.frames - self.overlap - 1)
        steady = math.isfinite(self.time_guidance) and self.time_guidance >= 0
        falling = all(a > b > 0 for a, b in pairwise(self.sigmas)) and len(self.sigmas) != 1
        check_fields(
            "extend.",
            self,
            overlap=(1 <= self.overlap < self.frames, f"at least 1 and {below}"),
            eta=(0 <= self.eta <= 1, "between 0 and 1"),
            mixed_noise=(0 <= self.mixed_noise < 1, "0 or more and below 1"),
            time_guidance=(steady, "finite, 0 or more"),
            crossfade=(
                0 <= self.crossfade <= most,
                f"0 to {most}, within the overlap and below the new frames",
            ),
            anchor=(0 <= self.anchor < self.frames, f"0 or more and {below}"),
            sigmas=(falling, "empty, or two and more numbers above 0, each below the one before"),
        )


@dataclass(frozen=True)
class ModelConfig:
    """`model.json`: native size, frame rate and each stage's settings. Raise ModelError for invalid values.

    refine: stage 3 by a network of the model; refine_by: by a diffusers pipeline; both None: no stage 3.
    backbone: the network of stage 2, ModelScope's or Stable Video Diffusion's, which starts from an image and
    reads no text (only it has `svd` settings), or "pipeline": a diffusers pipeline makes all chunks as
    `extend_by` says. seed: None if the network makes the first chunk from the text. guidance: whether stages
    1 and 2 use a guidance scale and negative prompt; a guidance-distilled network does not. Sides are even,
    since video files halve them for colour.
    """

    name: str
    height: int
    width: int
    fps: int
    extend: ExtendConfig = field(default_factory=ExtendConfig)
    refine: RefineConfig | None = None
    backbone: Backbone = "modelscope"
    svd: SvdConfig | None = None
    seed: SeedConfig | None = None
    refine_by: RefineByConfig | None = None
    guidance: bool = True
    extend_by: ExtendByConfig | None = None

    def __post_init__(self) -> None:
        kind, by_pipeline = f"backbone {self.backbone!r}", self.backbone == "pipeline"
        check_fields(
            "",
            self,
            backbone=(self.backbone in BACKBONES, f"one of {', '.join(BACKBONES)}"),
            refine_by=(self.refine is None or self.refine_by is None, "left out where there is refine"),
            svd=(self.svd is None or self.backbone == "svd", f"left out for {kind}"),
            extend_by=((self.extend_by is not None) == by_pipeline, "given for backbone 'pipeline' alone"),
            seed=(not by_pipeline or self.seed is None, "left out where a pipeline makes all chunks"),
            guidance=(isinstance(self.guidance, bool), "true or false"),
            height=(self.height >= 2 and self.height % 2 == 0, "an even number, 2 or more"),
            width=(self.width >= 2 and self.width % 2 == 0, "an even number, 2 or more"),
            fps=(self.fps >= 1, "1 or more"),
        )
        plain = self.guidance or (self.extend.guidance_scale == 1 and not self.extend.time_guidance)
        steady = self.extend.time_guidance == 0 or self.backbone == "modelscope"
        alone = "1, without time_guidance, for a model without guidance"
        check_fields(
            "extend.", self.extend, guidance_scale=(plain, alone), time_guidance=(steady, f"0 for {kind}")
        )
        seeds = self.seed is None or self.seed.pipeline is not None or self.backbone == "svd"
        require(seeds, "seed.pipeline", None, "given: this model's network does not start from an image")

    def size(self, preset: Preset) -> tuple[int, int]:
        """Return (height, width) of a preset's frames."""
        refine = self.refine or self.refine_by
        return (
            refine.size(self.height, self.width) if preset == "full" and refine else (self.height, self.width)
        )

    @property
    def refines(self) -> bool:
        """Return whether the model has stage 3."""
        return self.refine is not None or self.refine_by is not None

    @property
    def reads_text(self) -> bool:
        """Return whether prompts reach the chunks of stage 2."""
        return self.backbone != "svd"

    @property
    def reads_negative_prompt(self) -> bool:
        """Return whether negative prompts reach the chunks of stage 2."""
        return self.reads_text and (
            self.guidance if self.extend_by is None else self.extend_by.negative_prompt
        )

    @property
    def reads_image(self) -> bool:
        """Return whether stage 1 generates from an image; otherwise the image itself is frame 0."""
        if self.seed is not None and self.seed.pipeline is not None:
            return bool(self.seed.image)
        if self.extend_by is not None:
            return self.extend_by.image != "no"
        return self.backbone == "svd"

    def save(self, folder: Path, place: Path | None = None) -> None:
        """Write `model.json`. place: the final folder, which paths are relative to; None for `folder`."""
        values = dataclasses.asdict(self._each_located(lambda own: own.relative_to(place or folder)))
        durable.write_file(folder / "model.json", (json.dumps(values, indent=2) + "\n").encode())

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """Return the configuration with every name of a pipeline changed."""
        return self._each_located(lambda own: own.with_paths(change))

    def _each_located(self, change: Callable[[Any], Any]) -> Self:
        own = {name: change(part) for name in _LOCATED if (part := getattr(self, name)) is not None}
        return dataclasses.replace(self, **own)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `model.json`; raise ModelError if it is missing or has invalid JSON, names or values."""
        path = folder / "model.json"
        if not path.is_file():
            raise ModelError(f"{folder} is not a model folder: it has no model.json")
        values = read_json(path)
        if not isinstance(values, dict):
            raise ModelError(f"{path}: must be a JSON object")
        try:
            reject_unknown(cls, values, "model.json")
            extend = ExtendConfig(**values.pop("extend", {}))
            given = {name: values.pop(name, None) for name in _OPTIONAL}
            parts = {name: _OPTIONAL[name](**part) for name, part in given.items() if part is not None}
            return cls(**values, extend=extend, **parts)._each_located(lambda own: own.within(folder))
        except (TypeError, AttributeError, RequestError, ModelError) as error:
            raise ModelError(f"{path}: {error}") from error


def find_model(name_or_folder: str | Path) -> Path:
    """Return the folder of an embedded model, or the folder itself; raise ModelError if there is neither."""
    embedded = str(name_or_folder) in EMBEDDED
    within = files("streamingt2v") / "weights" / str(name_or_folder)
    folder = Path(str(within)) if embedded else Path(name_or_folder)
    if not str(name_or_folder).strip() or not folder.is_dir():  # an empty name would be this folder
        raise ModelError(
            f"no model {str(name_or_folder)!r}: give a name of `streamingt2v models`, an id of the hub"
            " (OWNER/REPOSITORY), or a model folder"
        )
    return folder
