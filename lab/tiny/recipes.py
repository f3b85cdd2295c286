"""Recipes of the embedded model by name, with settings and default training length."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamingt2v.errors import RequestError
from streamingt2v.train.recipes import Recipe
from streamingt2v.train.recipes import run_recipe as run
from streamingt2v.train.task import Task

from . import base, distill, judge, memory, refiner, rival, text, vae


def _plain(task: Callable[[Any], Task]) -> Callable[[Any, Path], Task]:
    return lambda config, out: task(config)


RECIPES: dict[str, Recipe] = {
    "text": Recipe("CLIP text and vision towers and the tokenizer", text.TextConfig,
        _plain(text.TextTask), 700, 64, 1.5e-3, 0.995),
    "vae": Recipe("the autoencoder", vae.VaeConfig, _plain(vae.VaeTask), 1000, 16, 1e-3),
    "base": Recipe(
        "the text-to-video network: frames=1 first, then clips from its folder",
        base.BaseConfig, _plain(base.BaseTask), 2000, 32, 1.2e-3,
    ),
    "cam": Recipe(
        "the short-term memory on a frozen base", memory.MemoryConfig,
        lambda c, out: memory.memory_task(c, False), 1000, 4, 1e-3
    ),
    "apm": Recipe(
        "the long-term memory, from cam's folder", memory.MemoryConfig,
        lambda c, out: memory.memory_task(c, True), 500, 4, 5e-4
    ),
    "refiner": Recipe(
        "the high-resolution network of stage 3", refiner.RefinerConfig,
        _plain(refiner.RefinerTask), 800, 2, 1e-3
    ),
    "rival": Recipe("another short-term memory, to be compared with cam", rival.RivalConfig,
        _plain(rival.RivalTask), 1000, 4, 1e-3),
    "judge": Recipe(
        "the classifier of noun, scene and motion that generated clips are judged by",
        judge.JudgeConfig, _plain(judge.JudgeTask), 1200, 8, 1e-3,
    ),
    "distill": Recipe(
        "a whole model's network for fewer steps without guidance", distill.DistillConfig,
        distill.distill_task, 1500, 8, 1e-3
    ),
}  # fmt: skip


def run_recipe(
    name: str,
    out: Path,
    settings: dict[str, Any],
    loop_settings: dict[str, Any],
    stop_after: int | None = None,
) -> dict[str, float]:
    """Train a recipe into `out`, or resume it there; see `streamingt2v.train.recipes.run_recipe`."""
    batch, processes = loop_settings.get("batch", RECIPES[name].batch), int(os.environ.get("WORLD_SIZE", "1"))
    if name == "text" and batch % processes:
        raise RequestError(
            "batch",
            batch,
            f"each of {processes} processes contrasts as many samples; make it a multiple of that",
        )
    return run(RECIPES[name], out, settings, loop_settings, stop_after)
