"""In what precision a step computes where nobody says it."""

from __future__ import annotations

import torch

from ..errors import RequestError

CHOICES = ("auto", "bf16", "no")


def check(asked: str) -> None:
    """RequestError for what is none of `CHOICES`."""
    if asked not in CHOICES:
        raise RequestError("precision", asked, f"must be one of {', '.join(CHOICES)}")


def resolved(asked: str, device: torch.device) -> str:
    """accelerate's "bf16" or "no" for one of `CHOICES`."""
    if asked == "auto":
        return "bf16" if is_quick_in_bfloat16(device) else "no"
    return asked


def is_quick_in_bfloat16(device: torch.device) -> bool:
    """Return whether the device has instructions for it. A CPU without them takes many times as long as in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        tell = getattr(torch.cpu, "get_capabilities", None)  # older releases of torch have it not
        return tell is not None and any(tell().get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return True
