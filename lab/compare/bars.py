"""Claims about the embedded model, each with its measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .comparison import COMPARED, FAST, FAST_WITHOUT_ANCHOR, FIRST, FULL, LONG, OURS, WITHOUT_ANCHOR
from .results import Item, is_ahead, number, pairs
from .rivals import NAMES
from .statistics import Estimate, bootstrap, paired, share

JUDGED = {"noun": 0.95, "scene": 0.99, "motion": 0.90}
"""Required accuracy of the judge on true clips."""

FIRST_WITHIN = {"noun": 0.05, "scene": 0.05, "motion": 0.10}
"""Largest deficit of generated first chunks against the judge on true clips."""

END_WITHIN = {"noun": 0.10, "scene": 0.05}
"""Largest deficit of the end of long videos against their first chunks."""


@dataclass(frozen=True)
class Bar:
    """A claim, its measurement, and whether it holds; None: not measured."""

    claim: str
    measured: str
    holds: bool | None

    @property
    def row(self) -> list[str]:
        return [
            self.claim,
            self.measured,
            {True: "holds", False: "**does not hold**", None: "not measured"}[self.holds],
        ]


def bars(items: Sequence[Item], truth: Mapping[str, Estimate], nouns: int) -> list[Bar]:
    """Return the claims for the generated parts. truth: the judge's accuracy. nouns: number of nouns in
    the first part's prompts.
    """
    parts = {part: [item for item in items if item.part == part] for part in (FIRST, COMPARED, LONG, FULL)}
    return [
        *_judge(truth),
        *(_first_chunk(shipped(parts[FIRST]), truth, nouns) if parts[FIRST] else []),
        *(_long(parts[LONG], parts[COMPARED]) if parts[LONG] else []),
        *_distilled(parts[FIRST], parts[COMPARED]),
        *(_rivals(parts[COMPARED]) if parts[COMPARED] else []),
        *(_refined(parts[FULL]) if parts[FULL] else []),
    ]


def _of(items: Sequence[Item], method: str) -> list[Item]:
    return [item for item in items if item.method == method]


def shipped(items: Sequence[Item]) -> list[Item]:
    """Return the default method of users: the distilled network's, if there is one."""
    return _of(items, FAST) or _of(items, OURS)


def _rate(items: Sequence[Item], window: str, kind: str) -> Estimate:
    return share(sum(getattr(item, window)[kind] for item in items), len(items))


def _judge(truth: Mapping[str, Estimate]) -> list[Bar]:
    return [
        Bar(
            f"judge on true clips: {kind} at least {100 * least:.0f} %",
            _percent(truth[kind]),
            truth[kind].value >= least,
        )
        for kind, least in JUDGED.items()
    ]


def _first_chunk(ours: Sequence[Item], truth: Mapping[str, Estimate], nouns: int) -> list[Bar]:
    found = []
    for kind, within in FIRST_WITHIN.items():
        claim = f"first chunk, over at least 30 nouns: {kind} within {100 * within:.0f} points of the judge"
        rate = _rate(ours, "first", kind)
        holds = rate.value >= truth[kind].value - within and nouns >= 30
        found.append(Bar(claim, f"{_percent(rate)}, {nouns} nouns", holds) if ours else _missing(claim))
    return found


def _long(long: Sequence[Item], compared: Sequence[Item]) -> list[Bar]:
    return [*_end(shipped(long)), *_anchor(long), *_smooth(shipped(compared), shipped(long))]


def _end(ours: Sequence[Item]) -> list[Bar]:
    found = []
    for kind, within in END_WITHIN.items():
        claim = f"end of long videos: {kind} within {100 * within:.0f} points of their first chunks"
        first, last = (_rate(ours, window, kind) for window in ("first", "last"))
        measured = f"{_percent(last)} after {_percent(first)}"
        found.append(Bar(claim, measured, last.value >= first.value - within) if ours else _missing(claim))
    return found


