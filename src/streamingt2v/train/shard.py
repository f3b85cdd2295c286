"""Training weights: complete in every process (`Whole`, DDP) or split across processes (`Split`, FSDP2).

Optimizer, averages and gradient norm use `own`: the trained weights of this process as plain tensors, in
parameter order. Checkpoints hold complete tensors, so either kind can resume the other's.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.upsampling import Upsample2D
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from ..models.context import ContextAttention
from ..models.merger import SkipMerger

BLOCKS = (
    ResnetBlock2D,
    TemporalConvLayer,
    Transformer2DModel,
    TransformerTemporalModel,
    BasicTransformerBlock,
    SkipMerger,
    Downsample2D,
    Upsample2D,
    CLIPEncoderLayer,
)
"""Modules gathered as one while they compute. All are only used through `forward`, where FSDP gathers."""

OF_TOKENS = ("to_k", "to_v", "conv", "conv_ln")
"""Parts of a `ContextAttention` that run before its block, in `contexts`."""


class Weights(Protocol):
    """A network as the loop trains it."""

    own: list[nn.Parameter]

    def prepare(
        self, accelerator: Accelerator, optimizer: torch.optim.Optimizer
    ) -> tuple[Callable[..., Any], Any]:
        """Return the callable module and the optimizer of `own`."""

    def clip(self, largest: float) -> None:
        """Average gradients over processes into `own` and clip their total norm."""

    def whole(self, index: int, part: torch.Tensor) -> torch.Tensor:
        """Gather a part of `own[index]` on the main process (all must call); return scalars unchanged."""

    def part(self, index: int, whole: torch.Tensor) -> torch.Tensor:
        """Return this process's part of a complete tensor."""

    def holding(self, averaged: Sequence[torch.Tensor], main: bool) -> AbstractContextManager[None]:
        """Complete the module on the main process, `averaged` in place of `own`; all must enter."""


class Whole:
    """See `Weights`. Every process has all weights (DDP)."""

    def __init__(self, module: nn.Module):
        self.module, self.own = module, _trained(module)

    def prepare(
        self, accelerator: Accelerator, optimizer: torch.optim.Optimizer
    ) -> tuple[Callable[..., Any], Any]:
        return accelerator.prepare(self.module, optimizer)

    def clip(self, largest: float) -> None:
        clip_grad_norm_(self.own, largest)

    def whole(self, index: int, part: torch.Tensor) -> torch.Tensor:
        return part

    def part(self, index: int, whole: torch.Tensor) -> torch.Tensor:
        return whole

    @contextmanager
    def holding(self, averaged: Sequence[torch.Tensor], main: bool) -> Iterator[None]:
        with _replaced(self.own if main else [], averaged if main else []):
            yield


