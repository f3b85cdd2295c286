"""A run folder: one long video in the making, on the disk after every chunk, to go on with after any interruption.

    request.json            what was asked for, the model, sizes, versions; written first, never changed
    journal.jsonl           one line a committed segment; a whole line is the commit
    prompts.jsonl           one line a change of the prompt on the way; only where there were any
    init.mp4, seg_*.m4s     the video so far: HLS segments, each encoded once and never touched again
    playlist.m3u8           plays them, also while they are made
    state_*.safetensors     what the next chunk needs, of the two newest chunks
    lock                    held by the process that writes

Everything is written, flushed to the disk, and renamed, the journal's line last: a kill at any instant loses the chunk in
the making and nothing else. The final MP4 is a copy of the segments' packets, so it has the same bytes however often the
run was interrupted. Needs a POSIX system (file locks).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from .. import durable
from ..config import Request
from ..config.runtime import PLAIN, Savings
from ..errors import MediaError, RunError
from ..types import Chunk, State
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
from .folder import INIT, JOURNAL, PLAYLIST, PROMPTS, REQUEST, VIDEO, delete_run, locked, may_be_stray, taken
from .header import (
    Header,
    KeptSound,
    cpu_capability,
    cpu_threads,
    input_hashes,
    versions,
    with_absolute_paths,
)
from .journal import Entry, Journal, segment_name, state_name
from .playlist import playlist
from .prompts import Change, PromptLog
from .state import pack_state, unpack_state

STATES_KEPT = 2


class RunFolder:
    """The folder of one run, open for writing by this process alone. `create` a new one or `open` an interrupted one.

    A context manager: leaving it gives the lock back and keeps the folder. All errors are RunError and leave what is committed.
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
        notes: Sequence[str] = (),
        temporary: bool = False,
        overwrite: bool = False,
    ) -> RunFolder:
        """A new run in an empty or missing folder, for a video of that even size and rate (RequestError if odd).

        `output` is where `finish` puts the MP4 (None: into the folder), `metadata` more JSON values for its comment. What the
        other arguments mean is said at `Header`; the number of threads and the CPU are those of this process.
        RunError if the folder is in use, cannot be written, or the output could not be; then nothing new is left there.
        """
        path = Path(path).absolute()
        init = init_segment(VideoSpec(height, width, fps))
        with _explained(path, "cannot be made a run folder"):
            if output is not None:
                _check_output(Path(output))
            with taken(path) as lock:
                request = with_absolute_paths(request)
                header = Header(
                    request=request,
                    model=model,
                    weights=weights,
                    sound=sound,
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
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The run in a folder, as of its last whole commit; what a killed process left half-done is deleted.

        RunError if it is no run folder, another process writes it, or committed files are damaged (the message names the file).
        """
        path = Path(path).absolute()
        if not (path / REQUEST).is_file():
            raise RunError(f"{path}: is no run folder (it has no {REQUEST})")
        with _explained(path, "cannot be opened"):
            lock = locked(path)
            try:
                run = cls(path, Header.read(path / REQUEST), Journal.read(path / JOURNAL), lock)
                run._recover()
                return run
            except BaseException:
                durable.unlock(lock)
                raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder free for others. The folder stays as it is."""
        if self._lock >= 0:
            durable.unlock(self._lock)
            self._lock = -1

    @property
    def frames_committed(self) -> int:
        """How many new frames are safe: `start` of the next chunk."""
        return sum(entry.frames for entry in self._journal.of_kind("chunk"))

    @property
    def chunks_committed(self) -> int:
        """How many chunks are safe: `index` of the next chunk."""
        return len(self._journal.of_kind("chunk"))

    @property
    def source_frames(self) -> int:
        """How many frames of the request's video are safe."""
        return sum(entry.frames for entry in self._journal.of_kind("source"))

    @property
    def source_done(self) -> bool:
        """Nothing is left for `commit_source`: the request's video is in, or there is none."""
        source = self._journal.of_kind("source")
        return self.request.video is None or bool(source and source[-1].final)

    @property
    def finished(self) -> bool:
        """The final chunk is safe: only `finish` is left to do."""
        return (
            bool(self._journal.entries)
            and self._journal.entries[-1].kind == "chunk"
            and self._journal.entries[-1].final
        )

    @property
    def state(self) -> State | None:
        """The state after the last committed chunk, read from its file; None before the first, and if the chunk came without."""
        chunks = self._journal.of_kind("chunk")
        if not chunks or chunks[-1].state is None:
            return None
        with _explained(self.path, "cannot be read"):
            return unpack_state((self.path / chunks[-1].state).read_bytes())

    @property
    def prompts(self) -> Request:
        """The request with all changes of its prompt so far in its schedule: a new run of it makes the same frames."""
        return dataclasses.replace(self.request, schedule=self._prompts.merged(self.request.schedule))

    @property
    def last_change(self) -> Change | None:
        """The newest change of the prompt that a chunk has begun with."""
        return self._prompts.changes[-1] if self._prompts.changes else None

    def change_prompt(self, change: Change) -> None:
        """Make it safe that a chunk begins with another prompt; to be called before it does."""
        with _explained(self.path, "cannot keep the changed prompt"):
            self._prompts.append(change)

    def changed_versions(self) -> dict[str, tuple[str, str]]:
        """What is not as it was when the run began: name -> (then, now). The rest of the video may then differ in its bits.

        Packages by their versions, and for a run on the CPU its "CPU capability", the instructions that torch uses of it.
        """
        then, now = dict(self.header.versions), versions()
        if self.header.device.startswith("cpu"):
            then, now = then | {"CPU capability": self.header.cpu}, now | {"CPU capability": cpu_capability()}
        return {name: (value, now[name]) for name, value in then.items() if now.get(name, value) != value}

    def commit(self, chunk: Chunk) -> None:
        """Encode the chunk and make it safe with its state. It must be the next one, and the last must end at `request.num_frames`."""
        self._check_next(chunk)
        state = pack_state(chunk.state) if chunk.state is not None else None
        number = len(self._journal.entries)
        segment = encode_segment(chunk.frames_THWC, self._spec, number, self.source_frames + chunk.start)
        self._commit(
            _entry("chunk", number, chunk.index, chunk.start, chunk.final, segment, state), segment, state
        )

    def commit_source(self, frames: Iterable[Frame]) -> None:
        """Make the frames of the request's video safe, uint8 (H, W, 3), segment by segment; they come first in the output.

        Always hand over the whole video from its first frame: what an earlier attempt committed is skipped. Nothing to do if
        `source_done`. Holds one frame besides the encoder's.
        """
        if self.source_done:
            return
        rest = itertools.islice(frames, self.source_frames, None)
        for batch, is_last in batches(rest, LONGEST_SEGMENT):
            number, start = len(self._journal.entries), self.source_frames
            segment = encode_segment(batch, self._spec, number, start)
            self._commit(_entry("source", number, number, start, is_last(), segment, None), segment, None)
        if not self.source_done:
            raise RunError(
                f"{self.request.video}: has no frames after the {self.source_frames} that are committed; did it change?"
            )

    def finish(self, output: str | os.PathLike[str] | None = None) -> Path:
        """Write the MP4 (to `output`, or where `create` was told) and give its path. RunError unless `finished`. May be repeated."""
        if not self.finished:
            wanted = self.request.num_frames if self.request.num_frames is not None else "endless"
            raise RunError(f"{self.path}: has {self.frames_committed} of {wanted} frames; resume it first")
        return self.export(output if output is not None else self.output)

    def export(self, output: str | os.PathLike[str]) -> Path:
        """Write what is committed so far as an MP4 and give its path. RunError if that is nothing or it cannot be written."""
        if not self._journal.entries:
            raise RunError(f"{self.path}: has no frames yet")
        init = (self.path / INIT).read_bytes()
        segments = (init + (self.path / entry.segment).read_bytes() for entry in self._journal.entries)
        write_mp4(Path(output), segments, self._metadata(), self._sound())
        return Path(output)

    def _sound(self) -> Sound | None:
        """The sound under the frames that are committed. RunError if the file that has it is not there any more."""
        source = self.request.video or self.request.refine
        if source is None or self.header.sound == "none":
            return None
        name = "video" if self.request.video is not None else "refine"
        if not Path(source).is_file() or input_hashes(self.request)[name] != self.header.inputs[name]:
            raise RunError(
                f"{source}: is not there as it was when the run began, and its sound goes into the video; put it back"
            )
        frames = self.source_frames if self.request.video is not None else self.frames_committed
        is_whole = self.header.sound == "whole" and self.finished
        return Sound(Path(source), None if is_whole else frames / Fraction(self.fps))

    def wrote(self, output: Path) -> bool:
        """Whether that file is the finished video of this very run, by what it says about itself."""
        try:
            return self.finished and read_metadata(output) == json.loads(json.dumps(self._metadata()))
        except MediaError:
            return False

    def discard(self) -> None:
        """Delete the run, and its folder unless there are files of others (or the finished MP4) in it.

        Cut short, it leaves a folder that a new run can be made in.
        """
        with _explained(self.path, "cannot be deleted"):
            delete_run(self.path)
            self.close()
            with suppress(OSError):
                self.path.rmdir()

    def _commit(self, entry: Entry, segment: Segment, state: bytes | None) -> None:
        """Files first, then the journal's line, then what can be made again."""
        if self._lock < 0:
            raise RunError(f"{self.path}: was closed; open it again to write")
        if hashlib.sha256(segment.init).hexdigest() != self.header.init_sha256:
            raise RunError(
                f"{self.path}: this encoder's segments do not fit the earlier ones; resume with the versions in {REQUEST}"
            )
        with _explained(self.path, f"cannot keep frames {entry.start} to {entry.start + entry.frames - 1}"):
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
        """Forget a commit that failed. If even that fails, `open` does it."""
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
            raise RunError(
                f"{self.path}: the frames of {self.request.video} come first; commit them with commit_source"
            )
        if (chunk.index, chunk.start) != expected:
            raise RunError(
                f"{self.path}: chunk {chunk.index} from frame {chunk.start} is not the next, which is {expected}"
            )
        if wanted is not None and (chunk.stop > wanted or chunk.final != (chunk.stop == wanted)):
            raise RunError(
                f"{self.path}: a chunk ends at frame {chunk.stop} (final: {chunk.final}), {wanted} frames were asked for"
            )

    def _recover(self) -> None:
        """Back to the last commit that can be gone on from, and no file besides."""
        self._check_files()
        keep = self._resume_point()
        if keep < len(self._journal.entries) or self._journal.path.exists():
            self._journal.rewind(keep)
        if not self.finished and input_hashes(self.request) != self.header.inputs:
            raise RunError(
                f"{self.path}: its input {', '.join(self.request.files().values())} is not the file that the run began with"
            )
        self._write_playlist()
        self._delete_strays()

    def _check_files(self) -> None:
        expected = [
            (INIT, self.header.init_sha256),
            *((e.segment, e.segment_sha256) for e in self._journal.entries),
        ]
        for name, digest in expected:
            if not (self.path / name).is_file() or durable.sha256_of(self.path / name) != digest:
                raise RunError(f"{self.path / name}: is missing or damaged; this run cannot be resumed")

    def _resume_point(self) -> int:
        """How many entries can be kept. A damaged newest state costs its chunk; the state before is still there."""
        damaged = []
        for count in range(len(self._journal.entries), 0, -1):
            entry = self._journal.entries[count - 1]
            if entry.kind == "source" or entry.final or (entry.state is not None and self._is_whole(entry)):
                return count
            if entry.state is not None:
                damaged.append(self.path / entry.state)
            if len(damaged) >= STATES_KEPT:
                raise RunError(f"{damaged[0]}: is missing or damaged; this run cannot be resumed")
        return 0

    def _is_whole(self, entry: Entry) -> bool:
        path = self.path / (entry.state or "")
        return path.is_file() and durable.sha256_of(path) == entry.state_sha256

    def _write_playlist(self) -> None:
        if self._journal.entries:
            durable.write_unsynced(
                self.playlist, playlist(self._journal.entries, self.fps, INIT, self.finished).encode()
            )

    def _delete_strays(self) -> None:
        """Delete files of ours that no entry needs: half-written ones, later ones, old states."""
        entries = self._journal.entries
        kept = {entry.segment for entry in entries} | {entry.state for entry in entries[-STATES_KEPT:]}
        for file in list(self.path.iterdir()):
            if may_be_stray(file.name) and file.name not in kept:
                file.unlink(missing_ok=True)

    def _drop_old_state(self) -> None:
        outdated = self._journal.entries[-STATES_KEPT - 1 : -STATES_KEPT]
        for entry in outdated:
            if entry.state is not None:
                (self.path / entry.state).unlink(missing_ok=True)

    def _metadata(self) -> dict[str, Any]:
        """What the MP4 says about itself: no clock, no machine, no folder, so that the same run has the same bytes."""
        asked = self.prompts.to_json() | {
            name: Path(path).name for name, path in self.request.files().items()
        }
        size = {
            "model": Path(self.model).name,
            "fps": rate_to_json(self.fps),
            "height": self.height,
            "width": self.width,
        }
        made_with = {
            "device": self.header.device,
            "dtype": self.header.dtype,
            "versions": self.header.versions,
        }
        return asked | size | made_with | self.header.metadata


def _entry(
    kind: Literal["source", "chunk"],
    number: int,
    index: int,
    start: int,
    final: bool,
    segment: Segment,
    state: bytes | None,
) -> Entry:
    return Entry(
        kind=kind,
        index=index,
        start=start,
        frames=segment.frames,
        final=final,
        segment=segment_name(number),
        segment_sha256=hashlib.sha256(segment.media).hexdigest(),
        state=state_name(number) if state is not None else None,
        state_sha256=hashlib.sha256(state).hexdigest() if state is not None else None,
    )


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """Any OSError as a RunError that says what could not be done and why."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename and Path(error.filename) != path else ""
        raise RunError(f"{path}: {what}: {error.strerror or error}{where}") from error


def _check_output(output: Path) -> None:
    """Say before hours of work that the result could not be written."""
    folder = output.absolute().parent
    if output.is_dir():
        raise RunError(f"{output}: is a folder; name a file in it")
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder to write {output.name} to; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(f"{folder}: cannot be written")
