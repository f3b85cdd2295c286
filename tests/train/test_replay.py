"""Steps that are recorded and played again. CUDA's graphs are stood in for: what is recorded here is the function itself."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from streamingt2v.errors import RequestError
from streamingt2v.train import loop, replay
from streamingt2v.train.draws import HashedNoise, Noise, generators


class Learner:
    """The loss of a batch is the sum of weight * x plus noise; keeps count of how often it is called, and what it was last given."""

    def __init__(self) -> None:
        self.weight, self.calls = nn.Parameter(torch.ones(2)), 0

    def __call__(self, batch):
        self.calls += 1
        self.batch = batch
        self.loss = torch.zeros(())
        self.weight.grad = torch.zeros(2)
        self.compute()
        return {"loss": self.loss}

    def compute(self) -> None:
        fresh = HashedNoise(self.batch["noise"].keys_B)
        self.loss.copy_((self.weight * self.batch["x"]).sum() + fresh.normal(self.batch["x"]).sum())
        self.weight.grad.copy_(self.batch["x"].sum(0))


class Graph:
    """Plays a `Learner`'s step again: same inputs, same places for what comes out."""

    learner: Learner

    def end(self) -> None:
        batch, loss, gradient = self.learner.batch, self.learner.loss, self.learner.weight.grad

        def again() -> None:
            self.learner.batch, self.learner.loss, self.learner.weight.grad = batch, loss, gradient
            self.learner.compute()

        self.replay = again


@pytest.fixture
def learner(monkeypatch) -> Learner:
    learner, stream = Learner(), SimpleNamespace(wait_stream=lambda other: None)

    @contextmanager
    def recording(graph: Graph, **_):
        yield
        graph.end()

    monkeypatch.setattr(Graph, "learner", learner, raising=False)
    stand_in = {"Stream": lambda: stream, "current_stream": lambda: stream, "stream": lambda s: nullcontext(), "graph": recording}
    for name, value in (stand_in | {"CUDAGraph": Graph}).items():
        monkeypatch.setattr(replay.torch.cuda, name, value)
    return learner


def batch(step: int, rows: int, **more):
    noise = HashedNoise(torch.tensor(Noise(generators(0, step, range(rows))).seeds))
    return {"x": torch.randn(rows, 2, generator=torch.Generator().manual_seed(step)), "noise": noise, "total": rows} | more


def test_every_kind_of_batch_is_recorded_once_and_each_step_is_its_own(learner):
    played, plain = replay.Replay(learner, [learner.weight]), Learner()
    for step in range(24):
        asked = batch(step, 3 if step % 3 else 5, pictures=step % 2 == 0)
        losses = played(asked)
        wanted = plain(asked)
        torch.testing.assert_close(losses["loss"], wanted["loss"])
        torch.testing.assert_close(learner.weight.grad, plain.weight.grad)
        learner.weight.grad = None  # as the loop leaves it
    kinds = 4
    assert learner.calls == kinds * (replay.WARM + 1) and plain.calls == 24


def test_replay_without_a_gpu_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(RequestError, match="replay"):
        loop.run(SimpleNamespace(), loop.LoopConfig(tmp_path, 1, 1, 1e-3, precision="no", replay=True))
    assert not any(tmp_path.iterdir())
