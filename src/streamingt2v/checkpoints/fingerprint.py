"""Fingerprint of the weights in a model folder."""

import hashlib
from pathlib import Path

_READ = (".json", ".txt", ".model", ".safetensors", ".bin")  # configurations, vocabularies, weights


def fingerprint(folder: Path, *others: Path) -> str:
    """Return the sha256 over names, sizes and contents of all files that a model is loaded from.

    others: folders of further pipelines that the model uses. Any change of weights or configuration changes
    the fingerprint; moving the folder or adding other files does not. Raise OSError if a file cannot be read.
    Takes about half a second per gigabyte.
    """
    whole = hashlib.sha256()
    for part in (folder, *others):
        found = [part] if part.is_file() else [*part.glob("*"), *part.glob("*/*")]
        files = [path for path in found if path.is_file() and (path == part or path.suffix in _READ)]
        for path in sorted(files):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{path.relative_to(part).as_posix()}\0{path.stat().st_size}\0{content}\n".encode())
    return whole.hexdigest()
