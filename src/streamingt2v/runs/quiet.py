"""What a process that makes videos tells its libraries to keep to themselves."""


def hide_progress_bars() -> None:
    """Turn off the libraries' progress bars, one a network, which would drown our own notes. For entry points of a process."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
