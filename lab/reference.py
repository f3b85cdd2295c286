"""Generate docs/cli.md from `--help`: `make docs`."""

import typer

from streamingt2v.cli import app

INTRODUCTION = """\
# Commands

This page is generated from `--help` by `make docs`.

Exit codes:

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed while running |
| 2 | wrong request; reported before any weights load |
| 130 | interrupted; stderr shows the `resume` command |

With `--json` the last line of stdout is one JSON object; everything else goes to stderr.

- `generate`, `extend`, `refine`, `resume`: `output`; `frames` in the file, including those of an extended
  video; `fps`, `width`, `height`, `seed`, `model`, `preset`; `seconds` of the whole command;
  `first_frame_seconds` from its start until new frames could be watched (null if none were made);
  `new_frames_per_second` after the model was loaded; `peak_rss_mb` in MiB; `run_dir` (null if removed);
  `notes`.
- `plan`: `model`, `frames`, `width`, `height`, `preset`, `device`, `dtype`, `parameters`; in bytes `weights`,
  `working`, `memory` (their sum), `memory_free`, `disk`, `disk_free`; `steps`, `refine_steps`, `seconds`
  (null if unknown), `seconds_from`.
- `convert`: `kind`, `source`, `output`, `bytes`, `dtype` (null: as published).
- `models`: `models`, a list; null where no source gives a value; `verified` says which figures were checked.
- After an error: `error`, `exit_code`; for a wrong argument `argument`, `value`, `fix`; `resume` if a run can
  be resumed.
"""


def reference() -> str:
    """Return the page as Markdown: the help of the program, then of each command."""
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
