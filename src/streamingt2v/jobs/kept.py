"""Lossless frames of a preview, so that stage 3 can refine them without H.264 artifacts.

    jobs/ID/frames/FIRST-COUNT.mkv      one chunk; FIRST counts from the first new frame

Keeping them is best effort: on a full disk, or after a kill between a chunk and its frames, the job only
loses the ability to be refined.
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
    """The frames in a folder, which is created with the first chunk."""

    def __init__(self, folder: Path):
        self._folder = folder

    def keep(self, chunk: Chunk, rate: Rate) -> None:
        """Keep a chunk's frames. If that fails, or an earlier chunk is missing, delete all."""
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
        """Return the number of frames, from the first new one up to the first gap."""
        count = 0
        for path in self._files():
            first, _, length = path.stem.partition("-")
            if int(first) != count:
                break
            count += int(length)
        return count

    def frames(self) -> Iterator[Frame]:
        """Yield all frames, uint8 (H, W, 3)."""
        for path in self._files():
            yield from read_video(path)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("?????????-*.mkv"))
