"""The devices of this machine, and which one, which data type and which savings a request gets where nothing is said."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ..errors import RequestError

DEVICES = ("cuda", "xpu", "mps")
"""What is looked for, in this order, before the CPU."""


def free_memory(device: str) -> int:
    """Bytes free on a device now. RequestError if it is not there."""
    if device.partition(":")[0] == "cpu":
        status = Path("/proc/meminfo")
        if status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("MemAvailable:"))
            return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    kind = device.partition(":")[0]
    if kind not in DEVICES:
        raise RequestError(
            "device",
            device,
            f"must be auto, cpu, or one of {', '.join(DEVICES)}, with its number behind a colon",
        )
    if not usable(kind):
        fix = f"there is no usable {kind} device on this machine; leave it out, or plan for one elsewhere by plan --memory 24GB"
        raise RequestError("device", device, fix)
    import torch

    try:
        if kind == "mps":
            return int(torch.mps.recommended_max_memory())
        module: Any = getattr(torch, kind)
        return int(module.mem_get_info(torch.device(device if ":" in device else f"{device}:0"))[0])
    except (RuntimeError, AssertionError, AttributeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError("device", device, f"cannot be used here ({reason}); cpu always can") from error


def usable(kind: str) -> bool:
    """Whether torch has such a device here and can compute on it."""
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
    """Whether the system shows a trace of such a device: torch, which takes seconds to import, need not be asked where there is none."""
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
    """(device, why). What is asked for stays; "auto" is the first accelerator, else the CPU. RequestError for one that is not here."""
    if asked != "auto":
        if asked.partition(":")[0] != "cpu":
            free_memory(asked)
        return asked, "as asked"
    found = next((kind for kind in DEVICES if usable(kind)), None)
    return (
        (found, f"the first accelerator here: {name_of(found)}")
        if found
        else ("cpu", "there is no accelerator here")
    )


def choose_dtype(asked: str, device: str, half: str) -> tuple[str, str]:
    """(data type, why). "auto" is float32 on a CPU and else the model's own half precision, if the device computes in it."""
    if asked != "auto":
        return asked, "as asked"
    if device.partition(":")[0] == "cpu":
        return "float32", "CPUs are slow in less"
    if half == "bfloat16" and not _has_bfloat16(device):
        return (
            "float32",
            f"the model is made for bfloat16, which {device} has not, and its text encoder overflows in float16",
        )
    return half, "what the model's makers use; its autoencoder stays in float32"


def name_of(device: str) -> str:
    """What its maker calls it."""
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
