"""Captions: templates with synonyms and word orders, including exactly "A cat running on the street"."""

import numpy as np

from . import vocabulary as v


def caption(
    noun: str, scene: str, motion: str, direction: int, rng: np.random.Generator, held_out: bool = False
) -> str:
    """Draw a caption; it tells `direction` (-1 left, 1 right) unless that is 0.

    held_out: use words or word orders that training never uses.
    """
    n = next(x for x in v.NOUNS if x.name == noun)
    s = next(x for x in v.SCENES if x.name == scene)
    m = next(x for x in v.MOTIONS if x.name == motion)
    if held_out:
        name, place, doing = (_pick(rng, x) for x in (n.held_out or n.synonyms, s.held_out, m.held_out))
        template = _pick(rng, v.HELD_OUT_TEMPLATES)
    else:
        name, place, doing = (_pick(rng, x) for x in (n.synonyms, s.phrases, m.phrases))
        template = _pick(rng, v.TEMPLATES)
    told = f" {_pick(rng, v.DIRECTIONS[direction])}" if direction else ""
    article = "an" if name[0] in "aeio" else "a"
    text = template.format(n=f"{article} {name}", m=doing, s=place, d=told)
    return text[0].upper() + text[1:]


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    # the plain word is twice as likely as each synonym
    weights = np.array([2.0] + [1.0] * (len(options) - 1))
    return options[int(rng.choice(len(options), p=weights / weights.sum()))]
