"""Rename OpenCLIP's image tower to transformers' `CLIPVisionModelWithProjection` (method.md: APM)."""

import re
from collections.abc import Mapping

import torch

TEXT_LEFTOVERS = (
    "token_embedding.weight",
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "ln_final.weight",
    "ln_final.bias",
)
"""Weights of the text tower left in the checkpoint; nothing reads them."""

_STEM = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # spelt so in transformers
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_LAYER = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.(.+?)(?:\.|_)(weight|bias)")


def rename_vision(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the renamed tensors and the unknown names; the text tower's leftovers are dropped."""
    renamed: dict[str, torch.Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        if name in _STEM:
            renamed[_STEM[name]] = tensor
        elif name == "visual.proj":
            renamed["visual_projection.weight"] = tensor.T
        elif block and block[2] == "attn.in_proj":
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"vision_model.encoder.layers.{block[1]}.self_attn.{part}_proj.{block[3]}"] = rows
        elif block and block[2] in _LAYER:
            renamed[f"vision_model.encoder.layers.{block[1]}.{_LAYER[block[2]]}.{block[3]}"] = tensor
        elif name not in TEXT_LEFTOVERS:
            unknown.append(name)
    return renamed, unknown
