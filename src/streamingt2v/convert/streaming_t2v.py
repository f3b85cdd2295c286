"""Split `streaming_t2v.ckpt` into networks (method.md: The published checkpoint).

Every key belongs to a part, is known to be unneeded, or is reported in an error.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from ..errors import ModelError
from .openclip import rename_vision

PREFIXES = {
    "base_model.": "unet",
    "unet.": "cam",
    "resampler.": "image_tokens",
    "image_encoder.model.": "image_encoder",
    "text_encoder.": "text_encoder",
    "vae.": "vae",
}
"""Prefix of published names -> part. Upstream calls CAM `unet` and the base network `base_model`."""

_LEGACY_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_LEGACY_NAME = re.compile(r"(.*\.attentions\.\d+\.)(query|key|value|proj_attn)(\.\w+)")


def split(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Return the parts (values of `PREFIXES`) in their classes' names; raise ModelError for unknown keys."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    unknown = []
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            unknown.append(name)
        else:
            parts.setdefault(PREFIXES[prefix], {})[name.removeprefix(prefix)] = tensor
    if "image_encoder" in parts:
        parts["image_encoder"], strangers = rename_vision(parts["image_encoder"])
        unknown += [f"image_encoder.model.{name}" for name in strangers]
    if "vae" in parts:
        parts["vae"] = {_current_name(name): tensor for name, tensor in parts["vae"].items()}
    # a table 0, 1, 2, ... that older versions of transformers saved
    parts.get("text_encoder", {}).pop("text_model.embeddings.position_ids", None)
    refuse_unknown(unknown)
    return parts


def refuse_unknown(names: Sequence[str]) -> None:
    """Raise ModelError listing unknown checkpoint keys, if there are any."""
    if names:
        raise ModelError(f"unknown keys in the checkpoint: {_some(names)}")


def load_part(module: nn.Module, tensors: Mapping[str, torch.Tensor], part: str) -> None:
    """Load a part's tensors into its module; errors as in `fitting`."""
    module.load_state_dict(fitting(module, tensors, part))


def fitting(module: nn.Module, tensors: Mapping[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """Return a part's tensors under its module's names; raise ModelError if any does not fit.

    The module may be on the meta device.
    """
    own = module.state_dict()
    if part == "text_encoder" and not any(name.startswith("text_model.") for name in own):
        # checkpoints keep a level that transformers has dropped
        tensors = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    problems = {
        "missing": [name for name in own if name not in tensors],
        "unknown": [name for name in tensors if name not in own],
        "of another shape": [
            name for name in tensors if name in own and tensors[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        raise ModelError(
            f"{part} does not fit: "
            + "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)
        )
    return dict(tensors)


def _current_name(name: str) -> str:
    """Return today's name of an attention weight saved by an older diffusers."""
    match = _LEGACY_NAME.fullmatch(name)
    return f"{match[1]}{_LEGACY_ATTENTION[match[2]]}{match[3]}" if match else name


def _some(names: Iterable[str], show: int = 5) -> str:
    listed = list(names)
    more = f" and {len(listed) - show} more" if len(listed) > show else ""
    return ", ".join(listed[:show]) + more
