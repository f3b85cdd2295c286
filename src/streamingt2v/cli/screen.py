"""Output of a command: notes and progress on stderr, the result on stdout, errors as one line."""

from __future__ import annotations

import errno
import json
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, NoReturn

import typer

from ..config.request import SHORT_NAMES
from ..config.units import readable
from ..errors import MediaWarning, RequestError, StreamingT2VError
from ..texts import printable, shortened
from . import streams
from .memory import is_out_of_memory

Unit = Literal["frames", "bytes"]

INTERRUPTED = 130
MOST_SHOWN = 400  # characters of a wrong value in messages
LINE_EVERY_SECONDS = 10.0  # between progress lines without a terminal
ARGUMENTS = {
    "prompt": "PROMPT", "prompts": "PROMPTS", "video": "VIDEO", "refine": "VIDEO", "recipe": "RECIPE",
    "kind": "KIND", "source": "SRC", "name": "NAME|ID", "target": "DST", "disk": "disk", "folder": "folder",
}  # fmt: skip


class Stopped(Exception):
    """End a command early with an exit code, a message and the command that resumes it, if any."""

    def __init__(
        self, message: str, exit_code: int, resume: str | None = None, details: dict[str, Any] | None = None
    ):
        self.exit_code, self.resume, self.details = exit_code, resume, details or {}
        super().__init__(message)


class Screen:
    """Print the notes, progress and result of one command."""

    def __init__(self, quiet: bool = False, as_json: bool = False):
        self.quiet, self.as_json = quiet, as_json
        self._waiting: list[str] = []

    def later(self, text: str) -> None:
        """Print the text before the next note; if the request turns out wrong, only the error is printed."""
        self._waiting.append(text)

    def note(self, text: str) -> None:
        """Print one line on stderr, unless quiet."""
        for earlier in self._waiting:
            self._waiting = []
            self.note(earlier)
        if not self.quiet:
            print(printable(text), file=sys.stderr, flush=True)

    def result(self, text: str, values: dict[str, Any]) -> None:
        """Print the result on stdout: `values` as JSON, or `text`."""
        shown = printable(text) if sys.stdout.isatty() else text  # a script needs the path as it is
        print(json.dumps(values) if self.as_json else shown, flush=True)
        lost = streams.failure()
        if lost is not None and not streams.was_left(lost) and text and "\n" not in text:
            self.note(f"note: stdout cannot be written ({lost.strerror}); the result: {text}")

    @contextmanager
    def progress(self, total: int | None, done: int, unit: Unit = "frames") -> Iterator[Progress]:
        """Show a bar on a terminal, a line every few seconds elsewhere, nothing if quiet."""
        kind = Progress if self.quiet else _Bar if sys.stderr.isatty() else _Lines
        with kind(total, done, unit) as bar:
            yield bar


class Progress:
    """Count frames or bytes without showing them. total: None if unknown."""

    def __init__(self, total: int | None, done: int, unit: Unit = "frames"):
        self.total, self.done, self.first, self.began, self.unit = total, done, done, time.monotonic(), unit

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.show(last=True)

    def add(self, frames: int) -> None:
        """Count more frames or bytes as done."""
        self.done += frames
        self.show(last=False)

    def show(self, last: bool) -> None:
        """Show the progress. last: on leaving the context."""

    @property
    def rate(self) -> float:
        """Return the frames or bytes per second since the start."""
        return (self.done - self.first) / max(1e-9, time.monotonic() - self.began)

    def text(self) -> str:
        """Return e.g. "48/240 frames, 12.0 fps, 0:16 left" or "1.2 GB of 12.9 GB, 50 MB/s, 3:54 left"."""
        if self.unit == "bytes":
            left = (
                f", {_clock(max(0, (self.total or 0) - self.done) / self.rate)} left"
                if self.done > self.first
                else ""
            )
            return f"{readable(self.done)} of {readable(self.total or 0)}, {readable(self.rate)}/s{left}"
        if self.total is None:
            return f"{self.done} frames, {self.rate:.1f} fps"
        left = f", {_clock((self.total - self.done) / self.rate)} left" if self.done > self.first else ""
        rate = (
            f", {self.rate:.1f} fps" if self.done > self.first else ""
        )  # nothing was made yet, or was left to make
        return f"{self.done}/{self.total} frames{rate}{left}"


class _Lines(Progress):
    """Print one line every few seconds."""

    _said, _told = 0.0, -1

    def show(self, last: bool) -> None:
        due = time.monotonic() - self._said >= LINE_EVERY_SECONDS or (last and self.done > self.first)
        if due and self.done != self._told:
            self._said, self._told = time.monotonic(), self.done
            print(self.text(), file=sys.stderr, flush=True)


class _Bar(Progress):
    """Draw a progress bar with rich."""

    def __enter__(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as RichProgress

        console = Console(stderr=True)
        spinner = SpinnerColumn("line" if console.options.ascii_only else "dots")
        self._rich = RichProgress(
            spinner, BarColumn(), TextColumn("{task.description}"), console=console, redirect_stdout=False
        )
        self._task = self._rich.add_task(self.text(), total=self.total, completed=self.done)
        self._rich.start()
        return self

    def show(self, last: bool) -> None:
        self._rich.update(self._task, completed=self.done, description=self.text())
        if last:
            self._rich.stop()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGINT, which background jobs of a shell would ignore."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_warning(message: Warning | str, *where: object, **more: object) -> None:
    print(f"warning: {printable(str(message))}", file=sys.stderr)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print warnings as one line on stderr, without source lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MediaWarning)  # notes tell the damage
        warnings.showwarning = _show_warning
        yield


def describe(error: BaseException) -> Stopped:
    """Return the exit code and one-line message for an error; print the traceback of an unexpected one."""
    if isinstance(error, Stopped):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Stopped("interrupted", INTERRUPTED)
    if isinstance(error, RequestError):
        argument = SHORT_NAMES.get(error.argument, error.argument)
        name = ARGUMENTS.get(argument, f"--{argument.replace('_', '-')}")
        details = {"argument": argument, "value": error.value, "fix": error.fix}
        value = "" if error.value is None else f" {shortened(repr(error.value), MOST_SHOWN)}"
        return Stopped(f"{name}{value}: {error.fix}", 2, details=details)
    if isinstance(error, typer.TyperException):
        return Stopped(shortened(error.format_message(), 2 * MOST_SHOWN), error.exit_code)
    if is_out_of_memory(error):
        return Stopped("out of memory: close other programs, or use a machine with more memory", 1)
    if isinstance(error, OSError):
        where = f": {shortened(str(error.filename), MOST_SHOWN)}" if error.filename else ""
        return Stopped(f"{error.strerror or error}{where}", 2 if error.errno == errno.ENAMETOOLONG else 1)
    if isinstance(error, StreamingT2VError):
        return Stopped(str(error), 1)
    traceback.print_exception(error)
    return Stopped(f"unexpected {type(error).__name__}: {error}", 1)


def report_error(error: BaseException, as_json: bool) -> int:
    """Print why a command ended and how to resume it; return the exit code."""
    stopped = describe(error)
    text = printable(str(stopped))
    print(text if stopped.exit_code == INTERRUPTED else f"error: {text}", file=sys.stderr)
    if stopped.resume:
        print(f"resume with: {stopped.resume}", file=sys.stderr, flush=True)
    if as_json:
        values = {"error": str(stopped), "exit_code": stopped.exit_code, **stopped.details}
        print(
            json.dumps(values | {"resume": stopped.resume} if stopped.resume else values, default=str),
            flush=True,
        )
    return stopped.exit_code
