"""`plan`: estimate what a request needs. `doctor`: report what this machine can run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from ..config import ModelConfig, Request
from ..config.units import parse_bytes, readable
from ..errors import ModelError, RequestError
from ..estimate.device import check_kind, choose_device, choose_dtype, free_memory
from .options import BASE_HELP, ModelOptions, RequestOptions, ScreenOptions, build_request, takes_options
from .screen import Screen
from .settle import check_base, half_of
from .weights import check_use

if TYPE_CHECKING:
    from ..checkpoints.registry import Entry
    from ..estimate.plan import Facts, Plan

MEMORY_HELP = "Plan for another device with this much memory, e.g. 24GB; not fitting is then no error."


@takes_options
def plan(
    prompt: Annotated[
        str, Argument(metavar="PROMPT", help="Text prompt; it does not change the estimate.")
    ] = "anything",
    *,
    image: Annotated[Path | None, Option(help="Image to start from.")] = None,
    base: Annotated[str | None, Option(help=BASE_HELP)] = None,
    request: RequestOptions,
    model: ModelOptions,
    memory: Annotated[str | None, Option(help=MEMORY_HELP)] = None,
    seconds_per_step: Annotated[
        float | None,
        Option(help="Measured seconds per denoising step of stage 2. Default: estimated.", min=0, max=1e9),
    ] = None,
    screen: ScreenOptions,
) -> None:
    """Estimate download, memory, disk and time of `generate` with the same options.

    Reads no weights. Models that are not downloaded yet are estimated from their published sizes.
    A request that cannot fit this machine is an error that names the options that help.
    """
    wanted = build_request(prompt, request, image=str(image) if image else None)
    room = parse_bytes(memory, "memory") if memory is not None else None
    estimator = _Estimator(model, room, seconds_per_step)
    found = estimator.plan(wanted, base)
    values = {**asdict(found), "memory": found.memory, "fits": found.fits}
    values |= {"download": sum(size for _, size, *_ in estimator.downloads)}
    missing = [f"        not counted: {', '.join(estimator.uncounted)}"] if estimator.uncounted else []
    lines = [*_lines(found), *missing, *estimator.notes, *_downloads(estimator.downloads)]
    Screen(screen.quiet, screen.json).result("\n".join(lines), values)


Download = tuple[str, int, bool, str]
"""Name of a missing model, bytes to download (0: unknown), whether it is converted, its command."""


class _Estimator:
    """Plan requests for one model; collect what is not downloaded yet.

    memory: bytes of another device, None for this machine. seconds_per_step: measured, None to estimate.
    """

    def __init__(self, model: ModelOptions, memory: int | None = None, seconds_per_step: float | None = None):
        self.model, self.memory, self.seconds_per_step = model, memory, seconds_per_step
        self.base: str | None = None
        self.downloads: list[Download] = []
        self.uncounted: list[str] = []
        self.notes: list[str] = []
        self._published: dict[str, dict[str, int]] = {}  # parameters of missing pipelines, by stage

    def plan(self, wanted: Request, base: str | None = None) -> Plan:
        """Return the plan of a request, from local files or from published sizes."""
        from ..checkpoints.find import find_model

        name = self.model.model
        check_use([name], base)
        self.base = base
        with ExitStack() as kept:
            if base is not None:
                wanted = self._with_base(wanted, base, kept)
            try:
                find_model(name)  # fails before the import of torch below
            except ModelError as error:
                return self._plan_published(_published_entry(name, error), wanted, kept)
            from ..external.as_model import read_model

            try:
                folder, config = read_model(name)
            except ModelError as error:
                raise RequestError("model", name, str(error)) from error
            return self._plan_folder(folder, config, None, wanted)

    def _with_base(self, wanted: Request, base: str, kept: ExitStack) -> Request:
        """Return the request with the base's folder; one with its settings alone if it is missing."""
        from ..checkpoints.find import find_model, known_as
        from ..estimate.published import unfetched

        try:
            return replace(wanted, base=str(find_model(base)))
        except ModelError as error:
            known = known_as(base)
            entry = known[0] if known else None
            if entry is None or not entry.classes:
                fix = f"{error}; its needs are unknown until then" if known else str(error)
                raise RequestError("base", base, fix) from error
        self._published |= entry.counts("base")
        self._missing(entry)
        return replace(wanted, base=str(kept.enter_context(unfetched(entry))))

    def _missing(self, entry: Entry, command: str = "") -> None:
        get = command or f"streamingt2v get {entry.name}"
        self.downloads.append((entry.name, entry.download_bytes or 0, entry.convert is not None, get))
        if entry.uncounted:
            self.uncounted.append(f"{entry.uncounted} of {entry.name}")

    def _plan_published(self, entry: Entry, wanted: Request, kept: ExitStack) -> Plan:
        from ..checkpoints.registry import ENHANCERS, find_entry
        from ..estimate.published import published, unfetched

        if entry.classes:
            from ..external.as_model import pipeline_model

            self._missing(entry)
            self._published |= entry.counts("chunks")
            folder = kept.enter_context(unfetched(entry))
            return self._plan_folder(folder, pipeline_model(folder), None, wanted)
        full = wanted.preset == "full"
        enhancer = find_entry(ENHANCERS[entry.name]) if full else None
        get = f"streamingt2v get {entry.name}{' --preset full' if full else ''}"
        for missing in (entry, enhancer):
            if missing is not None:
                self._missing(missing, get)
        if enhancer is not None and enhancer.convert is None:  # a pipeline: only its weights are known
            self._published |= enhancer.counts("refine")
            wanted = replace(wanted, preset="preview")
        folder, config, facts = kept.enter_context(published(entry.name, full))
        return self._plan_folder(folder, config, facts, wanted)

    def _plan_folder(self, folder: Path, config: ModelConfig, facts: Facts | None, wanted: Request) -> Plan:
        from ..estimate.plan import plan as make_plan
        from ..resolve import resolve

        model, asked = self.model, resolve(config, wanted)
        self.notes = check_base(asked, model.model, self.base)
        device, dtype = self._device()

        def made(offload: Any, memory: int | None = self.memory) -> Plan:
            return make_plan(
                folder, asked, name=model.model, device=device, dtype=dtype,
                seconds_per_step=self.seconds_per_step, savings=replace(model.savings, offload=offload),
                facts=facts, memory=memory, beside=self._published,
            )  # fmt: skip

        if model.offload != "auto":
            return made(model.offload)
        if device == "cpu" or model.engine != "torch":
            return made("none")
        levels = made("none", free_memory(device) if self.memory is None else self.memory).levels
        return made(next((level.offload for level in levels if level.fits), levels[-1].offload))

    def _device(self) -> tuple[str, str]:
        """Return device and data type, as `generate` chooses them."""
        model, half = self.model, half_of(self.model.model, self.base)
        if self.memory is None:
            device = choose_device(model.device)[0]
            return device, choose_dtype(model.dtype, device, half)[0]
        check_kind(model.device if model.device != "auto" else "cuda")
        device = "cuda" if model.device == "auto" else model.device
        if model.device == "auto" and model.engine == "openvino":
            device = "cpu"
        own = "float32" if device == "cpu" else half
        return device, own if model.dtype == "auto" else model.dtype


