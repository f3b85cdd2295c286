"""The teacher's videos: chunks of long videos, with the latents on the way to each.

A video depends on its number only. Videos are cached in a folder: generating one takes as long as many
training steps.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler

from ..backbones.modelscope import ModelScopeBackbone
from ..backbones.text import TextEncoder
from ..checkpoints.fingerprint import fingerprint
from ..durable import write_unsynced
from ..errors import RequestError
from ..pipeline import LongVideoPipeline
from ..runs.state import pack_state, unpack_state
from ..samplers.noise import mixed_noise
from ..stages.extend import ExtendStage
from ..stages.memory import StreamMemory
from ..types import TextCond
from .data import Clip, ClipDataset

KEPT = 1024
"""Videos kept in memory; 0.7 MB per chunk for the included model."""


@dataclass(frozen=True)
class Passage:
    """One chunk: its inputs and its latents at every node, (S + 1, C, T, h, w) from noise to the end.

    window_TCHW, anchor_CHW: None for a first chunk.
    """

    prompt: str
    nodes: torch.Tensor
    window_TCHW: torch.Tensor | None = None
    anchor_CHW: torch.Tensor | None = None


@dataclass(frozen=True)
class Lessons:
    """The teacher's videos: `chunks` each; a share `still` of them starts from an image.

    steps: the student's; latents are kept where these end. RequestError for values that leave no first or no
    later chunks.
    """

    steps: int
    chunks: int
    still: float

    def __post_init__(self) -> None:
        if self.chunks < 2:
            raise RequestError("chunks", self.chunks, "must be 2 or more, for first and later ones")
        if not 0 <= self.still < 1:
            fix = "must be 0 or more and below 1; a video that begins with an image has no first chunk"
            raise RequestError("still", self.still, fix)


class Teacher:
    """A model folder with its own sampler, steps and guidance.

    dataset: captions are prompts, frames are the first images. cache: folder for videos; several teachers may
    share it. together: videos per batch in `prepare`. RequestError for a sampler that a student of this many
    steps cannot follow, or together < 1.
    """

    def __init__(self, model: Path, dataset: ClipDataset, lessons: Lessons, cache: Path, together: int = 1):
        if together < 1:
            raise RequestError("together", together, "must be 1 or more")
        self.dataset, self.lessons, self.cache, self.together = dataset, lessons, cache, together
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        self.pipe = LongVideoPipeline.from_pretrained(model, str(device))
        self.scheduler = student_scheduler(self.pipe.components.scheduler)
        self.kept = _nodes_of(self.pipe, self.scheduler, lessons.steps)
        self.video = lru_cache(maxsize=KEPT)(self._video)
        """Passages of a video by number; generated unless cached. The last few stay in memory."""
        self._key = hashlib.sha256(f"{fingerprint(model)} {dataset.key} {lessons}".encode()).hexdigest()[:12]

    @property
    def text(self) -> TextEncoder:
        """The model's text encoder."""
        text = self.pipe.components.text
        assert isinstance(text, TextEncoder), "a model on this backbone reads text"
        return text

    @property
    def backbone(self) -> ModelScopeBackbone:
        """The model's networks."""
        backbone = self.pipe.components.backbone
        assert isinstance(backbone, ModelScopeBackbone), "checked when the teacher was made"
        return backbone

    def _video(self, number: int) -> list[Passage]:
        if not self._path(number).is_file():
            self._make([number])
        return _unpacked(unpack_state(self._path(number).read_bytes()))

    def prepare(self, numbers: Iterable[int]) -> None:
        """Generate the missing ones of these videos, `together` at a time."""
        missing = [number for number in numbers if not self._path(number).is_file()]
        for images in (False, True):
            alike = [number for number in missing if self._begins_with_image(number) == images]
            for first in range(0, len(alike), self.together):
                self._make(alike[first : first + self.together])

    def _path(self, number: int) -> Path:
        return self.cache / f"{self._key}-{number:05d}.safetensors"

    def _begins_with_image(self, number: int) -> bool:
        return int((number + 1) * self.lessons.still) > int(number * self.lessons.still)

    def _make(self, numbers: list[int]) -> None:
        """Generate videos, all with or all without a first image, as one batch; write them to the cache."""
        device = self.backbone.device
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            chunks = list(self._chunks(numbers))
        for place, number in enumerate(numbers):
            write_unsynced(self._path(number), pack_state(_packed([chunk[place] for chunk in chunks])))

    def _chunks(self, numbers: list[int]) -> Iterator[list[Passage]]:
        """Yield the next passage of every video, chunk by chunk."""
        clips, overlap = [self._clip(number) for number in numbers], self.pipe.config.extend.overlap
        prompts = [clip.caption for clip in clips]
        texts = [self.text(prompt) for prompt in prompts]
        text = TextCond(
            *(torch.cat([getattr(one, name) for one in texts]) for name in ("positive_BLD", "negative_BLD"))
        )
        if self._begins_with_image(numbers[0]):
            frames = [clip.frames_TCHW for clip in clips]
        else:
            nodes = self._nodes(numbers, self.backbone.condition(text, None), None, 0)
            yield [Passage(prompt, own) for prompt, own in zip(prompts, nodes, strict=True)]
            frames = [self._decode(own) for own in nodes]
        memories = [StreamMemory.start(of_one, overlap) for of_one in frames]
        condition = self.backbone.condition(text, torch.stack([memory.anchor_CHW for memory in memories]))
        for _ in range(1, self.lessons.chunks):
            windows_BTCHW = torch.stack([memory.window_TCHW for memory in memories])
            nodes = self._nodes(numbers, condition, windows_BTCHW, memories[0].position)
            yield [
                Passage(prompt, own, memory.window_TCHW, memory.anchor_CHW)
                for prompt, own, memory in zip(prompts, nodes, memories, strict=True)
            ]
            memories = [
                memory.advance(self._decode(own, overlap))
                for memory, own in zip(memories, nodes, strict=True)
            ]

    def _clip(self, number: int) -> Clip:
        return self.dataset.draw(
            np.random.default_rng([11, number]), [0], self.pipe.config.height, self.pipe.config.width
        )

    def _decode(self, nodes: torch.Tensor, skip: int = 0) -> torch.Tensor:
        return self.backbone.decode(nodes[-1:].to(self.backbone.device), skip)

    def _nodes(
        self, numbers: list[int], condition: Any, windows_BTCHW: torch.Tensor | None, start: int
    ) -> list[torch.Tensor]:
        """Return the nodes of a chunk of every video, whose noise starts at frame `start`."""
        config = self.pipe.config
        stage = ExtendStage(
            self.backbone, self.pipe.components.scheduler, config.extend, 0, (config.height, config.width)
        )
        frames = range(start, start + config.extend.frames)
        shape = self.backbone.latent_shape(config.height, config.width)

        def noise(step: int) -> torch.Tensor:
            each = [
                mixed_noise(number, "distill", frames, step, shape, config.extend.mixed_noise)
                for number in numbers
            ]
            return torch.stack(each).transpose(1, 2).to(self.backbone.device)

        after = [step.latents_BCTHW for step in stage.denoise(condition, windows_BTCHW, noise)]
        return list(torch.stack([noise(-1), *(after[index] for index in self.kept)], 1).cpu())


