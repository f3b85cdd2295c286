"""What a request would need of this machine: memory, disk and time, before any weights are read or downloaded.

Sizes of weights are counted from the headers of the files. What a step needs besides, and how long it takes, are estimates, and say so.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from ..checkpoints.variants import INDEX, parts_of, weights_of
from ..config import ModelConfig, read_json
from ..config.runtime import CONVERTED, PLAIN, Offload, Savings, autoencoder_batch
from ..config.units import readable
from ..errors import ModelError, RequestError
from ..resolve import ResolvedRequest
from .device import free_memory

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_OVERHEAD = 600 * 10**6  # Python and its libraries, about


LEVELS: tuple[Offload, ...] = get_args(Offload)
"""Of offloading, from what is fastest to what needs least."""


@dataclass(frozen=True)
class Facts:
    """What a model's folder would tell by its weights and by its networks' arithmetic; see `facts_of` and `published`.

    parts: numbers in each. step_flops: of a step of stage 2, by predictions. The rest: of a window's step of stage 3, and of a frame
    through the autoencoder, by (height, width).
    """

    parts: Mapping[str, int]
    step_flops: Callable[[int], int]
    refine_step_flops: Callable[[], int]
    decode_flops: Callable[[int, int], int]
    encode_flops: Callable[[int, int], int]


@dataclass(frozen=True)
class Level:
    """What one level of offloading needs of the device, and of the machine's memory for weights that rest."""

    offload: str
    memory: int
    offloaded: int
    fits: bool


@dataclass(frozen=True)
class Plan:
    """All in bytes and seconds. `weights`: the model's own as they are held on the device at once; `offloaded`: what is kept in the
    machine's memory beside; `working`: what a step needs besides, an estimate; `stages`: the most that each stage needs of the device,
    with pipelines of others, whose weights alone are counted; `levels`: the same for every level of offloading; `disk`: of the output and
    what is kept beside it while it is made. memory_asked: whether the memory is that of a device elsewhere. seconds: None where nothing
    tells; `seconds_from`: where it is from."""

    model: str
    frames: int
    width: int
    height: int
    preset: str
    device: str
    dtype: str
    offload: str
    parameters: int
    weights: int
    offloaded: int
    working: int
    stages: Mapping[str, int]
    levels: tuple[Level, ...]
    memory_free: int
    memory_asked: bool
    disk: int
    disk_free: int
    steps: int
    refine_steps: int
    seconds: float | None
    seconds_from: str

    @property
    def memory(self) -> int:
        """The most that a stage needs of the device."""
        return max(self.stages.values())

    @property
    def fits(self) -> bool:
        """Whether the device has that."""
        return self.memory + (_OVERHEAD if self.device == "cpu" else 0) <= self.memory_free


def plan(
    folder: Path, asked: ResolvedRequest, *, name: str, device: str, dtype: str, seconds_per_step: float | None = None,
    output: Path = Path(), savings: Savings = PLAIN, facts: Facts | None = None, memory: int | None = None,
    beside: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
) -> Plan:  # fmt: skip
    """Tell what a resolved request needs with the model of a folder.

    seconds_per_step: measured for stage 2; without it the time is estimated. facts: for a folder without weights; None counts them.
    memory: bytes of a device elsewhere to plan for: then nothing here is asked, and what does not fit is told and no error. beside: numbers
    in the parts of pipelines that are not here yet, by the stage they do.
    RequestError where the device is not there, or the machine has not the memory or the disk; ModelError where the folder is
    incomplete. `asked.num_frames` must be a number.
    """
    config, frames = asked.config, asked.num_frames
    if memory is None:
        savings.check(device, config, dtype)
    if seconds_per_step is not None and not math.isfinite(seconds_per_step):
        raise RequestError("seconds_per_step", seconds_per_step, "must be a finite number")
    assert frames is not None, "a video without end needs no plan"
    facts = facts or facts_of(folder, config)
    parts = {part: facts.parts[part] for part in facts.parts.keys() - asked.unneeded}
    held = {part: count * (4 if part.endswith("vae") else BYTES[dtype]) for part, count in parts.items()}
    if savings.engine == "openvino":
        copies = CONVERTED | ({} if asked.extend.time_guidance else {"unet": 2})
        held |= {part: held[part] * (1 + copies[part]) for part in copies.keys() & held.keys()}
    others = _pipelines(asked, BYTES[dtype])
    if config.extend_by is not None:
        others["chunks"] = pipeline_bytes(Path(config.extend_by.pipeline), BYTES[dtype])
    others |= {
        stage: {part: count * BYTES[dtype] for part, count in parts.items()}
        for stage, parts in beside.items()
    }
    works = (
        {"chunks": 0}
        if config.extend_by is not None
        else working_bytes(folder, asked, BYTES[dtype], savings.vae_slicing)
    )
    free = free_memory(device) if memory is None else memory
    levels = tuple(
        _level(offload, stages_of(held, others, works, offload), held, others, free)
        for offload in (LEVELS if device != "cpu" else LEVELS[:1])
    )
    steps, refine_steps = count_steps(asked)
    seconds, seconds_from = _time(
        facts, asked, steps, refine_steps, seconds_per_step, device, dtype, memory is None
    )
    found = Plan(
        name, frames, asked.output_width, asked.output_height, asked.request.preset, device, dtype, savings.offload, sum(parts.values()),
        _on_device(held, savings.offload), 0 if savings.offload == "none" else _resting(held, others), max(works.values()),
        stages_of(held, others, works, savings.offload), levels, free, memory is not None,
        output_bytes(asked), shutil.disk_usage(_existing(output)).free, steps, refine_steps, seconds, seconds_from,
    )  # fmt: skip
    if memory is None:
        _refuse(found)
    return found


