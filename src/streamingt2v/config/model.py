"""How a model works: what the file `model.json` of a model folder holds. Frozen dataclasses, nothing heavy imported."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.util import find_spec
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any, Literal

from .. import durable
from ..errors import MissingExtra, ModelError, RequestError
from .external import SeedConfig, SvdConfig
from .refine import RefineByConfig, RefineConfig
from .request import Request
from .values import check_sampling, read_json, reject_unknown, require

Backbone = Literal["modelscope", "svd"]
BACKBONES: tuple[Backbone, ...] = ("modelscope", "svd")
EMBEDDED = ("tiny",)
"""Models that come with the package."""


@dataclass(frozen=True)
class FastConfig:
    """A model's distilled network, in its folder `fast`: `steps` a chunk, guidance in its weights. ModelError for other values."""

    steps: int = 4

    def __post_init__(self) -> None:
        require(1 <= self.steps <= 1000, "fast.steps", self.steps, "between 1 and 1000")


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
        require(1 <= self.overlap < self.frames, "extend.overlap", self.overlap, f"at least 1 and below extend.frames={self.frames}")
        check_sampling("extend", self.steps, self.guidance_scale, self.guidance_rescale)
        require(0 <= self.eta <= 1, "extend.eta", self.eta, "between 0 and 1")
        require(0 <= self.mixed_noise < 1, "extend.mixed_noise", self.mixed_noise, "0 or more and below 1")
        sensible = math.isfinite(self.time_guidance) and self.time_guidance >= 0
        require(sensible, "extend.time_guidance", self.time_guidance, "finite, 0 or more")
        most = min(self.overlap, self.frames - self.overlap - 1)
        require(
            0 <= self.crossfade <= most, "extend.crossfade", self.crossfade, f"0 to {most}, within the overlap and below the new frames"
        )
        require(0 <= self.anchor < self.frames, "extend.anchor", self.anchor, f"0 or more and below extend.frames={self.frames}")
        object.__setattr__(self, "sigmas", tuple(self.sigmas))  # JSON has lists
        falling = all(a > b > 0 for a, b in pairwise(self.sigmas)) and len(self.sigmas) != 1
        require(falling, "extend.sigmas", self.sigmas, "empty, or two and more numbers above 0, each below the one before")


