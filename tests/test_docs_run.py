"""The Python of the user's pages runs as it stands, but for a toy in the place of the model, fewer frames, and the address of a server."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamingt2v.video.writer import write_video
from test_docs import PAGES, ROOT, blocks

USERS = [page for page in PAGES if page.parent != ROOT / "lab" / "docs"]
SERVER = "http://127.0.0.1:8000"
STARTS_PROCESSES = (SERVER, "JobService", "BatchRun")
"""Marks of blocks that need a server, a worker, or Ray."""


def cases() -> list:
    return [
        pytest.param(
            block.values[0],
            id=block.id,
            marks=[pytest.mark.slow] if any(x in block.values[0] for x in STARTS_PROCESSES) else [],
        )
        for block in blocks("python", USERS)
    ]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write what an example reads."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> None:
        for name in re.findall(r"""["'](\w+\.(?:png|jpg))["']""", text):
            Image.new("RGB", (40, 40), "green").save(name)
        for name in re.findall(r"""(?:video|refine)=["'](\w+\.mp4)["']""", text):
            write_video(Path(name), (np.full((32, 32, 3), 7 * i, np.uint8) for i in range(24)), 8)

    return write


@pytest.mark.parametrize("text", cases())
def test_python_examples_run(text, toy, files, request):
    files(text)
    text = re.sub(r"""num_frames=(\d+)""", lambda match: f"num_frames={min(24, int(match[1]))}", text)
    text = (
        text.replace('"tiny"', f'"{toy}"').replace('"cuda"', '"cpu"').replace('size="64x64"', 'size="32x32"')
    )
    text = text.replace('Settings(Path("videos"))', f'Settings(Path("videos"), ("{toy}",))')
    if SERVER in text:
        text = text.replace(SERVER, request.getfixturevalue("url"))
    exec(compile(text, "example", "exec"), {"__name__": "example"})
