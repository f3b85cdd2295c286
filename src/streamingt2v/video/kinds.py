"""File types by their first bytes: the one table for files of a command and uploads of the server.

FFmpeg also opens things that are no video: playlists, addresses, image sequences by pattern. It is therefore
told which container a file is, and may open only the containers named here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HEAD_BYTES = 1024
"""Bytes from the beginning of a file that `kind_of` needs."""

PLAIN_FILES = "file"
"""The only protocol FFmpeg may use: an input must not make this machine fetch addresses."""

_CONTAINERS = """mov mp4 m4a 3gp 3g2 mj2 matroska webm avi mpegts mpeg flv live_flv kux asf asf_o ogg gif apng
mxf yuv4mpegpipe ivf rm ivr nut dv wtv nsv nuv gxf flic swf lmlm4"""
_BARE_STREAMS = "h261 h263 h264 hevc vvc evc av1 obu m4v mpegvideo mjpeg vc1 dirac cavsvideo dnxhd"
DEMUXERS = (*_CONTAINERS.split(), *_BARE_STREAMS.split())
"""FFmpeg's names of everything it may take a file for. None of these opens another file."""

PICTURES = """PNG JPEG WEBP GIF BMP DIB TIFF AVIF JPEG2000 PPM TGA SGI PCX ICO ICNS PSD
DDS QOI XBM MSP SUN""".split()
"""Pillow's names of the image types that are read: those it decodes without another program, and that their
first bytes tell."""


@dataclass(frozen=True)
class Kind:
    """A file type. suffix: with the dot. demuxer: FFmpeg's name of the container, None for an image."""

    media: Literal["image", "video"]
    suffix: str
    demuxer: str | None = None


JPEG = Kind("image", ".jpg")

_Sign = Callable[[bytes], bool]
_ISO_BOXES = [name.encode() for name in "ftyp styp moov moof mdat wide free skip pnot sidx uuid".split()]
_STILL_BRANDS = (b"avif", b"heic", b"heix", b"mif1", b"jpeg", b"jp2 ", b"jpx ")


def kind_of(head: bytes) -> Kind | None:
    """Return the type of a file that begins with these bytes (`HEAD_BYTES` of them), None if unknown."""
    return next((kind for sign, kind in _TABLE if sign(head)), None)


def kind_of_file(path: Path) -> Kind | None:
    """Return the type of a file, see `kind_of`. OSError if it cannot be read."""
    with path.open("rb") as file:
        return kind_of(file.read(HEAD_BYTES))


def _begins(*signs: bytes) -> _Sign:
    return lambda head: head.startswith(signs)


def _riff(*kinds: bytes) -> _Sign:
    return lambda head: head[:4] == b"RIFF" and head[8:12] in kinds


def _is_moving_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:21]) and bool(head[20] & 2)


def _is_iso(brands: tuple[bytes, ...] | None) -> _Sign:
    """Match a file of ISO boxes of one of these brands; None: any brand, or none."""
    if brands is None:
        return lambda head: head[4:8] in _ISO_BOXES
    return lambda head: head[4:8] == b"ftyp" and head[8:12] in brands


def _is_pcx(head: bytes) -> bool:
    return head[:1] == b"\x0a" and head[1:2] in (b"\0", b"\2", b"\3", b"\5") and head[2:3] <= b"\1"


def _is_ico(head: bytes) -> bool:
    return head.startswith(b"\0\0\1\0") and head[4:6] != b"\0\0" and head[9:10] == b"\0"


def _is_tga(head: bytes) -> bool:
    """Match a header of plausible numbers: this type has no sign."""
    types = head[1:2] in (b"\0", b"\1") and head[2:3] in (b"\1", b"\2", b"\3", b"\x09", b"\x0a", b"\x0b")
    sized = b"\0\0" not in (head[12:14], head[14:16])
    return len(head) >= 18 and types and sized and head[16] in (1, 8, 15, 16, 24, 32)


