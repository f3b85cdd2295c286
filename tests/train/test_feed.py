"""Batches in their order: drawn ahead or not, used once or several times,
from the beginning or from the middle."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.tiny import recipes
from streamingt2v.errors import RequestError
from streamingt2v.train import loop
from streamingt2v.train.feed import Feed
from toy_training import LOOP, settings


class Numbers:
    """A task whose samples are single numbers, and that says which process drew them."""

    module = torch.nn.Linear(1, 1)

    def batch_size(self, step, batch):
        return batch + step % 2

    def batch(self, rngs, step):
        return {
            "values": torch.tensor([rng.random() for rng in rngs]),
            "number": step,
            "process": os.getpid(),
        }


def values(feed, first, end):
    """(batch, its samples, their noise) of the steps."""
    like = torch.zeros(1, 3)
    return [
        (b["number"], b["values"].tolist(), b["noise"].normal(like.expand(len(b["values"]), 3)).tolist())
        for b in feed.steps(first, end, torch.device("cpu"))
    ]


@given(st.integers(0, 7), st.integers(0, 9), st.integers(1, 4), st.integers(1, 3))
def test_a_feed_goes_on_in_the_middle_as_if_it_had_begun_there(first, count, repeat, processes):
    feed = Feed(Numbers(), seed=3, batch=4, rank=processes - 1, processes=processes, repeat=repeat)
    steps = values(feed, 0, first + count)
    assert values(feed, first, first + count) == steps[first:]
    assert [number for number, _, _ in steps] == [step // repeat for step in range(first + count)]
    assert all(len(drawn) == len(feed.mine(step)) for step, (_, drawn, _) in enumerate(steps))


def test_a_batch_used_again_has_other_noise():
    steps = values(Feed(Numbers(), seed=3, batch=4, repeat=3), 0, 6)
    assert steps[0][1] == steps[1][1] == steps[2][1] != steps[3][1]
    noises = [str(noise) for _, _, noise in steps]
    assert len(set(noises)) == len(noises)
    assert steps[0] == values(Feed(Numbers(), seed=3, batch=4), 0, 1)[0], (
        "the first use is what it is without repeating"
    )


def test_batches_drawn_ahead_by_others_are_the_same():
    here, ahead = (Feed(Numbers(), seed=3, batch=4, repeat=2, workers=workers) for workers in (0, 2))
    assert values(ahead, 3, 11) == values(here, 3, 11)
    drawers = {batch["process"] for batch in ahead.steps(0, 8, torch.device("cpu"))}
    assert len(drawers) == 2 and os.getpid() not in drawers


def test_a_recipe_learns_the_same_from_batches_drawn_ahead(tmp_path):
    losses = [
        recipes.run_recipe(
            "judge", tmp_path / str(n), settings("judge", tmp_path), {**LOOP, "steps": 3, "workers": n}
        )
        for n in (0, 2)
    ]
    assert losses[0]["loss"] == losses[1]["loss"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("workers", -1, "0 or more"), ("repeat", 0, "1 or more"), ("workers", 2, "beside the student")],
)
def test_what_cannot_be_fed_is_refused(name, value, says, tmp_path):
    recipe = "distill" if value == 2 else "judge"
    with pytest.raises(RequestError, match=says):
        recipes.run_recipe(
            recipe, tmp_path / "out", settings(recipe, tmp_path), {**LOOP, "steps": 1, name: value}
        )
    assert not (tmp_path / "out").exists()


class Regression(torch.nn.Module):
    """A network of one layer that learns numbers under noise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, batch):
        x = batch["values"][:, None].expand(-1, 3) + batch["noise"].normal(
            torch.zeros(len(batch["values"]), 3)
        )
        return {"loss": (self.layer(x.float())[:, 0] - 1) ** 2}


def test_compiled_networks_take_the_same_steps(tmp_path, monkeypatch):
    """By dynamo's tracing alone: what a compiler makes of it is torch's matter."""
    modes, plain = [], torch.compile
    monkeypatch.setattr(
        loop.torch, "compile", lambda module, mode: modes.append(mode) or plain(module, backend="eager")
    )
    learned = []
    for yes in (False, True):
        task = Numbers()
        task.module, task.export, task.sample = Regression(), lambda folder: None, lambda folder, step: None
        loop.run(
            task, loop.LoopConfig(tmp_path / str(yes), 4, 2, 1e-2, warmup=1, precision="no", compile=yes)
        )
        learned.append(task.module.layer.weight.detach().clone())
    assert (
        modes == ["reduce-overhead"]
        and torch.allclose(*learned)
        and not torch.equal(learned[0], Regression().layer.weight)
    )
