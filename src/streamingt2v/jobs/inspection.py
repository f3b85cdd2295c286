"""What a file that a stranger sent is, by its content, and whether it can be read to its end within limits.

Decoding happens in a process of its own with little memory and time: a file that is made to blow up, or to crash a decoder, ends that
process and nothing else. `python -m streamingt2v.jobs.inspection PATH KIND PIXELS SECONDS` is that process.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import MediaError
from .settings import Limits

Kind = Literal["image", "video"]
MEMORY_BYTES = 3 * 2**30
CPU_SECONDS = 60
_BRANDS_OF_PICTURES = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_HIGHEST_RATE = 120  # frames a second that a file's length is counted with where it names more or none


@dataclass(frozen=True)
class Found:
    """What a file is. suffix: with the dot. frames: of a video, else 1."""

    kind: Kind
    suffix: str
    frames: int = 1


def identify(head: bytes) -> Found:
    """What begins with these bytes, 16 or more: a PNG, JPEG or WebP picture, an MP4, MOV, WebM or Matroska video. Else a MediaError."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return Found("image", ".png")
    if head.startswith(b"\xff\xd8\xff"):
        return Found("image", ".jpg")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Found("image", ".webp")
    if head[4:8] == b"ftyp" and head[8:12] not in _BRANDS_OF_PICTURES:
        return Found("video", ".mov" if head[8:12] == b"qt  " else ".mp4")
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return Found("video", ".mkv")
    raise MediaError("the file is no PNG, JPEG or WebP picture and no MP4, MOV, WebM or Matroska video")


def inspect(path: Path, found: Found, limits: Limits) -> Found:
    """The same with its frames counted, once the file has been decoded to its end. MediaError if that fails or is beyond the limits."""
    command = [sys.executable, "-m", "streamingt2v.jobs.inspection", str(path), found.kind]
    command += [str(limits.upload_pixels), str(limits.upload_seconds)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=4 * CPU_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise MediaError("the file takes too long to read") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise MediaError("the file cannot be read with the memory and time there is for it") from error
    if "error" in answer:
        raise MediaError(answer["error"])
    return Found(found.kind, found.suffix, answer["frames"])


def _read(path: Path, kind: Kind, pixels: int, seconds: int) -> int:
    """Decode all of it; the number of frames."""
    if kind == "image":
        _read_image(path, pixels)
        return 1
    return _read_video(path, pixels, seconds)


def _read_image(path: Path, pixels: int) -> None:
    from PIL import Image

    from ..video.reader import read_image

    Image.MAX_IMAGE_PIXELS = None  # our own limit is told better
    with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
        _check_size(image.width, image.height, pixels)
    read_image(path, 8, 8)


def _read_video(path: Path, pixels: int, seconds: int) -> int:
    from ..video.reader import open_video, probe_video, read_video

    with open_video(path) as (_, stream):
        _check_size(stream.width, stream.height, pixels)
    rate = probe_video(path).fps or _HIGHEST_RATE
    most = int(seconds * min(max(rate, 1), _HIGHEST_RATE))
    count = 0
    for frame in read_video(path):
        count += 1
        _check_size(frame.shape[1], frame.shape[0], pixels)
        if count > most:
            raise MediaError(f"the video is longer than the {seconds} s that are taken")
    return count


def _check_size(width: int, height: int, pixels: int) -> None:
    if width * height > pixels:
        raise MediaError(f"{width}x{height} is more than the {pixels} pixels that are taken; scale it down")


def main() -> int:
    """Read one file with little memory and time, and print what was found as JSON."""
    path, kind, pixels, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    try:
        answer: dict[str, object] = {"frames": _read(path, "image" if kind == "image" else "video", pixels, seconds)}
    except (MediaError, OSError, ValueError, SyntaxError) as error:
        answer = {"error": str(error).replace(f"{path}: ", "").replace(str(path), "the file")}
    except MemoryError:
        answer = {"error": "the file cannot be read with the memory there is for it"}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
