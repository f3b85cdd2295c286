"""The judging protocol: test clips of the judge, prompts for models, judged frames of a video.

Seeds: training draws others, see `train.data`; 77 is for the judge's test, 78 for prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from streamingt2v.video.reader import Frame

from ..world import clip, vocabulary
from .judge import Judge
from .statistics import Estimate, share

WINDOW = 16
"""Frames that the judge sees."""

KINDS = ("noun", "scene", "motion")
TRUTH_SEED, PROMPT_SEED = 77, 78


def hits(judge: Judge, frames_THWC: np.ndarray, spec: clip.ClipSpec) -> dict[str, bool]:
    """Return whether the judge recognises the spec's noun, scene and motion."""
    return {kind: seen == getattr(spec, kind) for kind, seen in judge.judge(frames_THWC)._asdict().items()}


def accuracy(judge: Judge, nouns: Sequence[str], count: int) -> dict[str, Estimate]:
    """Return the judge's accuracy on `count` true clips: by "noun", "scene" and "motion"."""
    specs = [clip.sample((TRUTH_SEED, i), tuple(nouns)) for i in range(count)]
    rows = [hits(judge, clip.render(spec, clip.frame_times(WINDOW))[0], spec) for spec in specs]
    return shares(rows)


def shares(rows: Sequence[Mapping[str, bool]]) -> dict[str, Estimate]:
    """Return the share of hits by name."""
    return {name: share(sum(row[name] for row in rows), len(rows)) for name in rows[0]}


def prompts(nouns: Sequence[str], count: int, held_out: bool = True) -> list[clip.ClipSpec]:
    """Return clips whose captions are the prompts; nouns, scenes and motions rotate, so none is left to
    chance.

    held_out: use words or word orders that training never uses.
    """
    scenes, motions = vocabulary.SCENES, vocabulary.MOTIONS
    return [
        clip.sample(
            (PROMPT_SEED, i),
            held_out=held_out,
            noun=nouns[i % len(nouns)],
            scene=scenes[(i + i // len(scenes)) % len(scenes)].name,
            motion=motions[i % len(motions)].name,
        )
        for i in range(count)
    ]


class Windows:
    """Judged frames of a stream: its first and last `WINDOW`. Holds two windows, whatever the length."""

    def __init__(self) -> None:
        self._first: list[Frame] = []
        self._last: list[Frame] = []

    def add(self, frame_HWC: Frame) -> None:
        """Add the next frame."""
        if len(self._first) < WINDOW:
            self._first.append(frame_HWC)
        self._last = [*self._last[-WINDOW + 1 :], frame_HWC]

    @property
    def first(self) -> np.ndarray:
        """Return the first window, uint8 (T, H, W, 3)."""
        return np.stack(self._first)

    @property
    def last(self) -> np.ndarray:
        """Return the last window, uint8 (T, H, W, 3)."""
        return np.stack(self._last)
