"""Store finished files in a folder, or at any address that fsspec knows (s3://bucket/night, memory://out)."""

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
    """A folder, made where it is missing. address: absolute, for messages and other processes.

    RequestError for an unknown kind of address; RunError if the folder cannot be read or written.
    """

    def __init__(self, folder_or_uri: str):
        self.is_local = "://" not in folder_or_uri
        self.address = str(Path(folder_or_uri).absolute()) if self.is_local else folder_or_uri.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        except (ValueError, ImportError) as error:  # fsspec names a missing package
            raise RequestError("out", folder_or_uri, f"fsspec cannot open it: {error}") from error

    def names(self) -> set[str]:
        """Return the names of all files; none if the folder does not exist."""
        with self._explained("read"):
            try:
                return {Path(path).name for path in self._files.ls(self._root, detail=False, refresh=True)}
            except FileNotFoundError:
                return set()

    def check(self) -> None:
        """Make the folder and write a file there, as a test."""
        with self._explained("written"):
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(self._path(".trial"), b"")
            self._files.rm_file(self._path(".trial"))

    def put(self, file: Path, name: str) -> str:
        """Copy a local file into the folder; return its new address."""
        with self._explained("written"):
            self._files.makedirs(self._root, exist_ok=True)
            if self.is_local:  # elsewhere objects appear when they are complete
                with durable.replacing(Path(self.address, name)) as part:
                    shutil.copyfile(file, part)
            else:
                self._files.put_file(str(file), self._path(name))
        return f"{self.address}/{name}"

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Write a JSON object, replacing an existing file."""
        with self._explained("written"):
            self._files.makedirs(self._root, exist_ok=True)
            data = (json.dumps(values) + "\n").encode()
            if self.is_local:
                durable.write_file(Path(self.address, name), data)
            else:
                self._files.pipe_file(self._path(name), data)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read the object of `write_json`; empty for other files."""
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
