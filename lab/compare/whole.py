"""Whole videos in memory: what the product's streams and windows are compared with."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from streamingt2v.metrics.mawe import WarpErrors, pair_error
from streamingt2v.samplers.blend import Draw, Law, seam
from streamingt2v.samplers.denoise import StepNoise
from streamingt2v.samplers.sdedit import Node, begin, completed, model_input, rest

Clean = Callable[[torch.Tensor, int], torch.Tensor]
"""(VP-scaled latents BCTHW, timestep) -> predicted clean latents BCTHW; includes blending and guidance"""


@dataclass(frozen=True)
class SolverStep:
    """State of `solve` at step `index`: network input, clean prediction, latents after the step."""

    index: int
    model_input_BCTHW: torch.Tensor
    clean_BCTHW: torch.Tensor
    latents_BCTHW: torch.Tensor


def advance(
    nodes: tuple[Node, ...],
    index: int,
    latents_BCTHW: torch.Tensor,
    clean_BCTHW: torch.Tensor,
    previous_BCTHW: torch.Tensor | None,
    step_noise: StepNoise,
) -> torch.Tensor:
    """Return the VE latents after step `index` of DPM-Solver++(2M), midpoint, SDE with eta 1.

    previous_BCTHW: clean latents of the previous step; None at the first. step_noise is not called at the
    last step.
    """
    if index == len(nodes) - 1:
        return clean_BCTHW
    return completed(nodes, index, rest(nodes, index, latents_BCTHW, previous_BCTHW, step_noise), clean_BCTHW)


@torch.no_grad()
def solve(
    predict_clean: Clean,
    noised_BCTHW: torch.Tensor,
    nodes: tuple[Node, ...],
    step_noise: StepNoise,
    *,
    exact_start: bool = True,
) -> Iterator[SolverStep]:
    """Yield all steps for a video in memory, from the first node to clean latents.

    noised_BCTHW: VP-scaled, at the first node. step_noise: standard normal noise of step i. exact_start False
    scales by sigma / alpha as the published code does, instead of 1 / alpha: 3 % too small.
    """
    x = begin(noised_BCTHW, nodes) if exact_start else noised_BCTHW * nodes[0].sigma
    previous = None
    for index, node in enumerate(nodes):
        shown = model_input(x, node)
        clean = predict_clean(shown, node.timestep)
        x = advance(nodes, index, x, clean, previous, step_noise)
        previous = clean
        yield SolverStep(index, shown, clean, x)


def plan_seams(plan: Sequence[range], law: Law, draw: Draw) -> tuple[int, ...]:
    """Return the first frame taken from each window; the later window wins from its seam on."""
    seams = (seam(number, left, right, law, draw) for number, (left, right) in enumerate(pairwise(plan)))
    return plan[0].start, *seams


def warp_errors(frames_TCHW: np.ndarray, flows_T2HW: Sequence[np.ndarray] | np.ndarray) -> WarpErrors:
    """Measure uint8 frames (T, C, H, W) with T - 1 flows in pixels (dx, dy), from each frame to the next."""
    if len(flows_T2HW) != len(frames_TCHW) - 1:
        raise ValueError(f"{len(flows_T2HW)} flows for {len(frames_TCHW)} frames")
    pairs = [pair_error(*three) for three in zip(frames_TCHW, frames_TCHW[1:], flows_T2HW, strict=False)]
    return WarpErrors(*np.array(pairs, np.float64).reshape(-1, 2).T)
