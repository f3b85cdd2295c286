"""What this machine has: devices, memory, disks and optional packages."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..config.units import readable
from .device import DEVICES, choose_device, free_memory, name_of, usable

PACKAGES = {
    "cv2": "interpolate", "openvino": "openvino", "ray": "ray", "fastapi": "server", "gradio": "web", "scenedetect": "eval",
    "sentencepiece": "bases", "ftfy": "bases", "peft": "bases", "bitsandbytes": "quantize", "torchao": "quantize", "gguf": "quantize",
}  # fmt: skip
"""Optional packages, by the extra that brings each."""


@dataclass(frozen=True)
class Machine:
    """device: the one that `--device auto` takes; why: the reason. accelerators: those that torch can use. extras: optional packages."""

    device: str
    why: str
    accelerators: dict[str, str]
    cores: int
    memory_free: int
    ram_free: int
    disk_free: dict[str, int]
    packages: dict[str, bool]


def examine(*folders: Path) -> Machine:
    """This machine, with the disks of these folders, which need not be there yet."""
    device, why = choose_device("auto")
    disks = {
        str(folder): shutil.disk_usage(
            next(p for p in (folder, *folder.absolute().parents) if p.exists())
        ).free
        for folder in folders
    }
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        device, why, {kind: name_of(kind) for kind in DEVICES if usable(kind)}, cores,
        free_memory(device), free_memory("cpu"), disks, {name: find_spec(name) is not None for name in PACKAGES},
    )  # fmt: skip


def verdicts(machine: Machine) -> list[str]:
    """Lines for people: what is here, and what is missing with the command that brings it."""
    lines = [
        f"device: {machine.device} ({machine.why}), {readable(machine.memory_free)} free; {machine.cores} cores"
    ]
    if machine.device != "cpu":
        lines.append(f"memory: {readable(machine.ram_free)} free")
    lines += [f"disk: {readable(free)} free for {folder}" for folder, free in machine.disk_free.items()]
    missing = sorted({PACKAGES[name] for name, there in machine.packages.items() if not there})
    lines += [f"not installed: pip install 'streamingt2v[{extra}]'" for extra in missing]
    return lines
