"""`generate`, `extend`, `refine` and `resume`: write a video file."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from ..config import Request
from ..errors import RequestError, RunError
from ..resolve import ResolvedRequest, resolve_for, with_media
from ..runs.quiet import hide_progress_bars
from ..video.rates import rate_as_number
from .memory import is_out_of_memory, ways_out
from .options import (
    BASE_HELP,
    MOST_WORKERS,
    ModelOptions,
    OutputOptions,
    RefineOptions,
    RequestOptions,
    ScreenOptions,
    build_request,
    takes_options,
)
from .places import Places, check_files, choose_places, places_of_run
from .screen import Screen, Stopped, describe
from .settle import check_base, settle, settle_offload
from .weights import Yes

if TYPE_CHECKING:
    from ..pipeline import LongVideoPipeline
    from ..runs.render import Summary
    from ..runs.run import RunFolder

Prompt = Annotated[str, Argument(metavar="PROMPT", help="What the video shows.")]
Workers = Annotated[
    int,
    Option(
        help="Processes that refine in parallel, with the same result. More than 1 needs the extra 'ray'.",
        min=1,
        max=MOST_WORKERS,
    ),
]
RunDir = Annotated[
    Path | None,
    Option(help="Run folder to keep, for `resume`. Default: OUT.run, removed at the end."),
]


@takes_options
def generate(
    prompt: Prompt,
    *,
    output: OutputOptions,
    image: Annotated[Path | None, Option(help="Image to start from.")] = None,
    request: RequestOptions,
    model: ModelOptions,
    base: Annotated[str | None, Option(help=BASE_HELP)] = None,
    run_dir: RunDir = None,
    yes: Yes = False,
    screen: ScreenOptions,
) -> None:
    """Make a long video from a prompt, optionally starting from an image.

    Example: streamingt2v generate "A cat running on the street" --frames 240 -o cat.mp4
    """
    began = time.monotonic()
    wanted = build_request(prompt, request, image=str(image) if image else None, base=base)
    _make(wanted, model, output, run_dir, screen, began, yes=yes)


@takes_options
def extend(
    video: Annotated[Path, Argument(metavar="VIDEO", help="Any video file.")],
    prompt: Prompt,
    *,
    output: OutputOptions,
    request: RequestOptions,
    model: ModelOptions,
    run_dir: RunDir = None,
    yes: Yes = False,
    screen: ScreenOptions,
) -> None:
    """Continue a video with new frames.

    The output holds the frames of VIDEO, center-cropped to the model's size, followed by --frames new ones.
    It plays at the rate of VIDEO, or at --fps.

    Example: streamingt2v extend cat.mp4 "A cat on the beach" --frames 80 -o longer.mp4
    """
    began = time.monotonic()
    wanted = build_request(prompt, request, video=str(video))
    _make(wanted, model, output, run_dir, screen, began, yes=yes)


@takes_options
def refine(
    video: Annotated[Path, Argument(metavar="VIDEO", help="Any video file.")],
    prompt: Prompt,
    *,
    output: OutputOptions,
    request: RefineOptions,
    model: ModelOptions,
    run_dir: RunDir = None,
    workers: Workers = 1,
    yes: Yes = False,
    screen: ScreenOptions,
) -> None:
    """Refine a video of any length with stage 3.

    The output has the frames of VIDEO (or the first --frames), center-cropped to the refiner's size, at the
    same rate. Frames are streamed, so memory does not grow with the length.

    Example: streamingt2v refine cat.mp4 "A cat running on the street" -o sharp.mp4
    """
    began = time.monotonic()
    wanted = build_request(prompt, request, refine=str(video), preset="full")
    _make(wanted, model, output, run_dir, screen, began, workers, yes)


@takes_options
def resume(
    run_dir: Annotated[Path, Argument(metavar="RUN_DIR", help="Folder of the interrupted run.")],
    *,
    output: OutputOptions,
    workers: Workers = 1,
    screen: ScreenOptions,
) -> None:
    """Resume an interrupted run; the result is bit for bit the same.

    Without --output the video goes to the original output path.
    """
    began = time.monotonic()
    check_files(output)
    show = Screen(screen.quiet, screen.json)
    with _open(run_dir) as run:
        places = places_of_run(run, output)
        for name, (then, now) in run.changed_versions().items():
            show.note(
                f"note: {name} changed from {then} to {now} since the run began; frames may differ slightly"
            )
        pipe, asked = (None, None) if run.finished else _reload(run, run_dir, show)
        if asked is not None:
            _check_workers(workers, asked)
        _finish(pipe, run, asked, places, output, show, began, workers)


def _make(
    wanted: Request,
    model: ModelOptions,
    output: OutputOptions,
    run_dir: Path | None,
    screen: ScreenOptions,
    began: float,
    workers: int = 1,
    yes: bool = False,
) -> None:
    """Check a request, load its model, render it in a new run folder and print the result."""
    places = choose_places(output, run_dir)
    show = Screen(screen.quiet, screen.json)
    model = settle(model, show, wanted.base, fetch=wanted.preset, yes=yes)
    asked = with_media(resolve_for(model.model, wanted))
    if asked.extend_by is not None and asked.extend_by.how is not None:
        from ..external.as_model import told  # imports torch

        how = asked.extend_by.how
        show.note(f"{asked.config.name} continues by {how}: {told(how)}; see --continue-by")
    model = settle_offload(model, asked, show)
    model.savings.check(model.device, asked.config, model.dtype, asked.uses_pipelines)
    _check_workers(workers, asked)
    _check_disk(asked, places)
    for note in check_base(asked, model.model, wanted.base):
        show.note(note)
    try:
        pipe = _load(model, asked, show)
    except Exception as error:
        if is_out_of_memory(error):
            less = ways_out(model.device, model.dtype, model.savings, asked.request, asked.config)
            raise Stopped(f"out of memory: {less}", 1) from error
        raise
    from ..runs.render import create_run  # imports torch

    with create_run(
        pipe,
        asked,
        places.run_folder,
        model.model,
        output.output,
        device=model.device,
        dtype=model.dtype,
        savings=model.savings,
        temporary=places.temporary,
        overwrite=output.overwrite,
    ) as run:
        _finish(pipe, run, asked, places, output, show, began, workers)


def _finish(
    pipe: LongVideoPipeline | None,
    run: RunFolder,
    asked: ResolvedRequest | None,
    places: Places,
    files: OutputOptions,
    show: Screen,
    began: float,
    workers: int,
) -> None:
    """Render the missing frames, write the PNGs, remove a temporary run folder and print the result."""
    from ..runs.render import render

    for note in run.header.notes:
        show.note(f"note: {note}")
    before = time.monotonic() - began
    try:
        with show.progress(run.request.num_frames, run.frames_committed) as progress:
            add = progress.add
            summary = render(
                pipe, run, asked, places.output, lambda chunk: add(len(chunk.frames_THWC)), workers=workers
            )
        _write_images(summary.output, files)
    except (Exception, KeyboardInterrupt) as error:
        raise _stopped(error, run, places, files, pipe) from error
    if places.temporary:
        run.discard()
    values = _result(run, summary, places, before)
    size = f"{run.width}x{run.height} at {values['fps']} fps"
    show.note(f"{summary.frames} frames of {size} in {values['seconds']:.1f} s")
    show.result(str(summary.output), values)


def _result(run: RunFolder, summary: Summary, places: Places, before: float) -> dict[str, Any]:
    """Return the values for `--json`. before: seconds from the start of the command to rendering."""
    first = summary.first_frame_seconds
    return {
        "output": str(summary.output),
        "frames": summary.frames,
        "fps": rate_as_number(run.fps),
        "width": run.width,
        "height": run.height,
        "seed": run.request.seed,
        "model": run.model,
        "preset": run.request.preset,
        "seconds": round(before + summary.seconds, 3),
        "first_frame_seconds": None if first is None else round(before + first, 3),
        "new_frames_per_second": round(summary.new_frames / summary.seconds, 3),
        "peak_rss_mb": peak_rss_mb(),
        "run_dir": None if places.temporary else str(places.run_folder),
        "notes": list(run.header.notes),
    }


def peak_rss_mb() -> float:
    """Return the peak memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux getrusage includes the parent's memory before exec
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return round(int(line.split()[1]) / 1024, 1)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)  # bytes on macOS