def stages_of(
    held: Mapping[str, int], others: Mapping[str, Mapping[str, int]], works: Mapping[str, int], offload: str
) -> dict[str, int]:  # fmt: skip
    """Bytes that each stage needs of the device. others: weights of pipelines by stage and part."""
    own = _on_device(held, offload)
    stages = {stage: own + work for stage, work in works.items()}
    for stage, weights in others.items():
        stages[stage] = max(stages.get(stage, 0), _beside(own, weights, offload))
    return stages


def _beside(own: int, weights: Mapping[str, int], offload: str) -> int:
    """A pipeline's weights with those of the model: both are there without offloading."""
    if offload == "none":
        return own + sum(weights.values())
    return max(weights.values(), default=0) if offload == "model" else 0


def _on_device(held: Mapping[str, int], offload: str) -> int:
    """Bytes of weights that are there at the same time; layer by layer it is next to nothing."""
    if offload == "none":
        return sum(held.values())
    if offload == "group":
        return 0
    return max(max(held.values(), default=0), sum(held.get(part, 0) for part in ("unet", "cam")))


def _resting(held: Mapping[str, int], others: Mapping[str, Mapping[str, int]]) -> int:
    return sum(held.values()) + max((sum(weights.values()) for weights in others.values()), default=0)


def _level(
    offload: str, stages: Mapping[str, int], held: Mapping[str, int], others: Mapping[str, Mapping[str, int]], free: int
) -> Level:  # fmt: skip
    memory = max(stages.values())
    return Level(offload, memory, 0 if offload == "none" else _resting(held, others), memory <= free)


def _pipelines(asked: ResolvedRequest, size: int) -> dict[str, dict[str, int]]:
    """Weights of pipelines that do a stage, by stage and part."""
    found: dict[str, dict[str, int]] = {}
    if asked.start == "chunk" and (first := asked.first_chunk) is not None and first.pipeline is not None:
        found["base"] = pipeline_bytes(Path(first.pipeline), size)
        if first.adapter is not None:
            found["base"]["adapter"] = part_numbers(Path(first.adapter)) * size
    if asked.image_maker is not None:
        found["image"] = pipeline_bytes(Path(asked.image_maker), size)
    if asked.refine_by is not None:
        found["refine"] = pipeline_bytes(Path(asked.refine_by.pipeline), size)
    return found


def pipeline_bytes(folder: Path, size: int) -> dict[str, int]:
    """Weights of each part of a pipeline's folder, held in so many bytes a number; autoencoders in float32."""
    index = read_json(folder / INDEX)
    parts = {part: part_numbers(folder / part) for part in parts_of(index)}
    return {part: count * (4 if part.startswith("vae") else size) for part, count in parts.items() if count}


