"""Damaged databases and job folders: every request is answered, other jobs go on,
and no other file is touched."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from run_folders import TOTAL, complete, create
from streamingt2v import Request, RunError
from streamingt2v.api.app import create_app
from streamingt2v.api.schemas import Video
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Settings
from streamingt2v.jobs.store import JobStore

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CAT = Request("A cat", 16)
JUNK = st.tuples(st.floats(0, 1), st.binary(max_size=12), st.integers(0, 64))
VALUES = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=20), st.binary(max_size=20)
)


def overwritten(data: bytes, junk: tuple[float, bytes, int]) -> bytes:
    at = int(junk[0] * len(data))
    return data[:at] + junk[1] + data[at + junk[2] :]


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    """A database of three jobs."""
    path = tmp_path_factory.mktemp("database") / "jobs.sqlite3"
    store = JobStore(path)
    for id in ("before", "bad", "after"):
        store.add(id, "create", "toy", CAT, (32, 32, 8, 16), None, 9)
    columns = [row["name"] for row in store._rows("PRAGMA table_info(jobs)")]
    store.change_prompt("bad", "A dog", 9, "event")
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    db.close()
    path.with_suffix(".columns").write_text(" ".join(columns))
    return path


def use(store: JobStore) -> None:
    """Do with the jobs what servers and workers do."""
    assert all(Video.of(job).model_dump_json() for job in store.list(9)[0])
    store.counts(), store.totals(), store.changed_since(0), store.ids(), store.begun()
    store.has_expired(0.0), store.events("bad"), store.new_prompt("bad", 0)
    for _ in range(4):
        store.claim(0)
    for slot in store.places_at_work():
        store.take_back(slot, 5)
    for job in store.list(9)[0]:
        store.cancel(job.id)
        store.delete(job.id)
    for id in store.deleted():
        store.forget(id)


@FUZZ
@given(values=st.dictionaries(st.integers(0, 40), VALUES, min_size=1, max_size=3))
def test_whatever_a_row_holds_the_others_are_listed_and_made(database, tmp_path, values):
    path = tmp_path / "jobs.sqlite3"
    shutil.copy(database, path)
    columns = database.with_suffix(".columns").read_text().split()
    store = JobStore(path)
    try:
        with store.writing() as db:
            for index, value in values.items():
                column = columns[index % len(columns)]
                db.execute(f"UPDATE OR IGNORE jobs SET {column} = ? WHERE id = 'bad'", (value,))
    except RunError:  # a value that the table refuses
        store.close()
        return
    assert {"before", "after"} <= {job.id for job in store.list(9)[0]} | (store.ids() - {"bad"})
    claimed = [job.id for _ in range(3) if (job := store.claim(0)) is not None]
    assert [id for id in claimed if id in ("before", "after")] == ["before", "after"]
    use(store)
    store.close()


@FUZZ
@given(junk=JUNK)
def test_whatever_is_in_the_database_it_is_used_or_refused(database, tmp_path, junk):
    for path in tmp_path.iterdir():
        path.unlink()
    path = tmp_path / "jobs.sqlite3"
    path.write_bytes(overwritten(database.read_bytes(), junk))
    try:
        store = JobStore(path)
    except RunError as error:
        assert str(path) in str(error)
        return
    try:
        store.check()
        use(store)
    except RunError as error:
        assert str(tmp_path) in str(error)
    finally:
        store.close()


@pytest.fixture(scope="module")
def damaged(toy, tmp_path_factory):
    """A service without workers, a client of its API, and a completed job that was a session."""
    service = JobService(Settings(tmp_path_factory.mktemp("service") / "data", (str(toy),)))
    job = service.submit(Request("a cat", TOTAL))
    service.store.claim(0)
    with create(service.files.run(job.id)) as run:
        complete(run, service.files.finished(job.id))
    service.store.end(job.id, "completed")
    service.sessions.take(job.id)
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield service, client, job
    service.__exit__()


PATHS = ("", "/content", "/content?variant=thumbnail", "/content?variant=spritesheet", "/events")
HLS = ("/hls/playlist.m3u8", "/hls/init.mp4", "/hls/seg_00000.m4s")


@settings(FUZZ, max_examples=25)
@given(number=st.integers(0, 40), junk=JUNK, has_video=st.booleans())
@example(number=0, junk=None, has_video=False)
@example(number=1, junk=None, has_video=False)
@example(number=3, junk=None, has_video=False)
def test_whatever_is_in_a_jobs_folder_every_request_is_answered(damaged, tmp_path, number, junk, has_video):
    """junk: None deletes the file."""
    service, client, job = damaged
    folder, kept = service.files.of(job.id), tmp_path / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    try:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        victim = files[number % len(files)]
        data = victim.read_bytes()
        victim.unlink()
        if junk is not None:
            victim.write_bytes(overwritten(data, junk))
        if not has_video:
            service.files.finished(job.id).unlink(missing_ok=True)
        for path in (*PATHS, *HLS):
            answer = client.get(f"/v1/videos/{job.id}{path}")
            assert answer.status_code < 500 or answer.status_code == 507, (path, answer.text)
            assert answer.status_code < 400 or str(service.settings.folder) not in answer.text
        for path, body in (("remix", {"prompt": "A dog"}), ("remix", {}), ("refine", {}), ("prompt", {})):
            answer = client.post(f"/v1/videos/{job.id}/{path}", json=body)
            assert answer.status_code < 500 or answer.status_code == 507, (path, answer.text)
        extension = {"prompt": "A dog", "num_frames": 8, "video": {"id": job.id}}
        assert client.post("/v1/videos/extensions", json=extension).status_code in (200, 400, 409, 507)
        with client.websocket_connect("ws://localhost/v1/realtime/video") as socket:
            socket.send_json({"type": "session.resume", "video_id": job.id, "chunks": 1})
            assert socket.receive_json()["type"] in ("video.start", "error")
    finally:
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        for other in service.list(99)[0]:
            if other.id != job.id:
                service.delete(other.id)
        service.supervisor.clean()
