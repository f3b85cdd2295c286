"""Count a request's steps and estimate how long they take."""

import json
import math
import time
from importlib.resources import files

from ..resolve import ResolvedRequest
from .facts import Facts


def count_steps(resolved: ResolvedRequest) -> tuple[int, int]:
    """Return the denoising steps of stages 1-2 and of stage 3 (0 for a preview)."""
    assert resolved.made_frames is not None, "checked before"
    steps = count_chunks(resolved) * resolved.extend.steps
    if (refine := resolved.refine) is None:
        return steps, 0
    windows = 1 + max(0, math.ceil((resolved.made_frames - refine.frames) / (refine.frames - refine.overlap)))
    return steps, windows * refine.steps


def count_chunks(resolved: ResolvedRequest) -> int:
    """Return the number of chunks of stages 1-2."""
    assert resolved.made_frames is not None, "checked before"
    return 0 if resolved.start == "file" else resolved.grid.count(resolved.made_frames)


def measured_speeds(model: str, preset: str, engine: str, device: str) -> tuple[str, ...]:
    """Return what `speeds.json` has for a setting, in words with the source, or that it has nothing."""
    rows = json.loads((files("streamingt2v.estimate") / "speeds.json").read_text())
    kind = device.partition(":")[0]
    asked = {"model": model, "preset": preset, "engine": engine, "device": kind}
    found = tuple(
        f"{row['frames_per_second']:g} new frames/s on {row['on']} (docs/performance.md)"
        for row in rows
        if asked.items() <= row.items()
    )
    return found or (
        f"nothing for {model} with {engine} on {kind}; `streamingt2v bench` measures this machine",
    )


def estimate_seconds(
    facts: Facts,
    resolved: ResolvedRequest,
    steps: int,
    refine_steps: int,
    measured: float | None,
    device: str,
    dtype: str,
    here: bool,
) -> tuple[float | None, str]:
    if measured is None and not here:
        return None, "no speed is known for such a device; give one with --seconds-per-step"
    guided = resolved.extend.guidance_scale != 1
    own = facts.step_flops(1 + guided + bool(resolved.extend.time_guidance))
    if not own:
        return None, "the FLOPs of this network are unknown"
    refining = refine_steps * facts.refine_step_flops() if refine_steps else 0
    total = own * steps + refining + _vae_flops(facts, resolved)
    left_out = _uncounted(resolved)
    if measured is not None:
        return (
            measured * total / own,
            f"the given seconds per step; stage 3 and autoencoder scaled by FLOPs{left_out}",
        )
    rate = _matrix_rate(device, dtype)
    where = "this machine's CPU" if device == "cpu" else device
    how = f"FLOPs of steps and autoencoder at half the speed of a matrix product on {where}"
    return total / (0.5 * rate), f"estimate: {how}{left_out}"


def _uncounted(resolved: ResolvedRequest) -> str:
    """Name the external pipelines whose work the time leaves out."""
    names = [
        name
        for name, there in (
            ("base", resolved.first_chunk),
            ("refine_by", resolved.refine_by),
            ("image", resolved.image_maker),
        )
        if there
    ]
    return f"; without {' and '.join(names)}" if names else ""


def _vae_flops(facts: Facts, resolved: ResolvedRequest) -> int:
    """Count decoding every chunk with its overlap, and for stage 3 encoding and decoding every frame once."""
    assert resolved.made_frames is not None, "checked before"
    decoded = (
        count_chunks(resolved) * resolved.extend.frames * facts.decode_flops(resolved.height, resolved.width)
    )
    if resolved.refine is None:
        return decoded
    size = resolved.output_size
    return decoded + resolved.made_frames * (facts.encode_flops(*size) + facts.decode_flops(*size))


def _matrix_rate(device: str, dtype: str, size: int = 1024, seconds: float = 0.3) -> float:
    """Measure the FLOPs a second of a square matrix product on the device."""
    import torch

    a = torch.ones(size, size, device=device, dtype=getattr(torch, dtype))
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        float((a @ a)[0, 0])  # waits for the device
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - began)
