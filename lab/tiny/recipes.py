"""All recipes by name: what each trains, its settings, and how much by default. A run is a function of these."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from streamingt2v.errors import RequestError
from streamingt2v.train import loop, precision

from . import base, distill, judge, memory, refiner, rival, text, vae


@dataclass(frozen=True)
class Recipe:
    """`config`: the dataclass of its settings; `task`: makes a `loop.Task` of one; the rest are the loop's defaults."""

    help: str
    config: type
    task: Callable[[Any], loop.Task]
    steps: int
    batch: int
    lr: float
    ema: float = 0.998


RECIPES: dict[str, Recipe] = {
    "text": Recipe("CLIP text and vision towers and the tokenizer", text.TextConfig, text.TextTask, 700, 64, 1.5e-3, 0.995),
    "vae": Recipe("the autoencoder", vae.VaeConfig, vae.VaeTask, 1000, 16, 1e-3),
    "base": Recipe(
        "the text-to-video network: frames=1 first, then clips from its folder", base.BaseConfig, base.BaseTask, 2000, 32, 1.2e-3
    ),
    "cam": Recipe("the short-term memory on a frozen base", memory.MemoryConfig, memory.MemoryTask, 1000, 4, 1e-3),
    "apm": Recipe("the long-term memory, from cam's folder", memory.MemoryConfig, memory.MemoryTask, 500, 4, 5e-4),
    "refiner": Recipe("the high-resolution network of stage 3", refiner.RefinerConfig, refiner.RefinerTask, 800, 2, 1e-3),
    "rival": Recipe("another short-term memory, to be compared with cam", rival.RivalConfig, rival.RivalTask, 1000, 4, 1e-3),
    "judge": Recipe(
        "the classifier of noun, scene and motion that generated clips are judged by", judge.JudgeConfig, judge.JudgeTask, 1200, 8, 1e-3
    ),
    "distill": Recipe(
        "a whole model's network for fewer steps without guidance", distill.DistillConfig, distill.DistillTask, 1500, 8, 1e-3
    ),
}


def run_recipe(
    name: str, out: Path, settings: dict[str, Any], loop_settings: dict[str, Any], stop_after: int | None = None
) -> dict[str, float]:
    """Train (or go on training) a recipe into `out`. `settings`, `loop_settings`: fields of its config and of LoopConfig by name."""
    recipe = RECIPES[name]
    if name == "apm" and settings.get("cam") is None:
        raise RequestError("cam", None, "the apm recipe goes on from a folder of the cam recipe; name it")
    if name == "apm" and settings.get("init") is not None:
        raise RequestError("init", str(settings["init"]), "the apm recipe starts from cam's folder alone; leave it out")
    if name == "cam" and settings.get("cam") is not None:
        raise RequestError("cam", str(settings["cam"]), "the cam recipe starts from the base; leave it out, or train apm")
    for setting, least in (("workers", 0), ("repeat", 1)):
        if loop_settings.get(setting, least) < least:
            raise RequestError(setting, loop_settings[setting], f"must be {least} or more")
    if name == "distill" and loop_settings.get("workers"):
        raise RequestError("workers", loop_settings["workers"], "the teacher works beside the student; leave it out")
    defaults = {"steps": recipe.steps, "batch": recipe.batch, "lr": recipe.lr, "ema": recipe.ema}
    config = loop.LoopConfig(out=out, **(defaults | loop_settings))
    precision.check(config.precision)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if name == "text" and config.batch % processes:
        raise RequestError("batch", config.batch, f"each of {processes} processes contrasts as many samples; make it a multiple of that")
    torch.manual_seed(config.seed)  # the first weights
    return loop.run(recipe.task(recipe.config(**settings)), config, stop_after)