def _anchor(long: Sequence[Item]) -> list[Bar]:
    """Compare with and without the anchor."""
    found = []
    sides = {
        "anchor_end": "likeness to the first frame at the end",
        "colour_drift": "colour drift",
        "colour_end": "distance from the first frame's colour at the end",
    }
    for name, side in sides.items():
        claim = f"long videos: APM is surely better in {side} (`{name}`)"
        ours, without = (
            pairs(found, name)
            for found in (shipped(long), _of(long, FAST_WITHOUT_ANCHOR) or _of(long, WITHOUT_ANCHOR))
        )
        difference = paired(ours, without)
        found.append(
            Bar(claim, f"without it {_more(difference, name)}", is_ahead(name, without, ours))
            if difference.n
            else _missing(claim)
        )
    return found


def _smooth(compared: Sequence[Item], long: Sequence[Item]) -> list[Bar]:
    seam, kept = _mean([*compared, *long], "seam"), _mean(long, "motion_kept")
    cuts = [item.values["cuts"] for item in (*compared, *long) if item.values.get("cuts") is not None]
    whole = share(sum(count == 0 for count in cuts), len(cuts))
    claims = (
        "seam score within 1.00 ± 0.05",
        "no cut found in at least 95 % of the videos",
        "long videos: motion at least 80 % kept",
    )
    return [
        Bar(claims[0], number(seam, "seam"), abs(seam.value - 1) <= 0.05) if seam.n else _missing(claims[0]),
        Bar(claims[1], _percent(whole), whole.value >= 0.95) if cuts else _missing(claims[1]),
        Bar(claims[2], number(kept, "motion_kept"), kept.value >= 0.8) if kept.n else _missing(claims[2]),
    ]


def _distilled(first: Sequence[Item], compared: Sequence[Item]) -> list[Bar]:
    """Compare the distilled network with its teacher: the judge on first and last windows."""
    found: list[Bar] = []
    for window, where, items in (("first", "first chunk", [*first, *compared]), ("last", "end", compared)):
        student, teacher = _of(items, FAST), _of(items, OURS)
        for kind in FIRST_WITHIN if student else ():
            claim = f"distilled, {where}: {kind} within 3 points of its teacher"
            rate, wanted = (_rate(some, window, kind) for some in (student, teacher))
            found.append(
                Bar(claim, f"{_percent(rate)}, teacher {_percent(wanted)}", rate.value >= wanted.value - 0.03)
            )
    return found


def _rivals(compared: Sequence[Item]) -> list[Bar]:
    """Compare CAM, without anchor as its rivals, with each other conditioning."""
    found = []
    for rival in (*NAMES.values(), "nothing"):
        for name in ("seam", "mawe"):
            claim = f"CAM alone is surely better than {rival} in `{name}`"
            ours, theirs = (pairs(_of(compared, method), name) for method in (WITHOUT_ANCHOR, rival))
            difference = paired(ours, theirs)
            found.append(
                Bar(claim, f"{rival} {_more(difference, name)}", is_ahead(name, theirs, ours))
                if difference.n
                else _missing(claim)
            )
    return found


def _refined(full: Sequence[Item]) -> list[Bar]:
    sharper, same, seamless = (
        "refined frames are surely sharper than enlarged ones",
        "and show the same noun",
        "and have no seam",
    )
    refined, enlarged = _of(full, "refined"), _of(full, "enlarged")
    if not refined or not enlarged:
        return [_missing(claim) for claim in (sharper, same, seamless)]
    difference = paired(pairs(enlarged, "sharpness"), pairs(refined, "sharpness"))
    nouns = [_rate(items, "last", "noun") for items in (refined, enlarged)]
    seam = _mean(refined, "seam")
    return [
        Bar(sharper, f"refined {_more(difference, 'sharpness')}", difference.low > 0),
        Bar(same, f"{_percent(nouns[0])}, enlarged {_percent(nouns[1])}", nouns[0].value >= nouns[1].value),
        Bar(seamless, number(seam, "seam"), abs(seam.value - 1) <= 0.05),
    ]


def _mean(items: Sequence[Item], name: str) -> Estimate:
    """Return the mean over videos of any part; those of one prompt form a group."""
    groups: dict[int, list[float]] = {}
    for item in items:
        value = item.values.get(name)
        if value is not None:
            groups.setdefault(item.prompt, []).append(value)
    return bootstrap(groups)


def _missing(claim: str) -> Bar:
    return Bar(claim, "–", None)


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.0f} %" if estimate.n else "–"


def _more(difference: Estimate, name: str) -> str:
    return ("+" if difference.value > 0 else "") + number(difference, name)
