"""Choose files of a diffusers folder: one set of weights per part, half precision if requested and present.

Published folders often contain the same weights several times: safetensors and pickles, float32 and float16,
other frameworks. Only file names are used, so the choice works before a download too.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..config.external import read_json
from ..errors import ModelError

Read = Callable[[str], str]
"""Return the text of a small file of the repository."""

INDEX = "model_index.json"
DENOISERS = ("transformer", "transformer_2", "unet")
"""Parts of pipelines that denoise."""

HALVES = ("fp16", "bf16")
"""Half-precision variants of diffusers, preferred first."""

_WEIGHTS = re.compile(
    r"(?P<stem>[\w-]+?)(?:\.(?P<a>\w+))?(?:-\d{5}-of-\d{5})?(?:\.(?P<b>\w+))?\.(?P<kind>safetensors|bin)"
)
_SHARDS = re.compile(
    r"(?P<stem>[\w-]+?)(?:\.(?P<a>\w+))?\.(?P<kind>safetensors|bin)\.index(?:\.(?P<b>\w+))?\.json"
)
_BESIDE = (".json", ".txt", ".model", ".jinja")


@dataclass(frozen=True)
class WeightSet:
    """Weight files of one part. variant: "" for the plain one."""

    variant: str
    kind: str
    files: tuple[str, ...]


def weight_set(names: Iterable[str], half: bool = False) -> WeightSet | None:
    """Return the best set among a part's file names; None if there is none.

    half: prefer half-precision variants, then the plain one; else the plain one, then any. safetensors win
    over pickles.
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
    """List the files that `from_pretrained` reads: `model_index.json`, settings and one weight set per part.

    without: parts to leave out.
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
    """List the part folders named in a pipeline's `model_index.json`."""
    parts = ((name, value) for name, value in index.items() if isinstance(value, list) and len(value) == 2)
    return [name for name, value in parts if value[1] is not None]


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
    """Choose the files of a model: a model folder of this package, a diffusers pipeline or one network."""

    def choose(names: Iterable[str], read: Read) -> Sequence[str]:
        names = list(names)
        if "model.json" in names:
            return [name for name in names if PurePosixPath(name).suffix in (*_BESIDE, ".safetensors")]
        if INDEX in names:
            return needed_files(names, _parsed(read(INDEX)), half, without)
        return _of_part([name for name in names if "/" not in name], half) if "config.json" in names else []

    return choose


def _parsed(text: str) -> dict[str, Any]:
    """Return the content of a `model_index.json`; raise ModelError if it is none."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{INDEX} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{INDEX} is damaged: it holds no object")
    return found


def weights_of(folder: Path, half: bool = False) -> WeightSet | None:
    """Return the weight set to load from a part's folder."""
    return (
        weight_set((path.name for path in folder.glob("*") if path.is_file()), half)
        if folder.is_dir()
        else None
    )


def variant_of(folder: Path, half: bool = False) -> str | None:
    """Return the `variant` argument for loading a pipeline or network folder; None for the plain files.

    half: prefer half-precision files. diffusers falls back to plain files for parts without the variant.
    """
    index = folder / INDEX
    parts = [folder / part for part in parts_of(read_json(index))] if index.is_file() else [folder]
    sets = [own for part in parts if (own := weights_of(part, half))]
    return next((own.variant for own in sets if own.variant), None)
