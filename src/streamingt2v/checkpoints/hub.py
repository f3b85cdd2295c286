"""Repositories of the Hugging Face hub on this machine: the one place that asks it and downloads.

Files lie in the hub's own cache, where its other clients find them too. `HF_HUB_OFFLINE=1` or `offline` keep it from the network: then what
was ever fetched is used, by this package or by another program.
"""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub.file_download import repo_folder_name

from ..config.places import home
from ..config.units import readable
from ..durable import write_unsynced
from ..errors import ModelError, RequestError
from .download import HubFile, OnBytes, download, partial_size
from .hub_errors import FAILURES, explained
from .registry import find_entry, parse_id
from .variants import Read

Note = Callable[[str], None]
Choose = Callable[[Iterable[str], Read], Sequence[str]]
"""Which of a repository's files are wanted, by their names and the text of small ones."""


@dataclass(frozen=True)
class Remote:
    """A repository at a commit. revision: the branch or tag that led to it, None for the default one. licence: as its card's head says."""

    hub_id: str
    commit: str
    files: Mapping[str, HubFile]
    revision: str | None = None
    licence: str | None = None

    @property
    def store(self) -> Path:
        """Its folder in the hub's cache."""
        return _store(self.hub_id)

    @property
    def folder(self) -> Path:
        """Where the files of this commit are, once they are fetched."""
        return self.store / "snapshots" / self.commit

    def blob(self, name: str) -> Path:
        return self.store / "blobs" / self.files[name].etag

    def size(self, names: Iterable[str]) -> int:
        return sum(self.files[name].size for name in names)

    def missing(self, names: Iterable[str]) -> int:
        """Bytes of these files that are still to be fetched."""
        return sum(
            self.files[name].size - partial_size(self.blob(name))
            for name in names
            if not (self.folder / name).exists()
        )


def is_hub_name(text: str) -> bool:
    """Whether a text can be meant for the hub: an entry's name, or an id, and nothing of that name lies here."""
    return not Path(text).exists() and (find_entry(text) is not None or parse_id(text) is not None)


def like(*patterns: str) -> Choose:
    """The files that match one of the patterns."""

    def choose(names: Iterable[str], read: Read) -> Sequence[str]:
        return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]

    return choose


EVERYTHING = like("*")


def look_up(hub_id: str, revision: str | None = None, argument: str = "source") -> Remote:
    """What a repository holds; asks the hub and downloads nothing. The errors are those of `explained`."""
    try:
        info = HfApi().model_info(
            hub_id, revision=revision, files_metadata=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        )
        files = {
            file.rfilename: HubFile(file.rfilename, file.size or 0, _etag(file))
            for file in info.siblings or ()
        }
    except FAILURES as error:
        raise explained(error, hub_id, revision, argument) from error
    licence = info.card_data.get("license") if info.card_data else None
    remote = Remote(hub_id, str(info.sha), files, revision, licence if isinstance(licence, str) else None)
    _remember(remote)
    return remote


def fetch(
    name: str, choose: Choose = EVERYTHING, *, revision: str | None = None, offline: bool = False, note: Note = lambda text: None,
    on_bytes: OnBytes = lambda count: None, argument: str = "source",
) -> Path:  # fmt: skip
    """The local folder of an entry's name or a hub id with the chosen files; downloaded where they are not here yet.

    revision: a commit, tag or branch; None for the one in the id, the entry's own pin, else the latest. note: told the size before a
    download begins. on_bytes: see `download`. RequestError for a name that is not on the hub, or a download that does not fit on the disk;
    ModelError where it cannot be got. argument: which one named it, for errors.
    """
    hub_id, revision = resolve(name, revision, argument)
    if offline or constants.HF_HUB_OFFLINE:
        return find(hub_id, choose, revision)
    remote = look_up(hub_id, revision, argument)
    names = chosen(remote, choose)
    if missing := remote.missing(names):
        check_disk(missing, Path(constants.HF_HUB_CACHE), f"the download of {hub_id}", "HF_HOME")
        kept = remote.size(names) - missing
        here = f", of which {readable(kept)} are here already" if kept else ""
        note(f"{hub_id} at {remote.commit}: {readable(remote.size(names))}{here}")
    return bring(remote, names, on_bytes, argument)


def bring(
    remote: Remote, names: Sequence[str], on_bytes: OnBytes = lambda count: None, argument: str = "source"
) -> Path:
    """The folder of a repository's commit with these files, downloaded as far as they are missing."""
    try:
        for name in names:
            if (remote.folder / name).exists():
                continue
            download(
                hf_hub_url(remote.hub_id, name, revision=remote.commit),
                remote.files[name],
                remote.blob(name),
                on_bytes,
            )
            hf_hub_download(
                remote.hub_id, name, revision=remote.commit
            )  # the content is there: it gets its name in the snapshot
        _refer(remote)
    except FAILURES as error:
        raise explained(error, remote.hub_id, remote.revision, argument) from error
    return remote.folder


