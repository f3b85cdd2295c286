"""Recipes of `train` for any clips; each is a function of its frozen config.

`run_recipe` also runs the lab's recipes for parts of the embedded model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from ..backbones.base import vae_factor
from ..checkpoints.load import load_scheduler
from ..errors import RequestError
from ..models.apm import ImageTokens
from ..models.cam import ConditionalAttentionModule
from ..models.unet3d import StreamingUNet3D
from . import distill, loop, precision
from .data import VideoFolder
from .folder import Source, write_model
from .memory import Exercise, MemoryModule, MemoryTask, Parts, Plan
from .objective import training_scheduler


@dataclass(frozen=True)
class MemoryConfig(Exercise):
    """Settings of `cam` and `apm`, with those of `memory.Exercise`.

    model: a model folder or a diffusers text-to-video pipeline. data: see `data.VideoFolder`. image_encoder:
    folder of a CLIPVisionModelWithProjection, for a pipeline without one. fresh: start with new memories
    (always, for a pipeline). image_tokens, head_dim: number of the anchor's tokens and head width of the
    mergers, for new memories. encoder_steps: None: 300 for new memories, else 0.
    """

    model: str
    data: Path
    image_encoder: Path | None = None
    fresh: bool = False
    image_tokens: int = 16
    head_dim: int = 64
    encoder_steps: int | None = None

    def plan(self, source: Source, anchored: bool) -> Plan:
        """Return the training plan for this model."""
        if self.reach < 1:
            raise RequestError("reach", self.reach, "must be 1 or more")
        own, model = source.config.extend, source.config
        new = self.fresh or not source.has_memories
        steps = (300 if new else 0) if self.encoder_steps is None else self.encoder_steps
        sizes = (model.height, model.width, own.frames, own.overlap)
        exercise = {each.name: getattr(self, each.name) for each in fields(Exercise)}
        return Plan(anchored, *sizes, own.mixed_noise, steps, **exercise)


@dataclass(frozen=True, kw_only=True)
class DistillConfig(distill.Settings):
    """Settings of `distill`: the teacher's folder, clips whose captions are prompts, and the rest.

    cache: may be shared by several runs; None: inside the output folder.
    """

    model: str
    data: Path


@dataclass(frozen=True)
class Recipe:
    """One kind of training.

    config: dataclass of its settings. task: makes a `task.Task` from one and the output folder. The rest: the
    loop's defaults.
    """

    help: str
    config: type
    task: Callable[[Any, Path], loop.Task]
    steps: int
    batch: int
    lr: float
    ema: float = 0.998


def run_recipe(
    recipe: Recipe,
    out: Path,
    settings: Mapping[str, Any],
    loop_settings: Mapping[str, Any],
    stop_after: int | None = None,
) -> dict[str, float]:
    """Train a recipe into `out`, or resume it there; return the last metrics.

    settings, loop_settings: fields of its config and of LoopConfig by name. RequestError for invalid values.
    """
    for setting, least in (("workers", 0), ("repeat", 1), ("batch", 1), ("steps", 1)):
        if loop_settings.get(setting, least) < least:
            raise RequestError(setting, loop_settings[setting], f"must be {least} or more")
    defaults = {"steps": recipe.steps, "batch": recipe.batch, "lr": recipe.lr, "ema": recipe.ema}
    config = loop.LoopConfig(out=out, **(defaults | dict(loop_settings)))
    precision.check(config.precision)
    if issubclass(recipe.config, distill.Settings) and config.workers:
        raise RequestError("workers", config.workers, "the teacher works beside the student; leave it out")
    torch.manual_seed(config.seed)  # initial weights
    return loop.run(recipe.task(recipe.config(**settings), out), config, stop_after)


def _memory_task(config: MemoryConfig, anchored: bool) -> MemoryTask:
    source = Source(config.model)
    plan = config.plan(source, anchored)
    clips = VideoFolder(config.data, source.config.fps, plan.span / source.config.fps)
    if clips.short:
        count = f"{len(clips.short)} of {len(clips.short) + len(clips.videos)} videos"
        print(f"{count} are too short and left out: {clips.short[0].name} ...")
    parts = _parts(source, config, anchored)
    vision = source.vision(config.image_encoder)

    def save(module: MemoryModule, out: Path) -> None:
        trained = {"unet": module.unet, "cam": module.cam, "image_tokens": module.tokens}
        write_model(
            source, out, source.config, trained | ({"image_encoder": vision} if config.image_encoder else {})
        )

    return MemoryTask(parts, plan, clips, save)


def _parts(source: Source, config: MemoryConfig, anchored: bool) -> Parts:
    text, vae, vision = source.text(), source.vae(), source.vision(config.image_encoder)
    if source.has_memories and not config.fresh:
        unet = source.part("unet", StreamingUNet3D.from_pretrained)
        cam = source.part("cam", ConditionalAttentionModule.from_pretrained)
        tokens = source.part("image_tokens", ImageTokens.from_pretrained)
    else:
        base = source.base()
        width, length = text.encoder.config.hidden_size, text.tokenizer.model_max_length
        unet = StreamingUNet3D.from_base(base, config.head_dim, length, config.image_tokens)
        cam = ConditionalAttentionModule.from_base(base, _frame_encoder(vae_factor(vae)))
        tokens = ImageTokens(
            vision.config.projection_dim, vision.config.hidden_size, config.image_tokens, width
        )
    scheduler = training_scheduler(load_scheduler(source.folder / "scheduler"))
    return Parts(
        unet, cam, tokens, text.encoder, text.token_ids, vae, scheduler, vision if anchored else None
    )


def _frame_encoder(factor: int) -> tuple[int, ...]:
    """Return CAM's published frame encoder widths, as many as halve the image `factor` times."""
    widths = (32, 96, 256, 512)
    halvings = factor.bit_length() - 1
    more = halvings + 1 - len(widths)
    return widths[: halvings + 1] if more <= 0 else widths + (widths[-1],) * more


def _distill_task(config: DistillConfig, out: Path) -> distill.DistillTask:
    source = Source(config.model)
    cache = config.cache or out / "teacher"
    cache.mkdir(parents=True, exist_ok=True)
    clips = VideoFolder(config.data, source.config.fps, 1 / source.config.fps)
    return distill.DistillTask(source, clips, replace(config, cache=cache))


RECIPES: dict[str, Recipe] = {
    "cam": Recipe(
        "the short-term memory, on a frozen base",
        MemoryConfig,
        lambda c, out: _memory_task(c, False),
        1000,
        4,
        1e-4,
    ),
    "apm": Recipe(
        "both memories, on a frozen base", MemoryConfig, lambda c, out: _memory_task(c, True), 500, 4, 1e-4
    ),
    "distill": Recipe(
        "the same network for fewer steps and without guidance", DistillConfig, _distill_task, 1500, 8, 1e-3
    ),
}
