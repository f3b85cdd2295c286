"""Advice after running out of memory: the options that still help on this device with this model."""

import dataclasses
import errno

from ..config import ModelConfig, Request
from ..config.runtime import Savings
from ..errors import RequestError

_PHRASES = ["can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory"]
_PHRASES += ["bad_alloc", "bad allocation"]


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether the error or its cause is a lack of main or device memory."""
    if error is None:
        return False
    # compared by name, to avoid importing torch; on a CPU torch and OpenVINO raise a plain RuntimeError
    told = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    told = told or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    told = told or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _PHRASES)
    )
    return told or is_out_of_memory(error.__cause__)


def ways_out(device: str, dtype: str, savings: Savings, request: Request, config: ModelConfig) -> str:
    """Return advice that names options with which the run needs less memory."""
    ways = []
    if savings.engine == "openvino":
        ways.append("--engine torch")  # OpenVINO holds the weights several times
    ways += [
        f"--offload {name}"
        for name in ("model", "group")
        if name != savings.offload and _allowed(savings, "offload", name, device, config)
    ]
    ways += ["--dtype bfloat16"] if dtype == "float32" and savings.engine != "openvino" else []
    for name in ("vae_slicing", "vae_tiling"):
        if not getattr(savings, name) and _allowed(savings, name, True, device, config):
            ways.append(f"--{name.replace('_', '-')}")
    ways += ["--preset preview"] if request.preset == "full" and request.refine is None else []
    *some, last = [*ways, "a machine with more memory"]
    return f"use {', '.join(some)} or {last}" if some else f"use {last}"


def _allowed(savings: Savings, name: str, value: object, device: str, config: ModelConfig) -> bool:
    try:
        dataclasses.replace(savings, **{name: value}).check(device, config)  # type: ignore[arg-type]
    except RequestError:
        return False
    return True
