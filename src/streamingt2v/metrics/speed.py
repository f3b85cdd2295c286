"""Measure speed: time to the first frame, frames a second, share of each part, memory.

`warm` measures in this process, `cold` a fresh process of the command, `compare` two settings in turn.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..backbones.modelscope import ModelScopeBackbone
from ..config import Preset, Request
from ..config.runtime import Engine, Offload, Savings
from ..pipeline import LongVideoPipeline
from ..runs.render import create_run, load_pipeline, render
from ..stages.making import extender
from ..stages.protocols import Words
from ..types import Chunk

PROMPT = "A cat running on the street"


@dataclass(frozen=True)
class Setting:
    """Options for a video. threads: torch's on a CPU, None: its own choice. The last six: see `Savings`."""

    model: str = "tiny"
    preset: Preset = "preview"
    device: str = "cpu"
    dtype: str = "float32"
    steps: int | None = None
    guidance_scale: float | None = None
    threads: int | None = None
    offload: Offload = "none"
    vae_slicing: bool = False
    vae_tiling: bool = False
    engine: Engine = "torch"
    quantize: str | None = None
    lora: tuple[str, ...] = ()

    @property
    def savings(self) -> Savings:
        """Return the options that save memory and time."""
        return Savings.of(self)

    @property
    def work(self) -> tuple[object, ...]:
        """Return the options that change frames: settings of equal work give equal frames, up to rounding."""
        return self.preset, self.steps, self.guidance_scale

    def request(self, frames: int, seed: int = 33) -> Request:
        """Return a request for a video of so many frames."""
        options: dict[str, Any] = {"preset": self.preset, "num_inference_steps": self.steps}
        return Request(PROMPT, frames, seed, guidance_scale=self.guidance_scale, **options)

    def pipeline(self) -> LongVideoPipeline:
        """Load the model. RequestError if the model or the device is not there."""
        return load_pipeline(self.model, self.device, self.dtype, self.savings, refiner=self.preset == "full")


@dataclass
class Speed:
    """Speed in a warm process. sustained: frames a second after the first chunk. shares: of the time."""

    first_frame_seconds: float
    sustained: float
    seconds: float
    shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cold:
    """Speed of a fresh process of `generate`, from its start to its result."""

    frames: int
    first_frame_seconds: float
    seconds: float
    new_frames_per_second: float
    peak_rss_mb: float


def warm(pipe: LongVideoPipeline, setting: Setting, frames: int, watched: bool = False) -> Speed:
    """Make and write a video of more than one chunk. watched: also measure the shares."""
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    times: list[tuple[float, int]] = []

    def on_chunk(chunk: Chunk) -> None:
        times.append((time.perf_counter(), chunk.stop))

    with TemporaryDirectory() as folder:
        asked, path = pipe.resolve(setting.request(frames)), Path(folder) / "run"
        how: dict[str, Any] = {"device": setting.device, "dtype": setting.dtype}
        with create_run(pipe, asked, path, setting.model, **how) as run:
            began = time.perf_counter()
            with stopwatch(pipe, run, setting.device) if watched else _nothing() as parts:
                render(pipe, run, asked, on_chunk=on_chunk)
            seconds = time.perf_counter() - began
    (first, done), (last, whole) = times[0], times[-1]
    shares = {name: spent / seconds for name, spent in parts.items()}
    shares |= {"other": 1 - sum(shares.values())} if watched else {}
    return Speed(first - began, (whole - done) / (last - first), seconds, shares)