def _published_entry(name: str, error: ModelError) -> Entry:
    """Return the registry entry of a missing model; RequestError if its sizes are unknown."""
    from ..checkpoints.find import known_as
    from ..estimate.published import names

    entry = (known_as(name) or (None,))[0]
    if entry is None or not (entry.name in names() or entry.classes):
        raise RequestError("model", name, str(error)) from error
    return entry


def _lines(found: Plan) -> list[str]:
    on = f"a device of {readable(found.memory_free)}" if found.memory_asked else found.device
    size = f"{found.width}x{found.height}"
    lines = [f"{found.frames} frames of {size}, preset {found.preset}, on {on} in {found.dtype}"]
    if found.memory_asked:
        lines.insert(0, _verdict(found))
    free = "" if found.memory_asked else " free"
    weights = f"{found.parameters / 1e6:.1f} million parameters: {readable(found.weights)}"
    working = f"working memory of a step, estimated: {readable(found.working)}"
    if found.pipeline:
        weights, working = "weights of a diffusers pipeline", "what its steps need besides is unknown"
    stages = ", ".join(f"{stage} {_held(size)}" for stage, size in found.stages.items())
    lines += [
        f"memory  {_held(found.memory)} at most, of {readable(found.memory_free)}{free}",
        f"        {weights}; {working}",
        f"        by stage: {stages}",
        *(
            [f"        plus {readable(found.offloaded)} of main memory for idle weights"]
            if found.offloaded
            else []
        ),
    ]
    if len(found.levels) > 1:
        levels = (
            f"{level.offload} {_held(level.memory)}{'' if level.fits else ' (too much)'}"
            for level in found.levels
        )
        lines.append(f"        by --offload: {', '.join(levels)}")
    steps = f"{found.steps} steps" + (f" and {found.refine_steps} of stage 3" if found.refine_steps else "")
    lines += [
        f"disk    about {readable(found.disk)} while the video is made, of {readable(found.disk_free)} free",
        f"time    {duration(found.seconds)} for {steps} ({found.seconds_from})",
        *(f"        measured: {line}" for line in found.measured),
    ]
    return lines


