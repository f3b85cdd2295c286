"""Toy settings of the training recipes; read what their runs wrote."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import forking

LOOP = {"batch": 2, "seed": 5, "log_every": 1, "save_every": 100, "warmup": 2, "precision": "no"}
TEXT = {"width": 32, "text_layers": 1, "vision_layers": 1, "heads": 2}


def settings(name: str, root: Path) -> dict:
    """Return toy settings of a recipe; `root` holds the folders of those before it."""
    made = {"text": root / "text", "vae": root / "vae", "base": root / "base"}
    return {
        "text": TEXT,
        "vae": {"size": 32, "channels": (16, 16, 16, 16)},
        "base": {
            "text": made["text"],
            "size": 32,
            "frames": 4,
            "image_every": 2,
            "image_batch": 1,
            "channels": (32, 64),
        },
        "cam": {**made, "size": 32, "image_tokens": 2, "encoder_steps": 1},
        "apm": {**made, "cam": root / "cam", "size": 32, "image_tokens": 2},
        "refiner": {"text": made["text"], "size": 64, "frames": 4, "channels": (16, 32), "image_batch": 2},
        "rival": {**made, "kind": "additive", "size": 32, "encoder_steps": 1},
        "judge": {"frames": 4, "width": 8, "image_batch": 3},
        "distill": {
            "model": str(root / "model"),
            "cache": root / "videos",
            "videos": 2,
            "chunks": 2,
            "rank": 2,
            "first_every": 2,
        },
    }[name]


def run_in_two_processes(words: list[str]) -> None:
    """Run Python with these words as ranks 0 and 1, with the variables that `torchrun` sets."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    processes = [
        forking.Popen(
            [sys.executable, *words], env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return all exported weights in the folder."""
    files = sorted(folder.rglob("*.safetensors"))
    assert files, f"{folder} holds no export"
    return {
        f"{path.parent.name}.{path.stem}/{key}": value
        for path in files
        for key, value in load_file(path).items()
    }


def gradients(out: Path) -> torch.Tensor:
    """Return AdamW's mean of the gradients from the checkpoint; its steps would amplify values near zero."""
    state = torch.load(out / "checkpoint.pt", weights_only=True)["optimizer"]["state"]
    return torch.cat([state[index]["exp_avg"].flatten() for index in sorted(state)])


def assert_equal_up_to_rounding(one: torch.Tensor, other: torch.Tensor) -> None:
    assert (one - other).norm() < 1e-4 * other.norm()
