"""Options shared by commands, as dataclasses: one field per option.

`takes_options` turns parameters of these types into single options that typer understands.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from typer import Option

from ..config import Form, Preset, Request
from ..config.request import SHORT_NAMES
from ..config.runtime import Engine, Savings
from ..config.schedule import read_schedule
from ..errors import RequestError

MOST_WORKERS, MOST_THREADS = 1024, 1024

Dtype = Literal["float32", "bfloat16", "float16"]
AnyOffload = Literal["auto", "none", "model", "group"]
AnyDtype = Literal["auto", "float32", "bfloat16", "float16"]
FRAMES_HELP = "Frames to make, exactly this many."
SEED_HELP = "Random seed; the same seed gives the same video."
PRESET_HELP = "preview: stages 1 and 2, faster; full: also stage 3, larger and sharper."
NEGATIVE_HELP = "What the video must not show."
STEPS_HELP = "Denoising steps per chunk. Default: the model's."
GUIDANCE_HELP = "Classifier-free guidance scale: how closely to follow the prompt. Default: the model's."
FORM_HELP = (
    "How stage 3 joins windows: causal (frames appear early) or joint (as published). Default: the model's."
)
ENGINE_HELP = (
    "Backend: torch; compile (torch.compile); openvino (1.3 to 2 times as fast on a CPU). "
    "The last two compile the networks on first use."
)
BASE_HELP = "Pipeline for the first chunk: any diffusers video pipeline, by name, hub id or folder."
CONTINUE_HELP = (
    "How a diffusers pipeline continues a video: conditions, mask, history, forcing, context, image or "
    "overlap. Default: the best one it supports."
)
TRANSITION_HELP = "Chunks over which a scheduled prompt replaces the one before, by interpolated embeddings."
FPS_HELP = "Playback rate. Above the model's rate, frames are interpolated. Default: the model's, or VIDEO's."
STRENGTH_HELP = "How much stage 3 changes the frames, above 0 up to 1. Default: the model's."
ScheduleOption = Annotated[Path | None, Option(help="File of later prompts: lines 'FRAME: prompt', or JSON.")]


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """Fields of `Request` that `generate` and `extend` share; names as in `SHORT_NAMES`."""

    frames: Annotated[int, Option(help=FRAMES_HELP)] = 80
    seed: Annotated[int, Option(help=SEED_HELP)] = 33
    preset: Annotated[Preset, Option(help=PRESET_HELP)] = "preview"
    negative_prompt: Annotated[str, Option(help=NEGATIVE_HELP)] = ""
    steps: Annotated[int | None, Option(help=STEPS_HELP)] = None
    guidance_scale: Annotated[float | None, Option(help=GUIDANCE_HELP)] = None
    form: Annotated[Form | None, Option(help=FORM_HELP)] = None
    strength: Annotated[float | None, Option(help=STRENGTH_HELP)] = None
    schedule: ScheduleOption = None
    width: Annotated[
        int | None, Option(help="Width in pixels, for diffusers pipelines only. Default: the model's.")
    ] = None
    height: Annotated[
        int | None, Option(help="Height in pixels, for diffusers pipelines only. Default: the model's.")
    ] = None
    continue_by: Annotated[str | None, Option(help=CONTINUE_HELP)] = None
    transition_chunks: Annotated[int, Option(help=TRANSITION_HELP)] = 1
    fps: Annotated[int | None, Option(help=FPS_HELP)] = None


@dataclass(frozen=True, kw_only=True)
class RefineOptions:
    """Fields of `Request` that `refine` uses; names as in `SHORT_NAMES`."""

    frames: Annotated[int | None, Option(help="Refine only the first frames. Default: all.")] = None
    seed: Annotated[int, Option(help=SEED_HELP)] = 33
    negative_prompt: Annotated[str, Option(help=NEGATIVE_HELP)] = ""
    steps: Annotated[int | None, Option(help="Denoising steps per window. Default: the model's.")] = None
    guidance_scale: Annotated[float | None, Option(help=GUIDANCE_HELP)] = None
    form: Annotated[Form | None, Option(help=FORM_HELP)] = None
    strength: Annotated[float | None, Option(help=STRENGTH_HELP)] = None
    schedule: ScheduleOption = None


MODEL_HELP = "Model: a name (see `models`), a hub id OWNER/REPO[@REVISION], or a folder."
DeviceOption = Annotated[
    str, Option(help="auto, cpu, cuda, cuda:1, mps or xpu. auto: the first accelerator, else the CPU.")
]
DtypeOption = Annotated[
    AnyDtype,
    Option(help="Data type. auto: float32 on a CPU, else the model's half-precision type."),
]
OFFLOAD_HELP = (
    "Keep idle weights in main memory: model (by network) or group (by layer, least device memory). "
    "auto: only if needed."
)
OffloadOption = Annotated[AnyOffload, Option(help=OFFLOAD_HELP)]
SlicingOption = Annotated[
    bool, Option("--vae-slicing", help="Encode and decode one frame at a time: less memory, slower.")
]
TilingOption = Annotated[
    bool, Option("--vae-tiling", help="Encode and decode large frames in tiles: less memory, faint seams.")
]
EngineOption = Annotated[Engine, Option(help=ENGINE_HELP)]
QuantizeOption = Annotated[
    str | None,
    Option(
        metavar="8bit|4bit|FILE.gguf",
        help="Quantize diffusers pipelines: less memory, slightly other frames.",
    ),
]
LoraOption = Annotated[
    list[str] | None,
    Option(
        metavar="PATH[:SCALE]", help="LoRA for the pipeline or network that makes chunks; can be repeated."
    ),
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Model, device and memory options."""

    model: Annotated[str, Option(help=MODEL_HELP)] = "tiny"
    device: DeviceOption = "auto"
    dtype: DtypeOption = "auto"
    offload: OffloadOption = "auto"
    vae_slicing: SlicingOption = False
    vae_tiling: TilingOption = False
    engine: EngineOption = "torch"
    quantize: QuantizeOption = None
    lora: LoraOption = None

    @property
    def savings(self) -> Savings:
        """Return the memory and engine options."""
        return Savings.of(self)


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Output files of a video command."""

    output: Annotated[Path | None, Option("--output", "-o", help="Output video, an .mp4 file.")] = None
    overwrite: Annotated[bool, Option("--overwrite", help="Replace existing files.")] = False
    xt_slice: Annotated[
        Path | None, Option(help="Also write a PNG with the middle row of every frame; time runs down.")
    ] = None
    contact_sheet: Annotated[Path | None, Option(help="Also write a PNG that shows every eighth frame.")] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class ScreenOptions:
    """Output on the terminal."""

    json: Annotated[
        bool, Option("--json", help="Print the result as one JSON object, the last line of stdout.")
    ] = False
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print no progress and no notes.")] = False


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace every dataclass parameter of a command by one option per field."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        fresh = [parameter.replace(annotation=hints[name])]
        if name in groups:
            fresh = _fields_as_parameters(groups[name])
        parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in fresh]

    def spread(**values: Any) -> None:
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise RequestError(name, value, "must be a finite number")
        for name, group in groups.items():
            values[name] = group(
                **{field.name: values.pop(field.name) for field in dataclasses.fields(group)}
            )
        command(**values)

    spread.__name__, spread.__doc__ = command.__name__, command.__doc__
    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {p.name: p.annotation for p in parameters}
    return spread


def _fields_as_parameters(group: Any) -> list[inspect.Parameter]:
    hints, kind = get_type_hints(group, include_extras=True), inspect.Parameter.KEYWORD_ONLY
    parameters = []
    for f in dataclasses.fields(group):
        default = inspect.Parameter.empty if f.default is dataclasses.MISSING else f.default
        parameters.append(inspect.Parameter(f.name, kind, default=default, annotation=hints[f.name]))
    return parameters


def build_request(prompt: str, options: RequestOptions | RefineOptions, **more: str | None) -> Request:
    """Return the validated request; read its schedule file. more: further fields, e.g. `image`."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    schedule = read_schedule(options.schedule) if options.schedule is not None else ()
    return Request(prompt=prompt, **(long_names(values) | {"schedule": schedule} | more)).validate()


def long_names(values: dict[str, Any]) -> dict[str, Any]:
    """Rename keys from option names to field names of `Request`."""
    full = {short: name for name, short in SHORT_NAMES.items()}
    return {full.get(name, name): value for name, value in values.items()}
