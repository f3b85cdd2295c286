"""A local hub for the real client library, in this process and in others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_server import Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Start a local hub that this process uses, with an empty cache and no token."""
    from huggingface_hub import constants

    with Hub() as server:
        for name, value in {
            "HF_HUB_OFFLINE": False, "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hf" / "hub"),
            "HF_TOKEN_PATH": str(tmp_path / "hf" / "token"),
            "HF_STORED_TOKENS_PATH": str(tmp_path / "hf" / "stored"),
        }.items():  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("STREAMINGT2V_HOME", str(tmp_path / "home"))
        yield server


def hub_environment(url: str, folder: Path) -> dict[str, str]:
    """Return the environment of a process that uses the hub at `url`, with its cache and home in `folder`."""
    own = {
        "HF_ENDPOINT": url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder / "hf"),
        "STREAMINGT2V_HOME": str(folder / "home"),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return kept | own | {"HF_HUB_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": ""}
