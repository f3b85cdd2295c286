"""Placement of networks: on a device for good, or off it and brought there when they work (diffusers, accelerate)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers.hooks import HookRegistry, apply_group_offloading
from torch import nn

from ..config.runtime import Savings

TOGETHER = (("unet", "cam"),)
"""Networks that work in turn at every step: they are on the device at the same time."""


ALIGNMENT = 64
"""Bytes; what torch allocates begins at a multiple of it."""


def save_in_vae(vae: Any, savings: Savings) -> None:
    """Slices and tiles, as asked for, where the autoencoder can do them."""
    if savings.vae_slicing and hasattr(vae, "use_slicing"):
        vae.enable_slicing()
    if savings.vae_tiling and hasattr(vae, "use_tiling"):
        vae.enable_tiling()


def offload(networks: Mapping[str, nn.Module], device: torch.device, savings: Savings) -> None:
    """Networks whose weights are on the CPU are brought to `device` when they work, in the way that `savings` says. In place."""
    if savings.offload == "group":
        for network in networks.values():
            _by_layers(network, device)
        return
    for name, network in networks.items():
        beside = next((group for group in TOGETHER if name in group), (name,))
        add_hook_to_module(
            network, _Brought(device, [other for key, other in networks.items() if key not in beside])
        )


def _by_layers(network: nn.Module, device: torch.device) -> None:
    """Larger groups than a layer go by `forward`, and parts of these networks are called alone (`contexts`, `decode`).

    Single numbers, as APM's alphas are, stay on the device: they are read outside of their layer's `forward`.
    """
    numbers = {
        name: x.detach().to(device, copy=True) for name, x in network.named_parameters() if x.ndim == 0
    }
    apply_group_offloading(
        network, onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level"
    )
    for name, number in numbers.items():
        layer = network.get_submodule(name.rpartition(".")[0])
        HookRegistry.check_if_exists_or_initialize(layer).remove_hook("group_offloading", recurse=False)
        network.get_parameter(name).data = number


def offload_pipeline(pipeline: Any, device: torch.device, savings: Savings) -> Any:
    """The same for a pipeline of diffusers, by its own methods."""
    if savings.offload == "group":
        pipeline.enable_group_offload(onload_device=device, offload_type="leaf_level")
    else:
        pipeline.enable_model_cpu_offload(device=device)
    return pipeline


def align(network: nn.Module) -> None:
    """Weights that lie in a file's memory are copied to memory of their own where they begin at an odd address. In place.

    On CPUs some matrix kernels choose their order of sums by that, and a model would answer otherwise, in the last bits, once it is saved
    and read again.
    """
    for weight in (*network.parameters(), *network.buffers()):
        if weight.data_ptr() % ALIGNMENT:
            weight.data = weight.data.clone()


def move(network: nn.Module, device: torch.device) -> None:
    """To a device; nothing if it is there."""
    place = next(network.parameters()).device
    if place.type != device.type or device.index not in (None, place.index):
        network.to(device)


class _Brought(ModelHook):
    """Before a network works, by `forward` or by what diffusers' `apply_forward_hook` decorates, those in its way leave the device.

    accelerate's own `CpuOffload` knows one network before it, and would move two that take turns at every step.
    """

    def __init__(self, execution_device: torch.device, others: Iterable[nn.Module]):
        self.execution_device, self.others = execution_device, tuple(others)

    def pre_forward(
        self, module: nn.Module, *args: Any, **kwargs: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as they are: whoever calls puts them on the device."""
        for other in self.others:
            move(other, torch.device("cpu"))
        move(module, self.execution_device)
        return args, kwargs
