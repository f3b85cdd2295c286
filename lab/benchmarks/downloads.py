"""Kill a download at three places and resume it: bytes transferred against the file's size.

    PYTHONPATH=tests python lab/benchmarks/downloads.py [--megabytes 200] [--rate 40]

Uses a local hub that speaks the real protocol, slowed down to `--rate` megabytes per second.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # the local hub is the tests'

from hub_fixtures import hub_environment
from hub_server import Hub

FETCH = "from streamingt2v.checkpoints.hub import fetch; print(fetch('owner/name'))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rate", type=float, default=40.0, help="megabytes a second")
    asked = parser.parse_args()
    size = asked.megabytes * 10**6
    with TemporaryDirectory() as place, Hub() as hub:
        source = Path(place) / "weights.safetensors"
        with source.open("wb") as file:
            for _ in range(asked.megabytes):
                file.write(os.urandom(10**6))
        hub.put("owner/name", {source.name: source})
        hub.rate = asked.rate * 1e6
        for number, part in ((signal.SIGKILL, 0.2), (signal.SIGINT, 0.5), (signal.SIGKILL, 0.8)):
            process = _started(hub.url, Path(place))
            while sum(hub.bytes_sent.values()) < part * size:
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.02)
            began = time.monotonic()
            process.send_signal(number)
            process.wait()
            at, after = sum(hub.bytes_sent.values()) / 1e6, time.monotonic() - began
            print(f"{signal.Signals(number).name} at {at:.1f} MB, ended after {after:.2f} s")
        process = _started(hub.url, Path(place))
        folder = Path(process.communicate()[0].decode().splitlines()[-1])
        whole = (folder / source.name).read_bytes() == source.read_bytes()
        sent = sum(hub.bytes_sent.values())
        print(f"whole: {whole}; {sent / 1e6:.1f} MB on the wire, {sent / size:.3f} times the file")


def _started(url: str, place: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", FETCH]
    return subprocess.Popen(
        words, env=hub_environment(url, place), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


if __name__ == "__main__":
    main()
