"""What a process imports to make videos, at once and without waste."""

import gc


def import_libraries() -> None:
    """Import what `runner` works with, and turn off the libraries' bars, one a network, which would drown our notes.

    Most of a cold start. Modules stay, and Python's collector would look through all that are there again and again as more come: a
    sixth of the time. So it waits, and leaves them out of its search afterwards too.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        import diffusers
        import transformers

        from . import runner  # noqa: F401 (with all that is in it)
    finally:
        if collects:
            gc.freeze()
            gc.enable()
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
