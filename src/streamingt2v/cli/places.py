"""Checks of output paths, before anything heavy is loaded."""

from __future__ import annotations

import errno
import os
import shlex
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..durable import try_file
from ..errors import RequestError
from ..texts import not_expanded
from .options import OutputOptions

if TYPE_CHECKING:
    from ..runs.run import RunFolder


@dataclass(frozen=True)
class Places:
    """Absolute paths of the video and of its run folder.

    temporary: remove the run folder once the video is written. new: this command creates the run folder.
    """

    output: Path
    run_folder: Path
    temporary: bool
    new: bool


def folder_beside(output: Path) -> Path:
    """Return `OUT.run` for `OUT.mp4`, the default run folder."""
    return output.with_suffix(".run")


def choose_places(options: OutputOptions, run_dir: Path | None) -> Places:
    """Check and return the paths of a new run, see `check_files`.

    RequestError unless the run folder is new, empty or holds only leftovers of an interrupted start.
    """
    if options.output is None and run_dir is None:
        raise RequestError("output", None, "name the video to write, e.g. -o out.mp4 (or give --run-dir)")
    check_files(options)
    output = options.output.absolute() if options.output else (run_dir or Path()).absolute() / "video.mp4"
    folder = run_dir.absolute() if run_dir else folder_beside(output)
    _check_apart(output, folder)
    _check_run_folder(folder)
    try_folder("run_dir", folder)
    return Places(output, folder, temporary=run_dir is None, new=True)


def _check_apart(output: Path, folder: Path) -> None:
    """Raise RequestError if the video would replace the run folder or one of its files."""
    from ..runs.folder import is_ours

    if output == folder or (output.parent == folder and is_ours(output.name)):
        raise RequestError(
            "output", str(output), "is used by the run itself; choose another file or another --run-dir"
        )


def places_of_run(run: RunFolder, options: OutputOptions) -> Places:
    """Return the paths of a resumed run; its original output unless `--output` names another.

    RequestError if the original output is no longer writable, or another file has taken its place.
    """
    if options.output is None:
        _check_place("output", run.output, options.overwrite or run.header.overwrite or run.wrote(run.output))
    return Places((options.output or run.output).absolute(), run.path, run.header.temporary, new=False)


def check_files(options: OutputOptions) -> None:
    """Raise RequestError unless all output files are distinct and writable."""
    check_each(
        {
            "output": (options.output, ".mp4"),
            "xt_slice": (options.xt_slice, ".png"),
            "contact_sheet": (options.contact_sheet, ".png"),
        },
        options.overwrite,
    )


def check_each(files: Mapping[str, tuple[Path | None, str]], overwrite: bool) -> None:
    """Check each (path, suffix) by option name, see `check_file`; RequestError for two equal paths."""
    taken: dict[str, str] = {}
    for name, (path, suffix) in files.items():
        if path is not None:
            check_file(name, path, suffix, overwrite)
            place = os.path.realpath(path)
            if place in taken:
                fix = f"is the file of --{taken[place].replace('_', '-')} as well; name another"
                raise RequestError(name, str(path), fix)
            taken[place] = name


def check_file(name: str, path: Path, suffix: str, overwrite: bool) -> None:
    """Raise RequestError unless the path has the suffix, is writable, and is new or may be replaced."""
    check_name(name, path)
    if not path.is_dir() and path.suffix.lower() != suffix:
        raise RequestError(name, str(path), f"must end in {suffix}, e.g. {path.with_suffix(suffix)}")
    _check_place(name, path, overwrite)


def check_name(name: str, path: Path) -> None:
    """Raise RequestError for an invalid name, on which `Path.exists` and others would raise OSError."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise RequestError(name, str(path), _why(error)) from error


def _check_place(name: str, path: Path, overwrite: bool) -> None:
    check_name(name, path)
    if path.is_dir():
        raise RequestError(name, str(path), "is a folder; name a file")
    if not path.parent.is_dir():
        raise RequestError(name, str(path), _no_folder(path.parent))
    if path.is_symlink() and not path.exists():
        raise RequestError(name, str(path), "is a broken link; remove it, or name another file")
    if path.exists() and not overwrite:
        raise RequestError(name, str(path), "exists; give --overwrite to replace it, or another name")
    if path.exists() and not path.is_file():
        raise RequestError(name, str(path), "is not a regular file; name another")
    try:
        try_file(path)
    except OSError as error:
        raise RequestError(name, str(path), _why(error)) from error


def _no_folder(folder: Path) -> str:
    if mistake := not_expanded(f"{folder}/"):
        return f"its folder does not exist{mistake}"
    file = next((part for part in (folder, *folder.parents) if part.exists() and not part.is_dir()), None)
    if file is not None:
        return f"{file} is a file and holds no others; name another folder"
    return f"its folder does not exist; create it: {shlex.join(['mkdir', '-p', str(folder)])}"


def try_folder(name: str, folder: Path, way_out: str = "choose another place") -> None:
    """Raise RequestError unless files can be created in the folder; leave nothing behind."""
    made: list[Path] = []
    try:
        for missing in reversed([f for f in (folder, *folder.parents) if not f.exists()]):
            missing.mkdir()
            made.append(missing)
        with tempfile.NamedTemporaryFile(prefix=".trial-of-a-name-as-long-as-", dir=folder):
            pass
    except OSError as error:
        raise RequestError(name, str(folder), _why(error, way_out)) from error
    finally:
        for empty in reversed(made):
            with suppress(OSError):
                empty.rmdir()


def _why(error: OSError, way_out: str = "choose another place") -> str:
    way_out = "use a shorter name" if error.errno == errno.ENAMETOOLONG else way_out
    return f"cannot be written: {error.strerror or error}; {way_out}"


def _check_run_folder(folder: Path) -> None:
    """Raise RequestError unless the folder is missing, empty or holds only leftovers of a run."""
    from ..runs.folder import REQUEST, in_the_way

    check_name("run_dir", folder)
    if not folder.exists() and not folder.is_symlink():
        return
    if (folder / REQUEST).is_file():
        again = shlex.join(["streamingt2v", "resume", str(folder)])
        fix = f"already holds a run; resume it: {again}; or remove it, or choose another --run-dir"
        raise RequestError("run_dir", str(folder), fix)
    if not folder.is_dir():
        raise RequestError("run_dir", str(folder), "exists and is no folder; choose another --run-dir")
    strangers = in_the_way(folder)
    if strangers:
        fix = f"exists and is no run folder (it holds {strangers[0]}); choose another --run-dir"
        raise RequestError("run_dir", str(folder), fix)
