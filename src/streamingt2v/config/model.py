"""How a model works: what the file `model.json` of a model folder holds. Frozen dataclasses, nothing heavy imported."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from .. import durable
from ..errors import ModelError, RequestError
from .external import ExtendByConfig, SeedConfig, SvdConfig
from .refine import RefineByConfig, RefineConfig
from .request import Preset
from .values import check_sampling, read_json, reject_unknown, require

Backbone = Literal["modelscope", "svd", "pipeline"]
BACKBONES: tuple[Backbone, ...] = ("modelscope", "svd", "pipeline")
EMBEDDED = ("tiny",)
"""Models that come with the package."""


@dataclass(frozen=True)
class ExtendConfig:
    """Stages 1 and 2: chunk length and overlap in frames, denoising steps, guidance, and eta of the solver (method.md: Chunks, Sampling).

    `guidance_rescale` (0..1) pulls the guided prediction's spread back to the conditional one's. anchor: which frame of the
    first chunk appearance is kept from. sigmas: noise levels, descending and above 0, through which the steps are laid evenly in the
    logarithm; empty for the scheduler's own. mixed_noise: part of the noise that all frames share, as the networks were trained, see
    `samplers.noise`. time_guidance: how far a chunk is led away from what each frame would be alone, see `guidance.steadied`; 0 for not.
    crossfade: how many frames at the end of a chunk turn into what the next one shows in their place, see `stages.extend.faded`; 0, as
    published: none.
    ModelError for values that make no sense.
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
        require(
            1 <= self.overlap < self.frames,
            "extend.overlap",
            self.overlap,
            f"at least 1 and below extend.frames={self.frames}",
        )
        check_sampling("extend", self.steps, self.guidance_scale, self.guidance_rescale)
        require(0 <= self.eta <= 1, "extend.eta", self.eta, "between 0 and 1")
        require(0 <= self.mixed_noise < 1, "extend.mixed_noise", self.mixed_noise, "0 or more and below 1")
        sensible = math.isfinite(self.time_guidance) and self.time_guidance >= 0
        require(sensible, "extend.time_guidance", self.time_guidance, "finite, 0 or more")
        most = min(self.overlap, self.frames - self.overlap - 1)
        require(
            0 <= self.crossfade <= most,
            "extend.crossfade",
            self.crossfade,
            f"0 to {most}, within the overlap and below the new frames",
        )
        require(
            0 <= self.anchor < self.frames,
            "extend.anchor",
            self.anchor,
            f"0 or more and below extend.frames={self.frames}",
        )
        object.__setattr__(self, "sigmas", tuple(self.sigmas))  # JSON has lists
        falling = all(a > b > 0 for a, b in pairwise(self.sigmas)) and len(self.sigmas) != 1
        require(
            falling,
            "extend.sigmas",
            self.sigmas,
            "empty, or two and more numbers above 0, each below the one before",
        )


