"""Describe this machine: devices, memory, disks and optional packages."""

import os
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.packages import EXTRAS, installed
from ..config.places import free_bytes
from ..config.units import readable
from .device import DEVICES, choose_device, free_memory, name_of, usable


@dataclass(frozen=True)
class Machine:
    """This machine, sizes in bytes.

    device: the choice of `--device auto`; why: its reason. accelerators: usable ones, by product name.
    """

    device: str
    why: str
    accelerators: dict[str, str]
    cores: int
    memory_free: int
    ram_free: int
    disk_free: dict[str, int]
    packages: dict[str, bool]


def examine(*folders: Path) -> Machine:
    """Examine this machine and the disks of these folders, which need not exist yet."""
    device, why = choose_device("auto")
    disks = {str(folder): free_bytes(folder) for folder in folders}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        device, why, {kind: name_of(kind) for kind in DEVICES if usable(kind)}, cores,
        free_memory(device), free_memory("cpu"), disks,
        {name: installed(name) for name in EXTRAS},
    )  # fmt: skip


def verdicts(machine: Machine) -> list[str]:
    """Describe the machine in lines, with the install command of each missing extra."""
    lines = [
        f"device: {machine.device} ({machine.why}), {readable(machine.memory_free)} "
        f"free; {machine.cores} cores"
    ]
    if machine.device != "cpu":
        lines.append(f"memory: {readable(machine.ram_free)} free")
    lines += [f"disk: {readable(free)} free for {folder}" for folder, free in machine.disk_free.items()]
    missing = sorted({EXTRAS[name] for name, there in machine.packages.items() if not there})
    lines += [f"not installed: pip install 'streamingt2v[{extra}]'" for extra in missing]
    return lines
