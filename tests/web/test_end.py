"""Shutdown of the demo, in its own process, while clients are connected."""

from __future__ import annotations

import signal
import sys
import threading
import time

import httpx2

import forking
from streamingt2v.client import Client


def test_it_ends_quietly_while_pages_and_downloads_are_open(toy, tmp_path):
    command = [
        sys.executable,
        "-m",
        "streamingt2v",
        "demo",
        "--model",
        str(toy),
        "--port",
        "0",
        "--data-dir",
        str(tmp_path),
    ]
    with forking.Popen(command, stderr=forking.PIPE, text=True) as demo:
        try:
            said: list[str] = []
            while not said or "listening on" not in said[-1]:
                said.append(demo.stderr.readline())
                assert said[-1], said
            url = said[-1].split()[-1]
            id = Client(url).create("A cat", num_frames=4000)["id"]
            paths = (f"/page/videos/{id}/events", f"/v1/videos/{id}/events", f"/v1/videos/{id}/content")
            watchers = [threading.Thread(target=watch, args=(url + path,)) for path in paths]
            for watcher in watchers:
                watcher.start()
            time.sleep(1)
            began = time.monotonic()
            demo.send_signal(signal.SIGINT)
            rest = demo.stderr.read()
            assert demo.wait(60) == 0 and rest == "", rest
            assert time.monotonic() - began < 60
            for watcher in watchers:
                watcher.join()
        finally:
            demo.kill()


def watch(address: str) -> None:
    try:
        with httpx2.stream("GET", address, timeout=60) as answer:
            for _ in answer.iter_bytes():
                pass
    except httpx2.HTTPError:
        pass  # the connection is cut, as expected
