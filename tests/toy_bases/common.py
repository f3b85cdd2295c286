"""Parts that several toys share."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import transformers


def flow(**more: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, **more)


def unipc() -> Any:
    return diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )


def vision_config() -> Any:
    return transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32,
        patch_size=16,
        projection_dim=16,
    )  # fmt: skip


def taken_by(kind: type, components: dict[str, Any]) -> dict[str, Any]:
    """Return the components that a class takes."""
    takes = inspect.signature(kind.__init__).parameters
    return {name: value for name, value in components.items() if name in takes}
