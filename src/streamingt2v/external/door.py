"""Whether a model can do what is asked for, before anything is loaded. Imports nothing heavy for a model that works alone."""

from __future__ import annotations

from ..config import ModelConfig, Request, find_model
from ..errors import ModelError, RequestError


def checked_config(model: str, request: Request) -> ModelConfig:
    """The configuration of a model's name or folder; RequestError if there is none, or it cannot do the request. No weights are read."""
    try:
        config = ModelConfig.load(find_model(model))
        if config.seed or config.refine_by or request.base is not None or config.backbone == "svd":
            from .bases import with_seed  # its pipelines are judged by their classes, which takes some seconds

            config = with_seed(config, request)
    except ModelError as error:
        raise RequestError("model", model, str(error)) from error
    config.check(request)
    return config
