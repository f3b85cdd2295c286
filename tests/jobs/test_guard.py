"""Foreign files, descriptors, damaged databases and file modes of a service's folder."""

from __future__ import annotations

import json
import sqlite3
import stat
import threading
from pathlib import Path

import psutil
import pytest

from streamingt2v import Request, RunError
from streamingt2v.jobs.database import CONNECTIONS
from streamingt2v.jobs.files import ServiceFiles
from streamingt2v.jobs.job import NoSuchJob
from streamingt2v.jobs.room import StorageError
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Settings
from streamingt2v.jobs.store import JobStore

CAT = Request("A cat", 16)
SIZE = (32, 32, 8, 16)
ID = f"video_{'0' * 24}"


@pytest.fixture
def settings(toy, tmp_path) -> Settings:
    return Settings(tmp_path / "data", (str(toy),))


def opened(settings: Settings) -> JobService:
    """Open and close a service without starting its workers; return it."""
    service = JobService(settings)
    service.__exit__()
    return service


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"dear")


@pytest.mark.parametrize(
    "names", [["jobs/a/thesis.txt", "uploads/b.mp4"], ["thesis.txt"], ["jobs.sqlite/x"], ["lock", "jobs/a/b"]]
)
def test_a_folder_of_somebody_else_is_refused_and_stays_as_it_is(settings, names):
    fill(settings.folder, *names)
    before = tree(settings.folder)
    with pytest.raises(RunError, match="take an empty or a new folder"):
        JobService(settings)
    assert tree(settings.folder) == before


def test_what_others_put_into_the_folder_of_a_service_stays(settings, caplog):
    opened(settings)
    names = [
        "jobs/mine/thesis.txt",
        f"jobs/{ID}/run/seg_00000.m4s",
        "uploads/holiday.mp4",
        f"uploads/{'0' * 32}.png",
        "thesis.txt",
    ]
    fill(settings.folder, *names)
    opened(settings)
    assert (
        all((settings.folder / name).read_bytes() == b"dear" for name in names) and "they stay" in caplog.text
    )


@pytest.mark.parametrize("with_log", [False, True])
def test_a_lost_database_costs_no_video(settings, caplog, with_log):
    service = JobService(settings)
    job = service.submit(CAT)
    service.__exit__()
    fill(settings.folder, f"jobs/{job.id}/video.mp4")
    for path in settings.folder.glob("jobs.sqlite3*" if with_log else "jobs.sqlite3"):
        path.unlink()
    opened(settings)
    assert (settings.folder / "jobs" / job.id / "video.mp4").read_bytes() == b"dear" and job.id in caplog.text


def test_a_link_to_a_folder_elsewhere_is_deleted_and_not_the_folder(tmp_path):
    files = ServiceFiles(tmp_path / "data")
    files.make()
    fill(tmp_path / "elsewhere", "thesis.txt")
    files.of(ID).symlink_to(tmp_path / "elsewhere")
    files.delete(ID)
    assert not files.of(ID).is_symlink() and (tmp_path / "elsewhere" / "thesis.txt").exists()


@pytest.mark.parametrize("junk", [b"junk" * 1000, b"SQLite format 3\0" + bytes(200), "cut", "zeros"])
def test_a_damaged_database_is_told_and_stays(settings, junk):
    service = JobService(settings)
    for seed in range(40):
        service.store.add(f"video_{seed:024x}", "create", "toy", CAT, SIZE, None, 99)
    service.__exit__()
    database = settings.folder / "jobs.sqlite3"
    whole = database.read_bytes()
    zeroed = whole[:4096] + bytes(5000) + whole[9096:]
    damaged = {"cut": whole[: len(whole) // 2], "zeros": zeroed}.get(junk, junk)
    database.write_bytes(damaged)
    with pytest.raises(RunError, match=r"jobs\.sqlite3"):
        JobService(settings)
    assert database.read_bytes() == damaged, "whoever can mend it has all there was"


def test_a_database_of_something_else_is_refused_and_stays(settings):
    settings.folder.mkdir()
    with sqlite3.connect(settings.folder / "jobs.sqlite3") as db:
        db.execute("CREATE TABLE photographs (name TEXT)")
    db.close()
    with pytest.raises(RunError, match="something else"):
        JobService(settings)
    with sqlite3.connect(settings.folder / "jobs.sqlite3") as db:
        assert [row[0] for row in db.execute("SELECT name FROM sqlite_master")] == ["photographs"]
    db.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("request", "{"),
        ("request", "[" * 100_000),
        ("request", json.dumps(CAT.to_json() | {"prompt": 5})),
        ("request", json.dumps(CAT.to_json() | {"schedule": 5})),
        ("request", json.dumps(CAT.to_json() | {"preset": "other"})),
        ("request", '{"prompt": "\\ud800"}'),
        ("request", json.dumps({"unknown": 1})),
        ("request", b"\xff\xfe"),
        ("notes", "5"),
        ("notes", "[5]"),
        ("kind", "other"),
        ("status", "other"),
        ("fps", 0),
        ("fps", "many"),
        ("width", -1),
        ("frames_total", 0),
        ("frames_done", b"x"),
        ("created_at", "yesterday"),
        ("created_at", float("inf")),
        ("worked_seconds", "long"),
        ("revision", "first"),
        ("model", b"\xff"),
        ("slot", "x"),
    ],
)
def test_a_damaged_row_costs_nobody_else_anything(tmp_path, column, value):
    from streamingt2v.api.schemas import Video

    store = JobStore(tmp_path / "jobs.sqlite3")
    for id in ("before", "bad", "after"):
        store.add(id, "create", "toy", CAT, SIZE, None, 9)
    with store.writing() as db:
        db.execute(f"UPDATE jobs SET {column} = ? WHERE id = 'bad'", (value,))
    jobs, _ = store.list(9)
    assert [job.id for job in jobs] == ["after", "bad", "before"]
    assert all(Video.of(job).model_dump_json() for job in jobs), "all can be told about"
    assert store.changed_since(0).keys() >= {"before", "after"} and store.counts()["queued"] >= 2
    claimed = []
    while (job := store.claim(0)) is not None:
        claimed.append(job.id)
    assert [id for id in claimed if id != "bad"] == ["before", "after"], "the queue goes on"
    if "bad" not in claimed:
        store.delete("bad")
        store.take_back(0, 5)
        if store.deleted():
            store.forget("bad")
            with pytest.raises(NoSuchJob):
                store.get("bad")
    assert store.get("after").revision > 0


