"""Keep libraries quiet in processes that make videos."""


def hide_progress_bars() -> None:
    """Turn off the libraries' progress bars, one per network, which would hide our notes."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
