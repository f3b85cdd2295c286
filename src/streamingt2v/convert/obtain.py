"""A model from nothing: which files of which repositories it takes, how large they are, and what is made of them.

Everything is known before the first byte is fetched: names, sizes, licences, room. What was fetched earlier is not asked for again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import durable
from ..checkpoints import hub
from ..checkpoints.download import OnBytes
from ..checkpoints.find import find_repository, known_as, made_folder
from ..checkpoints.registry import ENHANCERS, TOKENIZER_REPO, Entry, find_entry
from ..checkpoints.variants import choose_model
from ..config import EMBEDDED, ModelConfig, RefineByConfig
from ..config.external import SeedConfig
from ..config.places import home
from ..config.units import readable
from ..errors import ModelError

Note = Callable[[str], None]

I2VGEN_XL: dict[str, Any] = {
    "frames": 38, "overlap": 12, "height": 720, "width": 1280, "strength": 0.97, "steps": 30, "guidance_scale": 9.0,
}  # fmt: skip
"""How StreamingSVD's authors called their enhancer; see `RefineByConfig`."""


@dataclass(frozen=True)
class Parcel:
    """Files of a repository: found here (`folder`), or to be fetched from the hub (`remote`)."""

    hub_id: str
    folder: Path | None = None
    remote: hub.Remote | None = None
    files: Sequence[str] = ()
    licence: str = ""

    @property
    def size(self) -> int:
        return self.remote.size(self.files) if self.remote else 0

    @property
    def missing(self) -> int:
        """Bytes still to be fetched."""
        return self.remote.missing(self.files) if self.remote else 0

    def bring(self, on_bytes: OnBytes, argument: str) -> Path:
        if self.folder is not None:
            return self.folder
        assert self.remote is not None, "it is here or there"
        return hub.bring(self.remote, self.files, on_bytes, argument)

    def told(self) -> str:
        """One line: what, how large, under which licence."""
        if self.remote is None:
            return f"  {self.hub_id}: here already"
        here = f" ({readable(self.missing)} of it to fetch)" if self.missing < self.size else ""
        what = self.files[0] if len(self.files) == 1 else f"{len(self.files)} files"
        return f"  {self.hub_id}: {what}, {readable(self.size)}{here}, licence: {self.licence}"


@dataclass(frozen=True)
class Step:
    """Parcels, and what is made of them: `makes` with about `made_bytes`, None where they are used as they are."""

    parcels: tuple[Parcel, ...]
    make: Callable[[list[Path], Note], Path]
    makes: Path | None = None
    made_bytes: int = 0


@dataclass(frozen=True)
class Order:
    """All that has to be fetched and made so that a model can be used. argument: which one named it, for errors."""

    name: str
    steps: tuple[Step, ...]
    argument: str = "model"

    @property
    def parcels(self) -> list[Parcel]:
        return [parcel for step in self.steps for parcel in step.parcels]

    @property
    def missing(self) -> int:
        """Bytes to be fetched."""
        return sum(parcel.missing for parcel in self.parcels)

    def told(self) -> str:
        """What it takes, for people, before they agree."""
        made = [
            f"  converted to {step.makes}: {readable(step.made_bytes)}"
            for step in self.steps
            if step.makes and step.made_bytes
        ]
        room = f"  room: {readable(_free(Path(hub.constants.HF_HUB_CACHE)))} free in {hub.constants.HF_HUB_CACHE}"
        if made:
            room += f", {readable(_free(home()))} in {home()}"
        return "\n".join([f"{self.name} takes:", *(parcel.told() for parcel in self.parcels), *made, room])

    def check_room(self) -> None:
        """RequestError unless the download and what is made of it fit on their disks, together where those are one."""
        cache, made = Path(hub.constants.HF_HUB_CACHE), sum(step.made_bytes for step in self.steps)
        if _disk(cache) == _disk(home()):
            hub.check_disk(
                self.missing + made,
                cache,
                f"{self.name} with what is made of it",
                "HF_HOME or STREAMINGT2V_HOME",
            )
            return
        hub.check_disk(self.missing, cache, f"the download of {self.name}", "HF_HOME")
        hub.check_disk(made, home(), f"what is made of {self.name}", "STREAMINGT2V_HOME")

    def carry_out(self, note: Note = lambda text: None, on_bytes: OnBytes = lambda count: None) -> Path:
        """Fetch and make everything; the folder of what was ordered. Whatever ends it, the same order goes on where it ended."""
        self.check_room()
        folder = Path()
        fetched = [[parcel.bring(on_bytes, self.argument) for parcel in step.parcels] for step in self.steps]
        for step, folders in zip(self.steps, fetched, strict=True):
            folder = step.make(folders, note)
        return folder


def order(
    name: str, *, full: bool = False, half: bool = False, dtype: str | None = None, fresh: bool = False,
    argument: str = "model",
) -> Order | None:  # fmt: skip
    """What is lacking of a model; None where it is all here, or the name is none of a repository. Asks the hub, fetches next to nothing.

    full: with its third stage. half: in half precision, where there are such files. dtype: of converted weights; None as they are
    published. fresh: ask the hub even where an older commit is here.
    The errors are those of `hub.look_up`.
    """
    if name in EMBEDDED or Path(name).exists() or (known := known_as(name)) is None:
        return None
    entry, hub_id, revision = known
    get = _Getter(half, fresh, argument)
    if entry is not None and entry.convert:
        steps = _converted(entry, revision, full, dtype, get)
    elif entry is not None and entry.parts:
        steps = _composed(entry, get)
    else:
        steps = [Step((get(hub_id, revision),), _first)]
    steps = [step for step in steps if step.makes or step.parcels[0].remote]
    return Order(name, tuple(steps), argument) if steps else None


