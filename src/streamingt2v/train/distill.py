"""Distillation: the same network with fewer steps and no guidance (Salimans and Ho 2022, Meng et al. 2023).

The teacher, a whole model with its own sampler, generates long videos. The student learns to cover several
guided teacher steps in one unguided step. It trains on first and later chunks of real long videos, as a
low-rank change of the teacher's weights (`models.lowrank`) that is merged on export.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import nn

from ..backbones.modelscope import ModelScopeBackbone
from ..config import ModelConfig
from ..models.apm import preprocess
from ..models.lowrank import attach, changes, merge
from ..samplers.denoise import denoise, final
from ..samplers.guidance import Guidance
from ..video.piece import to_uint8
from .data import ClipDataset
from .folder import Source, write_model
from .sheet import save_sheet
from .task import Batch
from .teacher import Lessons, Passage, Teacher


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a student's training.

    student_steps: per chunk; must divide the teacher's. rank: of the weight change. videos, chunks: number
    and length of the videos. still: share of videos that start from an image. together: above 1, generate all
    videos before the first step in batches of this size; 1: each when first drawn. first_every: every Nth
    step trains first chunks. cache: folder for the videos.
    """

    cache: Path | None = None
    student_steps: int = 4
    rank: int = 8
    videos: int = 120
    chunks: int = 6
    still: float = 0.1
    together: int = 1
    first_every: int = 4


class DistillModule(nn.Module):
    """The student's network and CAM, and the teacher's frozen encoders, in one forward."""

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
        return self.frozen["tokens"](
            vision(pixel_values=preprocess(anchor_BCHW, vision.config.image_size)).image_embeds
        )


class DistillTask:
    """See `task.Task`. source: the teacher's folder. dataset: captions serve as prompts."""

    def __init__(self, source: Source, dataset: ClipDataset, config: Settings):
        assert config.cache is not None, "the recipe names a folder"
        self.config, self.source = config, source
        lessons = Lessons(config.student_steps, config.chunks, config.still)
        self.teacher = Teacher(source.folder, dataset, lessons, config.cache, config.together)
        self.module: Any = DistillModule(
            self.teacher.backbone, copy.deepcopy(self.teacher.text.encoder), config.rank
        )
        self.teacher.scheduler.set_timesteps(config.student_steps)
        self._prepared = False

    def batch_size(self, step: int, batch: int) -> int:
        return batch

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        if self.config.together > 1 and not self._prepared:
            self.teacher.prepare(range(self.config.videos))
            self._prepared = True
        first = step % self.config.first_every == 0
        passages = [self._passage(rng, first) for rng in rngs]
        places = [int(rng.integers(self.config.student_steps)) for rng in rngs]
        noisy = torch.stack([p.nodes[k] for p, k in zip(passages, places, strict=True)])
        reached = torch.stack([p.nodes[k + 1] for p, k in zip(passages, places, strict=True)])
        t = self.teacher.scheduler.timesteps[torch.tensor(places)]
        batch = {"noisy": noisy, "t": t, "velocity": velocity_to(noisy, reached, t, self.teacher.scheduler)}
        batch["ids"] = self.teacher.text.token_ids([p.prompt for p in passages])
        if not first:
            batch |= {"window": _stacked(passages, "window_TCHW"), "anchor": _stacked(passages, "anchor_CHW")}
        return batch

    def _passage(self, rng: np.random.Generator, first: bool) -> Passage:
        """Draw a first or a later chunk of a random video."""
        while True:
            video = self.teacher.video(int(rng.integers(self.config.videos)))
            fitting = [passage for passage in video if (passage.window_TCHW is None) == first]
            if fitting:  # a video that starts from an image has no first chunk
                return fitting[rng.integers(len(fitting))]

    def export(self, folder: Path) -> None:
        """Write the student as a complete model folder."""
        student = self._student()
        parts = {"unet": student.unet, "cam": student.cam, "scheduler": self.teacher.scheduler}
        write_model(self.source, folder, student_config(self.source.config, self.config.student_steps), parts)

    def sample(self, folder: Path, step: int) -> None:
        """Draw two chunks each of unseen videos: the teacher's above the student's, from the same noise."""
        student = self._student()
        rows = []
        for number in range(self.config.videos, self.config.videos + 2):
            for passage in self.teacher.video(number)[:2]:
                rows += [
                    self.teacher.backbone.decode(passage.nodes[-1:]),
                    student_chunk(student, self.teacher, passage),
                ]
        save_sheet(to_uint8(torch.stack(rows)), folder / "samples" / f"{step:06d}.png")

    def _student(self) -> ModelScopeBackbone:
        own = self.teacher.backbone
        unet, cam = copy.deepcopy(own.unet), copy.deepcopy(own.cam)
        merge(unet, changes(self.module.unet))
        merge(cam, changes(self.module.cam))
        return ModelScopeBackbone(own.vae, unet, cam, own.image_encoder, own.image_tokens, own.device)


def student_config(teacher: ModelConfig, steps: int) -> ModelConfig:
    """Return the student's `model.json`: this many plain steps, no guidance."""
    extend = replace(
        teacher.extend,
        steps=steps,
        guidance_scale=1.0,
        guidance_rescale=0.0,
        eta=0.0,
        sigmas=(),
        time_guidance=0.0,
    )
    return replace(teacher, extend=extend, guidance=False)


def velocity_to(
    noisy_BCTHW: torch.Tensor, reached_BCTHW: torch.Tensor, t: torch.Tensor, scheduler: DDIMScheduler
) -> torch.Tensor:
    """Return the v-prediction at t (B,) that leads from `noisy` exactly to `reached` in one step.

    With signal a and noise s of the two levels, a step gives (a' a + s' s) x + (s' a - a' s) v.
    """
    before = scheduler.alphas_cumprod[t]
    following = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    after = torch.where(
        following >= 0, scheduler.alphas_cumprod[following.clamp(min=0)], scheduler.final_alpha_cumprod
    )
    signal, noise, signal_after, noise_after = (
        x.sqrt().view(-1, 1, 1, 1, 1) for x in (before, 1 - before, after, 1 - after)
    )
    kept = signal_after * signal + noise_after * noise
    return (reached_BCTHW - kept * noisy_BCTHW) / (noise_after * signal - signal_after * noise)


def student_chunk(student: ModelScopeBackbone, teacher: Teacher, passage: Passage) -> torch.Tensor:
    """Return the student's frames (T, 3, H, W) for a passage's inputs."""
    condition = student.condition(teacher.text(passage.prompt), passage.anchor_CHW)
    predict = student.predictor(condition, passage.window_TCHW, Guidance(1.0))
    noise_BCTHW = passage.nodes[:1].to(student.device)
    return student.decode(final(denoise(predict, noise_BCTHW, teacher.scheduler, teacher.lessons.steps)))


def _stacked(passages: list[Passage], name: str) -> torch.Tensor:
    return torch.stack([getattr(passage, name) for passage in passages])
