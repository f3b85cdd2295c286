"""`get`, and the download of missing models by other commands, after asking once."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from ..checkpoints.registry import ENHANCERS
from ..config import EMBEDDED, Preset
from ..config.units import readable
from ..errors import ModelError, RequestError
from .options import Dtype, ScreenOptions, takes_options
from .places import try_folder
from .screen import Screen

if TYPE_CHECKING:
    from ..convert.obtain import Order

Yes = Annotated[bool, Option("--yes", "-y", help="Download missing models without asking.")]


@takes_options
def get(
    name: Annotated[
        str,
        Argument(metavar="NAME|ID", help="A name (see `models`) or a hub id OWNER/REPO[@REVISION]."),
    ],
    *,
    preset: Annotated[Preset, Option(help="full: include stage 3.")] = "preview",
    dtype: Annotated[Dtype | None, Option(help="Data type of the weights. Default: as published.")] = None,
    yes: Yes = False,
    screen: ScreenOptions,
) -> None:
    """Download a model and make it ready for --model or --base.

    Downloads only needed files: one set of weights per network, in half precision with --dtype float16 or
    bfloat16 if published. Converts published StreamingT2V checkpoints. Run again to resume a download.
    """
    from ..convert.obtain import order

    show = Screen(screen.quiet, screen.json)
    half = dtype in ("float16", "bfloat16")
    _check_gettable(name, preset)
    _try_folders(name)
    needed = order(name, full=preset == "full", half=half, dtype=dtype, fresh="/" in name, argument="name")
    fetched = needed.missing if needed else 0
    if needed is None:
        show.note(f"{name} is already downloaded")
    else:
        _carried_out(needed, show, yes)
    folder = _here(name, half)
    show.result(str(folder), {"name": name, "folder": str(folder), "fetched_bytes": fetched})


def _check_gettable(name: str, preset: Preset) -> None:
    """Raise RequestError for a name that is none, or that has no third stage to get."""
    from ..checkpoints.find import known_as

    if name in EMBEDDED or (Path(name).is_dir() and name.strip()):
        return
    known = known_as(name) if name.strip() else None
    if known is None:
        _here(name, half=False)  # whose error tells what can be given
    elif preset == "full" and (known[0] is None or known[0].name not in ENHANCERS):
        raise RequestError("preset", "full", f"{name} has no third stage; leave it out")


def _here(name: str, half: bool) -> Path:
    from ..checkpoints.find import find_model

    try:
        return find_model(name, half)
    except ModelError as error:
        raise RequestError("name", name, str(error)) from error


def check_use(models: Iterable[str], base: str | None = None) -> None:
    """Raise RequestError for a known name that cannot be a model or base, before anything is downloaded."""
    from ..checkpoints.find import misused

    for name in models:
        if wrong := misused(name, "model"):
            raise RequestError("model", name, wrong)
    if base is not None and (wrong := misused(base, "base")):
        raise RequestError("base", base, wrong)


def obtain(names: dict[str, str], show: Screen, *, full: bool, half: bool, yes: bool) -> None:
    """Download missing models, given by option name, after asking.

    RequestError if the answer is no, or without a terminal unless `yes`.
    """
    if all(name in EMBEDDED or Path(name).exists() for name in names.values()):
        return
    from ..convert.obtain import order

    _try_folders(*names.values())
    made = [
        order(name, full=full and option == "model", half=half, argument=option)
        for option, name in names.items()
    ]
    for needed in filter(None, made):
        _carried_out(needed, show, yes)


def _try_folders(*names: str) -> None:
    """Raise RequestError if a model is missing and folders for downloads and models are not writable."""
    from ..checkpoints.find import find_model
    from ..checkpoints.hub import constants
    from ..config.places import home

    try:
        for name in names:
            find_model(name)
        return
    except ModelError:
        pass
    for variable, folder in (("HF_HOME", Path(constants.HF_HUB_CACHE)), ("STREAMINGT2V_HOME", home())):
        try_folder("folder", folder, f"set {variable} to another folder")


def _carried_out(needed: Order, show: Screen, yes: bool) -> Path:
    missing = needed.missing
    needed.check_room()
    if missing or any(step.made_bytes for step in needed.steps):
        show.note(needed.describe())
    if missing and not yes:
        _ask(needed, missing)
    if not missing:
        return needed.carry_out(show.note)
    with show.progress(missing, 0, "bytes") as progress:
        return needed.carry_out(show.note, progress.add)


def _ask(needed: Order, missing: int) -> None:
    fix = f"is a download of {readable(missing)}; give --yes, or run: streamingt2v get {needed.name}"
    if not sys.stdin.isatty():
        raise RequestError(needed.argument, needed.name, fix)
    if not typer.confirm(f"Download {readable(missing)}?", err=True):
        raise RequestError(needed.argument, needed.name, f"was not downloaded; {fix}")
