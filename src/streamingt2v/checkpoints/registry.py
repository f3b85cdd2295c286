"""Registry of known models as data: the embedded one, published ones, stage-1 bases and enhancers.

Figures come from model cards, papers and key lists; `verified` says which ones were checked. Imports nothing
heavy.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([^\s@]+))?")

PICTURE = "picture/"

Role = Literal["model", "base", "enhancer"]


@dataclass(frozen=True)
class Entry:
    """One model.

    parameters, download_bytes: None if no source gives them. licence: from the model card where readable.
    use: the option that selects it. revision: pinned commit; None takes the latest. file: the file needed
    from the repository. convert: the `convert` kind that makes a model folder of it. parts: (setting, hub id)
    of a base made of several repositories; settings: its other settings. half: half-precision type
    recommended by the authors. networks: parameters of a diffusers pipeline's, those that make the image to
    start from behind "picture/"; uncounted: parts that they leave out. classes: of its pipelines, by setting.
    steps, guidance_scale: recommended where it is the whole model. verified: which figures were checked, and
    how.
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
    classes: tuple[tuple[str, str], ...] = ()
    uncounted: str = ""
    steps: int | None = None
    guidance_scale: float | None = None
    verified: str = "no: from the model's card"

    @property
    def weights(self) -> dict[str, int]:
        """Bytes of half-precision weights on the device at a time, by offloading; empty if unknown."""
        sizes = [2 * count for name, count in self.networks if not name.startswith(PICTURE)]
        return {"none": sum(sizes), "model": max(sizes)} if sizes else {}

    def to_json(self) -> dict[str, Any]:
        tables = {"networks": dict(self.networks), "classes": dict(self.classes)}
        return asdict(self) | tables | {"weights": self.weights}

    def counts(self, stage: str) -> dict[str, dict[str, int]]:
        """Return the parameters of its networks by stage, `stage` and "image"; empty if they are unknown."""
        known = self.networks or (((self.name, self.parameters),) if self.parameters else ())
        found: dict[str, dict[str, int]] = {}
        for name, count in known:
            place = "image" if name.startswith(PICTURE) else stage
            found.setdefault(place, {})[name.removeprefix(PICTURE)] = count
        return found

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Build an entry of `registry.json`."""
        parts = tuple((name, hub_id) for name, hub_id in values.get("parts", ()))
        tables = {name: tuple(values.get(name, {}).items()) for name in ("settings", "networks", "classes")}
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
