"""Hints about a prompt for a model with a closed vocabulary, while it is typed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..backbones.vocabulary import Vocabulary
from ..config import find_model

_SMALL = frozenset(
    "among and from going is moving of the there to video still up down at by in on an a".split()
)


@lru_cache(maxsize=16)
def _vocabulary(model: str) -> Vocabulary | None:
    path = find_model(model) / "vocabulary.json"
    return Vocabulary.load(path) if path.is_file() else None


def known_words(model: str) -> list[str] | None:
    """The words that a model knows, without those that say nothing by themselves; None of a model that reads any text."""
    vocabulary = _vocabulary(model)
    return None if vocabulary is None else sorted(vocabulary.known - _SMALL)


@lru_cache(maxsize=256)
def read_as(model: str, prompt: str) -> dict[str, Any] | None:
    """`shown_as`: the prompt in words that the model knows; `left_out`: those that it knows nothing for. None if it knows all of them."""
    vocabulary = _vocabulary(model)
    replaced = vocabulary.replacements(prompt) if vocabulary else {}
    if not vocabulary or not replaced:
        return None
    return {
        "shown_as": vocabulary.translate(prompt),
        "left_out": [word for word, other in replaced.items() if other is None],
    }
