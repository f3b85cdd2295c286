"""Fixtures of trainings: a toy model and clips."""

from dataclasses import replace
from pathlib import Path

import pytest

from streamingt2v.config import ModelConfig
from toy import write_toy_model
from toy_training import write_clips


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A toy whose sampler draws no noise, in 4 steps, so that it can be distilled."""
    folder = write_toy_model(tmp_path_factory.mktemp("model") / "toy")
    own = ModelConfig.load(folder)
    replace(own, extend=replace(own.extend, eta=0.0, steps=4)).save(folder)
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))