@dataclass(frozen=True)
class _Getter:
    """Makes parcels: of what is here where it is, else of what the hub has."""

    half: bool
    fresh: bool
    argument: str

    def __call__(self, hub_id: str, revision: str | None = None, without: tuple[str, ...] = ()) -> Parcel:
        """All files of a model."""
        if not self.fresh and (folder := find_repository(hub_id, revision, self.half, without)) is not None:
            return Parcel(hub_id, folder)
        return self._remote(hub_id, revision, choose_model(self.half, without))

    def files(self, hub_id: str, pattern: str, revision: str | None = None) -> Parcel:
        """The files that match a pattern."""
        choose = hub.like(pattern, f"*/{pattern}")
        if not self.fresh:
            try:
                return Parcel(hub_id, hub.find(hub_id, choose, revision))
            except ModelError:
                pass
        return self._remote(hub_id, revision, choose)

    def _remote(self, hub_id: str, revision: str | None, choose: hub.Choose) -> Parcel:
        remote = hub.look_up(hub_id, revision, self.argument)
        entry = find_entry(hub_id)
        licence = remote.licence or (entry.licence if entry else "none is named on its card")
        return Parcel(hub_id, None, remote, hub.chosen(remote, choose), licence)


def _converted(entry: Entry, revision: str | None, full: bool, dtype: str | None, get: _Getter) -> list[Step]:
    """A published checkpoint made a model folder, and with `full` its third stage, as far as they are not here."""
    target, steps = made_folder(entry, revision), []
    if not any((target / part).exists() for part in ("model.json", "refiner")):
        parcels = [get.files(str(entry.hub_id), str(entry.file), revision)]
        if entry.convert == "streaming-t2v":
            parcels.append(get.files(TOKENIZER_REPO, "tokenizer/*"))
        steps.append(
            Step(
                tuple(parcels),
                _converter(str(entry.convert), target, dtype),
                target,
                _made_bytes(parcels[0], dtype),
            )
        )
    enhancer = find_entry(ENHANCERS.get(entry.name, "")) if full else None
    if enhancer is None or _refines(target):
        return steps
    if enhancer.convert:
        parcel = get.files(str(enhancer.hub_id), str(enhancer.file))
        steps.append(
            Step(
                (parcel,),
                _converter(enhancer.convert, target, dtype),
                target / "refiner",
                _made_bytes(parcel, dtype),
            )
        )
    else:
        steps.append(
            Step((get(str(enhancer.hub_id)),), lambda folders, note: _refining_by(target, folders[0]), target)
        )
    return steps


def _refines(target: Path) -> bool:
    if not (target / "model.json").is_file():
        return False
    config = ModelConfig.load(target)
    return config.refine is not None or config.refine_by is not None


def _converter(kind: str, target: Path, dtype: str | None) -> Callable[[list[Path], Note], Path]:
    def make(folders: list[Path], note: Note) -> Path:
        import torch

        from .kinds import convert

        tokenizer = folders[1] / "tokenizer" if len(folders) > 1 else None
        convert(
            kind,
            folders[0],
            target,
            dtype=getattr(torch, dtype) if dtype else None,
            tokenizer=tokenizer,
            note=note,
        )
        return target

    return make


def _made_bytes(parcel: Parcel, dtype: str | None) -> int:
    """About the size of the folder: that of the file, or of half of it."""
    size = parcel.size
    if parcel.folder is not None:
        size = sum(path.stat().st_size for path in parcel.folder.rglob("*") if path.is_file())
    return size // 2 if dtype in ("float16", "bfloat16") else size


def _refining_by(target: Path, pipeline: Path) -> Path:
    """The model's settings with the pipeline as third stage."""
    config = ModelConfig.load(target)
    replace(config, refine_by=RefineByConfig(str(pipeline.absolute()), **I2VGEN_XL)).save(target)
    return target


def _composed(entry: Entry, get: _Getter) -> list[Step]:
    """A base of several repositories: a folder with its settings."""
    target = made_folder(entry)
    if (target / "seed.json").is_file() and not get.fresh:
        return []
    parts = {
        name: get(hub_id, None, ("safety_checker",) if name == "pipeline" else ())
        for name, hub_id in entry.parts
    }

    def make(folders: list[Path], note: Note) -> Path:
        settings = SeedConfig(**dict(zip(parts, map(str, folders), strict=True)), **dict(entry.settings))
        target.mkdir(parents=True, exist_ok=True)
        values = {name: value for name, value in vars(settings).items() if value is not None}
        durable.write_file(target / "seed.json", (json.dumps(values, indent=2) + "\n").encode())
        return target

    return [Step(tuple(parts.values()), make, target)]


def _first(folders: list[Path], note: Note) -> Path:
    return folders[0]


def _free(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free


def _disk(folder: Path) -> int:
    return _existing(folder).stat().st_dev


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
