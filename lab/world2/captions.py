"""Captions: templates with synonyms and word orders, including exactly "A cat running on the street"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import vocabulary as v


@dataclass(frozen=True)
class Told:
    """Contents of a caption; None (or 0): omitted."""

    noun: str
    scene: str
    motion: str
    colour: str | None = None
    pattern: str | None = None
    time: str | None = None
    direction: int = 0


def caption(told: Told, rng: np.random.Generator, held_out: bool = False) -> str:
    """Draw a caption; with `held_out`, from words and word orders that training never uses."""
    noun, scene, motion = (
        _pick(rng, entry.held_out if held_out and entry.held_out else entry.said)
        for entry in (
            _named(v.NOUNS, told.noun),
            _named(v.SCENES, told.scene),
            _named(v.MOTIONS, told.motion),
        )
    )
    time = f" {_pick(rng, _named(v.TIMES_OF_DAY, told.time).said)}" if told.time else ""
    way = f" {_pick(rng, v.DIRECTIONS[told.direction])}" if told.direction else ""
    template = _pick(rng, v.HELD_OUT_TEMPLATES if held_out else v.TEMPLATES)
    text = template.format(n=_thing(told, noun, rng), m=motion, s=scene, d=way, t=time)
    return text[0].upper() + text[1:]


def _thing(told: Told, noun: str, rng: np.random.Generator) -> str:
    before, after = v.PATTERN_WORDS[told.pattern] if told.pattern else ((), ())
    behind = bool(after) and rng.random() < 0.5
    looks = [_pick(rng, before)] if before and not behind else []
    named = " ".join([*looks, *([told.colour] if told.colour else []), noun])
    text = f"{'an' if named[0] in 'aeio' else 'a'} {named}"
    return f"{text} {_pick(rng, after)}" if behind else text


def _named(entries: tuple[v.Words, ...], name: str | None) -> v.Words:
    return next(e for e in entries if e.name == name)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    # the plain word is twice as likely as each synonym
    weights = np.array([2.0] + [1.0] * (len(options) - 1))
    return options[int(rng.choice(len(options), p=weights / weights.sum()))]
