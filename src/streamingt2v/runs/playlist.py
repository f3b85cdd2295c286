"""The HLS playlist (RFC 8216) of a run folder, for players while the video grows."""

from collections.abc import Sequence

from ..video.rates import Rate
from ..video.writer import LONGEST_SEGMENT
from .journal import Entry


def playlist(entries: Sequence[Entry], fps: Rate, init: str, ended: bool) -> str:
    """Return the playlist of these segments. ended: no more follow.

    The target duration must not change while a stream grows (section 6.2.1), so it allows for
    `LONGEST_SEGMENT` frames from the start; only a longer chunk raises it.
    """
    longest = max([LONGEST_SEGMENT, *(entry.frames for entry in entries)])
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{-(-longest // fps)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-MAP:URI="{init}"',
    ]
    for entry in entries:
        lines += [f"#EXTINF:{float(entry.frames / fps):.6f},", entry.segment]
    return "\n".join([*lines, *(["#EXT-X-ENDLIST"] if ended else [])]) + "\n"
