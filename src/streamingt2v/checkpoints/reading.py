"""Published weight files as named tensors: mapped into memory, never run as code.

A tensor read from here is a view of the file. Nothing of it is in memory until it is used, and files may be larger than the memory.
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
_BOOKKEEPING = (
    "argparse",
    "jsonargparse",
    "lightning",
    "lightning_fabric",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "typing",
)
"""Packages whose objects a trainer stores beside the weights: settings, paths, states of callbacks."""


def read_tensors(path: Path) -> Tensors:
    """All tensors of a safetensors file or of a torch pickle (its `state_dict` where it has one), mapped and not loaded.

    Pickles are read by torch's weights-only reader, which builds tensors and plain containers and calls nothing else. Objects of a
    trainer's bookkeeping become inert placeholders. ModelError if the file is missing, cut short, of another format, or asks for
    anything beyond that.
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
        raise ModelError(f"{path}: is cut short or no safetensors file ({error})") from error


def _read_pickle(path: Path) -> Tensors:
    # only the zip format can be mapped; files of torch before 1.6 are read into memory
    zipped = _starts_as_zip(path)
    try:
        with torch.serialization.safe_globals(_placeholders(path) if zipped else []):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: is not read, because it asks for more than tensors: {_first_sentence(error)}"
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
        raise ModelError(f"{path}: is cut short or no torch checkpoint ({_first_sentence(error)})") from error
    return _state_dict(path, content)


def _starts_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


class _Leftover:
    """Stands for any object of a trainer's bookkeeping: takes whatever it is built from, and keeps and does nothing."""

    def __new__(cls, *parts: object) -> _Leftover:
        return super().__new__(cls)

    def __init__(self, *parts: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _placeholders(path: Path) -> list[Any]:
    """(placeholder, name) for each name of `_BOOKKEEPING` that the pickle mentions; ModelError names the ones beyond that.

    The names are listed without running the pickle, and the real objects behind them are never imported.
    """
    names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    strangers = sorted(name for name in names if name.split(".")[0] not in _BOOKKEEPING)
    if strangers:
        raise ModelError(
            f"{path}: is not read, because it asks for more than tensors: it names {', '.join(strangers[:5])}"
        )
    # a mapping is filled item by item, which the reader does for plain dictionaries only
    return [
        (OrderedDict if name.endswith("AttributeDict") else type(name, (_Leftover,), {}), name)
        for name in names
    ]


def _state_dict(path: Path, content: Any) -> Tensors:
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(weights, Mapping):
        raise ModelError(f"{path}: holds a {type(weights).__name__} where named tensors are expected")
    others = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ModelError(
            f"{path}: holds more than tensors: {others[0]!r} is a {type(weights[others[0]]).__name__}"
        )
    return {str(name): value.detach() for name, value in weights.items()}


def _first_sentence(error: Exception) -> str:
    """torch's messages go on with advice to load the file unsafely, which is not to be followed."""
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
