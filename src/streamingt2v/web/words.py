"""How a model with a closed vocabulary reads a prompt."""

from functools import lru_cache
from typing import Any

from ..backbones.vocabulary import Vocabulary
from ..config import find_model

_SMALL = frozenset(
    "among and from going is moving of the there to video still up down at by in on an a with while".split()
)


@lru_cache(maxsize=16)
def _vocabulary(model: str) -> Vocabulary | None:
    path = find_model(model) / "vocabulary.json"
    return Vocabulary.load(path) if path.is_file() else None


def known_words(model: str) -> list[str] | None:
    """Return the content words that a model knows; None for a model that reads any text."""
    vocabulary = _vocabulary(model)
    return None if vocabulary is None else sorted(vocabulary.known - _SMALL)


@lru_cache(maxsize=256)
def read_as(model: str, prompt: str) -> dict[str, Any] | None:
    """Return `shown_as`, the prompt in known words, and `left_out`, words without a replacement.

    None if the model knows all words.
    """
    vocabulary = _vocabulary(model)
    replaced = vocabulary.replacements(prompt) if vocabulary else {}
    if not vocabulary or not replaced:
        return None
    return {
        "shown_as": vocabulary.translate(prompt),
        "left_out": [word for word, other in replaced.items() if other is None],
    }
