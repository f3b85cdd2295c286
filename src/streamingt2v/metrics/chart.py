"""Draw videos over time: curves with the seams marked, and slices through time. Time goes to the right."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import MissingExtra
from ..video.images import MOST_ROWS, Thinned, save_picture
from ..video.reader import Frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5a5a5a")
"""Okabe and Ito's palette, which colour-blind people can tell apart; it repeats."""

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
WIDTH, PANEL, SLICE, DPI = 10.0, 1.45, 1.36, 100
"""Width of an image and heights of panels of curves and slices, in inches; pixels per inch."""
CLOSEST = 10
"""Seams closer than this (pixels) are ticks under the panel instead of lines through it."""


@dataclass(frozen=True)
class Track:
    """A video to draw. curves: (T,), NaN for gaps. row_TWC: of pixels. borders: first frames of chunks.

    frames: that row_TWC shows, at equal distances; None: all its rows.
    """

    label: str
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    row_TWC: np.ndarray | None = None
    borders: Sequence[int] = ()
    frames: int | None = None


class MiddleRows:
    """Collect the middle rows of the frames, `MOST_ROWS` at most: the columns of a slice through time."""

    def __init__(self) -> None:
        self._rows = Thinned(MOST_ROWS)

    def add(self, frame_HWC: Frame) -> None:
        """Take the middle row of the next frame."""
        self._rows.add(frame_HWC[len(frame_HWC) // 2])

    @property
    def row_TWC(self) -> np.ndarray:
        """Return the rows so far, uint8 (T, W, 3); of long videos every second, fourth, ... frame's."""
        return np.stack(self._rows.kept)


def check_installed(argument: str) -> None:
    """Raise MissingExtra for this argument if matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise MissingExtra(argument, "eval")


def draw_curves(tracks: Sequence[Track], path: str | PathLike[str]) -> None:
    """Write a panel per curve, with a line per track; seams are those of the first track that has some."""
    _save(curves_figure(tracks), path)


def draw_slices(tracks: Sequence[Track], path: str | PathLike[str]) -> None:
    """Write the middle rows of all frames as columns, a panel per video: a seam is a vertical line."""
    _save(slices_figure(tracks), path)


def curves_figure(tracks: Sequence[Track]) -> Figure:
    """Return the figure that `draw_curves` writes."""
    names = [name for name in TITLES if any(name in track.curves for track in tracks)]
    frames = max(len(curve) for track in tracks for curve in track.curves.values())
    figure, panels = _figure(len(names), frames, PANEL)
    borders = next((track.borders for track in tracks if len(track.borders)), ())
    for name, panel in zip(names, panels, strict=True):
        panel.set_title(TITLES[name], loc="left", fontsize="medium")
        panel.grid(axis="y", color="0.88")
        for index, track in enumerate(tracks):
            if name in track.curves:
                curve = np.where(np.isfinite(track.curves[name]), track.curves[name], np.nan)
                x, colour = np.arange(len(curve)) + 0.5, COLOURS[index % len(COLOURS)]
                panel.plot(x, curve, color=colour, linewidth=1.25, label=track.label)
        _mark(panel, borders, frames, through=True)
    drawn = [line for panel in panels for line in panel.get_lines()]
    lines = {line.get_label(): line for line in drawn if not line.get_label().startswith("_")}
    figure.legend(lines.values(), lines.keys(), loc="upper left", ncols=4, frameon=False)
    return figure


def slices_figure(tracks: Sequence[Track]) -> Figure:
    """Return the figure that `draw_slices` writes."""
    with_rows = [(track, track.row_TWC) for track in tracks if track.row_TWC is not None]
    frames = max(track.frames or len(row_TWC) for track, row_TWC in with_rows)
    figure, panels = _figure(len(with_rows), frames, SLICE)
    for (track, row_TWC), panel in zip(with_rows, panels, strict=True):
        extent = (0, track.frames or len(row_TWC), 0, 1)
        panel.imshow(row_TWC.transpose(1, 0, 2), extent=extent, aspect="auto", interpolation="nearest")
        panel.set(xlim=(0, frames), yticks=[])
        panel.set_title(track.label, loc="left", fontsize="medium")
        _mark(panel, track.borders, frames, through=False)
    return figure


def _figure(panels: int, frames: int, height: float) -> tuple[Figure, list[Any]]:
    """Return a figure of panels that share the time axis, and the panels."""
    check_installed("curves")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, panels * height + 0.8), dpi=DPI, layout="constrained")
    axes = list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
    axes[-1].set(xlim=(0, frames), xlabel="frame; marks show where chunks begin")
    return figure, axes


def _mark(panel: Any, borders: Sequence[int], frames: int, through: bool) -> None:
    """Mark seams as ticks below the panel and, where they are not too close, as lines through it."""
    panel.xaxis.remove_overlapping_locs = False  # mark seams at the axis's numbers, too
    panel.set_xticks(list(borders), minor=True)
    panel.tick_params(axis="x", which="minor", length=5, color="0.5")
    close = len(borders) > 1 and (borders[1] - borders[0]) * WIDTH * DPI / frames < CLOSEST
    for border in borders if through and not close else ():
        panel.axvline(border, color="0.8", linestyle=":", linewidth=1)


def _save(figure: Figure, path: str | PathLike[str]) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    save_picture(Image.open(drawn).convert("RGB"), path)