@dataclass(frozen=True)
class ModelConfig:
    """`model.json` of a model folder: its native size and rate, and each stage's settings.

    refine: stage 3 by a network of its own; refine_by: by a pipeline of diffusers; both None: it has no stage 3.
    backbone: the network of stage 2, ModelScope's or that of Stable Video Diffusion, which starts from a picture and reads no text; `svd`
    is for that one alone. seed: None where the network makes the first chunk from the text by itself. fast: see `is_fast`.

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
    fast: FastConfig | None = None

    def __post_init__(self) -> None:
        require(self.backbone in BACKBONES, "backbone", self.backbone, f"one of {', '.join(BACKBONES)}")
        require(self.refine is None or self.refine_by is None, "refine_by", self.refine_by, "left out where there is refine")
        require(self.svd is None or self.backbone == "svd", "svd", self.svd, f"left out for backbone {self.backbone!r}")
        require(self.fast is None or self.backbone == "modelscope", "fast", self.fast, f"left out for backbone {self.backbone!r}")
        steady = self.extend.time_guidance == 0 or self.backbone == "modelscope"
        require(steady, "extend.time_guidance", self.extend.time_guidance, f"0 for backbone {self.backbone!r}")
        seeds = self.seed is None or self.seed.pipeline is not None or self.backbone == "svd"
        require(seeds, "seed.pipeline", None, "given: the network of this model starts from no picture")
        for name, side in (("height", self.height), ("width", self.width)):
            require(side >= 2 and side % 2 == 0, name, side, "an even number, 2 or more")
        require(self.fps >= 1, "fps", self.fps, "1 or more")

    def output_size(self, request: Request) -> tuple[int, int]:
        """(height, width) of the frames that a request gives."""
        refine = self.refine or self.refine_by
        return refine.size(self.height, self.width) if request.preset == "full" and refine else (self.height, self.width)

    def check(self, request: Request) -> None:
        """RequestError where the request is wrong or this model cannot do it; needs no weights."""
        request.validate()
        if request.preset == "full" and self.refine is None and self.refine_by is None:
            raise RequestError("preset", "full", f"model {self.name!r} has no refiner; use preview")
        if self.refine_by is not None:
            if request.form is not None:
                fix = f"model {self.name!r} refines by a pipeline of diffusers, which has none; leave it out"
                raise RequestError("form", request.form, fix)
            own = (request.num_inference_steps, request.guidance_scale) if request.refine else (None, None)
            self.refine_by.asked(request.strength, *own)
        height, width = self.output_size(request)
        for name, asked, made in (("width", request.width, width), ("height", request.height, height)):
            if asked is not None and asked != made:
                fix = f"model {self.name!r} with preset {request.preset!r} makes {made}; set that or leave it out"
                raise RequestError(name, asked, fix)
        self._check_rate(request)
        self._check_prompts(request)
        self._check_schedule(self.without_interpolation(request))

    def interpolation(self, request: Request) -> int:
        """How many times the frames of stages 1 to 3 the file has: more than 1 for a playback rate above the model's.

        A video to be refined has a rate of its own, whatever the model's: then it is 1.
        """
        return 1 if request.refine is not None or request.fps is None or request.fps <= self.fps else request.fps // self.fps

    def without_interpolation(self, request: Request) -> Request:
        """What stages 1 to 3 are asked for: of the file's frames every k-th, up to the first at or after its last."""
        k = self.interpolation(request)
        frames = request.num_frames if request.num_frames is None else -(-(request.num_frames - 1) // k) + 1
        schedule = tuple((-(-first // k), prompt) for first, prompt in request.schedule)
        return dataclasses.replace(request, num_frames=frames, schedule=schedule)

    def _check_rate(self, request: Request) -> None:
        """RequestError for a playback rate that is no multiple of the model's, or where nothing can be put between frames."""
        if request.refine is not None or request.fps is None or request.fps <= self.fps:
            return
        if request.video is not None:
            raise RequestError("fps", request.fps, f"frames are not put into a video that is gone on with; set {self.fps} or less")
        if request.fps % self.fps:
            nearest = f"{request.fps // self.fps * self.fps} or {-(-request.fps // self.fps) * self.fps}"
            raise RequestError("fps", request.fps, f"model {self.name!r} makes {self.fps} frames a second; set {nearest}, or less")
        if find_spec("cv2") is None:
            raise MissingExtra("fps", "interpolate")

    def chunk_start(self, request: Request, frame: int) -> int:
        """The first frame of the chunk that makes `frame`, see `Request` (with an image, whose frame 0 no chunk makes, 0 for that)."""
        second, new = self._grid(request)
        return second + (frame - second) // new * new if frame >= second else 0

    def _grid(self, request: Request) -> tuple[int, int]:
        """Where the chunks of stage 2 begin: the first one's frame, and the distance between them."""
        if request.video is not None:
            second = 0
        else:
            second = 1 if self.begins_with_image(request) else self.extend.frames
        return second, self.extend.frames - self.extend.overlap

    def begins_with_image(self, request: Request) -> bool:
        """Whether the request's picture is frame 0 itself; else, if it has one, stage 1 makes the first chunk from it."""
        return request.image is not None and not self.reads_image

    @property
    def reads_text(self) -> bool:
        """Whether prompts reach the chunks of stage 2."""
        return self.backbone != "svd"

    @property
    def reads_image(self) -> bool:
        """Whether stage 1 makes its chunk from a picture where there is one."""
        if self.seed is not None and self.seed.pipeline is not None:
            return bool(self.seed.image)
        return self.backbone == "svd"

    def is_fast(self, request: Request) -> bool:
        """Whether the distilled network makes it: nothing is asked for that is in its weights (steps, guidance, negative)."""
        given = request.num_inference_steps is not None or request.guidance_scale is not None or request.negative_prompt.strip() != ""
        return self.fast is not None and not given

    def unneeded(self, request: Request) -> set[str]:
        """Folders of networks that have no part in it; the distilled one, "fast", takes the place of the model's own."""
        unneeded = set() if self.is_fast(request) else {"fast"}
        return unneeded if request.preset == "full" else unneeded | {"refiner", "refiner_vae"}

    def extending(self, request: Request) -> ExtendConfig:
        """How the chunks of stages 1 and 2 are made: with the steps and guidance asked for, or as the distilled network needs it."""
        own = self.extend
        if self.fast is not None and self.is_fast(request):
            few = self.fast.steps
            return dataclasses.replace(own, steps=few, guidance_scale=1.0, guidance_rescale=0.0, eta=0.0, sigmas=(), time_guidance=0.0)
        guidance_scale = own.guidance_scale if request.guidance_scale is None else request.guidance_scale
        return dataclasses.replace(own, steps=request.num_inference_steps or own.steps, guidance_scale=guidance_scale)

    def _taken_over_at(self, request: Request, frame: int) -> int:
        """The first frame of the first chunk that begins at `frame` or later."""
        second, new = self._grid(request)
        if frame <= 0 and not self.begins_with_image(request):
            return 0
        return second - (min(0, second - frame) // new) * new

    def _check_prompts(self, request: Request) -> None:
        """RequestError for prompts besides the first that would have no effect."""
        if self.reads_text or request.preset == "full":
            return
        if request.schedule:
            raise RequestError("schedule", len(request.schedule), f"model {self.name!r} goes on from pictures alone; leave it out")
        if request.negative_prompt and self.seed is None:
            raise RequestError("negative_prompt", request.negative_prompt, f"model {self.name!r} reads pictures alone; leave it out")

    def _check_schedule(self, request: Request) -> None:
        """RequestError for an entry that no chunk would use."""
        starts = [self._taken_over_at(request, frame) for frame, _ in request.schedule]
        for (frame, _), start, following in zip_longest(request.schedule, starts, starts[1:]):
            if request.num_frames is not None and start >= request.num_frames:
                last = self.chunk_start(request, request.num_frames - 1)
                latest = f"; the last begins at {last}" if last or not self.begins_with_image(request) else ""
                fix = f"no chunk begins there or later, so this entry would never be used{latest}"
                raise RequestError("schedule", frame, fix)
            if start == following:
                before = self.chunk_start(request, start - 1)
                earlier = f"; the chunk before begins at {before}" if before or not self.begins_with_image(request) else ""
                fix = f"the next entry takes over with the same chunk, at {start}, so this one would never be used{earlier}"
                raise RequestError("schedule", frame, fix)

    def save(self, folder: Path, place: Path | None = None) -> None:
        """Write `model.json`. place: the folder that it will be in, None for `folder`; it names others' pipelines from there."""
        seed = self.seed and self.seed.relative_to(place or folder)
        refine_by = self.refine_by and self.refine_by.relative_to(place or folder)
        values = dataclasses.asdict(dataclasses.replace(self, seed=seed, refine_by=refine_by))
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
            optional = {"refine": RefineConfig, "svd": SvdConfig, "seed": SeedConfig, "refine_by": RefineByConfig, "fast": FastConfig}
            parts: dict[str, Any] = {}
            for name, kind in optional.items():
                if (part := values.pop(name, None)) is not None:
                    parts[name] = kind(**part)
            for name in parts.keys() & {"seed", "refine_by"}:
                parts[name] = parts[name].within(folder)
            return cls(**values, extend=extend, **parts)
        except (TypeError, AttributeError, RequestError, ModelError) as error:
            raise ModelError(f"{path}: {error}") from error


def find_model(name_or_folder: str | Path) -> Path:
    """The folder of an embedded model's name, or the folder itself; ModelError if there is neither."""
    embedded = str(name_or_folder) in EMBEDDED
    folder = Path(str(files("streamingt2v") / "weights" / str(name_or_folder))) if embedded else Path(name_or_folder)
    if not folder.is_dir():
        raise ModelError(f"no model {str(name_or_folder)!r}: give {' or '.join(EMBEDDED)}, or a folder with a model.json")
    return folder
