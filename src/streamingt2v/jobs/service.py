"""Videos as jobs: the one door for the HTTP API, the web demo and scripts.

A `JobService` owns a folder, or has a share in it. What is submitted is checked, put into the queue on the disk, and made by worker
processes; killing any of them, or this process, loses nothing: another one of the folder, or the next to open it, goes on from the run
folders, to the same bytes.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

from .. import durable
from ..config import ModelConfig, Preset, Request
from ..errors import RequestError, RunError, StreamingT2VError
from ..resolve import ResolvedRequest, resolve_for
from ..runs.folder import PROMPTS
from ..runs.prompts import PromptLog
from ..video.lossless import write_lossless
from ..video.reader import count_frames, playback_rate, read_video
from .files import NotReady, ServiceFiles
from .job import Job, Kind
from .sessions import Sessions
from .settings import Settings
from .store import Conflict, JobStore, Key, QueueFull, Size
from .supervisor import Supervisor

WATCH_SECONDS = 0.1  # between looks of `watch`
STRAY_SECONDS = 3600.0  # until what belongs to no job is nobody's that is just being taken in


class JobService:
    """The jobs of a folder. A context manager: entering it starts the workers, leaving it ends them and keeps all jobs.

    RequestError for wrong settings, RunError if the folder cannot be used or another service has it.
    """

    def __init__(self, settings: Settings):
        settings = dataclasses.replace(settings, folder=settings.folder.absolute())
        self.settings, self.limits = settings, settings.limits
        self.ending = threading.Event()
        """Set when the server on it is told to end."""
        self.configs: dict[str, ModelConfig] = settings.configs()
        self.files = ServiceFiles(settings.folder)
        self._locks = [self._folder_lock()]
        self._places: Sequence[int] = ()
        try:
            self._open()
        except BaseException:
            self._close()
            raise

    def _open(self) -> None:
        settings = self.settings
        self.files.make()
        self.store = JobStore(self.files.database, settings.keep_seconds, shared=settings.shared)
        self.store.check()
        self.store.take_reserve()
        self._delete_strays()
        place, *others = self._places = self.store.new_places(1 + settings.workers)
        handle = self.files.take_place(place)
        assert handle is not None, "nobody had it before"
        self._locks.append(handle)
        self.sessions = Sessions(self.store, self.files, place)
        # alone in its folder, it has the same places each time, and so waits for the memory of workers that a killed one left
        workers = others if settings.shared else range(settings.workers)
        self.supervisor = Supervisor(settings, self.store, self.files, self.sessions, workers)

    def _delete_strays(self) -> None:
        begun, known = self.store.begun(), self.store.ids()
        done = self.files.delete_strays(begun, known, STRAY_SECONDS if self.settings.shared else 0.0)
        for name in done if self.settings.shared else begun:
            self.store.settle(name)

    def _folder_lock(self) -> int:
        handle = self.files.hold(self.settings.shared)
        if handle is None:
            kind = "a server that has it to itself" if self.settings.shared else "another server"
            raise RunError(f"{self.settings.folder}: {kind} uses this folder; stop it or take another one")
        return handle

    def _close(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        for place in self._places:
            with suppress(OSError):
                self.files.place_lock(place).unlink()
        while self._locks:
            durable.unlock(self._locks.pop())

    def __enter__(self) -> JobService:
        self.supervisor.start()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.supervisor.stop()
        finally:
            self._close()

    @property
    def default_model(self) -> str:
        """What a job is made with that names no model."""
        return next(iter(self.settings.names))

    def wait_until_ready(self, seconds: float = 600.0) -> None:
        """Wait until every worker has its model in memory. RunError if one cannot, or it takes longer."""
        deadline = time.monotonic() + seconds
        while not self.supervisor.ready:
            if self.supervisor.failed():
                raise RunError("a worker cannot load its model; what it said is above")
            if time.monotonic() > deadline:
                raise RunError(f"the workers were not ready within {seconds:.0f} s")
            time.sleep(WATCH_SECONDS)

    def submit(
        self, request: Request, model: str | None = None, key: Key | None = None, counted: int | None = None
    ) -> Job:
        """A new job; files that the request names are copied. key: of an earlier call gives that call's job.

        counted: how many frames the request's video has, where somebody has counted them, see `inspection`; None: they are counted here.

        RequestError for what the model cannot do or beyond `limits`; MediaError for a file that cannot be read; `QueueFull` and `Conflict`
        (both in `store`) as the store has them.
        """
        return self._add("create", request, model or self.default_model, None, key, counted)

    def extend(
        self,
        id: str,
        prompt: str,
        frames: int,
        seed: int | None = None,
        schedule: tuple[tuple[int, str], ...] = (),
        key: Key | None = None,
    ) -> Job:
        """A job for the video of `id`, which must have ended, with so many new frames behind it, made with the same settings.

        seed: None for the next one, so that the noise is another. Raises as `submit`, `NoSuchJob`, and NotReady if there is no video.
        """
        job = self.get(id)
        seed = job.request.seed + 1 if seed is None else seed
        asked = dataclasses.replace(
            job.request, prompt=prompt, num_frames=frames, seed=seed, schedule=schedule, fps=None
        )
        start = dataclasses.replace(
            asked, video=str(self.files.video(job)), image=None, refine=None, base=None
        )
        return self._add("extension", start, job.model, id, key)

    def refine(self, id: str, key: Key | None = None) -> Job:
        """A job that runs stage 3 alone on the frames of the preview `id`, which must have ended, as they were made: without loss.

        RequestError where its model refines nothing, or its prompt changed on the way (a video is refined with one); NotReady if its frames
        were not kept; raises as `submit`, `NoSuchJob`.
        """
        job, known = self.get(id), self.store.of_key(key)
        if known is not None:
            return known
        asked = Request(
            job.request.prompt,
            job.frames_done,
            job.request.seed,
            negative_prompt=job.request.negative_prompt,
            preset="full",
        )
        if job.request.preset != "preview":
            raise RequestError("preset", job.request.preset, f"{id} is refined already")
        self._check_refinable(job)
        before = job.frames_done - job.new_frames
        with self.upload() as path:
            kept, source = self.files.kept(id), job.request.video
            frames = chain(
                islice(read_video(source, job.height, job.width), before) if source else (), kept.frames()
            )
            path = path.with_suffix(".mkv")
            write_lossless(path, frames, job.fps)
            return self._add("refinement", dataclasses.replace(asked, refine=str(path)), job.model, id, key)

    def can_refine(self, job: Job) -> bool:
        """Whether `refine` would take the job."""
        try:
            self._check_refinable(job)
        except StreamingT2VError:
            return False
        return job.request.preset == "preview"

    def _check_refinable(self, job: Job) -> None:
        config = self.configs.get(job.model)
        if config is None or (config.refine is None and config.refine_by is None):
            raise RequestError("model", job.model, "has no refiner")
        if job.request.schedule or PromptLog.read(self.files.run(job.id) / PROMPTS).changes:
            raise RequestError(
                "prompt",
                job.request.prompt,
                "changed on the way; a video is refined with one: make the full video instead",
            )
        if not job.ended or not job.new_frames or self.files.kept(job.id).count != job.new_frames:
            raise NotReady(f"the frames of {job.id} are not all there; make the full video instead")

    def remix(
        self,
        id: str,
        prompt: str | None = None,
        seed: int | None = None,
        preset: Preset | None = None,
        key: Key | None = None,
    ) -> Job:
        """A job that is as the job `id` in everything but what is given. Raises as `submit`, `NoSuchJob`.

        prompt: holds for the whole video; None keeps all prompts of the job, those that it was changed to on the way included.
        """
        job = self.get(id)
        changes = PromptLog.read(self.files.run(id) / PROMPTS)
        schedule = changes.merged(job.request.schedule) if prompt is None else ()
        given = {"prompt": prompt, "seed": seed, "preset": preset}
        kept: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if preset not in (None, job.request.preset):
            kept |= {
                "width": None,
                "height": None,
                "form": None,
                "strength": None,
            }  # they belong to the other one
        counted = job.frames_total - (job.request.num_frames or 0)
        return self._add(
            "remix", dataclasses.replace(job.request, schedule=schedule, **kept), job.model, id, key, counted
        )

    def change_prompt(self, id: str, prompt: str, event: str | None = None) -> int:
        """From the next chunk on the video shows this; the number of the change. It is kept before this returns.

        event: a name for the change; one that is sent twice is made once. RequestError for a prompt that is empty or too long, or would
        have no effect; `NoSuchJob`; `Conflict` if the job has ended, or the name came with another prompt.
        """
        self._check_prompt("prompt", prompt)
        job = self.get(id)
        if not (self.configs[job.model].reads_text or job.request.preset == "full"):
            raise RequestError(
                "prompt", prompt, f"model {job.model!r} goes on from pictures alone; it cannot be changed"
            )
        return self.store.change_prompt(id, prompt, self.limits.changes, event)

    def get(self, id: str) -> Job:
        """The job as of now. `NoSuchJob` if there is none."""
        return self.store.get(id)

    def list(
        self, limit: int = 20, after: str | None = None, newest_first: bool = True
    ) -> tuple[Sequence[Job], bool]:
        """Jobs by age, those after the job `after`, and whether there are more. `NoSuchJob` if that one is gone."""
        return self.store.list(limit, after, newest_first)

    def cancel(self, id: str) -> Job:
        """Stop a job: one in progress within one denoising step; what there is of its video stays. No effect on one that has ended."""
        return self.store.cancel(id)

    def delete(self, id: str) -> None:
        """Stop a job and delete everything of it. `NoSuchJob` if there is none."""
        self.store.delete(id)

    def watch(self, id: str) -> Iterator[Job]:
        """The job now and after every change, until it has ended. `NoSuchJob` if there is none, or it is deleted meanwhile."""
        revision = -1
        while True:
            job = self.get(id)
            if job.revision != revision:
                revision = job.revision
                yield job
            if job.ended:
                return
            time.sleep(WATCH_SECONDS)

    def wait(self, id: str) -> Job:
        """The job when it has ended."""
        *_, last = self.watch(id)
        return last

    def video(self, id: str) -> Path:
        """The MP4 of a job that has ended; of a cancelled one what there was. NotReady if there is none (yet)."""
        return self.files.video(self.get(id))

    def playlist(self, id: str) -> str:
        """The HLS playlist of what there is of the video. NotReady before the first frames."""
        return self.files.playlist(self.get(id))

    def segment(self, id: str, name: str) -> Path:
        """A file that the playlist names."""
        return self.files.segment(self.get(id), name)

    def _add(
        self, kind: Kind, request: Request, model: str, source: str | None, key: Key | None, counted: int | None = None
    ) -> Job:  # fmt: skip
        known = self.store.of_key(key)
        if known is not None:
            return known
        asked = self._checked(request, model)
        if (
            self.store.counts().get("queued", 0) >= self.limits.queue
        ):  # said before anything is copied; `add` is what decides
            raise QueueFull(self.limits.queue)
        size = _size(asked, counted)
        id, files = f"video_{secrets.token_hex(12)}", request.files()
        if files:
            self.store.begin(id)
        try:
            inputs = {name: str(self.files.take_in(id, Path(path))) for name, path in files.items()}
            kept = Request.from_json(request.to_json() | inputs)
            job = self.store.add(id, kind, model, kept, size, source, self.limits.queue, key)
        except BaseException:
            self._forget(id, files)
            raise
        if job.id != id:  # the key's, made meanwhile
            self._forget(id, files)
        return job

    def _forget(self, id: str, files: Mapping[str, str]) -> None:
        if files:
            self.files.delete(id)
            self.store.settle(id)

    @contextmanager
    def upload(self) -> Iterator[Path]:
        """A path for a file on its way in, which may get a suffix; it is deleted after the block, or after a kill by the next start."""
        name = secrets.token_hex(16)
        self.store.begin(name)
        try:
            yield self.files.uploads / name
        finally:
            self.files.delete_upload(name)
            self.store.settle(name)

    def _checked(self, request: Request, model: str) -> ResolvedRequest:
        """What the model will make. RequestError if it cannot do the request, or that is beyond the limits."""
        limits = self.limits
        if model not in self.configs:
            raise RequestError("model", model, f"must be one of {', '.join(self.configs)}, or left out")
        for name, value, most in (
            ("num_frames", request.num_frames, limits.frames),
            ("num_inference_steps", request.num_inference_steps, limits.steps),
            ("schedule", len(request.schedule), limits.schedule),
        ):
            if value is not None and value > most:
                raise RequestError(name, value, f"this server makes no more than {most}")
        for name, prompt in (("prompt", request.prompt), ("negative_prompt", request.negative_prompt)):
            self._check_length(name, prompt)
        for _, prompt in request.schedule:
            self._check_length("schedule", prompt)
        if request.num_frames is None:
            raise RequestError("num_frames", None, "say how many; a job is not without end")
        return resolve_for(self.settings.names[model], request)

    def _check_prompt(self, name: str, prompt: str) -> None:
        if not prompt.strip():
            raise RequestError(name, prompt, "must not be empty")
        self._check_length(name, prompt)

    def _check_length(self, name: str, prompt: str) -> None:
        if len(prompt) > self.limits.prompt:
            raise RequestError(
                name,
                f"{prompt[:20]}...",
                f"has {len(prompt)} characters; no more than {self.limits.prompt} are taken",
            )


def _size(asked: ResolvedRequest, counted: int | None) -> Size:
    """Width, height, frames a second, and frames of the whole video, which begins with so many of another (None: not counted yet).

    MediaError if that cannot be read.
    """
    request = asked.request
    source = request.video or request.refine
    rate = playback_rate(source) if source is not None and request.fps is None else None
    before = 0 if request.video is None else count_frames(request.video) if counted is None else counted
    assert asked.num_frames is not None, "checked before"
    return (
        asked.output_width,
        asked.output_height,
        asked.fps or rate or asked.config.fps,
        before + asked.num_frames,
    )


__all__ = ["Conflict", "JobService", "Key", "NotReady"]
