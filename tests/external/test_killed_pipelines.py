"""A render by a pipeline of each kind, killed (-9) and resumed, makes the file of an uninterrupted one."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

import forking
import toy_bases
from toy_bases import TOYS

KINDS = ("ltx", "wan_vace", "helios", "skyreels_df", "anyflow", "wan_image", "wan")
"""One class for each way to continue; a folder of Cosmos needs its guardrail."""


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_killed_and_resumed_to_the_same_bytes(name, tmp_path, rgb_image):
    model = toy_bases.model_folder(name, tmp_path / "model")
    image = ["--image", rgb_image] if TOYS[name].image else []
    command = [
        sys.executable, "-m", "streamingt2v", "generate", "A cat running", "--quiet", "--model", str(model),
        *image,
        "--frames", str(TOYS[name].chunk[0] + 40),
    ]  # fmt: skip
    whole, killed = tmp_path / "whole.mp4", tmp_path / "killed.mp4"
    forking.run([*command, "-o", str(whole)], check=True)
    process = forking.Popen([*command, "-o", str(killed)])
    journal = tmp_path / "killed.run" / "journal.jsonl"
    while not (journal.is_file() and journal.read_text().count("\n") >= 2):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() != 0 and not killed.exists()
    forking.run([sys.executable, "-m", "streamingt2v", "resume", str(journal.parent), "--quiet"], check=True)
    assert killed.read_bytes() == whole.read_bytes()


@pytest.fixture
def rgb_image(tmp_path) -> str:
    from PIL import Image

    path: Path = tmp_path / "image.png"
    Image.new("RGB", (48, 32), (200, 90, 30)).save(path)
    return str(path)
