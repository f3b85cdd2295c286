"""Low-rank weight changes (LoRA, Hu et al. 2022); small tensors are trained directly.

`attach` makes a network trainable this way, `changes` reads what it learned, `merge` adds that to the weights
for good.
"""

import math
import re

import torch
from torch import nn
from torch.nn.utils import parametrize

from ..errors import ModelError

Tensors = dict[str, torch.Tensor]

_FACTOR = re.compile(r"\.parametrizations\.(\w+)\.0\.(up|down)$")


class LowRankChange(nn.Module):
    """weight -> weight + up @ down for any weight shape (out, ...). `up` starts at zero: no effect."""

    def __init__(self, shape: torch.Size, rank: int):
        super().__init__()
        inputs = math.prod(shape[1:])
        self.down = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))
        self.up = nn.Parameter(torch.zeros(shape[0], rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + (self.up @ self.down).view_as(weight)


def attach(network: nn.Module, rank: int) -> None:
    """Freeze the network and add trainable changes of that rank.

    Tensors with fewer values than their factors would have (biases, norms, small matrices) stay trainable as
    they are.
    """
    network.requires_grad_(False)
    for module in list(network.modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            if _is_factored(weight.shape, rank):
                parametrize.register_parametrization(
                    module, name, LowRankChange(weight.shape, rank).to(weight.device)
                )
            else:
                weight.requires_grad_(True)


def changes(network: nn.Module) -> Tensors:
    """Return the trained tensors: "NAME.up" and "NAME.down" of factored weights, "NAME" of the others."""
    trained = {name: value.detach() for name, value in network.named_parameters() if value.requires_grad}
    return {_FACTOR.sub(r".\1.\2", name): value for name, value in trained.items()}


@torch.no_grad()
def merge(network: nn.Module, learned: Tensors) -> None:
    """Merge `changes` of a like network into this one's weights. ModelError if they do not fit."""
    weights = dict(network.named_parameters())
    for name, value in learned.items():
        own = name.removesuffix(".up")
        if name.endswith(".down") and name.removesuffix(".down") + ".up" in learned:
            continue
        new = value if own == name else value.float() @ learned[f"{own}.down"].float()
        if own not in weights or new.numel() != weights[own].numel():
            raise ModelError(f"the changes do not fit the network: {name} {tuple(value.shape)}")
        weight, new = weights[own], new.to(weights[own].device).view_as(weights[own])
        weight.copy_(new if own == name else weight.float() + new)


def _is_factored(shape: torch.Size, rank: int) -> bool:
    return len(shape) > 1 and rank * (shape[0] + math.prod(shape[1:])) < math.prod(shape)
