"""`evaluate`: long-video metrics of any video files, as a table, as JSON, and as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from ..errors import MediaError, RequestError
from .options import ScreenOptions, takes_options
from .places import check_each
from .screen import Screen

if TYPE_CHECKING:
    from ..metrics.chart import MiddleRows
    from ..metrics.seams import Grid
    from ..metrics.suite import Report
    from ..video.reader import Frame

NAMES = (
    "mawe",
    "warp",
    "flow",
    "stagnation",
    "seam",
    "cuts",
    "anchor",
    "text",
    "drift",
    "colour",
    "flicker",
    "sharpness",
    "repetition",
)
FLOWING, SEEING = {"mawe", "warp", "flow", "stagnation"}, {"anchor", "text"}
WITH_CURVES = {"warp", "flow", "seam", "anchor", "text", "colour", "flicker", "sharpness"}
COLUMNS = 5  # videos beside each other in a table
ARROWS = {"higher": "↑", "lower": "↓", None: "", "towards": "→"}
PLAIN_ARROWS = {"higher": "^", "lower": "v", None: "", "towards": "->"}
"""For terminals without the others."""


@takes_options
def evaluate(
    videos: Annotated[
        list[Path], Argument(metavar="VIDEO", help="Video files, or folders of finished runs.")
    ],
    *,
    prompt: Annotated[str | None, Option(help="Text prompt; default: the file's own.")] = None,
    metrics: Annotated[
        str | None, Option(help=f"Some of {','.join(NAMES)}; default: all that the video allows.")
    ] = None,
    chunk: Annotated[
        int | None,
        Option(help="Frames of a chunk, to know the seams; default: the file's own.", max=2**31 - 1),
    ] = None,
    overlap: Annotated[
        int | None, Option(help="Frames that a chunk shares with the one before; goes with --chunk.")
    ] = None,
    clip: Annotated[
        str | None,
        Option(
            help="A whole CLIP to see with: its folder, or its name if downloaded; default: the image encoder of tiny."
        ),
    ] = None,
    flow_size: Annotated[
        int | None, Option(help="Measure motion on frames of this side; default: as they are.", max=8192)
    ] = None,
    curves: Annotated[Path | None, Option(help="Also write a PNG of curves over time, seams marked.")] = None,
    slice_: Annotated[
        Path | None,
        Option("--slice", help="Also write a PNG of the middle row of every frame, time to the right."),
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace files that exist.")] = False,
    screen: ScreenOptions,
) -> None:
    """Measure long videos: seams, motion, drift, likeness.

    Each video is read once, whatever its length. What the numbers mean, and what they cannot see, is in docs/evaluation.md.
    """
    from ..metrics.chart import MiddleRows, check_installed

    names = _names(metrics)
    _check_used(names, {"prompt": prompt, "clip": clip, "flow_size": flow_size, "curves": curves})
    check_each({"curves": (curves, ".png"), "slice": (slice_, ".png")}, overwrite)
    for name, path in (("curves", curves), ("slice", slice_)):
        if path is not None:
            check_installed(name)
    grid, total = _grid(chunk, overlap), _check_videos(videos)
    show = Screen(screen.quiet, screen.json)
    from ..metrics.seams import video_of
    from ..metrics.suite import METRICS, make_metrics, make_tools, setting_of, what_is_not_installed
    from ..metrics.suite import evaluate as measured

    _silence_bars()
    tools = make_tools(
        [n for n in names or METRICS if names or what_is_not_installed(n) is None], clip, flow_size
    )
    for video in videos if names else ():  # so that the last one's fault is not told after an hour
        make_metrics(names or (), setting_of(video_of(video), tools, prompt, grid))
    reports: list[Report] = []
    rows = [MiddleRows() for _ in videos]
    with show.progress(total, 0) as progress:
        for video, row in zip(videos, rows, strict=True):
            on_frame = _watcher(row if slice_ is not None else None, progress.add)
            reports.append(measured(video, names, tools, prompt=prompt, grid=grid, on_frame=on_frame))
    for name, why in {name: why for report in reports for name, why in report.left_out.items()}.items():
        show.note(f"note: {name} is left out: it {why}")
    for report in reports:
        for note in _notes(report.video):
            show.note(f"note: {report.video.name}: {note}")
    _draw(reports, rows, curves, slice_)
    if not (screen.json and screen.quiet):
        print_table(reports, to_stderr=screen.json)
    if screen.json:
        show.result("", as_json(reports, curves, slice_))


def _notes(video: Path) -> list[str]:
    """What of a video is measured otherwise than it is stored, or lost."""
    from ..video.look import look

    return list(look(video).notes)


def _names(metrics: str | None) -> list[str] | None:
    """The metrics asked for; RequestError for one that is none. None for all."""
    names = [name.strip() for name in metrics.split(",")] if metrics is not None else None
    for name in names or ():
        if name not in NAMES:
            raise RequestError("metrics", name, f"no such metric; there are {','.join(NAMES)}")
    return names


def _check_used(names: list[str] | None, given: dict[str, object]) -> None:
    """RequestError for an option that none of the named metrics has a use for."""
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
    """How many frames there are in all, None if a file does not say. RequestError for a path that is no video."""
    from ..metrics.seams import video_of
    from ..video.reader import probe_video

    counts: list[int | None] = []
    for video in videos:
        try:
            counts.append(probe_video(video_of(video)).frames)
        except MediaError as error:
            raise RequestError("video", str(video), str(error).removeprefix(f"{video}: ")) from error
        except OSError as error:  # a name that is too long
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


def _silence_bars() -> None:
    import transformers

    transformers.utils.logging.disable_progress_bar()


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
        pairs = zip(reports, rows, strict=True)
        draw_slices([Track(r.video.stem, row_TWC=row.row_TWC, borders=r.borders) for r, row in pairs], slice_)


def means(reports: list[Report]) -> dict[str, float]:
    """Of every value over the videos that have it as a finite number; NaN if none has."""
    names = dict.fromkeys(name for report in reports for name in report.result.values)
    found = {
        name: [v for r in reports if math.isfinite(v := r.result.values.get(name, math.nan))]
        for name in names
    }
    return {name: sum(values) / len(values) if values else math.nan for name, values in found.items()}


def print_table(reports: list[Report], to_stderr: bool) -> None:
    """Values down, videos to the right, their mean at the end; on stdout, or on stderr where that is kept for JSON."""
    from rich.console import Console

    console = Console(
        stderr=to_stderr, markup=False, emoji=False
    )  # file names are names, whatever is in them
    arrows = PLAIN_ARROWS if console.options.ascii_only else ARROWS
    for first in range(0, len(reports), COLUMNS):
        some = reports[first : first + COLUMNS]
        columns = {f"{r.video.stem}\n{r.frames} frames": r.result.values for r in some}
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
        better = (
            f"{arrows['towards']} {value.better:g}"
            if isinstance(value.better, float)
            else arrows[value.better]
        )
        table.add_row(
            name, better, *(f"{values.get(name, math.nan):.{value.digits}f}" for values in columns.values())
        )
    return table


def as_json(reports: list[Report], curves: Path | None, slice_: Path | None) -> dict[str, Any]:
    """The result for programs; null stands for what is not defined and for what is infinite."""
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
    return {
        "videos": videos,
        "means": _finite(means(reports)),
        "measured_with": reports[0].measured_with,
        **files,
    }


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: round(value, 6) if math.isfinite(value) else None for name, value in values.items()}
