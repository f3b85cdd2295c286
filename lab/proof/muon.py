"""Muon (Jordan et al. 2024): orthogonal momentum for weights with two or more axes, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from streamingt2v.train.precision import is_quick_in_bfloat16


class Muon(torch.optim.Optimizer):
    """`lr` is AdamW's: matrix steps are scaled to AdamW's usual size (Liu et al. 2025)."""

    def __init__(
        self,
        named: Iterable[tuple[str, torch.Tensor]],
        lr: float,
        momentum: float = 0.95,
        decay: float = 0.01,
    ):
        named = list(named)
        # time embeddings, first and last layer keep AdamW, as Muon's authors advise
        matrices = [
            p for n, p in named if p.ndim >= 2 and not n.startswith(("conv_in", "conv_out", "time_embedding"))
        ]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        super().__init__(
            [{"params": matrices, "kind": "muon"}, {"params": rest, "kind": "adam"}],
            {"lr": lr, "momentum": momentum, "decay": decay},
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    (self._matrix if group["kind"] == "muon" else self._adam)(p, group)

    def _matrix(self, p: torch.Tensor, group: dict) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - group["momentum"])
        update = p.grad.lerp(state["momentum"], group["momentum"])
        turned = orthogonal(update.flatten(1)).view_as(p)
        rows, columns = p.shape[0], p[0].numel()
        p.mul_(1 - group["lr"] * group["decay"])
        p.add_(turned, alpha=-group["lr"] * 0.2 * max(rows, columns) ** 0.5)

    def _adam(self, p: torch.Tensor, group: dict) -> None:
        state = self.state[p]
        if not state:
            state["step"], state["mean"], state["square"] = 0, torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        state["mean"].lerp_(p.grad, 0.1)
        state["square"].lerp_(p.grad**2, 0.01)
        size = (state["square"] / (1 - 0.99 ** state["step"])).sqrt() + 1e-8
        p.addcdiv_(state["mean"] / (1 - 0.9 ** state["step"]), size, value=-group["lr"])


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return approximately the nearest orthogonal matrix (Newton-Schulz, in bfloat16 where quick)."""
    quick = is_quick_in_bfloat16(matrix.device)
    x = matrix.bfloat16() if quick else matrix.float()
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    x = x / (x.norm() + 1e-7)
    if not quick and x.shape[1] > 2 * x.shape[0]:
        x = _from_square(x @ x.T, steps) @ x
    else:
        for _ in range(steps):
            x = _factor(x @ x.T) @ x
    return (x.T if tall else x).to(matrix.dtype)


def _factor(square: torch.Tensor) -> torch.Tensor:
    """Return 3.4445 I - 4.775 S + 2.0315 S S."""
    factor = -4.7750 * square + 2.0315 * square @ square
    factor.diagonal().add_(3.4445)
    return factor


def _from_square(square: torch.Tensor, steps: int) -> torch.Tensor:
    """Return the product of all factors from X X' alone, in float32; for matrices much wider than high.

    The factors commute with X X', so the wide matrix is multiplied twice in all instead of twice a step.
    """
    product = factor = _factor(square)
    for _ in range(steps - 1):
        square = factor @ factor @ square
        factor = _factor(square)
        product = factor @ product
    return product
