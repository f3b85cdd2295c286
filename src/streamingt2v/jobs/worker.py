"""Process that makes videos: `python -m streamingt2v.jobs.worker PLACE`, with its settings on stdin.

It holds the lock of its place (a number) while it lives. If a job is in progress in a place whose lock is
free, its worker is dead: a server requeues the job, and another worker resumes its run folder. When stdin
closes, the server has ended or asks the worker to: it releases its job and exits.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from .. import durable
from ..errors import MediaError, MediaWarning, ModelError, RequestError, RunError, StreamingT2VError
from ..runs.folder import REQUEST
from ..runs.quiet import hide_progress_bars
from .files import ServiceFiles
from .job import Job
from .patience import Patience
from .room import StorageFull, free_bytes, is_full
from .settings import Settings
from .store import JobStore

if TYPE_CHECKING:
    from ..pipeline import LongVideoPipeline
    from ..resolve import ResolvedRequest
    from ..runs.run import RunFolder
    from ..stages.protocols import Stage
    from ..types import Chunk
    from ..video.reader import Frame

log = logging.getLogger(__name__)
IDLE_SECONDS = 0.05  # between claims
REPORT_SECONDS = 0.2  # between reports of steps
LEAST_BYTES = 2**17  # free space to resume after a full disk
GRACE_SECONDS = 20.0  # to release a job when told to end
_CODES = {RequestError: "invalid_request", MediaError: "invalid_media", ModelError: "model_error"}


class Cancelled(Exception):
    """The job was told to stop."""


class Ending(Exception):
    """The process was told to end."""


class Worker:
    """Make one job after the other in a place, keeping the last job's model in memory."""

    def __init__(self, settings: Settings, slot: int):
        self.settings, self.slot = settings, slot
        self.files = ServiceFiles(settings.folder)
        # not durable: run folders restore what a power cut loses here
        self.store = JobStore(
            self.files.database, settings.keep_seconds, durable=False, shared=settings.shared
        )
        self.ending = threading.Event()
        self._claiming = Patience("looking for a job")
        self._loaded: tuple[str, LongVideoPipeline] | None = None

    def run(self) -> None:
        """Work until told to end."""
        handle = self._take_place()
        if handle is None:
            return
        try:
            # jobs of the previous worker in this place
            self._noted(partial(self.store.take_back, self.slot, self.settings.tries))
            self._warm_up()
            self._noted(partial(self.store.worker_is, self.slot, os.getpid(), ready=True))
            while not self.ending.is_set():
                job = self._claimed()
                if job is not None:
                    self.work_on(job)
                else:
                    self.ending.wait(IDLE_SECONDS)
        finally:
            durable.unlock(handle)

    def work_on(self, job: Job) -> None:
        """Make or resume a job's video, then set the job's status.

        On a full disk, wait for space and resume.
        """
        room = Patience(f"making {job.id}")
        try:
            while not self._made(job, room):
                self._wait_for_room(job, room)
        except Cancelled:
            self._noted(partial(self.store.end, job.id, "cancelled"))
        except Ending:
            self._noted(partial(self.store.release, job.id))
        except Exception as error:
            log.exception("%s failed", job.id)
            self._noted(partial(self.store.end, job.id, "failed", *_told(error)))
        else:
            self._noted(partial(self.store.end, job.id, "completed"))

    def _claimed(self) -> Job | None:
        if not self._claiming.is_over:
            return None
        with self._claiming.trying():
            return self.store.claim(self.slot)
        return None

    def _noted(self, note: Callable[[], None]) -> None:
        """Store a change that must not be lost; on a full disk retry until there is space."""
        patience = Patience("noting the state of a job")
        while True:
            try:
                return note()
            except StorageFull as error:
                patience.failed(error)
                if self.ending.wait(patience.pause):  # the job is requeued when this process is gone
                    raise

    def _made(self, job: Job, room: Patience) -> bool:
        """Make the video; return False if the disk is full."""
        try:
            self._make(job)
        except Exception as error:
            if not is_full(error):
                raise
            room.failed(error)
            return False
        return True

    def _wait_for_room(self, job: Job, room: Patience) -> None:
        """Wait for space for twice the job's largest file: its next one may be as large."""
        while True:
            if self.ending.wait(0.2):
                raise Ending
            if self.store.stopped(job.id):
                raise Cancelled
            needed = max(LEAST_BYTES, 2 * self.files.largest(job.id))
            if room.is_over and free_bytes(self.settings.folder) >= needed:
                return

    def _make(self, job: Job) -> None:
        from ..runs.render import render  # imports torch

        work = Work(self, job)
        work.check()
        pipe = self._pipeline(self.settings.names[job.model])
        work.keeps_frames = pipe.config.refines and job.request.preset == "preview"
        run, asked = self._opened(job, pipe)
        with run:
            try:
                work.begin(run, list(run.header.notes))
                new_prompt = partial(self.store.new_prompt, job.id)
                render(pipe, run, asked, None, work.on_chunk, on_step=work.on_step, new_prompt=new_prompt)
            except Cancelled:
                if run.source_frames + run.frames_committed:
                    _export(run)
                raise

    def _opened(self, job: Job, pipe: LongVideoPipeline) -> tuple[RunFolder, ResolvedRequest]:
        """Return the job's run folder, created or reopened, and its resolved request."""
        from ..runs.render import create_run, reopened

        folder, name = self.files.run(job.id), self.settings.names[job.model]
        if (folder / REQUEST).is_file():
            return reopened(folder)
        output = self.files.finished(job.id)
        output.parent.mkdir(exist_ok=True, mode=0o700)
        how = {name: getattr(self.settings, name) for name in ("device", "dtype", "savings")}
        asked = pipe.resolve(job.request)
        return create_run(pipe, asked, folder, name, output, **how, overwrite=True), asked

    def _pipeline(self, model: str) -> LongVideoPipeline:
        if self._loaded is None or self._loaded[0] != model:
            from ..runs.render import load_pipeline

            settings, self._loaded = self.settings, None  # free the old model first
            pipe = load_pipeline(model, settings.device, settings.dtype, settings.savings)
            self._loaded = (model, pipe)
        return self._loaded[1]

    def _warm_up(self) -> None:
        """Load the first model and generate a frame, so that the first job does not pay for one-time work.

        One step suffices, and a second chunk if the engine compiles networks for that too.
        """
        from ..config import Request

        pipe = self._pipeline(self.settings.models[0])
        frames = 1 if self.settings.savings.engine == "torch" else pipe.config.extend.frames + 1
        with suppress(RequestError):  # the model needs an image
            for _ in pipe.stream(Request("warm up", num_frames=frames, num_inference_steps=1)):
                pass

    def _take_place(self) -> int | None:
        """Return the lock of this place once it is free; None if told to end first."""
        while not self.ending.wait(IDLE_SECONDS):
            handle = durable.lock(self.files.place_lock(self.slot))
            if handle is not None:
                return handle
        return None


