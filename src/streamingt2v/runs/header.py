"""The head of a run folder, `request.json`: what was asked for, and everything else that the video's bytes depend on."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from .. import durable
from ..config import Request
from ..config.request import MOST_FPS, MOST_PIXELS
from ..config.runtime import PLAIN, Savings
from ..config.values import check_types
from ..errors import RequestError, RunError
from ..texts import parse_json, shortened
from ..video.rates import Rate, rate_of, rate_to_json

KeptSound = Literal["none", "under", "whole"]

FORMAT = 3
"""Number of the run folder's layout; a folder with another is refused."""

VERSIONED = ("streamingt2v", "torch", "numpy", "diffusers", "transformers", "tokenizers", "av", "pillow")
"""Packages that the bytes of a video depend on."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What `request.json` holds.

    model: name, or absolute folder. weights: fingerprint of its files, None if it was not taken. device, dtype: what computes the
    frames, as users write them; savings: of the device's memory. threads, cpu: of torch on the CPU; sums differ in the last bits by
    both. output: where the MP4 goes. overwrite: it may replace a file there. temporary: the folder goes once the MP4 is there.
    metadata: for the MP4's comment. sound: how much of that of the video that the request names goes into the MP4: none, what is
    under its frames, or the whole. notes: what there is to say of it. inputs: sha256 of the files that the request
    names. init_sha256: of the segments' common head.
    """

    request: Request
    model: str
    weights: str | None
    device: str
    dtype: str
    threads: int
    cpu: str
    fps: Rate
    height: int
    width: int
    output: str | None
    overwrite: bool
    temporary: bool
    metadata: dict[str, Any]
    versions: dict[str, str]
    inputs: dict[str, str]
    init_sha256: str
    savings: Savings = PLAIN
    sound: KeptSound = "none"
    notes: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """JSON."""
        values = (
            {"format": FORMAT}
            | dataclasses.asdict(self)
            | {"request": self.request.to_json(), "fps": rate_to_json(self.fps)}
        )
        return (json.dumps(values, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """The header of `to_bytes`; ValueError or TypeError if it is none."""
        values = parse_json(data)
        if not isinstance(values, dict):
            raise ValueError("it is no object of JSON")
        if values.pop("format", None) != FORMAT:
            raise ValueError("it was written by another version of streamingt2v")
        values["fps"] = _rate(values.get("fps"))
        check_types(cls, values)
        _check(values)
        check_types(Savings, values.get("savings", {}))
        savings = Savings(**values.pop("savings", {}))
        notes = tuple(values.pop("notes", ()))
        return cls(
            **{**values, "request": Request.from_json(values["request"]), "savings": savings, "notes": notes}
        )

    @classmethod
    def read(cls, path: Path) -> Header:
        """The header in that file; RunError if there is none."""
        try:
            return cls.from_bytes(path.read_bytes())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RequestError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from error


def _rate(value: object) -> Rate:
    """The rate of `rate_to_json`; ValueError if it is none."""
    rate = rate_of(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    if rate is None:
        raise ValueError(f"fps is {shortened(repr(value))}")
    return rate


def _check(values: dict[str, Any]) -> None:
    """ValueError for values of the right type that no run has."""
    bounds = {"height": MOST_PIXELS, "width": MOST_PIXELS, "threads": 2**16, "fps": MOST_FPS}
    for name, most in bounds.items():
        if name in values and not 1 <= values[name] <= most:
            raise ValueError(f"{name} is {values[name]}")
    if values.get("height", 0) % 2 or values.get("width", 0) % 2:
        raise ValueError(f"no video is {values['width']}x{values['height']}")
    if values.get("dtype") not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"dtype is {values.get('dtype')!r}")
    for name in ("output", "model"):
        if "\0" in (values.get(name) or ""):
            raise ValueError(f"{name} holds a zero byte")
    if not all(isinstance(note, str) for note in values.get("notes", ())):
        raise ValueError("notes holds more than texts")
    for name in ("versions", "inputs"):
        if not all(isinstance(value, str) for value in values.get(name, {}).values()):
            raise ValueError(f"{name} holds more than texts")


def with_absolute_paths(request: Request) -> Request:
    """So that the run can be resumed from any working directory."""
    paths = request.files() | ({"base": request.base} if request.base is not None else {})
    return Request.from_json(
        request.to_json() | {name: str(Path(path).absolute()) for name, path in paths.items()}
    )


def input_hashes(request: Request) -> dict[str, str]:
    """sha256 of the files that the request names, see `Request.files`. OSError if one cannot be read."""
    return {name: durable.sha256_of(Path(path)) for name, path in request.files().items()}


def versions() -> dict[str, str]:
    """The installed versions of `VERSIONED`; a package that is not installed is left out."""
    found = {}
    for name in VERSIONED:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def cpu_threads() -> int:
    """How many threads torch splits an operation over."""
    import torch  # here and below: not needed to look at a run, and slow to import

    return torch.get_num_threads()


def cpu_capability() -> str:
    """The CPU's instructions that torch uses, for example "AVX2"."""
    import torch

    return torch.backends.cpu.get_cpu_capability()
