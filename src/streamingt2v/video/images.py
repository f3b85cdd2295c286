"""Images that show a whole video: a contact sheet, and a slice through time. Both stream the frames."""

import math
from collections.abc import Iterable
from itertools import islice
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from ..durable import replacing
from ..errors import MediaError, RequestError, RunError
from .reader import Frame

MOST_TILES, MOST_ROWS, MOST_PIXELS = 2048, 2**14, 2**25
"""Limits of a sheet, a slice, an enlarged slice; longer videos show every second, fourth, ... frame."""

READABLE = 512
"""Smallest width of a slice, largest width of a thumbnail on the sheet, in pixels."""


def contact_sheet(
    frames: Iterable[Frame], path: str | PathLike[str], columns: int = 8, every: int = 8
) -> None:
    """Write every `every`-th frame, `columns` to a row, as an image of the type that the suffix names.

    frames: uint8 (H, W, 3). MediaError without a frame, RunError if the file cannot be written.
    """
    for name, value in (("columns", columns), ("every", every)):
        if value < 1:
            raise RequestError(name, value, "must be 1 or more")
    tiles = [_thumbnail(frame) for frame in _thinned(islice(frames, 0, None, every), MOST_TILES)]
    if not tiles:
        raise MediaError(f"{path}: there are no frames to show")
    columns = min(columns, len(tiles))
    height, width = tiles[0].shape[:2]
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height))
    for i, tile in enumerate(tiles):
        sheet.paste(Image.fromarray(tile), (i % columns * width, i // columns * height))
    save_picture(sheet, path)


def xt_slice(frames: Iterable[Frame], path: str | PathLike[str]) -> None:
    """Write the middle row of every frame, one below the other: time goes down, a seam is a line across.

    frames: uint8 (H, W, 3). Narrow videos are enlarged by whole pixels. MediaError without a frame,
    RunError if the file cannot be written.
    """
    rows = _thinned((frame[len(frame) // 2] for frame in frames), MOST_ROWS)
    if not rows:
        raise MediaError(f"{path}: there are no frames to show")
    image = Image.fromarray(np.stack(rows))
    scale = max(1, min(-(-READABLE // image.width), math.isqrt(MOST_PIXELS // (image.width * image.height))))
    save_picture(image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST), path)


class Thinned:
    """Keep all items, or of more than `most` every second, fourth, ...: memory stays bounded."""

    def __init__(self, most: int):
        self.kept: list[Frame] = []
        self.step, self.count, self._most = 1, 0, most

    def add(self, item: Frame) -> None:
        """Take the next item; a view is copied when it is kept."""
        if self.count % self.step == 0:
            self.kept.append(item.copy())
        self.count += 1
        if len(self.kept) > self._most:
            self.kept, self.step = self.kept[::2], 2 * self.step


def _thinned(items: Iterable[Frame], most: int) -> list[Frame]:
    thinned = Thinned(most)
    for item in items:
        thinned.add(item)
    return thinned.kept


def _thumbnail(frame: Frame) -> Frame:
    image = Image.fromarray(frame)
    image.thumbnail((READABLE, READABLE))
    return np.array(image)


def save_picture(image: Image.Image, path: str | PathLike[str]) -> None:
    """Write an image atomically in the suffix's format. RequestError if unknown, RunError on failure."""
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise RequestError("path", str(path), "must end in .png, .jpg or another image format")
    try:
        with replacing(path) as part:
            image.save(part, format=kind)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
