"""`evaluate`: long-video metrics of video files, as a table, JSON and charts."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from ..errors import MediaError, RequestError
from ..texts import check_text, printable
from .options import ScreenOptions, takes_options
from .places import check_each
from .screen import Screen

if TYPE_CHECKING:
    from ..metrics.chart import MiddleRows
    from ..metrics.seams import Grid
    from ..metrics.suite import Report
    from ..video.reader import Frame

NAMES = tuple(
    "mawe warp flow stagnation seam cuts anchor text drift colour flicker sharpness repetition".split()
)
FLOWING, SEEING = {"mawe", "warp", "flow", "stagnation"}, {"anchor", "text"}
WITH_CURVES = {"warp", "flow", "seam", "anchor", "text", "colour", "flicker", "sharpness"}
COLUMNS = 5  # videos side by side in a table
ARROWS = {"higher": "↑", "lower": "↓", None: "", "towards": "→"}
PLAIN_ARROWS = {"higher": "^", "lower": "v", None: "", "towards": "->"}  # for ASCII terminals


@takes_options
def evaluate(
    videos: Annotated[list[Path], Argument(metavar="VIDEO", help="Video files or folders of finished runs.")],
    *,
    prompt: Annotated[str | None, Option(help="Text prompt. Default: the one stored in the file.")] = None,
    metrics: Annotated[
        str | None, Option(help=f"Comma-separated: {','.join(NAMES)}. Default: all that apply.")
    ] = None,
    chunk: Annotated[
        int | None,
        Option(help="Frames per chunk, to locate seams. Default: stored in the file.", min=1, max=2**31 - 1),
    ] = None,
    overlap: Annotated[
        int | None,
        Option(help="Frames that consecutive chunks share; requires --chunk.", min=0, max=2**31 - 1),
    ] = None,
    clip: Annotated[
        str | None,
        Option(
            help="CLIP model for anchor and text: a folder, or the name of a downloaded one. Default: tiny's."
        ),
    ] = None,
    flow_size: Annotated[
        int | None,
        Option(help="Scale frames to this side for motion metrics. Default: full size.", min=1, max=8192),
    ] = None,
    curves: Annotated[
        Path | None, Option(help="Also write a PNG of the curves over time, with seams.")
    ] = None,
    slice_: Annotated[
        Path | None,
        Option("--slice", help="Also write a PNG with the middle row of every frame; time runs right."),
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace existing files.")] = False,
    screen: ScreenOptions,
) -> None:
    """Measure long videos: seams, motion, drift, similarity to the prompt.

    Each video is read once, in constant memory. docs/evaluation.md explains the metrics and their limits.

    Example: streamingt2v evaluate cat.mp4 longer.mp4 --metrics seam,drift --curves curves.png
    """
    from ..metrics.chart import MiddleRows, check_installed

    names = _names(metrics)
    if prompt is not None:
        try:
            check_text(prompt)
        except ValueError as error:
            raise RequestError("prompt", prompt, str(error)) from None
    _check_used(names, {"prompt": prompt, "clip": clip, "flow_size": flow_size, "curves": curves})
    check_each({"curves": (curves, ".png"), "slice": (slice_, ".png")}, overwrite)
    for name, path in (("curves", curves), ("slice", slice_)):
        if path is not None:
            check_installed(name)
    grid, total = _grid(chunk, overlap), _check_videos(videos)
    show = Screen(screen.quiet, screen.json)
    import transformers

    from ..metrics.seams import video_of
    from ..metrics.suite import METRICS, make_metrics, make_tools, setting_of, what_is_not_installed
    from ..metrics.suite import evaluate as measured

    transformers.utils.logging.disable_progress_bar()
    tools = make_tools(
        [n for n in names or METRICS if names or what_is_not_installed(n) is None], clip, flow_size
    )
    for video in videos if names else ():  # report a bad last video now, not after an hour
        make_metrics(names or (), setting_of(video_of(video), tools, prompt, grid))
    reports: list[Report] = []
    rows = [MiddleRows() for _ in videos]
    with show.progress(total, 0) as progress:
        for video, row in zip(videos, rows, strict=True):
            on_frame = _watcher(row if slice_ is not None else None, progress.add)
            reports.append(measured(video, names, tools, prompt=prompt, grid=grid, on_frame=on_frame))
    for name, why in {name: why for report in reports for name, why in report.left_out.items()}.items():
        show.note(f"note: {name} is skipped: it {why}")
    for report in reports:
        for note in _notes(report.video):
            show.note(f"note: {report.video.name}: {note}")
    _draw(reports, rows, curves, slice_)
    if not (screen.json and screen.quiet):
        print_table(reports, to_stderr=screen.json)
    if screen.json:
        show.result("", as_json(reports, curves, slice_))


def _notes(video: Path) -> list[str]:
    """Return notes on what reading changed or lost, e.g. damaged frames."""
    from ..video.look import look

    return list(look(video).notes)


def _names(metrics: str | None) -> list[str] | None:
    """Split the list of metrics; None means all. RequestError for an unknown name."""
    names = [name.strip() for name in metrics.split(",")] if metrics is not None else None
    for name in names or ():
        if name not in NAMES:
            raise RequestError("metrics", name, f"no such metric; there are {','.join(NAMES)}")
    return names


def _check_used(names: list[str] | None, given: dict[str, object]) -> None:
    """Raise RequestError for an option that no chosen metric uses."""
    for name, users in (
        ("prompt", {"text"}),
        ("clip", SEEING),
        ("flow_size", FLOWING),
        ("curves", WITH_CURVES),
    ):
        if names is not None and given[name] is not None and not users & set(names):
            some = ",".join(n for n in NAMES if n in users)
            fix = f"--{name.replace('_', '-')} has no effect with these; leave it out, or add one of {some}"
            raise RequestError("metrics", ",".join(names), fix)


def _check_videos(videos: list[Path]) -> int | None:
    """Return the total number of frames, None if unknown. RequestError for a path that is no video."""
    from ..metrics.seams import video_of
    from ..video.reader import probe_video

    counts: list[int | None] = []
    for video in videos:
        try:
            counts.append(probe_video(video_of(video)).frames)
        except MediaError as error:
            raise RequestError("video", str(video), str(error).removeprefix(f"{video}: ")) from error
        except OSError as error:  # e.g. a name that is too long
            raise RequestError("video", str(video), error.strerror or str(error)) from error
    return sum(filter(None, counts)) if all(counts) else None


def _grid(chunk: int | None, overlap: int | None) -> Grid | None:
    from ..metrics.seams import Grid

    if chunk is None and overlap is None:
        return None
    if chunk is None or overlap is None:
        missing, given = ("chunk", "overlap") if chunk is None else ("overlap", "chunk")
        raise RequestError(missing, None, f"give it together with --{given}, e.g. --chunk 16 --overlap 8")
    return Grid(chunk, overlap)


def _watcher(rows: MiddleRows | None, count: Callable[[int], None]) -> Callable[[Frame], None]:
    def see(frame: Frame) -> None:
        count(1)
        if rows is not None:
            rows.add(frame)

    return see


def _draw(reports: list[Report], rows: list[MiddleRows], curves: Path | None, slice_: Path | None) -> None:
    from ..metrics.chart import Track, draw_curves, draw_slices

    if curves is not None:
        draw_curves([Track(r.video.stem, r.result.curves, borders=r.borders) for r in reports], curves)
    if slice_ is not None:
        tracks = [
            Track(r.video.stem, row_TWC=row.row_TWC, borders=r.borders, frames=r.frames)
            for r, row in zip(reports, rows, strict=True)
        ]
        draw_slices(tracks, slice_)


def means(reports: list[Report]) -> dict[str, float]:
    """Return the mean of every value over the videos where it is finite; NaN if it is nowhere."""
    names = dict.fromkeys(name for report in reports for name in report.result.values)
    found = {
        name: [v for r in reports if math.isfinite(v := r.result.values.get(name, math.nan))]
        for name in names
    }
    return {name: sum(values) / len(values) if values else math.nan for name, values in found.items()}


def print_table(reports: list[Report], to_stderr: bool) -> None:
    """Print one row per value, one column per video and their mean."""
    from rich.console import Console

    console = Console(stderr=to_stderr, markup=False, emoji=False)  # file names may hold markup
    arrows = PLAIN_ARROWS if console.options.ascii_only else ARROWS
    for first in range(0, len(reports), COLUMNS):
        some = reports[first : first + COLUMNS]
        columns = {f"{printable(r.video.stem)}\n{r.frames} frames": r.result.values for r in some}
        if len(reports) > 1 and first + COLUMNS >= len(reports):
            columns[f"mean\nof {len(reports)}"] = means(reports)
        console.print(_table(columns, arrows))
    console.print(
        "; ".join(f"{what}: {name}" for what, name in reports[0].measured_with.items()), style="dim"
    )


def _table(columns: dict[str, dict[str, float]], arrows: dict[str | None, str]) -> Any:
    from rich import box
    from rich.table import Table

    from ..metrics.suite import VALUES

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("better")
    for name in columns:
        table.add_column(name, justify="right")
    for name in dict.fromkeys(name for values in columns.values() for name in values):
        value = VALUES[name]
        if isinstance(value.better, float):
            better = f"{arrows['towards']} {value.better:g}"
        else:
            better = arrows[value.better]
        table.add_row(
            name, better, *(f"{values.get(name, math.nan):.{value.digits}f}" for values in columns.values())
        )
    return table


def as_json(reports: list[Report], curves: Path | None, slice_: Path | None) -> dict[str, Any]:
    """Return the result for `--json`; undefined and infinite values are null."""
    videos = [
        {
            "video": str(r.video),
            "frames": r.frames,
            "values": _finite(r.result.values),
            "events": r.result.events,
            "left_out": r.left_out,
            "notes": _notes(r.video),
        }
        for r in reports
    ]
    files = {"curves": str(curves) if curves else None, "slice": str(slice_) if slice_ else None}
    told = {"means": _finite(means(reports)), "measured_with": reports[0].measured_with}
    return {"videos": videos, **told, **files}


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: round(value, 6) if math.isfinite(value) else None for name, value in values.items()}
