"""A training step recorded as a CUDA graph and played again: small networks spend most of a step telling the GPU what to do next."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .draws import HashedNoise
from .task import Batch

Losses = dict[str, torch.Tensor]
Learn = Callable[[Batch], Losses]
"""Forward and backward of a batch: leaves gradients in the weights, returns what is logged. Nothing in it may wait for the GPU."""

WARM = 3
"""Steps of each kind of batch that are taken as they are, in which kernels are chosen, before one is recorded."""


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: dict[str, torch.Tensor]
    gradients: list[torch.Tensor | None]
    losses: Losses


class Replay:
    """`learn`, recorded once for each kind of batch: the same names, shapes and plain values."""

    def __init__(self, learn: Learn, weights: Sequence[nn.Parameter]):
        self.learn, self.weights = learn, weights
        self._stream = torch.cuda.Stream()
        self._seen: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, _Recorded] = {}

    def __call__(self, batch: Batch) -> Losses:
        """Valid until the next call: losses and gradients are written to the same memory each time."""
        kind = _kind(batch)
        self._seen[kind] = self._seen.get(kind, 0) + 1
        if self._seen[kind] <= WARM:
            return self._warm(batch)
        if kind not in self._recorded:
            self._recorded[kind] = self._record(batch)
        recorded = self._recorded[kind]
        for name, value in _tensors(batch).items():
            recorded.inputs[name].copy_(value)
        recorded.graph.replay()
        for weight, gradient in zip(self.weights, recorded.gradients, strict=True):
            weight.grad = gradient
        return recorded.losses

    def _warm(self, batch: Batch) -> Losses:
        """On the stream that will record: autograd remembers where it first put a gradient."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            losses = self.learn(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return losses

    def _record(self, batch: Batch) -> _Recorded:
        inputs = {name: value.clone() for name, value in _tensors(batch).items()}
        own: Batch = batch | {name: value for name, value in inputs.items() if name != "noise"} | {"noise": HashedNoise(inputs["noise"])}
        for weight in self.weights:
            weight.grad = None
        graph = torch.cuda.CUDAGraph()
        # workers' threads may talk to the GPU meanwhile
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            losses = self.learn(own)
        return _Recorded(graph, inputs, [weight.grad for weight in self.weights], losses)


def _tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """What changes from step to step; of the noise its keys."""
    tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    return tensors | {"noise": batch["noise"].keys_B}


def _kind(batch: Batch) -> Hashable:
    described: dict[str, Any] = {name: value for name, value in batch.items() if name != "noise"}
    return tuple((name, value.shape if isinstance(value, torch.Tensor) else value) for name, value in sorted(described.items()))
