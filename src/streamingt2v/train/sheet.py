"""Contact sheets of clips: one image that shows the training's progress."""

from pathlib import Path

import numpy as np
from PIL import Image


def save_sheet(frames_NTHWC: np.ndarray, path: Path, columns: int = 8) -> None:
    """Write clips, uint8 (N, T, H, W, 3), as a PNG: one per row, or single frames in rows of `columns`."""
    n, t = frames_NTHWC.shape[:2]
    cells = frames_NTHWC[:, 0]
    if t != 1:
        cells = frames_NTHWC[:, :: max(1, t // 8)][:, :8].reshape(-1, *frames_NTHWC.shape[2:])
    columns = columns if t == 1 else len(cells) // n
    cells = cells[: len(cells) // columns * columns]
    rows = [np.concatenate(list(cells[i : i + columns]), 1) for i in range(0, len(cells), columns)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows, 0)).save(path)
