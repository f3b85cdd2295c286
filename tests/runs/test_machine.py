"""Threads are as many as cores are free; a user's own variables win."""

from __future__ import annotations

import os

import pytest
import torch

from streamingt2v.runs import machine


@pytest.fixture
def stat(tmp_path, monkeypatch):
    """Return stat(busy): others use this share of the cores' time during the sample."""
    path = tmp_path / "stat"
    monkeypatch.setattr(machine, "STAT", path)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    path.write_text("cpu  100 0 50 1000 10 0 0 0 0 0\n")

    def make(busy: float) -> None:
        used = round(80 * busy)
        monkeypatch.setattr(
            machine.time,
            "sleep",
            lambda s: path.write_text(f"cpu  {100 + used} 0 50 {1080 - used} 10 0 0 0 0 0\n"),
        )

    return make


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("busy", "expected"), [(0, 4), (0.05, 4), (0.25, 3), (0.5, 2), (0.9, 1), (1, 1)])
def test_threads_are_the_free_cores(stat, threads, busy, expected):
    stat(busy)
    assert machine.choose_threads({}) == expected == torch.get_num_threads()


def test_what_is_busy_for_a_moment_does_not_count(monkeypatch, threads):
    samples = iter([1.0, 0.5, 3.7, 0.0])
    monkeypatch.setattr(machine, "free_cores", lambda: next(samples))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert machine.choose_threads({}) == 4 and next(samples) == 0.0  # it stopped at the third


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_users_number_wins(stat, threads, name):
    torch.set_num_threads(2)
    stat(1)
    assert machine.choose_threads({name: "2"}) == 2


@pytest.mark.parametrize("text", [None, "", "cpu\n", "cpu a b c d e\n"])
def test_where_the_system_does_not_tell_nothing_changes(tmp_path, monkeypatch, threads, text):
    monkeypatch.setattr(machine, "STAT", tmp_path / "stat")
    if text is not None:
        (tmp_path / "stat").write_text(text)
    torch.set_num_threads(2)
    assert machine.free_cores(0) is None and machine.choose_threads({}) == 2


def test_spinning_is_bounded_unless_a_user_says_how():
    for own in ({"OMP_WAIT_POLICY": "PASSIVE"}, {"GOMP_SPINCOUNT": "7"}, {}):
        environment = dict(own)
        machine.bound_spinning(environment)
        assert environment == (own or {"GOMP_SPINCOUNT": machine.SPINS})
