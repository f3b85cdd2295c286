"""Make many videos, each as a run of its own, in this process or in several on Ray; restarts resume.

A run folder is on its worker's disk. The finished file goes to the `Store`, then `NAME.json` with the
outcome: a video is done once that exists, so a kill costs at most a chunk, and no video is made twice.
"""

import json
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import durable
from ..config import Request
from ..config.runtime import PLAIN, Savings
from ..errors import RequestError, RunError
from ..pipeline import LongVideoPipeline
from ..ray_backend import Farm
from ..resolve import ResolvedRequest
from .folder import REQUEST
from .header import Header, with_absolute_paths
from .render import create_run, lasting_name, load_pipeline, render, reopened
from .run import RunFolder
from .store import Store

Record = dict[str, Any]
"""A video's outcome as JSON: name, status ("done" or "failed"), and more; see `run_batch`."""


@dataclass(frozen=True)
class Job:
    """One video. name: unique in the batch, without suffix. request: checked; its paths become absolute."""

    name: str
    request: Request

    def __post_init__(self) -> None:
        object.__setattr__(self, "request", with_absolute_paths(self.request))


@dataclass(frozen=True)
class Setting:
    """Options that a batch's videos share. model, device, dtype: as users write them. threads: per worker.

    runs: folder of the run folders, on each worker's own disk. out: for finished files, see `Store`.
    """

    model: str
    device: str
    dtype: str
    threads: int
    runs: str
    out: str
    savings: Savings = PLAIN

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", lasting_name(self.model))

    def asked(self, job: Job) -> dict[str, Any]:
        """Return a video's request and options as JSON values, without threads (which change last bits)."""
        return _asked(job.request, self)

    def folder(self, job: Job) -> Path:
        """Return the job's run folder."""
        return Path(self.runs) / f"{job.name}.run"


def _asked(request: Request, how: Setting | Header) -> dict[str, Any]:
    options = {name: getattr(how, name) for name in ("model", "device", "dtype")}
    return {"request": request.to_json(), **options, "savings": how.savings.to_json()}


def left_to_do(jobs: Sequence[Job], setting: Setting) -> list[Job]:
    """Return the jobs not done yet. RequestError lists those done or begun from other requests."""
    store = Store(setting.out)
    there, left, wrong = store.names(), [], []
    for job in jobs:
        record, asked = _record(store, job, there), setting.asked(job)
        done = record.get("status") == "done" and f"{job.name}.mp4" in there
        if done and record.get("asked") != asked:
            wrong.append(f"{job.name}.mp4 is there, made from {_difference(record.get('asked'), asked)}")
        elif begun := _begun_otherwise(job, setting):
            wrong.append(begun)
        elif not done or setting.folder(job).exists():
            left.append(job)
    if wrong:
        lines = "".join(f"\n  {line}" for line in wrong)
        fix = f"holds something else; remove it, or rename the rows, or take another folder:{lines}"
        raise RequestError("out", setting.out, fix)
    return left


def run_batch(
    jobs: Sequence[Job], setting: Setting, workers: int = 1, retries: int = 2, gpus: float | None = None
) -> Iterator[Record]:
    """Make the videos; yield a record as each ends, in any order. Failures are retried after all other jobs.

    workers: 1 is this process, more need the extra 'ray'. gpus: per worker; None: one if the device is
    "cuda", else none. A worker that dies is replaced and resumes its run folder. Records hold name, status,
    attempts, output (address), frames, new_frames, seconds, sha256 (of the file) and asked, or error; each is
    also saved as NAME.json. Stopping early loses nothing committed.
    """
    store = Store(setting.out)
    store.check()
    if workers > 1:  # the longest first, so that no worker is left alone with a long video at the end
        jobs = sorted(jobs, key=lambda job: -(job.request.num_frames or 0))
    cuda = torch.device(setting.device).type == "cuda"
    cpus, share = 1 if cuda else setting.threads, float(cuda) if gpus is None else gpus
    with Farm(partial(Renderer, setting), workers, cpus, share) as farm:
        for attempt in range(1, retries + 2):
            again = []
            for job, answer in _answers(farm, jobs):
                record = {"name": job.name, **answer, "attempts": attempt}
                if record.pop("retry", False) and attempt <= retries:
                    again.append(job)
                    continue
                if record["status"] == "failed":
                    store.write_json(f"{job.name}.json", record)
                yield record
            jobs = again
            if not jobs:
                return


