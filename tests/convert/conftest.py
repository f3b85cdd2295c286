"""Fixtures of conversions: published checkpoints at toy size."""

from pathlib import Path

import pytest
import torch

import published
from lab.tiny import text
from streamingt2v.convert.kinds import convert


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    text.build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def networks() -> dict[str, torch.nn.Module]:
    # loaded weights want no gradients either, and torch chooses other kernels for those that do
    return {part: network.requires_grad_(False) for part, network in published.streaming_t2v().items()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, networks) -> Path:
    names = published.streaming_t2v_names(networks) | {
        "text_encoder.text_model.embeddings.position_ids": torch.arange(9)
    }
    return published.write(tmp_path_factory.mktemp("published") / "streaming_t2v.ckpt", names)


@pytest.fixture(scope="module")
def model(tmp_path_factory, checkpoint, tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "not" / "there" / "yet"
    convert("streaming-t2v", checkpoint.parent, folder, tokenizer=tokenizer)
    return folder
