"""Recipe `distill`: the same network in fewer steps and without guidance (after Salimans and Ho 2022, Meng et al. 2023).

The teacher is a whole model with its own sampler. It makes long videos; from the latents at the beginning of one of the student's steps,
the student learns to reach in this one step, with one prediction, where the teacher's several guided steps lead. So it learns on what
long videos really look like, far from their beginning too, and for first and later chunks alike. What it learns is a small change of the
teacher's weights (`checkpoints.lowrank`), which fits beside them in the model folder.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import nn

from streamingt2v.backbones.modelscope import ModelScopeBackbone
from streamingt2v.checkpoints.distilled import FAST, Distilled, write_changes
from streamingt2v.config.model import FastConfig
from streamingt2v.models.apm import preprocess
from streamingt2v.models.lowrank import attach, changes
from streamingt2v.samplers.denoise import denoise, final
from streamingt2v.train.task import Batch

from . import diffusion
from .teacher import Lessons, Passage, Teacher


@dataclass(frozen=True)
class DistillConfig:
    """`model`: folder of the teacher, with all its parts. `cache`: folder for the teacher's videos, which any number of runs may share.

    `student_steps`: of a chunk; they divide the teacher's. `rank`: of the changes. `videos`, `chunks`: how many, how long; `still`: the
    share that goes on from a picture. `together`: how many of them the teacher makes at once, all before the first step; 1: each when it is
    first drawn. `seed_every`: one step in so many is about first chunks.
    """

    model: Path
    cache: Path
    nouns: int = 12
    student_steps: int = 4
    rank: int = 8
    videos: int = 120
    chunks: int = 6
    still: float = 0.1
    together: int = 1
    seed_every: int = 4


class DistillModule(nn.Module):
    """The student's network and CAM, and the teacher's frozen encoders, under one forward."""

    def __init__(self, teacher: ModelScopeBackbone, text: nn.Module, rank: int):
        super().__init__()
        self.unet, self.cam = copy.deepcopy(teacher.unet), copy.deepcopy(teacher.cam)
        attach(self.unet, rank)
        attach(self.cam, rank)
        parts = {"text": text, "vision": teacher.image_encoder, "tokens": teacher.image_tokens}
        self.frozen: Any = nn.ModuleDict(parts).requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            text_BLD = self.frozen["text"](batch["ids"]).last_hidden_state
        tokens, features = None, None
        if "window" in batch:
            tokens = self._image_tokens(batch["anchor"])
            features = self.cam(batch["noisy"], batch["t"], text_BLD, self.cam.encode_frames(batch["window"]))
        predicted = self.unet(batch["noisy"], batch["t"], text_BLD, tokens, features)
        return {"loss": ((predicted.float() - batch["velocity"]) ** 2).mean((1, 2, 3, 4))}

    @torch.no_grad()
    def _image_tokens(self, anchor_BCHW: torch.Tensor) -> torch.Tensor:
        vision = self.frozen["vision"]
        return self.frozen["tokens"](vision(pixel_values=preprocess(anchor_BCHW, vision.config.image_size)).image_embeds)


class DistillTask:
    """See `loop.Task`."""

    def __init__(self, config: DistillConfig):
        self.config = config
        lessons = Lessons(config.student_steps, config.nouns, config.chunks, config.still)
        self.teacher = Teacher(config.model, lessons, config.cache, config.together)
        self.module = DistillModule(self.teacher.backbone, copy.deepcopy(self.teacher.text.encoder), config.rank)
        self.teacher.scheduler.set_timesteps(config.student_steps)
        self._prepared = False

    def batch_size(self, step: int, batch: int) -> int:
        return batch

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        if self.config.together > 1 and not self._prepared:
            self.teacher.prepare(range(self.config.videos))
            self._prepared = True
        seeds = step % self.config.seed_every == 0
        passages = [self._passage(rng, seeds) for rng in rngs]
        places = [int(rng.integers(self.config.student_steps)) for rng in rngs]
        noisy = torch.stack([p.nodes[k] for p, k in zip(passages, places, strict=True)])
        reached = torch.stack([p.nodes[k + 1] for p, k in zip(passages, places, strict=True)])
        t = self.teacher.scheduler.timesteps[torch.tensor(places)]
        batch = {"noisy": noisy, "t": t, "velocity": velocity_to(noisy, reached, t, self.teacher.scheduler)}
        batch["ids"] = self.teacher.text.token_ids([p.prompt for p in passages])
        if not seeds:
            batch |= {"window": _stacked(passages, "window_TCHW"), "anchor": _stacked(passages, "anchor_CHW")}
        return batch

    def _passage(self, rng: np.random.Generator, seeds: bool) -> Passage:
        """One of any video: a first chunk, or a later one."""
        while True:
            video = self.teacher.video(int(rng.integers(self.config.videos)))
            fitting = [passage for passage in video if (passage.window_TCHW is None) == seeds]
            if fitting:  # a video that begins with a picture has no first chunk
                return fitting[rng.integers(len(fitting))]

    def export(self, folder: Path) -> None:
        """The folder `fast` and the `model.json` that names it: copied into the teacher's folder they make it a model with both."""
        replace(self.teacher.pipe.config, fast=FastConfig(self.config.student_steps)).save(folder)
        write_changes(folder / FAST, self.teacher.scheduler, changes(self.module.unet), changes(self.module.cam))

    def sample(self, folder: Path, step: int) -> None:
        """Two chunks each of videos that are not learned from, as the teacher made them, above the student's of the same noise."""
        student = self._student()
        rows = []
        for number in range(self.config.videos, self.config.videos + 2):
            for passage in self.teacher.video(number)[:2]:
                rows += [self.teacher.backbone.decode(passage.nodes[-1:]), student_chunk(student, self.teacher, passage)]
        diffusion.save_sheet(diffusion.to_uint8(torch.stack(rows)), folder / "samples" / f"{step:06d}.png")

    def _student(self) -> ModelScopeBackbone:
        learned = ({name: value.clone().cpu() for name, value in changes(net).items()} for net in (self.module.unet, self.module.cam))
        return Distilled(self.teacher.backbone, self.teacher.scheduler, *learned).backbone


