"""Two processes that have a part of the weights each (`shard`):
the steps of one, half of the numbers, and one format of checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lab.tiny import base, recipes
from streamingt2v.train.memory import MemoryTask
from toy_training import (
    LOOP,
    assert_equal_up_to_rounding,
    gradients,
    run_in_two_processes,
    settings,
    weights,
)

SPLIT = {**LOOP, "steps": 3, "batch": 3, "clip": 0.02}
"""Shares of different size, and gradients that are cut, which takes the norm of all parts."""

FEWER = {"base": {}, "cam": {"frames": 10, "encoder_steps": 1}, "apm": {"frames": 10}}
"""Recipes and what is less than in other tests."""

NAMES = tuple(FEWER)

PROCESS = """
import json, sys
from pathlib import Path
from torch import distributed as dist, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from lab.tiny import base, recipes
from streamingt2v.train import loop, memory
from toy_training import settings

def size(tensors):
    return sum(t.numel() for t in tensors)

class Counted(loop.Split):
    def __init__(self, module, device):
        super().__init__(module, device)
        trained, own = size(self._trained), size(self.own)
        self.found = {"left": size(module.parameters()), "own": own, "trained": trained, "at once": 0}
        register_optimizer_step_post_hook(lambda optimizer, *_: self.count(optimizer))

    def prepare(self, accelerator, optimizer):
        network, optimizer = super().prepare(accelerator, optimizer)
        parts = [p for p in network.parameters() if isinstance(p, DTensor)]
        whole = size(network.parameters()) - size(parts)
        self.found.update(split=size(parts), here=size(p.to_local() for p in parts), whole=whole)
        def look(module, *_):
            if isinstance(module, FSDPModule):
                gathered = size(p for p in network.parameters() if not isinstance(p, DTensor))
                self.found["at once"] = max(self.found["at once"], gathered - self.found["whole"])
        nn.modules.module.register_module_forward_hook(look)
        return network, optimizer

    def count(self, optimizer):
        if optimizer.param_groups[0]["params"][0] is self.own[0]:
            state = optimizer.state
            self.found["moments"] = size(state[p]["exp_avg"] for p in self.own if p in state)
        last.update(self.found)

loop.Split, last = Counted, {}
base.SAMPLE_STEPS = memory.SAMPLE_STEPS = 1  # there are samples; what they show is of no use
one, two = map(Path, sys.argv[1:3])
config, fewer = map(json.loads, sys.argv[3:])
for name, stop_after in (("base", 2), ("cam", None), ("apm", None)):
    last.clear()
    own, how = settings(name, one) | fewer[name], {**config, "shard": True}
    recipes.run_recipe(name, two / name, own, how, stop_after)
    (two / f"{name}.{dist.get_rank()}.json").write_text(json.dumps(last))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """The recipes by one process, and: `base` begun by two and gone on with by one,
    `cam` the other way round, `apm` by two alone."""
    root = tmp_path_factory.mktemp("runs")
    one, two = root / "one", root / "two"
    with pytest.MonkeyPatch.context() as patch:
        for task in (base.BaseTask, MemoryTask):
            patch.setattr(
                task, "sample", lambda *_: None
            )  # most of the time of one process, and of no use here
        for name in ("text", "vae", *NAMES):
            recipes.run_recipe(name, one / name, settings(name, one) | FEWER.get(name, {}), SPLIT)
        recipes.run_recipe("cam", two / "cam", settings("cam", one) | FEWER["cam"], SPLIT, stop_after=1)
        run_in_two_processes(["-c", PROCESS, str(one), str(two), json.dumps(SPLIT), json.dumps(FEWER)])
        recipes.run_recipe("base", two / "base", settings("base", one) | FEWER["base"], SPLIT)
    return one, two


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_with_parts_take_the_steps_of_one(name, runs):
    one, two = (root / name for root in runs)
    assert_equal_up_to_rounding(gradients(two), gradients(one))
    for kind in ("module", "ema"):
        assert_equal_up_to_rounding(saved(two, kind), saved(one, kind))
    losses = [
        [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (two, one)
    ]
    assert len(losses[0]) == 3 and losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_exports_hold_the_whole_averaged_weights(name, runs):
    one, two = (root / name for root in runs)
    made, expected = weights(two), weights(one)
    assert made.keys() == expected.keys()
    assert all(torch.allclose(made[key], expected[key], atol=1e-4) for key in expected)
    assert list((two / "samples").iterdir()), "the two processes drew no samples"


def test_the_single_numbers_that_cannot_be_split_are_trained(runs):
    alphas = {key: value for key, value in weights(runs[1] / "apm").items() if key.endswith(".attn2.alpha")}
    assert alphas and all(value.ndim == 0 and value != 0 for value in alphas.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_process_has_half_of_the_network_and_a_block_of_it_whole(name, runs):
    for found in (json.loads((runs[1] / f"{name}.{rank}.json").read_text()) for rank in range(2)):
        assert found["here"] == pytest.approx(found["split"] / 2, rel=0.02)
        assert found["own"] == pytest.approx(found["trained"] / 2, rel=0.02)
        assert found["moments"] <= found["own"], "the optimizer has what other processes keep"
        assert found["left"] == found["whole"] < 0.1 * found["split"], "the task's module kept what was split"
        # the largest block of the toy base is half of it
        assert 0 < found["at once"] < 0.6 * found["split"], "too much of the network was gathered at a time"


def test_one_process_has_all_of_it_anyway(tmp_path):
    plain, alone = tmp_path / "plain" / "text", tmp_path / "alone" / "text"
    for out, shard in ((plain, False), (alone, True)):
        recipes.run_recipe("text", out, settings("text", tmp_path), {**SPLIT, "shard": shard})
    expected, made = weights(plain), weights(alone)
    assert all(torch.equal(expected[key], made[key]) for key in expected)


def saved(out: Path, kind: str) -> torch.Tensor:
    """The weights of a checkpoint, `module` as they are trained or `ema` as they are averaged."""
    state = torch.load(out / "checkpoint.pt", weights_only=True)[kind]
    return torch.cat(
        [value.flatten() for value in (state["shadow_params"] if kind == "ema" else state.values())]
    )
