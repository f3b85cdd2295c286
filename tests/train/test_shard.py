"""Two processes with a part of the weights each (`shard`): the steps of one, half of the numbers, and one format of checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from streamingt2v.errors import ModelError
from streamingt2v.train import recipes

LOOP = {"batch": 3, "seed": 5, "log_every": 1, "save_every": 100, "warmup": 2, "precision": "no", "clip": 0.05}
STEPS = 4
NAMES = ("text", "base", "cam", "apm")

PROCESS = """
import json, sys
from pathlib import Path
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from streamingt2v.train import recipes

def size(tensors):
    return sum(t.numel() for t in tensors)

def count(optimizer, *_):
    own = optimizer.param_groups[0]["params"]
    found.update(own=size(own), gradients=size(p.grad for p in own if p.grad is not None),
                 moments=size(v for p in own for v in optimizer.state[p].values() if v.ndim))

register_optimizer_step_post_hook(count)
root, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
for name, out, settings, loop, stop_after in jobs:
    found = {}
    recipes.run_recipe(name, Path(out), {k: Path(v) if isinstance(v, str) and "/" in v else v for k, v in settings.items()}, loop, stop_after)
    (root / f"{name}.{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
"""


def settings(name: str, root: Path) -> dict:
    """Toy settings of a recipe, the folders of those before it in `root`."""
    made = {part: root / part for part in ("text", "vae", "base")}
    return {
        "text": {"width": 32, "text_layers": 1, "vision_layers": 1, "heads": 2},
        "vae": {"channels": (16, 16, 16, 16)},
        "base": {"text": made["text"], "frames": 4, "image_every": 2, "image_batch": 1, "channels": (32, 64)},
        "cam": {**made, "frames": 10, "image_tokens": 2, "encoder_steps": 2},
        "apm": {**made, "frames": 10, "cam": root / "cam", "image_tokens": 2},
    }[name]
