"""Destinations of finished files: a folder, or any address that fsspec knows (s3://bucket/night, memory://out).

Files are written whole; which of several belongs together is told by the one that is written last, and that is the caller's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from .. import durable
from ..errors import RequestError, RunError
from ..texts import parse_json


class Store:
    """A folder, made where it is missing. RequestError if there is no such kind of place; RunError if it cannot be read or written.

    `address`: absolute, for messages and for other processes to open it by.
    """

    def __init__(self, folder_or_uri: str):
        self.is_local = "://" not in folder_or_uri
        self.address = str(Path(folder_or_uri).absolute()) if self.is_local else folder_or_uri.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        except (ValueError, ImportError) as error:  # fsspec names the package that is missing
            raise RequestError("out", folder_or_uri, f"fsspec cannot open it: {error}") from error

    def names(self) -> set[str]:
        """Names of all files in it; none if the folder is not there."""
        with self._explained("read"):
            try:
                return {Path(path).name for path in self._files.ls(self._root, detail=False, refresh=True)}
            except FileNotFoundError:
                return set()

    def check(self) -> None:
        """Make the folder, and see that files can be written there, by doing it."""
        with self._explained("written"):
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(self._path(".trial"), b"")
            self._files.rm_file(self._path(".trial"))

    def put(self, file: Path, name: str) -> str:
        """Copy a file of this machine into it, and tell its new address."""
        with self._explained("written"):
            self._files.makedirs(self._root, exist_ok=True)
            if self.is_local:  # other places show an object when it is whole
                with durable.replacing(Path(self.address, name)) as part:
                    shutil.copyfile(file, part)
            else:
                self._files.put_file(str(file), self._path(name))
        return f"{self.address}/{name}"

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """One JSON object as a file, in place of what is there."""
        with self._explained("written"):
            self._files.makedirs(self._root, exist_ok=True)
            data = (json.dumps(values) + "\n").encode()
            if self.is_local:
                durable.write_file(Path(self.address, name), data)
            else:
                self._files.pipe_file(self._path(name), data)

    def read_json(self, name: str) -> dict[str, Any]:
        """The object of `write_json`; empty if the file is cut short or none of ours."""
        with self._explained("read"):
            data = self._files.cat_file(self._path(name))
        try:
            values = parse_json(data)
        except ValueError:
            return {}
        return values if isinstance(values, dict) else {}

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(f"{self.address}: cannot be {what}: {error.strerror or error}") from error
