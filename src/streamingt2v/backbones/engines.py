"""Inference engines besides plain torch. They replace a network's `forward`; callers do not change.

OpenVINO converts a network for each new combination of input shapes. That takes seconds, so converted
networks are cached among the Hugging Face assets for later processes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
"""Largest relative difference allowed between OpenVINO and torch; rounding alone causes a hundredth of it."""

DENOISING = ("unet", "cam", "refiner")
"""Networks that an engine replaces. Text and image encoders run once; autoencoders gain nothing."""


def take_over(networks: Mapping[str, nn.Module], engine: Engine) -> None:
    """Let the engine compute the denoising networks, in place. Call it after weights reached their device."""
    for network in (network for name, network in networks.items() if name.rpartition("/")[2] in DENOISING):
        forward: Any = torch.compile(network.forward) if engine == "compile" else Converted(network)
        network.forward = forward


class Converted:
    """A network's `forward` by OpenVINO, for CPU tensors nested in tuples and dictionaries.

    The first call for each shape also runs torch, to learn the output's structure and check OpenVINO's
    result.
    """

    def __init__(self, network: nn.Module):
        self._network, self._torch = network, network.forward
        self._models: dict[Any, _Model] = {}
        self._weights: str | None = None
        self._lock = Lock()  # a compiled model computes one call at a time

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return torch's `forward`, because the copied network's weights may change."""
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
        """Return OpenVINO's model for inputs of this form, from the cache if it holds a correct one."""
        flat = _Flat(self._network, self._torch, leaves, arrangement)
        tensors = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        arguments, named = tree_unflatten(leaves, arrangement)
        known, form = tree_flatten(self._torch(*arguments, **named))
        folder = self._folder(leaves, arrangement)
        if folder.is_dir():
            with suppress(
                Exception
            ):  # OpenVINO's errors for damaged files share no base class; convert again
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
        """Return the cache folder, named by weights, inputs and versions."""
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
    """The network as a function from a flat list of tensors to a flat list of tensors."""

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
    """A compiled model and the structure of its output."""

    def __init__(self, folder: Path, form: Any):
        self._form = form
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # CPUs with bfloat16 would use it by default
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
    """Return OpenVINO without its telemetry module, which it does not need."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


_CORE_LOCK = Lock()


def _core() -> Any:
    """Return the process's only OpenVINO core, never released.

    A core installs a stack for signal handlers in its thread; releasing several in another order leaves a
    freed one, and the next Ctrl-C crashes the process.
    """
    with _CORE_LOCK:
        return _only_core()


@cache
def _only_core() -> Any:
    return _openvino().Core()


def _convert(flat: _Flat, tensors: tuple[torch.Tensor, ...]) -> Any:
    """Convert a network. ModelError if OpenVINO cannot."""
    try:
        with warnings.catch_warnings(), _log_as_before():
            warnings.simplefilter("ignore", FutureWarning)  # raised inside torch.export
            model = _openvino().convert_model(torch.export.export(flat, tensors))
    except Exception as error:  # torch's and OpenVINO's errors share no base class
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"OpenVINO cannot convert {type(flat.network).__name__}: {reason}; use --engine torch"
        ) from error
    model.reshape({place: list(x.shape) for place, x in enumerate(tensors)})  # fixed sizes compute faster
    return model


@contextmanager
def _log_as_before() -> Iterator[None]:
    """Restore the root logger, which OpenVINO leaves without warnings after a conversion that failed."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers


def _keep(model: Any, folder: Path) -> None:
    """Save into the cache atomically; another process may have been faster."""
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
    """Compare outputs within `CLOSE`; skip those where torch itself is not finite."""
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
