"""Two pictures of how videos go on: curves over time with the seams marked, and slices through time side by side.

Drawn with Pillow alone, at twice the size and scaled down, which smooths the lines. Time goes to the right in both, at one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..video.images import save_picture
from ..video.reader import Frame

COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (90, 90, 90))
"""Okabe and Ito's, which colour-blind people tell apart; after the last they begin again."""

TITLES = {
    "change": "change from frame to frame, levels",
    "motion": "motion, pixels a frame",
    "warp_error": "warp error, levels squared",
    "brightness": "brightness, levels",
    "sharpness": "sharpness",
    "colour_distance": "colour, distance from the first frame",
    "anchor": "likeness to the first frame",
    "text_alignment": "likeness to the prompt",
}
INK, PALE, SEAM, FAINT = (40, 40, 40), (225, 225, 225), (140, 140, 140), (205, 205, 205)
WIDTH, LEFT, RIGHT, PANEL, GAP, TOP, BOTTOM = 1000, 64, 24, 110, 34, 30, 40
FINE = 2  # drawn at so many times the size
CLOSEST = 10  # pixels between seams below which they are ticks under the panel instead of lines through it


@dataclass(frozen=True)
class Track:
    """A video in a picture. curves: (T,) by name, NaN for gaps. row_TWC: one row of pixels a frame. borders: frames that begin a chunk."""

    label: str
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    row_TWC: np.ndarray | None = None
    borders: Sequence[int] = ()


