"""Identify an untrusted file by its content, and decode it completely within limits.

Decoding runs in a child process with limited memory and time (`python -m streamingt2v.jobs.inspection PATH
KIND PIXELS SECONDS`), so a decompression bomb or a decoder crash ends only that process. A file that exceeds
the limits is refused, because later readers have none.

The parent watches the memory instead of capping it: decoders report a failed allocation as damage and skip
it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import MediaError
from ..video.kinds import HEAD_BYTES, kind_of
from ..video.rates import Rate, rate_of, rate_to_json
from .job import QueueFull
from .settings import Limits

if TYPE_CHECKING:
    from ..video.container import Decoded
    from ..video.look import Look

Kind = Literal["image", "video"]
MEMORY_BYTES = 3 * 2**30
"""Address space, most of it unused: libraries alone reserve some hundred megabytes."""

WITHHELD_BYTES = 4 * MEMORY_BYTES  # hard limit, for growth between two looks of the parent
CPU_SECONDS = 60
LOOK_SECONDS = 0.01
AT_ONCE = 2
"""Concurrent inspections; each may take `MEMORY_BYTES`."""

WAITING = 8
"""Files that may wait; more are refused."""

_HIGHEST_RATE = 120  # frames a second, to limit the length of a file that declares more or none
_OUT_OF_MEMORY = "the file cannot be read with the memory there is for it"


@dataclass(frozen=True)
class Found:
    """A file's kind.

    suffix: with the dot. frames: of a video, else 1. rate: frames a second of a video, None if unknown.
    """

    kind: Kind
    suffix: str
    frames: int = 1
    rate: Rate | None = None


def identify(head: bytes) -> Found:
    """Identify a file by its first `HEAD_BYTES`, see `video.kinds`.

    Raises MediaError if it is no image or video.
    """
    kind = kind_of(head)
    if kind is None:
        raise MediaError(
            "the file is neither an image (PNG, JPEG, WebP, ...) nor a video (MP4, MOV, WebM, Matroska, ...)"
            " of a known kind"
        )
    return Found(kind.media, kind.suffix)


def identify_file(path: Path) -> Found:
    """Identify a file."""
    with path.open("rb") as file:
        return identify(file.read(HEAD_BYTES))


def inspect(path: Path, found: Found, limits: Limits) -> Found:
    """Decode a file completely; count a video's frames, and call an animation of one frame an image.

    Raises MediaError if decoding fails or exceeds the limits, QueueFull if too many files wait.
    """
    command = [sys.executable, "-m", "streamingt2v.jobs.inspection", str(path), found.kind]
    command += [str(limits.upload_pixels), str(limits.upload_seconds)]
    with _turns.taken():
        said = _watched(command)
    try:
        answer = json.loads(said)
    except ValueError as error:
        raise MediaError("the file cannot be read with the memory and time there is for it") from error
    if answer["memory"] > MEMORY_BYTES:
        raise MediaError(_OUT_OF_MEMORY)
    if "error" in answer:
        raise MediaError(answer["error"])
    return Found(answer["kind"], found.suffix, answer["frames"], rate_of(answer["rate"]))


def _watched(command: list[str]) -> bytes:
    """Return the output of a process. Raises MediaError if it takes too much memory or time."""
    deadline = time.monotonic() + 4 * CPU_SECONDS
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return process.communicate(timeout=LOOK_SECONDS)[0]
                if time.monotonic() > deadline:
                    raise MediaError("the file takes too long to read")
                if _memory(process.pid, "VmSize") > MEMORY_BYTES:
                    raise MediaError(_OUT_OF_MEMORY)
        finally:
            process.kill()


def _memory(process: int | str, name: str) -> int:
    """Return a field of a process's status in bytes (Linux); 0 where it is not available."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


class _Turns:
    """Let `at_once` callers run and `waiting` more wait."""

    def __init__(self, at_once: int, waiting: int):
        self._running = threading.BoundedSemaphore(at_once)
        self._here = threading.BoundedSemaphore(at_once + waiting)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a turn for the block. Raises QueueFull if too many wait."""
        if not self._here.acquire(blocking=False):
            raise QueueFull(AT_ONCE + WAITING, "files are being read")
        try:
            with self._running:
                yield
        finally:
            self._here.release()


_turns = _Turns(AT_ONCE, WAITING)


def _read(path: Path, kind: Kind, pixels: int, seconds: int) -> Found:
    """Decode a file completely."""
    from ..video.reader import read_image

    if kind == "video":
        seen = _read_video(path, pixels, seconds)
        if seen.frames > 1 or path.suffix not in _MAY_BE_STILL:
            return Found("video", path.suffix, seen.frames, seen.rate)
    read_image(path, 8, 8)  # has its own pixel limit, above those of photographs
    return Found("image", path.suffix)


_MAY_BE_STILL = {".gif", ".png", ".webp", ".avif"}


def _read_video(path: Path, pixels: int, seconds: int) -> Look:
    from ..video.container import is_moving_image, open_video
    from ..video.look import look_closely
    from ..video.stills import Picture

    rate = None
    if not is_moving_image(path):
        with open_video(path) as (_, stream):
            _check_size(stream.width, stream.height, pixels)
            rate = stream.average_rate or stream.guessed_rate
    most = int(seconds * min(max(rate or _HIGHEST_RATE, 1), _HIGHEST_RATE))

    def check(frame: Decoded, count: int) -> None:
        height, width = frame.pixels.shape[:2] if isinstance(frame, Picture) else (frame.height, frame.width)
        _check_size(width, height, pixels)
        if count > most:
            raise MediaError(f"the video is longer than {seconds} s, the limit")

    return look_closely(path, check)


def _check_size(width: int, height: int, pixels: int) -> None:
    if width * height > pixels:
        raise MediaError(f"{width}x{height} is more than {pixels} pixels, the limit; scale it down")


def main() -> int:
    """Inspect one file within the limits and print the result as JSON."""
    path, kind, pixels, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    # without /proc the parent cannot watch, so cap the memory
    most = WITHHELD_BYTES if _memory("self", "VmPeak") else MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    try:
        found = _read(path, "image" if kind == "image" else "video", pixels, seconds)
        rate = None if found.rate is None else rate_to_json(found.rate)
        answer: dict[str, object] = {"kind": found.kind, "frames": found.frames, "rate": rate}
    except (MediaError, OSError, ValueError, SyntaxError) as error:
        answer = {"error": str(error).replace(f"{path}: ", "").replace(str(path), "the file")}
    except MemoryError:
        answer = {"error": _OUT_OF_MEMORY}
    print(json.dumps(answer | {"memory": _memory("self", "VmPeak")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
