"""Plan a request: memory, disk and time, before any weights are read or downloaded.

Weights are counted from file headers. Working memory and time are estimates and labelled so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from ..config import read_json
from ..config.places import free_bytes
from ..config.runtime import CONVERTED, PLAIN, Offload, Savings, autoencoder_batch
from ..config.units import readable
from ..errors import RequestError
from ..resolve import ResolvedRequest
from .device import free_memory
from .duration import count_steps, estimate_seconds, measured_speeds
from .facts import Facts, facts_of, part_bytes, part_numbers, pipeline_bytes

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_OVERHEAD = 600 * 10**6  # Python and its libraries, about

Parts = Mapping[str, Mapping[str, int]]
"""A number for each part of each stage."""

LEVELS: tuple[Offload, ...] = get_args(Offload)
"""Offloading, from the fastest to the one that needs the least memory."""


@dataclass(frozen=True)
class Level:
    """Bytes that one offloading level needs on the device and in CPU memory."""

    offload: str
    memory: int
    offloaded: int
    fits: bool


@dataclass(frozen=True)
class Plan:
    """A request's needs, in bytes and seconds.

    weights: the model's, on the device at once. offloaded: kept in CPU memory. working: needed by a step
    besides (estimate). stages: peak of each stage on the device, external pipelines counted by their weights
    alone. levels: the same by offloading level. memory_asked: the memory is that of another machine. disk: of
    the output and its temporary files. seconds: None if unknown; seconds_from: source of the estimate.
    measured: speeds measured on other machines, with their source. pipeline: one of diffusers makes the
    chunks; its weights are counted, what its steps need besides is unknown.
    """

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
    measured: tuple[str, ...]
    pipeline: bool = False

    @property
    def memory(self) -> int:
        """Return the largest device memory of any stage."""
        return max(self.stages.values())

    @property
    def fits(self) -> bool:
        """Return whether the device has enough memory."""
        return self.memory + (_OVERHEAD if self.device == "cpu" else 0) <= self.memory_free


def plan(
    folder: Path, resolved: ResolvedRequest, *, name: str, device: str, dtype: str,
    seconds_per_step: float | None = None, output: Path = Path(), savings: Savings = PLAIN,
    facts: Facts | None = None, memory: int | None = None,
    beside: Parts = MappingProxyType({}),
) -> Plan:  # fmt: skip
    """Plan a resolved request for the model in `folder`; `resolved.num_frames` must be set.

    seconds_per_step: measured for stage 2; None estimates. facts: for a folder without weights; None counts
    them. memory: bytes of a device elsewhere; then this machine is not examined and a misfit is reported, not
    raised. beside: parameters of pipelines not downloaded yet, by stage and part. Raise RequestError if the
    device is missing or memory or disk do not suffice, ModelError if the folder is incomplete.
    """
    config, frames = resolved.config, resolved.num_frames
    savings.check(device, config, dtype, resolved.uses_pipelines, here=memory is None)
    if seconds_per_step is not None and not math.isfinite(seconds_per_step):
        raise RequestError("seconds_per_step", seconds_per_step, "must be a finite number")
    assert frames is not None, "a video without end needs no plan"
    facts = facts or facts_of(folder, config)
    parts = {part: facts.parts[part] for part in facts.parts.keys() - resolved.unneeded}
    held = {part: count * (4 if part.endswith("vae") else BYTES[dtype]) for part, count in parts.items()}
    if savings.engine == "openvino":
        copies = CONVERTED | ({} if resolved.extend.time_guidance else {"unet": 2})
        held |= {part: held[part] * (1 + copies[part]) for part in copies.keys() & held.keys()}
    external = _pipelines(resolved, BYTES[dtype], savings)
    if config.extend_by is not None:
        by = Path(config.extend_by.pipeline)
        external["chunks"] = pipeline_bytes(by, BYTES[dtype], savings.quantize)
    for stage, counts in beside.items():
        bits = savings.quantize if stage in ("chunks", "base") or not savings.gguf else None
        external[stage] = part_bytes(counts, BYTES[dtype], bits)
    working = (
        {"chunks": 0}
        if config.extend_by is not None
        else working_bytes(folder, resolved, BYTES[dtype], savings.vae_slicing)
    )
    free = free_memory(device) if memory is None else memory
    levels = tuple(
        _level(offload, stages_of(held, external, working, offload), held, external, free)
        for offload in (LEVELS if device != "cpu" else LEVELS[:1])
    )
    steps, refine_steps = count_steps(resolved)
    seconds, seconds_from = estimate_seconds(
        facts, resolved, steps, refine_steps, seconds_per_step, device, dtype, memory is None
    )
    found = Plan(
        name, frames, resolved.output_width, resolved.output_height, resolved.request.preset, device, dtype,
        savings.offload, sum(parts.values()), _on_device(held, savings.offload),
        0 if savings.offload == "none" else _resting(held, external), max(working.values()),
        stages_of(held, external, working, savings.offload), levels, free, memory is not None,
        output_bytes(resolved), free_bytes(output), steps, refine_steps, seconds, seconds_from,
        measured_speeds(config.name, resolved.request.preset, savings.engine, device),
        config.extend_by is not None,
    )  # fmt: skip
    if memory is None:
        _refuse(found)
    return found


def stages_of(
    held: Mapping[str, int], external: Parts, working: Mapping[str, int], offload: str
) -> dict[str, int]:
    """Return the bytes that each stage needs on the device; `external` has pipelines' weights by stage."""
    own = _on_device(held, offload)
    stages = {stage: own + work for stage, work in working.items()}
    for stage, weights in external.items():
        stages[stage] = max(stages.get(stage, 0), _beside(own, weights, offload))
    return stages


