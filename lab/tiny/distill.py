"""Recipe `distill` on the world: `streamingt2v.train.distill` with the world's captions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from streamingt2v.train import distill
from streamingt2v.train.folder import Source

from . import data


@dataclass(frozen=True, kw_only=True)
class DistillConfig(distill.Settings):
    """Settings: model folder of the teacher, how many of the world's nouns its videos are of, and those of `train.distill.Settings`."""

    model: str
    nouns: int = 12


def distill_task(config: DistillConfig, out: Path) -> distill.DistillTask:
    """Build the task; the videos lie in the output folder unless `cache` names another."""
    cache = config.cache or out / "teacher"
    cache.mkdir(parents=True, exist_ok=True)
    return distill.DistillTask(
        Source(config.model), data.WorldClips(data.noun_names(config.nouns)), replace(config, cache=cache)
    )
