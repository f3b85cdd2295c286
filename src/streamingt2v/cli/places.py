"""Where a command writes, checked before anything heavy is loaded: nothing is lost at the end of an hour, nothing replaced unasked."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from .options import OutputOptions

if TYPE_CHECKING:
    from ..runs.run import RunFolder


@dataclass(frozen=True)
class Places:
    """Absolute paths of the finished video and of the run folder it is made in.

    temporary: the folder goes once the video is there. new: this command makes the folder, so that it may take it away again.
    """

    output: Path
    run_folder: Path
    temporary: bool
    new: bool


def folder_beside(output: Path) -> Path:
    """`OUT.run` for `OUT.mp4`: the run folder where none was asked for."""
    return output.with_suffix(".run")


def choose_places(options: OutputOptions, run_dir: Path | None) -> Places:
    """Where a new run goes, or RequestError: see `check_files`; the run folder must be new, or hold nothing but leftovers."""
    if options.output is None and run_dir is None:
        raise RequestError("output", None, "say where the video goes, e.g. -o out.mp4 (or give --run-dir)")
    check_files(options)
    output = options.output.absolute() if options.output else (run_dir or Path()).absolute() / "video.mp4"
    folder = run_dir.absolute() if run_dir else folder_beside(output)
    _check_run_folder(folder)
    if not _can_write(_nearest_existing(folder.parent)):
        raise RequestError("run_dir", str(folder), "cannot be made there: the disk or folder cannot be written to")
    return Places(output, folder, temporary=run_dir is None, new=True)


def places_of_run(run: RunFolder, options: OutputOptions) -> Places:
    """Where a resumed run goes: to a new `--output` if one is given, else to the one it was told at its start.

    RequestError if that one cannot be written any more, or there is another file by now that was not to be replaced.
    """
    if options.output is None:
        _check_place("output", run.output, options.overwrite or run.header.overwrite or run.wrote(run.output))
    return Places((options.output or run.output).absolute(), run.path, run.header.temporary, new=False)


def check_files(options: OutputOptions) -> None:
    """RequestError unless every file asked for has the right suffix, a folder that can be written, and is new or may be replaced."""
    for name, path, suffix in (
        ("output", options.output, ".mp4"),
        ("xt_slice", options.xt_slice, ".png"),
        ("contact_sheet", options.contact_sheet, ".png"),
    ):
        if path is not None:
            check_file(name, path, suffix, options.overwrite)


def check_file(name: str, path: Path, suffix: str, overwrite: bool) -> None:
    """RequestError unless the file has the right suffix, a folder that can be written, and is new or may be replaced."""
    if not path.is_dir() and path.suffix.lower() != suffix:
        raise RequestError(name, str(path), f"must end in {suffix}, e.g. {path.with_suffix(suffix)}")
    _check_place(name, path, overwrite)


def _check_place(name: str, path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise RequestError(name, str(path), "is a folder; name a file")
    if not path.parent.is_dir():
        raise RequestError(name, str(path), f"its folder does not exist; create it first: mkdir -p {path.parent}")
    if not _can_write(path.parent):
        raise RequestError(name, str(path), f"the folder {path.parent} cannot be written to")
    if path.exists() and not overwrite:
        raise RequestError(name, str(path), "exists; give --overwrite to replace it, or another name")


def _check_run_folder(folder: Path) -> None:
    """RequestError unless a new run can be made there: no folder, an empty one, or one with leftovers of ours only."""
    from ..runs.folder import REQUEST, in_the_way

    if not folder.exists():
        return
    if (folder / REQUEST).is_file():
        fix = f"is there already; go on with that run by: streamingt2v resume {folder}; or remove it, or choose another --run-dir"
        raise RequestError("run_dir", str(folder), fix)
    if not folder.is_dir():
        raise RequestError("run_dir", str(folder), "is there already and no folder; choose another --run-dir")
    strangers = in_the_way(folder)
    if strangers:
        fix = f"is there already and is no run (it holds {strangers[0]}); choose another --run-dir"
        raise RequestError("run_dir", str(folder), fix)


def _can_write(folder: Path) -> bool:
    # asked by doing: permission bits say nothing about read-only file systems, or to root
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _nearest_existing(folder: Path) -> Path:
    return folder if folder.exists() or folder == folder.parent else _nearest_existing(folder.parent)
