"""Start processes in milliseconds: fork them from a server that has the libraries imported.

A command of the package takes five seconds to import them. Most tests that need a process kill it or break
its connections: they use `Popen` and `run` from here. A few use `subprocess`, and start as users do.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, TimeoutExpired
from typing import IO, Any, NoReturn

__all__ = ["DEVNULL", "PIPE", "Popen", "TimeoutExpired", "run"]

IMPORTS = (
    "forking",
    "lab.tiny.recipes",
    "toy",
    "streamingt2v.api.app",
    "streamingt2v.jobs.service",
    "streamingt2v.jobs.worker",
    "streamingt2v.runs.render",
    "streamingt2v.web.app",
)
ADDRESS = "TEST_FORKS"
"""Environment variable: path of the server's socket, shared by all processes of a test run."""

_ENVIRONMENT = dict(os.environ)  # of the server, whatever tests set later


class Popen:
    """Part of `subprocess.Popen`, for `[sys.executable, "-m", module, ...]` or `[..., "-c", code, ...]`."""

    def __init__(
        self,
        command: Sequence[object],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        text: bool = False,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        start_new_session: bool = False,
    ):
        assert command[0] == sys.executable and command[1] in ("-m", "-c"), command
        self.args, self._lock, self._code = command, threading.Lock(), None
        ours: list[int | None] = [None] * 3
        theirs = []
        for place, kind in enumerate((stdin, stdout, stderr)):
            if kind == PIPE:
                read, write = os.pipe()
                ours[place] = read if place else write
                theirs.append(write if place else read)
            else:
                theirs.append(
                    os.open(os.devnull, os.O_RDWR) if kind == DEVNULL or not place else os.dup(place)
                )
        self._socket = _connected()
        socket.send_fds(self._socket, [b"\0"], theirs)
        words = [str(word) for word in command[1:]]
        request = {
            "words": words,
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "path": sys.path,
            "new_session": start_new_session,
        }
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        for file in theirs:
            os.close(file)
        self._answers = self._socket.makefile("r")
        self.pid = int(self._answers.readline())
        files: list[IO[Any] | None] = [
            None if file is None else os.fdopen(file, ("r" if place else "w") + ("" if text else "b"))
            for place, file in enumerate(ours)
        ]
        self.stdin, self.stdout, self.stderr = files

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        with suppress(TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, the negative number of the signal for a process that was killed."""
        with self._lock:
            if self._code is None:
                self._socket.settimeout(max(1e-3, timeout) if timeout is not None else None)
                try:
                    self._code = int(self._socket.recv(16))
                except TimeoutError:
                    raise TimeoutExpired([str(word) for word in self.args], timeout or 0.0) from None
            return self._code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Return all of stdout and stderr, and wait for the end."""
        found: dict[IO[Any] | None, Any] = {None: None}
        readers = [
            threading.Thread(target=lambda file=file: found.update({file: file.read()}), daemon=True)
            for file in (self.stdout, self.stderr)
            if file
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
        self.wait(timeout)
        return found[self.stdout], found[self.stderr]

    def __enter__(self) -> Popen:
        return self

    def __exit__(self, *_: object) -> None:
        for file in filter(None, (self.stdin, self.stdout, self.stderr)):
            file.close()
        self.wait()


def run(
    command: Sequence[object], *, check: bool = False, timeout: float | None = None, **options: Any
) -> CompletedProcess:
    """Run a command to its end and return what it wrote, as `subprocess.run` does."""
    process = Popen(command, stdout=PIPE, stderr=PIPE, text=True, **options)
    out, err = process.communicate(timeout)
    if check and process.wait():
        sys.stderr.write(err)
        raise subprocess.CalledProcessError(process.wait(), list(map(str, command)), out, err)
    return CompletedProcess(command, process.wait(), out, err)


# ---------------------------------------------------------------- the server


def _connected() -> socket.socket:
    """Connect to the server; start it if there is none. It ends with the main process of pytest."""
    root = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    path = os.environ.setdefault(ADDRESS, f"{tempfile.gettempdir()}/streamingt2v-forks-{root}")
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(OSError):
            return _connect(path)
        Path(path).unlink(missing_ok=True)
        server = subprocess.Popen(
            [sys.executable, __file__, path, str(root)],
            env=_ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        while server.poll() is None:
            with suppress(OSError):
                return _connect(path)
            time.sleep(0.02)
        raise OSError(f"the server ended with {server.returncode}")


def _connect(path: str) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    try:
        found.connect(path)
    except OSError:
        found.close()
        raise
    return found


def _serve(path: str, root: int) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    for module in IMPORTS:
        __import__(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    listener.settimeout(1.0)
    with suppress(ProcessLookupError):
        while True:
            os.kill(root, 0)
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                if os.fork() == 0:
                    listener.close()
                    _attend(connection)
                connection.close()
    for file in (path, f"{path}.lock"):
        Path(file).unlink(missing_ok=True)


def _attend(connection: socket.socket) -> NoReturn:
    """Fork the process, tell its number, wait for it, and tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.setblocking(True)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile().readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        os._exit(_run(request, files))
    for file in files:
        os.close(file)
    with suppress(OSError):
        connection.sendall(f"{pid}\n".encode())
        connection.sendall(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    os._exit(0)


def _run(request: dict[str, Any], files: list[int]) -> int:
    """Be the process: its files, folder, environment and words; return its exit code."""
    if request["new_session"]:
        os.setsid()
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:] = request["path"]
    kind, what, *arguments = request["words"]
    sys.argv = [what if kind == "-m" else "-c", *arguments]
    sys.modules["streamingt2v.jobs.supervisor"].subprocess = sys.modules["forking"]  # type: ignore[attr-defined]
    try:
        if kind == "-c":
            exec(compile(what, "<command>", "exec"), {"__name__": "__main__"})
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # the module is imported already
                runpy.run_module(what, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            file.flush()
    return code


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
