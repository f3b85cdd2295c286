"""Fingerprint of the weights in a model folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

_READ = (".json", ".txt", ".model", ".safetensors", ".bin")  # configurations, vocabularies, weights


def fingerprint(folder: Path, *others: Path) -> str:
    """sha256 in hex over names, sizes and contents of all that a model is loaded from: the folder's files and those of its parts.

    others: folders of pipelines that it works with.

    Changes with every bit of the weights and configurations; not with the folder's place, nor with other files such as a README.
    OSError if one cannot be read. About half a second a gigabyte.
    """
    whole = hashlib.sha256()
    for part in (folder, *others):
        files = [
            path
            for pattern in ("*", "*/*")
            for path in part.glob(pattern)
            if path.suffix in _READ and path.is_file()
        ]
        for path in sorted(files):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{path.relative_to(part).as_posix()}\0{path.stat().st_size}\0{content}\n".encode())
    return whole.hexdigest()
