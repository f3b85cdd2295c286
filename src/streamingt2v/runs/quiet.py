"""Keep libraries quiet in processes that make videos."""


def hide_progress_bars(warnings: bool = True) -> None:
    """Turn off the libraries' progress bars, one per network, which would hide our notes.

    warnings: False also turns off what they warn of.
    """
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        if not warnings:
            library.utils.logging.set_verbosity_error()
