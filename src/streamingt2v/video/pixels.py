"""Decoded frames as they are to be seen: upright, with square pixels, opaque, in the colours of a usual screen, in the size asked for.

All that a file says about how it is to be shown is obeyed here and nowhere else. A plain video (square, upright, opaque, BT.601 or BT.709)
goes through one conversion to RGB and one scaling.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Protocol

import av
import av.error
import av.filter
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image

Frame = NDArray[np.uint8]
Size = tuple[int, int]
"""Height, width."""

BACKGROUND = (0, 0, 0)
"""What shows where a video or image is transparent."""

# the same pixels on every processor, and rounded: without the full chroma path the scaler's colours are 1 to 3 levels too dark
_SCALING = (
    Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
)
_UNSPECIFIED = 2  # the colour matrix of a stream that does not name one
_PQ, _HLG = 16, 18  # transfer curves of more light than a usual screen has
_WIDE = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}  # primaries outside of BT.709
# what 203 cd/m2 has is white (ITU-R BT.2408), colours keep their place, and what is brighter or more colourful is cut off
_TO_SCREEN = "out_transfer=bt709:out_primaries=bt709:out_range=full:intent=relative_colorimetric:flags=bicubic+full_chroma_int+accurate_rnd+bitexact"


class HasPixels(Protocol):
    """A frame that is RGB already: uint8 (H, W, 3)."""

    @property
    def pixels(self) -> Frame: ...


class Shown:
    """Makes decoded frames to RGB arrays, all of one size: the one given, else that of the first.

    stretch: width of a pixel in its heights, as the file says.
    """

    def __init__(self, size: Size | None, stretch: Fraction = Fraction(1)):
        self._size, self._stretch = size, stretch
        self._to_rgb = VideoReformatter()
        self._graph: Graph | None = None

    def __call__(self, frame: av.VideoFrame | HasPixels) -> Frame:
        """uint8 (H, W, 3)."""
        if not isinstance(frame, av.VideoFrame):
            return self._sized(frame.pixels, Fraction(1))
        matrix = _display_matrix(frame)
        array = _oriented(self._rgb(frame), matrix)
        return self._sized(array, 1 / self._stretch if _swaps_sides(matrix) else self._stretch)

    def _sized(self, array: Frame, stretch: Fraction) -> Frame:
        height, width = array.shape[:2]
        if self._size is None:  # the shorter side of a pixel is made as long as the longer
            self._size = (round(height / min(stretch, 1)), round(width * max(stretch, 1)))
        if self._size == (height, width) and stretch == 1:
            return array
        return np.array(cover(Image.fromarray(array), *self._size, stretch))

    def _rgb(self, frame: av.VideoFrame) -> Frame:
        if is_wide(frame):
            return self._on_screen(frame)
        if has_alpha(frame):
            return flattened(self._reformatted(frame, "rgba"))
        return self._reformatted(frame, "rgb24")

    def _reformatted(self, frame: av.VideoFrame, format: str) -> Frame:
        # untagged video is BT.709 from 720 lines up and BT.601 below, as players have it
        untagged_hd = frame.colorspace == _UNSPECIFIED and frame.height >= 720 and not frame.format.is_rgb
        matrix = Colorspace.ITU709 if untagged_hd else None
        rgb = self._to_rgb.reformat(
            frame, format=format, src_colorspace=matrix, interpolation=_SCALING, threads=1
        )
        return np.ascontiguousarray(rgb.to_ndarray(), np.uint8)

    def _on_screen(self, frame: av.VideoFrame) -> Frame:
        if self._graph is None or not self._graph.fits(frame):
            self._graph = Graph(
                frame, ("scale", _TO_SCREEN), ("format", "rgba" if has_alpha(frame) else "rgb24")
            )
        (shown,) = self._graph.through(frame)
        return (
            flattened(shown.to_ndarray())
            if shown.format.name == "rgba"
            else np.ascontiguousarray(shown.to_ndarray(), np.uint8)
        )


class Graph:
    """FFmpeg's filters, one after the other, for frames like the first."""

    def __init__(self, frame: av.VideoFrame, *filters: tuple[str, str]):
        self._like = _kind(frame)
        self._graph = av.filter.Graph()
        last = self._graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base or Fraction(1, 1000),
        )
        for name, arguments in (*filters, ("buffersink", "")):
            node = self._graph.add(name, arguments) if arguments else self._graph.add(name)
            last.link_to(node)
            last = node
        self._graph.configure()

    def fits(self, frame: av.VideoFrame) -> bool:
        """Whether the frame is like the first."""
        return _kind(frame) == self._like

    def through(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """What comes out as the frame goes in; None for what is left at the end."""
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """As many frames; those of two fields, taken at two moments, are made to be of one."""
    graph: Graph | None = None
    for frame in frames:
        if graph is not None and not graph.fits(frame):
            yield from graph.through(None)
            graph = None
        if graph is None and frame.interlaced_frame:
            graph = Graph(frame, ("bwdif", "mode=send_frame:deint=interlaced"))
        yield from [frame] if graph is None else graph.through(frame)
    if graph is not None:
        yield from graph.through(None)


def is_wide(frame: av.VideoFrame) -> bool:
    """Whether it has more light or more colours than a usual screen shows."""
    return frame.color_trc in (_PQ, _HLG) or frame.color_primaries in _WIDE


def colours_of(frame: av.VideoFrame) -> str:
    """The name of its colours, of one that `is_wide`."""
    light = {_PQ: "PQ", _HLG: "HLG"}.get(frame.color_trc, "")
    return " ".join(filter(None, (light, _WIDE.get(frame.color_primaries, ""))))


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether it can be transparent."""
    return frame.format.has_palette or any(part.is_alpha for part in frame.format.components)


def size_shown(frame: av.VideoFrame, stretch: Fraction) -> Size:
    """What `Shown` makes of it where no size is asked for."""
    matrix = _display_matrix(frame)
    height, width = (frame.width, frame.height) if _swaps_sides(matrix) else (frame.height, frame.width)
    stretch = 1 / stretch if _swaps_sides(matrix) else stretch
    return round(height / min(stretch, 1)), round(width * max(stretch, 1))


def flattened(rgba: NDArray[np.uint8]) -> Frame:
    """uint8 (H, W, 4) laid over `BACKGROUND`."""
    if rgba[..., 3].min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    image = Image.fromarray(np.ascontiguousarray(rgba), "RGBA")
    return np.array(
        Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image).convert("RGB")
    )


def cover(image: Image.Image, height: int, width: int, stretch: Fraction = Fraction(1)) -> Image.Image:
    """The largest centred part with the asked proportions, scaled to the size. stretch: width of its pixels in their heights."""
    if image.size == (width, height) and stretch == 1:
        return image
    asked = width / height if stretch == 1 else width / height / float(stretch)  # in pixels of the image
    part_width = min(image.width, image.height * width / height if stretch == 1 else image.height * asked)
    part_height = min(image.height, image.width * height / width if stretch == 1 else image.width / asked)
    left, top = (image.width - part_width) / 2, (image.height - part_height) / 2
    return image.resize(
        (width, height), Image.Resampling.BICUBIC, box=(left, top, left + part_width, top + part_height)
    )


def _kind(frame: av.VideoFrame) -> tuple[object, ...]:
    return frame.width, frame.height, frame.format.name


_Matrix = tuple[int, int, int, int]
_UPRIGHT = (1, 0, 0, 1)


def _display_matrix(frame: av.VideoFrame) -> _Matrix:
    """a, b, c, d: the pixel (x, y) is to be seen at (a x + c y, b x + d y), but for where that begins."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _UPRIGHT
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    return (a, b, c, d) if a * d - b * c else _UPRIGHT


def _swaps_sides(matrix: _Matrix) -> bool:
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _oriented(array: Frame, matrix: _Matrix) -> Frame:
    """Turned and mirrored as the matrix says; to the nearest quarter turn."""
    if matrix == _UPRIGHT:
        return array
    across, down = (matrix[2], matrix[1]) if _swaps_sides(matrix) else (matrix[0], matrix[3])
    turned = array.transpose(1, 0, 2) if _swaps_sides(matrix) else array
    return np.ascontiguousarray(turned[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
