"""`batch`: make one video per row of a table."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from ..config import Request
from ..errors import RequestError
from ..ray_backend import check_ray
from ..resolve import resolve_for, with_media
from ..runs.quiet import hide_progress_bars
from .options import MOST_THREADS, MOST_WORKERS, ModelOptions, ScreenOptions, takes_options
from .screen import Screen, Stopped, describe
from .settle import settle
from .table import read_table
from .weights import Yes

if TYPE_CHECKING:
    from ..runs.batch import Record, Setting


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Output folder and workers of `batch`."""

    out: Annotated[
        str,
        Option("--out", "-o", help="Output folder: a path, or a URL that fsspec can write (s3://...)."),
    ]
    workers: Annotated[
        int,
        Option(help="Videos made in parallel. More than 1 needs the extra 'ray'.", min=1, max=MOST_WORKERS),
    ] = 1
    threads: Annotated[
        int,
        Option(
            help="CPU threads per worker. A different number can change the last bits of the frames.",
            min=1,
            max=MOST_THREADS,
        ),
    ] = 1
    gpus_per_worker: Annotated[
        float | None,
        Option(
            help="GPUs per worker with --device cuda; a fraction shares one GPU. Default: 1.",
            min=0.0,
            max=64.0,
        ),
    ] = None
    retries: Annotated[int, Option(help="Times to retry a failed video.", min=0, max=1000)] = 2
    run_dir: Annotated[
        Path | None,
        Option(help="Local folder for runs in progress. Default: --out, or PROMPTS.runs if --out is a URL."),
    ] = None


@takes_options
def batch(
    prompts: Annotated[
        Path,
        Argument(metavar="PROMPTS", help="A .csv, .jsonl or .parquet file with one row per video."),
    ],
    *,
    options: BatchOptions,
    model: ModelOptions,
    yes: Yes = False,
    screen: ScreenOptions,
) -> None:
    """Make many videos, one per row of a table.

    Columns are the options of `generate` (prompt, image, frames, seed, preset, ...) and name, video
    (to extend) and refine. Each row gives NAME.mp4 and NAME.json with its result; rows without a name
    are numbered. All rows are checked before work starts. A failed row does not stop the others.
    Run the same command again to resume and to make only what is missing.
    """
    began, typed = time.monotonic(), model
    model = settle(model, Screen(screen.quiet, screen.json), fetch="preview", yes=yes)
    if model.offload == "auto":  # one model serves all rows, whatever they need
        model = replace(model, offload="none")
    _check_workers(model.device, options)
    rows = read_table(prompts, lambda wanted: _checked(wanted, model))
    hide_progress_bars(warnings=not screen.quiet)
    from ..runs.batch import Job, left_to_do, run_batch

    jobs, setting = [Job(name, request) for name, request in rows], _setting(prompts, options, model)
    left = left_to_do(jobs, setting)
    show = Screen(screen.quiet, screen.json)
    show.note(f"{len(jobs)} rows, {len(jobs) - len(left)} already done, {options.workers} worker(s)")
    run = partial(run_batch, left, setting, options.workers, options.retries, options.gpus_per_worker)
    records = run() if left else iter(())
    again = shlex.join(
        ["streamingt2v", "batch", str(prompts), *_words(options), *_words(typed), *_words(screen)]
    )
    try:
        total = {"rows": len(jobs), "done_before": len(jobs) - len(left), **_report(records, show)}
    except KeyboardInterrupt as error:
        raise Stopped(
            "interrupted; finished and partial videos are kept", describe(error).exit_code, again
        ) from error
    total |= {"seconds": round(time.monotonic() - began, 3), "output": setting.out}
    if total["failed"]:
        raise Stopped(f"{total['failed']} of {len(jobs)} videos failed; see their NAME.json", 1, again, total)
    show.result(f"{total['done']} videos in {total['seconds']:.1f} s", total)


def _report(records: Iterable[Record], show: Screen) -> dict[str, Any]:
    """Print one line per finished video; return the totals."""
    total = {"done": 0, "failed": 0, "new_frames": 0}
    for record in records:
        total[record["status"]] += 1
        total["new_frames"] += record.get("new_frames", 0)
        for note in record.get("notes", ()):
            show.note(f"note: {record['name']}: {note}")
        how = f"{record['frames']} frames" if record["status"] == "done" else f"failed: {record['error']}"
        show.result(
            f"{record['name']}: {how}", {name: value for name, value in record.items() if name != "asked"}
        )
    return total


def _setting(prompts: Path, options: BatchOptions, model: ModelOptions) -> Setting:
    from ..runs.batch import Setting
    from ..runs.store import Store

    store = Store(options.out)
    runs = options.run_dir or (Path(store.address) if store.is_local else prompts.with_suffix(".runs"))
    return Setting(
        model.model,
        model.device,
        model.dtype,
        options.threads,
        str(runs.absolute()),
        store.address,
        model.savings,
    )


def _words(options: Any) -> list[str]:
    """Return the options that differ from their defaults, as typed on a command line."""
    words: list[str] = []
    for field in fields(options):
        value, name = getattr(options, field.name), f"--{field.name.replace('_', '-')}"
        if value != field.default:
            words += [name] if value is True else [name, str(value)]
    return words


def _checked(wanted: Request, model: ModelOptions) -> Request:
    asked = resolve_for(model.model, wanted)
    model.savings.check(model.device, asked.config, model.dtype, asked.uses_pipelines)
    return with_media(asked).request


def _check_workers(device: str, options: BatchOptions) -> None:
    gpus = options.gpus_per_worker
    if device.startswith("cuda:") and options.workers > 1:
        raise RequestError("device", device, "workers choose their own GPUs; use cuda")
    if gpus is not None and (options.workers == 1 or device != "cuda"):
        raise RequestError("gpus_per_worker", gpus, "needs --workers above 1 and --device cuda; leave it out")
    if options.workers > 1:
        check_ray()
