"""Repositories of the Hugging Face hub: the only module that queries it and downloads.

Files go into the hub's own cache, shared with its other clients. `HF_HUB_OFFLINE=1` or `offline` prevent
network access; then anything downloaded before, by this package or another program, is used.
"""

import fnmatch
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub.file_download import repo_folder_name

from ..config.places import free_bytes, home
from ..config.units import readable
from ..durable import write_unsynced
from ..errors import ModelError, RequestError
from .download import HubFile, OnBytes, download, partial_size
from .hub_errors import FAILURES, explained
from .registry import find_entry, parse_id
from .variants import Read

Note = Callable[[str], None]
Choose = Callable[[Iterable[str], Read], Sequence[str]]
"""Choose files of a repository by their names and the text of small files."""


@dataclass(frozen=True)
class Remote:
    """A repository at a commit.

    revision: the branch or tag asked for, None for the default. licence: from the model card.
    """

    hub_id: str
    commit: str
    files: Mapping[str, HubFile]
    revision: str | None = None
    licence: str | None = None

    @property
    def store(self) -> Path:
        """Return the repository's folder in the hub's cache."""
        return _store(self.hub_id)

    @property
    def folder(self) -> Path:
        """Return the snapshot folder of this commit."""
        return self.store / "snapshots" / self.commit

    def blob(self, name: str) -> Path:
        return self.store / "blobs" / self.files[name].etag

    def size(self, names: Iterable[str]) -> int:
        return sum(self.files[name].size for name in names)

    def has(self, name: str) -> bool:
        """Tell whether a file is downloaded in its full size."""
        return _size(self.folder / name) == self.files[name].size

    def missing(self, names: Iterable[str]) -> int:
        """Return the bytes of these files that are not downloaded yet."""
        return sum(self.files[name].size - self._kept(name) for name in names if not self.has(name))

    def _kept(self, name: str) -> int:
        """Return how many bytes of a file need not be downloaded again; a content cut short is worth none."""
        kept = partial_size(self.blob(name))
        return kept if kept == self.files[name].size or not self.blob(name).exists() else 0

    def discard_damaged(self, name: str) -> None:
        """Remove a content of the wrong size, which a full disk or another program left."""
        for path in (self.folder / name, self.blob(name)):
            if _size(path) not in (None, self.files[name].size):
                path.unlink()


def is_hub_name(text: str) -> bool:
    """Return True for a registry name or a hub id, unless a file or folder of that name exists."""
    return not Path(text).exists() and (find_entry(text) is not None or parse_id(text) is not None)


def like(*patterns: str) -> Choose:
    """Choose the files that match one of the patterns."""

    def choose(names: Iterable[str], read: Read) -> Sequence[str]:
        return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]

    return choose


EVERYTHING = like("*")


def look_up(hub_id: str, revision: str | None = None, argument: str = "source") -> Remote:
    """Return a repository's commit and files without downloading; errors as in `explained`."""
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
    name: str, choose: Choose = EVERYTHING, *, revision: str | None = None, offline: bool = False,
    note: Note = lambda text: None, on_bytes: OnBytes = lambda count: None, argument: str = "source",
) -> Path:  # fmt: skip
    """Return the folder of a registry name or hub id with the chosen files; download what is missing.

    revision: commit, tag or branch; None for the one in the id, else the entry's pinned one, else the latest.
    note: called with the size before a download starts. on_bytes: see `download`. argument: the option that
    named the repository, for errors. Raise RequestError for an unknown name or a download that does not fit
    on the disk, ModelError if the download fails.
    """
    hub_id, revision = resolve(name, revision, argument)
    if offline or constants.HF_HUB_OFFLINE:
        return find(hub_id, choose, revision)
    remote = look_up(hub_id, revision, argument)
    names = chosen(remote, choose)
    if missing := remote.missing(names):
        check_disk(missing, Path(constants.HF_HUB_CACHE), f"the download of {hub_id}", "HF_HOME")
        kept = remote.size(names) - missing
        here = f", {readable(kept)} already downloaded" if kept else ""
        note(f"{hub_id} at {remote.commit}: {readable(remote.size(names))}{here}")
    return bring(remote, names, on_bytes, argument)


