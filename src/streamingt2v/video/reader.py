"""Pictures and videos from files, as RGB frames of the size that is asked for. Videos are streamed, never held.

A frame is uint8 (H, W, 3). When a size is given, a frame covers it: scaled until both sides are filled, the overhang cut
off evenly. Rotation marks (EXIF, display matrix) are honoured. Everything unreadable is a MediaError with path and reason.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import MediaError, RequestError
from .container import check_pixels, decoded, open_video, reason
from .kinds import PICTURES

Frame = NDArray[np.uint8]

# the same pixels on every processor, and rounded: without the full chroma path the scaler's colours are 1 to 3 levels too dark
_SCALING = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_UNSPECIFIED = 2  # the colour matrix of a stream that does not name one


@dataclass(frozen=True)
class VideoInfo:
    """frames: as the file's header says, None if it does not. height, width: as shown, rotated. fps: frames a second, None if unknown."""

    frames: int | None
    height: int
    width: int
    fps: float | None


def read_image(path: str | PathLike[str], height: int, width: int) -> Frame:
    """The picture as uint8 (height, width, 3): upright, covering the size, transparency over black. MediaError if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            image: Image.Image = Image.open(path, formats=PICTURES)
        with image:
            check_pixels(path, image.width, image.height)
            upright = ImageOps.exif_transpose(image)
            return np.array(_cover(_as_rgb(upright), height, width))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise MediaError(f"{path}: cannot be read as a picture: {reason(error)}") from error


def probe_video(path: str | PathLike[str]) -> VideoInfo:
    """Size and rate of a video, from its header and its first frame. MediaError if none decodes."""
    with open_video(path) as (_, stream):
        frames, rate = stream.frames or None, stream.average_rate or stream.guessed_rate
    first = next(decoded(path))
    height, width = first.height, first.width
    if first.rotation % 180:
        height, width = width, height
    return VideoInfo(frames, height, width, float(rate) if rate else None)


def playback_rate(path: str | PathLike[str]) -> int | None:
    """Whole frames a second that a video is played at, 1 or more; None if the file names no rate. MediaError if none decodes."""
    rate = probe_video(path).fps
    return max(1, round(rate)) if rate else None


def read_video(path: str | PathLike[str], height: int | None = None, width: int | None = None) -> Iterator[Frame]:
    """The frames of the first video stream, uint8 (H, W, 3), one at a time; `height` and `width` are given together or not at all.

    Frames come as they are stored, whatever their time stamps. Undecodable data before the first good frame is skipped (as in
    recordings that begin in the middle); after it, the video ends there with a `MediaWarning`. MediaError if nothing decodes.
    """
    convert = _Converter(height, width)
    for frame in decoded(path):
        yield convert(frame)


def last_frames(path: str | PathLike[str], n: int, height: int | None = None, width: int | None = None) -> Frame:
    """The last `n` frames, uint8 (T, H, W, 3); T is less than `n` only if the video is shorter. Holds `n` frames."""
    if n < 1:
        raise RequestError("n", n, "must be 1 or more")
    convert = _Converter(height, width)
    return np.stack([convert(frame) for frame in deque(decoded(path), maxlen=n)])


def count_frames(path: str | PathLike[str]) -> int:
    """How many frames `read_video` gives: exact, by decoding them all."""
    return sum(1 for _ in decoded(path))


class _Converter:
    """Decoded frames to upright RGB arrays of one size."""

    def __init__(self, height: int | None, width: int | None):
        if (height is None) != (width is None):
            raise ValueError("give height and width together, or neither")
        self._size = (height, width) if height is not None and width is not None else None
        self._to_rgb = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Frame:
        # untagged video is BT.709 from 720 lines up and BT.601 below, as players have it
        untagged_hd = frame.colorspace == _UNSPECIFIED and frame.height >= 720 and not frame.format.is_rgb
        matrix = Colorspace.ITU709 if untagged_hd else None
        rgb = self._to_rgb.reformat(frame, format="rgb24", src_colorspace=matrix, interpolation=_SCALING, threads=1)
        quarter_turns = round(frame.rotation / 90)  # counterclockwise
        array: Frame = np.ascontiguousarray(np.rot90(rgb.to_ndarray(), quarter_turns), np.uint8)
        if self._size is None:
            return array
        return np.array(_cover(Image.fromarray(array), *self._size))


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # PIL would clip 16 bits at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    return image.convert("RGB")


def _cover(image: Image.Image, height: int, width: int) -> Image.Image:
    """The largest centred part of the picture with the asked proportions, scaled to the size."""
    if image.size == (width, height):
        return image
    part_width = min(image.width, image.height * width / height)
    part_height = min(image.height, image.width * height / width)
    left, top = (image.width - part_width) / 2, (image.height - part_height) / 2
    return image.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, left + part_width, top + part_height))
