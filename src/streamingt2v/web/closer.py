"""A closer look at a video that has ended: how it goes on second by second, and a slice through time.

`python -m streamingt2v.web.closer VIDEO LOOK.json SLICE.png` is the process that looks: a long video takes a while, and the server has
other things to do.
"""

from __future__ import annotations

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


def look_closer(video: Path, look: Path, picture: Path) -> dict[str, Any]:
    """Write both files; the picture first, so that it is there when the numbers are.

    The numbers: `frames`, `fps`, `seams` (frames that begin a chunk), and `curves`: by title, the mean of every second, None where
    there is none.
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
    save_picture(Image.fromarray(np.ascontiguousarray(rows.row_TWC.transpose(1, 0, 2))), picture)
    values = {
        "frames": count,
        "fps": fps,
        "seams": list(grid.borders(count)) if grid else [],
        "curves": {title: by_second(result.curves[name], fps) for name, title in TITLES.items()},
    }
    durable.write_unsynced(look, json.dumps(values).encode())
    return values


def by_second(curve_T: np.ndarray, fps: float) -> list[float | None]:
    """The mean of every second that has begun, of the frames that have a value."""
    seconds = np.arange(len(curve_T)) // fps
    means: list[float | None] = []
    for second in range(int(seconds[-1]) + 1 if len(seconds) else 0):
        known = curve_T[(seconds == second) & np.isfinite(curve_T)]
        means.append(round(float(known.mean()), 4) if len(known) else None)
    return means


def main(arguments: Sequence[str]) -> int:
    """Look at one video, after everything that is more urgent."""
    os.nice(10)
    look_closer(*map(Path, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
