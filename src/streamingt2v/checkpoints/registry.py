"""Registry of known models as data: the embedded one, published ones, stage-1 bases and enhancers.

Figures come from model cards, papers and key lists; `verified` says which ones were checked. Imports nothing
heavy.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([^\s@]+))?")

Role = Literal["model", "base", "enhancer"]


@dataclass(frozen=True)
class Entry:
    """One model.

    parameters, download_bytes: None if no source gives them. licence: from the model card where readable.
    use: the option that selects it. revision: pinned commit; None takes the latest. file: the file needed
    from the repository. convert: the `convert` kind that makes a model folder of it. parts: (setting, hub id)
    of a base made of several repositories; settings: its other settings. half: half-precision type
    recommended by the authors. networks: their parameters, where a diffusers pipeline is the whole model;
    steps, guidance_scale: recommended for it. verified: which figures were checked, and how.
    """

    name: str
    role: Role
    about: str
    licence: str
    use: str
    hub_id: str | None = None
    revision: str | None = None
    file: str | None = None
    parameters: int | None = None
    download_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: int | None = None
    convert: str | None = None
    parts: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    half: Literal["float16", "bfloat16"] = "float16"
    networks: tuple[tuple[str, int], ...] = ()
    steps: int | None = None
    guidance_scale: float | None = None
    verified: str = "no: from the model's card"

    @property
    def weights(self) -> dict[str, int]:
        """Bytes of half-precision weights on the device at a time, by offloading; empty if unknown."""
        sizes = [2 * count for _, count in self.networks]
        return {"none": sum(sizes), "model": max(sizes)} if sizes else {}

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"networks": dict(self.networks), "weights": self.weights}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Entry:
        """Build an entry of `registry.json`."""
        parts = tuple((name, hub_id) for name, hub_id in values.get("parts", ()))
        tables = {name: tuple(values.get(name, {}).items()) for name in ("settings", "networks")}
        return cls(**{**values, "parts": parts, **tables})


ENTRIES = tuple(
    Entry.from_json(values)
    for values in json.loads((Path(__file__).parent / "registry.json").read_text("utf-8"))
)

ENHANCERS = {"streaming-t2v": "vid2vid", "streaming-svd": "i2vgen-xl"}
"""The enhancer (stage 3) of each published model."""

TOKENIZER_REPO = "damo-vilab/text-to-video-ms-1.7b"
"""Source of StreamingT2V's tokenizer, which its checkpoint lacks."""


def find_entry(name: str) -> Entry | None:
    """Return the entry with this name or hub id."""
    return next((entry for entry in ENTRIES if name in (entry.name, entry.hub_id)), None)


def parse_id(text: str) -> tuple[str, str | None] | None:
    """Split "OWNER/REPOSITORY[@REVISION]"; return None for other texts and for existing paths."""
    match = _ID.fullmatch(text)
    return None if match is None or Path(text).exists() else (match[1], match[2])
