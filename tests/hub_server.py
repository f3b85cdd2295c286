"""A local server with the Hugging Face hub's protocol, for its real client library.

Files are in memory or on the disk. Large ones are served as LFS files: by a redirect, with hash and size in
`X-Linked-*`, to an address that supports byte ranges. Tests set failures (gates, tokens, cut connections,
statuses, slowness) and read the number of bytes sent.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

PIECE = 2**16


@dataclass
class HubFile:
    """One file: bytes, or a path whose content does not change."""

    content: bytes | Path
    linked: bool

    def __len__(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    def pieces(self, first: int) -> Iterator[bytes]:
        if isinstance(self.content, bytes):
            for start in range(first, len(self.content), PIECE):
                yield self.content[start : start + PIECE]
            return
        with self.content.open("rb") as file:
            file.seek(first)
            while piece := file.read(PIECE):
                yield piece

    @cached_property
    def blob_id(self) -> str:
        """git's."""
        whole = hashlib.sha1(f"blob {len(self)}\0".encode(), usedforsecurity=False)
        for piece in self.pieces(0):
            whole.update(piece)
        return whole.hexdigest()

    @cached_property
    def sha256(self) -> str:
        whole = hashlib.sha256()
        for piece in self.pieces(0):
            whole.update(piece)
        return whole.hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.linked else self.blob_id


@dataclass
class Repository:
    """A model's files at one commit. revisions: branch or tag -> commit; all have the same files."""

    files: dict[str, HubFile]
    commit: str
    licence: str | None = None
    gated: bool = False
    private: bool = False
    revisions: dict[str, str] = field(default_factory=dict)

    def has(self, revision: str) -> bool:
        return revision in (self.commit, self.commit[:7], *self.revisions)


