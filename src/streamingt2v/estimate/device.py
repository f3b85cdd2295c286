"""Devices of this machine, and the defaults for device and data type."""

import os
import sys
from pathlib import Path
from typing import Any

from ..errors import RequestError

DEVICES = ("cuda", "xpu", "mps")
"""Accelerators, in order of preference."""


def check_kind(device: str) -> None:
    """Raise RequestError unless a device's name is one that torch can have."""
    if device.partition(":")[0] not in ("cpu", *DEVICES):
        raise RequestError(
            "device",
            device,
            f"must be auto, cpu, or one of {', '.join(DEVICES)}, optionally with an index, as in cuda:1",
        )


def free_memory(device: str) -> int:
    """Return the free bytes of a device; raise RequestError if it is not there."""
    if device.partition(":")[0] == "cpu":
        status = Path("/proc/meminfo")
        if status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("MemAvailable:"))
            return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    check_kind(device)
    kind = device.partition(":")[0]
    if not usable(kind):
        fix = (
            f"there is no usable {kind} device on this machine; leave it out, "
            "or plan for another machine with plan --memory 24GB"
        )
        raise RequestError("device", device, fix)
    import torch

    try:
        if kind == "mps":
            return int(torch.mps.recommended_max_memory())
        module: Any = getattr(torch, kind)
        return int(module.mem_get_info(torch.device(device if ":" in device else f"{device}:0"))[0])
    except (RuntimeError, AssertionError, AttributeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError("device", device, f"is not usable here ({reason}); cpu always is") from error


def usable(kind: str) -> bool:
    """Return whether torch can compute on such a device here."""
    if not _may_be_here(kind):
        return False
    import torch

    module: Any = getattr(torch, kind, None)
    backend: Any = torch.backends.mps if kind == "mps" else module
    try:
        return bool(backend is not None and backend.is_available())
    except (RuntimeError, AttributeError):
        return False


def _may_be_here(kind: str) -> bool:
    """Return False if the system shows no trace of such a device, which saves importing torch (seconds)."""
    if sys.platform == "darwin":
        return kind == "mps"
    if sys.platform != "linux":
        return kind != "mps"
    traces = {
        "cuda": ("nvidia[0-9]*", "nvidiactl", "nvhost*", "nvmap", "kfd", "dxg"),
        "xpu": ("dri/renderD*", "dxg"),
    }
    return any(True for pattern in traces.get(kind, ()) for _ in Path("/dev").glob(pattern))


def choose_device(asked: str = "auto") -> tuple[str, str]:
    """Return (device, reason); "auto": the first accelerator, else the CPU. RequestError if missing."""
    if asked != "auto":
        if asked.partition(":")[0] != "cpu":
            free_memory(asked)
        return asked, "as asked"
    found = next((kind for kind in DEVICES if usable(kind)), None)
    return (found, f"the first accelerator: {name_of(found)}") if found else ("cpu", "no accelerator found")


def choose_dtype(asked: str, device: str, half: str) -> tuple[str, str]:
    """Return (data type, reason); "auto" is float32 on a CPU, else the model's half precision if usable."""
    if asked != "auto":
        return asked, "as asked"
    if device.partition(":")[0] == "cpu":
        return "float32", "CPUs are slower in half precision"
    if half == "bfloat16" and not _has_bfloat16(device):
        return (
            "float32",
            f"the model needs bfloat16, which {device} lacks, and its text encoder overflows in float16",
        )
    return half, "the authors' choice; the autoencoder stays in float32"


def name_of(device: str) -> str:
    """Return the device's product name."""
    import torch

    kind = device.partition(":")[0]
    if kind in ("cuda", "xpu"):
        return str(getattr(torch, kind).get_device_name(device if ":" in device else f"{device}:0"))
    return "Apple's GPU" if kind == "mps" else "CPU"


def _has_bfloat16(device: str) -> bool:
    import torch

    if device.partition(":")[0] == "cuda":
        return torch.cuda.get_device_capability(device if ":" in device else f"{device}:0") >= (8, 0)
    return device.partition(":")[0] == "xpu"
