"""`generate`, `extend`, `refine`, `resume`: a request in, a video file out."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from ..config import Request
from ..config.schedule import Schedule, read_schedule
from ..errors import RequestError, RunError
from ..resolve import ResolvedRequest, resolve_for, with_media
from ..runs.quiet import hide_progress_bars
from ..video.rates import rate_as_number
from .memory import is_out_of_memory, ways_out
from .options import (
    MOST_WORKERS,
    ModelOptions,
    OutputOptions,
    RefineOptions,
    RequestOptions,
    ScreenOptions,
    build_request,
    long_names,
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

BASE_HELP = (
    "What makes the first chunk: any diffusers pipeline that makes videos, by name, id of the hub, or folder."
)
Prompt = Annotated[str, Argument(metavar="PROMPT", help="What is to be seen.")]
Workers = Annotated[
    int,
    Option(
        help="Processes that refine side by side, with the bytes of one; more than 1: extra 'ray'.",
        max=MOST_WORKERS,
    ),
]
RunDir = Annotated[
    Path | None,
    Option(help="Folder for the run, kept afterwards; default: OUT.run, removed when OUT.mp4 is there."),
]


@takes_options
def generate(
    prompt: Prompt,
    *,
    image: Annotated[Path | None, Option(help="A picture to start from.")] = None,
    base: Annotated[str | None, Option(help=BASE_HELP)] = None,
    request: RequestOptions,
    model: ModelOptions,
    output: OutputOptions,
    run_dir: RunDir = None,
    yes: Yes = False,
    screen: ScreenOptions,
) -> None:
    """Make a long video from a prompt, or from a prompt and a picture."""
    began = time.monotonic()
    wanted = build_request(prompt, request, _schedule(request), image=_text(image), base=base)
    _make(wanted, model, output, run_dir, screen, began, yes=yes)


@takes_options
def extend(
    video: Annotated[Path, Argument(metavar="VIDEO", help="Any video file.")],
    prompt: Prompt,
    *,
    request: RequestOptions,
    model: ModelOptions,
    output: OutputOptions,
    run_dir: RunDir = None,
    yes: Yes = False,
    screen: ScreenOptions,
) -> None:
    """Continue any video by new frames.

    The output is the frames of VIDEO followed by --frames new ones. All have the size that the model makes: the frames of VIDEO are
    scaled to fill it, and what hangs over is cut off evenly at both sides. They play at the rate of VIDEO, or at --fps.
    """
    began = time.monotonic()
    wanted = build_request(prompt, request, _schedule(request), video=_text(video))
    _make(wanted, model, output, run_dir, screen, began, yes=yes)


@takes_options
def refine(
    video: Annotated[Path, Argument(metavar="VIDEO", help="Any video file.")],
    prompt: Prompt,
    *,
    request: RefineOptions,
    model: ModelOptions,
    output: OutputOptions,
    run_dir: RunDir = None,
    workers: Workers = 1,
    yes: Yes = False,
    screen: ScreenOptions,
) -> None:
    """Refine any video of any length by stage 3 alone.

    The output has as many frames as VIDEO, or --frames, at its rate. All have the size that the model refines to: the frames of VIDEO are
    scaled to fill it, and what hangs over is cut off evenly at both sides. Frames go from file to file, so memory does not grow
    with the length.
    """
    began = time.monotonic()
    wanted = Request(
        prompt=prompt, refine=str(video), preset="full", **long_names(dataclasses.asdict(request))
    ).validate()
    _make(wanted, model, output, run_dir, screen, began, workers, yes)


@takes_options
def resume(
    run_dir: Annotated[Path, Argument(metavar="RUN_DIR", help="The folder of an interrupted run.")],
    output: OutputOptions,
    screen: ScreenOptions,
    workers: Workers = 1,
) -> None:
    """Go on with an interrupted run, bit for bit the same.

    Without --output the video goes where the run was told to put it.
    """
    began = time.monotonic()
    check_files(output)
    show = Screen(screen.quiet, screen.json)
    with _open(run_dir) as run:
        places = places_of_run(run, output)
        for name, (then, now) in run.changed_versions().items():
            show.note(
                f"note: the run began with {name} {then}, this is {now}: the frames to come may differ in detail"
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
    """The new run of a checked request, from its door checks to its result."""
    places = choose_places(output, run_dir)
    show = Screen(screen.quiet, screen.json)
    model = settle(model, show, wanted.base, fetch=wanted.preset, yes=yes)
    asked = resolve_for(model.model, wanted)
    if asked.extend_by is not None and asked.extend_by.how is not None:
        from ..external.as_model import told  # imports torch

        show.note(
            f"{asked.config.name} goes on by {asked.extend_by.how}: {told(asked.extend_by.how)}; --continue-by chooses another way"
        )
    model = settle_offload(model, asked, show)
    model.savings.check(model.device, asked.config, model.dtype)
    _check_workers(workers, asked)
    asked = with_media(asked)
    _check_disk(asked, places)
    for note in check_base(asked, model.model):
        show.note(note)
    try:
        pipe = _load(model, asked, show)
    except Exception as error:
        if is_out_of_memory(error):
            raise Stopped(
                f"out of memory: {ways_out(model.device, model.dtype, model.savings, asked.request, asked.config)}",
                1,
            ) from error
        raise
    from ..runs.render import create_run  # here and below: what imports torch is imported when it is needed

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
    """Render what the run lacks, write the pictures, remove the run folder if it is a temporary one, and tell the result."""
    from ..runs.render import render

    for note in run.header.notes:
        show.note(f"note: {note}")
    before = time.monotonic() - began
    try:
        with show.progress(run.request.num_frames, run.frames_committed) as progress:
            summary = render(
                pipe,
                run,
                asked,
                places.output,
                on_chunk=lambda chunk: progress.add(len(chunk.frames_THWC)),
                workers=workers,
            )
        _write_pictures(summary.output, files)
    except (Exception, KeyboardInterrupt) as error:
        raise _stopped(error, run, places, files, pipe) from error
    if places.temporary:
        run.discard()
    values = _result(run, summary, places, before)
    show.note(
        f"{summary.frames} frames of {run.width}x{run.height} at {values['fps']} fps in {values['seconds']:.1f} s"
    )
    show.result(str(summary.output), values)


def _result(run: RunFolder, summary: Summary, places: Places, before: float) -> dict[str, Any]:
    """The JSON of the contract. `before`: seconds from the start of the command to the start of rendering."""
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
    """The most memory this process has had at once, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's figure on Linux also counts the parent's memory before exec
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return round(int(line.split()[1]) / 1024, 1)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)  # bytes on macOS


