"""`train`: train memories or a distilled network on captioned videos."""

import shlex
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..errors import RequestError
from .options import ScreenOptions, takes_options
from .places import check_name, try_folder
from .screen import Screen, Stopped, describe

NAMES = ("cam", "apm", "distill")


@takes_options
def train(
    recipe: Annotated[
        str, Argument(metavar="RECIPE", help="cam or apm (memories), or distill (fewer steps).")
    ],
    *,
    model: Annotated[
        str,
        Option(help="Model to start from: a name, a model folder, or a diffusers text-to-video pipeline."),
    ],
    data: Annotated[
        Path,
        Option(
            help="Folder of videos captioned by NAME.txt, metadata.csv or metadata.jsonl, or such a table."
        ),
    ],
    output: Annotated[
        Path, Option("--output", "-o", help="Folder for checkpoints, metrics, samples and the trained model.")
    ],
    settings: Annotated[
        list[str] | None,
        Option(
            "--set", metavar="NAME=VALUE", help="Setting of recipe or loop, see docs/training.md; repeatable."
        ),
    ] = None,
    stop_after: Annotated[
        int | None,
        Option(help="Stop after this many steps; run the command again to resume.", min=1, max=10**12),
    ] = None,
    screen: ScreenOptions,
) -> None:
    """Train the memories of a model on your own videos, or distill it to fewer steps.

    Writes a complete model folder, OUTPUT/model, for --model. Run the same command again to resume from the
    last checkpoint.
    """
    if recipe not in NAMES:
        fix = f"must be one of {', '.join(NAMES)}; the included model's other recipes are in the repository"
        raise RequestError("recipe", recipe, fix)
    check_name("data", data)
    if not data.exists():
        raise RequestError("data", str(data), "no such file or folder")
    try_folder("output", output)
    from ..train.recipes import RECIPES, run_recipe
    from ..train.settings import by_name, parsed

    given = by_name(settings or [])
    for name in given.keys() & {"model", "data"}:
        raise RequestError("set", f"{name}={given[name]}", f"give it as --{name}")
    own, loop = parsed(RECIPES[recipe].config, {"model": model, "data": str(data), **given})
    show = Screen(screen.quiet, screen.json)
    show.note(f"training {recipe} in {output}")
    again = ["streamingt2v", "train", recipe, "--model", model, "--data", str(data), "-o", str(output)]
    again += [word for text in settings or [] for word in ("--set", text)]
    metrics = resumable(
        lambda: run_recipe(RECIPES[recipe], output, own, loop, stop_after), again, screen.quiet
    )
    result = {"recipe": recipe, "output": str(output), "model": str(output / "model"), **metrics}
    show.result(str(output / "model"), result)


def resumable(run: Callable[[], dict[str, float]], again: list[str], quiet: bool) -> dict[str, float]:
    """Run a training with progress on stderr; on Ctrl-C raise Stopped with the command that resumes it."""
    try:
        with redirect_stdout(None if quiet else sys.stderr):  # the loop prints to stdout
            return run()
    except KeyboardInterrupt as error:
        raise Stopped(
            "interrupted; the last checkpoint is kept", describe(error).exit_code, shlex.join(again)
        ) from error
