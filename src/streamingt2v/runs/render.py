"""Render a request to a file: pass a pipeline's chunks to a run folder. Both CLI and server call this module.

New and resumed runs take the same path: the extended video's frames, then the chunks, each committed as it
comes, then the finished file. What is committed already is not made again.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.find import find_model
from ..checkpoints.fingerprint import fingerprint
from ..checkpoints.load import best_device, load_refiner
from ..config import EMBEDDED, Request
from ..config.runtime import PLAIN, Savings
from ..errors import ModelError, RequestError, RunError
from ..pipeline import LongVideoPipeline
from ..ray_backend import Pool, check_ray
from ..resolve import ResolvedRequest, resolve_for
from ..stages.protocols import OnStageStep, PromptAt
from ..texts import shortened
from ..types import Chunk, State
from ..video.reader import read_video
from .machine import choose_threads
from .media import plan_media
from .prompts import Change
from .run import RunFolder

MOST_NOTES = 8
"""Most unknown words that get a note of their own."""

NewPrompt = Callable[[int], tuple[int, str] | None]
"""Number of the last prompt change taken up (0: none) -> the newest later one as (number, prompt), if any."""


@dataclass(frozen=True)
class Summary:
    """Result of a call of `render`.

    frames: in the file, with those of the extended video. new_frames, seconds: of this call.
    first_frame_seconds: until the first new chunk could be watched, None if no chunk was left to make.
    """

    output: Path
    frames: int
    new_frames: int
    seconds: float
    first_frame_seconds: float | None


def load_pipeline(
    model: str, device: str, dtype: str, savings: Savings = PLAIN, refiner: bool = True
) -> LongVideoPipeline:
    """Load a model by name or folder. device, dtype: as users write them ("cuda:1", "float32").

    refiner: see `from_pretrained`. RequestError, before weights are read, for an unknown model, a missing
    device, or savings that the device does not support.
    """
    best_device(device)
    try:
        find_model(model)
    except ModelError as error:
        raise RequestError("model", model, str(error)) from error
    return LongVideoPipeline.from_pretrained(
        model, device=device, dtype=getattr(torch, dtype), savings=savings, refiner=refiner
    )


def create_run(
    pipe: LongVideoPipeline,
    asked: ResolvedRequest,
    folder: Path,
    model: str,
    output: Path | None = None,
    metadata: Mapping[str, Any] | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    savings: Savings | None = None,
    temporary: bool = False,
    overwrite: bool = False,
) -> RunFolder:
    """Create a run folder for a resolved request. For the frame rate see `plan_media`.

    model: name or folder that the pipeline was loaded from. device, dtype, savings: as users write them;
    None: the pipeline's. temporary, overwrite: see `Header`. RunError if `folder` cannot be used.
    """
    media = plan_media(asked.request, asked.config)
    if torch.device(device or pipe.components.device).type == "cpu":
        choose_threads()
    return RunFolder.create(
        folder,
        asked.request,
        model=lasting_name(model),
        fps=media.fps,
        height=asked.output_height,
        width=asked.output_width,
        output=output,
        metadata=_grid(asked) | dict(metadata or {}),
        device=device if device is not None else str(pipe.components.device),
        dtype=dtype if dtype is not None else str(pipe.components.dtype).removeprefix("torch."),
        weights=_weights(model, asked, pipe.components.savings),
        sound=media.sound,
        keeps_times=media.keeps_times,
        notes=[*prompt_notes(pipe, asked.request), *media.notes],
        temporary=temporary,
        overwrite=overwrite,
        savings=savings if savings is not None else pipe.components.savings,
    )


def _grid(asked: ResolvedRequest) -> dict[str, int]:
    """Return the metadata by which `evaluate` finds the chunks' seams; none for a video made elsewhere."""
    if asked.start == "file":
        return {}
    return {"chunk": asked.factor * asked.extend.frames, "overlap": asked.factor * asked.extend.overlap}


