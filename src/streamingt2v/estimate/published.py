"""Sizes of published models, for plans before a download; read from data, so no network is built."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..checkpoints.registry import Entry
from ..checkpoints.variants import INDEX
from ..config import ModelConfig
from .facts import Facts


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    return json.loads((files("streamingt2v.estimate") / "published.json").read_text())


def names() -> tuple[str, ...]:
    """Return the registry models whose sizes are known."""
    return tuple(_data())


@contextmanager
def published(name: str, full: bool) -> Iterator[tuple[Path, ModelConfig, Facts]]:
    """Yield a temporary model folder with settings only, its configuration and its facts.

    full: include the third stage where it is a network of its own.
    """
    own = _data()[name]
    with TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "model.json").write_text(json.dumps(own["model"]))
        config = ModelConfig.load(folder)
        parts = dict(own["parts"])
        if not full:
            config = replace(config, refine=None)
            parts.pop("refiner", None)
        for part, values in own["configs"].items():
            (folder / part).mkdir()
            (folder / part / "config.json").write_text(json.dumps(values))
        yield folder, config, _facts(own, parts)


@contextmanager
def unfetched(entry: Entry) -> Iterator[Path]:
    """Yield a temporary folder with what a plan reads of a diffusers pipeline: its classes and settings."""
    with TemporaryDirectory() as place:
        folder, classes = Path(place) / entry.name, dict(entry.classes)
        if not entry.parts:
            _write(folder / INDEX, {"_class_name": classes["pipeline"]})
            denoiser = "unet" if "unet" in dict(entry.networks) else "transformer"
            _write(folder / denoiser / "config.json", _sizes(entry))
        else:
            parts = {name: name for name, _ in entry.parts}
            _write(folder / "seed.json", parts | dict(entry.settings))
            for name in parts:
                own = {"_class_name": classes[name]} if name in classes else {}
                _write(folder / name / (INDEX if own else "config.json"), own)
        yield folder


def _sizes(entry: Entry) -> dict[str, Any]:
    """Return the settings of its network that tell what it makes, where its class does not."""
    height, width = (entry.height or 512) // 8, (entry.width or 512) // 8
    square = {"sample_size": height} if height == width else {}
    return {"sample_height": height, "sample_width": width, "num_frames": entry.frames, **square}


def _write(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def _facts(own: dict[str, Any], parts: dict[str, int]) -> Facts:
    return Facts(
        parts,
        lambda predictions: own["step_flops"][str(predictions)],
        lambda: own["refine_step_flops"],
        lambda height, width: own["decode_flops"][f"{height}x{width}"],
        lambda height, width: own["encode_flops"][f"{height}x{width}"],
    )
