"""Imports of a process that makes videos."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


def import_libraries() -> None:
    """Import what `runner` works with, and turn off the libraries' bars, one a network, which would drown our notes.

    Most of a cold start. Modules stay, and Python's collector would look through all that are there again and again as more come: a
    sixth of the time. So it waits, and leaves them out of its search afterwards too.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with _one_look_at_sources():
            import diffusers
            import transformers

            from . import render as runner  # noqa: F401 (with all that is in it)
    finally:
        if collects:
            gc.freeze()
            gc.enable()
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()


@contextmanager
def _one_look_at_sources() -> Iterator[None]:
    """Let transformers, imported in here, look at its 2200 sources once: a tenth of the time.

    It needs the names in them twice, and remembers what it has found in a folder, but only of the last 128 folders of 550.
    """
    if "transformers" in sys.modules:
        yield
        return

    class Watch:
        @staticmethod
        def find_spec(*asked: Any) -> None:
            own = sys.modules.get("transformers.utils.import_utils")
            look: Any = getattr(own, "create_import_structure_from_path", None)
            parameters = getattr(look, "cache_parameters", None)
            if parameters is not None and parameters()["maxsize"] is not None:
                setattr(own, look.__name__, cache(look.__wrapped__))

    sys.meta_path.insert(0, Watch)
    try:
        yield
    finally:
        sys.meta_path.remove(Watch)
