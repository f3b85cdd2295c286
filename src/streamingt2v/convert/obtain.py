"""Obtain a model: list the files to download with sizes and licences, download them, and convert.

Names, sizes, licences and free space are known before the first byte is downloaded; cached files are reused.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub.utils import WeakFileLock
from safetensors import safe_open

from .. import durable
from ..checkpoints import hub
from ..checkpoints.download import OnBytes
from ..checkpoints.find import find_repository, known_as, made_folder
from ..checkpoints.registry import ENHANCERS, TOKENIZER_REPO, Entry, find_entry
from ..checkpoints.variants import choose_model
from ..config import EMBEDDED, ModelConfig, RefineByConfig
from ..config.external import SeedConfig
from ..config.places import existing, free_bytes, home
from ..config.units import readable
from ..errors import ModelError, RequestError

Note = Callable[[str], None]

I2VGEN_XL: dict[str, Any] = {
    "frames": 38, "overlap": 12, "height": 720, "width": 1280, "strength": 0.97, "steps": 30,
    "guidance_scale": 9.0,
}  # fmt: skip
"""Settings of StreamingSVD's enhancer as its authors call it; see `RefineByConfig`."""


@dataclass(frozen=True)
class Parcel:
    """Files of a repository: on this machine (`folder`) or on the hub (`remote`)."""

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
        """Return the bytes still to download."""
        return self.remote.missing(self.files) if self.remote else 0

    def bring(self, on_bytes: OnBytes, argument: str) -> Path:
        if self.folder is not None:
            return self.folder
        assert self.remote is not None, "it is here or there"
        return hub.bring(self.remote, self.files, on_bytes, argument)

    def describe(self) -> str:
        """Describe name, size and licence in one line."""
        if self.remote is None:
            return f"  {self.hub_id}: already downloaded"
        here = f" ({readable(self.missing)} to download)" if self.missing < self.size else ""
        what = self.files[0] if len(self.files) == 1 else f"{len(self.files)} files"
        return f"  {self.hub_id}: {what}, {readable(self.size)}{here}, licence: {self.licence}"


@dataclass(frozen=True)
class Step:
    """Downloads and what is made of them: the folder `makes` of about `made_bytes`, or None."""

    parcels: tuple[Parcel, ...]
    make: Callable[[list[Path], Note], Path]
    makes: Path | None = None
    made_bytes: int = 0


@dataclass(frozen=True)
class Order:
    """Everything to download and make for a model. argument: the option that named it, for errors."""

    name: str
    steps: tuple[Step, ...]
    argument: str = "model"

    @property
    def parcels(self) -> list[Parcel]:
        return [parcel for step in self.steps for parcel in step.parcels]

    @property
    def missing(self) -> int:
        """Return the bytes still to download."""
        return sum(parcel.missing for parcel in self.parcels)

    def describe(self) -> str:
        """Describe the order to the user before they agree."""
        made = [
            f"  converted to {step.makes}: {readable(step.made_bytes)}"
            for step in self.steps
            if step.makes and step.made_bytes
        ]
        room = (
            f"  free disk space: {readable(free_bytes(Path(hub.constants.HF_HUB_CACHE)))} "
            f"free in {hub.constants.HF_HUB_CACHE}"
        )
        if made:
            room += f", {readable(free_bytes(home()))} in {home()}"
        return "\n".join(
            [f"{self.name} takes:", *(parcel.describe() for parcel in self.parcels), *made, room]
        )

    def check_room(self) -> None:
        """Raise RequestError unless downloads and converted folders fit on their disks."""
        cache, made = Path(hub.constants.HF_HUB_CACHE), sum(step.made_bytes for step in self.steps)
        if existing(cache).stat().st_dev == existing(home()).stat().st_dev:
            hub.check_disk(
                self.missing + made,
                cache,
                f"{self.name} with its converted folder",
                "HF_HOME or STREAMINGT2V_HOME",
            )
            return
        hub.check_disk(self.missing, cache, f"the download of {self.name}", "HF_HOME")
        hub.check_disk(made, home(), f"the converted folder of {self.name}", "STREAMINGT2V_HOME")

    def carry_out(self, note: Note = lambda text: None, on_bytes: OnBytes = lambda count: None) -> Path:
        """Download and make everything; return the model's folder. Interrupted orders resume."""
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
    """Return what a model still lacks; None if it is complete or `name` is not a name of the hub or registry.

    Queries the hub but downloads next to nothing. full: include the third stage. half: prefer half-precision
    files. dtype: of converted weights; None keeps the published one. fresh: look for a newer commit than the
    cached one. Errors as in `hub.look_up`.
    """
    if name in EMBEDDED or Path(name).exists() or (known := known_as(name)) is None:
        return None
    entry, hub_id, revision = known
    get = _Getter(half, fresh and not hub.constants.HF_HUB_OFFLINE, argument)
    if entry is not None and entry.convert:
        steps = _converted(entry, revision, full, dtype, get)
    elif entry is not None and entry.parts:
        steps = _composed(entry, get)
    else:
        steps = [Step((get(hub_id, revision),), lambda folders, note: folders[0])]
    steps = [step for step in steps if step.makes or step.parcels[0].remote]
    return Order(name, tuple(steps), argument) if steps else None