class Hub(ThreadingHTTPServer):
    """A hub. repositories: by id. tokens: each valid token, and the gated repositories that it may read.

    bytes_sent: of contents, by path. asked: every request as "METHOD path". To set: `rate` (bytes per
    second), `cut_after` (bytes after which a download breaks off), `status` (of every answer), `ranges`.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.tokens: dict[str, set[str]] = {}
        self.bytes_sent: Counter[str] = Counter()
        self.asked: list[str] = []
        self.rate: float | None = None
        self.cut_after: int | None = None
        self.status: int | None = None
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def elsewhere(self) -> str:
        """Return the address of LFS contents: to clients another host, which gets no token."""
        return f"http://localhost:{self.server_port}/cdn/"

    def __enter__(self) -> Hub:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self.server_close()

    def put(
        self, hub_id: str, files: dict[str, bytes | Path] | Path, *, large: int = 10_000, **facts: object
    ) -> Repository:
        """Add a repository; files of `large` bytes or more are LFS. facts: see `Repository`."""
        if isinstance(files, Path):
            files = {
                path.relative_to(files).as_posix(): path
                for path in sorted(files.rglob("*"))
                if path.is_file()
            }
        made = {name: HubFile(content, False) for name, content in files.items()}
        for file in made.values():
            file.linked = len(file) >= large
        listing = "".join(f"{name} {file.etag}\n" for name, file in made.items())
        commit = hashlib.sha1(f"{hub_id}\n{listing}".encode(), usedforsecurity=False).hexdigest()
        revisions = {"main": commit, **dict.fromkeys(facts.pop("tags", ()), commit)}  # type: ignore[call-overload]
        self.repositories[hub_id] = Repository(made, commit, revisions=revisions, **facts)  # type: ignore[arg-type]
        return self.repositories[hub_id]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed while they read are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def setup(self) -> None:
        self.request.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE
        )  # what waits in the kernel was not sent
        super().setup()

    def log_message(self, format: str, *values: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_GET(self) -> None:
        self._answer(head=False)

    def _answer(self, head: bool) -> None:
        hub, place = self.server, urlsplit(self.path)
        path = unquote(place.path)
        hub.asked.append(f"{self.command} {path}")
        if hub.status is not None:
            self._error(hub.status, None, "set by the test")
        elif match := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
            file = next(
                f
                for repo in hub.repositories.values()
                for f in repo.files.values()
                if f.linked and f.sha256 == match[1]
            )
            self._content(file, path, head, {"ETag": f'"{file.sha256}"'})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|refs|tree)(?:/(.+))?)?", path):
            self._api(match[1], match[2], match[3] or "main", "blobs" in parse_qs(place.query))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[2], match[3], head)
        else:
            self._error(404, "RepoNotFound", "Repository not found")

    def _allowed(self, hub_id: str) -> Repository | None:
        """The repository; None after an error was sent, with the statuses and headers of the real one."""
        hub, repo = self.server, self.server.repositories.get(hub_id)
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if given and given not in hub.tokens:
            self._error(401, None, "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and hub_id not in hub.tokens.get(given, ())):
            self._error(404 if given else 401, "RepoNotFound", "Repository not found")
        else:
            return repo
        return None

    def _may_read(self, hub_id: str, repo: Repository) -> bool:
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if not repo.gated or hub_id in self.server.tokens.get(given, ()):
            return True
        self._error(403 if given else 401, "GatedRepo", f"Access to model {hub_id} is restricted.")
        return False

    def _api(self, hub_id: str, what: str | None, revision: str, blobs: bool) -> None:
        repo = self._allowed(hub_id)
        if repo is None:
            return
        if what == "refs":
            self._json(
                {
                    "tags": [],
                    "converts": [],
                    "branches": [self._ref(name, sha) for name, sha in repo.revisions.items()],
                }
            )
        elif not repo.has(revision):
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif what == "tree":
            self._json(
                [{"type": "file", "path": name, **self._facts(file)} for name, file in repo.files.items()]
            )
        else:
            siblings = [
                {"rfilename": name, **(self._facts(file) if blobs else {})}
                for name, file in repo.files.items()
            ]
            card = {"license": repo.licence} if repo.licence else {}
            values = {
                "_id": "1",
                "id": hub_id,
                "modelId": hub_id,
                "sha": repo.commit,
                "private": repo.private,
                "tags": [],
            }
            self._json(
                values | {"gated": "manual" if repo.gated else False, "cardData": card, "siblings": siblings}
            )

    def _ref(self, name: str, commit: str) -> dict[str, str]:
        return {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}

    def _facts(self, file: HubFile) -> dict[str, object]:
        lfs = (
            {"lfs": {"sha256": file.sha256, "oid": file.sha256, "size": len(file), "pointerSize": 130}}
            if file.linked
            else {}
        )
        return {"size": len(file), "blobId": file.blob_id, "oid": file.blob_id, **lfs}

    def _resolve(self, hub_id: str, revision: str, name: str, head: bool) -> None:
        repo = self._allowed(hub_id)
        if repo is None or not self._may_read(hub_id, repo):
            return
        if not repo.has(revision):
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        commit = {"X-Repo-Commit": repo.commit}
        file = repo.files.get(name)
        if file is None:
            self._error(404, "EntryNotFound", "Entry not found", commit)
        elif file.linked:
            linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file))}
            self._head(
                302,
                commit | linked | {"Location": self.server.elsewhere + file.sha256, "Content-Length": "0"},
            )
        else:
            self._content(file, f"/{hub_id}/{name}", head, commit | {"ETag": f'"{file.blob_id}"'})

    def _content(self, file: HubFile, counted_as: str, head: bool, headers: dict[str, str]) -> None:
        hub, size, first = self.server, len(file), 0
        if hub.ranges and (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")):
            first = int(match[1])
            if first >= size:
                self._head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
                return
            headers = headers | {"Content-Range": f"bytes {first}-{size - 1}/{size}"}
        self._head(
            206 if first else 200, headers | {"Content-Length": str(size - first), "Accept-Ranges": "bytes"}
        )
        sent, began = 0, time.monotonic()
        for piece in () if head else file.pieces(first):
            if hub.cut_after is not None and sent + len(piece) > hub.cut_after:
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(piece)
            sent += len(piece)
            hub.bytes_sent[counted_as] += len(piece)
            if hub.rate is not None:
                time.sleep(max(0.0, began + sent / hub.rate - time.monotonic()))

    def _json(self, values: object) -> None:
        body = json.dumps(values).encode()
        self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _error(
        self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps({"error": message}).encode()
        named = {"X-Error-Code": code} if code else {}
        sizes = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self._head(status, named | sizes | {"X-Error-Message": message} | (headers or {}))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
