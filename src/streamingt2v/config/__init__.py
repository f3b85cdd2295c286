"""Requests and model configurations: frozen dataclasses, nothing heavy imported."""

from .external import FORMS, FastConfig, Form, RefineByConfig, RefineConfig, SeedConfig, SvdConfig, check_sampling, read_json
from .model import BACKBONES, EMBEDDED, PRESETS, Backbone, ExtendConfig, ModelConfig, Preset, Request, find_model

__all__ = [
    "BACKBONES",
    "EMBEDDED",
    "FORMS",
    "PRESETS",
    "Backbone",
    "ExtendConfig",
    "FastConfig",
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
