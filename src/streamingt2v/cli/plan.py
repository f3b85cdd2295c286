"""`plan` and `doctor`: what a request would need, and what this machine can run."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from ..config import ModelConfig, Request
from ..config.schedule import read_schedule
from ..config.units import parse_bytes, readable
from ..errors import ModelError, RequestError
from ..estimate.device import choose_device, choose_dtype, free_memory
from .options import ModelOptions, RequestOptions, ScreenOptions, build_request, takes_options
from .screen import Screen
from .settle import half_of

if TYPE_CHECKING:
    from ..checkpoints.registry import Entry
    from ..estimate.plan import Facts, Plan
    from ..resolve import ResolvedRequest

MEMORY_HELP = "Plan for a device elsewhere with so much memory, e.g. 24GB: it need not be here, and what does not fit is no error."


@takes_options
def plan(
    prompt: Annotated[
        str, Argument(metavar="PROMPT", help="Text prompt; it does not matter to a plan.")
    ] = "anything",
    *,
    image: Annotated[Path | None, Option(help="An image to start from.")] = None,
    base: Annotated[
        str | None, Option(help="What makes the first chunk: a name, an id of the hub, or a folder.")
    ] = None,
    request: RequestOptions,
    model: ModelOptions,
    memory: Annotated[str | None, Option(help=MEMORY_HELP)] = None,
    seconds_per_step: Annotated[
        float | None, Option(help="Of a step of stage 2, measured; default: an estimate.", min=0, max=1e9)
    ] = None,
    screen: ScreenOptions,
) -> None:
    """Tell the download, memory, disk and time that `generate` with the same options would need. No weights are read, nor need they be
    here: for streaming-t2v and streaming-svd it counts by their published sizes.

    What cannot fit this machine is an error that tells the way out.
    """
    schedule = read_schedule(request.schedule) if request.schedule is not None else ()
    wanted = build_request(prompt, request, schedule, image=str(image) if image is not None else None)
    room = parse_bytes(memory, "memory") if memory is not None else None
    found, to_get = _planned(wanted, base, model, room, seconds_per_step)
    values = {
        **asdict(found),
        "memory": found.memory,
        "fits": found.fits,
        "download": sum(size for _, size, _ in to_get),
    }
    Screen(screen.quiet, screen.json).result("\n".join([*_told(found), *_downloads(to_get)]), values)


ToGet = tuple[str, int, str]
"""What is not here, the size of its download (0: not known), and the command that gets it."""


def _planned(
    wanted: Request, base: str | None, model: ModelOptions, room: int | None, measured: float | None
) -> tuple[Plan, list[ToGet]]:
    """With the model of a folder, or with that of an entry by its published sizes; and what has to be downloaded."""
    beside: dict[str, dict[str, int]] = {}
    to_get: list[ToGet] = []
    if base is not None:
        wanted = _with_base(wanted, base, beside, to_get)
    try:
        folder, config = _read(model.model)
    except ModelError as error:
        return _unfetched(_published(model.model, error), wanted, model, room, measured, beside, to_get)
    return _made(folder, config, None, wanted, model, room, measured, beside), to_get


def _read(model: str) -> tuple[Path, ModelConfig]:
    """Folder and configuration of a model that is here."""
    from ..checkpoints.find import find_model

    find_model(model)  # told without what follows, which imports torch
    from ..external.as_model import read_model

    return read_model(model)


def _with_base(wanted: Request, base: str, beside: dict[str, dict[str, int]], to_get: list[ToGet]) -> Request:
    """The request with the folder of its base; of one that is not here, what is known of it."""
    from ..checkpoints.find import find_model, known_as

    try:
        return replace(wanted, base=str(find_model(base)))
    except ModelError as error:
        entry = (known_as(base) or (None,))[0]
        if entry is None or entry.parameters is None:
            fix = (
                f"{error}; of what it needs nothing is known before"
                if entry or known_as(base)
                else str(error)
            )
            raise RequestError("base", base, fix) from error
        beside["base"] = {entry.name: entry.parameters}
        to_get.append((entry.name, entry.download_bytes or 0, f"streamingt2v get {entry.name}"))
        return wanted


def _published(name: str, error: ModelError) -> Entry:
    """The published model of a name that is not on this machine; RequestError if there is none, or its sizes are not known."""
    from ..checkpoints.find import known_as
    from ..estimate.published import names

    entry = (known_as(name) or (None,))[0]
    if entry is None or entry.name not in names():
        raise RequestError("model", name, str(error)) from error
    return entry


def _unfetched(
    entry: Entry, wanted: Request, model: ModelOptions, room: int | None, measured: float | None,
    beside: dict[str, dict[str, int]], to_get: list[ToGet],
) -> tuple[Plan, list[ToGet]]:  # fmt: skip
    from ..checkpoints.registry import ENHANCERS, find_entry
    from ..estimate.published import published

    full = wanted.preset == "full"
    enhancer = find_entry(ENHANCERS[entry.name]) if full else None
    get = f"streamingt2v get {entry.name}{' --preset full' if full else ''}"
    to_get = [(entry.name, entry.download_bytes or 0, get), *to_get]
    if enhancer is not None:
        to_get.insert(1, (enhancer.name, enhancer.download_bytes or 0, get))
        if enhancer.convert is None:  # a pipeline: of its steps nothing is counted but the weights
            beside["refine"] = {enhancer.name: enhancer.parameters or 0}
            wanted = replace(wanted, preset="preview")
    with published(entry.name, full) as (folder, config, facts):
        return _made(folder, config, facts, wanted, model, room, measured, beside), to_get


def _made(
    folder: Path, config: ModelConfig, facts: Facts | None, wanted: Request, model: ModelOptions, room: int | None,
    measured: float | None, beside: dict[str, dict[str, int]],
) -> Plan:  # fmt: skip
    from ..estimate.plan import plan as make_plan
    from ..resolve import resolve

    asked = resolve(config, wanted)
    half = half_of(model.model)
    if room is None:
        device = choose_device(model.device)[0]
        dtype = choose_dtype(model.dtype, device, half)[0]
    else:
        device = "cuda" if model.device == "auto" else model.device
        dtype = half if model.dtype == "auto" else model.dtype

    def made(offload: str) -> Plan:
        savings = replace(model, offload=offload).savings
        return make_plan(
            folder, asked, name=model.model, device=device, dtype=dtype, seconds_per_step=measured, savings=savings, facts=facts,
            memory=room, beside=beside,
        )  # fmt: skip

    if model.offload != "auto":
        return made(model.offload)
    if device == "cpu" or model.engine != "torch":
        return made("none")
    levels = made("none").levels if room is not None else _levels(folder, asked, device, dtype, facts, beside)
    return made(next((level.offload for level in levels if level.fits), levels[-1].offload))


def _levels(
    folder: Path,
    asked: ResolvedRequest,
    device: str,
    dtype: str,
    facts: Facts | None,
    beside: dict[str, dict[str, int]],
) -> Any:
    """What each level of offloading needs of a device that is here."""
    from ..estimate.plan import plan as make_plan

    return make_plan(
        folder,
        asked,
        name="",
        device=device,
        dtype=dtype,
        seconds_per_step=1.0,
        facts=facts,
        memory=free_memory(device),
        beside=beside,
    ).levels


def _told(found: Plan) -> list[str]:
    on = f"a device of {readable(found.memory_free)}" if found.memory_asked else found.device
    lines = [
        f"{found.frames} frames of {found.width}x{found.height}, preset {found.preset}, on {on} in {found.dtype}"
    ]
    if found.memory_asked:
        lines.insert(0, _verdict(found))
    weights = f"{found.parameters / 1e6:.1f} million parameters: {readable(found.weights)}"
    stages = ", ".join(f"{stage} {readable(size)}" for stage, size in found.stages.items())
    lines += [
        f"memory  {readable(found.memory)} at most, of {readable(found.memory_free)}{'' if found.memory_asked else ' that are free'}",
        f"        {weights}; a step besides, estimated: {readable(found.working)}",
        f"        by stage: {stages}",
        *(
            [f"        and {readable(found.offloaded)} of the machine's, for weights while they rest"]
            if found.offloaded
            else []
        ),
    ]
    if len(found.levels) > 1:
        levels = (
            f"{level.offload} {readable(level.memory)}{'' if level.fits else ' (too much)'}"
            for level in found.levels
        )
        lines.append(f"        by --offload: {', '.join(levels)}")
    steps = f"{found.steps} steps" + (f" and {found.refine_steps} of stage 3" if found.refine_steps else "")
    lines += [
        f"disk    about {readable(found.disk)} for the video while it is made, of {readable(found.disk_free)} that are free",
        f"time    {duration(found.seconds)} for {steps} ({found.seconds_from})",
    ]
    return lines


def _verdict(found: Plan) -> str:
    if found.fits:
        return "yes, it fits" + (f", with --offload {found.offload}" if found.offload != "none" else "")
    way = next((level.offload for level in found.levels if level.fits), None)
    if way is not None:
        return f"yes, with --offload {way}"
    return "no, it does not fit, whatever is offloaded" + (
        "; --preset preview needs less" if found.preset == "full" else ""
    )


def _downloads(to_get: list[ToGet]) -> list[str]:
    if not to_get:
        return []
    sizes = ", ".join(f"{name} {readable(size) if size else 'of unknown size'}" for name, size, _ in to_get)
    total = sum(size for _, size, _ in to_get)
    commands = " && ".join(dict.fromkeys(command for *_, command in to_get))
    return [
        f"not here yet: a download of {sizes}; converted, as much again at most ({readable(2 * total)} in all). Get it by: {commands}"
    ]


def duration(seconds: float | None) -> str:
    """For people: "12 s", "3.5 min", "7.8 days"."""
    if seconds is None:
        return "unknown"
    for unit, size in (("s", 60), ("min", 60), ("h", 48)):
        if seconds < size:
            return f"{seconds:.3g} {unit}"
        seconds /= size if unit != "h" else 24
    return f"{seconds:.3g} days"


@takes_options
def doctor(*, screen: ScreenOptions) -> None:
    """Tell what this machine has and which of the known models it can run, in which data type and by which offloading."""
    from ..checkpoints.hub import constants
    from ..config.places import home
    from ..estimate.machine import examine, verdicts

    machine = examine(Path(constants.HF_HUB_CACHE), home())
    models = [
        _can_run(name, machine.device, machine.memory_free)
        for name in ("tiny", "streaming-t2v", "streaming-svd")
    ]
    lines = [*verdicts(machine), *(f"{entry['model']:14} {entry['told']}" for entry in models)]
    Screen(screen.quiet, screen.json).result("\n".join(lines), {**asdict(machine), "models": models})


def _can_run(name: str, device: str, free: int) -> dict[str, Any]:
    """Whether a model fits the free memory of the best device, for a minute of video."""
    image = {"image": str(Path(__file__))} if name == "streaming-svd" else {}  # any file: it is not opened
    wanted = Request("anything", 240, **image)  # type: ignore[arg-type]
    on_cpu = device == "cpu"
    options = ModelOptions(
        model=name, device="cuda" if not on_cpu else "cpu", dtype="float32" if on_cpu else "float16"
    )  # type: ignore[arg-type]
    found, to_get = _planned(wanted, None, options, free, None)
    level = next((level.offload for level in found.levels if level.fits), None)
    here = "" if not to_get else f"; to get: {to_get[0][2]}"
    if level is None:
        told = f"no: it needs {readable(min(level.memory for level in found.levels))} of {device}{here}"
    else:
        how = f", --offload {level}" if level != "none" else ""
        told = f"yes, on {device} in {found.dtype}{how}{here}"
    return {"model": name, "fits": level is not None, "offload": level, "told": told, "here": not to_get}