def cold(setting: Setting, frames: int) -> Cold:
    """Measure a fresh process of the command, with its own choice of threads; its video is deleted."""
    with TemporaryDirectory() as folder:
        options: dict[str, object] = {
            name: getattr(setting, name)
            for name in ("preset", "model", "device", "dtype", "offload", "engine")
        }
        options |= {"frames": frames, "steps": setting.steps, "guidance-scale": setting.guidance_scale}
        options |= {"output": Path(folder) / "out.mp4"}
        words = [
            word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))
        ]
        words += [f"--vae-{name}" for name in ("slicing", "tiling") if getattr(setting, f"vae_{name}")]
        began = time.perf_counter()
        command = [sys.executable, "-m", "streamingt2v", "generate", PROMPT, "--quiet", "--json", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None, "it is a pipe"
            line = process.stdout.readline()
            wall = time.perf_counter() - began
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
    said = json.loads(line)
    start = wall - said["seconds"]  # interpreter and first imports, which the command cannot see
    return Cold(
        frames, start + said["first_frame_seconds"], wall, said["new_frames_per_second"], said["peak_rss_mb"]
    )


@dataclass(frozen=True)
class Comparison:
    """Medians, ratios of first to second, largest difference of pixels (0..1; None: work differs)."""

    first: Speed
    second: Speed
    ratio: float
    ratio_sustained: float
    difference: float | None


def compare(first: Setting, second: Setting, frames: int, repeats: int) -> Comparison:
    """Make the same video both ways in turn, `repeats` times, after a warm-up."""
    pipes = [setting.pipeline() for setting in (first, second)]
    speeds: list[list[Speed]] = [[], []]
    for turn in range(repeats + 1):
        for pipe, setting, found in zip(pipes, (first, second), speeds, strict=True):
            speed = warm(pipe, setting, frames)
            if turn:
                found.append(speed)
    one, two = (_median(found) for found in speeds)
    is_same_work = first.work == second.work
    difference = chunk_difference(pipes[0], pipes[1], first.request(frames)) if is_same_work else None
    return Comparison(one, two, two.seconds / one.seconds, one.sustained / two.sustained, difference)


def chunk_difference(one: LongVideoPipeline, other: LongVideoPipeline, request: Request) -> float:
    """Return the largest difference of a pixel, 0..1, in the first two chunks that two pipelines make."""
    makers = [extender(pipe.components, pipe.resolve(request)) for pipe in (one, other)]
    words = Words(one.components.text, request.negative_prompt, request.prompt_at)
    firsts = [maker.first(words, None) for maker in makers]
    memory = makers[0].memory(firsts[0])
    seconds = [maker.next(memory, words, len(firsts[0])) for maker in makers]
    return max(float((a - b).abs().max()) / 2 for a, b in (firsts, seconds))


@contextmanager
def stopwatch(pipe: LongVideoPipeline, run: Any, device: str) -> Iterator[dict[str, float]]:
    """Measure the seconds that each part takes while the block runs."""
    spent: dict[str, float] = defaultdict(float)
    watched = [(owner, method, part) for owner, method, part in _methods(pipe, run) if owner is not None]
    # methods that an engine has put on the network itself
    before = [vars(owner).get(method) for owner, method, _ in watched]
    try:
        for owner, method, part in watched:
            setattr(owner, method, _timed(getattr(owner, method), spent, part, device))
        yield spent
    finally:
        for (owner, method, _), own in zip(watched, before, strict=True):
            vars(owner).pop(method, None)
            if own is not None:
                setattr(owner, method, own)


def _methods(pipe: LongVideoPipeline, run: Any) -> Iterator[tuple[Any, str, str]]:
    """Yield (owner, method, part) of everything that takes time; none of these calls another."""
    parts = pipe.components
    yield getattr(parts.text, "encoder", None), "forward", "text"
    backbone: Any = parts.backbone
    yield backbone.unet, "forward", "UNet"
    yield backbone.cam, "forward", "CAM"
    yield backbone.cam, "encode_frames", "CAM"
    if isinstance(backbone, ModelScopeBackbone):
        yield backbone.unet, "contexts", "APM and contexts"
        yield backbone.cam, "contexts", "APM and contexts"
        yield backbone.image_tokens, "forward", "APM and contexts"
    yield backbone.image_encoder, "forward", "APM and contexts"
    yield backbone.vae, "decode", "VAE"
    yield backbone.vae, "encode", "VAE"
    yield parts.refiner and parts.refiner.unet, "forward", "refiner"
    yield run, "commit", "encode and write"


def _timed(call: Any, spent: dict[str, float], part: str, device: str) -> Any:
    @wraps(call)
    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments, **named)
        finally:
            if not device.startswith("cpu"):
                torch.accelerator.synchronize()
            spent[part] += time.perf_counter() - began

    return timed


@contextmanager
def _nothing() -> Iterator[dict[str, float]]:
    yield {}


def _median(found: list[Speed]) -> Speed:
    names = ("first_frame_seconds", "sustained", "seconds")
    return replace(found[0], **{name: median(getattr(speed, name) for speed in found) for name in names})


def repeated(setting: Setting, frames: int, repeats: int) -> Speed:
    """Return the medians of so many videos in this process, after a warm-up, with the shares of one more."""
    pipe = setting.pipeline()
    found = [warm(pipe, setting, frames) for _ in range(repeats + 1)][1:]
    return replace(_median(found), shares=warm(pipe, setting, frames, watched=True).shares)


def conditions(device: str) -> dict[str, str]:
    """Return the conditions that the numbers depend on besides the setting."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    threads = str(torch.get_num_threads())
    return {"device": name, "threads": threads, "torch": torch.__version__, "load": _load()}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


def _load() -> str:
    """Return the load of the last minute; above 0.5 before the start, the numbers are too low."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
