"""The command line `streamingt2v`: parse, call, print. Commands import heavy modules only when they run."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ..runs.machine import bound_spinning
from . import batch, bench, demo, evaluate, models, plan, serve, streams, train, video, weights
from .screen import INTERRUPTED, interruptible, plain_warnings, report_error

app = typer.Typer(
    name="streamingt2v",
    help="Generate, extend, refine and evaluate long videos.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from .. import __version__

        print(__version__)
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print(context.get_help())


MAKES_FILES = [
    [name] for name in ("generate", "extend", "refine", "resume", "batch", "train", "get", "convert")
]
"""Commands that succeed once their files are written, even if stdout fails."""

for _command in (
    video.generate,
    video.extend,
    video.refine,
    video.resume,
    batch.batch,
    evaluate.evaluate,
    bench.bench,
    weights.get,
    models.convert,
    models.models,
    plan.plan,
    plan.doctor,
    train.train,
    serve.serve,
    demo.demo,
):
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: `sys.argv`) and return its exit code.

    0: done. 1: failed while running. 2: wrong request. 130: interrupted by SIGINT or SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with interruptible(), plain_warnings():
        try:
            code = int(app(arguments, standalone_mode=False) or 0)
            if code == INTERRUPTED:  # typer turns an uncaught KeyboardInterrupt into this code
                raise KeyboardInterrupt
            return code
        except (Exception, KeyboardInterrupt) as error:
            return report_error(error, as_json="--json" in arguments)


def entry_point() -> None:
    """Run the command line of this process and exit."""
    bound_spinning()
    streams.prepare()
    code = main()
    lost = streams.failure()
    if code == 0 and lost is not None and not streams.was_left(lost) and sys.argv[1:2] not in MAKES_FILES:
        print(f"error: stdout cannot be written: {lost.strerror}", file=sys.stderr)
        code = 1
    sys.exit(code)
