"""Recipe `distill` on the world: `streamingt2v.train.distill` with the world's captions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from streamingt2v.train import distill
from streamingt2v.train.folder import Source

from . import data


@dataclass(frozen=True, kw_only=True)
class DistillConfig(distill.Settings):
    """model: the teacher's folder. nouns: number of the world's in its videos. The rest:
    `train.distill.Settings`.
    """

    model: str
    nouns: int = 12


def distill_task(config: DistillConfig, out: Path) -> distill.DistillTask:
    """Build the task; videos are cached in the output folder unless `cache` is set."""
    cache = config.cache or out / "teacher"
    cache.mkdir(parents=True, exist_ok=True)
    return distill.DistillTask(
        Source(config.model), data.WorldClips(data.noun_names(config.nouns)), replace(config, cache=cache)
    )
