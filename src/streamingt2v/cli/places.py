"""Where a command writes, checked before anything heavy is loaded: nothing is lost at the end of an hour, nothing replaced unasked."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError
from .options import OutputOptions


@dataclass(frozen=True)
class Places:
    """Absolute paths of the finished video and of the run folder it is made in; `temporary`: the folder goes once the video is there."""

    output: Path
    run_folder: Path
    temporary: bool


def folder_beside(output: Path) -> Path:
    """`OUT.run` for `OUT.mp4`: the run folder where none was asked for."""
    return output.with_suffix(".run")


def choose_places(options: OutputOptions, run_dir: Path | None) -> Places:
    """Where a new run goes, or RequestError: see `check_files`; the run folder must be new or empty."""
    if options.output is None and run_dir is None:
        raise RequestError("output", None, "say where the video goes, e.g. -o out.mp4 (or give --run-dir)")
    check_files(options)
    output = options.output.absolute() if options.output else (run_dir or Path()).absolute() / "video.mp4"
    folder = run_dir.absolute() if run_dir else folder_beside(output)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        fix = f"is there already; go on with that run by: streamingt2v resume {folder}; or remove it, or choose another --run-dir"
        raise RequestError("run_dir", str(folder), fix)
    if not _can_write(_nearest_existing(folder.parent)):
        raise RequestError("run_dir", str(folder), "cannot be made there: the disk or folder cannot be written to")
    return Places(output, folder, temporary=folder == folder_beside(output))


def places_of_run(folder: Path, remembered: Path, options: OutputOptions) -> Places:
    """Where a resumed run goes: to a new `--output` if one is given, else to the one it was told at its start."""
    return Places((options.output or remembered).absolute(), folder, temporary=folder == folder_beside(remembered))


def check_files(options: OutputOptions) -> None:
    """RequestError unless every file asked for has the right suffix, a folder that can be written, and is new or may be replaced."""
    for name, path, suffix in (
        ("output", options.output, ".mp4"),
        ("xt_slice", options.xt_slice, ".png"),
        ("contact_sheet", options.contact_sheet, ".png"),
    ):
        if path is not None:
            _check_file(name, path, suffix, options.overwrite)


def _check_file(name: str, path: Path, suffix: str, overwrite: bool) -> None:
    if path.suffix.lower() != suffix:
        raise RequestError(name, str(path), f"must end in {suffix}, e.g. {path.with_suffix(suffix)}")
    if not path.parent.is_dir():
        raise RequestError(name, str(path), f"its folder does not exist; create it first: mkdir -p {path.parent}")
    if path.is_dir():
        raise RequestError(name, str(path), "is a folder; name a file")
    if not _can_write(path.parent):
        raise RequestError(name, str(path), f"the folder {path.parent} cannot be written to")
    if path.exists() and not overwrite:
        raise RequestError(name, str(path), "exists; give --overwrite to replace it, or another name")


def _can_write(folder: Path) -> bool:
    # asked by doing: permission bits say nothing about read-only file systems, or to root
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _nearest_existing(folder: Path) -> Path:
    return folder if folder.exists() or folder == folder.parent else _nearest_existing(folder.parent)