def velocity_to(noisy_BCTHW: torch.Tensor, reached_BCTHW: torch.Tensor, t: torch.Tensor, scheduler: DDIMScheduler) -> torch.Tensor:
    """The v-prediction at timesteps t (B,) with which one step of the scheduler leads from `noisy` to exactly `reached`.

    With signal a and noise s of the two levels, a step gives (a' a + s' s) x + (s' a - a' s) v.
    """
    before = scheduler.alphas_cumprod[t]
    following = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    after = torch.where(following >= 0, scheduler.alphas_cumprod[following.clamp(min=0)], scheduler.final_alpha_cumprod)
    signal, noise, signal_after, noise_after = (x.sqrt().view(-1, 1, 1, 1, 1) for x in (before, 1 - before, after, 1 - after))
    kept = signal_after * signal + noise_after * noise
    return (reached_BCTHW - kept * noisy_BCTHW) / (noise_after * signal - signal_after * noise)


def student_chunk(student: ModelScopeBackbone, teacher: Teacher, passage: Passage) -> torch.Tensor:
    """Frames (T, 3, H, W) that the student makes of what a passage was made from."""
    condition = student.condition(teacher.text(passage.prompt), passage.anchor_CHW)
    predict = student.predictor(condition, passage.window_TCHW, scale=1.0, rescale=0.0)
    noise_BCTHW = passage.nodes[:1].to(student.device)
    return student.decode(final(denoise(predict, noise_BCTHW, teacher.scheduler, teacher.lessons.steps)))


def _stacked(passages: list[Passage], name: str) -> torch.Tensor:
    return torch.stack([getattr(passage, name) for passage in passages])
