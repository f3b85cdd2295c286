"""What a request would need of this machine: memory, disk and time, before any weights are read or downloaded.

Sizes of weights are counted from the headers of the files. What a step needs besides, and how long it takes, are estimates, and say so.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.hub import readable
from ..config import ModelConfig, read_json
from ..config.runtime import CONVERTED, PLAIN, Savings, autoencoder_batch
from ..errors import ModelError, RequestError
from ..resolve import ResolvedRequest

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_OVERHEAD = 600 * 10**6  # Python and its libraries, about


@dataclass(frozen=True)
class Plan:
    """All in bytes and seconds. `weights`: as they are held on the device at once; `offloaded`: as they are kept in the machine's memory
    beside; `working`: what a step needs besides, an estimate; `disk`: of the output and what is kept beside it while it is made.
    seconds: None where nothing tells; `seconds_from`: where it is from."""

    model: str
    frames: int
    width: int
    height: int
    preset: str
    device: str
    dtype: str
    parameters: int
    weights: int
    offloaded: int
    working: int
    memory_free: int
    disk: int
    disk_free: int
    steps: int
    refine_steps: int
    seconds: float | None
    seconds_from: str

    @property
    def memory(self) -> int:
        return self.weights + self.working


def plan(
    folder: Path, asked: ResolvedRequest, *, name: str, device: str, dtype: str, seconds_per_step: float | None = None,
    output: Path = Path(), savings: Savings = PLAIN, parts: Mapping[str, int] | None = None,
) -> Plan:  # fmt: skip
    """What a resolved request needs with the model of a folder. seconds_per_step: measured for stage 2; without it the time is estimated.
    parts: the numbers in each, for a folder without weights; None counts them.

    RequestError where the device is not there, or the machine has not the memory or the disk; ModelError where the
    folder is incomplete. `asked.num_frames` must be a number.
    """
    config, frames = asked.config, asked.num_frames
    savings.check(device, config, dtype)
    if seconds_per_step is not None and not math.isfinite(seconds_per_step):
        raise RequestError("seconds_per_step", seconds_per_step, "must be a finite number")
    assert frames is not None, "a video without end needs no plan"
    if parts is None:
        parts = {part.name: parameters_of(part) for part in _parts(folder, config)}
    parts = {part: parts[part] for part in parts.keys() - asked.unneeded}
    held = {part: count * (4 if part.endswith("vae") else BYTES[dtype]) for part, count in parts.items()}
    if savings.engine == "openvino":
        copies = CONVERTED | ({} if asked.extend.time_guidance else {"unet": 2})
        held |= {part: held[part] * (1 + copies[part]) for part in copies.keys() & held.keys()}
    steps, refine_steps = count_steps(asked)
    seconds, seconds_from = _time(folder, asked, steps, refine_steps, seconds_per_step, device, dtype)
    found = Plan(
        name, frames, asked.output_width, asked.output_height, asked.request.preset, device, dtype, sum(parts.values()),
        _on_device(held, savings), 0 if savings.offload == "none" else sum(held.values()),
        working_bytes(folder, asked, BYTES[dtype], savings.vae_slicing), free_memory(device),
        output_bytes(asked), shutil.disk_usage(_existing(output)).free, steps, refine_steps, seconds, seconds_from,
    )  # fmt: skip
    _refuse(found)
    return found


def _on_device(held: Mapping[str, int], savings: Savings) -> int:
    """Bytes of weights that are there at the same time; layer by layer it is next to nothing."""
    if savings.offload == "none":
        return sum(held.values())
    if savings.offload == "group":
        return 0
    return max(max(held.values()), sum(held.get(part, 0) for part in ("unet", "cam")))


def _refuse(found: Plan) -> None:
    """RequestError, with a way out, for what cannot fit."""
    if found.offloaded + _OVERHEAD > (free := free_memory("cpu")) and found.offloaded:
        what = f"{found.model} needs about {readable(found.offloaded + _OVERHEAD)} of the machine's memory, where {readable(free)} are free"
        raise RequestError("offload", found.model, f"{what}; use --dtype bfloat16 or a machine with more")
    need = found.memory + (_OVERHEAD if found.device == "cpu" else 0)
    if need > found.memory_free:
        ways = ["a machine with more"]
        if found.dtype == "float32":
            ways.append("--dtype bfloat16")
        if found.device != "cpu" and not found.offloaded:
            ways.append("--offload model")
        if found.preset == "full":
            ways.append("--preset preview")
        what = f"{found.model} needs about {readable(need)} on {found.device}, where {readable(found.memory_free)} are free"
        raise RequestError("model", found.model, f"{what}; use {' or '.join(reversed(ways))}")
    if found.disk > found.disk_free:
        what = f"needs about {readable(found.disk)} on the disk, where {readable(found.disk_free)} are free"
        raise RequestError("num_frames", found.frames, f"{what}; make fewer, or write to another disk")


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
    files = sorted(part.glob("*.safetensors"))
    return sum(math.prod(entry["shape"]) for file in files for name, entry in _header(file).items() if name != "__metadata__")


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


def working_bytes(folder: Path, asked: ResolvedRequest, size: int, sliced: bool = False) -> int:
    """Memory that the largest step needs besides the weights, about: guided U-Net passes, and decoding of a few frames in float32, of one
    if it is sliced."""
    vae = read_json(folder / "vae" / "config.json")["block_out_channels"]
    factor = 2 ** (len(vae) - 1)
    stages = [("unet", asked.extend.frames, (asked.height, asked.width))]
    if (refine := asked.refine) is not None:
        stages.append(("refiner", min(refine.frames, asked.made_frames or refine.frames), asked.output_size))
    needs = []
    for part, frames, (height, width) in stages:
        sizes = read_json(folder / part / "config.json")
        needs.append(_unet_bytes(sizes, height // factor, width // factor, frames, size))
        needs.append((1 if sliced else autoencoder_batch(height, width)) * height * width * vae[0] * 4 * 4)  # four maps of the finest level
    return max(needs)


def _unet_bytes(sizes: dict[str, Any], height: int, width: int, frames: int, size: int) -> int:
    """Skips of every level, twice where mergers change them, and the wide inner layer of a feed-forward net at the finest level."""
    maps = [channels * (height >> level) * (width >> level) for level, channels in enumerate(sizes["block_out_channels"])]
    skips = 2 * sum((sizes["layers_per_block"] + 1) * numbers for numbers in maps)
    return 2 * frames * (skips + 12 * maps[0]) * size  # two halves of guidance


def output_bytes(asked: ResolvedRequest) -> int:
    """The video twice, as segments and as the finished file, at 0.1 bytes a pixel, and the frames kept to go on from."""
    kept = 2 * (asked.extend.overlap + 1) * asked.height * asked.width * 3 * 4
    return int(2 * 0.1 * asked.output_height * asked.output_width * (asked.num_frames or 0)) + kept


def free_memory(device: str) -> int:
    """Bytes free on a device now. RequestError if it is not there."""
    if device == "cpu":
        status = Path("/proc/meminfo")
        if status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("MemAvailable:"))
            return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import torch

    try:
        if torch.device(device).type != "cuda":
            return torch.mps.recommended_max_memory()
        return torch.cuda.mem_get_info(device)[0]
    except (RuntimeError, AssertionError, AttributeError) as error:
        raise RequestError("device", device, f"cannot be used here ({str(error).splitlines()[0]}); cpu always can") from error


def _time(
    folder: Path, asked: ResolvedRequest, steps: int, refine_steps: int, measured: float | None, device: str, dtype: str
) -> tuple[float | None, str]:
    from .flops import refine_step_flops, step_flops

    own = step_flops(folder, asked.config, _predictions(asked))
    if not own:
        return None, "unknown: the arithmetic of this network is not counted"
    refining = refine_steps * refine_step_flops(folder, asked.config) if refine_steps else 0
    total = own * steps + refining + _vae_flops(folder, asked)
    if measured is not None:
        return measured * total / own, "the seconds a step that were given; stage 3 and the autoencoder by their arithmetic"
    rate = _matrix_rate(device, dtype)
    return total / (0.5 * rate), "estimate: the arithmetic of steps and autoencoder at half the speed of a matrix product here"


def _predictions(asked: ResolvedRequest) -> int:
    """Of the network in a step: two for guidance, or one without, and one of the frames alone for time guidance."""
    return (1 if asked.extend.guidance_scale == 1 else 2) + bool(asked.extend.time_guidance)


def _vae_flops(folder: Path, asked: ResolvedRequest) -> int:
    """Of decoding every chunk, its overlap too, and for stage 3 of encoding and decoding every frame once."""
    from .flops import decode_flops, encode_flops

    assert asked.made_frames is not None, "checked before"
    decoded = count_chunks(asked) * asked.extend.frames * decode_flops(folder, asked.height, asked.width)
    if asked.refine is None:
        return decoded
    size = asked.output_size
    return decoded + asked.made_frames * (encode_flops(folder, *size) + decode_flops(folder, *size))


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
