"""Engines other than torch's own kernels. They replace a network's `forward`; callers do not change.

`torch.compile` does all by itself. For OpenVINO a network is converted for every shape of its inputs when it first meets it. That takes
seconds, so what comes of it is kept among the assets of the hub's cache, and read again by the next process.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock
from typing import Any

import torch
from huggingface_hub import cached_assets_path
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..config.runtime import Engine
from ..errors import ModelError

CLOSE = 1e-3
"""A converted network may differ from torch's by so much of its largest number; what rounding leaves is a hundredth of it."""

DENOISING = ("unet", "cam", "refiner")
"""Networks that an engine takes over. Texts and anchors are seen once; autoencoders, nearly all convolutions, gain nothing."""


def take_over(networks: Mapping[str, nn.Module], engine: Engine) -> None:
    """Let the engine compute those of a model's networks that denoise. In place; weights must be where they stay."""
    for network in (network for name, network in networks.items() if name.rpartition("/")[2] in DENOISING):
        forward: Any = torch.compile(network.forward) if engine == "compile" else Converted(network)
        network.forward = forward


class Converted:
    """A network's `forward` by OpenVINO, for tensors on the CPU in any arrangement of tuples and dictionaries.

    Torch answers the first call for each shape too: it tells how the answer is arranged, and whether OpenVINO's is the same.
    """

    def __init__(self, network: nn.Module):
        self._network, self._torch = network, network.forward
        self._models: dict[Any, _Model] = {}
        self._weights: str | None = None
        self._lock = Lock()  # a model computes one call at a time

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return torch's own `forward`, for a copied network whose weights may change."""
        copied = memo[id(self._network)]
        return type(copied).forward.__get__(copied)

    @torch.no_grad()
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        leaves, arrangement = tree_flatten((arguments, named))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        others = tuple(None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)
        shapes = tuple((tuple(x.shape), x.dtype) for x in tensors)
        key = (arrangement, others, shapes, torch.get_num_threads())
        with self._lock:
            if key not in self._models:
                self._models[key] = self._converted(leaves, arrangement)
            return self._models[key](tensors)

    def _converted(self, leaves: list[Any], arrangement: Any) -> _Model:
        """OpenVINO's model for inputs like these, from the cache if one is there and right."""
        flat = _Flat(self._network, self._torch, leaves, arrangement)
        tensors = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        arguments, named = tree_unflatten(leaves, arrangement)
        known, form = tree_flatten(self._torch(*arguments, **named))
        folder = self._folder(leaves, arrangement)
        if folder.is_dir():
            with suppress(
                Exception
            ):  # of any class: OpenVINO's for damaged files have no base; they are made again
                model = _Model(folder, form)
                if _alike(known, tree_flatten(model(tensors))[0]):
                    return model
            shutil.rmtree(folder, ignore_errors=True)
        _keep(_convert(flat, tensors), folder)
        model = _Model(folder, form)
        if _alike(known, tree_flatten(model(tensors))[0]):
            return model
        name = type(self._network).__name__
        raise ModelError(
            f"OpenVINO computes {name} otherwise than torch, by more than rounding; use --engine torch"
        )

    def _folder(self, leaves: list[Any], arrangement: Any) -> Path:
        """Return where in the cache: named by weights, inputs and versions."""
        if self._weights is None:
            digest = hashlib.sha256()
            for name, x in self._network.state_dict().items():
                digest.update(f"{name} {tuple(x.shape)}".encode())
                digest.update(x.detach().contiguous().numpy())
            self._weights = digest.hexdigest()
        inputs = [
            (list(leaf.shape), str(leaf.dtype)) if isinstance(leaf, torch.Tensor) else repr(leaf)
            for leaf in leaves
        ]
        network = [type(self._network).__name__, getattr(self._network, "config", {}), self._weights]
        marks = json.dumps(
            [network, inputs, str(arrangement), torch.__version__, _openvino().__version__], default=str
        )
        return _cache() / hashlib.sha256(marks.encode()).hexdigest()[:32]


class _Flat(nn.Module):
    """The network as a function of tensors in a row, to tensors in a row."""

    def __init__(self, network: nn.Module, forward: Any, leaves: list[Any], arrangement: Any):
        super().__init__()
        self.network, self.call, self.arrangement = network, forward, arrangement
        self.others = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self.given = [isinstance(leaf, torch.Tensor) for leaf in leaves]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rest = iter(tensors)
        leaves = [
            next(rest) if given else other for given, other in zip(self.given, self.others, strict=True)
        ]
        arguments, named = tree_unflatten(leaves, self.arrangement)
        return tuple(tree_flatten(self.call(*arguments, **named))[0])


class _Model:
    """A compiled model and the form of its answers."""

    def __init__(self, folder: Path, form: Any):
        self._form = form
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # a CPU that has bfloat16 would take it
            "EXECUTION_MODE_HINT": "ACCURACY",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
        }
        self._request = _core().compile_model(folder / "model.xml", "CPU", settings).create_infer_request()

    def __call__(self, tensors: list[torch.Tensor] | tuple[torch.Tensor, ...]) -> Any:
        inputs = {place: x.detach().contiguous().numpy() for place, x in enumerate(tensors)}
        answer = self._request.infer(inputs, share_inputs=True)
        return tree_unflatten([torch.from_numpy(x.copy()) for x in answer.to_tuple()], self._form)


def _openvino() -> Any:
    """The library, without the part of it that reports its use to its makers over the network: it does without where that is missing."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


_CORE_LOCK = Lock()


def _core() -> Any:
    """The one of this process, which is never let go: each gives its thread a stack for signal handlers, and several, gone in another order
    than they came, leave the thread with one that was freed. The next Ctrl-C would then be a segmentation fault.
    """
    with _CORE_LOCK:
        return _only_core()


@cache
def _only_core() -> Any:
    return _openvino().Core()


def _convert(flat: _Flat, tensors: tuple[torch.Tensor, ...]) -> Any:
    """OpenVINO's form of a network. ModelError if it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch.export warns of its own
            model = _openvino().convert_model(torch.export.export(flat, tensors))
    except Exception as error:  # of any class: torch's, and several of OpenVINO's that have no base
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"OpenVINO cannot convert {type(flat.network).__name__}: {reason}; use --engine torch"
        ) from error
    model.reshape(
        {place: list(x.shape) for place, x in enumerate(tensors)}
    )  # known sizes are computed faster than any
    return model


def _keep(model: Any, folder: Path) -> None:
    """Into the cache, whole or not at all; another process may have been quicker."""
    made = Path(mkdtemp(dir=folder.parent))
    try:
        _openvino().save_model(model, made / "model.xml", compress_to_fp16=False)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _alike(known: list[torch.Tensor], found: list[torch.Tensor]) -> bool:
    """Numbers that torch cannot tell either are not compared: whoever called finds them."""
    pairs = [(a.float(), b.float()) for a, b in zip(known, found, strict=True)]
    return all(
        not a.isfinite().all() or (a - b).abs().max() <= CLOSE * max(1e-6, float(a.abs().max()))
        for a, b in pairs
    )


def _cache() -> Path:
    try:
        return cached_assets_path("streamingt2v", namespace="openvino", subfolder="networks")
    except OSError as error:
        raise ModelError(
            f"no folder for converted networks: {error}; set HF_HOME to a folder that can be written"
        ) from error