def student_scheduler(scheduler: Any) -> DDIMScheduler:
    """Return the student's sampler: plain steps along the teacher's noise schedule, from pure noise."""
    names = (
        "num_train_timesteps beta_start beta_end beta_schedule prediction_type rescale_betas_zero_snr".split()
    )
    shared = {name: scheduler.config[name] for name in names}
    return DDIMScheduler(
        **shared, timestep_spacing="trailing", steps_offset=1, clip_sample=False, set_alpha_to_one=True
    )


def _nodes_of(pipe: LongVideoPipeline, student: DDIMScheduler, steps: int) -> list[int]:
    """Return the teacher's steps after which a student's step ends."""
    config, scheduler = pipe.config, pipe.components.scheduler
    if not isinstance(pipe.components.backbone, ModelScopeBackbone):
        raise RequestError(
            "model", pipe.name, f"its backbone is {config.backbone}; only modelscope's can be distilled"
        )
    if config.extend.eta or scheduler.config.prediction_type != "v_prediction" or config.extend.sigmas:
        fix = "its sampler must predict v, draw no noise (extend.eta 0) and have no sigmas of its own"
        raise RequestError("model", pipe.name, fix)
    scheduler.set_timesteps(config.extend.steps)
    student.set_timesteps(steps)
    own, ends = scheduler.timesteps.tolist(), student.timesteps.tolist()
    whole = config.extend.steps % steps == 0 and student.config.num_train_timesteps % steps == 0
    if not whole or own[:: config.extend.steps // steps] != ends:
        fix = "give a number that divides them and the noise levels evenly"
        raise RequestError(
            "student_steps", steps, f"the model takes {config.extend.steps} steps, at {own}; {fix}"
        )
    stride = config.extend.steps // steps
    return list(range(stride - 1, config.extend.steps, stride))


def _packed(passages: list[Passage]) -> dict[str, Any]:
    packed: dict[str, Any] = {"prompts": [p.prompt for p in passages]}
    for index, passage in enumerate(passages):
        for name in ("nodes", "window_TCHW", "anchor_CHW"):
            if (value := getattr(passage, name)) is not None:
                packed[f"{index}.{name}"] = value
    return packed


def _unpacked(packed: dict[str, Any]) -> list[Passage]:
    return [
        Passage(
            prompt,
            packed[f"{index}.nodes"],
            packed.get(f"{index}.window_TCHW"),
            packed.get(f"{index}.anchor_CHW"),
        )
        for index, prompt in enumerate(packed["prompts"])
    ]
