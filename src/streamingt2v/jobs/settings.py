"""What a server is told: where it keeps its jobs, what it makes them with, and how much it takes on. Nothing heavy is imported."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from ..config import ModelConfig
from ..config.runtime import PLAIN, Savings
from ..errors import ModelError, RequestError


@dataclass(frozen=True)
class Limits:
    """How much a client may ask for. Counts, seconds, bytes and pixels; RequestError for one below 1.

    queue: jobs that wait. frames: of one job, new ones. prompt: characters of one prompt. schedule: prompts that take over in a job.
    steps: denoising steps of a chunk. sessions: WebSockets open at once. streams: event streams and growing downloads open at once.
    upload_bytes: of a request's body. upload_seconds, upload_pixels: of a video in it; pixels are those of one frame.
    changes: of the prompt of one job.
    """

    queue: int = 64
    frames: int = 4800
    prompt: int = 2000
    schedule: int = 64
    steps: int = 200
    sessions: int = 16
    streams: int = 512
    upload_bytes: int = 64 * 2**20
    upload_seconds: int = 600
    upload_pixels: int = 4096 * 2304
    changes: int = 1000

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise RequestError(name, value, "must be 1 or more")


@dataclass(frozen=True)
class Settings:
    """Everything that a job service is told.

    folder: where jobs are kept, made if it is missing; of one service at a time, or, if shared, of any number, on machines that all have it
    at this path, on a file system whose locks hold between them. models: names or folders; clients name them by `names`, the
    first is the default. workers: processes that make videos, one job each at a time, each with the models in memory. keep_seconds: how
    long a finished job is kept; None for ever. tries: how often a job is begun without a new frame before it is given up, so that one that
    ends its worker each time does not do so for ever.
    """

    folder: Path
    models: tuple[str, ...] = ("tiny",)
    device: str = "cpu"
    dtype: str = "float32"
    savings: Savings = PLAIN
    workers: int = 1
    shared: bool = False
    keep_seconds: float | None = 7 * 24 * 3600
    tries: int = 5
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.models:
            raise RequestError("model", None, "name one model or more")
        if self.workers < 1:
            raise RequestError("workers", self.workers, "must be 1 or more")
        if self.keep_seconds is not None and self.keep_seconds <= 0:
            raise RequestError(
                "keep_seconds", self.keep_seconds, "must be above 0; leave it out to keep jobs for ever"
            )
        names = [Path(model).name for model in self.models]
        if len(set(names)) < len(names):
            raise RequestError("model", ", ".join(self.models), "two of them have one name; rename a folder")

    @property
    def names(self) -> dict[str, str]:
        """What clients call a model, the last part of its path -> how `find_model` finds it."""
        return {Path(model).name: model for model in self.models}

    def configs(self) -> dict[str, ModelConfig]:
        """The configuration of every model by what clients call it. No weights are read.

        RequestError if there is no such model, or one cannot be used on this device, in this dtype, with these savings.
        """
        from ..external.as_model import (
            read_model,
        )  # heavy; the process that inspects uploads has little memory

        try:
            found = {name: read_model(model)[1] for name, model in self.names.items()}
        except ModelError as error:
            raise RequestError("model", ", ".join(self.models), str(error)) from error
        for config in found.values():
            self.savings.check(self.device, config, self.dtype)
        return found

    def to_json(self) -> str:
        """One line, for a worker's process."""
        return json.dumps(dataclasses.asdict(self) | {"folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The settings of `to_json`."""
        values = json.loads(text)
        own = {"folder": Path(values["folder"]), "models": tuple(values["models"])}
        return cls(
            **values | own | {"savings": Savings(**values["savings"]), "limits": Limits(**values["limits"])}
        )
