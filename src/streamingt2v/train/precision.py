"""Choose the precision of training."""

import torch

from ..errors import RequestError

CHOICES = ("auto", "bf16", "no")


def check(asked: str) -> None:
    """Raise RequestError unless `asked` is one of `CHOICES`."""
    if asked not in CHOICES:
        raise RequestError("precision", asked, f"must be one of {', '.join(CHOICES)}")


def resolved(asked: str, device: torch.device) -> str:
    """Return accelerate's "bf16" or "no" for one of `CHOICES`."""
    if asked == "auto":
        return "bf16" if is_quick_in_bfloat16(device) else "no"
    return asked


def is_quick_in_bfloat16(device: torch.device) -> bool:
    """Return whether the device has bfloat16 instructions; emulation is many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        tell = getattr(torch.cpu, "get_capabilities", None)  # missing in older releases of torch
        return tell is not None and any(tell().get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return True