def reload_pipeline(run: RunFolder) -> tuple[LongVideoPipeline, ResolvedRequest]:
    """Load an opened run's pipeline; return it with the resolved request. See `resolve_run`."""
    asked, header = resolve_run(run), run.header
    refines = asked.refine is not None
    return load_pipeline(run.model, header.device, header.dtype, header.savings, refines), asked


def reopened(folder: Path) -> tuple[RunFolder, ResolvedRequest]:
    """Open a run's folder; return it with the resolved request. RunError as of `open` and `resolve_run`."""
    run = RunFolder.open(folder)
    try:
        return run, resolve_run(run)
    except BaseException:
        run.close()
        raise


def resolve_run(run: RunFolder) -> ResolvedRequest:
    """Resolve an opened run's request. RunError if its model is gone, or its files have changed."""
    try:
        asked = resolve_for(run.model, run.request)
        now = _weights(run.model, asked, run.header.savings)
    except (ModelError, RequestError) as error:
        raise RunError(f"{run.path}: its model cannot be loaded: {error}") from error
    if run.header.weights not in (None, now):
        files = f"the files of its model {run.model!r}"
        raise RunError(f"{run.path}: {files} are not those that the run began with; put those back")
    return asked


def check_workers(workers: int, asked: ResolvedRequest) -> None:
    """Raise RequestError unless so many processes can share a run's work, with the bytes of one."""
    if workers < 1:
        raise RequestError("workers", workers, "must be 1 or more")
    if workers == 1:
        return
    if asked.refine is None:
        raise RequestError("workers", workers, "workers share refining, and this run has none; leave it out")
    if (batch := asked.refine.batch) > 1:
        fix = f"model {asked.config.name!r} predicts {batch} windows a call; set refine.batch to 1"
        raise RequestError("workers", workers, fix)
    check_ray()


def prompt_notes(pipe: LongVideoPipeline, request: Request) -> list[str]:
    """Return notes on prompts that have no effect, or another than their words say; a line each."""
    prompts = _named_prompts(request)
    unknown = {prompt: pipe.unknown_words(prompt) for prompt in prompts}
    nearest = {word: other for words in unknown.values() for word, other in words.items()}
    notes = [
        f"the model does not know {word!r}; " + (f"it takes it for {other!r}" if other else "it is left out")
        for word, other in nearest.items()
    ]
    if len(notes) > MOST_NOTES:
        notes = [*notes[:MOST_NOTES], f"the model does not know {len(notes) - MOST_NOTES} words more"]
    for prompt, name in prompts.items():
        words = re.findall(r"[^\W\d_]+|\d+", prompt.lower())
        if all(unknown[prompt].get(word, word) is None for word in words):
            notes.append(f"the model knows no word of {shortened(prompt)!r}; it makes what it likes")
        if surplus := pipe.surplus_tokens(prompt):
            too_long = f"{name} is too long for the model by {surplus} tokens (about a word each)"
            notes.append(f"{too_long}; its end has no effect")
    return notes


def _named_prompts(request: Request) -> dict[str, str]:
    """Return the different prompts of a request, each with a name for messages."""
    scheduled = [(prompt, f"the prompt from frame {frame}") for frame, prompt in request.schedule]
    named = [(request.prompt, "the prompt"), (request.negative_prompt, "the negative prompt"), *scheduled]
    found: dict[str, str] = {}
    for prompt, name in named:
        if prompt.strip():
            found.setdefault(prompt, name)
    return found