class Split:
    """See `Weights`. Each process keeps a part of every weight; a block is complete only while it computes.

    Untrained networks and scalars stay complete. `module` keeps its structure but loses its weights, except
    inside `holding`.
    """

    def __init__(self, module: nn.Module, device: torch.device):
        # a temporal layer returns a view for a single frame; diffusers' blocks change none in place
        warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
        self._mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        self._empty = list(module.parameters())
        self._network = split(module, self._mesh, device)
        self._parts = list(self._network.parameters())
        self._trained = _trained(self._network)
        self.own = [
            nn.Parameter(p.to_local().detach()) if isinstance(p, DTensor) else p for p in self._trained
        ]
        for whole, part in zip(self._empty, self._parts, strict=True):
            if isinstance(part, DTensor):
                whole.data = torch.empty(0, dtype=whole.dtype)

    def prepare(
        self, accelerator: Accelerator, optimizer: torch.optim.Optimizer
    ) -> tuple[Callable[..., Any], Any]:
        return self._network, optimizer

    def clip(self, largest: float) -> None:
        self._take_gradients()
        cut = [
            own.grad
            for own, p in zip(self.own, self._trained, strict=True)
            if own is not p and own.grad is not None
        ]
        uncut = [
            own.grad
            for own, p in zip(self.own, self._trained, strict=True)
            if own is p and own.grad is not None
        ]
        square = (
            get_total_norm(cut) ** 2 + get_total_norm(uncut) ** 2 / self._mesh.size()
        )  # every process has the unsplit ones
        dist.all_reduce(square)
        clip_grads_with_norm_(self.own, largest, square.sqrt())

    def _take_gradients(self) -> None:
        """Copy gradients from FSDP's parameters; average those of unsplit ones."""
        for own, p in zip(self.own, self._trained, strict=True):
            if isinstance(p, DTensor):
                own.grad, p.grad = p.grad.to_local() if isinstance(p.grad, DTensor) else None, None
        uncut = [p.grad for p in self._trained if not isinstance(p, DTensor) and p.grad is not None]
        if uncut:
            mean = torch.stack(uncut)
            dist.all_reduce(mean)
            torch._foreach_copy_(uncut, list(mean / self._mesh.size()))

    def whole(self, index: int, part: torch.Tensor) -> torch.Tensor:
        like = self._trained[index]
        if not isinstance(like, DTensor) or part.ndim == 0:
            return part
        whole = _gathered(part.to(like.device), like)
        return whole.cpu() if dist.get_rank() == 0 else torch.empty(0)

    def part(self, index: int, whole: torch.Tensor) -> torch.Tensor:
        like = self._trained[index]
        if not isinstance(like, DTensor) or whole.ndim == 0:
            return whole
        return distribute_tensor(whole, self._mesh, like.placements, src_data_rank=None).to_local().clone()

    @contextmanager
    def holding(self, averaged: Sequence[torch.Tensor], main: bool) -> Iterator[None]:
        values = dict(zip(map(id, self._trained), averaged, strict=True))
        wholes = []
        for p in self._parts:
            value = values.get(id(p), p.to_local().detach() if isinstance(p, DTensor) else p.detach())
            whole = _gathered(value, p) if isinstance(p, DTensor) else value
            if main:  # other processes release each one at once
                wholes.append(whole)
        with _replaced(self._empty if main else [], wholes):
            yield


def split(module: nn.Module, mesh: DeviceMesh, device: torch.device) -> nn.Module:
    """Return a network of this structure whose weights are this process's parts; see `Split`."""
    still = [child for child in module.children() if not _trained(child)]
    for child in still:
        nn.Module.to(child, device)
    shared: dict[int, Any] = {id(x): x for x in [*still, *module.parameters(), *module.buffers()]}
    network = copy.deepcopy(module, shared)  # copies no weights
    ignored = {p for child in still for p in child.parameters()}
    for p in network.parameters():
        if p.ndim == 0:
            p.data = p.data.to(device)
            ignored.add(p)
    for block in _blocks(network, still):
        fully_shard(block, mesh=mesh, ignored_params=ignored)
    fully_shard(network, mesh=mesh, ignored_params=ignored)
    return network


def _blocks(network: nn.Module, still: list[nn.Module]) -> list[nn.Module]:
    """Return the modules to gather separately, inner ones first."""
    modules = [m for child in network.children() if child not in still for m in child.modules()]
    of_tokens = {
        getattr(m, name, None) for m in modules if isinstance(m, ContextAttention) for name in OF_TOKENS
    }
    return [m for m in reversed(modules) if isinstance(m, BLOCKS) or m in of_tokens]


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def _gathered(part: torch.Tensor, like: DTensor) -> torch.Tensor:
    """Gather a part that is split like `like`, on every process."""
    return DTensor.from_local(
        part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    ).full_tensor()


@contextmanager
def _replaced(parameters: Sequence[nn.Parameter], values: Sequence[torch.Tensor]) -> Iterator[None]:
    """Replace the parameters' values temporarily."""
    kept = [p.data for p in parameters]
    for p, value in zip(parameters, values, strict=True):
        p.data = value
    try:
        yield
    finally:
        for p, value in zip(parameters, kept, strict=True):
            p.data = value
