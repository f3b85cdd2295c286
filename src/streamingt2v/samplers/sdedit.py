"""Log-SNR schedule and DPM-Solver++(2M) SDE, with which the enhancer refines (method.md: Refining).

VP: x = alpha x0 + sigma noise with alpha^2 + sigma^2 = 1. The solver uses VE values, x / alpha, of noise
level sigma / alpha.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .denoise import StepNoise


@dataclass(frozen=True)
class VPSchedule:
    """sigmas: float64 (timesteps,), ascending: index 0 is the cleanest."""

    sigmas: torch.Tensor

    @property
    def alphas(self) -> torch.Tensor:
        """Return the signal's share at each timestep."""
        return (1 - self.sigmas.square()).clamp(min=0).sqrt()

    def diffuse(self, clean: torch.Tensor, noise: torch.Tensor, timestep: int) -> torch.Tensor:
        """Add noise to clean latents up to a timestep."""
        return float(self.alphas[timestep]) * clean + float(self.sigmas[timestep]) * noise

    def clean_from_v(self, noised: torch.Tensor, velocity: torch.Tensor, timestep: int) -> torch.Tensor:
        """Return the clean latents for a v-prediction."""
        return float(self.alphas[timestep]) * noised - float(self.sigmas[timestep]) * velocity

    def ve_sigma(self, index: float) -> float:
        """Return the VE noise level at a fractional timestep, interpolated in the logarithm."""
        low = min(int(index), len(self.sigmas) - 2)
        levels = [math.log(float(self.sigmas[k] / self.alphas[k])) for k in (low, low + 1)]
        return math.exp(levels[0] + (index - low) * (levels[1] - levels[0]))


def logsnr_cosine_interp(
    timesteps: int = 1000, scale_min: float = 2, scale_max: float = 4, logsnr_limit: float = 15
) -> VPSchedule:
    """Return cosine log-SNR, shifted from `scale_min` (clean) to `scale_max` (noisy), rescaled to noise."""
    u = torch.linspace(1, 0, timesteps, dtype=torch.float64)
    first, last = math.atan(math.exp(logsnr_limit / 2)), math.atan(math.exp(-logsnr_limit / 2))
    logsnr = -2 * torch.log(torch.tan(first + u * (last - first)))
    shifted = logsnr - 2 * (u * math.log(scale_min) + (1 - u) * math.log(scale_max))
    sigmas = torch.sigmoid(-shifted).sqrt()
    low, high = sigmas.min(), sigmas.max()
    return VPSchedule(low + (1 - low) / (high - low) * (sigmas - low))


class Node(NamedTuple):
    """A point of the solver's path: VE noise level, and the timestep given to the network."""

    sigma: float
    timestep: int


def trailing_nodes(schedule: VPSchedule, steps: int, levels: int = 600) -> tuple[Node, ...]:
    """Return `steps` evenly spaced nodes from timestep `levels` - 1 down, without the last one before 0."""
    indices = (levels - 1 - k * levels / (steps + 1) for k in range(steps))
    return tuple(Node(schedule.ve_sigma(index), round(index)) for index in indices)


def begin(noised_BCTHW: torch.Tensor, nodes: tuple[Node, ...]) -> torch.Tensor:
    """Convert VP-scaled latents to VE latents at the first node."""
    return noised_BCTHW * math.sqrt(nodes[0].sigma ** 2 + 1)


def model_input(latents_BCTHW: torch.Tensor, node: Node) -> torch.Tensor:
    """Return the network's input for VE latents at a node: VP-scaled."""
    return latents_BCTHW / math.sqrt(node.sigma**2 + 1)


def rest(
    nodes: tuple[Node, ...],
    index: int,
    latents_BCTHW: torch.Tensor,
    previous_BCTHW: torch.Tensor | None,
    step_noise: StepNoise,
) -> torch.Tensor:
    """Return the part of step `index`, not the last, that needs no clean prediction, for `completed`.

    The step is DPM-Solver++(2M)'s, midpoint, SDE with eta 1. previous_BCTHW: clean latents of the step
    before; None at the first. Values depend only on their own position, so a video may be solved in frame
    ranges with identical bits.
    """
    ratio, strength = (
        nodes[index + 1].sigma / nodes[index].sigma,
        nodes[index + 1].sigma * math.sqrt(_share(nodes, index)),
    )
    x = ratio**2 * latents_BCTHW + strength * step_noise(index)
    return x if previous_BCTHW is None else x - _momentum(nodes, index) * previous_BCTHW


def completed(
    nodes: tuple[Node, ...], index: int, rest_BCTHW: torch.Tensor, clean_BCTHW: torch.Tensor
) -> torch.Tensor:
    """Return the VE latents after step `index`, not the last, from its `rest` and clean prediction."""
    return rest_BCTHW + (_share(nodes, index) + _momentum(nodes, index)) * clean_BCTHW


def _share(nodes: tuple[Node, ...], index: int) -> float:
    """Return the clean prediction's share of the next latents."""
    return 1 - (nodes[index + 1].sigma / nodes[index].sigma) ** 2


def _momentum(nodes: tuple[Node, ...], index: int) -> float:
    """Return the weight of the clean prediction's change since the previous step."""
    if index == 0:
        return 0.0
    before, now, after = (nodes[index + k].sigma for k in (-1, 0, 1))
    return 0.5 * _share(nodes, index) * math.log(now / after) / math.log(before / now)
