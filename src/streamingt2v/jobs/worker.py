"""The process that makes the videos: `python -m streamingt2v.jobs.worker PLACE`, its settings as the first line on stdin.

It has a place, a number, and holds that place's lock as long as it lives. So a server that finds a job in progress at a place whose lock
is free knows that its worker is gone, and puts it back; the next one goes on from the run folder. When stdin ends, the server has ended or
wants this process to: it puts its job back and goes.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from .. import durable
from ..errors import MediaError, ModelError, RequestError, RunError, StreamingT2VError
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
    from ..types import Chunk
    from ..video.reader import Frame

log = logging.getLogger(__name__)
IDLE_SECONDS = 0.05  # between looks for a job
REPORT_SECONDS = 0.2  # between reports of steps
LEAST_BYTES = 2**17  # of room, to go on after there was none
GRACE_SECONDS = 20.0  # to put a job back when told to end
_CODES = {RequestError: "invalid_request", MediaError: "invalid_media", ModelError: "model_error"}


class Cancelled(Exception):
    """The job was told to stop."""


class Ending(Exception):
    """This process was told to end."""


class Worker:
    """Makes one job after the other at a place, with the model of the last one in memory."""

    def __init__(self, settings: Settings, slot: int):
        self.settings, self.slot = settings, slot
        self.files = ServiceFiles(settings.folder)
        # what is lost here in a power cut is made again from the run folders
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
            self._noted(
                partial(self.store.take_back, self.slot, self.settings.tries)
            )  # what the worker before had here
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
        """Make a job's video, or what is left to do of it; whatever happens, the job has a fitting state afterwards.

        On a full disk it waits for room, and goes on from its last chunk.
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
        """Note what must not be lost; on a disk that has no room even for that, as soon as there is some."""
        patience = Patience("noting the state of a job")
        while True:
            try:
                return note()
            except StorageFull as error:
                patience.failed(error)
                if self.ending.wait(patience.pause):  # the next worker finds that this one is gone
                    raise

    def _made(self, job: Job, room: Patience) -> bool:
        """Make the video; False if the disk is full."""
        try:
            self._make(job)
        except Exception as error:
            if not is_full(error):
                raise
            room.failed(error)
            return False
        return True

    def _wait_for_room(self, job: Job, room: Patience) -> None:
        """Until there is room for twice the largest file that the job has, as its next one may be of that size."""
        while True:
            if self.ending.wait(0.2):
                raise Ending
            if self.store.stopped(job.id):
                raise Cancelled
            if room.is_over and free_bytes(self.settings.folder) >= max(
                LEAST_BYTES, 2 * self.files.largest(job.id)
            ):
                return

    def _make(self, job: Job) -> None:
        from ..runs.render import render  # imports torch

        work = Work(self, job)
        work.check()
        pipe = self._pipeline(self.settings.names[job.model])
        refines = pipe.config.refine is not None or pipe.config.refine_by is not None
        work.keeps_frames = refines and job.request.preset == "preview"
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
        """The job's run, new or gone on with, and what it is to make."""
        from ..runs.render import create_run, resolve_run
        from ..runs.run import RunFolder

        folder, name = self.files.run(job.id), self.settings.names[job.model]
        if (folder / REQUEST).is_file():
            run = RunFolder.open(folder)
            try:
                return run, resolve_run(run)
            except BaseException:
                run.close()
                raise
        output = self.files.finished(job.id)
        output.parent.mkdir(exist_ok=True, mode=0o700)
        how = {name: getattr(self.settings, name) for name in ("device", "dtype", "savings")}
        asked = pipe.resolve(job.request)
        return create_run(pipe, asked, folder, name, output, **how, overwrite=True), asked

    def _pipeline(self, model: str) -> LongVideoPipeline:
        if self._loaded is None or self._loaded[0] != model:
            from ..runs.render import load_pipeline

            self._loaded = None  # the memory of the old one first
            self._loaded = (
                model,
                load_pipeline(model, self.settings.device, self.settings.dtype, self.settings.savings),
            )
        return self._loaded[1]

    def _warm_up(self) -> None:
        """Load the first model and let it make a frame, so that the first job need not wait for what happens once only: in as few steps as
        the network that jobs will use can, and with a chunk to go on to, where an engine prepares networks for that too.
        """
        from ..config import Request

        pipe = self._pipeline(self.settings.models[0])
        frames = 1 if self.settings.savings.engine == "torch" else pipe.config.extend.frames + 1
        with suppress(RequestError):  # it needs a picture to start from
            for _ in pipe.stream(Request("warm up", num_frames=frames, num_inference_steps=1)):
                pass

    def _take_place(self) -> int | None:
        """The lock of this place, once a worker before is gone; None if told to end meanwhile."""
        while not self.ending.wait(IDLE_SECONDS):
            handle = durable.lock(self.files.place_lock(self.slot))
            if handle is not None:
                return handle
        return None


