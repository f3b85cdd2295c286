"""One file of the hub into its cache: gone on with where an earlier try broke off, and checked by its hash.

The hub's own library begins each file again after a Ctrl-C or a kill, and cannot be stopped within one. So the bytes are fetched here;
paths, headers, tokens and the HTTP session stay the library's.
"""

from __future__ import annotations

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
"""Ends the name of a file in the making, one for each content, whoever fetches it."""

_PIECE = 2**18
_TRIES = 5
"""Failures in a row, without a byte between them, after which the network is given up."""


@dataclass(frozen=True)
class HubFile:
    """One file of a repository: name, bytes, and what it is called in the cache: its sha256, or git's sha1 for small files."""

    name: str
    size: int
    etag: str


def download(url: str, file: HubFile, place: Path, on_bytes: OnBytes = lambda count: None) -> None:
    """The file's content at `place`, whole and checked; nothing if it is there.

    on_bytes: told how many more bytes have come; fewer than none where those of an earlier try are of no use. The caller's thread does
    the work, so an exception raised in it, a KeyboardInterrupt too, ends it at once; what has come stays for the next try.
    ModelError if the content is damaged twice; the hub library's errors for all else.
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
                    f"{file.name}: came damaged twice from {url}; try again, or from another network"
                )
    part.with_suffix(".lock").unlink(missing_ok=True)


def partial_size(place: Path) -> int:
    """Bytes of the content at `place` that need not be fetched."""
    part = place if place.exists() else place.with_name(place.name + PARTIAL)
    return part.stat().st_size if part.exists() else 0


def _complete(url: str, file: HubFile, part: Path, on_bytes: OnBytes) -> bool:
    """Fetch what `part` lacks; whether it has the right hash then, else it is removed."""
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
    """The hash of what the file has; the stream is at its end afterwards."""
    # small files are named by git's hash of them, large ones by their own
    hashed = (
        hashlib.sha256()
        if len(file.etag) == 64
        else hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    )
    stream.seek(0)
    while piece := stream.read(_PIECE):
        hashed.update(piece)
    return hashed


def _append(url: str, file: HubFile, stream: BinaryIO, hashed: Any, on_bytes: OnBytes) -> Any:
    """Bytes from where the file ends, as far as they come; the hash of all of it."""
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
    """Return whether it may be better in a moment: the connection broke, or the server is busy."""
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code in (408, 429, 500, 502, 503, 504)
    return isinstance(error, HTTPError)
