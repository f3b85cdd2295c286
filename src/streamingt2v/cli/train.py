"""`train`: memories or a distilled network, trained on a folder of captioned videos."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from ..errors import RequestError
from .options import ScreenOptions, takes_options
from .screen import Screen, Stopped, describe

NAMES = ("cam", "apm", "distill")


@takes_options
def train(
    recipe: Annotated[str, Argument(metavar="RECIPE", help=f"One of {', '.join(NAMES)}.")],
    *,
    model: Annotated[
        str,
        Option(help="Model to start from: a name, a model folder, or a text-to-video pipeline of diffusers."),
    ],
    data: Annotated[
        Path,
        Option(
            help="Videos with captions: a folder with a NAME.txt beside each, or a metadata.csv or .jsonl in it, or such a file."
        ),
    ],
    output: Annotated[
        Path, Option("--output", "-o", help="Folder for checkpoint, metrics, samples and the trained model.")
    ],
    settings: Annotated[
        list[str] | None,
        Option("--set", metavar="NAME=VALUE", help="Setting of the recipe or of the loop; may be repeated."),
    ] = None,
    stop_after: Annotated[
        int | None, Option(help="Stop after so many steps; the same command resumes.", min=1)
    ] = None,
    screen: ScreenOptions,
) -> None:
    """Train the memories of a model on your own clips, or distill it to fewer steps.

    The same command resumes from the last checkpoint in the output folder. OUTPUT/model is a whole model folder, for --model of other
    commands. Settings are listed in docs/training.md.
    """
    if recipe not in NAMES:
        fix = f"must be one of {', '.join(NAMES)}; recipes of the embedded model's other parts are in the repository: python -m lab.tiny"
        raise RequestError("recipe", recipe, fix)
    if not data.exists():
        raise RequestError("data", str(data), "no such file or folder")
    from ..train.recipes import RECIPES, run_recipe
    from ..train.settings import by_name, parsed

    given = by_name(settings or [])
    for name in given.keys() & {"model", "data"}:
        raise RequestError("set", f"{name}={given[name]}", f"give it as --{name}")
    own, loop = parsed(RECIPES[recipe].config, {"model": model, "data": str(data), **given})
    show = Screen(screen.quiet, screen.json)
    show.note(f"training {recipe} in {output}")
    options = ["--model", model, "--data", str(data), "-o", str(output)]
    again = [
        "streamingt2v",
        "train",
        recipe,
        *options,
        *(word for text in settings or [] for word in ("--set", text)),
    ]
    metrics = resumable(
        lambda: run_recipe(RECIPES[recipe], output, own, loop, stop_after), again, screen.quiet
    )
    result = {"recipe": recipe, "output": str(output), "model": str(output / "model"), **metrics}
    show.result(str(output / "model"), result)


def resumable(run: Any, again: list[str], quiet: bool) -> dict[str, float]:
    """Run a training whose progress goes to stderr; on Ctrl-C say the command that resumes."""
    try:
        with redirect_stdout(None if quiet else sys.stderr):  # the loop prints its progress
            return run()
    except KeyboardInterrupt as error:
        raise Stopped(
            "interrupted; the last checkpoint is kept", describe(error).exit_code, shlex.join(again)
        ) from error
