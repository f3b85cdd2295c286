"""Folders for downloaded and converted models."""

import os
import shutil
from pathlib import Path


def home() -> Path:
    """Return `STREAMINGT2V_HOME`, else `streamingt2v` in the user's cache folder. It need not exist yet."""
    if own := os.environ.get("STREAMINGT2V_HOME"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamingt2v"


def existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(existing(folder)).free
