"""Jobs from submission to file with real workers: same bytes after kills, and prompt cancellation."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import forking
from streamingt2v import MediaError, Request, RequestError, RunError
from streamingt2v.client import Client
from streamingt2v.jobs.files import NotReady
from streamingt2v.jobs.job import Conflict, Key, NoSuchJob, QueueFull
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Limits, Settings
from streamingt2v.jobs.store import JobStore
from streamingt2v.runs.folder import JOURNAL, PROMPTS, REQUEST
from streamingt2v.runs.header import Header
from streamingt2v.runs.journal import Journal
from streamingt2v.runs.prompts import PromptLog
from streamingt2v.runs.render import create_run, load_pipeline, render
from streamingt2v.video.reader import count_frames, read_video
from streamingt2v.video.writer import read_metadata

CAT = Request("A cat running on the street", 40)
LONG = Request("A cat running on the street", 4000)


def bytes_of(service: JobService, request: Request) -> bytes:
    """Return the file of an undisturbed job."""
    return service.video(service.wait(service.submit(request).id).id).read_bytes()


def until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def test_a_job_is_the_runners_video(service, toy, tmp_path):
    job = service.submit(CAT)
    seen = list(service.watch(job.id))
    assert [job.status for job in seen][-1] == "completed" and seen[-1].progress == 100
    done = [job.frames_done for job in seen]
    assert done == sorted(done) and len(set(done)) > 2, "it was told how far it is"
    assert all(job.progress < 100 for job in seen[:-1])
    path = service.video(job.id)
    asked = read_metadata(path)
    assert (asked["prompt"], asked["seed"], asked["num_frames"]) == (CAT.prompt, CAT.seed, 40)
    pipe = load_pipeline(str(toy), "cpu", "float32")
    with create_run(pipe, pipe.resolve(CAT), tmp_path / "run", str(toy)) as run:
        assert run.header.threads == Header.read(service.files.run(job.id) / REQUEST).threads
        assert render(pipe, run, pipe.resolve(CAT)).output.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("preset", ["preview", "full"])
def test_cancelling_stops_in_the_middle_and_keeps_what_there_is(service, preset):
    job = service.submit(replace(LONG, preset=preset))
    until(lambda: service.get(job.id).frames_done > 0)
    service.cancel(job.id)
    began = time.monotonic()
    ended = service.wait(job.id)
    assert ended.status == "cancelled" and time.monotonic() - began < 10
    assert 0 < count_frames(service.video(job.id)) == ended.frames_done < 4000
    assert service.files.playlist(ended).endswith("#EXT-X-ENDLIST\n")
    with pytest.raises(Conflict, match="cancelled"):
        service.change_prompt(job.id, "A dog")


def test_a_waiting_job_is_cancelled_at_once_and_has_no_video(service):
    first, second = service.submit(LONG), service.submit(CAT)
    assert service.cancel(second.id).status == "cancelled"
    service.cancel(first.id)
    with pytest.raises(NotReady, match="cancelled and has no video"):
        service.video(second.id)


def test_a_killed_worker_costs_nothing_and_prompts_hold_from_the_next_chunk_on(service):
    job = service.submit(replace(CAT, num_frames=160, seed=6))
    until(lambda: service.get(job.id).frames_done >= 24)
    assert service.change_prompt(job.id, "A dog") == 1
    until(lambda: (service.files.run(job.id) / PROMPTS).exists())
    os.kill(service.supervisor.pids[0], signal.SIGKILL)
    assert service.wait(job.id).status == "completed"
    (change,) = PromptLog.read(service.files.run(job.id) / PROMPTS).changes
    starts = [entry.start for entry in Journal.read(service.files.run(job.id) / JOURNAL).entries]
    assert change.frame in starts and change.frame >= 24 and change.prompt == "A dog"
    # same bytes as a job with this schedule that was never stopped, metadata included
    assert service.video(job.id).read_bytes() == bytes_of(
        service, replace(job.request, schedule=((change.frame, "A dog"),))
    )


def test_an_extension_begins_with_the_video_and_goes_on(service):
    first = service.wait(service.submit(replace(CAT, num_frames=20)).id)
    job = service.wait(service.extend(first.id, "A dog", 12).id)
    assert (job.kind, job.source, job.frames_total, job.frames_done) == ("extension", first.id, 32, 32)
    old, new = (np.stack(list(read_video(service.video(id)))).astype(int) for id in (first.id, job.id))
    assert len(new) == 32 and np.abs(new[:20] - old).mean() < 10 < np.abs(new[1:20] - old[:-1]).mean()
    service.delete(first.id)
    assert service.wait(service.remix(job.id, "A bus").id).frames_done == 32, "it has its source to itself"


def test_a_remix_is_the_same_but_for_the_prompt(service):
    first = service.wait(
        service.submit(replace(CAT, num_frames=16, seed=9, guidance_scale=2.0, schedule=((0, "A dog"),))).id
    )
    job = service.wait(service.remix(first.id, "A bus").id)
    assert job.request == replace(first.request, prompt="A bus", schedule=())
    assert service.video(job.id).read_bytes() == bytes_of(service, job.request)


def test_pictures_are_copied_and_the_job_starts_from_them(service, tmp_path):
    Image.new("RGB", (40, 60), "red").save(tmp_path / "red.png")
    job = service.submit(Request("A cat", 9, image=str(tmp_path / "red.png")))
    (tmp_path / "red.png").unlink()
    assert service.wait(job.id).status == "completed"
    first = next(iter(read_video(service.video(job.id))))
    assert abs(first.reshape(-1, 3).mean(0) - (255, 0, 0)).max() < 12
    assert str(tmp_path) not in str(read_metadata(service.video(job.id)))


def test_a_job_that_fails_says_why_and_nothing_of_this_machine(service, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "black.png")
    first = service.submit(LONG)  # so that the next one waits
    job = service.submit(Request("A cat", 9, image=str(tmp_path / "black.png")))
    Path(job.request.image).write_bytes(b"no picture any more")
    service.cancel(first.id)
    ended = service.wait(job.id)
    assert (ended.status, ended.error_code) == ("failed", "invalid_media") and "log" in ended.error_message
    assert service.wait(service.submit(replace(CAT, num_frames=8)).id).status == "completed", (
        "the worker goes on"
    )


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"num_frames": 5000}, "num_frames"),
        ({"num_frames": None}, "num_frames"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"negative_prompt": "x" * 2001}, "negative_prompt"),
        ({"num_inference_steps": 201}, "num_inference_steps"),
        ({"width": 48}, "width"),
        ({"schedule": tuple((i, "A cat") for i in range(65))}, "schedule"),
        ({"image": "/no/such/file.png"}, "image"),
    ],
)
def test_what_is_wrong_or_too_much_is_said_at_once(service, change, argument):
    before = service.store.ids()
    with pytest.raises(RequestError) as refused:
        service.submit(replace(CAT, **change))
    assert refused.value.argument == argument
    assert (
        service.store.ids() == before
        and {path.name for path in (service.files.folder / "jobs").iterdir()} <= before
    )


def test_an_unknown_model_and_a_broken_video_are_refused(service, tmp_path):
    with pytest.raises(RequestError, match="must be one of toy"):
        service.submit(CAT, "other")
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    with pytest.raises(MediaError):
        service.submit(replace(CAT, video=str(tmp_path / "broken.mp4")))


def test_a_key_gives_the_job_that_there_is(service):
    first = service.submit(replace(CAT, num_frames=8), key=Key("one", "a"))
    assert service.submit(replace(CAT, num_frames=8), key=Key("one", "a")).id == first.id
    with pytest.raises(Conflict):
        service.submit(replace(CAT, num_frames=9), key=Key("one", "b"))


def test_a_deleted_job_leaves_nothing(service):
    job = service.submit(LONG)
    until(lambda: service.get(job.id).frames_done > 0)
    service.delete(job.id)
    with pytest.raises(NoSuchJob):
        service.get(job.id)
    until(lambda: not service.files.of(job.id).exists() and job.id not in service.store.ids())


def test_a_folder_has_one_service_which_cleans_it(toy, tmp_path):
    settings = Settings(tmp_path / "s", (str(toy),), limits=Limits(queue=1), keep_seconds=0.1)
    service = JobService(settings)  # its workers are not started
    with pytest.raises(RunError, match="another server uses this folder"):
        JobService(settings)
    job = service.submit(CAT)
    with pytest.raises(QueueFull):
        service.submit(replace(CAT, num_frames=8))
    service.cancel(job.id)
    stray, half = tmp_path / "s" / "jobs" / f"video_{'0' * 24}", tmp_path / "s" / "uploads" / "half.png"
    stray.mkdir()
    half.write_bytes(b"x")
    service.store.begin(stray.name), service.store.begin(half.stem)
    service.__exit__()
    service = JobService(settings)
    assert service.get(job.id).status == "cancelled"
    assert not half.exists() and not stray.exists() and service.store.begun() == set()
    time.sleep(0.15)
    service.supervisor.clean()
    assert service.store.ids() == set()
    service.__exit__()


def start(toy: Path, folder: Path) -> tuple[forking.Popen, str]:
    """Start the command `serve`; return its process and address."""
    command = [
        sys.executable,
        "-m",
        "streamingt2v",
        "serve",
        "--port",
        "0",
        "--model",
        str(toy),
        "--data-dir",
        str(folder),
    ]
    process = forking.Popen(command, stderr=forking.PIPE, text=True)
    for line in process.stderr:
        if "listening on" in line:
            return process, line.split()[-1]
    raise AssertionError("it did not start")


def test_a_killed_server_costs_nothing(service, toy, tmp_path):
    """Kill the command with one job in progress and another waiting, and start it again."""
    process, url = start(toy, tmp_path / "data")
    with Client(url) as client:
        ids = [
            client.create("A cat running on the street", num_frames=96, seed=seed, key=str(seed))["id"]
            for seed in (1, 2)
        ]
        until(lambda: client.get(ids[0])["frames_done"] > 16)
    process.kill()
    process.wait()
    process, url = start(toy, tmp_path / "data")
    with Client(url) as client:
        assert client.create("A cat running on the street", num_frames=96, seed=2, key="2")["id"] == ids[1], (
            "its key is known"
        )
        for seed, id in enumerate(ids, 1):
            assert client.wait(id, 120)["status"] == "completed"
            path = client.download(id, tmp_path / "video.mp4")
            assert path.read_bytes() == bytes_of(service, replace(CAT, num_frames=96, seed=seed))
        last = client.create("A cat", num_frames=4000)["id"]
        until(lambda: client.get(last)["frames_done"] > 0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert JobStore(tmp_path / "data" / "jobs.sqlite3").get(last).status == "queued", (
        "told to end, it is put back"
    )
