"""Numbers with the interval that they are sure to within: shares of hits, means, and differences of paired means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Z = 1.959964  # of a normal's 95 %


class Estimate(NamedTuple):
    """A number, its 95 % interval, and `n`, how many values it is from; NaN without any."""

    value: float
    low: float
    high: float
    n: int


def share(hits: int, count: int) -> Estimate:
    """Part of `count` trials that hit, with Wilson's interval (1927), which holds at 0 and 1 as well."""
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    p, n = hits / count, count
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return Estimate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), n)


def bootstrap(groups: Mapping[Any, Sequence[float]], draws: int = 2000, seed: int = 0) -> Estimate:
    """Mean of all values, with the percentile interval of the bootstrap over groups (Efron and Tibshirani 1993).

    Groups are drawn, not values: videos of one prompt resemble each other. Values that are not finite are left out. Same seed, same
    interval.
    """
    finite = [[v for v in values if math.isfinite(v)] for values in groups.values()]
    sums, counts = (np.array([f(values) for values in finite if values], float) for f in (sum, len))
    if not len(sums):
        return Estimate(math.nan, math.nan, math.nan, 0)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(sums.sum() / counts.sum()), float(low), float(high), int(counts.sum()))


def paired(ours: Mapping[Any, Mapping[Any, float]], theirs: Mapping[Any, Mapping[Any, float]]) -> Estimate:
    """Mean difference theirs - ours over what both have, group by group; see `bootstrap`. An interval without 0 is a difference."""
    return bootstrap(
        {
            g: [theirs[g][k] - value for k, value in ours[g].items() if k in theirs[g]]
            for g in ours
            if g in theirs
        }
    )
