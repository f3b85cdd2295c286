"""Files of a service: a folder for its database and locks, and one for each job.

    jobs.sqlite3            the jobs, see `store`
    lock, place-0.lock      held by the service, and by whoever has that place: a worker, or the service itself
    reserve                 room for what has to be written on a full disk, see `room`
    uploads/                files on their way in
    jobs/ID/input.*         the picture or video that the job starts from
    jobs/ID/run/            its run folder, see `io.run`: segments and playlist of what there is of the video so far
    jobs/ID/frames/         of a preview, its frames without loss, see `kept`
    jobs/ID/video.mp4       the finished video; of a cancelled one what there was
    jobs/ID/*.webp, *.jpg   stills of it, made when they are first asked for

No name in it comes from a client: ids are made here, and those that clients send are looked up. Other users of the machine cannot look into
it. What is deleted is what was made here and noted before it was made; a file that somebody else put there stays.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from .kept import KeptFrames
from .room import StorageError, explained

log = logging.getLogger(__name__)
ID = re.compile(r"video_[0-9a-f]{24}")
SEGMENT = re.compile(r"init\.mp4|seg_\d{5,}\.m4s")
_SPRITES = 64  # frames in a sheet, about
_END = "#EXT-X-ENDLIST"


class NotReady(RunError):
    """The file is not made yet, or never will be."""


class ServiceFiles:
    """The folder of a service."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.database, self.lock, self.uploads = folder / "jobs.sqlite3", folder / "lock", folder / "uploads"
        self._jobs = folder / "jobs"
        self._drawing = threading.Lock()

    def make(self) -> None:
        """Make what is missing, for this user alone. StorageError if that is not possible, or the folder holds something else."""
        with explained(self.folder / "jobs"):
            self._check_ours()
            for path in (self.folder, self._jobs, self.uploads):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
                _close_to_others(path)

    def hold(self, shared: bool) -> int | None:
        """The handle of the folder's lock; None if somebody else holds it. Before `make`: by its lock a folder is known as ours."""
        with explained(self.lock):
            self._check_ours()
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return durable.lock(self.lock, shared, mode=0o600)

    def _check_ours(self) -> None:
        """Without a database, nothing but what a start that was cut short, or the loss of the database, can have left is ours."""
        names = (
            {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
            if self.folder.exists()
            else set()
        )
        names.discard("lost+found")
        was_here = self.lock.is_file() and self.lock.stat().st_size == 0
        if names and not was_here and not self.database.is_file():
            raise StorageError(
                f"{self.folder}: holds {min(names)} and no jobs; take an empty or a new folder to keep them in"
            )

    def place_lock(self, place: int) -> Path:
        """Held by whoever has that place."""
        return self.folder / f"place-{place}.lock"

    def take_place(self, place: int) -> int | None:
        """The handle of a place's lock; None if somebody has it."""
        with explained(self.place_lock(place)):
            return durable.lock(self.place_lock(place), mode=0o600)

    @contextmanager
    def vacant(self, place: int) -> Iterator[bool]:
        """Return whether nobody has a place; if so, nobody takes it within the block."""
        handle = self.take_place(place)
        try:
            yield handle is not None
        finally:
            if handle is not None:
                durable.unlock(handle)

    def is_vacant(self, place: int) -> bool:
        """Return whether nobody has a place now."""
        with self.vacant(place) as vacant:
            return vacant

    def of(self, id: str) -> Path:
        """The folder of a job. StorageError for an id that was not made here, from a file that is damaged."""
        if not ID.fullmatch(id):
            raise StorageError(f"{id!r} is no id of a job")
        return self._jobs / id

    def run(self, id: str) -> Path:
        """The run folder of a job; not there before its work began."""
        return self.of(id) / "run"

    def kept(self, id: str) -> KeptFrames:
        """The frames of a preview as they were made."""
        return KeptFrames(self.of(id) / "frames")

    def largest(self, id: str) -> int:
        """Bytes of the largest file of its run folder; 0 without one."""
        run = self.run(id)
        with suppress(FileNotFoundError):
            return max((entry.stat().st_size for entry in os.scandir(run)), default=0)
        return 0

    def finished(self, id: str) -> Path:
        """Return where the video of a job that has ended is."""
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
        """Everything of a job. StorageError if some of it stays."""
        with explained(self.of(id)):
            _remove(self.of(id))

    def delete_upload(self, name: str) -> None:
        """A file on its way in; it may have got a suffix."""
        for file in self.uploads.glob(f"{name}*"):
            file.unlink(missing_ok=True)

    def delete_strays(self, begun: set[str], known: set[str], age: float = 0.0) -> set[str]:
        """Delete folders and uploads that a kill left and that belong to no job; return those that are done with.

        age: seconds since they changed; younger ones stay. Whatever else is there stays as well, and is told about.
        """
        latest, done, others = time.time() - age, set(), []
        for path in (*self._jobs.iterdir(), *self.uploads.iterdir()):
            name = path.name if path.parent == self._jobs else path.stem
            if name in begun - known and _changed_before(path, latest):
                _remove(path)
                done.add(name)
            elif name not in begun | known:
                others.append(path)
        if others:
            log.warning(
                "%s and %d more are of no job that is known here; they stay", others[0], len(others) - 1
            )
        return done

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
        return self._drawn(
            self.of(job.id) / "spritesheet.jpg",
            lambda path: contact_sheet(read_video(video), path, every=every),
        )

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


def _remove(path: Path) -> None:
    """A folder with all that is in it, or a file; of a link the link alone. Nothing happens if it is not there."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:  # somebody else was quicker
        if path.exists():  # with what is in it
            shutil.rmtree(path)


def _close_to_others(folder: Path) -> None:
    if folder.stat().st_mode & 0o077:
        try:
            folder.chmod(0o700)
        except PermissionError:
            log.warning("%s belongs to another user, and others may look into it", folder)


def _changed_before(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime <= moment
    except FileNotFoundError:  # somebody else was quicker
        return False


def _not_ready(job: Job, what: str) -> NotReady:
    if job.ended:
        return NotReady(f"{job.id} is {job.status} and has no {what}")
    return NotReady(f"{job.id} is {job.status} and has no {what} yet; {job.progress} % are done")
