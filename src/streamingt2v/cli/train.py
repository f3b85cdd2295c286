"""`train`: one recipe of the included model's training, started or gone on with."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

from typer import Argument, Option

from ..errors import RequestError
from .options import ScreenOptions, takes_options
from .screen import Screen, Stopped, describe

if TYPE_CHECKING:
    from lab.tiny.recipes import Recipe

NAMES = ("text", "vae", "base", "cam", "apm", "refiner", "rival", "judge", "distill")
YES_NO = {"yes": True, "no": False}


@takes_options
def train(
    recipe: Annotated[str, Argument(metavar="RECIPE", help=f"One of {', '.join(NAMES)}.")],
    *,
    output: Annotated[Path, Option("--output", "-o", help="Folder for checkpoint, metrics, samples and trained parts.")],
    settings: Annotated[
        list[str] | None, Option("--set", metavar="NAME=VALUE", help="A setting of the recipe or of the loop; may be repeated.")
    ] = None,
    stop_after: Annotated[int | None, Option(help="Stop after so many steps of this call, to go on later.", min=1)] = None,
    screen: ScreenOptions,
) -> None:
    """Train a part of a model, or go on training it.

    The same command goes on from the last checkpoint in the output folder. What the settings are is in docs/training.md; folders
    of earlier recipes are settings too, e.g. --set text=runs/text.
    """
    given = _by_name(settings or [])
    if recipe not in NAMES:
        raise RequestError("recipe", recipe, f"must be one of {', '.join(NAMES)}")
    show = Screen(screen.quiet, screen.json)
    show.note(f"training {recipe} in {output}")
    from lab.tiny.recipes import RECIPES, run_recipe

    from ..train.loop import LoopConfig

    own, loop = _split(RECIPES[recipe], LoopConfig, given)
    try:
        with redirect_stdout(None if screen.quiet else sys.stderr):  # the loop prints its progress
            metrics = run_recipe(recipe, output, own, loop, stop_after)
    except KeyboardInterrupt as error:
        again = ["streamingt2v", "train", recipe, "-o", str(output), *(word for text in settings or [] for word in ("--set", text))]
        raise Stopped("interrupted; the last checkpoint is kept", describe(error).exit_code, shlex.join(again)) from error
    show.result(str(output), {"recipe": recipe, "output": str(output), **metrics})


def _by_name(texts: list[str]) -> dict[str, str]:
    """name -> text of "name=text"; RequestError for another form or a name given twice."""
    given: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise RequestError("set", text, "write NAME=VALUE, e.g. --set steps=500")
        if name in given:
            raise RequestError("set", text, f"{name} is given twice; give it once")
        given[name] = value
    return given


def _split(recipe: Recipe, loop: type, given: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings as values: those of the recipe's own config, and those of the loop. RequestError names what is wrong or missing."""
    own_hints, loop_hints = get_type_hints(recipe.config), get_type_hints(loop)
    del loop_hints["out"]  # that is --output
    unknown = [name for name in given if name not in own_hints and name not in loop_hints]
    if unknown:
        raise RequestError("set", f"{unknown[0]}={given[unknown[0]]}", f"no such setting; there are {', '.join([*own_hints, *loop_hints])}")
    values = {name: parse_setting(name, text, (own_hints | loop_hints)[name]) for name, text in given.items()}
    missing = [f.name for f in fields(recipe.config) if f.default is MISSING and f.default_factory is MISSING and f.name not in given]
    if missing:
        raise RequestError("set", None, f"the recipe needs {', '.join(missing)}; give it as --set {missing[0]}=FOLDER")
    return {n: v for n, v in values.items() if n in own_hints}, {n: v for n, v in values.items() if n not in own_hints}


def parse_setting(name: str, text: str, hint: Any) -> Any:
    """`text` as a value of the type `hint`.

    That is bool ("yes", "no"), int, float, str, Path (which must exist), a tuple of one of these ("64,128"), or one of these or None.
    """
    kind = next((k for k in get_args(hint) if k is not NoneType), hint) if NoneType in get_args(hint) else hint
    try:
        if kind is bool:
            return YES_NO[text]
        if getattr(kind, "__origin__", None) is tuple:
            return tuple(get_args(kind)[0](part) for part in text.split(","))
        value = kind(text)
    except (KeyError, ValueError) as error:
        example = {bool: "yes or no", int: "a number (int)", float: "a number (float)"}.get(kind, "a comma-separated list")
        raise RequestError("set", f"{name}={text}", f"must be {example}") from error
    if isinstance(value, Path) and not value.exists():
        raise RequestError("set", f"{name}={text}", "no such folder; it is the output of an earlier recipe")
    return value
