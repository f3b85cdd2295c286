"""Train a part of the embedded model: `python -m lab.tiny RECIPE -o OUT [--set NAME=VALUE ...]`.

See lab/docs/training.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from streamingt2v.cli.screen import Stopped
from streamingt2v.cli.train import resumable
from streamingt2v.errors import RequestError
from streamingt2v.train.settings import by_name, parsed

from .recipes import RECIPES, run_recipe


def main(words: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m lab.tiny", description=__doc__)
    parser.add_argument(
        "recipe",
        choices=list(RECIPES),
        help="; ".join(f"{name}: {recipe.help}" for name, recipe in RECIPES.items()),
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="folder for checkpoint, metrics, samples and trained parts",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="setting of the recipe or of the loop",
    )
    parser.add_argument("--stop-after", type=int, help="stop after so many steps; the same command resumes")
    parser.add_argument("-q", "--quiet", action="store_true", help="print the result alone")
    asked = parser.parse_args(words)
    again = [
        *parser.prog.split(),
        asked.recipe,
        "-o",
        str(asked.output),
        *(word for text in asked.set for word in ("--set", text)),
    ]
    try:
        own, loop = parsed(RECIPES[asked.recipe].config, by_name(asked.set))
        metrics = resumable(
            lambda: run_recipe(asked.recipe, asked.output, own, loop, asked.stop_after), again, asked.quiet
        )
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"{stopped}\nresume with: {' '.join(again)}", file=sys.stderr)
        return 130
    print(json.dumps({"recipe": asked.recipe, "output": str(asked.output), **metrics}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
