"""Find the borders of a video's chunks, by its metadata or as given."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import MediaError, RequestError
from ..runs.folder import REQUEST, VIDEO
from ..runs.header import Header
from ..video.writer import read_metadata


@dataclass(frozen=True)
class Grid:
    """Chunks of `chunk` frames, of which the first `overlap` repeat the chunk before.

    first: the second chunk's first frame, None for `chunk`. new_frames: number of frames that an extension
    added, which begin a grid of their own.
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
        """Return the frames, of so many, where a chunk follows another."""
        start = self.chunk if self.first is None else self.first
        if self.new_frames is not None:
            start = frames - self.new_frames
        return range(start, frames, self.chunk - self.overlap)


def grid_of(video: Path) -> Grid | None:
    """Return the grid of a file made by this package; None for others and for endless ones."""
    made = read_metadata(video)
    try:
        chunk, overlap = int(made["chunk"]), int(made["overlap"])
        new_frames = int(made["num_frames"]) if made.get("video") is not None else None
    except (KeyError, TypeError, ValueError):
        return None
    return Grid(chunk, overlap, 1 if made.get("image") is not None else None, new_frames)


def prompt_of(video: Path) -> str | None:
    """Return the prompt of a file made by this package; None for others, and where a schedule has several."""
    made = read_metadata(video)
    prompt = made.get("prompt")
    return prompt if isinstance(prompt, str) and not made.get("schedule") else None


def video_of(path: Path) -> Path:
    """Return a video file's path itself, a run folder's finished video. MediaError if it has none."""
    if not (path / REQUEST).is_file():
        return path
    output = Header.read(path / REQUEST).output
    for file in (path / VIDEO, *([Path(output)] if output else [])):
        if file.is_file():
            return file
    raise MediaError(f"{path}: the run has no finished video; finish it first: streamingt2v resume {path}")