def render(
    pipe: LongVideoPipeline | None,
    run: RunFolder,
    asked: ResolvedRequest | None,
    output: Path | None = None,
    on_chunk: Callable[[Chunk], None] | None = None,
    workers: int = 1,
    on_step: OnStageStep | None = None,
    new_prompt: NewPrompt | None = None,
) -> Summary:
    """Make the chunks that the run still lacks, and write its file to `output` (None: the run's own path).

    pipe, asked: of the run; None only if all chunks are committed. on_chunk: called after each commit.
    workers: processes that refine, see `check_workers`; each uses the run's number of threads, and on CUDA
    its own GPU. on_step: see `LongVideoPipeline.stream`. new_prompt: called as each chunk begins; a prompt
    that it returns takes over with this chunk, and is saved in the run's folder.
    """
    began = time.monotonic()
    first_commit = None
    before = run.frames_committed
    if not run.finished:
        assert pipe is not None and asked is not None, "a run that is not finished needs a pipeline"
        if run.request.video is not None and not run.source_done:
            run.commit_source(read_video(run.request.video, run.height, run.width))
        with _threads_of(run), _spread(pipe, run, workers) as pipe:
            state = run.state
            for chunk in pipe.stream(asked, state, on_step, _prompts(asked, run, state, new_prompt)):
                run.commit(chunk)
                first_commit = first_commit or time.monotonic()
                if on_chunk is not None:
                    on_chunk(chunk)
    path = run.finish(output)
    return Summary(
        output=path,
        frames=run.source_frames + run.frames_committed,
        new_frames=run.frames_committed - before,
        seconds=time.monotonic() - began,
        first_frame_seconds=None if first_commit is None else first_commit - began,
    )


def _prompts(
    asked: ResolvedRequest, run: RunFolder, state: State | None, new_prompt: NewPrompt | None
) -> PromptAt:
    """Return a function: first frame of a chunk -> its prompt, asking `new_prompt` once per chunk."""
    begun = asked.factor * int(state["extended"]) - 1 if state and "extended" in state else -1
    if run.last_change:  # an interrupted chunk keeps its prompt
        begun = max(begun, run.last_change.frame)

    def prompt_at(frame: int) -> str:
        nonlocal begun
        if frame > begun and new_prompt is not None:
            begun = frame
            found = new_prompt(run.last_change.number if run.last_change else 0)
            if found is not None:
                run.change_prompt(Change(found[0], frame, _chunk_before(asked, frame), found[1]))
        return run.prompts.prompt_at(frame)

    return prompt_at


def _chunk_before(asked: ResolvedRequest, frame: int) -> int:
    """Return the first frame of the chunk before the one that begins at `frame`, -1 without one."""
    return asked.factor * asked.grid.start(frame // asked.factor - 1) if frame else -1


@contextmanager
def _spread(pipe: LongVideoPipeline, run: RunFolder, workers: int) -> Iterator[LongVideoPipeline]:
    """Give the pipeline with a pool of processes that refine, if there are several."""
    if workers == 1:
        yield pipe
        return
    header = run.header
    kind, dtype = torch.device(header.device).type, getattr(torch, header.dtype)
    make = partial(load_refiner, find_model(run.model), kind, dtype, header.threads, header.savings)
    with Pool(make, workers, gpus=kind == "cuda") as pool:
        yield LongVideoPipeline(pipe.components, pipe.name, pool)


@contextmanager
def _threads_of(run: RunFolder) -> Iterator[None]:
    """Use the run's number of threads: sums on a CPU differ in the last bits by how they are split."""
    before = torch.get_num_threads()
    try:
        if torch.device(run.header.device).type == "cpu":
            torch.set_num_threads(run.header.threads)
        yield
    finally:
        torch.set_num_threads(before)


def _weights(model: str, asked: ResolvedRequest, savings: Savings) -> str:
    """Return the fingerprint of the model's folder, of the pipelines that it uses and of added weights."""
    folder = find_model(model)
    parts = asked.pipeline_folders
    others = [part for part in parts if part.resolve() != folder.resolve()]  # a pipeline can be the model
    return fingerprint(folder, *others, *savings.files)


def lasting_name(model: str) -> str:
    """Return a model folder's absolute path, so that runs resume from anywhere; other names unchanged."""
    return str(Path(model).absolute()) if model not in EMBEDDED and Path(model).exists() else model
