"""Two processes take the steps of one, whatever share of a batch each has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamingt2v.errors import ModelError
from streamingt2v.train.memory import MemoryTask
from streamingt2v.train.recipes import RECIPES, run_recipe
from toy_training import (
    LOOP,
    OWN,
    WHOLE,
    assert_equal_up_to_rounding,
    gradients,
    run_in_two_processes,
)

SHORT = {**LOOP, "steps": 2}
PROCESS = """
import json, sys
from pathlib import Path
from streamingt2v.train.recipes import run_recipe
from toy_training import WHOLE
out, settings, loop = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
run_recipe(WHOLE, out, settings, loop, stop_after=1)
"""


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_same_steps(two: Path, one: Path) -> None:
    assert_equal_up_to_rounding(gradients(two), gradients(one))
    assert losses(two) == pytest.approx(losses(one), rel=1e-4), "a metric is not that of the whole batch"


@pytest.mark.parametrize("images", [1, 3])
def test_two_processes_take_the_steps_of_one_and_one_goes_on_with_them(images, tmp_path):
    """A process without a share (a batch of one image); shares of different size (three images)."""
    one, two, own = tmp_path / "one", tmp_path / "two", {"images": images}
    run_recipe(WHOLE, one, own, SHORT, stop_after=1)
    run_in_two_processes(["-c", PROCESS, str(two), json.dumps(own), json.dumps(SHORT)])
    assert_same_steps(two, one)
    for out in (one, two):
        run_recipe(WHOLE, out, own, SHORT)
    assert_same_steps(two, one)


def test_so_does_the_command_with_shares_of_different_size(model, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(MemoryTask, "sample", lambda *_: None)
    one, two, loop = tmp_path / "one", tmp_path / "two", {**SHORT, "batch": 3}
    run_recipe(RECIPES["cam"], one, {"model": str(model), "data": clips, **OWN["cam"]}, loop)
    words = f"-m streamingt2v train cam --model {model} --data {clips} -o {two} -q --stop-after 1".split()
    words += [word for key, value in {**OWN["cam"], **loop}.items() for word in ("--set", f"{key}={value}")]
    run_in_two_processes(words)
    run_recipe(RECIPES["cam"], two, {"model": str(model), "data": clips, **OWN["cam"]}, loop)
    assert_same_steps(two, one)


def test_accelerates_own_ways_to_split_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ModelError, match="shard=yes"):
        run_recipe(WHOLE, tmp_path, {}, SHORT)
