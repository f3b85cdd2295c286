"""Errors that this package raises.

StreamingT2VError
├── RequestError        the request is wrong; raised before any weights load (exit code 2)
│   └── MissingExtra    an optional package is needed; the message tells how to install it
├── ModelError          a model folder or checkpoint is missing, incomplete or does not fit
├── MediaError          an image or video cannot be read
└── RunError            a run folder cannot be written, read or resumed
"""


class StreamingT2VError(Exception):
    """Base of all errors of this package."""


class RequestError(StreamingT2VError, ValueError):
    """An argument is wrong; the message names it, its value, and the fix."""

    def __init__(self, argument: str, value: object, fix: str):
        self.argument, self.value, self.fix = argument, value, fix
        super().__init__(f"{argument}={value!r}: {fix}")


class MissingExtra(RequestError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str):
        self.extra = extra
        super().__init__(feature, "not installed", f"install it with: pip install 'streamingt2v[{extra}]'")


class ModelError(StreamingT2VError):
    """A model folder or checkpoint is missing, incomplete, or does not fit its configuration."""


class MediaError(StreamingT2VError):
    """An image or video cannot be opened or decoded."""


class MediaWarning(UserWarning):
    """A video is damaged and was read only in part."""


class RunError(StreamingT2VError):
    """A run folder cannot be created, written, read or resumed."""
