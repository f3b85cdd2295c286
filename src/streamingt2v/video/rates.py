"""Frames a second, exact: 30000/1001 is not 29.97, and after an hour the sound would tell."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

Rate = int | Fraction
"""Frames a second; an int where it is whole."""

HIGHEST = 1000  # a file that says more counts in other units
_FINEST = 100_000  # denominator of a mean


def rate_of(value: Fraction | float | str | None) -> Rate | None:
    """The rate, from a fraction, a number or "30000/1001"; None for what is no rate."""
    if not value:
        return None
    try:
        exact = Fraction(value).limit_denominator(_FINEST)
    except (ValueError, ArithmeticError):
        return None
    if not 0 < exact <= HIGHEST:
        return None
    return exact.numerator if exact.denominator == 1 else exact


def rate_to_json(rate: Rate) -> int | str:
    """Without loss: 8, "30000/1001"; `rate_of` reads it back."""
    return rate if isinstance(rate, int) else str(rate)


def rate_as_number(rate: Rate) -> int | float:
    """For people and players: 8, 29.97003."""
    return rate if isinstance(rate, int) else round(float(rate), 6)


def rate_of_times(
    times: Sequence[Fraction], tick: Fraction, named: Sequence[Rate]
) -> tuple[Rate | None, bool]:
    """The rate of frames shown at these seconds, two or more, and whether it is steady.

    named: what the file says its rate may be. tick: what times are rounded to. A rate that varies is given as its mean, with which all
    frames last as long as they do.
    """
    if any(b <= a for a, b in itertools.pairwise(times)):  # files joined, or damage: times say nothing
        return (named[0] if named else None), True
    span = times[-1] - times[0]
    mean = rate_of((len(times) - 1) / span)
    for rate in [*named, *([mean] if mean else [])]:
        if all(abs(time - times[0] - i / Fraction(rate)) <= tick for i, time in enumerate(times)):
            return rate, True
    gaps = sorted(b - a for a, b in itertools.pairwise(times))
    return rate_of(len(times) / (span + gaps[len(gaps) // 2])), False