class Work:
    """One job in the making: tells how far it is, and hears that it is to stop."""

    def __init__(self, worker: Worker, job: Job):
        self._worker, self._store, self._job = worker, worker.store, job
        self._began = self._told = time.monotonic()
        self._run: RunFolder | None = None
        self.keeps_frames = False
        """Whether the job's frames are kept without loss, to be refined."""

    def check(self) -> None:
        """Cancelled or Ending if this is to stop."""
        if self._worker.ending.is_set():
            raise Ending
        if self._store.stopped(self._job.id):
            raise Cancelled

    def begin(self, run: RunFolder, notes: list[str]) -> None:
        """The run folder is open: say what is there, and take in the frames of a video to extend."""
        self._run = run
        self._report(notes=json.dumps(notes), frames_done=run.source_frames + run.frames_committed, step=0)
        if run.request.video is not None and not run.source_done:
            from ..video.reader import read_video

            run.commit_source(self._watched(read_video(run.request.video, run.height, run.width)))
            self._report(frames_done=run.source_frames)

    def on_step(self, step: int, steps: int) -> None:
        """A denoising step is done."""
        self.check()
        if time.monotonic() - self._told >= REPORT_SECONDS:
            self._report(step=step, steps=steps)

    def on_chunk(self, chunk: Chunk) -> None:
        """New frames are safe and can be watched."""
        assert self._run is not None, "begin comes first"
        with suppress(StorageFull):
            self._store.count("frames", len(chunk.frames_THWC))
        if self.keeps_frames:
            self._worker.files.kept(self._job.id).keep(chunk, self._job.fps)
        values: dict[str, float] = {
            "frames_done": self._run.source_frames + self._run.frames_committed,
            "step": 0,
        }
        if chunk.start == 0:
            values["first_seconds"] = time.time() - self._job.created_at
        self._report(**values)

    def _watched(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self.check()
            yield frame

    def _report(self, **values: float | str) -> None:
        self._told = time.monotonic()
        worked = self._job.worked_seconds + self._told - self._began
        with suppress(StorageFull):  # it can be watched all the same
            self._store.report(self._job.id, worked_seconds=worked, **values)


def _export(run: RunFolder) -> None:
    """The video of what there is; on a full disk its segments have to do."""
    try:
        run.export(run.output)
    except (StreamingT2VError, OSError) as error:
        if not is_full(error):
            raise
        log.warning("%s: there is no room for the video of what was made; its segments stay", run.path)


def _told(error: Exception) -> tuple[str, str]:
    """Code and message for clients: nothing of this machine's folders."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code, getattr(
                error, "fix", None
            ) or "the model or a file of the request cannot be used; the server's log says why"
    if isinstance(error, RunError):
        return "storage_error", "the video could not be kept or gone on with; the server's log says why"
    return "internal_error", "it failed while it was made; the server's log says why"


def main() -> int:
    """Read the settings, then work until stdin ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker %(levelname)s %(message)s")
    os.umask(0o077)  # nothing of a job is for other users
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends this process
    worker = Worker(Settings.from_json(sys.stdin.readline()), int(sys.argv[1]))
    threading.Thread(target=_end_with_stdin, args=(worker.ending,), daemon=True).start()
    hide_progress_bars()
    try:
        worker.run()
    except StreamingT2VError as error:
        log.error("%s", error)
        return 2
    return 0


def _end_with_stdin(ending: threading.Event) -> None:
    while os.read(0, 1024):  # sys.stdin has a lock that a thread must not hold when the process ends
        pass
    ending.set()
    time.sleep(GRACE_SECONDS)
    os._exit(1)  # stuck; its job goes back when the lock is free


if __name__ == "__main__":
    sys.exit(main())
