"""Shares, means and paired differences with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Z = 1.959964  # for a normal 95 % interval


class Estimate(NamedTuple):
    """A number with its 95 % interval from `n` values; NaN without any."""

    value: float
    low: float
    high: float
    n: int


def share(hits: int, count: int) -> Estimate:
    """Return the share of hits in `count` trials with Wilson's interval (1927), valid at 0 and 1 too."""
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    p, n = hits / count, count
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return Estimate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), n)


def bootstrap(groups: Mapping[Any, Sequence[float]], draws: int = 2000, seed: int = 0) -> Estimate:
    """Return the mean of all values with the percentile interval of a bootstrap over groups (Efron and
    Tibshirani 1993).

    Groups are resampled, since videos of one prompt are alike. Non-finite values are ignored. Same seed, same
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
    """Return the mean of theirs - ours over common groups; see `bootstrap`. An interval without 0 is a
    difference.
    """
    return bootstrap(
        {
            g: [theirs[g][k] - value for k, value in ours[g].items() if k in theirs[g]]
            for g in ours
            if g in theirs
        }
    )
