"""Data sets of captioned clips: the protocol for recipes, and a folder of videos that follows it."""

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import MediaError, RequestError
from ..video.moments import frames_at, seconds_of

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif"})
LISTS = ("metadata.csv", "metadata.jsonl", "captions.csv", "captions.jsonl")
FILE_COLUMNS, CAPTION_COLUMNS = ("file_name", "file", "video", "path"), ("caption", "text", "prompt")


@dataclass(frozen=True)
class Clip:
    """Frames of one video and its caption.

    frames_TCHW: float32 in [-1, 1]. weight_THW: importance of each pixel in the loss, 0 or more; None: equal.
    """

    frames_TCHW: torch.Tensor
    caption: str
    weight_THW: torch.Tensor | None = None


class ClipDataset(Protocol):
    """A source of captioned clips."""

    @property
    def key(self) -> str:
        """Identity of the contents: data sets with other clips have other keys."""

    def draw(self, rng: np.random.Generator, offsets: Sequence[int], height: int, width: int) -> Clip:
        """Draw a clip, by `rng` alone: from one video, the frames `offsets` (0 or more) after a random start.

        Offsets count frames at the model's rate.
        """


class VideoFolder:
    """A `ClipDataset` of captioned video files.

    path: a folder with a NAME.txt beside each video or with one of `LISTS`, or such a list, with paths
    relative to it. A list has a file and a caption per row (column names: `FILE_COLUMNS`, `CAPTION_COLUMNS`).
    fps: the model's rate; other videos are resampled. seconds: length of the shortest usable video; `short`
    lists the rest. RequestError unless at least one captioned video is long enough.
    """

    def __init__(self, path: Path, fps: int, seconds: float):
        self.path, self.fps = path, fps
        captioned = list(_captioned(path))
        lengths = [_length(file) for file, _ in captioned]
        self.videos = [
            (*pair, length) for pair, length in zip(captioned, lengths, strict=True) if length >= seconds
        ]
        self.short = [file for (file, _), length in zip(captioned, lengths, strict=True) if length < seconds]
        if not self.videos:
            raise RequestError(
                "data",
                str(path),
                f"training takes clips of {seconds:.2f} s, the longest of {len(captioned)} videos has "
                f"{max(lengths):.2f} s; give longer ones, or reach further back by less (reach)",
            )

    @property
    def key(self) -> str:
        videos = ((file.relative_to(self._root), text, length) for file, text, length in self.videos)
        listing = json.dumps([[str(file), text, round(length, 3)] for file, text, length in videos])
        return hashlib.sha256(listing.encode()).hexdigest()[:16]

    def draw(self, rng: np.random.Generator, offsets: Sequence[int], height: int, width: int) -> Clip:
        file, caption, length = self.videos[int(rng.integers(len(self.videos)))]
        start = rng.uniform(0, max(0.0, length - (max(offsets) + 1) / self.fps))
        frames_THWC = torch.from_numpy(
            frames_at(file, [start + offset / self.fps for offset in offsets], height, width)
        )
        return Clip(frames_THWC.permute(0, 3, 1, 2).float() / 127.5 - 1.0, caption)

    @property
    def _root(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent


def _captioned(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield (video, caption). RequestError for no videos or a missing caption."""
    lists = [path / name for name in LISTS if (path / name).is_file()] if path.is_dir() else [path]
    if len(lists) > 1:
        fix = f"holds {' and '.join(one.name for one in lists)}; keep one list of captions, or name it"
        raise RequestError("data", str(path), fix)
    if lists:
        yield from _listed(lists[0])
        return
    videos = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not videos:
        raise RequestError(
            "data", str(path), f"holds no video; there must be some of {', '.join(sorted(SUFFIXES))}"
        )
    for video in videos:
        if not video.with_suffix(".txt").is_file():
            own = video.with_suffix(".txt").name
            fix = f"write it to {own} beside it, or all of them to {LISTS[0]}"
            raise RequestError("data", str(path), f"{video.name} has no caption; {fix}")
        yield video, video.with_suffix(".txt").read_text(encoding="utf-8").strip()


def _listed(path: Path) -> Iterator[tuple[Path, str]]:
    rows = list(_rows(path))
    if not rows:
        raise RequestError(
            "data", str(path), f"lists no video; write rows of {FILE_COLUMNS[0]} and {CAPTION_COLUMNS[0]}"
        )
    for number, row in enumerate(rows, 1):
        name, caption = (
            next((row[key] for key in keys if row.get(key)), None) for keys in (FILE_COLUMNS, CAPTION_COLUMNS)
        )
        if not isinstance(name, str) or not isinstance(caption, str):
            fix = f"row {number} needs {FILE_COLUMNS[0]} and {CAPTION_COLUMNS[0]}, both as text"
            raise RequestError("data", str(path), fix)
        if not (path.parent / name).is_file():
            fix = f"row {number} names {name}, which is not there; paths are relative to the list"
            raise RequestError("data", str(path), fix)
        yield path.parent / name, caption.strip()


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV or JSONL file. RequestError for other or broken files."""
    if path.suffix not in (".csv", ".jsonl") or not path.is_file():
        fix = "must be a folder of videos with captions, or a .csv or .jsonl file that lists them"
        raise RequestError("data", str(path), fix)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                yield from csv.DictReader(file)
                return
            for line in filter(str.strip, file):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"{line.strip()[:40]} is no object")
                yield row
    except (ValueError, csv.Error) as error:
        raise RequestError(
            "data", str(path), f"cannot be read as {path.suffix[1:].upper()} in UTF-8: {error}"
        ) from error


def _length(file: Path) -> float:
    try:
        return seconds_of(file)
    except MediaError as error:
        raise RequestError("data", str(file), str(error).removeprefix(f"{file}: ")) from error
