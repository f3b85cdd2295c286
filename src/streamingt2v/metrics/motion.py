"""Metrics of motion: warp error, MAWE, flow score, share of motion kept, and change at the chunks' seams."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .mawe import WarpErrors
from .metric import Look, Result, mean, ratio

STILL = 0.5
"""Mean change, in 8-bit levels, below which a frame repeats the one before; encoding changes more."""


BESIDE = 2
"""Pairs of frames on each side of a border that its change is compared with."""


@dataclass
class _Flowing:
    """Collect warp error and motion of every frame; the first frame's are NaN."""

    errors: list[float] = field(default_factory=list)
    motions: list[float] = field(default_factory=list)

    def update(self, look: Look) -> None:
        error, motion = look.warp
        self.errors.append(error)
        self.motions.append(motion)


class Mawe(_Flowing):
    """Compute `mawe`, mean warp error / (coeff * mean motion), and `mawe_published`, a mean of ratios."""

    def result(self) -> Result:
        if len(self.errors) < 2:
            return Result({"mawe": float("nan"), "mawe_published": float("nan")})
        pairs = WarpErrors(np.array(self.errors[1:]), np.array(self.motions[1:]))
        return Result({"mawe": pairs.ratio_of_means(), "mawe_published": pairs.mean_of_ratios()})


class WarpError(_Flowing):
    """Compute `warp_error`: mean squared error of frames warped to the next, 8-bit levels squared."""

    def result(self) -> Result:
        return Result({"warp_error": mean(self.errors)}, {"warp_error": np.array(self.errors)})


class FlowScore(_Flowing):
    """Compute `flow_score`: mean length of the optical flow, pixels per frame."""

    def result(self) -> Result:
        return Result({"flow_score": mean(self.motions)}, {"motion": np.array(self.motions)})


class Stagnation(_Flowing):
    """Compute `motion_kept`, motion of the last `window` pairs over the first, and `still`, share of repeats.

    Videos shorter than two windows are compared half with half.
    """

    def __init__(self, window: int = 100):
        super().__init__()
        self.window, self.changes = window, list[float]()

    def update(self, look: Look) -> None:
        super().update(look)
        self.changes.append(look.change)

    def result(self) -> Result:
        motions, changes = self.motions[1:], np.array(self.changes[1:])
        count = min(self.window, len(motions) // 2)
        kept = ratio(mean(motions[-count:]), mean(motions[:count])) if count else float("nan")
        return Result({"motion_kept": kept, "still": mean(changes < STILL)})


class Seam:
    """Compute `seam`: change at the borders of chunks over change beside them; 1 where a seam is invisible.

    Change is the mean absolute difference of neighbouring frames. Its sum over the borders is divided by the
    sum of its means over up to `BESIDE` pairs on each side. Near pairs, because motion that comes and goes in
    step with the chunks would otherwise count as seams. borders: number of frames -> frames that begin a
    chunk.
    """

    def __init__(self, borders: Callable[[int], Sequence[int]]):
        self.borders, self.changes = borders, list[float]()

    def update(self, look: Look) -> None:
        self.changes.append(look.change)

    def result(self) -> Result:
        changes = np.array(self.changes)
        borders = [b for b in self.borders(len(changes)) if 1 <= b < len(changes)]
        at, around = 0.0, 0.0
        for border, neighbours in ((b, self._neighbours(b, set(borders))) for b in borders):
            if neighbours:
                at, around = at + changes[border], around + changes[neighbours].mean()
        return Result({"seam": ratio(at, around)}, {"change": changes})

    def _neighbours(self, border: int, borders: set[int]) -> list[int]:
        """Return the later frames of the pairs beside a border, up to the next border on either side."""
        found = []
        for direction in (-1, 1):
            for frame in range(border + direction, border + direction * (BESIDE + 1), direction):
                if not 1 <= frame < len(self.changes) or frame in borders:
                    break
                found.append(frame)
        return found
