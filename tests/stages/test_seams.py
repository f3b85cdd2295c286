"""The comparison of joints: its scores by hand, and its page from a toy model."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from streamingt2v.config import RefineConfig
from toy import write_toy_model


@pytest.fixture(scope="module")
def seams():
    spec = importlib.util.spec_from_file_location(
        "seams", Path(__file__).parents[2] / "lab" / "benchmarks" / "seams.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scores_by_hand(seams):
    config = RefineConfig(frames=16, overlap=4, blend="none")
    change = np.ones(28)
    assert seams.scores(change, config) == (1, 1)
    change[12] = 3.0  # windows are 0..15 and 12..27: apart, the border is where the second begins
    assert seams.scores(change, config) == (3, 3)
    blended = RefineConfig(frames=16, overlap=4)
    assert seams.scores(change, blended) == pytest.approx(
        (7 / 5, 3)
    )  # a cut may fall into any of frames 12..16


def test_every_way_is_taken_with_shared_noise_and_without(seams, tmp_path, monkeypatch, capsys):
    model, page = write_toy_model(tmp_path / "toy"), tmp_path / "docs" / "refining-results.md"
    monkeypatch.setattr(sys, "argv", f"seams.py --videos 1 --frames 28 --model {model} --page {page}".split())
    seams.main()
    rows = {row["way"]: row for row in json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]}
    for way in ("joint", "causal", "cross-fade", "independent"):
        assert rows[way]["score"] != rows[f"{way}, noise apart"]["score"], "the noise has a say in it"
    assert rows["causal"]["score_more"] == [0, 0, 0] and len(rows) == 10
    assert (
        "| independent, noise apart |" in page.read_text()
        and (tmp_path / "docs" / "images" / "refining-slices.png").exists()
    )
