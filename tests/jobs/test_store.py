"""Promises of the store to servers and workers."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from streamingt2v import Request
from streamingt2v.jobs.job import Conflict, Key, NoSuchJob, QueueFull
from streamingt2v.jobs.store import JobStore

SIZE = (32, 32, 8, 16)


@pytest.fixture
def store(tmp_path) -> JobStore:
    return JobStore(tmp_path / "jobs.sqlite3", keep_seconds=60)


def add(store: JobStore, name: str, limit: int = 100, key: Key | None = None):
    return store.add(name, "create", "toy", Request("A cat", 16), SIZE, None, limit, key)


def test_a_job_comes_back_as_it_went_in(store, tmp_path):
    request = Request("A cat \N{CAT FACE}", 16, schedule=((8, "A dog"),), guidance_scale=2.5)
    job = store.add("a", "create", "toy", request, SIZE, None, 10)
    again = JobStore(tmp_path / "jobs.sqlite3").get("a")
    assert again == job and again.request == request and (again.status, again.progress) == ("queued", 0)


def test_the_queue_has_an_end_and_what_is_refused_leaves_nothing(store):
    for name in "abc":
        add(store, name, limit=3)
    with pytest.raises(QueueFull, match="3 jobs wait"):
        add(store, "d", limit=3)
    store.claim(0)
    assert add(store, "d", limit=3).id == "d", "one in progress does not wait"
    assert store.ids() == set("abcd")


def test_a_key_makes_one_job_and_is_of_one_request(store):
    first = add(store, "a", key=Key("k", "1"))
    assert add(store, "b", limit=1, key=Key("k", "1")).id == first.id, "even with a full queue"
    with pytest.raises(Conflict, match="another request"):
        add(store, "c", key=Key("k", "2"))
    store.delete("a")
    assert add(store, "d", key=Key("k", "2")).id == "d", "a deleted job frees its key"


def test_each_job_is_claimed_once_and_in_order(store):
    names = [f"{i:02}" for i in range(40)]
    for name in names:
        add(store, name)
    claimed: list[list[str]] = [[] for _ in range(4)]

    def work(slot: int) -> None:
        while (job := store.claim(slot)) is not None:
            claimed[slot].append(job.id)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for mine in claimed for name in mine) == names
    assert all(mine == sorted(mine) for mine in claimed)


def test_jobs_of_a_dead_worker_go_back_to_their_place(store):
    for name in "abc":
        add(store, name)
    store.claim(0), store.claim(1)
    assert store.places_at_work() == {0, 1}
    store.take_back(0, tries=3)
    assert [store.get(name).status for name in "abc"] == ["queued", "in_progress", "queued"]
    assert store.claim(2).id == "a"


def test_a_job_that_kills_its_workers_is_given_up_but_not_one_that_comes_on(store):
    add(store, "bad"), add(store, "good")
    for n in range(4):
        store.claim(0), store.claim(1)
        store.report("bad", frames_done=8), store.report("good", frames_done=8 * (n + 1))
        store.take_back(0, tries=3), store.take_back(1, tries=3)
    bad = store.get("bad")
    assert (bad.status, bad.error_code) == ("failed", "worker_died") and bad.expires_at > time.time()
    assert store.get("good").status == "queued"


def test_a_released_job_was_no_try(store):
    add(store, "a")
    for _ in range(9):
        store.claim(0)
        store.release("a")
    store.claim(0)
    store.take_back(0, tries=2)
    assert store.get("a").status == "queued"


def test_cancel(store):
    add(store, "a"), add(store, "b")
    store.claim(0)
    assert (store.cancel("a").status, store.stopped("a")) == ("in_progress", True)
    assert store.cancel("b").status == "cancelled"
    assert store.claim(0) is None
    store.end("a", "completed")
    assert store.cancel("a").status == "completed", "too late"


def test_a_deleted_job_is_seen_by_its_worker_alone(store):
    add(store, "a")
    store.claim(0)
    store.delete("a")
    with pytest.raises(NoSuchJob):
        store.get("a")
    assert store.stopped("a") and store.deleted() == [] and store.ids() == {"a"}
    store.take_back(0, tries=3)
    assert store.claim(0) is None, "it is not made again"
    assert store.deleted() == ["a"]
    store.forget("a")
    assert store.ids() == set()


def test_pages_cover_all_jobs_once_in_both_orders(store):
    for name in "abcdefg":
        add(store, name)
    for newest_first in (True, False):
        seen, after, more = [], None, True
        while more:
            jobs, more = store.list(3, after, newest_first)
            seen += [job.id for job in jobs]
            after = seen[-1]
        assert "".join(seen) == ("gfedcba" if newest_first else "abcdefg")


def test_what_has_expired_is_deleted(store):
    add(store, "a"), add(store, "b")
    store.claim(0)
    store.end("a", "completed")
    assert not store.has_expired(time.time() + 59) and store.has_expired(time.time() + 61)
    store.delete_expired(time.time() + 61)
    assert store.deleted() == ["a"] and store.get("b").status == "queued"


def test_every_change_has_a_newer_revision(store):
    revisions = [add(store, "a").revision, add(store, "b").revision]
    store.claim(0)
    revisions.append(store.get("a").revision)
    store.report("a", step=1)
    revisions.append(store.get("a").revision)
    store.change_prompt("a", "A dog", 10)
    revisions.append(store.get("a").revision)
    assert revisions == sorted(set(revisions))
    assert store.changed_since(revisions[1]) == {"a": revisions[-1]}


def test_of_several_changes_of_the_prompt_the_newest_counts(store):
    add(store, "a")
    assert store.new_prompt("a", 0) is None
    assert [store.change_prompt("a", prompt, 3) for prompt in ("A dog", "A bus", "A fox")] == [1, 2, 3]
    assert store.new_prompt("a", 1) == (3, "A fox") and store.new_prompt("a", 3) is None
    with pytest.raises(Conflict, match="3 times"):
        store.change_prompt("a", "A car", 3)
    store.cancel("a")
    with pytest.raises(Conflict, match="cancelled"):
        store.change_prompt("a", "A car", 9)


def test_a_kill_in_the_middle_of_a_transaction_leaves_what_was_before(tmp_path):
    path: Path = tmp_path / "jobs.sqlite3"
    store = JobStore(path)
    add(store, "a")
    with pytest.raises(KeyboardInterrupt), store.writing() as db:
        db.execute("DELETE FROM jobs")
        raise KeyboardInterrupt
    assert JobStore(path).ids() == {"a"}
