"""Run Python and curl of the user's pages with a toy model, fewer frames and a test server's address."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamingt2v.video.writer import write_video
from test_docs import PAGES, ROOT, blocks

USERS = [page for page in PAGES if page.parent != ROOT / "lab" / "docs"]
CURL = "".join(
    block.values[0] for block in blocks("sh", [ROOT / "docs" / "api.md"]) if "curl" in block.values[0]
)
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


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_lines_of_the_api_run(files, url):
    files("'turtle.png' video='cat.mp4'")
    text = CURL.replace("\\\n", " ").replace(SERVER, url).replace('"num_frames": 80', '"num_frames": 16')
    lines = [re.sub(r"\s+#.*", "", line) for line in text.splitlines()]
    made = json.loads(_out(lines[0]))
    for line in lines[1:]:
        answer = _out(line.replace("VIDEO_ID", made["id"]))
        assert "-o " in line or "error" not in json.loads(answer) or json.loads(answer)["error"] is None, (
            answer
        )
    assert Path("cat.mp4").read_bytes()[4:8] == b"ftyp"


def _out(line: str) -> str:
    return subprocess.run(line, shell=True, capture_output=True, text=True, check=True, timeout=120).stdout
