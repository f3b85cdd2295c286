"""Convert decoded frames for display: upright, square pixels, opaque, sRGB/BT.709, of the requested size.

Only this module applies what a file says about its display. A plain video (square pixels, upright, opaque,
BT.601 or BT.709) takes one conversion to RGB and one scaling.
"""

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Protocol

import av
import av.error
import av.filter
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image

Frame = NDArray[np.uint8]
Size = tuple[int, int]
"""Height, width."""

BACKGROUND = (0, 0, 0)
"""RGB behind transparent pixels."""

# The same pixels on every processor. Without full chroma interpolation colours are 1 to 3 levels too dark.
_SCALING = (
    Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
)
_UNSPECIFIED = 2  # colour matrix of a stream that names none
_PQ, _HLG = 16, 18  # transfer functions of HDR
_WIDE = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}  # primaries outside of BT.709
# 203 cd/m2 becomes white (ITU-R BT.2408); brighter light and colours outside of BT.709 are clipped
_TO_SDR = (
    "out_transfer=bt709:out_primaries=bt709:out_range=full:intent=relative_colorimetric"
    ":flags=bicubic+full_chroma_int+accurate_rnd+bitexact"
)


class HasPixels(Protocol):
    """A frame that is RGB already: uint8 (H, W, 3)."""

    @property
    def pixels(self) -> Frame: ...


class Shown:
    """Convert decoded frames to RGB arrays of one size: the given one, else the first frame's.

    stretch: pixel aspect ratio, width / height.
    """

    def __init__(self, size: Size | None, stretch: Fraction = Fraction(1)):
        self._size, self._stretch = size, stretch
        self._to_rgb = VideoReformatter()
        self._graph: Graph | None = None

    def __call__(self, frame: av.VideoFrame | HasPixels) -> Frame:
        """Return the frame as uint8 (H, W, 3)."""
        if not isinstance(frame, av.VideoFrame):
            return self._sized(frame.pixels, Fraction(1))
        matrix = _display_matrix(frame)
        array = _oriented(self._rgb(frame), matrix)
        return self._sized(array, 1 / self._stretch if _swaps_sides(matrix) else self._stretch)

    def _sized(self, array: Frame, stretch: Fraction) -> Frame:
        height, width = array.shape[:2]
        if self._size is None:
            self._size = _squared(height, width, stretch)
        if self._size == (height, width) and stretch == 1:
            return array
        return np.array(cover(Image.fromarray(array), *self._size, stretch))

    def _rgb(self, frame: av.VideoFrame) -> Frame:
        if is_wide(frame):
            return self._in_sdr(frame)
        if has_alpha(frame):
            return flattened(self._reformatted(frame, "rgba"))
        return self._reformatted(frame, "rgb24")

    def _reformatted(self, frame: av.VideoFrame, format: str) -> Frame:
        # players take untagged video for BT.709 from 720 lines up, for BT.601 below
        untagged_hd = frame.colorspace == _UNSPECIFIED and frame.height >= 720 and not frame.format.is_rgb
        matrix = Colorspace.ITU709 if untagged_hd else None
        rgb = self._to_rgb.reformat(
            frame, format=format, src_colorspace=matrix, interpolation=_SCALING, threads=1
        )
        return np.ascontiguousarray(rgb.to_ndarray(), np.uint8)

    def _in_sdr(self, frame: av.VideoFrame) -> Frame:
        if self._graph is None or not self._graph.fits(frame):
            format = "rgba" if has_alpha(frame) else "rgb24"
            self._graph = Graph(frame, ("scale", _TO_SDR), ("format", format))
        (shown,) = self._graph.through(frame)
        array = np.ascontiguousarray(shown.to_ndarray(), np.uint8)
        return flattened(array) if shown.format.name == "rgba" else array


class Graph:
    """A chain of FFmpeg filters for frames of one size and pixel format."""

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
        """Tell whether the frame has the size and format of the first."""
        return _kind(frame) == self._like

    def through(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Push a frame (None: the end) and yield the frames that come out."""
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Deinterlace the frames that need it; their number stays."""
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
    """Tell whether a frame is HDR, or has colours outside of BT.709."""
    return frame.color_trc in (_PQ, _HLG) or frame.color_primaries in _WIDE


def colours_of(frame: av.VideoFrame) -> str:
    """Name the colours of a frame that `is_wide`."""
    light = {_PQ: "PQ", _HLG: "HLG"}.get(frame.color_trc, "")
    return " ".join(filter(None, (light, _WIDE.get(frame.color_primaries, ""))))


def is_askew(frame: av.VideoFrame) -> bool:
    """Tell whether a frame is to be shown rotated by something else than quarter turns."""
    a, b, c, d = _display_matrix(frame)
    return bool(a or d) and bool(b or c)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Tell whether a frame can be transparent."""
    return frame.format.has_palette or any(part.is_alpha for part in frame.format.components)


def size_shown(frame: av.VideoFrame, stretch: Fraction) -> Size:
    """Return the size that `Shown` gives a frame by default."""
    matrix = _display_matrix(frame)
    height, width = (frame.width, frame.height) if _swaps_sides(matrix) else (frame.height, frame.width)
    return _squared(height, width, 1 / stretch if _swaps_sides(matrix) else stretch)


def _squared(height: int, width: int, stretch: Fraction) -> Size:
    """Return the size in square pixels: longer along the short side of a pixel, so that nothing is lost."""
    one = Fraction(1)
    return round(height / min(stretch, one)), round(width * max(stretch, one))


def flattened(rgba: NDArray[np.uint8]) -> Frame:
    """Lay uint8 (H, W, 4) over `BACKGROUND`."""
    if rgba[..., 3].min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    image = Image.fromarray(np.ascontiguousarray(rgba), "RGBA")
    background = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    return np.array(Image.alpha_composite(background, image).convert("RGB"))


def cover(image: Image.Image, height: int, width: int, stretch: Fraction = Fraction(1)) -> Image.Image:
    """Crop the largest centred part of the target's proportions and scale it. stretch: pixel aspect ratio."""
    if image.size == (width, height) and stretch == 1:
        return image
    wide, high = (
        (width, height) if stretch == 1 else (width / float(stretch), height)
    )  # in the image's pixels
    part_width = min(image.width, image.height * wide / high)
    part_height = min(image.height, image.width * high / wide)
    left, top = (image.width - part_width) / 2, (image.height - part_height) / 2
    box = (left, top, left + part_width, top + part_height)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


def _kind(frame: av.VideoFrame) -> tuple[object, ...]:
    return frame.width, frame.height, frame.format.name


_Matrix = tuple[int, int, int, int]
_UPRIGHT = (1, 0, 0, 1)


def _display_matrix(frame: av.VideoFrame) -> _Matrix:
    """Return a, b, c, d: pixel (x, y) is shown at (a x + c y, b x + d y), up to a shift."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, SideData):
        return _UPRIGHT
    a, b, _, c, d = struct.unpack("=5i", memoryview(data)[:20])
    return (a, b, c, d) if a * d - b * c else _UPRIGHT


def _swaps_sides(matrix: _Matrix) -> bool:
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _oriented(array: Frame, matrix: _Matrix) -> Frame:
    """Rotate and mirror by the matrix, rounded to quarter turns."""
    if matrix == _UPRIGHT:
        return array
    across, down = (matrix[2], matrix[1]) if _swaps_sides(matrix) else (matrix[0], matrix[3])
    turned = array.transpose(1, 0, 2) if _swaps_sides(matrix) else array
    return np.ascontiguousarray(turned[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
