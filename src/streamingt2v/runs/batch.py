"""Many videos, each a run of its own: by one process, or by several on Ray; what is done stays done, what was begun is gone on with.

A video's run folder is on the disk of whoever makes it. Finished, the file goes to the `Store`, then `NAME.json`, which says how
it went: a video is done once that is there, so a kill at any instant costs a chunk and no video is made twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
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
from .render import create_run, lasting_name, load_pipeline, render, resolve_run
from .run import RunFolder
from .store import Store

Record = dict[str, Any]
"""How a video went, as JSON: name, status ("done" or "failed"), and more; see `run_batch`."""


@dataclass(frozen=True)
class Job:
    """One video. name: of its files, unique in the batch, without a suffix. request: checked; the files it names by absolute paths."""

    name: str
    request: Request

    def __post_init__(self) -> None:
        object.__setattr__(self, "request", with_absolute_paths(self.request))


@dataclass(frozen=True)
class Setting:
    """What the videos of a batch share. model, device, dtype: as users write them. threads: of a worker; on a CPU sums differ in
    their last bits by it. runs: folder of the run folders, on each worker's own disk. out: where finished files go, see `Store`.
    savings: of device memory.
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
        """All that a video was asked for, as JSON values, to know it again. How many threads is not among it: it changes no picture."""
        return {
            "request": job.request.to_json(),
            "model": self.model,
            "device": self.device,
            "dtype": self.dtype,
            "savings": asdict(self.savings),
        }

    def folder(self, job: Job) -> Path:
        """The job's run folder."""
        return Path(self.runs) / f"{job.name}.run"


def left_to_do(jobs: Sequence[Job], setting: Setting) -> list[Job]:
    """Those that are not done yet. RequestError, with all that is wrong, if one was done or begun from another request."""
    store = Store(setting.out)
    there, left, wrong = store.names(), [], []
    for job in jobs:
        record = store.read_json(f"{job.name}.json") if f"{job.name}.json" in there else {}
        done = record.get("status") == "done" and f"{job.name}.mp4" in there
        if done and record.get("asked") != setting.asked(job):
            wrong.append(
                f"{job.name}.mp4 is there, made from {_difference(record.get('asked'), setting.asked(job))}"
            )
        elif begun := _begun_otherwise(job, setting):
            wrong.append(begun)
        elif not done or setting.folder(job).exists():
            left.append(job)
    if wrong:
        lines = "".join(f"\n  {line}" for line in wrong)
        raise RequestError(
            "out",
            setting.out,
            f"holds something else; remove it, or name the rows anew, or take another folder:{lines}",
        )
    return left


def run_batch(
    jobs: Sequence[Job], setting: Setting, workers: int = 1, retries: int = 2, gpus: float | None = None
) -> Iterator[Record]:
    """Make the videos and tell of each as it ends, in no order; what fails is tried `retries` times more, after all others.

    workers: 1 works in this process, more need the extra 'ray'. gpus: of a worker; None: one if the device is "cuda", else none. A worker
    that dies is replaced, and goes on in its run folder. Records hold name, status, attempts, output (address), frames, new_frames,
    seconds, sha256 (of the file) and asked, or error; each is kept as NAME.json too. Stopping early loses nothing that is committed.
    """
    store = Store(setting.out)
    store.check()
    if workers > 1:  # the longest first, so that in the end nobody waits long for the last
        jobs = sorted(jobs, key=lambda job: -(job.request.num_frames or 0))
    with _farm(setting, workers, gpus) as farm:
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
    """Each job with its worker's answer; those without one at the end."""
    left = dict(enumerate(jobs))
    for number, answer in farm.work_off([json.dumps(asdict(job)) for job in jobs]):
        yield left.pop(number), json.loads(answer)
    for job in left.values():
        yield job, {"status": "failed", "error": "its worker died on it again and again"}


def _farm(setting: Setting, workers: int, gpus: float | None) -> Farm:
    cuda = torch.device(setting.device).type == "cuda"
    share = float(cuda) if gpus is None else gpus
    return Farm(partial(Renderer, setting), workers, cpus=1 if cuda else setting.threads, gpus=share)


class Renderer:
    """What a worker has: the model, loaded with the first job, and the store."""

    def __init__(self, setting: Setting):
        self._setting, self._store = setting, Store(setting.out)
        self._pipe: LongVideoPipeline | None = None

    def __call__(self, task: str) -> str:
        """A job in, its record out, both as JSON. Never raises: a job that fails must not stop the others."""
        values = json.loads(task)
        job = Job(values["name"], Request.from_json(values["request"]))
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(self._setting.threads)
            return json.dumps(self._make(job))
        except Exception as error:
            wrong = isinstance(error, RequestError)  # trying again would not mend it
            return json.dumps(
                {"status": "failed", "error": str(error) or type(error).__name__, "retry": not wrong}
            )
        finally:
            torch.set_num_threads(before)

    def _make(self, job: Job) -> Record:
        began = time.monotonic()
        folder = self._setting.folder(job)
        record = (
            self._store.read_json(f"{job.name}.json") if f"{job.name}.json" in self._store.names() else {}
        )
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
        """The job's run, gone on with where there is one, else new; and what it is to make."""
        setting = self._setting
        self._pipe = self._pipe or load_pipeline(
            setting.model, setting.device, setting.dtype, setting.savings
        )
        if not (folder / REQUEST).is_file():
            asked = self._pipe.resolve(job.request)
            run = create_run(
                self._pipe,
                asked,
                folder,
                setting.model,
                device=setting.device,
                dtype=setting.dtype,
                savings=setting.savings,
                temporary=True,
            )
            return run, asked
        if wrong := _begun_otherwise(
            job, setting
        ):  # a worker's disk may hold what the one who gave the order does not see
            raise RequestError("out", setting.out, wrong)
        run = RunFolder.open(folder)
        try:
            return run, resolve_run(run)
        except BaseException:
            run.close()
            raise


def _begun_otherwise(job: Job, setting: Setting) -> str | None:
    """What is wrong with the job's run folder on this machine, if there is one and it is not this job's."""
    folder = setting.folder(job)
    if not (folder / REQUEST).is_file():
        return None
    try:
        header = Header.read(folder / REQUEST)
    except RunError as error:
        return str(error)
    begun = {
        "request": header.request.to_json(),
        "model": header.model,
        "device": header.device,
        "dtype": header.dtype,
    }
    begun |= {"savings": asdict(header.savings)}
    wanted = setting.asked(job)
    return None if begun == wanted else f"{folder} was begun from {_difference(begun, wanted)}"


def _difference(was: Any, asked: dict[str, Any]) -> str:
    """The first value that differs, for people."""
    if not isinstance(was, dict):
        return "another request"
    old, new = (
        {**values.get("request", {}), **{k: v for k, v in values.items() if k != "request"}}
        for values in (was, asked)
    )
    name = next(name for name in {**new, **old} if old.get(name) != new.get(name))
    return f"{name}={old.get(name)!r} where {new.get(name)!r} is asked for"


def _remove(folder: Path) -> None:
    """Delete a run whose file has been handed over, with that file, if it is still there."""
    if (folder / REQUEST).is_file():
        with RunFolder.open(folder) as run:
            run.output.unlink(missing_ok=True)
            run.discard()
