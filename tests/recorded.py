"""Read the golden vectors; see `golden/README.md`."""

from __future__ import annotations

import functools
import gzip
import inspect
import json
import lzma
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

FOLDER = Path(__file__).parent / "golden"
Tensors = dict[str, torch.Tensor]


@functools.cache
def golden(name: str) -> Tensors:
    """Return one recording's tensors in float32; names begin with inputs., outputs., traces. or weights."""
    packed = (FOLDER / f"{name}.safetensors.xz").read_bytes()
    return {
        key: x.float() if x.dtype == torch.float16 else x for key, x in load(lzma.decompress(packed)).items()
    }


def config(name: str) -> dict[str, Any]:
    """Return the recording's configuration."""
    return json.loads((FOLDER / "configs.json").read_text())[name]


def group(tensors: Tensors, prefix: str) -> Tensors:
    """Return the tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def known(sizes: dict[str, Any], cls: type) -> dict[str, Any]:
    """Return the entries of a recorded configuration that a class takes."""
    return {name: value for name, value in sizes.items() if name in inspect.signature(cls).parameters}


def checkpoint_keys() -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the published checkpoint."""
    return {name: _shape(shape) for name, shape in _table("checkpoint_keys.tsv.gz")}


def vid2vid_keys() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return, for each published name of the enhancer, diffusers' name and the published shape."""
    return {name: (new, _shape(shape)) for name, new, shape in _table("vid2vid_keys.tsv.gz")}


def _table(name: str) -> list[list[str]]:
    lines = gzip.decompress((FOLDER / name).read_bytes()).decode().splitlines()
    return [line.split("\t") for line in lines]


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.strip("()").split(",") if size.strip())


def assert_near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Assert a max abs error of at most `tolerance` times max(1, root mean square of `expected`)."""
    assert actual.shape == expected.shape
    error = float((actual.double() - expected.double()).abs().max())
    allowed = tolerance * max(1.0, float(expected.double().square().mean().sqrt()))
    assert error <= allowed, f"max abs error {error:.2e}, allowed {allowed:.2e}"
