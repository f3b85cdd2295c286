"""Write frames without loss, as FFV1 in RGB in Matroska: for further work, not for watching."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ..durable import replacing
from ..errors import RequestError, RunError
from .reader import Frame

_FFV1 = {"level": "3", "slicecrc": "1", "threads": "1"}


def write_lossless(path: Path, frames: Iterable[Frame], rate: Fraction | int) -> int:
    """Write uint8 (H, W, 3) frames of one size to `path` (.mkv) atomically; return their number.

    `read_video` gives the same frames. RequestError without frames, RunError if the file cannot be written.
    """
    count = 0
    try:
        with replacing(path) as part, av.open(f"file:{part}", "w", format="matroska") as container:
            stream = container.add_stream("ffv1", rate=Fraction(rate), options=_FFV1)
            stream.pix_fmt = "bgr0"
            for count, frame in enumerate(frames, 1):
                if count == 1:
                    stream.height, stream.width = frame.shape[:2]
                image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                image = image.reformat(format="bgr0")
                image.pts, image.time_base = count - 1, 1 / Fraction(rate)
                container.mux(stream.encode(image))
            if count == 0:
                raise RequestError("frames", 0, "there is nothing to write")
            container.mux(stream.encode(None))
    except (OSError, av.FFmpegError) as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    return count
