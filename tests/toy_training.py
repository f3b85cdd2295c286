"""Tasks, clips and settings of toy trainings; read what their runs wrote."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import forking
from lab.proof.sampling import make_scheduler
from streamingt2v.train import objective
from streamingt2v.train.recipes import Recipe
from streamingt2v.train.task import Batch
from streamingt2v.video.writer import write_video
from toy import LATENT_CHANNELS, build_unet

LOOP = {"batch": 2, "seed": 5, "log_every": 1, "save_every": 100, "warmup": 2, "precision": "no"}
OWN = {
    "cam": {"reach": 4},
    "apm": {"reach": 4, "drift": 0.1},
    "distill": {"videos": 1, "chunks": 2, "student_steps": 2, "still": 0.0},
}
"""Toy settings of the package's recipes."""


@dataclass(frozen=True)
class WholeConfig:
    """images: batch size of every second step, whose samples are single images. frames: of the others."""

    images: int = 1
    frames: int = 4


class WholeModule(nn.Module):
    """A base of which everything is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.scheduler = build_unet((32, 64)), make_scheduler()

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        noisy, velocity, t = objective.noised(batch["latents"], self.scheduler, batch["noise"])
        predicted = self.unet(noisy, t, batch["text"]).sample
        weight = torch.ones_like(noisy[:, 0])
        return {"loss": objective.denoising_loss(predicted, velocity, t, weight, self.scheduler)}


class WholeTask:
    """See `train.task.Task`: batches of different size, as recipes may have."""

    def __init__(self, config: WholeConfig):
        self.config, self.module = config, WholeModule()

    def batch_size(self, step: int, batch: int) -> int:
        return batch if step % 2 else self.config.images

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        frames = self.config.frames if step % 2 else 1
        latents = np.stack([rng.normal(size=(LATENT_CHANNELS, frames, 4, 4)) for rng in rngs])
        text = np.stack([rng.normal(size=(5, 32)) for rng in rngs])
        return {"latents": torch.from_numpy(latents).float(), "text": torch.from_numpy(text).float()}

    def export(self, folder: Path) -> None:
        self.module.unet.save_pretrained(folder / "unet")

    @torch.no_grad()
    def sample(self, folder: Path, step: int) -> None:
        """Write what the network makes of noise."""
        batch = self.batch([np.random.default_rng(0)], 1)
        (folder / "samples").mkdir(exist_ok=True)
        made = self.module.unet(batch["latents"], 500, batch["text"]).sample
        save_file({"made": made.contiguous()}, folder / "samples" / f"{step:06d}")


WHOLE = Recipe("all of a base", WholeConfig, lambda config, out: WholeTask(config), 2, 2, 1e-3)


def write_clips(folder: Path) -> Path:
    """Write two captioned videos of three seconds."""
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (24, 8, 8, 3), np.uint8)
        frames = (np.kron(frame, np.ones((4, 4, 1), np.uint8)) for frame in noise)
        write_video(folder / f"{number}.mp4", frames, 8)
        (folder / f"{number}.txt").write_text(f"a cat running, take {number}")
    return folder


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
