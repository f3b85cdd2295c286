"""Run many sessions over several replicas and kill (-9) one: every chunk must arrive exactly once.

    python lab/benchmarks/replicas.py [--sessions 20] [--replicas 2] [--frames 48] [--steps 2] [--model tiny]
    python lab/benchmarks/replicas.py --nodes   # two Ray machines in network namespaces, one killed; root

Opens all sessions on `streamingt2v serve --replicas` and kills a replica after a third of all frames. Every
session must then have segments 0 to n - 1, each once, and segments and file must equal byte for byte those of
a single run in this process. `--nodes` cuts the machine's link and kills all its processes. Prints a table
and one JSON line; exit 1 if anything was lost, duplicated, or differs.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from lab.benchmarks.listening import started
from streamingt2v import Request
from streamingt2v.client import Client
from streamingt2v.runs.folder import INIT, JOURNAL
from streamingt2v.runs.journal import Journal
from streamingt2v.runs.render import create_run, load_pipeline, render

PROMPT = "A cat running on the street"
REPLICA = "ray::ServeReplica:streamingt2v"


class Cluster(Protocol):
    """Machines that run the replicas."""

    url: str

    def kill(self) -> str:
        """Kill a replica; return what was killed."""


class Alone:
    """The command on this machine with its own Ray. A context manager."""

    def __init__(self, options: argparse.Namespace, folder: Path):
        self._options, self._folder = options, folder

    def __enter__(self) -> Alone:
        self._process, self.url = started(serve_command(self._options, self._folder), self._folder / "log")
        return self

    def kill(self) -> str:
        """Kill one replica; its worker then ends by itself."""
        pid = pids(REPLICA)[0]
        os.kill(pid, signal.SIGKILL)
        return f"replica {pid}"

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(60)


class Nodes:
    """Two Ray machines, each a network namespace, linked to each other. A context manager.

    Command and clients run on the first with Ray's head and a replica; the second has a replica.
    """

    NAMES, IPS = ("st2v-one", "st2v-two"), ("10.213.7.1", "10.213.7.2")

    def __init__(self, options: argparse.Namespace, folder: Path):
        self._options, self._folder = options, folder
        self._stack = ExitStack()

    def __enter__(self) -> Nodes:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        for words in self._wiring():
            subprocess.run(["ip", *words], check=True)
            if words[:2] == ["netns", "add"]:
                self._stack.callback(self._remove, words[2])
        address, one = f"{self.IPS[0]}:6379", self.NAMES[0]
        os.environ |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }  # for this cluster only
        self._ray(
            0, "--head", "--port", "6379", "--include-dashboard", "false", "--temp-dir", str(self._folder)
        )
        self._ray(1, "--address", address)
        self._stack.callback(enter_network, enter_network(f"/run/netns/{one}"))
        process, self.url = started(
            serve_command(self._options, self._folder),
            self._folder / "log",
            os.environ | {"RAY_ADDRESS": address},
        )
        self._stack.callback(process.wait, 60)
        self._stack.callback(process.terminate)

    def kill(self) -> str:
        """Kill every process of the second machine, and its link."""
        subprocess.run(["ip", "-n", self.NAMES[1], "link", "set", "st2v-b", "down"], check=True)
        return f"a machine with {self._kill_all(self.NAMES[1])} processes"

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _remove(self, name: str) -> None:
        self._kill_all(name)
        subprocess.run(["ip", "netns", "del", name], check=True)

    def _kill_all(self, name: str) -> int:
        there = subprocess.run(
            ["ip", "netns", "pids", name], capture_output=True, text=True, check=True
        ).stdout.split()
        for pid in there:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        return len(there)

    def _wiring(self) -> Iterator[list[str]]:
        one, two = self.NAMES
        yield ["netns", "add", one]
        yield ["netns", "add", two]
        yield ["link", "add", "st2v-a", "netns", one, "type", "veth", "peer", "name", "st2v-b", "netns", two]
        for name, end, ip in zip(self.NAMES, ("st2v-a", "st2v-b"), self.IPS, strict=True):
            yield ["-n", name, "addr", "add", f"{ip}/24", "dev", end]
            yield ["-n", name, "link", "set", end, "up"]
            yield ["-n", name, "link", "set", "lo", "up"]

    def _ray(self, number: int, *words: str) -> None:
        """Start a Ray node on that machine and wait for it."""
        command = [
            str(Path(sys.executable).with_name("ray")),
            "start",
            "--block",
            "--num-cpus",
            "1",
            "--disable-usage-stats",
            *words,
        ]
        inside = ["ip", "netns", "exec", self.NAMES[number], *command, "--node-ip-address", self.IPS[number]]
        log = self._folder / f"ray-{number}.log"
        with log.open("w") as output:
            process = subprocess.Popen(inside, stdout=output, stderr=subprocess.STDOUT)
        while "Ray runtime started" not in log.read_text():
            if process.poll() is not None:
                raise SystemExit(f"Ray did not start: {log.read_text()}")
            time.sleep(0.2)


@dataclass
class Watched:
    """A client's view of a session."""

    seed: int
    id: str = ""
    indices: list[int] = field(default_factory=list)
    frames: int = 0
    digest: str = ""
    longest: float = 0.0
    status: str = ""
    resumed: int = 0


