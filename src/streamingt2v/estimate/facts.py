"""Count a model's parameters from file headers and its FLOPs on demand."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.variants import DENOISERS, INDEX, parts_of, weights_of
from ..config import ModelConfig, read_json
from ..errors import ModelError

_QUANTIZED = {"8bit": 1.0, "4bit": 0.5}
"""Bytes a parameter."""


@dataclass(frozen=True)
class Facts:
    """Facts about a model that a plan needs; see `facts_of` and `published`.

    parts: parameters of each part. step_flops: FLOPs of a step of stage 2 for a number of predictions; the
    others: of a window's step of stage 3, and of a frame through the autoencoder by (height, width).
    """

    parts: Mapping[str, int]
    step_flops: Callable[[int], int]
    refine_step_flops: Callable[[], int]
    decode_flops: Callable[[int, int], int]
    encode_flops: Callable[[int, int], int]


def facts_of(folder: Path, config: ModelConfig) -> Facts:
    """Collect a model folder's facts from its file headers; FLOPs are counted on demand."""
    from . import flops

    if (
        config.extend_by is not None
    ):  # a pipeline of others: its weights are counted as such, its arithmetic is not
        return Facts({}, lambda predictions: 0, lambda: 0, lambda height, width: 0, lambda height, width: 0)
    return Facts(
        {part.name: parameters_of(part) for part in _parts(folder, config)},
        lambda predictions: flops.step_flops(folder, config, predictions),
        lambda: flops.refine_step_flops(folder, config),
        lambda height, width: flops.decode_flops(folder, height, width),
        lambda height, width: flops.encode_flops(folder, height, width),
    )


def pipeline_bytes(folder: Path, size: int, quantize: str | None = None) -> dict[str, int]:
    """Return the bytes of each part of a pipeline at `size` bytes a parameter; autoencoders in float32.

    quantize: see `Savings`; a GGUF file counts by its own size.
    """
    index = read_json(folder / INDEX)
    return part_bytes({part: part_numbers(folder / part) for part in parts_of(index)}, size, quantize)


def part_bytes(counts: Mapping[str, int], size: int, quantize: str | None = None) -> dict[str, int]:
    """Return the bytes of a pipeline's parts by their parameters; see `pipeline_bytes`."""
    found = {part: count * (4 if part.startswith("vae") else size) for part, count in counts.items() if count}
    if quantize is None:
        return found
    for part in found:
        if part in DENOISERS and quantize not in _QUANTIZED:
            found[part] = Path(quantize).stat().st_size
        elif part in DENOISERS or (part.startswith("text_encoder") and quantize in _QUANTIZED):
            found[part] = int(counts[part] * _QUANTIZED[quantize])
    return found


def part_numbers(folder: Path) -> int:
    """Count the parameters of the weight set that would be loaded; pickles by file size, as float32."""
    chosen = weights_of(folder)
    if chosen is None:
        return 0
    files = [folder / name for name in chosen.files if not name.endswith(".json")]
    return sum(file.stat().st_size // 4 if chosen.kind == "bin" else _numbers(file) for file in files)


def parameters_of(part: Path) -> int:
    """Count a part's parameters from its safetensors headers; raise ModelError if a file is truncated."""
    return sum(_numbers(file) for file in sorted(part.glob("*.safetensors")))


def _numbers(file: Path) -> int:
    return sum(math.prod(entry["shape"]) for name, entry in _header(file).items() if name != "__metadata__")


def _header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if 8 + length > file.stat().st_size:
                raise ValueError("the header is longer than the file")
            return json.loads(stream.read(length))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: is truncated or not a safetensors file ({error})") from error


def _parts(folder: Path, config: ModelConfig) -> list[Path]:
    """Return the folders of the networks to load; raise ModelError if a required one is missing."""
    found = [part for part in sorted(folder.iterdir()) if any(part.glob("*.safetensors"))]
    needed = {"unet", "cam", "vae"} | ({"refiner"} if config.refine else set())
    if missing := sorted(needed - {part.name for part in found}):
        raise ModelError(f"{folder} is incomplete: it has no weights in {', '.join(missing)}")
    return [part for part in found if config.refine or not part.name.startswith("refiner")]