def _load(model: ModelOptions, asked: ResolvedRequest, show: Screen) -> LongVideoPipeline:
    show.note(f"loading model {model.model}")
    if model.engine != "torch":
        show.note(f"{model.engine} compiles each network on first use; later runs start faster")
    hide_progress_bars(warnings=not show.quiet)
    from ..runs.render import load_pipeline

    return load_pipeline(model.model, model.device, model.dtype, model.savings, asked.refine is not None)


def _reload(run: RunFolder, run_dir: Path, show: Screen) -> tuple[LongVideoPipeline, ResolvedRequest]:
    show.note(f"loading model {run.model}")
    hide_progress_bars(warnings=not show.quiet)
    from ..runs.render import reload_pipeline

    try:
        return reload_pipeline(run)
    except RunError as error:
        raise _wrong_run(run_dir, str(error).removeprefix(f"{run.path}: ")) from error


def _open(run_dir: Path) -> RunFolder:
    if not os.path.isdir(run_dir):  # noqa: PTH112 (Path raises for a name that is too long)
        raise _wrong_run(run_dir, "no such folder; give the --run-dir of the run, or OUT.run next to OUT.mp4")
    from ..runs.run import RunFolder

    try:
        return RunFolder.open(run_dir)
    except RunError as error:
        raise _wrong_run(run_dir, str(error).removeprefix(f"{run_dir.absolute()}: ")) from error


