"""Replicas on Ray Serve: sessions survive a killed one, and the queue sets their number."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from streamingt2v import Request
from streamingt2v.api.replica import OpenReplica, replicas_for
from streamingt2v.cli import main
from streamingt2v.client import Client
from streamingt2v.errors import MissingExtra
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Settings
from streamingt2v.ray_backend import Replicas, _as_wanted

FRAMES, SESSIONS = 120, 3


@pytest.mark.parametrize(
    ("depth", "workers", "wanted"),
    [
        (0, 1, 2),
        (1, 1, 2),
        (2, 1, 2),
        (3, 1, 3),
        (5, 1, 5),
        (6, 1, 5),
        (99, 1, 5),
        (4, 2, 2),
        (5, 2, 3),
        (9, 4, 3),
    ],
)
def test_as_many_replicas_as_it_takes_for_no_job_to_wait(depth, workers, wanted):
    assert replicas_for(depth, workers, least=2, most=5) == wanted


def test_a_replica_sees_the_queue_of_the_folder(toy, tmp_path):
    settings = Settings(tmp_path / "shared", (str(toy),), workers=2, shared=True)
    first, second = JobService(settings), JobService(settings)  # their workers are not started
    for seed in range(7):
        first.submit(Request("A cat", 8, seed=seed))
    first.store.claim(0)
    assert [OpenReplica(None, service, 1, 9).wanted() for service in (first, second)] == [4, 4]
    for service in (first, second):
        service.__exit__()


def test_ray_serve_is_told_what_the_replicas_want():
    said = SimpleNamespace(aggregated_metrics={"wanted": {"one": 3.0, "two": 2.0}}, target_num_replicas=2)
    assert _as_wanted(said) == (3, {})
    for nothing in (None, {}):
        assert _as_wanted(SimpleNamespace(aggregated_metrics=nothing, target_num_replicas=2)) == (2, {})


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        (["--replicas", "0"], "--replicas"),
        (["--replicas", "3", "--max-replicas", "2"], "--max-replicas"),
        (["--replicas", "2", "--device", "cuda:1"], "--device"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, argument, capsys):
    pytest.importorskip("ray")
    assert main(["serve", *options]) == 2
    assert argument in capsys.readouterr().err


def test_without_ray_serve_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("streamingt2v.ray_backend.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"streamingt2v\[ray\]"):
        Replicas(None, 1, 2, "127.0.0.1", 1)


@pytest.fixture
def url(toy, tmp_path, monkeypatch):
    """Run the command with two replicas."""
    pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", str(os.environ.get("OMP_NUM_THREADS", 1)))
    command = [
        sys.executable,
        "-m",
        "streamingt2v",
        "serve",
        "--replicas",
        "2",
        "--port",
        "0",
        "--model",
        str(toy),
    ]
    process = subprocess.Popen(
        [*command, "--data-dir", str(tmp_path / "data")], stderr=subprocess.PIPE, text=True
    )
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"listening on (\S+)", line):
            break
    else:
        raise AssertionError("".join(said))
    threading.Thread(target=process.stderr.read, daemon=True).start()
    yield found[1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


def replica_pids() -> list[int]:
    """Return the process ids of this user's replicas."""
    found = subprocess.run(["pgrep", "-f", "ray::ServeReplica:streamingt2v"], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def test_one_of_two_replicas_is_killed_and_every_session_goes_on(url, service, tmp_path):
    begun = threading.Barrier(SESSIONS + 1)

    def watch(seed: int) -> tuple[str, list]:
        with (
            Client(url) as client,
            client.session("A cat running on the street", num_frames=FRAMES, seed=seed) as session,
        ):
            begun.wait()
            return session.video["id"], list(session)

    with ThreadPoolExecutor(SESSIONS) as pool, Client(url) as client:
        watching = [pool.submit(watch, seed) for seed in range(SESSIONS)]
        begun.wait()
        pids = replica_pids()
        assert len(pids) == 2
        while not any(video["frames_done"] for video in client.list()):
            time.sleep(0.02)
        os.kill(pids[0], signal.SIGKILL)
        for seed, (id, pieces) in enumerate(each.result() for each in watching):
            assert [piece.about["transport_chunk_index"] for piece in pieces] == list(range(len(pieces)))
            assert sum(piece.about["num_frames"] for piece in pieces) == FRAMES
            alone = service.wait(service.submit(Request("A cat running on the street", FRAMES, seed=seed)).id)
            assert (
                client.download(id, tmp_path / "video.mp4").read_bytes()
                == service.video(alone.id).read_bytes()
            )