def _load(model: ModelOptions, asked: ResolvedRequest, show: Screen) -> LongVideoPipeline:
    show.note(f"loading model {model.model}")
    if model.engine != "torch":
        show.note(
            f"{model.engine} prepares the networks as they are first needed, which takes its time, and less in the next process"
        )
    hide_progress_bars()
    from ..runs.render import load_pipeline

    return load_pipeline(model.model, model.device, model.dtype, model.savings, asked.refine is not None)


def _reload(run: RunFolder, run_dir: Path, show: Screen) -> tuple[LongVideoPipeline, ResolvedRequest]:
    show.note(f"loading model {run.model}")
    hide_progress_bars()
    from ..runs.render import reload_pipeline

    try:
        return reload_pipeline(run)
    except RunError as error:
        raise _wrong_run(run_dir, str(error).removeprefix(f"{run.path}: ")) from error


def _open(run_dir: Path) -> RunFolder:
    if not os.path.isdir(run_dir):  # noqa: PTH112 (Path raises for a name that is too long)
        raise _wrong_run(
            run_dir, "no such folder; give the --run-dir of the run, or the OUT.run beside its OUT.mp4"
        )
    from ..runs.run import RunFolder

    try:
        return RunFolder.open(run_dir)
    except RunError as error:
        raise _wrong_run(run_dir, str(error).removeprefix(f"{run_dir.absolute()}: ")) from error


def _wrong_run(run_dir: Path, fix: str) -> Stopped:
    return Stopped(
        f"RUN_DIR {str(run_dir)!r}: {fix}",
        2,
        details={"argument": "run_dir", "value": str(run_dir), "fix": fix},
    )


def _stopped(
    error: BaseException, run: RunFolder, places: Places, files: OutputOptions, pipe: LongVideoPipeline | None
) -> Stopped:
    """The error with the way to go on; a temporary folder of this command, in which nothing is safe yet, is removed instead."""
    stopped = describe(error)
    if is_out_of_memory(error) and pipe is not None:
        header = run.header
        less = ways_out(header.device, header.dtype, header.savings, run.request, pipe.config)
        how = f"end other programs and go on, or begin anew: {less}" if run.frames_committed else less
        stopped = Stopped(f"out of memory: {how}", 1)
    if run.frames_committed or run.source_frames or not (places.new and places.temporary):
        return Stopped(str(stopped), stopped.exit_code, _resume_line(run, files), stopped.details)
    with suppress(RunError):  # the error that ended the command is the one to tell
        run.discard()
    return Stopped(f"{stopped} (nothing was written)", stopped.exit_code, details=stopped.details)


def _resume_line(run: RunFolder, files: OutputOptions) -> str:
    """The command that goes on with the run and writes the same files."""
    options = [("--output", files.output if files.output and files.output.absolute() != run.output else None)]
    options += [("--xt-slice", files.xt_slice), ("--contact-sheet", files.contact_sheet)]
    words = [
        "streamingt2v",
        "resume",
        str(run.path),
        *(w for name, path in options if path for w in (name, str(path.absolute()))),
    ]
    return shlex.join([*words, "--overwrite"] if files.overwrite and len(words) > 3 else words)


def _check_workers(workers: int, asked: ResolvedRequest) -> None:
    if workers != 1:  # what checks them imports torch
        from ..runs.render import check_workers

        check_workers(workers, asked)


def _check_disk(asked: ResolvedRequest, places: Places) -> None:
    """RequestError for a video that the disk cannot hold, even if it shows hardly any motion: a tenth of what `plan` reckons with."""
    from ..checkpoints.hub import readable
    from ..estimate.plan import output_bytes

    need, there = (
        output_bytes(asked) // 10,
        next(f for f in (places.run_folder, *places.run_folder.parents) if f.exists()),
    )
    free = shutil.disk_usage(there).free
    if need > free:
        fix = f"needs at least {readable(need)} on the disk, where {readable(free)} are free; make fewer, or write to another disk"
        raise RequestError("num_frames", asked.num_frames, fix)


def _write_pictures(video: Path, files: OutputOptions) -> None:
    from ..video import images as pictures
    from ..video.reader import read_video

    for write, path in ((pictures.xt_slice, files.xt_slice), (pictures.contact_sheet, files.contact_sheet)):
        if path is not None:
            write(read_video(video), path)


def _schedule(options: RequestOptions) -> Schedule:
    return read_schedule(options.schedule) if options.schedule is not None else ()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