def find(hub_id: str, choose: Choose = EVERYTHING, revision: str | None = None) -> Path:
    """The folder with the chosen files of a repository, as they were fetched once: of a revision, or the latest that has them.

    Asks nobody. ModelError where they are not here, or not all of them.
    """
    problem = f"is not in the hub's cache ({constants.HF_HUB_CACHE})"
    for folder in _snapshots(hub_id, revision):
        try:
            names = choose(_remembered(hub_id, folder.name) or _listing(folder), partial(_text, folder))
        except ModelError:  # even what tells what else is needed is not here
            continue
        lacking = [name for name in names if not (folder / name).exists()]
        if names and not lacking:
            return folder
        problem = (
            f"is here in part: {len(lacking)} of {len(names)} files are missing"
            if names
            else "has no such file in the hub's cache"
        )
    name = f"{hub_id}@{revision}" if revision else hub_id
    raise ModelError(f"{name}: {problem}, and this is offline; run it once with a network, or give a folder")


def chosen(remote: Remote, choose: Choose) -> Sequence[str]:
    """The wanted files of a repository; ModelError if there are none."""
    names = choose(remote.files, lambda name: _text(bring(remote, [name]), name))
    if not names:
        fix = "has none of the files that are needed here; see"
        raise ModelError(
            f"{remote.hub_id}: {fix} {constants.ENDPOINT}/{remote.hub_id}/tree/{remote.revision or 'main'}"
        )
    return names


def resolve(name: str, revision: str | None = None, argument: str = "source") -> tuple[str, str | None]:
    """The hub id and the revision of an entry's name or an id. RequestError for what is neither."""
    entry = find_entry(name)
    if entry is not None and entry.hub_id is not None:
        return entry.hub_id, revision or entry.revision
    found = parse_id(name)
    if found is None:
        fix = "is no name of a repository in `streamingt2v models`, and no OWNER/REPOSITORY; give one, or a folder"
        raise RequestError(argument, name, fix)
    if revision is not None and found[1] is not None and revision != found[1]:
        raise RequestError("revision", revision, f"{name} names another; leave one of them out")
    known = find_entry(found[0])
    return found[0], revision or found[1] or (known.revision if known else None)


def check_disk(needed: int, folder: Path, what: str, option: str) -> None:
    """RequestError unless so many bytes are free on the disk of a folder, which need not be there yet. option: what sets another."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        way = f"free some, or let {option} name a folder on another disk"
        fix = f"{what} needs {readable(needed)}, of which {readable(free)} are free; {way}"
        raise RequestError("disk", str(folder), fix)


def _etag(file: object) -> str:
    """As the hub's library calls the content in its cache."""
    lfs = getattr(file, "lfs", None)
    return str(lfs.sha256 if lfs is not None else getattr(file, "blob_id", ""))


def _store(hub_id: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model")


def _refer(remote: Remote) -> None:
    """Note in the cache which commit a branch is at, as every client of the hub does."""
    if remote.revision != remote.commit:
        ref = remote.store / "refs" / (remote.revision or "main")
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_unsynced(ref, remote.commit.encode())


def _snapshots(hub_id: str, revision: str | None) -> list[Path]:
    """Folders of commits that are here: that of a revision, or all of them, the default branch's first, then the newest."""
    store = _store(hub_id)
    ref = store / "refs" / (revision or "main")
    commit = ref.read_text().strip() if ref.is_file() else revision
    found = [path for path in (store / "snapshots").glob("*") if path.is_dir()]
    if revision is not None:
        return [
            path
            for path in found
            if commit and (path.name == commit or (len(commit) >= 7 and path.name.startswith(commit)))
        ]
    return sorted(found, key=lambda path: (path.name != commit, -path.stat().st_mtime))


def _text(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder / name}: cannot be read ({error})") from error


def _listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _record(hub_id: str, commit: str) -> Path:
    return home() / "hub" / repo_folder_name(repo_id=hub_id, repo_type="model") / f"{commit}.json"


def _remember(remote: Remote) -> None:
    """Keep the list of a commit's files, so that a download that broke off is known for one."""
    path = _record(remote.hub_id, remote.commit)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_unsynced(path, json.dumps(sorted(remote.files)).encode())
    except OSError as error:
        raise explained(error, remote.hub_id, remote.revision) from error


def _remembered(hub_id: str, commit: str) -> list[str] | None:
    try:
        return json.loads(_record(hub_id, commit).read_text())
    except (OSError, ValueError):
        return None