def _is_transport_stream(head: bytes) -> bool:
    """Match packets of 188 bytes (192, 204 with extra bytes) that begin with 0x47; the first may be cut."""
    places = ((start, length) for length in (188, 192, 204) for start in range(length))
    return any(
        all(head[start + n * length : start + n * length + 1] == b"\x47" for n in range(4))
        for start, length in places
    )


_TABLE: tuple[tuple[_Sign, Kind], ...] = (
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n") and b"acTL" in head[:256], Kind("video", ".png")),
    (_begins(b"\x89PNG\r\n\x1a\n"), Kind("image", ".png")),
    (_begins(b"\xff\xd8\xff"), JPEG),
    (_is_moving_webp, Kind("video", ".webp")),
    (_riff(b"WEBP"), Kind("image", ".webp")),
    (_begins(b"GIF87a", b"GIF89a"), Kind("video", ".gif")),
    (_begins(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), Kind("image", ".tif")),
    (lambda head: head[:2] == b"BM" and head[6:10] == bytes(4), Kind("image", ".bmp")),
    (_begins(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), Kind("image", ".jp2")),
    (_is_iso(_STILL_BRANDS), Kind("image", ".avif")),
    (_is_iso((b"avis",)), Kind("video", ".avif")),
    (_begins(b"8BPS"), Kind("image", ".psd")),
    (_begins(b"DDS "), Kind("image", ".dds")),
    (_begins(b"qoif"), Kind("image", ".qoi")),
    (_begins(b"icns"), Kind("image", ".icns")),
    (_begins(b"\x01\xda"), Kind("image", ".sgi")),
    (_begins(b"\x59\xa6\x6a\x95"), Kind("image", ".ras")),
    (_begins(b"DanM", b"LinS"), Kind("image", ".msp")),
    (_begins(b"\x28\0\0\0"), Kind("image", ".dib")),
    (_begins(b"#define"), Kind("image", ".xbm")),
    (lambda head: bool(re.match(rb"P[1-7fF]\s", head)), Kind("image", ".ppm")),
    (_is_pcx, Kind("image", ".pcx")),
    (_is_ico, Kind("image", ".ico")),
    (_is_iso((b"qt  ",)), Kind("video", ".mov", "mov")),
    (_is_iso(None), Kind("video", ".mp4", "mov")),
    (_begins(b"\x1a\x45\xdf\xa3"), Kind("video", ".mkv", "matroska")),
    (_riff(b"AVI ", b"AVIX", b"AMV "), Kind("video", ".avi", "avi")),
    (_begins(b"FLV\x01"), Kind("video", ".flv", "flv")),
    (_begins(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")), Kind("video", ".wmv", "asf")),
    (_begins(b"OggS"), Kind("video", ".ogv", "ogg")),
    (_begins(b"\0\0\x01\xba"), Kind("video", ".mpg", "mpeg")),
    (_is_transport_stream, Kind("video", ".ts", "mpegts")),
    (_begins(bytes.fromhex("060e2b34020501010d01020101")), Kind("video", ".mxf", "mxf")),
    (_begins(b"YUV4MPEG2 "), Kind("video", ".y4m", "yuv4mpegpipe")),
    (_begins(b"DKIF"), Kind("video", ".ivf", "ivf")),
    (_begins(b".RMF"), Kind("video", ".rm", "rm")),
    (_begins(b"nut/multimedia container\0"), Kind("video", ".nut", "nut")),
    (_begins(b"\x1f\x07\0"), Kind("video", ".dv", "dv")),
    (_begins(b"NSVf", b"NSVs"), Kind("video", ".nsv", "nsv")),
    (_begins(b"NuppelVideo\0", b"MythTVVideo\0"), Kind("video", ".nuv", "nuv")),
    (_begins(b"\x12\0\x0a"), Kind("video", ".obu", "obu")),
    # bare streams of the MPEG family: FFmpeg finds out which
    (_begins(b"\0\0\x01", b"\0\0\0\x01"), Kind("video", ".es")),
    (_begins(bytes.fromhex("b7d800203749da11a64e0007e95ead8d")), Kind("video", ".wtv", "wtv")),
    (_is_tga, Kind("image", ".tga")),
)
