"""Output paths of a command, checked before anything heavy is loaded."""

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
    """Return where a new run goes, or RequestError: see `check_files`; the run folder must be new, or hold nothing but leftovers."""
    if options.output is None and run_dir is None:
        raise RequestError("output", None, "say where the video goes, e.g. -o out.mp4 (or give --run-dir)")
    check_files(options)
    output = options.output.absolute() if options.output else (run_dir or Path()).absolute() / "video.mp4"
    folder = run_dir.absolute() if run_dir else folder_beside(output)
    _check_apart(output, folder)
    _check_run_folder(folder)
    try_folder("run_dir", folder)
    return Places(output, folder, temporary=run_dir is None, new=True)


def _check_apart(output: Path, folder: Path) -> None:
    """RequestError where the video would take the place of the run folder or of one of its files."""
    from ..runs.folder import is_ours

    if output == folder or (output.parent == folder and is_ours(output.name)):
        raise RequestError(
            "output", str(output), "the run's own files are there; name another file, or another --run-dir"
        )


def places_of_run(run: RunFolder, options: OutputOptions) -> Places:
    """Return where a resumed run goes: to a new `--output` if one is given, else to the one it was told at its start.

    RequestError if that one cannot be written any more, or there is another file by now that was not to be replaced.
    """
    if options.output is None:
        _check_place("output", run.output, options.overwrite or run.header.overwrite or run.wrote(run.output))
    return Places((options.output or run.output).absolute(), run.path, run.header.temporary, new=False)


def check_files(options: OutputOptions) -> None:
    """RequestError unless every file asked for can be written, see `check_file`, each in a place of its own."""
    check_each(
        {
            "output": (options.output, ".mp4"),
            "xt_slice": (options.xt_slice, ".png"),
            "contact_sheet": (options.contact_sheet, ".png"),
        },
        options.overwrite,
    )


def check_each(files: Mapping[str, tuple[Path | None, str]], overwrite: bool) -> None:
    """`check_file` of each file (None: not asked for) with its suffix, by the names of their options; RequestError for two in one place."""
    taken: dict[str, str] = {}
    for name, (path, suffix) in files.items():
        if path is not None:
            check_file(name, path, suffix, overwrite)
            place = os.path.realpath(path)
            if place in taken:
                raise RequestError(
                    name,
                    str(path),
                    f"is the file of --{taken[place].replace('_', '-')} as well; name another",
                )
            taken[place] = name


def check_file(name: str, path: Path, suffix: str, overwrite: bool) -> None:
    """RequestError unless the file has the right suffix, can be written (which is tried), and is new or may be replaced."""
    _check_name(name, path)
    if not path.is_dir() and path.suffix.lower() != suffix:
        raise RequestError(name, str(path), f"must end in {suffix}, e.g. {path.with_suffix(suffix)}")
    _check_place(name, path, overwrite)


def _check_name(name: str, path: Path) -> None:
    """RequestError for what no file can be called; for such, Path's own questions are errors."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise RequestError(name, str(path), _why(error)) from error


def _check_place(name: str, path: Path, overwrite: bool) -> None:
    _check_name(name, path)
    if path.is_dir():
        raise RequestError(name, str(path), "is a folder; name a file")
    if not path.parent.is_dir():
        raise RequestError(
            name,
            str(path),
            f"its folder does not exist; create it first: {shlex.join(['mkdir', '-p', str(path.parent)])}",
        )
    if path.is_symlink() and not path.exists():
        raise RequestError(
            name, str(path), "is a link that leads to nothing; remove it, or name another file"
        )
    if path.exists() and not overwrite:
        raise RequestError(name, str(path), "exists; give --overwrite to replace it, or another name")
    if path.exists() and not path.is_file():
        raise RequestError(name, str(path), "is no file that could be replaced; name another")
    try:
        try_file(path)
    except OSError as error:
        raise RequestError(name, str(path), _why(error)) from error


def try_folder(name: str, folder: Path) -> None:
    """RequestError, for the option `name`, unless files can be made in the folder, which is tried; a folder made for that goes again."""
    made: list[Path] = []
    try:
        for missing in reversed([f for f in (folder, *folder.parents) if not f.exists()]):
            missing.mkdir()
            made.append(missing)
        with tempfile.NamedTemporaryFile(prefix=".trial-of-a-name-as-long-as-", dir=folder):
            pass
    except OSError as error:
        raise RequestError(name, str(folder), _why(error)) from error
    finally:
        for empty in reversed(made):
            with suppress(OSError):
                empty.rmdir()


def _why(error: OSError) -> str:
    way_out = "name one of fewer bytes" if error.errno == errno.ENAMETOOLONG else "choose another place"
    return f"cannot be written: {error.strerror or error}; {way_out}"


def _check_run_folder(folder: Path) -> None:
    """RequestError unless a new run can be made there: no folder, an empty one, or one with leftovers of ours only."""
    from ..runs.folder import REQUEST, in_the_way

    _check_name("run_dir", folder)
    if not folder.exists() and not folder.is_symlink():
        return
    if (folder / REQUEST).is_file():
        again = shlex.join(["streamingt2v", "resume", str(folder)])
        fix = f"is there already; go on with that run by: {again}; or remove it, or choose another --run-dir"
        raise RequestError("run_dir", str(folder), fix)
    if not folder.is_dir():
        raise RequestError("run_dir", str(folder), "is there already and no folder; choose another --run-dir")
    strangers = in_the_way(folder)
    if strangers:
        fix = f"is there already and is no run (it holds {strangers[0]}); choose another --run-dir"
        raise RequestError("run_dir", str(folder), fix)
