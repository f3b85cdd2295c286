"""Tests of files do not wait for the disk."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """A flush is for power cuts, which no test can make; on a busy disk each may take a tenth of a second."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
