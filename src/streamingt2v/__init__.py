"""Long videos from text, made chunk by chunk: StreamingT2V (Henschel et al., CVPR 2025) on diffusers.

Public names are loaded when they are first used, so that importing the package is fast.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Request as Request
    from .errors import MediaError as MediaError
    from .errors import MissingExtra as MissingExtra
    from .errors import ModelError as ModelError
    from .errors import RequestError as RequestError
    from .errors import RunError as RunError
    from .errors import StreamingT2VError as StreamingT2VError
    from .pipeline import LongVideoPipeline as LongVideoPipeline
    from .runs.export import export as export
    from .runs.export import resume as resume
    from .types import Chunk as Chunk

_HOME = {
    "LongVideoPipeline": "pipeline",
    "Request": "config",
    "Chunk": "types",
    "export": "runs.export",
    "resume": "runs.export",
    "StreamingT2VError": "errors",
    "RequestError": "errors",
    "MissingExtra": "errors",
    "ModelError": "errors",
    "MediaError": "errors",
    "RunError": "errors",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version(__name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