@dataclass(frozen=True)
class ModelConfig:
    """`model.json` of a model folder: its native size and rate, and each stage's settings.

    refine: stage 3 by a network of its own; refine_by: by a pipeline of diffusers; both None: it has no stage 3.
    backbone: the network of stage 2: ModelScope's, or that of Stable Video Diffusion, which starts from an image and reads no text (`svd`
    is for that one alone); or "pipeline", where a pipeline of diffusers makes all chunks, as `extend_by` says. seed: None where the
    network makes the first chunk from the text by itself. guidance: whether stages 1 and 2 read a guidance scale and a negative
    prompt; a network that was distilled with its guidance does not.

    ModelError for values that make no sense; sides are even, since video files halve them for colour.
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
        require(self.backbone in BACKBONES, "backbone", self.backbone, f"one of {', '.join(BACKBONES)}")
        require(
            self.refine is None or self.refine_by is None,
            "refine_by",
            self.refine_by,
            "left out where there is refine",
        )
        require(
            self.svd is None or self.backbone == "svd",
            "svd",
            self.svd,
            f"left out for backbone {self.backbone!r}",
        )
        by_pipeline = self.backbone == "pipeline"
        require(
            (self.extend_by is not None) == by_pipeline,
            "extend_by",
            self.extend_by,
            "given for backbone 'pipeline' alone",
        )
        require(
            not by_pipeline or self.seed is None,
            "seed",
            self.seed,
            "left out where a pipeline makes all chunks",
        )
        require(isinstance(self.guidance, bool), "guidance", self.guidance, "true or false")
        plain = self.guidance or (self.extend.guidance_scale == 1 and not self.extend.time_guidance)
        require(
            plain,
            "extend.guidance_scale",
            self.extend.guidance_scale,
            "1, without time_guidance, for a model without guidance",
        )
        steady = self.extend.time_guidance == 0 or self.backbone == "modelscope"
        require(
            steady, "extend.time_guidance", self.extend.time_guidance, f"0 for backbone {self.backbone!r}"
        )
        seeds = self.seed is None or self.seed.pipeline is not None or self.backbone == "svd"
        require(seeds, "seed.pipeline", None, "given: the network of this model starts from no picture")
        for name, side in (("height", self.height), ("width", self.width)):
            require(side >= 2 and side % 2 == 0, name, side, "an even number, 2 or more")
        require(self.fps >= 1, "fps", self.fps, "1 or more")

    def size(self, preset: Preset) -> tuple[int, int]:
        """(height, width) of the frames that a preset gives."""
        refine = self.refine or self.refine_by
        return (
            refine.size(self.height, self.width) if preset == "full" and refine else (self.height, self.width)
        )

    @property
    def reads_text(self) -> bool:
        """Whether prompts reach the chunks of stage 2."""
        return self.backbone != "svd"

    @property
    def reads_negative_prompt(self) -> bool:
        """Whether negative prompts reach the chunks of stage 2."""
        return self.reads_text and (
            self.guidance if self.extend_by is None else self.extend_by.negative_prompt
        )

    @property
    def reads_image(self) -> bool:
        """Whether stage 1 makes its chunk from an image where there is one; else the image is frame 0."""
        if self.seed is not None and self.seed.pipeline is not None:
            return bool(self.seed.image)
        if self.extend_by is not None:
            return self.extend_by.image != "no"
        return self.backbone == "svd"

    def save(self, folder: Path, place: Path | None = None) -> None:
        """Write `model.json`. place: the folder that it will be in, None for `folder`; it names others' pipelines from there."""
        seed = self.seed and self.seed.relative_to(place or folder)
        refine_by = self.refine_by and self.refine_by.relative_to(place or folder)
        extend_by = self.extend_by and self.extend_by.relative_to(place or folder)
        values = dataclasses.asdict(
            dataclasses.replace(self, seed=seed, refine_by=refine_by, extend_by=extend_by)
        )
        durable.write_file(folder / "model.json", (json.dumps(values, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> ModelConfig:
        """Read `model.json`; ModelError if it is missing or broken, or holds unknown names or values that make no sense."""
        path = folder / "model.json"
        if not path.is_file():
            raise ModelError(f"{folder} is no model folder: it has no model.json")
        values = read_json(path)
        if not isinstance(values, dict):
            raise ModelError(f"{path}: must be an object of JSON")
        try:
            reject_unknown(cls, values, "model.json")
            extend = ExtendConfig(**values.pop("extend", {}))
            optional: dict[str, Any] = {
                "refine": RefineConfig,
                "svd": SvdConfig,
                "seed": SeedConfig,
                "refine_by": RefineByConfig,
                "extend_by": ExtendByConfig,
            }
            parts: dict[str, Any] = {}
            for name, kind in optional.items():
                if (part := values.pop(name, None)) is not None:
                    parts[name] = kind(**part)
            for name in parts.keys() & {"seed", "refine_by", "extend_by"}:
                parts[name] = parts[name].within(folder)
            return cls(**values, extend=extend, **parts)
        except (TypeError, AttributeError, RequestError, ModelError) as error:
            raise ModelError(f"{path}: {error}") from error


def find_model(name_or_folder: str | Path) -> Path:
    """The folder of an embedded model's name, or the folder itself; ModelError if there is neither."""
    embedded = str(name_or_folder) in EMBEDDED
    folder = (
        Path(str(files("streamingt2v") / "weights" / str(name_or_folder)))
        if embedded
        else Path(name_or_folder)
    )
    if not folder.is_dir():
        raise ModelError(
            f"no model {str(name_or_folder)!r}: give {' or '.join(EMBEDDED)}, or a folder with a model.json"
        )
    return folder
