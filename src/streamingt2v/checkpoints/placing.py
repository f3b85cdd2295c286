"""Place networks on a device permanently, or offload them and load them when they compute."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers.hooks import HookRegistry, apply_group_offloading
from torch import nn

from ..config.runtime import Savings

TOGETHER = (("unet", "cam"),)
"""Networks that compute in turn at every step and share the device."""


ALIGNMENT = 64
"""Bytes; torch aligns its own allocations to this."""


def save_in_vae(vae: Any, savings: Savings) -> None:
    """Enable slicing and tiling as requested where the autoencoder supports them."""
    if savings.vae_slicing and hasattr(vae, "use_slicing"):
        vae.enable_slicing()
    if savings.vae_tiling and hasattr(vae, "use_tiling"):
        vae.enable_tiling()


def offload(networks: Mapping[str, nn.Module], device: torch.device, savings: Savings) -> None:
    """Attach hooks that move networks to `device` when they compute, as `savings.offload` says. In place."""
    if savings.offload == "group":
        for network in networks.values():
            _by_layers(network, device)
        return
    for name, network in networks.items():
        beside = next((group for group in TOGETHER if name in group), (name,))
        add_hook_to_module(
            network, _OnDemand(device, [other for key, other in networks.items() if key not in beside])
        )


def _by_layers(network: nn.Module, device: torch.device) -> None:
    """Offload by layer: larger groups hook `forward` only, and parts of these networks are called directly.

    Scalar parameters (APM's alphas) stay on the device, since they are read outside their layer's `forward`.
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
    """Offload a diffusers pipeline by its own methods."""
    if savings.offload == "group":
        pipeline.enable_group_offload(onload_device=device, offload_type="leaf_level")
    else:
        pipeline.enable_model_cpu_offload(device=device)
    return pipeline


def align(network: nn.Module) -> None:
    """Copy weights that start at an unaligned address of a mapped file to memory of their own. In place.

    Some CPU matrix kernels choose their summation order by alignment, so outputs would differ in the last
    bits after a model is saved and loaded again.
    """
    for weight in (*network.parameters(), *network.buffers()):
        if weight.data_ptr() % ALIGNMENT:
            weight.data = weight.data.clone()


def move(network: nn.Module, device: torch.device) -> None:
    """Move a network to a device unless it is there."""
    place = next(network.parameters()).device
    if place.type != device.type or device.index not in (None, place.index):
        network.to(device)


class _OnDemand(ModelHook):
    """Hook: before a network computes, move the other networks off the device and this one onto it.

    accelerate's `CpuOffload` knows only one predecessor and would move two networks that alternate at every
    step.
    """

    def __init__(self, execution_device: torch.device, others: Iterable[nn.Module]):
        self.execution_device, self.others = execution_device, tuple(others)

    def pre_forward(
        self, module: nn.Module, *args: Any, **kwargs: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Move the weights; the caller puts the arguments on the device."""
        for other in self.others:
            move(other, torch.device("cpu"))
        move(module, self.execution_device)
        return args, kwargs
