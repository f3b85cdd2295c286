"""Shared fixtures: no network, and a fake pipeline for tests of everything around the model."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # libraries read it when they are imported

CHUNK = 8

pytest_plugins = ["service_fixtures", "hub_fixtures"]


def pytest_configure() -> None:
    gc.disable()  # imports make many objects that stay: do not scan them again and again


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)  # networks are many objects; the default takes a tenth of the time
    gc.enable()


@dataclass
class FakePipeline:
    """Yield chunks of noise that depends on seed and frame alone, as `LongVideoPipeline` would.

    before_chunk: called with a chunk's index before the chunk is made; tests raise in it.
    loads: arguments of each load. folder: replaces the model's folder.
    """

    before_chunk: Callable[[int], None] = lambda index: None
    loads: list[tuple[str, str, str, bool]] = field(default_factory=list)
    folder: Path = Path()

    def __post_init__(self) -> None:
        from streamingt2v.config import ModelConfig, RefineConfig
        from streamingt2v.config.runtime import PLAIN

        self.components = SimpleNamespace(savings=PLAIN)
        self.config = ModelConfig("fake", height=32, width=48, fps=8, refine=RefineConfig(scale=1))

    def resolve(self, request):
        from streamingt2v.resolve import ResolvedRequest, resolve

        return request if isinstance(request, ResolvedRequest) else resolve(self.config, request)

    def unknown_words(self, prompt: str) -> dict[str, str | None]:
        return {word: nearest for word, nearest in (("lion", "tiger"), ("blorp", None)) if word in prompt}

    def surplus_tokens(self, prompt: str) -> int:
        return max(0, len(prompt.split()) - 30)

    def stream(self, request, state=None, on_step=None, prompt_at=None) -> Iterator:
        from streamingt2v.types import Chunk

        request = self.resolve(request).request
        index = 0 if state is None else int(state["chunk"])
        while index * CHUNK < request.num_frames:
            self.before_chunk(index)
            start = index * CHUNK
            stop = min(start + CHUNK, request.num_frames)
            frames = [self._frame(request.seed, i) for i in range(start, stop)]
            yield Chunk(index, start, np.stack(frames), stop == request.num_frames, {"chunk": index + 1})
            index += 1

    def _frame(self, seed: int, index: int) -> np.ndarray:
        coarse = np.random.default_rng([seed, index]).integers(0, 256, (4, 6, 3), np.uint8)
        return np.kron(coarse, np.ones((8, 8, 1), np.uint8))


@pytest.fixture
def fake_pipeline(monkeypatch, tmp_path_factory) -> FakePipeline:
    """Return the pipeline that commands get instead of the model "tiny"."""
    import streamingt2v.checkpoints.find
    import streamingt2v.runs.render
    from streamingt2v.config import find_model

    fake = FakePipeline()
    fake.folder = tmp_path_factory.mktemp("fake")
    fake.config.save(fake.folder)

    def find(name: str | Path) -> Path:
        return fake.folder if Path(name).name in ("tiny", "m") else find_model(name)

    monkeypatch.setattr(streamingt2v.checkpoints.find, "find_folder", find)

    def load(
        model: str, device: str, dtype: str, savings: object = None, refiner: bool = True
    ) -> FakePipeline:
        fake.loads.append((model, device, dtype, refiner))
        return fake

    monkeypatch.setattr(streamingt2v.runs.render, "load_pipeline", load)
    return fake


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def moving():
    """Return moving(frames, height, width, start): smooth uint8 (T, H, W, 3), all frames different."""

    def make(frames: int, height: int = 16, width: int = 32, start: int = 0) -> np.ndarray:
        t = np.arange(start, start + frames).reshape(-1, 1, 1)
        y, x = np.arange(height).reshape(1, -1, 1), np.arange(width).reshape(1, 1, -1)
        red = 128 + 100 * np.sin((x + 3 * t) / 9)
        green = 128 + 100 * np.cos((y + 2 * t) / 7)
        blue = np.broadcast_to(40 + (t * 13) % 170, red.shape)
        return np.stack(np.broadcast_arrays(red, green, blue), -1).astype(np.uint8)

    return make


SLOW_FIXTURES = {"service", "url", "client", "browser"}
"""Fixtures that start a worker, a server or a browser."""

SLOW_MODULES = {
    "api": {"test_nouns", "test_replicas", "test_sessions", "test_shared"},
    "backbones": {"test_engines"},
    "cli": {"test_from_nothing", "test_get", "test_process"},
    "compare": {"test_baselines", "test_comparison", "test_rivals"},
    "convert": {"test_enhancers", "test_kinds", "test_ldm", "test_streaming_t2v"},
    "external": {
        *("test_continuing", "test_families", "test_first_chunk"),
        *("test_pipeline_models", "test_steering", "test_streaming_svd"),
    },
    "field": {"test_faces"},
    "jobs": {"test_service"},
    "runs": {"test_batch", "test_kills", "test_run_faults"},
    "stages": {
        *("test_crossfade", "test_every_pipeline", "test_refine_by_keyframes", "test_refine_by_pipeline"),
        *("test_refine_by_steps", "test_seams"),
    },
    "tests": {
        *("test_bench", "test_docs_run", "test_matrix", "test_ray_ports", "test_savings", "test_workers"),
    },
    "tiny": {"test_recipes"},
    "web": {"test_end"},
    "train": {"test_distill", "test_own_clips", "test_shard"},
}
"""Folder -> modules that start processes, servers, Ray or trainings, convert networks, or make dozens of
videos."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests for `make test-fast`, and run their files first, so that all workers end together."""
    slow = set()
    for item in items:
        in_slow_module = item.path.stem in SLOW_MODULES.get(item.path.parent.name, ())
        if in_slow_module or SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow"):
            slow.add(item.path)
    items.sort(key=lambda item: item.path not in slow)
