"""Download one file of the hub into its cache: resume interrupted downloads and verify hashes.

The hub's own library starts a file again after Ctrl-C or a kill and cannot be stopped within a file, so the
bytes are fetched here. Paths, headers, tokens and the HTTP session stay the library's.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import constants
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, hf_raise_for_status

from ..errors import ModelError

OnBytes = Callable[[int], None]

PARTIAL = ".streamingt2v.incomplete"
"""Suffix of a partial download; the name before it is the content's hash."""

_PIECE = 2**18
_TRIES = 5
"""Give up after this many failures in a row without a byte received."""


@dataclass(frozen=True)
class HubFile:
    """Name, size in bytes and hash of a repository's file. etag: sha256, or git's sha1 for small files."""

    name: str
    size: int
    etag: str


def download(url: str, file: HubFile, place: Path, on_bytes: OnBytes = lambda count: None) -> None:
    """Download a file to `place` and verify its hash; return at once if it is there.

    on_bytes: called with the number of bytes received since the last call; negative if earlier bytes were
    discarded. Runs in the caller's thread: any exception, KeyboardInterrupt included, ends it at once.
    Partial content is kept for the next call. Raise ModelError if the content is damaged twice, else the hub
    library's errors.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(place.name + PARTIAL)
    with WeakFileLock(part.with_suffix(".lock")):
        for last in (False, True):
            if place.exists():
                return
            if _complete(url, file, part, on_bytes):
                part.replace(place)
            elif last:
                raise ModelError(
                    f"{file.name}: damaged twice while downloading from {url}; "
                    "try again, or from another network"
                )
    part.with_suffix(".lock").unlink(missing_ok=True)


def partial_size(place: Path) -> int:
    """Return how many bytes of the content at `place` are already on the disk."""
    part = place if place.exists() else place.with_name(place.name + PARTIAL)
    return part.stat().st_size if part.exists() else 0


def _complete(url: str, file: HubFile, part: Path, on_bytes: OnBytes) -> bool:
    """Fetch the missing bytes of `part`; return whether the hash matches, and remove the file if not."""
    failures = 0
    with part.open("ab+") as stream:
        if stream.tell() > file.size:
            stream.truncate(0)
        hashed = _begun(file, stream)
        while (have := stream.tell()) < file.size:
            try:
                hashed = _append(url, file, stream, hashed, on_bytes)
            except (HTTPError, OSError) as error:
                failures = failures + 1 if stream.tell() == have else 1
                if failures > _TRIES or not _passing(error):
                    raise
                time.sleep(min(4.0, 0.05 * 2**failures))
    if hashed.hexdigest() == file.etag:
        return True
    on_bytes(-file.size)
    part.unlink()
    return False


def _begun(file: HubFile, stream: BinaryIO) -> Any:
    """Return the hash of the bytes so far and leave the stream at its end."""
    # small files are named by git's hash of them, large ones by their own
    blob = f"blob {file.size}\0".encode()
    hashed = hashlib.sha256() if len(file.etag) == 64 else hashlib.sha1(blob, usedforsecurity=False)
    stream.seek(0)
    while piece := stream.read(_PIECE):
        hashed.update(piece)
    return hashed


def _append(url: str, file: HubFile, stream: BinaryIO, hashed: Any, on_bytes: OnBytes) -> Any:
    """Append what one request delivers; return the hash of all bytes so far."""
    have = stream.tell()
    headers = (
        build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    )
    with get_session().stream(
        "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True
    ) as response:  # fmt: skip
        hf_raise_for_status(response)
        if have and response.status_code != 206:  # a server that knows no ranges sends all of it
            on_bytes(-have)
            stream.truncate(0)
            hashed = _begun(file, stream)
        for (
            piece
        ) in response.iter_bytes():  # as they come: nothing waits to be written when the connection breaks
            stream.write(piece)
            hashed.update(piece)
            on_bytes(len(piece))
    return hashed


def _passing(error: Exception) -> bool:
    """Return True for errors worth a retry: a broken connection or a busy server."""
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code in (408, 429, 500, 502, 503, 504)
    return isinstance(error, HTTPError)
