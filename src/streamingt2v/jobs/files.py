"""What is on the disk of a service: a folder for its jobs' file and locks, and one for each job.

    jobs.sqlite3            the jobs, see `store`
    lock, place-0.lock      held by the service, and by whoever has that place: a worker, or the service itself
    uploads/                files on their way in
    jobs/ID/input.*         the picture or video that the job starts from
    jobs/ID/run/            its run folder, see `io.run`: segments and playlist of what there is of the video so far
    jobs/ID/video.mp4       the finished video; of a cancelled one what there was
    jobs/ID/*.webp, *.jpg   stills of it, made when they are first asked for

No name in it comes from a client: ids are made here, and those that clients send are looked up.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from PIL import Image

from .. import durable
from ..errors import RunError
from ..runs.folder import INIT, JOURNAL, PLAYLIST
from ..runs.journal import Journal
from ..video.images import contact_sheet, save_picture
from ..video.reader import read_video
from .job import Job

SEGMENT = re.compile(r"init\.mp4|seg_\d{5,}\.m4s")
_SPRITES = 64  # frames in a sheet, about
_END = "#EXT-X-ENDLIST"


class NotReady(RunError):
    """What is asked for is not made yet, or will never be."""


class ServiceFiles:
    """The folder of a service."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.database, self.lock, self.uploads = folder / "jobs.sqlite3", folder / "lock", folder / "uploads"
        self._jobs = folder / "jobs"
        self._drawing = threading.Lock()

    def make(self) -> None:
        """Make what is missing. RunError if that is not possible."""
        try:
            for path in (self._jobs, self.uploads):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise RunError(f"{self.folder}: cannot be used to keep jobs in: {error.strerror or error}") from error

    def place_lock(self, place: int) -> Path:
        """Held by whoever has that place."""
        return self.folder / f"place-{place}.lock"

    @contextmanager
    def vacant(self, place: int) -> Iterator[bool]:
        """Whether nobody has a place; if so, nobody takes it within the block."""
        handle = durable.lock(self.place_lock(place))
        try:
            yield handle is not None
        finally:
            if handle is not None:
                durable.unlock(handle)

    def is_vacant(self, place: int) -> bool:
        """Whether nobody has a place now."""
        with self.vacant(place) as vacant:
            return vacant

    def of(self, id: str) -> Path:
        """The folder of a job."""
        return self._jobs / id

    def run(self, id: str) -> Path:
        """The run folder of a job; not there before its work began."""
        return self.of(id) / "run"

    def finished(self, id: str) -> Path:
        """Where the video of a job that has ended is."""
        return self.of(id) / "video.mp4"

    def take_in(self, id: str, file: Path) -> Path:
        """A copy of a file in the job's folder, which is made. Of a file of this service, which never changes, it is a link."""
        folder = self.of(id)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = folder / f"input{file.suffix.lower()}"
        if file.is_relative_to(self.folder):
            target.hardlink_to(file)
        else:
            shutil.copyfile(file, target)
        return target

    def delete(self, id: str) -> None:
        """Everything of a job."""
        shutil.rmtree(self.of(id), ignore_errors=True)

    def delete_strays(self, known: set[str], age: float = 0.0) -> None:
        """What a kill left: folders of no job, and files on their way in. age: seconds since they changed; younger ones stay."""
        latest = time.time() - age
        for folder in self._jobs.iterdir():
            if folder.name not in known and _changed_before(folder, latest):
                shutil.rmtree(folder, ignore_errors=True)
        for file in self.uploads.iterdir():
            if _changed_before(file, latest):
                file.unlink(missing_ok=True)

    def playlist(self, job: Job) -> str:
        """The HLS playlist of what there is; it says of a job that has ended that nothing follows. NotReady without a frame."""
        path = self.run(job.id) / PLAYLIST
        if not path.is_file():
            raise _not_ready(job, "frames")
        text = path.read_text()
        return text if not job.ended or _END in text else f"{text}{_END}\n"

    def segments(self, job: Job) -> list[Path]:
        """The head and the segments that there are, in order; one after the other they are a playable MP4. Empty without a frame."""
        run = self.run(job.id)
        entries = Journal.read(run / JOURNAL).entries
        return [run / INIT, *(run / entry.segment for entry in entries)] if entries else []

    def segment(self, job: Job, name: str) -> Path:
        """One of the files that the playlist names. NotReady if there is no such file."""
        path = self.run(job.id) / name
        if not SEGMENT.fullmatch(name) or not path.is_file():
            raise NotReady(f"{job.id} has no such segment")
        return path

    def video(self, job: Job) -> Path:
        """The video of a job that has ended. NotReady if it has not, or nothing was made of it."""
        path = self.finished(job.id)
        if not job.ended or not path.is_file():
            raise _not_ready(job, "video")
        return path

    def thumbnail(self, job: Job) -> Path:
        """The first frame as WebP. NotReady without a frame."""
        head = self.segments(job)[:2]
        if not head:
            raise _not_ready(job, "frames")
        return self._drawn(self.of(job.id) / "thumbnail.webp", lambda path: _draw_first(head, path))

    def spritesheet(self, job: Job) -> Path:
        """Frames of the whole video, evenly spaced, on one JPEG. NotReady before the job has ended."""
        video, every = self.video(job), max(1, -(-job.frames_done // _SPRITES))
        return self._drawn(self.of(job.id) / "spritesheet.jpg", lambda path: contact_sheet(read_video(video), path, every=every))

    def _drawn(self, path: Path, draw: Callable[[Path], None]) -> Path:
        with self._drawing:
            if not path.is_file():  # in a folder of its own, since another server may draw the same
                with tempfile.TemporaryDirectory(prefix=".drawing-", dir=path.parent) as folder:
                    draw(Path(folder) / path.name)
                    os.replace(Path(folder) / path.name, path)
        return path


def _draw_first(head: list[Path], path: Path) -> None:
    clip = path.with_suffix(".mp4")
    durable.write_unsynced(clip, b"".join(part.read_bytes() for part in head))
    (first,) = islice(read_video(clip), 1)
    save_picture(Image.fromarray(first), path)


def _changed_before(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime <= moment
    except FileNotFoundError:  # somebody else was quicker
        return False


def _not_ready(job: Job, what: str) -> NotReady:
    if job.ended:
        return NotReady(f"{job.id} is {job.status} and has no {what}")
    return NotReady(f"{job.id} is {job.status} and has no {what} yet; {job.progress} % are done")
