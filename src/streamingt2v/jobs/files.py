"""Files of a service: a folder for its database and locks, and one for each job.

    jobs.sqlite3            the jobs, see `store`
    lock, place-0.lock      held by the service, and by the worker or service in that place
    reserve                 disk space for changes that must succeed on a full disk, see `room`
    uploads/                incoming files
    jobs/ID/input.*         the image or video that the job starts from
    jobs/ID/run/            its run folder, see `runs.folder`: segments and playlist of the frames so far
    jobs/ID/frames/         lossless frames of a preview, see `kept`
    jobs/ID/video.mp4       the finished video; for a cancelled job the frames so far
    jobs/ID/*.webp, *.jpg   stills, created on first request

No name comes from a client: ids are generated here and looked up. Other users cannot read the folder. Only
files whose names were recorded before they were created are deleted; anybody else's files stay.
"""

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
_SPRITES = 64  # frames on a contact sheet, about
_END = "#EXT-X-ENDLIST"


class NotReady(RunError):
    """The file does not exist yet, or never will."""


class ServiceFiles:
    """The folder of a service."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.database, self.lock, self.uploads = folder / "jobs.sqlite3", folder / "lock", folder / "uploads"
        self._jobs = folder / "jobs"
        self._drawing = threading.Lock()

    def make(self) -> None:
        """Create missing folders with mode 0700.

        Raises StorageError if that fails or the folder holds foreign files.
        """
        with explained(self.folder / "jobs"):
            self._check_ours()
            for path in (self.folder, self._jobs, self.uploads):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
                _close_to_others(path)

    def hold(self, shared: bool) -> int | None:
        """Return a handle of the folder's lock; None if another service holds it.

        Call before `make`: the lock file marks the folder as ours.
        """
        with explained(self.lock):
            self._check_ours()
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return durable.lock(self.lock, shared, mode=0o600)

    def _check_ours(self) -> None:
        """Raise StorageError if the folder has neither our database nor our lock file, but other files."""
        if not self.folder.exists():
            return
        names = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        names.discard("lost+found")
        has_lock = self.lock.is_file() and self.lock.stat().st_size == 0
        if names and not has_lock and not self.database.is_file():
            raise StorageError(
                f"{self.folder}: holds {min(names)} and no jobs; take an empty or a new folder"
            )

    def place_lock(self, place: int) -> Path:
        """Return the lock file of a place."""
        return self.folder / f"place-{place}.lock"

    def take_place(self, place: int) -> int | None:
        """Lock a place; return the handle, or None if it is taken."""
        with explained(self.place_lock(place)):
            return durable.lock(self.place_lock(place), mode=0o600)

    @contextmanager
    def vacant(self, place: int) -> Iterator[bool]:
        """Yield True and keep a place locked for the block if it is free; else yield False."""
        handle = self.take_place(place)
        try:
            yield handle is not None
        finally:
            if handle is not None:
                durable.unlock(handle)

    def is_vacant(self, place: int) -> bool:
        """Return whether a place is free now."""
        with self.vacant(place) as vacant:
            return vacant

    def of(self, id: str) -> Path:
        """Return the folder of a job.

        Raises StorageError for an id that was not generated here (a damaged row).
        """
        if not ID.fullmatch(id):
            raise StorageError(f"{id!r} is no id of a job")
        return self._jobs / id

    def run(self, id: str) -> Path:
        """Return the run folder of a job; it appears when work begins."""
        return self.of(id) / "run"

    def kept(self, id: str) -> KeptFrames:
        """Return the lossless frames of a preview."""
        return KeptFrames(self.of(id) / "frames")

    def largest(self, id: str) -> int:
        """Return the size in bytes of the largest file in a job's run folder; 0 without one."""
        run = self.run(id)
        with suppress(FileNotFoundError):
            return max((entry.stat().st_size for entry in os.scandir(run)), default=0)
        return 0

    def finished(self, id: str) -> Path:
        """Return the path of the video of a job that has ended."""
        return self.of(id) / "video.mp4"

    def take_in(self, id: str, file: Path) -> Path:
        """Copy a file into the job's folder, which is created.

        Files of this service never change: link them.
        """
        folder = self.of(id)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = folder / f"input{file.suffix.lower()}"
        if file.is_relative_to(self.folder):
            target.hardlink_to(file)
        else:
            shutil.copyfile(file, target)
        return target

    def upload_bytes(self) -> int:
        """Return the bytes of all incoming files and of those that jobs start from."""
        sizes = {}
        for path in (*self.uploads.iterdir(), *self._jobs.glob("*/input.*")):
            with suppress(FileNotFoundError):
                info = path.stat()
                sizes[info.st_ino] = info.st_size  # a job's input may be a link to an incoming file
        return sum(sizes.values())

    def delete(self, id: str) -> None:
        """Delete all files of a job. Raises StorageError if some remain."""
        with explained(self.of(id)):
            _remove(self.of(id))

    def delete_upload(self, name: str) -> None:
        """Delete an incoming file, whatever suffix it got."""
        for file in self.uploads.glob(f"{name}*"):
            file.unlink(missing_ok=True)

    def delete_strays(self, begun: set[str], known: set[str], age: float = 0.0) -> set[str]:
        """Delete job folders and uploads that a kill left without a job; return their names.

        begun: names recorded by `JobStore.begin`. known: ids of jobs. age: leave items changed in the last
        `age` seconds. Unknown items stay and are logged.
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
                "%s and %d more belong to no job that is known here; they stay", others[0], len(others) - 1
            )
        return done

    def playlist(self, job: Job) -> str:
        """Return the HLS playlist so far, closed if the job has ended.

        Raises NotReady before the first frame.
        """
        path = self.run(job.id) / PLAYLIST
        if not path.is_file():
            raise _not_ready(job, "frames")
        text = path.read_text(errors="replace")
        return text if not job.ended or _END in text else f"{text}{_END}\n"

    def segments(self, job: Job) -> list[Path]:
        """Return the init segment and all media segments in order: concatenated they are a playable MP4.

        Empty at first.
        """
        run = self.run(job.id)
        entries = Journal.read(run / JOURNAL).entries
        return [run / INIT, *(run / entry.segment for entry in entries)] if entries else []

    def segment(self, job: Job, name: str) -> Path:
        """Return the path of a segment that the playlist names. Raises NotReady if there is none."""
        path = self.run(job.id) / name
        if not SEGMENT.fullmatch(name) or not path.is_file():
            raise NotReady(f"{job.id} has no such segment")
        return path

    def video(self, job: Job) -> Path:
        """Return the video of a job that has ended. Raises NotReady if it has not, or has no frames."""
        path = self.finished(job.id)
        if not job.ended or not path.is_file():
            raise _not_ready(job, "video")
        return path

    def thumbnail(self, job: Job) -> Path:
        """Return the first frame as WebP. Raises NotReady before the first frame."""
        head = self.segments(job)[:2]
        if not head:
            raise _not_ready(job, "frames")
        return self._drawn(self.of(job.id) / "thumbnail.webp", lambda path: _draw_first(head, path))

    def spritesheet(self, job: Job) -> Path:
        """Return a JPEG contact sheet of evenly spaced frames. Raises NotReady before the job has ended."""
        video, every = self.video(job), max(1, -(-job.frames_done // _SPRITES))
        return self._drawn(
            self.of(job.id) / "spritesheet.jpg",
            lambda path: contact_sheet(read_video(video), path, every=every),
        )

    def _drawn(self, path: Path, draw: Callable[[Path], None]) -> Path:
        with self._drawing:
            if not path.is_file():  # in a temporary folder: another server may draw the same still
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
    """Delete a folder, a file or a link (not its target) if it exists."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:  # another process deletes it too
        if path.exists():
            shutil.rmtree(path)


def _close_to_others(folder: Path) -> None:
    if folder.stat().st_mode & 0o077:
        try:
            folder.chmod(0o700)
        except PermissionError:
            log.warning("%s belongs to another user, and others may read it", folder)


def _changed_before(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime <= moment
    except FileNotFoundError:  # another process deleted it
        return False


def _not_ready(job: Job, what: str) -> NotReady:
    if job.ended:
        return NotReady(f"{job.id} is {job.status} and has no {what}")
    return NotReady(f"{job.id} is {job.status} and has no {what} yet; {job.progress} % are done")