def serve_command(options: argparse.Namespace, folder: Path) -> list[str]:
    """Return the command `serve` with this many replicas."""
    command = [
        sys.executable,
        "-m",
        "streamingt2v",
        "serve",
        "--replicas",
        str(options.replicas),
        "--port",
        str(options.port),
    ]
    limits = ["--max-sessions", str(options.sessions), "--max-queue", str(options.sessions)]
    return [*command, "--model", options.model, "--data-dir", str(folder / "data"), *limits]


def enter_network(path: str) -> str:
    """Move this thread and its later children into that network; return the previous one's path."""
    before = f"/proc/{os.getpid()}/fd/{os.open('/proc/thread-self/ns/net', os.O_RDONLY)}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(os.open(path, os.O_RDONLY), 0x40000000) != 0:  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), f"{path} cannot be entered")
    return before


def pids(name: str) -> list[int]:
    """Return the ids of processes with that name."""
    found = subprocess.run(["pgrep", "-f", name], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def watch(url: str, options: argparse.Namespace, watched: Watched) -> None:
    """Follow a session from start to end."""
    asked = {"num_frames": options.frames, "num_inference_steps": options.steps, "seed": watched.seed}
    with Client(url, seconds=120) as client, client.session(PROMPT, **asked) as session:
        watched.id, digest, last = session.video["id"], hashlib.sha256(), time.monotonic()
        for piece in session:
            now = time.monotonic()
            if watched.indices:
                watched.longest = max(watched.longest, now - last)
            last = now
            watched.indices.append(piece.about["transport_chunk_index"])
            watched.frames += piece.about["num_frames"]
            digest.update(piece.data)
        watched.digest, watched.resumed = digest.hexdigest(), session.connections - 1
        watched.status = session.done["status"] if session.done else "lost"


def with_a_kill(cluster: Cluster, options: argparse.Namespace) -> tuple[list[Watched], str, float]:
    """Return all sessions, what was killed, and the duration."""
    all_ = [Watched(seed) for seed in range(options.sessions)]
    began = time.monotonic()
    with ThreadPoolExecutor(options.sessions) as pool:
        done = [pool.submit(watch, cluster.url, options, each) for each in all_]
        while sum(each.frames for each in all_) < options.sessions * options.frames // 3:
            time.sleep(0.05)
        killed = cluster.kill()
        print(f"killed {killed} after {time.monotonic() - began:.1f} s", flush=True)
        for each in done:
            each.result()
    return all_, killed, time.monotonic() - began


def alone(options: argparse.Namespace, folder: Path) -> dict[int, tuple[str, str]]:
    """Return seed -> digests of segments and file of an undisturbed run in this process."""
    torch.set_num_threads(1)
    pipe, digests = load_pipeline(options.model, "cpu", "float32"), {}
    for seed in range(options.sessions):
        asked = pipe.resolve(Request(PROMPT, options.frames, seed=seed, num_inference_steps=options.steps))
        folder.mkdir(exist_ok=True)
        with create_run(pipe, asked, folder / str(seed), options.model, folder / f"{seed}.mp4") as run:
            render(pipe, run, asked)
        entries = Journal.read(folder / str(seed) / JOURNAL).entries
        parts = [folder / str(seed) / name for name in (INIT, *(entry.segment for entry in entries))]
        digests[seed] = (
            digest(b"".join(part.read_bytes() for part in parts)),
            digest((folder / f"{seed}.mp4").read_bytes()),
        )
    return digests


def digest(data: bytes) -> str:
    """Return the digest of the content."""
    return hashlib.sha256(data).hexdigest()


def report(sessions: list[Watched], files: dict[int, str], single: dict[int, tuple[str, str]]) -> Counter:
    """Return a row per session, and counts of each kind."""
    tally: Counter = Counter()
    print(f"{'seed':>4} {'segments':>8} {'frames':>6} {'resumed':>7} {'longest wait':>12}  bytes")
    for each in sessions:
        whole, file = single[each.seed]
        equal = each.digest == whole and files[each.seed] == file
        in_order = each.indices == list(range(len(each.indices)))
        tally.update(
            {
                "completed": each.status == "completed",
                "in_order": in_order,
                "equal": equal,
                "resumed": each.resumed > 0,
            }
        )
        numbers = f"{each.seed:4} {len(each.indices):8} {each.frames:6} {each.resumed:7}"
        print(f"{numbers} {each.longest:10.1f} s  {'equal' if equal else 'DIFFERENT'}")
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--nodes", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (Nodes if options.nodes else Alone)(options, folder) as cluster:
            sessions, killed, seconds = with_a_kill(cluster, options)
            with Client(cluster.url) as client:
                files = {
                    each.seed: digest(client.download(each.id, folder / "video.mp4").read_bytes())
                    for each in sessions
                }
        tally = report(sessions, files, alone(options, folder / "alone"))
    longest = max(each.longest for each in sessions)
    result = {
        "benchmark": "replicas",
        "killed": killed,
        "sessions": options.sessions,
        "replicas": options.replicas,
    }
    result |= {"frames": options.frames, "steps": options.steps, "model": options.model, **tally}
    print(json.dumps(result | {"seconds": round(seconds, 1), "longest_wait_seconds": round(longest, 1)}))
    return 0 if all(tally[kind] == options.sessions for kind in ("completed", "in_order", "equal")) else 1


if __name__ == "__main__":
    sys.exit(main())
