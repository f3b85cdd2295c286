"""A run folder's header, `request.json`: the request, and all else that the video's bytes depend on."""

import dataclasses
import json
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self

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
"""Version of the run folder's layout; others are refused."""

VERSIONED = ("streamingt2v", "torch", "numpy", "diffusers", "transformers", "tokenizers", "av", "pillow")
"""Packages that the bytes of a video depend on."""


@dataclasses.dataclass(frozen=True)
class Header:
    """Contents of `request.json`.

    model: name, or absolute folder. weights: fingerprint of its files, None if not taken. device, dtype: as
    users write them. savings: memory options. threads, cpu: torch's on the CPU; sums differ in the last bits
    by both. output: path of the MP4. overwrite: it may replace a file. temporary: the folder is deleted once
    the MP4 exists. metadata: for the MP4's comment. sound: of the request's video, in the MP4: none, that
    under its frames, or all. keeps_times: the source's frames are shown at its times. notes: on the
    inputs, for people. inputs: sha256 of the request's files. init_sha256: of the segments' header.
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
    keeps_times: bool = False
    notes: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Return JSON."""
        own = {"request": self.request.to_json(), "fps": rate_to_json(self.fps)}
        values = {"format": FORMAT} | dataclasses.asdict(self) | own
        return (json.dumps(values, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the JSON of `to_bytes`; ValueError or TypeError for others."""
        values = parse_json(data)
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
        if values.pop("format", None) != FORMAT:
            raise ValueError("it was written by another version of streamingt2v")
        values["fps"] = _rate(values.get("fps"))
        check_types(cls, values)
        _check(values)
        check_types(Savings, values.get("savings", {}))
        values["savings"] = Savings(**values.get("savings", {}))
        values["notes"] = tuple(values.get("notes", ()))
        return cls(**{**values, "request": Request.from_json(values["request"])})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; RunError if it holds no header."""
        try:
            return cls.from_bytes(path.read_bytes())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RequestError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from error


def _rate(value: object) -> Rate:
    """Read the value of `rate_to_json`; ValueError for others."""
    rate = rate_of(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    if rate is None:
        raise ValueError(f"fps is {shortened(repr(value))}")
    return rate


def _check(values: dict[str, Any]) -> None:
    """Raise ValueError for values of the right type that no run has."""
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
        raise ValueError("notes must be strings")
    for name in ("versions", "inputs"):
        if not all(isinstance(value, str) for value in values.get(name, {}).values()):
            raise ValueError(f"{name} must be strings")


def with_absolute_paths(request: Request) -> Request:
    """Make the request's paths absolute: a run can then be resumed from any working directory."""
    paths = request.files() | ({"base": request.base} if request.base is not None else {})
    absolute = {name: str(Path(path).absolute()) for name, path in paths.items()}
    return Request.from_json(request.to_json() | absolute)


def input_hashes(request: Request) -> dict[str, str]:
    """Return sha256 of the request's files, by argument. OSError if one cannot be read."""
    return {name: durable.sha256_of(Path(path)) for name, path in request.files().items()}


def versions() -> dict[str, str]:
    """Return the versions of the installed packages of `VERSIONED`."""
    found = {}
    for name in VERSIONED:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def cpu_threads() -> int:
    """Return torch's number of threads."""
    import torch  # here and below: slow to import, and not needed to look at a run

    return torch.get_num_threads()


def cpu_capability() -> str:
    """Return the instruction set that torch uses, for example "AVX2"."""
    import torch

    return torch.backends.cpu.get_cpu_capability()
