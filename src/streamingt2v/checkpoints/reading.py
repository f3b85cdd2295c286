"""Read published weight files as memory-mapped tensors, without executing code from them.

Tensors are views of the file, so files may be larger than memory.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import ModelError

Tensors = dict[str, torch.Tensor]

_PICKLES = (".ckpt", ".pth", ".pt", ".bin")
_BOOKKEEPING = tuple(
    "argparse jsonargparse lightning lightning_fabric omegaconf pathlib pytorch_lightning typing".split()
)
"""Packages whose objects trainers store beside the weights: settings, paths, callback states."""


def read_tensors(path: Path) -> Tensors:
    """Return all tensors of a safetensors file or torch pickle (its `state_dict` if present), memory-mapped.

    Pickles go through torch's weights-only reader, which builds tensors and plain containers only; a
    trainer's other objects become inert placeholders. Raise ModelError if the file is missing, truncated, of
    another format, or refers to anything else.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in _PICKLES:
        return _read_pickle(path)
    raise ModelError(f"{path}: weights are read from .safetensors, {', '.join(_PICKLES)}")


def _read_safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: is truncated or not a safetensors file ({error})") from error


def _read_pickle(path: Path) -> Tensors:
    # only the zip format can be mapped; files of torch before 1.6 are read into memory
    zipped = _starts_as_zip(path)
    try:
        with torch.serialization.safe_globals(_placeholders(path) if zipped else []):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: is refused because it contains more than tensors: {_first_sentence(error)}"
        ) from error
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        raise ModelError(
            f"{path}: is truncated or not a torch checkpoint ({_first_sentence(error)})"
        ) from error
    return _state_dict(path, content)


def _starts_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


class _Placeholder:
    """Inert placeholder for a trainer's objects: accepts any arguments and ignores them."""

    def __new__(cls, *parts: object) -> _Placeholder:
        return super().__new__(cls)

    def __init__(self, *parts: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _placeholders(path: Path) -> list[Any]:
    """Return (placeholder, name) for each trainer object in the pickle; raise ModelError for other objects.

    Names are listed without executing the pickle, and the real classes are never imported.
    """
    names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    strangers = sorted(name for name in names if name.split(".")[0] not in _BOOKKEEPING)
    if strangers:
        raise ModelError(
            f"{path}: is refused because it contains more than tensors: it names {', '.join(strangers[:5])}"
        )
    # a mapping is filled item by item, which the reader does for plain dictionaries only
    return [
        (OrderedDict if name.endswith("AttributeDict") else type(name, (_Placeholder,), {}), name)
        for name in names
    ]


def _state_dict(path: Path, content: Any) -> Tensors:
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(weights, Mapping):
        raise ModelError(f"{path}: contains a {type(weights).__name__} instead of named tensors")
    others = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ModelError(
            f"{path}: contains more than tensors: {others[0]!r} is a {type(weights[others[0]]).__name__}"
        )
    return {str(name): value.detach() for name, value in weights.items()}


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of torch's message; the rest advises unsafe loading."""
    if refused := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it names {refused[1]}"
    text = (str(error) or type(error).__name__).split("WeightsUnpickler error: ")[-1]
    return (
        text.partition("\n")[0]
        .partition("Re-running")[0]
        .partition("This file can still")[0]
        .strip()
        .rstrip(".")
    )