def bring(
    remote: Remote, names: Sequence[str], on_bytes: OnBytes = lambda count: None, argument: str = "source"
) -> Path:
    """Return the snapshot folder with these files, downloading what is missing."""
    try:
        for name in names:
            if remote.has(name):
                continue
            remote.discard_damaged(name)
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
    """Return the cached folder with the chosen files: of `revision`, else the latest commit that has them.

    Never use the network. Raise ModelError if files are missing.
    """
    problem = f"is not in the hub cache ({constants.HF_HUB_CACHE})"
    for folder in _snapshots(hub_id, revision):
        files = (path for path in folder.rglob("*") if path.is_file())
        here = sorted(path.relative_to(folder).as_posix() for path in files)
        known = _remembered(hub_id, folder.name) or dict.fromkeys(here)
        try:
            names = choose(known, partial(_text, folder))
        except ModelError:  # even what tells what else is needed is not here
            continue
        sizes = {name: _size(folder / name) for name in names}
        lacking = [
            name for name, size in sizes.items() if size is None or known.get(name, size) not in (None, size)
        ]
        if names and not lacking:
            return folder
        problem = (
            f"is downloaded in part: {len(lacking)} of {len(names)} files are missing"
            if names
            else "has no such file in the hub cache"
        )
    name = f"{hub_id}@{revision}" if revision else hub_id
    raise ModelError(f"{name}: {problem}, and this run is offline; run it once online, or give a folder")


def chosen(remote: Remote, choose: Choose) -> Sequence[str]:
    """Return the chosen files of a repository; raise ModelError if there are none."""
    names = choose(remote.files, lambda name: _text(bring(remote, [name]), name))
    if not names:
        fix = "has none of the required files; see"
        raise ModelError(
            f"{remote.hub_id}: {fix} {constants.ENDPOINT}/{remote.hub_id}/tree/{remote.revision or 'main'}"
        )
    return names


def resolve(name: str, revision: str | None = None, argument: str = "source") -> tuple[str, str | None]:
    """Return hub id and revision of a registry name or an id; raise RequestError for anything else."""
    entry = find_entry(name)
    if entry is not None and entry.hub_id is not None:
        return entry.hub_id, revision or entry.revision
    found = parse_id(name)
    if found is None:
        fix = (
            "is no name of a repository in `streamingt2v models`, and "
            "no OWNER/REPOSITORY; give one, or a folder"
        )
        raise RequestError(argument, name, fix)
    if revision is not None and found[1] is not None and revision != found[1]:
        raise RequestError("revision", revision, f"{name} already gives one; leave one of them out")
    known = find_entry(found[0])
    return found[0], revision or found[1] or (known.revision if known else None)


def check_disk(needed: int, folder: Path, what: str, option: str) -> None:
    """Raise RequestError unless the disk of `folder`, which need not exist yet, has `needed` bytes free.

    option: what the user sets to choose another disk.
    """
    if needed > (free := free_bytes(folder)):
        way = f"free some space, or set {option} to a folder on another disk"
        fix = f"{what} needs {readable(needed)}, but {readable(free)} are free; {way}"
        raise RequestError("disk", str(folder), fix)


def _etag(file: object) -> str:
    """Return the name of the content in the hub's cache."""
    lfs = getattr(file, "lfs", None)
    return str(lfs.sha256 if lfs is not None else getattr(file, "blob_id", ""))


def _size(path: Path) -> int | None:
    """Return a file's size; None if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _store(hub_id: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model")


def _refer(remote: Remote) -> None:
    """Record in the cache which commit a branch points to, as other hub clients do."""
    if remote.revision != remote.commit:
        ref = remote.store / "refs" / (remote.revision or "main")
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_unsynced(ref, remote.commit.encode())


def _snapshots(hub_id: str, revision: str | None) -> list[Path]:
    """List cached snapshot folders: of `revision`, or all, the default branch's first, then the newest."""
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


def _record(hub_id: str, commit: str) -> Path:
    return home() / "hub" / repo_folder_name(repo_id=hub_id, repo_type="model") / f"{commit}.json"


def _remember(remote: Remote) -> None:
    """Record a commit's files and sizes, so that an incomplete download is recognised offline."""
    path = _record(remote.hub_id, remote.commit)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_unsynced(
            path, json.dumps({name: file.size for name, file in sorted(remote.files.items())}).encode()
        )
    except OSError as error:
        raise explained(error, remote.hub_id, remote.revision) from error


def _remembered(hub_id: str, commit: str) -> dict[str, int | None] | None:
    """Return the size of each file of a commit; None where it is not known."""
    try:
        found = json.loads(_record(hub_id, commit).read_text())
        return found if isinstance(found, dict) else dict.fromkeys(found)
    except (OSError, ValueError):
        return None
