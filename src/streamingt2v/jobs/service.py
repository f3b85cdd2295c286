"""Videos as jobs: the interface for the HTTP API, the web demo and scripts.

A `JobService` owns a folder or shares it. It checks submitted requests and queues them on disk; worker
processes make the videos. Killing any of them, or this process, loses nothing: whoever opens the folder next
resumes the run folders, to the same bytes.
"""

import dataclasses
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

from .. import durable
from ..config import ModelConfig, Preset, Request
from ..errors import RequestError, RunError, StreamingT2VError
from ..resolve import ResolvedRequest, at_clip_size, resolve_for
from ..runs.folder import PROMPTS
from ..runs.prompts import PromptLog
from ..texts import is_blank
from ..video.lossless import write_lossless
from ..video.rates import Rate
from ..video.reader import count_frames, playback_rate, read_video
from .files import NotReady, ServiceFiles
from .job import Job, Key, Kind, QueueFull
from .sessions import Sessions
from .settings import Settings
from .store import JobStore, Size
from .supervisor import Supervisor

Counted = tuple[int, Rate | None]
"""Frames of a video, and frames a second (None: unknown)."""

WATCH_SECONDS = 0.1  # between looks of `watch`
STRAY_SECONDS = 3600.0  # in a shared folder, younger strays may be uploads in progress at another server


