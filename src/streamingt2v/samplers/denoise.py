"""The denoising loop over a diffusers scheduler. The network is a function; no randomness is drawn here."""

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents_BCTHW, timestep ()) -> the guided prediction BCTHW of the scheduler's prediction type"""

StepNoise = Callable[[int], torch.Tensor]
"""Index of a denoising step (from 0) -> standard normal noise of the latents' shape"""


@dataclass(frozen=True)
class Step:
    """State after step `index` of `total`, at `timestep`."""

    index: int
    total: int
    timestep: torch.Tensor
    latents_BCTHW: torch.Tensor


@torch.no_grad()
def denoise(
    predict: Predict,
    noise_BCTHW: torch.Tensor,
    scheduler: Any,
    steps: int,
    *,
    eta: float = 0.0,
    step_noise: StepNoise | None = None,
    sigmas: Sequence[float] = (),
) -> Iterator[Step]:
    """Denoise step by step: stop iterating to cancel; `final` returns the last latents.

    noise_BCTHW: standard normal start. scheduler: any diffusers scheduler; a fresh copy is used. eta: noise
    added back per step (0..1), for schedulers that support it. step_noise: required by stochastic steps.
    sigmas: noise levels to interpolate (see `log_linear`), for schedulers that accept them; empty: the
    scheduler's own. ValueError for an unsupported eta or sigmas, or a stochastic step without `step_noise`.
    """
    scheduler = type(scheduler).from_config(scheduler.config)
    if sigmas:
        if "sigmas" not in inspect.signature(scheduler.set_timesteps).parameters:
            raise ValueError(f"sigmas={list(sigmas)}: {type(scheduler).__name__} takes none; leave them out")
        scheduler.set_timesteps(sigmas=[*log_linear(sigmas, steps), 0.0], device=noise_BCTHW.device)
    else:
        scheduler.set_timesteps(steps, device=noise_BCTHW.device)
    takes = set(inspect.signature(scheduler.step).parameters)
    if eta and "eta" not in takes:
        raise ValueError(f"eta={eta}: {type(scheduler).__name__} has none; set it to 0")
    latents = noise_BCTHW * scheduler.init_noise_sigma
    for index, timestep in enumerate(scheduler.timesteps):
        model_input = scheduler.scale_model_input(latents, timestep)
        prediction = predict(model_input, timestep).to(latents.dtype)
        extra = _randomness(scheduler, takes, eta, step_noise, index)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False, **extra)[0]
        yield Step(index, len(scheduler.timesteps), timestep, latents)


def final(trajectory: Iterator[Step]) -> torch.Tensor:
    """Return the latents after the last step of `denoise`."""
    (last,) = deque(trajectory, maxlen=1)
    return last.latents_BCTHW


def log_linear(sigmas: Sequence[float], steps: int) -> list[float]:
    """Interpolate `steps` noise levels through `sigmas`, evenly in the logarithm."""
    places = np.linspace(0, len(sigmas) - 1, steps)
    return np.exp(np.interp(places, np.arange(len(sigmas)), np.log(sigmas))).tolist()


def _randomness(
    scheduler: Any, takes: set[str], eta: float, step_noise: StepNoise | None, index: int
) -> dict[str, Any]:
    """Return the random arguments of `scheduler.step`."""
    extra: dict[str, Any] = {"eta": eta} if "eta" in takes else {}
    if not _is_stochastic(scheduler, takes, eta):
        return extra
    if step_noise is None:
        raise ValueError(f"{type(scheduler).__name__} draws noise at every step; give step_noise")
    noise_BCTHW = step_noise(index)
    if "variance_noise" in takes:
        return extra | {"variance_noise": noise_BCTHW}
    # The scheduler insists on drawing for itself: give it a generator seeded by our noise.
    seed = int(noise_BCTHW.flatten()[:2].to("cpu", torch.float32).view(torch.int64).item()) & (2**63 - 1)
    return extra | {"generator": torch.Generator().manual_seed(seed)}


def _is_stochastic(scheduler: Any, takes: set[str], eta: float) -> bool:
    if "eta" in takes:
        return eta > 0
    if "variance_noise" in takes:
        return "sde" in scheduler.config.algorithm_type
    return "generator" in takes
