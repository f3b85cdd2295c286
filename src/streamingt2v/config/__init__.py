"""Requests and model configurations: frozen dataclasses, nothing heavy imported."""

from .external import SeedConfig, SvdConfig
from .model import BACKBONES, EMBEDDED, Backbone, ExtendConfig, ModelConfig, find_model
from .refine import FORMS, Form, RefineByConfig, RefineConfig
from .request import PRESETS, Preset, Request
from .values import check_sampling, read_json

__all__ = [
    "BACKBONES",
    "EMBEDDED",
    "FORMS",
    "PRESETS",
    "Backbone",
    "ExtendConfig",
    "Form",
    "ModelConfig",
    "Preset",
    "RefineByConfig",
    "RefineConfig",
    "Request",
    "SeedConfig",
    "SvdConfig",
    "check_sampling",
    "find_model",
    "read_json",
]
