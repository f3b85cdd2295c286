"""Settings of a server: its folder, models and limits. Imports nothing heavy."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ..config import ModelConfig
from ..config.runtime import PLAIN, Savings
from ..errors import ModelError, RequestError


@dataclass(frozen=True)
class Limits:
    """Limits of a client's requests: counts, seconds, bytes and pixels, all at least 1 (else RequestError).

    queue: waiting jobs. frames: new frames of a job. prompt: characters of a prompt. schedule: scheduled
    prompts of a job. steps: denoising steps of a chunk. sessions: open WebSockets. streams: open event
    streams and growing downloads. uploads: bodies with files received at once. upload_bytes: size of a body.
    upload_seconds, upload_pixels: length and frame size of an uploaded video. upload_total: bytes of all
    uploads that are stored. changes: prompt changes of a job.
    """

    queue: int = 64
    frames: int = 4800
    prompt: int = 2000
    schedule: int = 64
    steps: int = 200
    sessions: int = 16
    streams: int = 512
    uploads: int = 16
    upload_bytes: int = 64 * 2**20
    upload_seconds: int = 600
    upload_pixels: int = 4096 * 2304
    upload_total: int = 4 * 2**30
    changes: int = 1000

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise RequestError(name, value, "must be 1 or more")


@dataclass(frozen=True)
class Settings:
    """Settings of a job service.

    folder: created if missing; used by one service, or, if shared, by any number, on machines that mount it
    at this path from a file system with working locks. models: names or folders; clients use `names`, the
    first is the default. workers: processes that each make one job at a time and keep the models in memory.
    keep_seconds: how long ended jobs are kept; None forever. tries: starts of a job without a new frame
    before it fails, because it may crash its worker.
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
            raise RequestError("model", ", ".join(self.models), "two have the same name; rename a folder")

    @property
    def names(self) -> dict[str, str]:
        """Return the models by the names that clients use, the last parts of their paths."""
        return {Path(model).name: model for model in self.models}

    def configs(self) -> dict[str, ModelConfig]:
        """Return the model configurations by the names that clients use, without reading weights.

        Raises RequestError if a model is missing, or does not support this device, dtype or memory options.
        """
        from ..external.as_model import read_model  # heavy; inspections run with little memory

        try:
            found = {name: read_model(model)[1] for name, model in self.names.items()}
        except ModelError as error:
            raise RequestError("model", ", ".join(self.models), str(error)) from error
        for config in found.values():
            self.savings.check(self.device, config, self.dtype)
        return found

    def to_json(self) -> str:
        """Serialize to one line, for a worker process."""
        return json.dumps(dataclasses.asdict(self) | {"folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the settings from `to_json`."""
        values = json.loads(text)
        own = {"folder": Path(values["folder"]), "models": tuple(values["models"])}
        return cls(
            **values | own | {"savings": Savings(**values["savings"]), "limits": Limits(**values["limits"])}
        )
