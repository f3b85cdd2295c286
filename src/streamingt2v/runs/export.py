"""A request to a file that survives a kill, and the way on after one: what commands do, as two functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..config import Request
from ..errors import RequestError
from ..pipeline import LongVideoPipeline
from ..resolve import with_media
from ..stages.protocols import OnStep
from ..types import Chunk
from .render import Summary, create_run, reload_pipeline, render
from .run import RunFolder

OnChunk = Callable[[Chunk], None]


def export(
    pipe: LongVideoPipeline, request: Request, output: str | Path, run_dir: str | Path | None = None, *, overwrite: bool = False,
    on_chunk: OnChunk | None = None, on_step: OnStep | None = None,
) -> Summary:  # fmt: skip
    """Make a request's video as an MP4 file; every chunk is safe on the disk before the next is made.

    run_dir: folder of the run, kept afterwards; default: OUTPUT with the ending .run, removed when the file is there. After a kill
    `resume` goes on with it, to the same bytes. on_chunk: called with every new chunk once it is safe. on_step: called with
    (step, steps); raising in either stops the run, which can be resumed.

    RequestError for what the model cannot do, a file that is there, or a pipeline that was not loaded by a name or folder, which a
    resume could not load again; RunError if the run folder or the file cannot be written.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise RequestError(
            "output", str(output), "is there already; set overwrite=True, or take another name"
        )
    if pipe.name == "custom":
        raise RequestError(
            "pipe",
            pipe.name,
            "a run must be able to load it again; save it by save_pretrained and load it from there",
        )
    if request.num_frames is None and request.refine is None:
        raise RequestError("num_frames", None, "a file needs an end; use stream, or say how many")
    asked = with_media(pipe.resolve(request))
    folder = Path(run_dir) if run_dir is not None else output.with_suffix(".run")
    with create_run(
        pipe, asked, folder, pipe.name, output, temporary=run_dir is None, overwrite=overwrite
    ) as run:
        return _finished(run, render(pipe, run, asked, on_chunk=on_chunk, on_step=on_step))


def resume(
    run_dir: str | Path,
    output: str | Path | None = None,
    *,
    on_chunk: OnChunk | None = None,
    on_step: OnStep | None = None,
) -> Summary:
    """Go on with an interrupted run, to the bytes that it would have had. output: default, where the run was told to put its file.

    The model is loaded as the run began: on the same device, in the same dtype. RunError if the folder holds no run, another process
    writes it, its files are damaged, or the model's files have changed.
    """
    with RunFolder.open(run_dir) as run:
        pipe, asked = (None, None) if run.finished else reload_pipeline(run)
        target = None if output is None else Path(output)
        return _finished(run, render(pipe, run, asked, target, on_chunk=on_chunk, on_step=on_step))


def _finished(run: RunFolder, summary: Summary) -> Summary:
    """A temporary run goes once its file is there."""
    if run.header.temporary:
        run.discard()
    return summary