@dataclass(frozen=True)
class _Getter:
    """Make parcels from the cache, else from the hub."""

    half: bool
    fresh: bool
    argument: str

    def __call__(self, hub_id: str, revision: str | None = None, without: tuple[str, ...] = ()) -> Parcel:
        """Return all files of a model."""
        if not self.fresh and (folder := find_repository(hub_id, revision, self.half, without)) is not None:
            return Parcel(hub_id, folder)
        return self._remote(hub_id, revision, choose_model(self.half, without))

    def files(self, hub_id: str, pattern: str, revision: str | None = None) -> Parcel:
        """Return the files that match a pattern."""
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
        licence = remote.licence or (entry.licence if entry else "not stated on its card")
        return Parcel(hub_id, None, remote, hub.chosen(remote, choose), licence)


def _converted(entry: Entry, revision: str | None, full: bool, dtype: str | None, get: _Getter) -> list[Step]:
    """Return the steps that convert a published checkpoint and, with `full`, add its third stage."""
    target, steps = made_folder(entry, revision), []
    _check_dtype(target, dtype)
    if not any((target / part).exists() for part in ("model.json", "refiner")):
        parcels = [get.files(str(entry.hub_id), str(entry.file), revision)]
        if entry.convert == "streaming-t2v":
            parcels.append(get.files(TOKENIZER_REPO, "tokenizer/*"))
        make = _converter(str(entry.convert), target, dtype)
        steps.append(Step(tuple(parcels), make, target, _made_bytes(parcels[0], dtype)))
    enhancer = find_entry(ENHANCERS.get(entry.name, "")) if full else None
    if enhancer is None or ((target / "model.json").is_file() and ModelConfig.load(target).refines):
        return steps
    if enhancer.convert:
        parcel = get.files(str(enhancer.hub_id), str(enhancer.file))
        make = _converter(enhancer.convert, target, dtype)
        steps.append(Step((parcel,), make, target / "refiner", _made_bytes(parcel, dtype)))
    else:
        steps.append(
            Step((get(str(enhancer.hub_id)),), lambda folders, note: _refining_by(target, folders[0]), target)
        )
    return steps


def _check_dtype(target: Path, dtype: str | None) -> None:
    """Raise RequestError if the folder was converted to another data type than is asked for."""
    file = next(
        (path for path in sorted(target.glob("*/*.safetensors")) if "vae" not in path.parent.name), None
    )
    if dtype is None or file is None:
        return
    with safe_open(file, "pt") as tensors:
        name = next(iter(tensors.keys()))
        has = tensors.get_slice(name).get_dtype()
    if has != {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]:
        fix = f"{target} has another ({has}), and loads in any; leave it out, or remove that folder first"
        raise RequestError("dtype", dtype, fix)


def _converter(kind: str, target: Path, dtype: str | None) -> Callable[[list[Path], Note], Path]:
    """Return what converts into `target` unless another process did, which it waits for."""
    part = "refiner" if kind == "vid2vid" else "model.json"

    def make(folders: list[Path], note: Note) -> Path:
        import torch

        from .kinds import convert

        own = getattr(torch, dtype) if dtype else None
        tokenizer = folders[1] / "tokenizer" if len(folders) > 1 else None
        target.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(target.with_name(f".{target.name}.lock")):
            if not (target / part).exists():
                _remove_leftovers(target)
                convert(kind, folders[0], target, dtype=own, tokenizer=tokenizer, note=note)
        return target

    return make


def _remove_leftovers(target: Path) -> None:
    """Remove what killed conversions left; the caller holds the target's lock."""
    for place in (target, target / "refiner"):
        for left in place.parent.glob(f".{place.name[:20]}-*"):
            shutil.rmtree(left, ignore_errors=True)


def _made_bytes(parcel: Parcel, dtype: str | None) -> int:
    """Estimate the size of the converted folder from that of the file."""
    size = parcel.size
    if parcel.folder is not None:
        size = sum(path.stat().st_size for path in parcel.folder.rglob("*") if path.is_file())
    return size // 2 if dtype in ("float16", "bfloat16") else size


def _refining_by(target: Path, pipeline: Path) -> Path:
    """Set the pipeline as the model's third stage."""
    config = ModelConfig.load(target)
    replace(config, refine_by=RefineByConfig(str(pipeline.absolute()), **I2VGEN_XL)).save(target)
    return target


def _composed(entry: Entry, get: _Getter) -> list[Step]:
    """Return the step that writes the settings of a base made of several repositories."""
    target = made_folder(entry)
    if (target / "seed.json").is_file() and not get.fresh:
        return []
    parts = {
        name: get(hub_id, None, ("safety_checker",) if name == "pipeline" else ())
        for name, hub_id in entry.parts
    }

    def make(folders: list[Path], note: Note) -> Path:
        values: dict[str, Any] = dict(zip(parts, map(str, folders), strict=True)) | dict(entry.settings)
        SeedConfig(**values)  # a check
        target.mkdir(parents=True, exist_ok=True)
        durable.write_file(target / "seed.json", (json.dumps(values, indent=2) + "\n").encode())
        return target

    return [Step(tuple(parts.values()), make, target)]
