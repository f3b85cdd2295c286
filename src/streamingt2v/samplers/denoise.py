"""The one denoising loop over a diffusers scheduler. It knows the network only as a function, and draws no randomness itself."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents_BCTHW, timestep ()) -> the guided prediction of the scheduler's kind, BCTHW."""

StepNoise = Callable[[int], torch.Tensor]
"""Index of a denoising step, from 0 -> standard normal noise of the latents' shape."""


@dataclass(frozen=True)
class Step:
    """State after step `index` of `total`, at `timestep`: the latents."""

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
    """From noise to latents, a step at a time: stop iterating to cancel, use `final` for the last latents alone.

    noise_BCTHW: standard normal start. scheduler: any diffusers scheduler; it is copied fresh, and its state is not touched.
    eta: amount of noise put back at each step (0..1), for schedulers that have it. step_noise: needed by stochastic steps only.
    sigmas: noise levels that the steps are laid through, see `log_linear`, for schedulers that take them; empty for their own.
    Raises ValueError for an eta or sigmas that the scheduler does not know, or a stochastic step without `step_noise`.
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
    """The latents after the last step of `denoise`."""
    (last,) = deque(trajectory, maxlen=1)
    return last.latents_BCTHW


def log_linear(sigmas: Sequence[float], steps: int) -> list[float]:
    """`steps` noise levels from the first of `sigmas` to its last, through those between, evenly in the logarithm."""
    places = np.linspace(0, len(sigmas) - 1, steps)
    return np.exp(np.interp(places, np.arange(len(sigmas)), np.log(sigmas))).tolist()


def _randomness(
    scheduler: Any, takes: set[str], eta: float, step_noise: StepNoise | None, index: int
) -> dict[str, Any]:
    """The arguments of `scheduler.step` that its randomness comes from."""
    extra: dict[str, Any] = {"eta": eta} if "eta" in takes else {}
    if not _is_stochastic(scheduler, takes, eta):
        return extra
    if step_noise is None:
        raise ValueError(f"{type(scheduler).__name__} draws noise at every step; give step_noise")
    noise_BCTHW = step_noise(index)
    if "variance_noise" in takes:
        return extra | {"variance_noise": noise_BCTHW}
    # A scheduler that insists on drawing for itself gets a generator that our noise seeds.
    seed = int(noise_BCTHW.flatten()[:2].to("cpu", torch.float32).view(torch.int64).item()) & (2**63 - 1)
    return extra | {"generator": torch.Generator().manual_seed(seed)}


def _is_stochastic(scheduler: Any, takes: set[str], eta: float) -> bool:
    if "eta" in takes:
        return eta > 0
    if "variance_noise" in takes:
        return "sde" in scheduler.config.algorithm_type
    return "generator" in takes