def part_numbers(folder: Path) -> int:
    """Numbers in the one set of weights of a part's folder that would be loaded; of pickles by their size, as float32."""
    chosen = weights_of(folder)
    if chosen is None:
        return 0
    files = [folder / name for name in chosen.files if not name.endswith(".json")]
    return sum(file.stat().st_size // 4 if chosen.kind == "bin" else _numbers(file) for file in files)


def _refuse(found: Plan) -> None:
    """RequestError, with a way out, for what cannot fit."""
    if found.offloaded + _OVERHEAD > (free := free_memory("cpu")) and found.offloaded:
        what = f"{found.model} needs about {readable(found.offloaded + _OVERHEAD)} of the machine's memory, where {readable(free)} are free"
        raise RequestError("offload", found.model, f"{what}; use --dtype bfloat16 or a machine with more")
    if not found.fits:
        need = found.memory + (_OVERHEAD if found.device == "cpu" else 0)
        what = f"{found.model} needs about {readable(need)} on {found.device}, where {readable(found.memory_free)} are free"
        raise RequestError("model", found.model, f"{what}; use {ways_out(found)}")
    if found.disk > found.disk_free:
        what = f"needs about {readable(found.disk)} on the disk, where {readable(found.disk_free)} are free"
        raise RequestError("num_frames", found.frames, f"{what}; make fewer, or write to another disk")


def ways_out(found: Plan) -> str:
    """What makes a plan fit that does not."""
    ways = ["a machine with more"]
    if found.dtype == "float32":
        ways.append("--dtype bfloat16" if found.device == "cpu" else "--dtype float16")
    if (level := next((level for level in found.levels if level.fits), None)) and level.offload != "none":
        ways.append(f"--offload {level.offload}")
    if found.preset == "full":
        ways.append("--preset preview")
    return " or ".join(reversed(ways))


def count_steps(asked: ResolvedRequest) -> tuple[int, int]:
    """Denoising steps of stages 1-2, and of stage 3 (0 for a preview)."""
    assert asked.made_frames is not None, "checked before"
    steps = count_chunks(asked) * asked.extend.steps
    if (refine := asked.refine) is None:
        return steps, 0
    windows = 1 + max(0, math.ceil((asked.made_frames - refine.frames) / (refine.frames - refine.overlap)))
    return steps, windows * refine.steps


def count_chunks(asked: ResolvedRequest) -> int:
    """Chunks of stages 1-2."""
    assert asked.made_frames is not None, "checked before"
    return 0 if asked.start == "file" else asked.grid.count(asked.made_frames)


def parameters_of(part: Path) -> int:
    """Numbers in the safetensors files of a part's folder, counted from their headers. ModelError if one is cut short."""
    return sum(_numbers(file) for file in sorted(part.glob("*.safetensors")))


def _numbers(file: Path) -> int:
    return sum(math.prod(entry["shape"]) for name, entry in _header(file).items() if name != "__metadata__")


def _header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if 8 + length > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            return json.loads(stream.read(length))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: is cut short or no safetensors file ({error})") from error


def _parts(folder: Path, config: ModelConfig) -> list[Path]:
    """The folders of the networks that are loaded; ModelError if there are none where there must be."""
    found = [part for part in sorted(folder.iterdir()) if any(part.glob("*.safetensors"))]
    needed = {"unet", "cam", "vae"} | ({"refiner"} if config.refine else set())
    if missing := sorted(needed - {part.name for part in found}):
        raise ModelError(f"{folder} is incomplete: it has no weights in {', '.join(missing)}")
    return [part for part in found if config.refine or not part.name.startswith("refiner")]


def working_bytes(folder: Path, asked: ResolvedRequest, size: int, sliced: bool = False) -> dict[str, int]:
    """Memory that each stage's largest step needs besides the weights, about: guided U-Net passes, and decoding of a few frames in float32,
    of one if it is sliced."""
    vae = read_json(folder / "vae" / "config.json")
    channels = vae["block_out_channels"]
    factor = 2 ** (len(channels) - 1)
    together = vae.get("_class_name") == "AutoencoderKLTemporalDecoder"

    def decoding(height: int, width: int, together: bool) -> int:
        # the decoder of StreamingSVD's videos looks at eight neighbouring frames at once, and can do no slices
        frames = 8 if together else 1 if sliced else autoencoder_batch(height, width)
        return frames * height * width * channels[0] * 4 * 4  # four maps of the finest level

    def denoising(part: str, frames: int, height: int, width: int) -> int:
        return _unet_bytes(
            read_json(folder / part / "config.json"), height // factor, width // factor, frames, size
        )

    needs = {
        "chunks": denoising("unet", asked.extend.frames, asked.height, asked.width),
        "decoding": decoding(asked.height, asked.width, together),
    }
    if (refine := asked.refine) is not None:
        frames = min(refine.frames, asked.made_frames or refine.frames)
        needs["refine"] = max(
            denoising("refiner", frames, *asked.output_size), decoding(*asked.output_size, False)
        )
    return needs


def _unet_bytes(sizes: dict[str, Any], height: int, width: int, frames: int, size: int) -> int:
    """Skips of every level, twice where mergers change them, and the wide inner layer of a feed-forward net at the finest level."""
    maps = [
        channels * (height >> level) * (width >> level)
        for level, channels in enumerate(sizes["block_out_channels"])
    ]
    skips = 2 * sum((sizes["layers_per_block"] + 1) * numbers for numbers in maps)
    return 2 * frames * (skips + 12 * maps[0]) * size  # two halves of guidance


def output_bytes(asked: ResolvedRequest) -> int:
    """The video twice, as segments and as the finished file, at 0.1 bytes a pixel, and the frames kept to go on from."""
    kept = 2 * (asked.extend.overlap + 1) * asked.height * asked.width * 3 * 4
    return int(2 * 0.1 * asked.output_height * asked.output_width * (asked.num_frames or 0)) + kept


def facts_of(folder: Path, config: ModelConfig) -> Facts:
    """Of a model's folder, counted from the headers of its files; the arithmetic when it is asked for."""
    from . import flops

    if (
        config.extend_by is not None
    ):  # a pipeline of others: its weights are counted as such, its arithmetic is not
        return Facts({}, lambda predictions: 0, lambda: 0, lambda height, width: 0, lambda height, width: 0)
    return Facts(
        {part.name: parameters_of(part) for part in _parts(folder, config)},
        lambda predictions: flops.step_flops(folder, config, predictions),
        lambda: flops.refine_step_flops(folder, config),
        lambda height, width: flops.decode_flops(folder, height, width),
        lambda height, width: flops.encode_flops(folder, height, width),
    )


def _time(
    facts: Facts,
    asked: ResolvedRequest,
    steps: int,
    refine_steps: int,
    measured: float | None,
    device: str,
    dtype: str,
    here: bool,
) -> tuple[float | None, str]:
    if measured is None and not here:
        return None, "no speed of such a device has been measured; --seconds-per-step takes one"
    own = facts.step_flops(_predictions(asked))
    if not own:
        return None, "the arithmetic of this network is not counted"
    refining = refine_steps * facts.refine_step_flops() if refine_steps else 0
    total = own * steps + refining + _vae_flops(facts, asked)
    left_out = _uncounted(asked)
    if measured is not None:
        return (
            measured * total / own,
            f"the seconds a step that were given; stage 3 and the autoencoder by their arithmetic{left_out}",
        )
    rate = _matrix_rate(device, dtype)
    where = "this machine's CPU" if device == "cpu" else device
    how = f"the arithmetic of steps and autoencoder at half the speed of a matrix product on {where}"
    return total / (0.5 * rate), f"estimate: {how}{left_out}"


def _uncounted(asked: ResolvedRequest) -> str:
    """What others' pipelines do is not in the time."""
    names = [
        name
        for name, there in (
            ("base", asked.first_chunk),
            ("refine_by", asked.refine_by),
            ("image", asked.image_maker),
        )
        if there
    ]
    return f"; without {' and '.join(names)}" if names else ""


def _predictions(asked: ResolvedRequest) -> int:
    """Of the network in a step: two for guidance, or one without, and one of the frames alone for time guidance."""
    return (1 if asked.extend.guidance_scale == 1 else 2) + bool(asked.extend.time_guidance)


def _vae_flops(facts: Facts, asked: ResolvedRequest) -> int:
    """Of decoding every chunk, its overlap too, and for stage 3 of encoding and decoding every frame once."""
    assert asked.made_frames is not None, "checked before"
    decoded = count_chunks(asked) * asked.extend.frames * facts.decode_flops(asked.height, asked.width)
    if asked.refine is None:
        return decoded
    size = asked.output_size
    return decoded + asked.made_frames * (facts.encode_flops(*size) + facts.decode_flops(*size))


def _matrix_rate(device: str, dtype: str, size: int = 1024, seconds: float = 0.3) -> float:
    """Floating-point operations a second of a square matrix product, measured now."""
    import torch

    a = torch.ones(size, size, device=device, dtype=getattr(torch, dtype))
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        float((a @ a)[0, 0])  # waits for the device
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - began)


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
