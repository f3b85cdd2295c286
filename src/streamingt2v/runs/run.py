"""Keep a long video in a run folder: saved after every chunk, and resumed after any interruption.

    request.json            the request, model, sizes, versions; written first, never changed
    journal.jsonl           one line per committed segment; a complete line is the commit
    prompts.jsonl           one line per change of the prompt during the run, if there was any
    init.mp4, seg_*.m4s     the video so far: HLS segments, each encoded once and never changed
    playlist.m3u8           plays them, also while the run grows
    state_*.safetensors     states to continue from, of the two newest chunks
    lock                    held by the writing process

Files are written, flushed and renamed, the journal's line last: a kill at any time loses the unfinished chunk
and nothing else. The final MP4 copies the segments' packets, so its bytes do not depend on interruptions.
Needs a POSIX system (file locks).
"""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from .. import durable
from ..config import Request
from ..config.runtime import PLAIN, Savings
from ..errors import MediaError, RunError
from ..types import Chunk, State
from ..video.look import frame_times
from ..video.pixels import Frame
from ..video.rates import Rate, rate_to_json
from ..video.sound import Sound
from ..video.writer import (
    LONGEST_SEGMENT,
    Segment,
    VideoSpec,
    batches,
    encode_segment,
    init_segment,
    read_metadata,
    write_mp4,
)
from .folder import (
    INIT,
    JOURNAL,
    PLAYLIST,
    PROMPTS,
    REQUEST,
    VIDEO,
    check_output,
    delete_run,
    explained,
    locked,
    taken,
)
from .header import (
    Header,
    KeptSound,
    cpu_capability,
    cpu_threads,
    input_hashes,
    versions,
    with_absolute_paths,
)
from .journal import Entry, Journal
from .playlist import playlist
from .prompts import Change, PromptLog
from .recovery import STATES_KEPT, recover
from .state import pack_state, unpack_state