class MiddleRows:
    """Collects the middle row of every frame it is shown: what a slice through time is made of."""

    def __init__(self) -> None:
        self._rows: list[Frame] = []

    def add(self, frame_HWC: Frame) -> None:
        self._rows.append(frame_HWC[len(frame_HWC) // 2].copy())

    @property
    def row_TWC(self) -> np.ndarray:
        """uint8 (T, W, 3)."""
        return np.stack(self._rows)


def draw_curves(tracks: Sequence[Track], path: str | PathLike[str]) -> None:
    """Write a panel for every curve that a track has, one line a track, seams of the first track that has some marked."""
    names = [name for name in TITLES if any(name in track.curves for track in tracks)]
    frames = max(len(curve) for track in tracks for curve in track.curves.values())
    sheet = _Sheet(frames, TOP + len(names) * (PANEL + GAP) + BOTTOM - 14)
    sheet.legend([track.label for track in tracks])
    borders = next((track.borders for track in tracks if len(track.borders)), ())
    for index, name in enumerate(names):
        top = TOP + index * (PANEL + GAP) + GAP - 14
        curves = [track.curves.get(name) for track in tracks]
        sheet.panel(top, TITLES[name], curves, borders)
    sheet.time_axis()
    sheet.save(path)


def draw_slices(tracks: Sequence[Track], path: str | PathLike[str], height: int = 96) -> None:
    """Write the middle row of every frame as a column, video under video: a seam is a line down, drift a change from left to right."""
    with_rows = [(track, track.row_TWC) for track in tracks if track.row_TWC is not None]
    frames = max(len(row_TWC) for _, row_TWC in with_rows)
    sheet = _Sheet(frames, len(with_rows) * (height + GAP) + BOTTOM)
    for index, (track, row_TWC) in enumerate(with_rows):
        sheet.strip(index * (height + GAP) + GAP - 8, height, track.label, row_TWC, track.borders)
    sheet.time_axis()
    sheet.save(path)


class _Sheet:
    """A white page with time to the right. Lengths are in pixels of the finished picture."""

    def __init__(self, frames: int, height: int):
        self.frames, self.height = frames, height
        self.image = Image.new("RGB", (WIDTH * FINE, height * FINE), "white")
        self.pen = ImageDraw.Draw(self.image)
        self.marked = False
        self.font = ImageFont.load_default(12 * FINE)

    def x(self, frame: float) -> float:
        """Return where a frame begins."""
        return LEFT + (WIDTH - LEFT - RIGHT) * frame / self.frames

    def text(self, x: float, y: float, text: str, colour: tuple[int, int, int] = INK, anchor: str = "ls") -> None:
        self.pen.text((x * FINE, y * FINE), text, fill=colour, font=self.font, anchor=anchor)

    def line(self, points: Sequence[tuple[float, float]], colour: tuple[int, int, int], width: float = 1) -> None:
        self.pen.line([(x * FINE, y * FINE) for x, y in points], fill=colour, width=round(width * FINE), joint="curve")

    def legend(self, labels: Sequence[str]) -> None:
        x: float = LEFT
        for index, label in enumerate(labels):
            self.line([(x, 14), (x + 18, 14)], _colour(index), 2.5)
            self.text(x + 24, 18, label)
            x += 24 + self.font.getlength(label) / FINE + 24

    def panel(self, top: float, title: str, curves: Sequence[np.ndarray | None], borders: Sequence[int]) -> None:
        low, high, ticks = _scale(np.concatenate([curve for curve in curves if curve is not None]))
        bottom = top + PANEL

        def y(value: float) -> float:
            return bottom - PANEL * (value - low) / (high - low)

        for tick in ticks:
            self.line([(LEFT, y(tick)), (WIDTH - RIGHT, y(tick))], PALE)
            self.text(LEFT - 6, y(tick), f"{tick:g}", anchor="rm")
        self.seams(borders, top, bottom)
        for index, curve in enumerate(curves):
            if curve is not None:
                self.line([(self.x(frame + 0.5), y(value)) for frame, value in _points(curve)], _colour(index), 1.25)
        self.text(LEFT, top - 5, title)

    def strip(self, top: float, height: int, label: str, row_TWC: np.ndarray, borders: Sequence[int]) -> None:
        picture = Image.fromarray(np.ascontiguousarray(row_TWC.transpose(1, 0, 2)))
        size = (round((self.x(len(row_TWC)) - LEFT) * FINE), height * FINE)
        enlarged = size[0] >= picture.width
        self.image.paste(
            picture.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX), (LEFT * FINE, round(top * FINE))
        )
        self.text(LEFT, top - 5, label)
        self.marks(borders, top + height)

    def seams(self, borders: Sequence[int], top: float, bottom: float) -> None:
        """Through the panel, or as ticks below it where they are too close for lines."""
        close = len(borders) > 1 and self.x(borders[1]) - self.x(borders[0]) < CLOSEST
        for x in () if close else map(self.x, borders):
            for y in range(int(top), int(bottom), 8):
                self.line([(x, y), (x, y + 3)], FAINT)
        self.marks(borders, bottom)

    def marks(self, borders: Sequence[int], bottom: float) -> None:
        for x in map(self.x, borders):
            self.line([(x, bottom), (x, bottom + 4)], SEAM)
            self.marked = True

    def time_axis(self) -> None:
        _, _, ticks = _scale(np.array([0.0, self.frames]), 8)
        for tick in ticks:
            if 0 <= tick <= self.frames:
                self.text(self.x(tick), self.height - 18, f"{tick:g}", anchor="ms")
        self.text(WIDTH - RIGHT, self.height - 4, "frame; marks show where chunks begin" if self.marked else "frame", SEAM, anchor="rs")

    def save(self, path: str | PathLike[str]) -> None:
        save_picture(self.image.resize((WIDTH, self.height), Image.Resampling.LANCZOS), path)


def _colour(index: int) -> tuple[int, int, int]:
    return COLOURS[index % len(COLOURS)]


def _scale(values: np.ndarray, most: int = 4) -> tuple[float, float, list[float]]:
    """(low, high, ticks): round numbers, at most `most` steps of them, around all finite values."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    # what varies by less than a thousandth of its size is shown as level
    high = max(high, low + max(1e-3 * abs(low), 1e-6))
    rough = (high - low) / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = float(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999))
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    ticks = [float(round(k * step, 9)) for k in np.arange(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def _points(curve: np.ndarray, most: int = (WIDTH - LEFT - RIGHT) * FINE) -> list[tuple[float, float]]:
    """(frame, value) where there is a value; a curve of more than can be seen is averaged over equal stretches."""
    frames = np.flatnonzero(np.isfinite(curve))
    stretches = np.array_split(frames, min(len(frames), most)) if len(frames) else []
    return [(float(part.mean()), float(curve[part].mean())) for part in stretches]
