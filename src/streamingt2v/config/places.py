"""Folders for what this package fetched or made for later."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`STREAMINGT2V_HOME`, else `streamingt2v` in the user's cache folder. It need not be there yet."""
    if own := os.environ.get("STREAMINGT2V_HOME"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamingt2v"
