"""Prompts by frame, and mixtures of them while one turns into another."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from streamingt2v.config import Request
from streamingt2v.errors import RequestError
from streamingt2v.external.calling import mixing
from streamingt2v.resolved import ChunkGrid
from streamingt2v.stages.protocols import Words
from streamingt2v.types import TextCond


def words(count: int) -> Words:
    """Chunks of 16 with 8 new ones; a dog from frame 32 on."""
    grid = ChunkGrid(16, 8)

    def encode(prompt: str, negative: str) -> TextCond:
        return TextCond(torch.full((1, 2, 3), float(len(prompt))), torch.zeros(1, 2, 3))

    def prompt_at(frame: int) -> str:
        return "a dog" if grid.start(frame) >= 32 else "cat"

    return Words(encode, "", prompt_at, lambda frame: grid.latest(frame, count))


def test_a_prompt_replaces_another_over_chunks():
    assert [dict(words(4).shares_at(frame)).get("a dog", 0) for frame in (24, 32, 39, 40, 48, 56, 64)] == [
        *(0, 0.25, 0.25, 0.5, 0.75, 1, 1),
    ]
    assert words(1).shares_at(32) == (("a dog", 1.0),) and words(9).shares_at(0) == (("cat", 1.0),)


def test_embeddings_are_interpolated_and_made_once():
    found = words(4)
    assert found.text_at(32).positive_BLD.unique().tolist() == [0.75 * 3 + 0.25 * 5]
    assert found.text_at(32) is found.text_at(39) and found.text_at(0) is found.text_at(8)


def test_a_pipeline_reads_a_mixture_in_the_place_of_its_prompt_alone():
    def encode_prompt(prompt, negative_prompt=None, device=None):
        prompt = prompt[0] if isinstance(prompt, list) else prompt
        mask = torch.ones(1, len(prompt), dtype=torch.int64)
        return torch.full((1, len(prompt), 2), 1.0), None, (mask, torch.tensor([0, len(prompt)]))

    pipe = SimpleNamespace(encode_prompt=encode_prompt)
    mixed = mixing(pipe, (("abc", 0.75), ("abcde", 0.25)))
    embeds, none, (mask, lengths) = mixed.encode_prompt(["abc"], device="cpu")
    assert embeds[0, :, 0].tolist() == [1, 1, 1, 0.25, 0.25] and none is None
    assert mask.tolist() == [[1] * 5] and lengths.tolist() == [0, 5]
    assert mixed.encode_prompt("other")[0].shape == (1, 5, 2) and pipe.encode_prompt is encode_prompt


@pytest.mark.parametrize("count", [0, 65])
def test_a_transition_has_a_length(count):
    with pytest.raises(RequestError, match="transition_chunks"):
        Request("a", transition_chunks=count).validate()
