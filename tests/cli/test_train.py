"""`train` around stand-in recipes."""

import json
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from commands import run
from streamingt2v.cli import train
from streamingt2v.errors import RequestError

pytestmark = pytest.mark.usefixtures("in_empty_folder")


@pytest.fixture
def recorded_training(monkeypatch):
    """What `run_recipe` was called with; `error` in it is raised."""
    from lab.tiny import recipes

    calls: dict = {}

    def record(name, out, settings, loop_settings, stop_after):
        calls.update(name=name, out=out, settings=settings, loop=loop_settings, stop_after=stop_after)
        print("step 1/2")
        if "error" in calls:
            raise calls["error"]
        return {"loss": 0.5, "step": 2}

    monkeypatch.setattr(recipes, "run_recipe", record)
    return calls


def test_train_hands_its_settings_to_the_recipe(recorded_training, capsys):
    Path("runs/text").mkdir(parents=True)
    settings = ["--set", "text=runs/text", "--set", "channels=32,64", "--set", "steps=9", "--set", "lr=1e-4"]
    code, out, err = run(capsys, "train", "base", "-o", "runs/base", *settings, "--stop-after", 3, "--json")
    assert code == 0 and json.loads(out) == {"recipe": "base", "output": "runs/base", "loss": 0.5, "step": 2} and "step 1/2" in err
    assert recorded_training["settings"] == {"text": Path("runs/text"), "channels": (32, 64)}
    assert recorded_training["loop"] == {"steps": 9, "lr": 1e-4} and recorded_training["stop_after"] == 3


@pytest.mark.parametrize(
    ("setting", "fix"),
    [("lenght=3", "no such setting"), ("steps=few", "a number (int)"), ("text=nowhere", "no such folder"), (None, "needs text")],
)
def test_train_refuses_wrong_settings(recorded_training, capsys, setting, fix):
    code, _, err = run(capsys, "train", "base", "-o", "runs/base", "-q", *(["--set", setting] if setting else []))
    assert code == 2 and len(err.splitlines()) == 1 and "--set" in err and fix in err and not recorded_training


def test_an_interrupted_training_prints_the_command_that_goes_on(recorded_training, capsys):
    recorded_training["error"] = KeyboardInterrupt()
    code, _, err = run(capsys, "train", "text", "-o", "runs/text", "--set", "steps=9")
    assert code == 130 and err.splitlines()[-1] == "go on with: streamingt2v train text -o runs/text --set steps=9"


def test_every_recipe_is_a_command_and_every_setting_can_be_given():
    from lab.tiny.recipes import RECIPES
    from streamingt2v.train.loop import LoopConfig

    assert tuple(RECIPES) == train.NAMES
    for recipe in RECIPES.values():
        own, loop = get_type_hints(recipe.config), get_type_hints(LoopConfig)
        assert not set(own) & set(loop), "a name must mean one thing"
        for name, hint in (own | loop).items():
            text = "." if Path in (hint, *get_args(hint)) else "yes" if hint is bool else "3"
            assert train.parse_setting(name, text, hint) in (3, "3", (3,), Path(), True)


def test_a_setting_that_is_yes_or_no_takes_nothing_else():
    assert train.parse_setting("x", "no", bool) is False
    with pytest.raises(RequestError, match="must be yes or no"):
        train.parse_setting("x", "False", bool)
