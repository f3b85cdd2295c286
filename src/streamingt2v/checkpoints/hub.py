"""Folders of the Hugging Face hub on this machine: the one place that downloads.

`HF_HUB_OFFLINE=1` or `offline` keep it from the network; what is in the hub's cache is used then.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

from ..errors import ModelError, RequestError
from .registry import find_entry

Note = Callable[[str], None]


@dataclass(frozen=True)
class Remote:
    """A folder of the hub: its id, the commit, and how many bytes the wanted files have."""

    hub_id: str
    commit: str
    size: int


def is_hub_name(text: str) -> bool:
    """Whether a text can be meant for the hub: an entry's name, or "owner/name", and nothing of that name lies here."""
    return not Path(text).exists() and (find_entry(text) is not None or bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text)))


def fetch(
    name: str, patterns: Sequence[str] = ("*",), *, revision: str | None = None, offline: bool = False, note: Note = lambda text: None
) -> Path:
    """The local folder of an entry's name or a hub id with the files that match; downloaded where they are not here yet.

    revision: a commit, tag or branch; None for the entry's own pin, else the latest. note: told the size before a download begins.
    RequestError for a name that is not on the hub, or a download that does not fit on the disk; ModelError where it cannot be got.
    """
    hub_id, revision = _resolve(name, revision)
    if offline or constants.HF_HUB_OFFLINE:
        return _cached(hub_id, patterns, revision)
    remote = look_up(hub_id, patterns, revision)
    check_disk(remote.size, Path(constants.HF_HUB_CACHE), f"the download of {hub_id}")
    note(f"{hub_id} at {remote.commit}: {readable(remote.size)}, as far as it is not here already")
    return Path(_asked(hub_id, huggingface_hub.snapshot_download, hub_id, revision=remote.commit, allow_patterns=list(patterns)))


def look_up(hub_id: str, patterns: Sequence[str] = ("*",), revision: str | None = None) -> Remote:
    """What a download would bring; asks the hub and downloads nothing. ModelError where the hub cannot be asked."""
    info = _asked(hub_id, huggingface_hub.HfApi().model_info, hub_id, revision=revision, files_metadata=True)
    files = [file for file in info.siblings or () if any(fnmatch.fnmatch(file.rfilename, pattern) for pattern in patterns)]
    if not files:
        raise ModelError(f"{hub_id}: has no file like {', '.join(patterns)}")
    return Remote(hub_id, str(info.sha), sum(file.size or 0 for file in files))


def check_disk(needed: int, folder: Path, what: str) -> None:
    """RequestError unless so many bytes are free on the disk of a folder, which need not be there yet."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        fix = f"{what} needs {readable(needed)}, of which {readable(free)} are free; free some, or set another folder"
        raise RequestError("disk", str(there), fix)


def readable(size: float) -> str:
    """Bytes for people: "12.9 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _resolve(name: str, revision: str | None) -> tuple[str, str | None]:
    entry = find_entry(name)
    if entry is None:
        return name, revision
    if entry.hub_id is None:
        raise RequestError("source", name, f"is not on the Hugging Face hub ({entry.about}); give its folder")
    return entry.hub_id, revision or entry.revision


def _cached(hub_id: str, patterns: Sequence[str], revision: str | None) -> Path:
    try:
        found = huggingface_hub.snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns), local_files_only=True)
    except OSError as error:
        fix = f"is not in the hub's cache ({constants.HF_HUB_CACHE}), and this is offline"
        raise ModelError(f"{hub_id}: {fix}; run it once with a network, or give a folder") from error
    if not any(os.path.lexists(path) for pattern in patterns for path in Path(found).glob(pattern)):
        raise ModelError(f"{hub_id}: the hub's cache has no file like {', '.join(patterns)}, and this is offline")
    return Path(found)


def _asked(hub_id: str, question: Callable, *arguments: object, **named: object):
    try:
        return question(*arguments, **named)
    except (OSError, ValueError) as error:  # the hub's own errors are one of these
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{hub_id}: cannot be got from the hub ({reason}); give its folder, or try again") from error
