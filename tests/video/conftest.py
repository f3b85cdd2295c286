"""Fixtures for tests of files."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Skip flushes: they are for power cuts, and may take 0.1 s each on a busy disk."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
