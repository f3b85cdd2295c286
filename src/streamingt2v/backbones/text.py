"""Prompts to `TextCond`, and what to say of words that a model does not know."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from ..config.values import read_json
from ..errors import ModelError
from ..types import TextCond


@dataclass(frozen=True)
class Vocabulary:
    """The words of a model with a closed vocabulary: those it knows, and for some others the nearest that it knows."""

    known: frozenset[str]
    nearest: dict[str, str]

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read `vocabulary.json`; ModelError if it cannot be."""
        values = read_json(path)
        try:
            return cls(frozenset(values["known"]), dict(values["nearest"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: needs a list of words `known` and an object `nearest`") from error

    def save(self, path: Path) -> None:
        """Write `vocabulary.json`."""
        path.write_text(json.dumps({"known": sorted(self.known), "nearest": dict(sorted(self.nearest.items()))}, indent=1) + "\n")

    def replacements(self, prompt: str) -> dict[str, str | None]:
        """Every unknown word of the prompt and the word used instead; None where it is left out."""
        words = dict.fromkeys(re.findall(r"[^\W\d_]+|\d+", prompt.lower()))
        return {word: self._nearest(word) for word in words if word not in self.known}

    def translate(self, prompt: str) -> str:
        """The prompt in known words only."""
        found = self.replacements(prompt)

        def known(match: re.Match[str]) -> str:
            word = match.group()
            return (found[word] or "") if word in found else word

        return " ".join(re.sub(r"[^\W\d_]+|\d+", known, prompt.lower()).split())

    def _nearest(self, word: str) -> str | None:
        stems = (word, word.removesuffix("s"), word.removesuffix("es"))
        for stem in (*stems, word.removesuffix("ies") + "y") if word.endswith("ies") else stems:
            if stem in self.known:
                return stem
            if self.nearest.get(stem) in self.known:
                return self.nearest[stem]
        # very short words resemble everything
        close = get_close_matches(word, self.known, n=1, cutoff=0.8) if len(word) > 3 else []
        return close[0] if close else None


class TextEncoder:
    """Tokenizer and text encoder as one step: prompts in, `TextCond` out (method.md: Sampling; last hidden state, padded to full length).

    device: where the encoder works, None for where its weights are.
    """

    def __init__(self, tokenizer: Any, encoder: Any, vocabulary: Vocabulary | None = None, device: torch.device | None = None):
        self.tokenizer, self.encoder, self.vocabulary, self._device = tokenizer, encoder, vocabulary, device

    @torch.no_grad()
    def __call__(self, prompt: str, negative_prompt: str = "") -> TextCond:
        """Both prompts embedded, each (1, L, D)."""
        negative_BLD, positive_BLD = self._embed([negative_prompt, prompt]).chunk(2)
        return TextCond(positive_BLD, negative_BLD)

    def unknown_words(self, prompt: str) -> dict[str, str | None]:
        """Words the model does not know, and what is used instead of each (None: left out). Empty for an open vocabulary."""
        return self.vocabulary.replacements(prompt) if self.vocabulary else {}

    def surplus_tokens(self, prompt: str) -> int:
        """How many tokens of the prompt are beyond the encoder's length and so have no effect."""
        ids = self.tokenizer(self._translated(prompt), verbose=False).input_ids  # the library's own warning is not for users
        return max(0, len(ids) - self.tokenizer.model_max_length)

    def _translated(self, prompt: str) -> str:
        return self.vocabulary.translate(prompt) if self.vocabulary else prompt

    def token_ids(self, prompts: list[str]) -> torch.Tensor:
        """What the encoder reads, (N, L) on the CPU: in known words, padded and cut to its length."""
        length = self.tokenizer.model_max_length
        texts = [self._translated(p) for p in prompts]
        ids = self.tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids
        if int(ids.max()) >= self.encoder.config.vocab_size:
            raise ModelError(f"the tokenizer gives id {int(ids.max())}, the text encoder knows {self.encoder.config.vocab_size}")
        return ids

    def _embed(self, prompts: list[str]) -> torch.Tensor:
        device = self._device or next(self.encoder.parameters()).device
        return self.encoder(self.token_ids(prompts).to(device)).last_hidden_state


class NoText:
    """In the place of a `TextEncoder` for a model that reads none: every prompt becomes no tokens."""

    def __call__(self, prompt: str, negative_prompt: str = "") -> TextCond:
        """No tokens, (1, 0, 0) each."""
        return TextCond(torch.zeros(1, 0, 0), torch.zeros(1, 0, 0))

    def unknown_words(self, prompt: str) -> dict[str, str | None]:
        """None."""
        return {}

    def surplus_tokens(self, prompt: str) -> int:
        """None: there is no length to be beyond."""
        return 0
