"""Measure a finished video for the page: curves by second and a slice through time.

Run as a separate process: `python -m streamingt2v.web.closer VIDEO LOOK.json SLICE.png`.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import durable
from ..metrics.chart import MiddleRows
from ..metrics.metric import measure
from ..metrics.motion import Seam
from ..metrics.picture import ColourDrift, Sharpness
from ..metrics.seams import grid_of
from ..video.images import save_picture
from ..video.reader import probe_video, read_video

TITLES = {
    "change": "Change from frame to frame (levels)",
    "sharpness": "Sharpness",
    "colour_distance": "Colour, distance from the first frame",
}


def look_closer(video: Path, look: Path, slice_: Path) -> dict[str, Any]:
    """Write the slice, then the numbers; return the numbers.

    `frames`, `fps`, `seams` (first frame of each chunk), `curves` (by title: mean of every second, or None).
    """
    grid, rows, count = grid_of(video), MiddleRows(), 0

    def seen() -> Any:
        nonlocal count
        for frame_HWC in read_video(video):
            rows.add(frame_HWC)
            count += 1
            yield frame_HWC

    result = measure(seen(), [Seam(grid.borders if grid else lambda _: ()), Sharpness(), ColourDrift()])
    fps = float(probe_video(video).fps or 1.0)
    save_picture(Image.fromarray(np.ascontiguousarray(rows.row_TWC.transpose(1, 0, 2))), slice_)
    values = {
        "frames": count,
        "fps": fps,
        "seams": list(grid.borders(count)) if grid else [],
        "curves": {title: by_second(result.curves[name], fps) for name, title in TITLES.items()},
    }
    durable.write_unsynced(look, json.dumps(values).encode())
    return values


def by_second(curve_T: np.ndarray, fps: float) -> list[float | None]:
    """Return the mean of the finite values of every started second, None where there are none."""
    seconds = np.arange(len(curve_T)) // fps
    means: list[float | None] = []
    for second in range(int(seconds[-1]) + 1 if len(seconds) else 0):
        known = curve_T[(seconds == second) & np.isfinite(curve_T)]
        means.append(round(float(known.mean()), 4) if len(known) else None)
    return means


def main(arguments: Sequence[str]) -> int:
    """Measure one video at low priority."""
    os.nice(10)
    look_closer(*map(Path, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
