"""Writes docs/cli.md from `--help`: `make docs`, or `python -m streamingt2v.cli.reference > docs/cli.md`."""

from __future__ import annotations

import typer

from . import app

INTRODUCTION = """\
# Commands

This page is written by `make docs` from `--help`; a test keeps it true.

Exit codes: 0 done; 2 the request is wrong (said before any weights load); 1 it failed while running; 130 interrupted, with
the `resume` line to type. With `--json` the last line on stdout is one JSON object and everything else goes to stderr.

JSON of `generate`, `extend`, `refine` and `resume`: `output`, `frames` (in the file, those of an extended video included), `fps`, `width`,
`height`, `seed`, `model`, `preset`, `seconds` (of the whole command), `first_frame_seconds` (from the start of the command until the
first new frames could be watched; null if none was left to make), `new_frames_per_second` (frames that this command made, by the
seconds after the model was loaded), `peak_rss_mb` (MiB), `run_dir` (null if it was removed).

JSON of `convert`: `kind`, `source`, `output`, `bytes`, `dtype` (null: as published). Of `models`: `models`, a list; null is what no source
gives, and `verified` says which figures were checked. Of `plan`: `model`, `frames`, `width`, `height`, `preset`, `device`, `dtype`,
`parameters`, `weights`, `working`, `memory` (the sum of the two), `memory_free`, `disk`, `disk_free` (all in bytes), `steps`,
`refine_steps`, `seconds` (null if unknown), `seconds_from`.

After an error: `error`, `exit_code`,
with a wrong argument `argument`, `value` and `fix`, and `resume` where a run can be gone on with.
"""


def reference() -> str:
    """The page as Markdown: the help of the program, then of each command."""
    program = typer.main.get_command(app)
    root = program.make_context("streamingt2v", [], resilient_parsing=True)
    root.terminal_width = root.max_content_width = 110
    sections = [f"## streamingt2v\n\n```text\n{program.get_help(root)}\n```\n"]
    for name in program.list_commands(root):  # type: ignore[attr-defined]
        command = program.get_command(root, name)  # type: ignore[attr-defined]
        context = command.make_context(name, [], parent=root, resilient_parsing=True)
        sections.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join([INTRODUCTION, *sections])


if __name__ == "__main__":
    print(reference(), end="")