class JobService:
    """The jobs of a folder. As a context manager it starts the workers, then ends them and keeps all jobs.

    Raises RequestError for wrong settings, RunError if the folder cannot be used or another service uses it.
    """

    def __init__(self, settings: Settings):
        settings = dataclasses.replace(settings, folder=settings.folder.absolute())
        self.settings, self.limits = settings, settings.limits
        self.ending = threading.Event()
        """Set when the server is told to end."""
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
        assert handle is not None, "the place is new"
        self._locks.append(handle)
        self.sessions = Sessions(self.store, self.files, place)
        # an unshared folder reuses its places, so new workers wait until those of a killed server are gone
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

    def __enter__(self) -> Self:
        self.supervisor.start()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.supervisor.stop()
        finally:
            self._close()

    @property
    def default_model(self) -> str:
        """Return the model of a job that names none."""
        return next(iter(self.settings.names))

    def model(self, name: str | None) -> str:
        """Return a job's model, the default one for None. Raises RequestError for an unknown one."""
        if name is not None and name not in self.configs:
            raise RequestError("model", name, f"must be one of {', '.join(self.configs)}, or left out")
        return name or self.default_model

    def wait_until_ready(self, seconds: float = 600.0) -> None:
        """Wait until every worker has loaded its model. Raises RunError if one cannot, or it takes longer."""
        deadline = time.monotonic() + seconds
        while not self.supervisor.ready:
            if self.supervisor.failed():
                raise RunError("a worker cannot load its model; what it said is above")
            if time.monotonic() > deadline:
                raise RunError(f"the workers were not ready within {seconds:.0f} s")
            time.sleep(WATCH_SECONDS)

    def submit(
        self,
        request: Request,
        model: str | None = None,
        key: Key | None = None,
        counted: Counted | None = None,
    ) -> Job:
        """Queue a job and return it, or the existing job of the same key. Files of the request are copied.

        counted: what is known of the request's video (see `inspection`); None decodes it.

        Raises RequestError for what the model cannot do or exceeds `limits`, MediaError for an unreadable
        file, QueueFull, and Conflict if the key was used for another request.
        """
        return self._add("create", request, self.model(model), None, key, counted)

    def extend(
        self,
        id: str,
        prompt: str,
        frames: int,
        seed: int | None = None,
        schedule: tuple[tuple[int, str], ...] = (),
        key: Key | None = None,
    ) -> Job:
        """Queue a job that appends `frames` new frames to the ended video `id`, with the same settings.

        seed: None takes the next one, for other noise. Raises like `submit`, and NoSuchJob, or NotReady
        without a video.
        """
        job = self.get(id)
        seed = job.request.seed + 1 if seed is None else seed
        new: dict[str, Any] = dict.fromkeys(("image", "refine", "base")) | {
            "video": str(self.files.video(job))
        }
        new |= {"prompt": prompt, "num_frames": frames, "seed": seed, "schedule": schedule, "fps": None}
        request = dataclasses.replace(job.request, **new)
        return self._add("extension", request, job.model, id, key, (job.frames_done, job.fps))

    def refine(self, id: str, key: Key | None = None) -> Job:
        """Queue stage 3 on the lossless frames of the ended preview `id`, with all its prompts.

        Raises like `submit`, and NoSuchJob; RequestError if the model has no refiner; NotReady if the frames
        were not kept.
        """
        job, known = self.get(id), self.store.of_key(key)
        if known is not None:
            return known
        if job.request.preset != "preview":
            raise RequestError("preset", job.request.preset, f"{id} is refined already")
        self._check_refinable(job)
        old = job.request
        before = job.frames_done - job.new_frames
        prompts = PromptLog.read(self.files.run(id) / PROMPTS).merged(old.schedule)
        schedule = tuple((before + at, text) for at, text in prompts if at < job.new_frames)
        asked = Request(
            old.prompt, job.frames_done, old.seed, schedule=schedule, negative_prompt=old.negative_prompt,
            preset="full",
        )  # fmt: skip
        with self.upload() as path:
            kept, source = self.files.kept(id), job.request.video
            frames = chain(
                islice(read_video(source, job.height, job.width), before) if source else (), kept.frames()
            )
            path = path.with_suffix(".mkv")
            write_lossless(path, frames, job.fps)
            asked = dataclasses.replace(asked, refine=str(path))
            return self._add("refinement", asked, job.model, id, key, (job.frames_done, job.fps))

    def can_refine(self, job: Job) -> bool:
        """Return whether `refine` accepts the job."""
        try:
            self._check_refinable(job)
        except StreamingT2VError:
            return False
        return job.request.preset == "preview"

    def _check_refinable(self, job: Job) -> None:
        config = self.configs.get(job.model)
        if config is None or not config.refines:
            raise RequestError("model", job.model, "has no refiner")
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
        """Queue a copy of the job `id` with another prompt, seed or preset.

        Raises like `submit`, and NoSuchJob.

        prompt: for the whole video; None keeps all prompts, including changes on the way.
        """
        job = self.get(id)
        changes = PromptLog.read(self.files.run(id) / PROMPTS)
        schedule = changes.merged(job.request.schedule) if prompt is None else ()
        given = {"prompt": prompt, "seed": seed, "preset": preset}
        kept: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if preset not in (None, job.request.preset):  # these options belong to the old preset
            kept |= dict.fromkeys(("width", "height", "form", "strength"))
        counted = job.frames_total - (job.request.num_frames or 0), job.fps
        request = dataclasses.replace(job.request, schedule=schedule, **kept)
        return self._add("remix", request, job.model, id, key, counted)

    def change_prompt(self, id: str, prompt: str, event: str | None = None) -> int:
        """Change the prompt from the next chunk on; return the number of the change once it is stored.

        event: a name for the change; sending it again has no effect. Raises RequestError for a prompt that is
        empty, too long or has no effect; NoSuchJob; Conflict if the job has ended or the event came with
        another prompt.
        """
        if is_blank(prompt):
            raise RequestError("prompt", prompt, "must not be empty")
        self._check_length("prompt", prompt)
        job = self.get(id)
        if not (self.configs[job.model].reads_text or job.request.preset == "full"):
            fix = f"model {job.model!r} extends from images alone; the prompt cannot be changed"
            raise RequestError("prompt", prompt, fix)
        return self.store.change_prompt(id, prompt, self.limits.changes, event)

    def get(self, id: str) -> Job:
        """Return the job as of now. Raises NoSuchJob."""
        return self.store.get(id)

    def list(
        self, limit: int = 20, after: str | None = None, newest_first: bool = True
    ) -> tuple[Sequence[Job], bool]:
        """Return jobs by age, starting after the job `after`, and whether there are more.

        Raises NoSuchJob.
        """
        return self.store.list(limit, after, newest_first)

    def cancel(self, id: str) -> Job:
        """Stop a job within one denoising step and keep its frames; leave an ended one as it is."""
        return self.store.cancel(id)

    def delete(self, id: str) -> None:
        """Stop a job and delete all of it. Raises NoSuchJob."""
        self.store.delete(id)

    def watch(self, id: str) -> Iterator[Job]:
        """Yield the job now and after every change, until it has ended.

        Raises NoSuchJob, also if it is deleted meanwhile.
        """
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
        """Wait until the job has ended; return it."""
        *_, last = self.watch(id)
        return last

    def video(self, id: str) -> Path:
        """Return the MP4 of an ended job, cancelled ones included. Raises NotReady if there is none (yet)."""
        return self.files.video(self.get(id))

    def _add(
        self,
        kind: Kind,
        request: Request,
        model: str,
        source: str | None,
        key: Key | None,
        counted: Counted | None = None,
    ) -> Job:
        known = self.store.of_key(key)
        if known is not None:
            return known
        asked = at_clip_size(self._checked(request, model))
        if self.store.counts().get("queued", 0) >= self.limits.queue:  # before copying; `add` decides
            raise QueueFull(self.limits.queue)
        size = _size(asked, counted)
        id, files = f"video_{secrets.token_hex(12)}", request.files()
        if files:
            self.store.begin(id)
        try:
            inputs = {name: str(self.files.take_in(id, Path(path))) for name, path in files.items()}
            size_of = {"height": asked.request.height, "width": asked.request.width}
            kept = Request.from_json(request.to_json() | size_of | inputs)
            job = self.store.add(id, kind, model, kept, size, source, self.limits.queue, key)
        except BaseException:
            self._forget(id, files)
            raise
        if job.id != id:  # made with the same key meanwhile
            self._forget(id, files)
        return job

    def _forget(self, id: str, files: Mapping[str, str]) -> None:
        if files:
            self.files.delete(id)
            self.store.settle(id)

    def check_uploads(self) -> None:
        """Raise QueueFull if the stored uploads reach their limit."""
        if self.files.upload_bytes() >= self.limits.upload_total:
            raise QueueFull(self.limits.upload_total >> 20, "MiB of uploads are stored")

    @contextmanager
    def upload(self) -> Iterator[Path]:
        """Yield a temporary path for an upload, which may get a suffix; delete the file afterwards.

        After a kill the next start deletes it.
        """
        name = secrets.token_hex(16)
        self.store.begin(name)
        try:
            yield self.files.uploads / name
        finally:
            self.files.delete_upload(name)
            self.store.settle(name)

    def _checked(self, request: Request, model: str) -> ResolvedRequest:
        """Return the resolved request.

        Raises RequestError if the model cannot do it or it exceeds the limits.
        """
        limits, name = self.limits, self.settings.names[self.model(model)]
        for argument, value, most in (
            ("num_frames", request.num_frames, limits.frames),
            ("num_inference_steps", request.num_inference_steps, limits.steps),
            ("schedule", len(request.schedule), limits.schedule),
        ):
            if value is not None and value > most:
                raise RequestError(argument, value, f"this server makes no more than {most}")
        self._check_length("prompt", request.prompt)
        self._check_length("negative_prompt", request.negative_prompt)
        for _, prompt in request.schedule:
            self._check_length("schedule", prompt)
        if request.num_frames is None:
            raise RequestError("num_frames", None, "is needed: a job cannot be endless")
        return resolve_for(name, request)

    def _check_length(self, name: str, prompt: str) -> None:
        if len(prompt) > self.limits.prompt:
            fix = f"has {len(prompt)} characters; the limit is {self.limits.prompt}"
            raise RequestError(name, f"{prompt[:20]}...", fix)


def _size(asked: ResolvedRequest, counted: Counted | None) -> Size:
    """Return the size of the whole video. Raises MediaError if its source has to be decoded and cannot."""
    request = asked.request
    source = request.video or request.refine
    frames, rate = (0, None) if source is None else counted or (count_frames(source), playback_rate(source))
    before = frames if request.video is not None else 0
    assert asked.num_frames is not None, "checked before"
    fps = asked.fps or rate or asked.config.fps
    return asked.output_width, asked.output_height, fps, before + asked.num_frames
