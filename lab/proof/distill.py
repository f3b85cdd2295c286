"""Distil an assembled model to four plain steps: `streamingt2v.train.distill` on captions of the world.

python -m lab.proof.distill OUT --model DIR [--minutes 60]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lab.world2 import clip
from streamingt2v.train.data import Clip
from streamingt2v.train.distill import DistillTask, Settings
from streamingt2v.train.draws import generators
from streamingt2v.train.folder import Source

from .code import to_pixels
from .options import parser
from .run import Run, RunConfig, device_of_this_process, quick_arithmetic
from .teacher import save_undo


class WorldClips:
    """Clips of the world as a `train.data.ClipDataset`."""

    key = "world2"

    def draw(self, rng: np.random.Generator, offsets: Sequence[int], height: int, width: int) -> Clip:
        """See `ClipDataset.draw`; clips are square."""
        spec = clip.sample(int(rng.integers(2**62)))
        times = rng.uniform(0, 8) + np.array(offsets) / clip.FPS
        return Clip(to_pixels(clip.render(spec, times, height)[0]), spec.caption)


def main(words: list[str] | None = None) -> None:
    p = parser(
        model=None,
        student_steps=4,
        videos=160,
        chunks=6,
        together=1,
        rank=8,
        batch=8,
        lr=1e-3,
        steps=10**9,
        minutes=60.0,
        save_minutes=8.0,
        look_minutes=15.0,
    )
    a = p.parse_args(words)
    torch.set_num_threads(1)
    device, cache = device_of_this_process(), a.out / "teacher"
    cache.mkdir(parents=True, exist_ok=True)
    names = "student_steps videos chunks together rank".split()
    settings = Settings(cache=cache, still=0.1, **{name: getattr(a, name) for name in names})
    task = DistillTask(Source(a.model), WorldClips(), settings)
    task.module.eval().to(device)
    run = Run(RunConfig.of(a, decay=0.4, muon=False), task.module)

    def loss() -> torch.Tensor:
        with quick_arithmetic(device):  # the teacher's videos too, which are half of the cost
            batch = task.batch(generators(0, run.step, range(a.batch)), run.step)
            return task.module({name: value.to(device) for name, value in batch.items()})["loss"].mean()

    def look() -> None:
        task.export(a.out)
        save_undo(a.out / "undo.safetensors", task.module, task.teacher.backbone)

    run.go(loss, look)


if __name__ == "__main__":
    main()
