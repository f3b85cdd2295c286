"""Borders of a video's chunks, from its file's metadata or as given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import MediaError, RequestError
from ..runs.folder import REQUEST, VIDEO
from ..runs.header import Header
from ..video.writer import read_metadata


@dataclass(frozen=True)
class Grid:
    """Chunks of `chunk` frames, `overlap` of them shown before, as `Request` tells it. first: the second chunk's first frame, None for
    `chunk`. new_frames: of a video that was extended, how many it was extended by; they begin a grid of their own.
    """

    chunk: int
    overlap: int
    first: int | None = None
    new_frames: int | None = None

    def __post_init__(self) -> None:
        if self.chunk < 2:
            raise RequestError("chunk", self.chunk, "must be 2 or more")
        if not 0 <= self.overlap < self.chunk:
            raise RequestError("overlap", self.overlap, f"must be 0 or more and below --chunk {self.chunk}")

    def borders(self, frames: int) -> range:
        """The frames, of so many, that begin a chunk which follows another."""
        start = self.chunk if self.first is None else self.first
        if self.new_frames is not None:
            start = frames - self.new_frames
        return range(start, frames, self.chunk - self.overlap)


def grid_of(video: Path) -> Grid | None:
    """The grid of a file that this package has made; None of any other, and of an endless one. MediaError if it is no video."""
    made = read_metadata(video)
    try:
        chunk, overlap = int(made["chunk"]), int(made["overlap"])
        new_frames = int(made["num_frames"]) if made.get("video") is not None else None
    except (KeyError, TypeError, ValueError):
        return None
    return Grid(chunk, overlap, 1 if made.get("image") is not None else None, new_frames)


def prompt_of(video: Path) -> str | None:
    """The prompt that a file of this package was made from; None of any other, and where a schedule made it from several."""
    made = read_metadata(video)
    prompt = made.get("prompt")
    return prompt if isinstance(prompt, str) and not made.get("schedule") else None


def video_of(path: Path) -> Path:
    """A video file as it is; of a run folder, the file that it has finished. MediaError if it has none."""
    if not (path / REQUEST).is_file():
        return path
    told = Header.read(path / REQUEST).output
    for file in (path / VIDEO, *([Path(told)] if told else [])):
        if file.is_file():
            return file
    raise MediaError(f"{path}: the run has no finished video; finish it first: streamingt2v resume {path}")
