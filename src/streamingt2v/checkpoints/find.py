"""Locate a model named by name, hub id or folder on this machine, without any network access."""

from pathlib import Path
from typing import Literal

from ..config import EMBEDDED, ModelConfig
from ..config import find_model as find_folder
from ..config.places import home
from ..errors import ModelError
from .registry import Entry, find_entry, parse_id
from .variants import choose_model

COMPLETE = ("model.json", "seed.json", "refiner")
"""A folder made by `get` is complete once it contains one of these."""


def find_model(name_or_folder: str | Path, half: bool = False) -> Path:
    """Return the folder of an embedded model, of a name or hub id downloaded before, or the folder itself.

    half: prefer half-precision weights where both were downloaded. Raise ModelError naming the `get` command
    if the model is not on this machine.
    """
    name = str(name_or_folder)
    known = None if name in EMBEDDED or Path(name).exists() else known_as(name)
    if known is None:
        return find_folder(name)  # whose error names what can be given
    entry, hub_id, revision = known
    if entry is not None and (entry.convert or entry.parts):
        folder = made_folder(entry, revision)
        if any((folder / part).exists() for part in COMPLETE):
            return folder
    elif (found := find_repository(hub_id, revision, half)) is not None:
        return found
    size = f" (a download of {entry.download_bytes / 1e9:.3g} GB)" if entry and entry.download_bytes else ""
    raise ModelError(f"{name} is not on this machine; get it by: streamingt2v get {name}{size}")


def locate(config: ModelConfig) -> ModelConfig:
    """Return the configuration with folders in place of names and hub ids that are on this machine."""
    return config.with_paths(found_or_same)


def found_or_same(text: str) -> str:
    """Return the folder of a name or hub id; another text, or one that is not on this machine, unchanged."""
    try:
        return str(find_model(text)) if _is_name(text) else text
    except ModelError:
        return text


def missing_parts(config: ModelConfig) -> list[str]:
    """List the names and hub ids of pipelines in a configuration that are not on this machine."""
    missing: list[str] = []

    def look(text: str) -> str:
        if _is_name(text):
            missing.append(text)
        return text

    locate(config).with_paths(look)
    return missing


def _is_name(text: str) -> bool:
    return text not in EMBEDDED and not Path(text).exists() and known_as(text) is not None


def misused(name: str, option: Literal["model", "base"]) -> str | None:
    """Tell what a known name is and how to use it, if not as this option; None if it can be."""
    known = known_as(name) if not Path(name).exists() else None
    entry = known[0] if known else None
    if entry is None or not (
        entry.convert if option == "base" else entry.parts or entry.convert == "vid2vid"
    ):
        return None
    kind = {"model": "a whole model", "base": "a base", "enhancer": "an enhancer"}[entry.role]
    return f"is {kind}, so it cannot be the {option}; use it by: {entry.use}"


def known_as(name: str) -> tuple[Entry | None, str, str | None] | None:
    """Return (entry, hub id, revision) for a registry name or a hub id; None for anything else."""
    if entry := find_entry(name):
        hub_id = entry.hub_id or (entry.parts[0][1] if entry.parts else None)
        return (entry, hub_id, entry.revision) if hub_id else None
    parsed = parse_id(name)
    if parsed is None:
        return None
    entry = find_entry(parsed[0])
    return entry, parsed[0], parsed[1] or (entry.revision if entry else None)


def made_folder(entry: Entry, revision: str | None = None) -> Path:
    """Return the folder where `get` writes what it makes of an entry's files."""
    pinned = f"@{revision}" if revision and revision != entry.revision else ""
    return home() / "models" / f"{entry.name}{pinned}"


def find_repository(
    hub_id: str, revision: str | None, half: bool = False, without: tuple[str, ...] = ()
) -> Path | None:
    """Return the cached folder of a repository, if possible in the precision asked for, or None."""
    from . import hub  # its library takes a while to import, and is not needed for what lies in a folder

    for asked in (half, not half):
        try:
            return hub.find(hub_id, choose_model(asked, without), revision)
        except ModelError:
            continue
    return None