def _beside(own: int, weights: Mapping[str, int], offload: str) -> int:
    """Return the bytes of a pipeline's weights beside the model's; without offloading both are loaded."""
    if offload == "none":
        return own + sum(weights.values())
    return max(weights.values(), default=0) if offload == "model" else 0


def _on_device(held: Mapping[str, int], offload: str) -> int:
    """Return the bytes of weights on the device at once; by layer it is next to nothing."""
    if offload == "none":
        return sum(held.values())
    if offload == "group":
        return 0
    return max(max(held.values(), default=0), sum(held.get(part, 0) for part in ("unet", "cam")))


def _resting(held: Mapping[str, int], external: Parts) -> int:
    return sum(held.values()) + max((sum(weights.values()) for weights in external.values()), default=0)


def _level(
    offload: str, stages: Mapping[str, int], held: Mapping[str, int], external: Parts, free: int
) -> Level:
    memory = max(stages.values())
    return Level(offload, memory, 0 if offload == "none" else _resting(held, external), memory <= free)


def _pipelines(resolved: ResolvedRequest, size: int, savings: Savings) -> dict[str, dict[str, int]]:
    """Return the bytes of external pipelines' weights by stage and part."""
    found: dict[str, dict[str, int]] = {}
    bits = None if savings.gguf else savings.quantize
    if (
        resolved.start == "chunk"
        and (first := resolved.first_chunk) is not None
        and first.pipeline is not None
    ):
        found["base"] = pipeline_bytes(Path(first.pipeline), size, savings.quantize)
        if first.adapter is not None:
            found["base"]["adapter"] = part_numbers(Path(first.adapter)) * size
    if resolved.image_maker is not None:
        found["image"] = pipeline_bytes(Path(resolved.image_maker), size, bits)
    if resolved.refine_by is not None:
        found["refine"] = pipeline_bytes(Path(resolved.refine_by.pipeline), size, bits)
    return found


def _refuse(found: Plan) -> None:
    """Raise RequestError with remedies if the plan does not fit."""
    if found.offloaded + _OVERHEAD > (free := free_memory("cpu")) and found.offloaded:
        what = (
            f"{found.model} needs about {readable(found.offloaded + _OVERHEAD)} of "
            f"CPU memory, but {readable(free)} are free"
        )
        raise RequestError(
            "offload", found.model, f"{what}; use --dtype bfloat16 or a machine with more memory"
        )
    if not found.fits:
        need = found.memory + (_OVERHEAD if found.device == "cpu" else 0)
        what = (
            f"{found.model} needs about {readable(need)} on {found.device}, "
            f"but {readable(found.memory_free)} are free"
        )
        raise RequestError("model", found.model, f"{what}; use {ways_out(found)}")
    if found.disk > found.disk_free:
        what = f"needs about {readable(found.disk)} on the disk, but {readable(found.disk_free)} are free"
        raise RequestError("num_frames", found.frames, f"{what}; make fewer frames, or write to another disk")


def ways_out(found: Plan) -> str:
    """List the options that would make the plan fit."""
    ways = ["a machine with more memory"]
    if found.dtype == "float32":
        ways.append("--dtype bfloat16" if found.device == "cpu" else "--dtype float16")
    if (level := next((level for level in found.levels if level.fits), None)) and level.offload != "none":
        ways.append(f"--offload {level.offload}")
    if found.preset == "full":
        ways.append("--preset preview")
    return " or ".join(reversed(ways))


def working_bytes(folder: Path, resolved: ResolvedRequest, size: int, sliced: bool = False) -> dict[str, int]:
    """Estimate each stage's peak memory besides weights: guided U-Net passes, float32 decoding."""
    vae = read_json(folder / "vae" / "config.json")
    channels = vae["block_out_channels"]
    factor = 2 ** (len(channels) - 1)
    together = vae.get("_class_name") == "AutoencoderKLTemporalDecoder"

    def decoding(height: int, width: int, together: bool) -> int:
        # StreamingSVD's temporal decoder takes eight neighbouring frames at once and cannot slice
        frames = 8 if together else 1 if sliced else autoencoder_batch(height, width)
        return frames * height * width * channels[0] * 4 * 4  # four maps of the finest level

    def denoising(part: str, frames: int, height: int, width: int) -> int:
        return _unet_bytes(
            read_json(folder / part / "config.json"), height // factor, width // factor, frames, size
        )

    needs = {
        "chunks": denoising("unet", resolved.extend.frames, resolved.height, resolved.width),
        "decoding": decoding(resolved.height, resolved.width, together),
    }
    if (refine := resolved.refine) is not None:
        frames = min(refine.frames, resolved.made_frames or refine.frames)
        needs["refine"] = max(
            denoising("refiner", frames, *resolved.output_size), decoding(*resolved.output_size, False)
        )
    return needs


def _unet_bytes(sizes: dict[str, Any], height: int, width: int, frames: int, size: int) -> int:
    """Estimate activations: each level's skips, twice for mergers, and the finest feed-forward layer."""
    maps = [
        channels * (height >> level) * (width >> level)
        for level, channels in enumerate(sizes["block_out_channels"])
    ]
    skips = 2 * sum((sizes["layers_per_block"] + 1) * numbers for numbers in maps)
    return 2 * frames * (skips + 12 * maps[0]) * size  # two halves of guidance


def output_bytes(resolved: ResolvedRequest) -> int:
    """Estimate segments plus finished file at 0.1 bytes a pixel, and the frames kept for resuming."""
    kept = 2 * (resolved.extend.overlap + 1) * resolved.height * resolved.width * 3 * 4
    return int(2 * 0.1 * resolved.output_height * resolved.output_width * (resolved.num_frames or 0)) + kept
