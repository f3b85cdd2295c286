"""The options of the commands, declared once as dataclasses: one field, one option, one line of help.

`takes_options` spreads such dataclasses over a command's signature, which is what typer reads.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from typer import Option

from ..config import Form, Preset, Request
from ..config.request import SHORT_NAMES
from ..config.runtime import Engine, Savings

MOST_WORKERS, MOST_THREADS = 1024, 1024
"""More is a slip of the finger, and would end the machine."""

Dtype = Literal["float32", "bfloat16", "float16"]
AnyOffload = Literal["auto", "none", "model", "group"]
AnyDtype = Literal["auto", "float32", "bfloat16", "float16"]
FORM_HELP = "How refined windows are joined: causal, so that frames come soon, or joint, as published; default: the model's."
ENGINE_HELP = (
    "What computes the networks: torch; compile, torch.compile's kernels; openvino, 1.3 to 2 times as fast on a CPU. "
    "The last two take their time at first, and less in the next process."
)
STRENGTH_HELP = "How much refining redraws, above 0 to 1; default: the model's."


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """What is asked for: the fields of `Request` that `generate` and `extend` share, under the same names or `SHORT_NAMES`."""

    frames: Annotated[int, Option(help="How many frames to make, exactly.")] = 80
    seed: Annotated[int, Option(help="The same seed gives the same video.")] = 33
    preset: Annotated[Preset, Option(help="preview: stages 1 and 2; full: refined by stage 3 as well.")] = (
        "preview"
    )
    negative_prompt: Annotated[str, Option(help="What is not to be seen.")] = ""
    steps: Annotated[int | None, Option(help="Denoising steps of a chunk; default: the model's.")] = None
    guidance_scale: Annotated[
        float | None, Option(help="How strongly the prompt pulls; default: the model's.")
    ] = None
    form: Annotated[Form | None, Option(help=FORM_HELP)] = None
    strength: Annotated[float | None, Option(help=STRENGTH_HELP)] = None
    schedule: Annotated[
        Path | None,
        Option(help="File of prompts that take over from PROMPT: lines 'FRAME: prompt', or JSON."),
    ] = None
    width: Annotated[
        int | None,
        Option(help="In pixels; default: the model's; other sizes only for pipelines of diffusers."),
    ] = None
    height: Annotated[int | None, Option(help="In pixels; default: the model's.")] = None
    continue_by: Annotated[
        str | None,
        Option(
            help="How a pipeline of diffusers goes on: conditions, mask, history, forcing, context, image, overlap. Default: its best."
        ),
    ] = None
    fps: Annotated[
        int | None,
        Option(
            help="Playback rate of the file; default: the model's, or that of the video to extend. More interpolates."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RefineOptions:
    """What `refine` is asked for: the fields of `Request` that it uses, under the same names or `SHORT_NAMES`."""

    frames: Annotated[int | None, Option(help="How many frames to refine, from the first; default: all.")] = (
        None
    )
    seed: Annotated[int, Option(help="The same seed gives the same video.")] = 33
    negative_prompt: Annotated[str, Option(help="What is not to be seen.")] = ""
    steps: Annotated[int | None, Option(help="Denoising steps of a window; default: the model's.")] = None
    guidance_scale: Annotated[
        float | None, Option(help="How strongly the prompt pulls; default: the model's.")
    ] = None
    form: Annotated[Form | None, Option(help=FORM_HELP)] = None
    strength: Annotated[float | None, Option(help=STRENGTH_HELP)] = None


MODEL_HELP = "A name of `models`, OWNER/REPOSITORY[@REVISION] of the hub, or a folder."
DeviceOption = Annotated[
    str, Option(help="auto, cpu, cuda, cuda:1, mps, xpu; auto: the first accelerator here, else the CPU.")
]
DtypeOption = Annotated[
    AnyDtype,
    Option(help="Data type of weights and computation; auto: float32 on a CPU, else the model's own."),
]
OFFLOAD_HELP = "Weights stay off the device while they rest: network by network, or layer by layer; auto: as far as needed."
OffloadOption = Annotated[AnyOffload, Option(help=OFFLOAD_HELP)]
SlicingOption = Annotated[
    bool, Option("--vae-slicing", help="Encode and decode frames one by one: less memory, more time.")
]
TilingOption = Annotated[
    bool, Option("--vae-tiling", help="Encode and decode large frames in tiles: less memory, faint seams.")
]
EngineOption = Annotated[Engine, Option(help=ENGINE_HELP)]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and on what it runs."""

    model: Annotated[str, Option(help=MODEL_HELP)] = "tiny"
    device: DeviceOption = "auto"
    dtype: DtypeOption = "auto"
    offload: OffloadOption = "auto"
    vae_slicing: SlicingOption = False
    vae_tiling: TilingOption = False
    engine: EngineOption = "torch"

    @property
    def savings(self) -> Savings:
        """How memory and time are to be saved."""
        return Savings.of(self)


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the video and its pictures go."""

    output: Annotated[Path | None, Option("--output", "-o", help="The mp4 file to write.")] = None
    overwrite: Annotated[bool, Option("--overwrite", help="Replace files that exist.")] = False
    xt_slice: Annotated[
        Path | None, Option(help="Also write a PNG of the middle row of every frame, time downwards.")
    ] = None
    contact_sheet: Annotated[Path | None, Option(help="Also write a PNG of every eighth frame.")] = None


@dataclass(frozen=True, kw_only=True)
class ScreenOptions:
    """What is printed."""

    json: Annotated[bool, Option("--json", help="The last line on stdout is one JSON object.")] = False
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress and no notes.")] = False


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every parameter whose type is a dataclass replaced by one option a field of it."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        fresh = (
            _fields_as_parameters(groups[name])
            if name in groups
            else [parameter.replace(annotation=hints[name])]
        )
        parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in fresh]

    def spread(**values: Any) -> None:
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
    hints = get_type_hints(group, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(f.name, kind, default=_default(f), annotation=hints[f.name])
        for f in dataclasses.fields(group)
    ]


def _default(field: dataclasses.Field[Any]) -> Any:
    """As a signature says it: a field without one is an option that must be given."""
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def build_request(
    prompt: str, options: RequestOptions, schedule: tuple[tuple[int, str], ...], **start: str | None
) -> Request:
    """The checked request: `options` under their own names, the schedule as read, and `image` or `video` in `start`."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return Request(prompt=prompt, **(long_names(values) | {"schedule": schedule} | start)).validate()


def long_names(values: dict[str, Any]) -> dict[str, Any]:
    """The same values under the names that `Request` has for them."""
    full = {short: name for name, short in SHORT_NAMES.items()}
    return {full.get(name, name): value for name, value in values.items()}
