"""Strips of frames and sheets of many videos."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np
from PIL import Image

from streamingt2v.video.reader import Frame

COUNT = 8
"""Frames of a strip: evenly spaced, including first and last."""


class Strip:
    """Take `COUNT` frames out of a stream of `total`."""

    def __init__(self, total: int):
        self._wanted = [round(i * (total - 1) / (COUNT - 1)) for i in range(COUNT)]
        self._kept: dict[int, Frame] = {}
        self._index = 0

    def add(self, frame_HWC: Frame) -> None:
        """Add the next frame."""
        if self._index in self._wanted:
            self._kept[self._index] = frame_HWC
        self._index += 1

    @property
    def picture(self) -> np.ndarray:
        """Return the strip, uint8 (H, COUNT W, 3)."""
        return np.concatenate([self._kept[index] for index in self._wanted], 1)


def frame_of(strip_HWC: np.ndarray, number: int) -> np.ndarray:
    """Return one frame of a strip."""
    return np.split(strip_HWC, COUNT, 1)[number]


def draw_sheet(pictures_HWC: Sequence[np.ndarray], columns: int, path: str | PathLike[str]) -> None:
    """Save images of one size as a PNG, row by row, padded with white."""
    blank = np.full_like(pictures_HWC[0], 255)
    cells = [*pictures_HWC, *[blank] * (-len(pictures_HWC) % columns)]
    rows = [np.concatenate(cells[i : i + columns], 1) for i in range(0, len(cells), columns)]
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)