class Work:
    """A job in progress: report its progress and stop when told to."""

    def __init__(self, worker: Worker, job: Job):
        self._worker, self._store, self._job = worker, worker.store, job
        self._began = self._told = time.monotonic()
        self._run: RunFolder | None = None
        self._stage: Stage | None = None
        self.keeps_frames = False
        """Keep lossless frames, to refine them later."""

    def check(self) -> None:
        """Raise Cancelled or Ending if the job is to stop."""
        if self._worker.ending.is_set():
            raise Ending
        if self._store.stopped(self._job.id):
            raise Cancelled

    def begin(self, run: RunFolder, notes: list[str]) -> None:
        """Report the state of the opened run folder, and commit the frames of a video to extend."""
        self._run = run
        self._report(notes=json.dumps(notes), frames_done=run.source_frames + run.frames_committed, step=0)
        if run.request.video is not None and not run.source_done:
            from ..video.reader import read_video

            run.commit_source(self._watched(read_video(run.request.video, run.height, run.width)))
            self._report(frames_done=run.source_frames)

    def on_step(self, step: int, steps: int, stage: Stage) -> None:
        """Report a finished denoising step."""
        self.check()
        if stage != self._stage or time.monotonic() - self._told >= REPORT_SECONDS:
            self._stage = stage
            self._report(stage=stage, step=step, steps=steps)

    def on_chunk(self, chunk: Chunk) -> None:
        """Report a committed chunk and keep its lossless frames."""
        assert self._run is not None, "begin comes first"
        with suppress(StorageFull):
            self._store.count("frames", len(chunk.frames_THWC))
        if self.keeps_frames:
            self._worker.files.kept(self._job.id).keep(chunk, self._job.fps)
        first = {"first_seconds": time.time() - self._job.created_at} if chunk.start == 0 else {}
        self._report(frames_done=self._run.source_frames + self._run.frames_committed, step=0, **first)

    def _watched(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self.check()
            yield frame

    def _report(self, **values: float | str) -> None:
        self._told = time.monotonic()
        worked = self._job.worked_seconds + self._told - self._began
        with suppress(StorageFull):  # the next report may succeed
            self._store.report(self._job.id, worked_seconds=worked, **values)


def _export(run: RunFolder) -> None:
    """Write the video so far; on a full disk only the segments remain."""
    try:
        run.export(run.output)
    except (StreamingT2VError, OSError) as error:
        if not is_full(error):
            raise
        log.warning("%s: no space for the video of a cancelled job; its segments stay", run.path)


def _told(error: Exception) -> tuple[str, str]:
    """Return an error code and message for clients, without paths of this machine."""
    unusable = "the model or a file of the request cannot be used; the server's log says why"
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code, getattr(error, "fix", None) or unusable
    if isinstance(error, RunError):
        return "storage_error", "the video could not be stored or resumed; the server's log says why"
    return "internal_error", "the job failed; the server's log says why"


def main() -> int:
    """Read the settings, then work until stdin closes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker %(levelname)s %(message)s")
    os.umask(0o077)  # other users must not read a job's files
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the server ends this process
    worker = Worker(Settings.from_json(sys.stdin.readline()), int(sys.argv[1]))
    threading.Thread(target=_end_with_stdin, args=(worker.ending,), daemon=True).start()
    warnings.simplefilter("ignore", MediaWarning)  # a job's notes tell the damage
    hide_progress_bars()
    try:
        worker.run()
    except StreamingT2VError as error:
        log.error("%s", error)
        return 2
    return 0


def _end_with_stdin(ending: threading.Event) -> None:
    while os.read(0, 1024):  # not sys.stdin: its lock must not be held at exit
        pass
    ending.set()
    time.sleep(GRACE_SECONDS)
    os._exit(1)  # stuck; the job is requeued when the lock is free


if __name__ == "__main__":
    sys.exit(main())