def _wrong_run(run_dir: Path, fix: str) -> Stopped:
    details = {"argument": "run_dir", "value": str(run_dir), "fix": fix}
    return Stopped(f"RUN_DIR {str(run_dir)!r}: {fix}", 2, details=details)


def _stopped(
    error: BaseException, run: RunFolder, places: Places, files: OutputOptions, pipe: LongVideoPipeline | None
) -> Stopped:
    """Return the error with the command that resumes the run; remove a temporary folder without frames."""
    stopped = describe(error)
    if is_out_of_memory(error) and pipe is not None:
        header = run.header
        less = ways_out(header.device, header.dtype, header.savings, run.request, pipe.config)
        how = f"close other programs and resume, or start over: {less}" if run.frames_committed else less
        stopped = Stopped(f"out of memory: {how}", 1)
    if run.frames_committed or run.source_frames or not (places.new and places.temporary):
        return Stopped(str(stopped), stopped.exit_code, _resume_line(run, files), stopped.details)
    with suppress(RunError):  # report the error that ended the command
        run.discard()
    return Stopped(f"{stopped} (nothing was written)", stopped.exit_code, details=stopped.details)


def _resume_line(run: RunFolder, files: OutputOptions) -> str:
    """Return the command that resumes the run and writes the same files."""
    options = [("--output", files.output if files.output and files.output.absolute() != run.output else None)]
    options += [("--xt-slice", files.xt_slice), ("--contact-sheet", files.contact_sheet)]
    words = ["streamingt2v", "resume", str(run.path)]
    words += [word for name, path in options if path for word in (name, str(path.absolute()))]
    return shlex.join([*words, "--overwrite"] if files.overwrite and len(words) > 3 else words)


def _check_workers(workers: int, asked: ResolvedRequest) -> None:
    if workers != 1:  # the check imports torch
        from ..runs.render import check_workers

        check_workers(workers, asked)


def _check_disk(asked: ResolvedRequest, places: Places) -> None:
    """Raise RequestError if not even a tenth of the video's estimated size fits on the disk."""
    from ..checkpoints.hub import readable
    from ..estimate.plan import output_bytes

    need = output_bytes(asked) // 10  # a video with hardly any motion
    folder = next(f for f in (places.run_folder, *places.run_folder.parents) if f.exists())
    free = shutil.disk_usage(folder).free
    if need > free:
        fix = (
            f"need at least {readable(need)} of disk; {readable(free)} are free; choose fewer or another disk"
        )
        raise RequestError("num_frames", asked.num_frames, fix)


def _write_images(video: Path, files: OutputOptions) -> None:
    from ..video import images
    from ..video.reader import read_video

    for write, path in ((images.xt_slice, files.xt_slice), (images.contact_sheet, files.contact_sheet)):
        if path is not None:
            write(read_video(video), path)