def _answers(farm: Farm, jobs: Sequence[Job]) -> Iterator[tuple[Job, Record]]:
    """Yield each job with its worker's answer; at the end those whose workers died."""
    left = dict(enumerate(jobs))
    for number, answer in farm.work_off([json.dumps(asdict(job)) for job in jobs]):
        yield left.pop(number), json.loads(answer)
    for job in left.values():
        yield job, {"status": "failed", "error": "its worker died on it again and again"}


def _record(store: Store, job: Job, there: Container[str]) -> Record:
    """Read a job's record; empty if there is none among the store's names."""
    name = f"{job.name}.json"
    return store.read_json(name) if name in there else {}


class Renderer:
    """A worker: the store, and the model, which is loaded with the first job."""

    def __init__(self, setting: Setting):
        self._setting, self._store = setting, Store(setting.out)
        self._pipe: LongVideoPipeline | None = None

    def __call__(self, task: str) -> str:
        """Make a job, return its record, both as JSON. Never raises: other jobs go on."""
        values = json.loads(task)
        job = Job(values["name"], Request.from_json(values["request"]))
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(self._setting.threads)
            return json.dumps(self._make(job))
        except Exception as error:
            may_pass = not isinstance(error, RequestError)
            message = str(error) or type(error).__name__
            return json.dumps({"status": "failed", "error": message, "retry": may_pass})
        finally:
            torch.set_num_threads(before)

    def _make(self, job: Job) -> Record:
        began = time.monotonic()
        folder = self._setting.folder(job)
        record = _record(self._store, job, self._store.names())
        if record.get("status") != "done":
            run, asked = self._run(job, folder)
            with run:
                summary = render(self._pipe, run, asked)
                record = {
                    "status": "done",
                    "output": self._store.put(summary.output, f"{job.name}.mp4"),
                    "frames": summary.frames,
                    "new_frames": summary.new_frames,
                    "seconds": round(time.monotonic() - began, 3),
                    "notes": list(run.header.notes),
                    "sha256": durable.sha256_of(summary.output),
                    "asked": self._setting.asked(job),
                }
            self._store.write_json(f"{job.name}.json", {"name": job.name, **record})
        _remove(folder)
        return record

    def _run(self, job: Job, folder: Path) -> tuple[RunFolder, ResolvedRequest]:
        """Open the job's run, or create it; return it with its resolved request."""
        setting = self._setting
        options: dict[str, Any] = {
            "device": setting.device,
            "dtype": setting.dtype,
            "savings": setting.savings,
        }
        self._pipe = self._pipe or load_pipeline(setting.model, **options)
        if not (folder / REQUEST).is_file():
            asked = self._pipe.resolve(job.request)
            return create_run(self._pipe, asked, folder, setting.model, **options, temporary=True), asked
        if wrong := _begun_otherwise(job, setting):  # checked again, since the disk is the worker's
            raise RequestError("out", setting.out, wrong)
        return reopened(folder)


def _begun_otherwise(job: Job, setting: Setting) -> str | None:
    """Return what is wrong with the job's run folder on this machine; None if it is missing or this job's."""
    folder = setting.folder(job)
    if not (folder / REQUEST).is_file():
        return None
    try:
        header = Header.read(folder / REQUEST)
    except RunError as error:
        return str(error)
    begun, wanted = _asked(header.request, header), setting.asked(job)
    return None if begun == wanted else f"{folder} was begun from {_difference(begun, wanted)}"


def _difference(was: Any, asked: dict[str, Any]) -> str:
    """Describe the first value that differs."""
    if not isinstance(was, dict):
        return "another request"
    old, new = (
        {**values.get("request", {}), **{k: v for k, v in values.items() if k != "request"}}
        for values in (was, asked)
    )
    name = next(name for name in {**new, **old} if old.get(name) != new.get(name))
    return f"{name}={old.get(name)!r} where {new.get(name)!r} is asked for"


def _remove(folder: Path) -> None:
    """Delete a run, if it exists, and its video, which is in the store."""
    if (folder / REQUEST).is_file():
        with RunFolder.open(folder) as run:
            run.output.unlink(missing_ok=True)
            run.discard()