class RunFolder:
    """One run's folder, locked for this process: `create` a new one or `open` an interrupted one.

    A context manager: it releases the lock and keeps the folder. Errors are RunErrors and keep what is
    committed.
    """

    def __init__(self, path: Path, header: Header, journal: Journal, lock: int):
        self.path, self.header, self._journal, self._lock = path, header, journal, lock
        self._prompts = PromptLog.read(path / PROMPTS)
        self._spec = VideoSpec(header.height, header.width, header.fps)
        self.request, self.model = header.request, header.model
        self.height, self.width, self.fps = header.height, header.width, header.fps
        self.output = Path(header.output) if header.output is not None else path / VIDEO
        self.playlist = path / PLAYLIST

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        request: Request,
        model: str,
        fps: Rate,
        height: int,
        width: int,
        output: str | os.PathLike[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        savings: Savings = PLAIN,
        weights: str | None = None,
        sound: KeptSound = "none",
        keeps_times: bool = False,
        notes: Sequence[str] = (),
        temporary: bool = False,
        overwrite: bool = False,
    ) -> Self:
        """Start a run in an empty or missing folder, for a video of this even size and rate.

        output: path for `finish`; None: in the folder. metadata: more JSON values for the MP4's comment. See
        `Header` for the others. RequestError for odd sizes; RunError, leaving nothing new behind, if the
        folder is in use, or folder or output cannot be written.
        """
        path = Path(path).absolute()
        init = init_segment(VideoSpec(height, width, fps))
        with explained(path, "cannot be made a run folder"):
            if output is not None:
                check_output(Path(output))
            with taken(path) as lock:
                request = with_absolute_paths(request)
                header = Header(
                    request=request,
                    model=model,
                    weights=weights,
                    sound=sound,
                    keeps_times=keeps_times,
                    notes=tuple(notes),
                    device=device,
                    dtype=dtype,
                    savings=savings,
                    threads=cpu_threads(),
                    cpu=cpu_capability(),
                    fps=fps,
                    height=height,
                    width=width,
                    output=str(Path(output).absolute()) if output is not None else None,
                    overwrite=overwrite,
                    temporary=temporary,
                    metadata=dict(metadata or {}),
                    versions=versions(),
                    inputs=input_hashes(request),
                    init_sha256=hashlib.sha256(init).hexdigest(),
                )
                durable.write_file(path / INIT, init)
                durable.write_file(path / REQUEST, header.to_bytes())
                return cls(path, header, Journal(path / JOURNAL), lock)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a run at its last complete commit; unfinished files of a killed process are deleted.

        RunError if it is no run folder, another process writes it, or a committed file is damaged.
        """
        path = Path(path).absolute()
        if not (path / REQUEST).is_file():
            raise RunError(f"{path}: is no run folder (it has no {REQUEST})")
        with explained(path, "cannot be opened"):
            lock = locked(path)
            try:
                run = cls(path, Header.read(path / REQUEST), Journal.read(path / JOURNAL), lock)
                recover(path, run.header, run._journal)
                run._write_playlist()
                return run
            except BaseException:
                durable.unlock(lock)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock; the folder stays."""
        if self._lock >= 0:
            durable.unlock(self._lock)
            self._lock = -1

    @property
    def frames_committed(self) -> int:
        """Count the committed new frames: `start` of the next chunk."""
        return sum(entry.frames for entry in self._journal.of_kind("chunk"))

    @property
    def chunks_committed(self) -> int:
        """Count the committed chunks: `index` of the next chunk."""
        return len(self._journal.of_kind("chunk"))

    @property
    def source_frames(self) -> int:
        """Count the committed frames of the request's video."""
        return sum(entry.frames for entry in self._journal.of_kind("source"))

    @property
    def source_done(self) -> bool:
        """Tell whether the request's video, if there is one, is committed completely."""
        source = self._journal.of_kind("source")
        return self.request.video is None or bool(source and source[-1].final)

    @property
    def finished(self) -> bool:
        """Tell whether the final chunk is committed."""
        return self._journal.finished

    @property
    def state(self) -> State | None:
        """Read the state after the last committed chunk; None without a chunk or a state."""
        chunks = self._journal.of_kind("chunk")
        if not chunks or chunks[-1].state is None:
            return None
        with explained(self.path, "cannot be read"):
            return unpack_state((self.path / chunks[-1].state).read_bytes())

    @property
    def prompts(self) -> Request:
        """Return the request with all prompt changes in its schedule, which makes the same frames."""
        return dataclasses.replace(self.request, schedule=self._prompts.merged(self.request.schedule))

    @property
    def last_change(self) -> Change | None:
        """Return the newest prompt change that a chunk has begun with."""
        return self._prompts.changes[-1] if self._prompts.changes else None

    def change_prompt(self, change: Change) -> None:
        """Save a prompt change; call it before the chunk begins that it applies to."""
        with explained(self.path, "cannot keep the changed prompt"):
            self._prompts.append(change)

    def changed_versions(self) -> dict[str, tuple[str, str]]:
        """Return name -> (then, now) of changed package versions and, on the CPU, "CPU capability"."""
        then, now = dict(self.header.versions), versions()
        if self.header.device.startswith("cpu"):
            then, now = then | {"CPU capability": self.header.cpu}, now | {"CPU capability": cpu_capability()}
        return {name: (value, now[name]) for name, value in then.items() if now.get(name, value) != value}

    def commit(self, chunk: Chunk) -> None:
        """Encode and save the next chunk with its state. The final one must end at `request.num_frames`."""
        self._check_next(chunk)
        state = pack_state(chunk.state) if chunk.state is not None else None
        number = len(self._journal.entries)
        segment = encode_segment(chunk.frames_THWC, self._spec, number, self.source_frames + chunk.start)
        entry = Entry.of(number, "chunk", chunk.index, chunk.start, chunk.final, segment, state)
        self._commit(entry, segment, state)

    def commit_source(self, frames: Iterable[Frame]) -> None:
        """Encode and save the frames of the request's video, uint8 (H, W, 3), which come first in the output.

        Always pass the whole video: frames that are committed already are skipped. Holds one frame.
        """
        if self.source_done:
            return
        rest = itertools.islice(frames, self.source_frames, None)
        for batch, is_last in batches(rest, LONGEST_SEGMENT):
            number, start = len(self._journal.entries), self.source_frames
            segment = encode_segment(batch, self._spec, number, start)
            self._commit(Entry.of(number, "source", number, start, is_last(), segment, None), segment, None)
        if not self.source_done:
            video = self.request.video
            raise RunError(f"{video}: has no frames after the {self.source_frames} committed; did it change?")

    def finish(self, output: str | os.PathLike[str] | None = None) -> Path:
        """Write a `finished` run's MP4, by default to the path given at `create`; return the path."""
        if not self.finished:
            wanted = self.request.num_frames if self.request.num_frames is not None else "endless"
            raise RunError(f"{self.path}: has {self.frames_committed} of {wanted} frames; resume it first")
        return self.export(output if output is not None else self.output)

    def export(self, output: str | os.PathLike[str]) -> Path:
        """Write what is committed so far as an MP4; return its path."""
        if not self._journal.entries:
            raise RunError(f"{self.path}: has no frames yet")
        init = (self.path / INIT).read_bytes()
        segments = (init + (self.path / entry.segment).read_bytes() for entry in self._journal.entries)
        times = self._times()
        write_mp4(Path(output), segments, self._metadata(), self._sound(times), times)
        return Path(output)

    def _sound(self, times: Sequence[Fraction] | None) -> Sound | None:
        """Return the audio for the committed frames."""
        if self.header.sound == "none":
            return None
        if self.header.sound == "whole" and self.finished:
            return Sound(self._source())
        frames = self.source_frames if self.request.video is not None else self.frames_committed
        return Sound(self._source(), times[frames] if times is not None else frames / Fraction(self.fps))

    def _times(self) -> list[Fraction] | None:
        """Return when each frame is shown, and the end, where the source's keep their times."""
        if not self.header.keeps_times:
            return None
        times, new = frame_times(self._source()), self.frames_committed if self.request.video else 0
        return [*times, *(times[-1] + number / Fraction(self.fps) for number in range(1, new + 1))]

    def _source(self) -> Path:
        """Return the extended or refined video. RunError if it has changed or is gone."""
        name, source = (
            ("video", self.request.video) if self.request.video else ("refine", self.request.refine)
        )
        path = Path(source or "")
        if not path.is_file() or input_hashes(self.request)[name] != self.header.inputs[name]:
            wanted = "its sound and times go into the video"
            raise RunError(f"{path}: has changed or is gone, but {wanted}; put it back")
        return path

    def wrote(self, output: Path) -> bool:
        """Tell, by its metadata, whether a file is the finished video of this run."""
        try:
            return self.finished and read_metadata(output) == json.loads(json.dumps(self._metadata()))
        except MediaError:
            return False

    def discard(self) -> None:
        """Delete the run's files, and the folder if nothing else is in it."""
        with explained(self.path, "cannot be deleted"):
            delete_run(self.path)
            self.close()
            with suppress(OSError):
                self.path.rmdir()

    def _commit(self, entry: Entry, segment: Segment, state: bytes | None) -> None:
        """Write the files, then the journal's line, then what can be made again."""
        if self._lock < 0:
            raise RunError(f"{self.path}: was closed; open it again to write")
        if hashlib.sha256(segment.init).hexdigest() != self.header.init_sha256:
            fix = f"resume with the versions in {REQUEST}"
            raise RunError(f"{self.path}: this encoder's segments do not fit the earlier ones; {fix}")
        with explained(self.path, f"cannot keep frames {entry.start} to {entry.start + entry.frames - 1}"):
            try:
                durable.write_named_later(self.path / entry.segment, segment.media)
                if entry.state is not None and state is not None:
                    durable.write_named_later(self.path / entry.state, state)
                durable.sync_folder(self.path)
                self._journal.append(entry)
            except OSError:
                self._undo(entry)
                raise
            self._write_playlist()
            self._drop_old_state()

    def _undo(self, entry: Entry) -> None:
        """Undo a failed commit; where that fails too, `open` does it."""
        with suppress(OSError):
            durable.cut(self._journal.path, self._journal.size)
            for name in filter(None, (entry.segment, entry.state)):
                (self.path / name).unlink(missing_ok=True)

    def _check_next(self, chunk: Chunk) -> None:
        expected = (self.chunks_committed, self.frames_committed)
        wanted = self.request.num_frames
        if self.finished:
            raise RunError(f"{self.path}: is finished; no chunk can follow")
        if not self.source_done:
            raise RunError(f"{self.path}: the frames of {self.request.video} come first; use commit_source")
        if (chunk.index, chunk.start) != expected:
            got = f"chunk {chunk.index} from frame {chunk.start}"
            raise RunError(f"{self.path}: {got} is not the next, which is {expected}")
        if wanted is not None and (chunk.stop > wanted or chunk.final != (chunk.stop == wanted)):
            got = f"a chunk ends at frame {chunk.stop} (final: {chunk.final})"
            raise RunError(f"{self.path}: {got}, {wanted} frames were asked for")

    def _write_playlist(self) -> None:
        if self._journal.entries:
            text = playlist(self._journal.entries, self.fps, INIT, self.finished)
            durable.write_unsynced(self.playlist, text.encode())

    def _drop_old_state(self) -> None:
        outdated = self._journal.entries[-STATES_KEPT - 1 : -STATES_KEPT]
        for entry in outdated:
            if entry.state is not None:
                (self.path / entry.state).unlink(missing_ok=True)

    def _metadata(self) -> dict[str, Any]:
        """Return the MP4's metadata: no clock, machine or folder, so that equal runs have equal bytes."""
        header = self.header
        names = {name: Path(path).name for name, path in self.request.files().items()}
        return {
            **self.prompts.to_json(),
            **names,
            "model": Path(self.model).name,
            "fps": rate_to_json(self.fps),
            "height": self.height,
            "width": self.width,
            "device": header.device,
            "dtype": header.dtype,
            "versions": header.versions,
            **header.metadata,
        }
