"""The words of a model with a closed vocabulary. Imports nothing heavy."""

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Self

from .. import durable
from ..config.values import read_json
from ..errors import ModelError


@dataclass(frozen=True)
class Vocabulary:
    """The known words, and for some unknown ones the nearest known word."""

    known: frozenset[str]
    nearest: dict[str, str]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `vocabulary.json`; ModelError if it is missing or invalid."""
        values = read_json(path)
        try:
            return cls(frozenset(values["known"]), dict(values["nearest"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: needs a list of words `known` and an object `nearest`") from error

    def save(self, path: Path) -> None:
        """Write `vocabulary.json`."""
        values = {"known": sorted(self.known), "nearest": dict(sorted(self.nearest.items()))}
        durable.write_file(path, (json.dumps(values, indent=1) + "\n").encode())

    def replacements(self, prompt: str) -> dict[str, str | None]:
        """Return every unknown word of the prompt with its replacement; None: dropped."""
        words = dict.fromkeys(re.findall(r"[^\W\d_]+|\d+", prompt.lower()))
        return {word: self._nearest(word) for word in words if word not in self.known}

    def translate(self, prompt: str) -> str:
        """Return the prompt in known words only; the article before a replaced word fits the new one."""
        found = self.replacements(prompt)

        def known(match: re.Match[str]) -> str:
            article, gap, word = match.groups(default="")
            if word not in found:
                return match.group()
            new = found[word]
            if new is None:
                return f"{article} "  # a space, so that the neighbours of a dropped word stay apart
            fitting = "an" if new[0] in "aeiou" else "a"
            return (fitting if article and fitting in self.known else article) + gap + new

        return " ".join(re.sub(r"(?:\b(an?)(\s+))?([^\W\d_]+|\d+)", known, prompt.lower()).split())

    def _nearest(self, word: str) -> str | None:
        stems = (word, word.removesuffix("s"), word.removesuffix("es"))
        for stem in (*stems, word.removesuffix("ies") + "y") if word.endswith("ies") else stems:
            if stem in self.known:
                return stem
            if self.nearest.get(stem) in self.known:
                return self.nearest[stem]
        # very short words resemble too many others
        close = get_close_matches(word, self.known, n=1, cutoff=0.8) if len(word) > 3 else []
        return close[0] if close else None