def _held(size: int) -> str:
    """Format the memory of weights; by layer a pipeline holds next to none."""
    return readable(size) if size else "a layer"


def _verdict(found: Plan) -> str:
    what = "its weights fit" if found.pipeline else "it fits"
    if found.fits:
        return f"yes, {what}" + (f", with --offload {found.offload}" if found.offload != "none" else "")
    way = next((level.offload for level in found.levels if level.fits), None)
    if way is not None:
        return f"yes, with --offload {way}"
    less = "; --preset preview needs less" if found.preset == "full" else ""
    return f"no, it does not fit at any level of offloading{less}"


def _downloads(missing: list[Download]) -> list[str]:
    if not missing:
        return []
    sizes = ", ".join(f"{name} {readable(size) if size else 'of unknown size'}" for name, size, *_ in missing)
    copies = sum(size for _, size, converted, _ in missing if converted)
    whole = readable(copies + sum(size for _, size, *_ in missing))
    told = f"; with the converted copy at most {whole} on disk" if copies else ""
    commands = " && ".join(dict.fromkeys(command for *_, command in missing))
    return [f"to download: {sizes}{told}", f"        by: {commands}"]


def duration(seconds: float | None) -> str:
    """Format seconds as "12 s", "3.5 min" or "7.8 days"."""
    if seconds is None:
        return "unknown"
    for unit, size in (("s", 60), ("min", 60), ("h", 48)):
        if seconds < size:
            return f"{seconds:.3g} {unit}"
        seconds /= size if unit != "h" else 24
    return f"{seconds:.3g} days"


@takes_options
def doctor(*, screen: ScreenOptions) -> None:
    """Report the hardware and optional packages of this machine, and which models it can run."""
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
    """Return whether 240 frames of a model fit the free memory of the device, and with which offloading."""
    image = {"image": __file__} if name == "streaming-svd" else {}  # any existing file; it is not opened
    wanted = Request("anything", 240, **image)  # type: ignore[arg-type]
    kind, dtype = ("cpu", "float32") if device == "cpu" else ("cuda", "float16")
    options = ModelOptions(model=name, device=kind, dtype=dtype)  # type: ignore[arg-type]
    estimator = _Estimator(options, free)
    found = estimator.plan(wanted)
    level = next((level.offload for level in found.levels if level.fits), None)
    here = f"; to download: {estimator.downloads[0][3]}" if estimator.downloads else ""
    if level is None:
        told = f"no: needs {readable(min(level.memory for level in found.levels))} of {device}{here}"
    else:
        how = f", --offload {level}" if level != "none" else ""
        told = f"yes, on {device} in {found.dtype}{how}{here}"
    whole = not estimator.downloads
    return {"model": name, "fits": level is not None, "offload": level, "told": told, "here": whole}
