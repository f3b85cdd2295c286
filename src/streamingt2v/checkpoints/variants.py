"""Choice of files in a folder of diffusers' layout: one set of weights a part, in half precision where asked for and there.

Published folders often hold the same weights several times: as safetensors and as pickles, in float32 and in float16, for other frameworks.
Only names are looked at, so that it works before a download as well as after.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..config.external import read_json

Read = Callable[[str], str]
"""The text of a repository's small file."""

INDEX = "model_index.json"
HALVES = ("fp16", "bf16")
"""Names of diffusers' variants in half precision."""

_WEIGHTS = re.compile(
    r"(?P<stem>[\w-]+?)(?:\.(?P<a>\w+))?(?:-\d{5}-of-\d{5})?(?:\.(?P<b>\w+))?\.(?P<kind>safetensors|bin)"
)
_SHARDS = re.compile(
    r"(?P<stem>[\w-]+?)(?:\.(?P<a>\w+))?\.(?P<kind>safetensors|bin)\.index(?:\.(?P<b>\w+))?\.json"
)
_BESIDE = (".json", ".txt", ".model", ".jinja")


@dataclass(frozen=True)
class WeightSet:
    """Files of one part's weights: a variant, "" for the plain one, and a format."""

    variant: str
    kind: str
    files: tuple[str, ...]


def weight_set(names: Iterable[str], half: bool = False) -> WeightSet | None:
    """The set to use of a part's files, named within its folder; None where there is none.

    In half precision its own variant, else the plain one; else the plain one, else whatever there is. safetensors before pickles.
    """
    sets: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in names:
        if match := _WEIGHTS.fullmatch(name) or _SHARDS.fullmatch(name):
            sets[match["a"] or match["b"] or "", match["kind"]].append(name)
    whole = {key: files for key, files in sets.items() if any(_WEIGHTS.fullmatch(name) for name in files)}
    if not whole:
        return None
    order = (*HALVES, "") if half else ("", *HALVES)

    def rank(key: tuple[str, str]) -> tuple[object, ...]:
        variant, kind = key
        place, pickled = order.index(variant) if variant in order else len(order), kind != "safetensors"
        return (pickled, place) if half else (variant != "", pickled, place)

    variant, kind = min(whole, key=rank)
    return WeightSet(variant, kind, tuple(sorted(whole[variant, kind])))


def needed_files(
    names: Iterable[str], index: Mapping[str, Any], half: bool, without: Sequence[str] = ()
) -> list[str]:
    """List what `from_pretrained` reads of a pipeline's repository: `model_index.json`, settings and one set of weights of each part.

    without: parts that are left out.
    """
    inside: dict[str, list[str]] = defaultdict(list)
    for name in names:
        part, _, rest = name.partition("/")
        inside[part].append(rest)
    wanted = [INDEX]
    for part in parts_of(index):
        if part not in without:
            wanted += [
                f"{part}/{name}" for name in _of_part([name for name in inside.get(part, ()) if name], half)
            ]
    return wanted


def parts_of(index: Mapping[str, Any]) -> list[str]:
    """Folders of the parts that a pipeline's `model_index.json` names."""
    return [
        name
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[1] is not None
    ]


def _of_part(names: Sequence[str], half: bool) -> list[str]:
    own = weight_set(names, half)
    weights = set(own.files if own else ())
    settings = [
        name for name in names if PurePosixPath(name).suffix in _BESIDE and not _SHARDS.fullmatch(name)
    ]
    return sorted({*weights, *settings})


def choose_model(
    half: bool = False, without: Sequence[str] = ()
) -> Callable[[Iterable[str], Read], Sequence[str]]:
    """Return which files of a repository make a model: a model folder of this package, a pipeline of diffusers, or a single network."""

    def choose(names: Iterable[str], read: Read) -> Sequence[str]:
        names = list(names)
        if "model.json" in names:
            return [name for name in names if PurePosixPath(name).suffix in (*_BESIDE, ".safetensors")]
        if INDEX in names:
            return needed_files(names, json.loads(read(INDEX)), half, without)
        return _of_part([name for name in names if "/" not in name], half) if "config.json" in names else []

    return choose


def weights_of(folder: Path, half: bool = False) -> WeightSet | None:
    """The set to use of a part's folder."""
    return (
        weight_set((path.name for path in folder.glob("*") if path.is_file()), half)
        if folder.is_dir()
        else None
    )


def variant_of(folder: Path, half: bool = False) -> str | None:
    """The `variant` to load a pipeline's folder, or a single network's, with: one that a part has nothing besides, or that is asked for.

    half: the numbers will be of half precision, whatever the files have.
    """
    index = folder / INDEX
    parts = [folder / part for part in parts_of(read_json(index))] if index.is_file() else [folder]
    sets = [own for part in parts if (own := weights_of(part, half))]
    return next((own.variant for own in sets if own.variant), None)
