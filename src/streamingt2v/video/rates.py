"""Exact frame rates: 29.97 for 30000/1001 would put sound out of step after an hour."""

import itertools
from collections.abc import Sequence
from fractions import Fraction

Rate = int | Fraction
"""Frames a second; an int where it is whole."""

HIGHEST = 1000  # a header that names more means something else
_FINEST = 100_000  # largest denominator


def rate_of(value: Fraction | float | str | None) -> Rate | None:
    """Return the rate of a fraction, a number or "30000/1001"; None for what is no rate."""
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
    """Return 8 or "30000/1001", which `rate_of` reads back."""
    return rate if isinstance(rate, int) else str(rate)


def rate_as_number(rate: Rate) -> int | float:
    """Return 8 or 29.97003, for people and players."""
    return rate if isinstance(rate, int) else round(float(rate), 6)


def rate_of_times(
    times: Sequence[Fraction], tick: Fraction, named: Sequence[Rate]
) -> tuple[Rate | None, bool]:
    """Return the rate of two or more frames shown at these seconds, and whether it is steady.

    named: rates in the header. tick: the time base, to which times are rounded. With a
    variable rate it is the mean, which keeps the duration of the whole.
    """
    if any(b <= a for a, b in itertools.pairwise(times)):  # joined files, or damage: times are unusable
        return (named[0] if named else None), True
    span = times[-1] - times[0]
    mean = rate_of((len(times) - 1) / span)
    for rate in [*named, *([mean] if mean else [])]:
        if all(abs(time - times[0] - i / Fraction(rate)) <= tick for i, time in enumerate(times)):
            return rate, True
    gaps = sorted(b - a for a, b in itertools.pairwise(times))
    return rate_of(len(times) / (span + gaps[len(gaps) // 2])), False
