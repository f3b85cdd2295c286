"""Write model folders part by part, tensor by tensor, and move them into place when complete."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedModel

from ..durable import sync_file

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

WEIGHTS = "diffusion_pytorch_model.safetensors"
"""File name of a network's weights in diffusers."""

_PIECE = 2**22
"""Elements converted at a time."""


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> None:
    """Write a safetensors file piecewise. dtype: for floating-point tensors; None keeps each tensor's."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, tensor in tensors.items():
        kind = _written_as(tensor, dtype)
        end = begin + tensor.numel() * kind.itemsize
        entries[name] = {"dtype": _NAMES[kind], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # aligns the data
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in tensors.values():
            for piece in tensor.reshape(-1).split(_PIECE):
                file.write(piece.to("cpu", _written_as(tensor, dtype)).view(torch.uint8).numpy().data)
    sync_file(path)


def write_part(
    folder: Path, network: Any, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None
) -> None:
    """Write a part's folder for `from_pretrained`. Only the config of `network` is used."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(network, PreTrainedModel):
        network.config.save_pretrained(folder)
        write_tensors(folder / "model.safetensors", tensors, dtype)
    else:
        network.save_config(folder)
        write_tensors(folder / WEIGHTS, tensors, dtype)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill; rename it to `folder` on success, remove it on failure.

    `folder` must be missing or empty. Parent folders are created.
    """
    missing = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=f".{folder.name[:20]}-", dir=folder.parent) as made:
            whole = Path(made) / "whole"
            whole.mkdir()
            yield whole
            whole.replace(folder)
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


def size_of(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> int:
    """Return the bytes that the tensors take in a file."""
    return sum(tensor.numel() * _written_as(tensor, dtype).itemsize for tensor in tensors.values())


def _written_as(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
