"""Encode prompts as `TextCond`."""

from typing import Any

import torch

from ..errors import ModelError
from ..types import TextCond
from .vocabulary import Vocabulary


class TextEncoder:
    """Tokenizer and text encoder in one call (method.md: Sampling; last hidden state, padded to full length).

    device: where the encoder computes; None: where its weights are.
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
        """The encoder, under diffusers' name."""
        return self.encoder

    @text_encoder.setter
    def text_encoder(self, encoder: Any) -> None:
        self.encoder = encoder

    @torch.no_grad()
    def __call__(self, prompt: str, negative_prompt: str = "") -> TextCond:
        """Embed both prompts, each as (1, L, D)."""
        negative_BLD, positive_BLD = self._embed([negative_prompt, prompt]).chunk(2)
        return TextCond(positive_BLD, negative_BLD)

    def unknown_words(self, prompt: str) -> dict[str, str | None]:
        """Return unknown words and their replacements (None: dropped). Empty for an open vocabulary."""
        return self.vocabulary.replacements(prompt) if self.vocabulary else {}

    def surplus_tokens(self, prompt: str) -> int:
        """Return the number of tokens beyond the encoder's length, which have no effect."""
        # verbose=False suppresses the library's own warning
        ids = self.tokenizer(self._translated(prompt), verbose=False).input_ids
        return max(0, len(ids) - self.tokenizer.model_max_length)

    def _translated(self, prompt: str) -> str:
        return self.vocabulary.translate(prompt) if self.vocabulary else prompt

    def token_ids(self, prompts: list[str]) -> torch.Tensor:
        """Return token ids (N, L) on the CPU, in known words, padded and truncated."""
        length = self.tokenizer.model_max_length
        texts = [self._translated(p) for p in prompts]
        ids = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids
        known = self.encoder.config.vocab_size
        if int(ids.max()) >= known:
            raise ModelError(f"the tokenizer gives id {int(ids.max())}, the text encoder knows {known}")
        return ids

    def _embed(self, prompts: list[str]) -> torch.Tensor:
        device = self.works_on or next(self.encoder.parameters()).device
        return self.encoder(self.token_ids(prompts).to(device)).last_hidden_state


class NoText:
    """Stand in for `TextEncoder` in models that read no text."""

    def __call__(self, prompt: str, negative_prompt: str = "") -> TextCond:
        """Return no tokens, (1, 0, 0) each."""
        return TextCond(torch.zeros(1, 0, 0), torch.zeros(1, 0, 0))

    def unknown_words(self, prompt: str) -> dict[str, str | None]:
        """Return no words."""
        return {}

    def surplus_tokens(self, prompt: str) -> int:
        """Return 0: there is no limit."""
        return 0
