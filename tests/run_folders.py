"""Run folders of a fake pipeline."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import torch

from streamingt2v import durable
from streamingt2v.config import Request
from streamingt2v.runs.run import RunFolder
from streamingt2v.types import Chunk
from streamingt2v.video.reader import read_video

LENGTHS = (7, 1, 4, 2)


TOTAL = sum(LENGTHS)


class Killed(BaseException):
    """Simulate the end of the process: no code may catch it."""


def story(request, state=None, lengths=LENGTHS):
    """Yield chunks whose frames depend on all frames before them, through the state alone."""
    first, start = (state["next"], state["frame"]) if state else (0, 0)
    memory = state["memory"] if state else torch.arange(16 * 32 * 3).reshape(16, 32, 3).double() % 61
    for index in range(first, len(lengths)):
        frames = []
        for _ in range(lengths[index]):
            memory = (memory * 1.37 + torch.roll(memory, 1, 1) + request.seed) % 251
            frames.append(memory.to(torch.uint8).numpy())
        stop = start + lengths[index]
        kept = {"next": index + 1, "frame": stop, "memory": memory, "names": ["a", None, 0.1]}
        yield Chunk(index, start, np.stack(frames), stop == sum(lengths), kept)
        start = stop


def create(path, request=None, **more):
    return RunFolder.create(
        path, request or Request("a cat", num_frames=TOTAL, seed=3), "tiny", 8, 16, 32, **more
    )


def complete(run, output=None):
    """Complete a new or opened run, as the command line does."""
    if not run.source_done:
        run.commit_source(read_video(run.request.video, run.height, run.width))
    if not run.finished:
        for chunk in story(run.request, run.state):
            run.commit(chunk)
    return run.finish(output)


def digest(path):
    return durable.sha256_of(path)


def names(folder):
    return sorted(file.name for file in Path(folder).iterdir())


def failing_after(calls, operation, error=None):
    count = iter(range(10**6))

    def run(*args):
        if next(count) == calls:
            raise error or OSError(errno.EIO, "Input/output error")
        return operation(*args)

    return run


def interrupted(frames, after):
    for i, frame in enumerate(frames):
        if i == after:
            raise KeyboardInterrupt
        yield frame