@pytest.mark.parametrize("id", ["../victim", "..", "/", "video_x", f"{ID}/../../victim", f"{ID}\n"])
def test_an_id_that_was_not_made_here_is_no_folder(tmp_path, id):
    files = ServiceFiles(tmp_path / "data")
    files.make()
    fill(tmp_path, "victim/x", "data/victim/x")
    with pytest.raises(StorageError):
        files.delete(id)
    assert (tmp_path / "victim" / "x").exists() and (tmp_path / "data" / "victim" / "x").exists()


def test_nothing_can_be_opened_by_other_users(settings):
    """A folder that was open before is closed too."""
    settings.folder.mkdir(mode=0o755)
    settings.folder.chmod(0o755)
    service = JobService(settings)
    service.submit(CAT)
    with service.upload() as path:
        path.write_bytes(b"x")
        paths = [settings.folder, *(p for p in settings.folder.iterdir())]
        assert {p.name for p in paths} >= {
            "jobs.sqlite3",
            "jobs.sqlite3-wal",
            "lock",
            "place-1000.lock",
            "reserve",
            "jobs",
            "uploads",
        }
        modes = {p.name: oct(stat.S_IMODE(p.stat().st_mode)) for p in paths}
        assert set(modes.values()) == {"0o700", "0o600"}, modes
        assert all(
            (mode == "0o700") == (settings.folder / name).is_dir()
            for name, mode in modes.items()
            if name != "data"
        )
    assert not path.exists()
    service.__exit__()
    for name in ("jobs.sqlite3", "lock"):
        (settings.folder / name).chmod(0o644)
    opened(settings)
    assert stat.S_IMODE((settings.folder / "jobs.sqlite3").stat().st_mode) == 0o600


def test_a_lock_that_cannot_be_opened_is_told(settings):
    opened(settings)
    (settings.folder / "lock").unlink()
    (settings.folder / "lock").mkdir()
    with pytest.raises(RunError, match="lock"):
        JobService(settings)


def test_threads_that_come_and_go_leave_no_descriptors(tmp_path):
    store = JobStore(tmp_path / "jobs.sqlite3")
    for n in range(20):
        store.add(f"{n}", "create", "toy", CAT, SIZE, None, 99)
    here, counts = psutil.Process(), []
    for _ in range(4):
        threads = [threading.Thread(target=store.cancel, args=(f"{n}",)) for n in range(20) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts.append(here.num_fds())
    assert counts[-1] <= counts[0] + 2 and len(store._database._idle) <= CONNECTIONS
    store.close()
    assert not [file for file in here.open_files() if file.path.startswith(str(tmp_path))]


def test_a_full_pool_waits_and_goes_on(tmp_path):
    store, done = JobStore(tmp_path / "jobs.sqlite3"), []
    store.add("a", "create", "toy", CAT, SIZE, None, 9)

    def read() -> None:
        with store.reading() as db:
            done.append(db.execute("SELECT COUNT(*) FROM jobs").fetchone()[0])

    threads = [threading.Thread(target=read) for _ in range(4 * CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [1] * 4 * CONNECTIONS
