"""Export a request to a file, and resume it after an interruption."""

from collections.abc import Callable
from pathlib import Path

from ..config import Request
from ..errors import RequestError
from ..pipeline import LongVideoPipeline
from ..resolve import with_media
from ..stages.protocols import OnStageStep
from ..types import Chunk
from .render import Summary, create_run, reload_pipeline, render
from .run import RunFolder

OnChunk = Callable[[Chunk], None]


def export(
    pipe: LongVideoPipeline,
    request: Request,
    output: str | Path,
    run_dir: str | Path | None = None,
    *,
    overwrite: bool = False,
    on_chunk: OnChunk | None = None,
    on_step: OnStageStep | None = None,
) -> Summary:
    """Make a request's video as an MP4; every chunk is saved before the next one is made.

    run_dir: the run's folder, kept afterwards; default: OUTPUT with the suffix .run, deleted at the end.
    After a kill, `resume` it for the same bytes. on_chunk: called with every chunk once it is saved. on_step:
    called with (step, steps, stage). An exception in either stops the run, which can be resumed.

    RequestError for what the model cannot do, an existing file, or a pipeline that was not loaded by name or
    folder (`resume` could not load it again); RunError if run folder or file cannot be written.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise RequestError("output", str(output), "exists; set overwrite=True, or take another name")
    if pipe.name == "custom":
        fix = "a run must be able to load it again; save it by save_pretrained and load it from there"
        raise RequestError("pipe", pipe.name, fix)
    if request.num_frames is None and request.refine is None:
        raise RequestError("num_frames", None, "a file needs an end; use stream, or say how many")
    asked = with_media(pipe.resolve(request))
    folder = Path(run_dir) if run_dir is not None else output.with_suffix(".run")
    temporary = run_dir is None
    with create_run(pipe, asked, folder, pipe.name, output, temporary=temporary, overwrite=overwrite) as run:
        return _finished(run, render(pipe, run, asked, on_chunk=on_chunk, on_step=on_step))


def resume(
    run_dir: str | Path,
    output: str | Path | None = None,
    *,
    on_chunk: OnChunk | None = None,
    on_step: OnStageStep | None = None,
) -> Summary:
    """Finish an interrupted run, to the bytes that it would have had. output: default, the run's own.

    The model is loaded on the device and in the dtype that the run began with. RunError if the folder holds
    no run, another process writes it, its files are damaged, or the model's files have changed.
    """
    with RunFolder.open(run_dir) as run:
        pipe, asked = (None, None) if run.finished else reload_pipeline(run)
        target = None if output is None else Path(output)
        return _finished(run, render(pipe, run, asked, target, on_chunk=on_chunk, on_step=on_step))


def _finished(run: RunFolder, summary: Summary) -> Summary:
    """Delete a temporary run whose file is written."""
    if run.header.temporary:
        run.discard()
    return summary
