"""Prompts to `TextCond`."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import ModelError
from ..types import TextCond
from .vocabulary import Vocabulary


class TextEncoder:
    """Tokenizer and text encoder as one step: prompts in, `TextCond` out (method.md: Sampling; last hidden state, padded to full length).

    device: where the encoder works, None for where its weights are.
    """

    def __init__(
        self,
        tokenizer: Any,
        encoder: Any,
        vocabulary: Vocabulary | None = None,
        device: torch.device | None = None,
    ):
        self.tokenizer, self.encoder, self.vocabulary, self.works_on = tokenizer, encoder, vocabulary, device

    @property
    def text_encoder(self) -> Any:
        """The encoder, by diffusers' name."""
        return self.encoder

    @text_encoder.setter
    def text_encoder(self, encoder: Any) -> None:
        self.encoder = encoder

    @torch.no_grad()
    def __call__(self, prompt: str, negative_prompt: str = "") -> TextCond:
        """Both prompts embedded, each (1, L, D)."""
        negative_BLD, positive_BLD = self._embed([negative_prompt, prompt]).chunk(2)
        return TextCond(positive_BLD, negative_BLD)

    def unknown_words(self, prompt: str) -> dict[str, str | None]:
        """Words the model does not know, and what is used instead of each (None: left out). Empty for an open vocabulary."""
        return self.vocabulary.replacements(prompt) if self.vocabulary else {}

    def surplus_tokens(self, prompt: str) -> int:
        """Return how many tokens of the prompt are beyond the encoder's length and so have no effect."""
        ids = self.tokenizer(
            self._translated(prompt), verbose=False
        ).input_ids  # the library's own warning is not for users
        return max(0, len(ids) - self.tokenizer.model_max_length)

    def _translated(self, prompt: str) -> str:
        return self.vocabulary.translate(prompt) if self.vocabulary else prompt

    def token_ids(self, prompts: list[str]) -> torch.Tensor:
        """Return what the encoder reads, (N, L) on the CPU: in known words, padded and cut to its length."""
        length = self.tokenizer.model_max_length
        texts = [self._translated(p) for p in prompts]
        ids = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids
        if int(ids.max()) >= self.encoder.config.vocab_size:
            raise ModelError(
                f"the tokenizer gives id {int(ids.max())}, the text encoder knows {self.encoder.config.vocab_size}"
            )
        return ids

    def _embed(self, prompts: list[str]) -> torch.Tensor:
        device = self.works_on or next(self.encoder.parameters()).device
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
