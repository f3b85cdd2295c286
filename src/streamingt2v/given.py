"""Write images and videos that are passed in memory to temporary files, since a request holds paths.

Pixels are stored without loss, in 8 bits.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from .errors import RequestError
from .video.lossless import write_lossless
from .video.stills import as_rgb

RATE = 8
"""Frames per second of a video that is passed in memory."""


class Given:
    """Temporary files of one stream; `close` deletes them."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None

    def image(self, image: Any) -> str | None:
        """Return the path of an image: a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W).

        Integers are 0 to 255, floats 0 to 1. RequestError for anything else.
        """
        if image is None or isinstance(image, str | Path):
            return None if image is None else str(image)
        path = self._path("image.png")
        Image.fromarray(_frames("image", [image])[0]).save(path)
        return str(path)

    def video(self, video: Any) -> str | None:
        """Return the path of a video: a path, images, an array (T, H, W, 3) or a tensor (T, 3, H, W).

        RequestError for anything else.
        """
        if video is None or isinstance(video, str | Path):
            return None if video is None else str(video)
        frames = _frames("video", video)
        path = self._path("video.mkv")
        write_lossless(path, iter(frames), RATE)
        return str(path)

    def close(self) -> None:
        """Delete the files."""
        if self._folder is not None:
            self._folder.cleanup()

    def _path(self, name: str) -> Path:
        self._folder = self._folder or TemporaryDirectory(prefix="streamingt2v-")
        return Path(self._folder.name) / name


def _frames(name: str, given: Any) -> Sequence[np.ndarray]:
    """Return frames as uint8 (H, W, 3) each."""
    try:
        frames = [_frame(name, frame) for frame in given]
    except TypeError as error:
        raise RequestError(
            name, type(given).__name__, "give a path, PIL images, arrays (H, W, 3) or tensors (3, H, W)"
        ) from error
    if not frames:
        raise RequestError(name, "no frames", "give one at least")
    wrong = next(
        (frame for frame in frames if frame.ndim != 3 or frame.shape[-1] != 3 or not frame.size), None
    )
    if wrong is not None or len({frame.shape for frame in frames}) > 1:
        shapes = sorted({frame.shape for frame in frames})
        raise RequestError(
            name, shapes, "frames must be (H, W, 3) as arrays or (3, H, W) as tensors, all of one size"
        )
    return [_bytes(name, frame) for frame in frames]


def _frame(name: str, frame: Any) -> np.ndarray:
    if isinstance(frame, Image.Image):
        try:
            return np.asarray(as_rgb(frame))
        except ValueError as error:
            raise RequestError(name, f"an image of mode {frame.mode}", str(error)) from error
    if isinstance(frame, torch.Tensor):
        frame = frame.detach().cpu()
        return (frame.float() if frame.is_floating_point() else frame).movedim(0, -1).numpy()
    if isinstance(frame, np.ndarray):
        return frame
    raise TypeError(type(frame))


def _bytes(name: str, frame: np.ndarray) -> np.ndarray:
    if np.issubdtype(frame.dtype, np.floating):
        if not (np.isfinite(frame).all() and frame.min() >= 0 and frame.max() <= 1):
            raise RequestError(name, f"{frame.dtype}", "floats must lie in [0, 1]")
        return (frame * 255).round().astype(np.uint8)
    if not np.issubdtype(frame.dtype, np.integer) or frame.min() < 0 or frame.max() > 255:
        raise RequestError(name, f"{frame.dtype}", "integers must lie in [0, 255]")
    return frame.astype(np.uint8)
