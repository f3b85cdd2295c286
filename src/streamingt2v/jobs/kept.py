"""The frames of a preview as they were made, kept beside its video, so that stage 3 can be run on them without what H.264 loses.

    jobs/ID/frames/FIRST-COUNT.mkv      the frames of one chunk, counted from the first new one

They are kept as far as that goes: on a full disk, or after a kill between a chunk and its frames, the job loses nothing but the choice
to be refined.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RunError
from ..video.lossless import write_lossless
from ..video.rates import Rate
from ..video.reader import Frame, read_video

if TYPE_CHECKING:
    from ..types import Chunk

log = logging.getLogger(__name__)


class KeptFrames:
    """Items kept in a folder, which is made with the first."""

    def __init__(self, folder: Path):
        self._folder = folder

    def keep(self, chunk: Chunk, rate: Rate) -> None:
        """Keep a chunk's frames; if that fails, or one before is missing, none are kept."""
        if self.count != chunk.start:
            shutil.rmtree(self._folder, ignore_errors=True)
            return
        frames = chunk.frames
        try:
            self._folder.mkdir(exist_ok=True, mode=0o700)
            write_lossless(self._folder / f"{chunk.start:09d}-{len(frames)}.mkv", frames, rate)
        except (OSError, RunError) as error:
            log.warning("the frames of a preview are not kept to be refined: %s", error)
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def count(self) -> int:
        """Return how many there are, from the first new one without a gap."""
        count = 0
        for path in self._files():
            first, _, length = path.stem.partition("-")
            if int(first) != count:
                break
            count += int(length)
        return count

    def frames(self) -> Iterator[Frame]:
        """All of them, uint8 (H, W, 3)."""
        for path in self._files():
            yield from read_video(path)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("?????????-*.mkv"))
