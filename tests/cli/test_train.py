"""`train` around fake recipes."""

import json
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from commands import run
from lab.tiny import recipes as lab_recipes
from streamingt2v.cli import train
from streamingt2v.errors import RequestError
from streamingt2v.train import recipes, settings
from streamingt2v.train.loop import LoopConfig

pytestmark = pytest.mark.usefixtures("in_empty_folder")
WORDS = ("--model", "tiny", "--data", "clips", "-o", "runs/cam")


@pytest.fixture
def recorded_training(monkeypatch):
    """Return the recorded arguments of `run_recipe`; it raises `error` if set."""
    Path("clips").mkdir()
    calls: dict = {}

    def record(recipe, out, settings, loop_settings, stop_after):
        calls.update(recipe=recipe, out=out, settings=settings, loop=loop_settings, stop_after=stop_after)
        print("step 1/2")
        if "error" in calls:
            raise calls["error"]
        return {"loss": 0.5, "step": 2}

    monkeypatch.setattr(recipes, "run_recipe", record)
    return calls


def test_train_hands_its_settings_to_the_recipe(recorded_training, capsys):
    given = [
        word for setting in ("fresh=yes", "reach=4", "steps=9", "lr=1e-4") for word in ("--set", setting)
    ]
    code, out, err = run(capsys, "train", "cam", *WORDS, *given, "--stop-after", 3, "--json")
    expected = {"recipe": "cam", "output": "runs/cam", "model": "runs/cam/model", "loss": 0.5, "step": 2}
    assert code == 0 and json.loads(out) == expected and "step 1/2" in err
    assert recorded_training["recipe"] is recipes.RECIPES["cam"]
    assert recorded_training["settings"] == {
        "model": "tiny",
        "data": Path("clips"),
        "fresh": True,
        "reach": 4,
    }
    assert recorded_training["loop"] == {"steps": 9, "lr": 1e-4} and recorded_training["stop_after"] == 3


@pytest.mark.parametrize(
    ("setting", "fix"),
    [
        ("lenght=3", "no such setting"),
        ("steps=few", "a number (int)"),
        ("image_encoder=nowhere", "no such folder"),
        ("model=other", "as --model"),
        ("steps", "NAME=VALUE"),
    ],
)
def test_train_refuses_wrong_settings(recorded_training, capsys, setting, fix):
    code, _, err = run(capsys, "train", "cam", *WORDS, "-q", "--set", setting)
    assert (
        code == 2 and len(err.splitlines()) == 1 and "--set" in err and fix in err and not recorded_training
    )


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (("base", *WORDS), "must be one of cam"),
        (("cam", *WORDS, "--data", "none"), "no such file"),
        (("cam", *WORDS, "-o", "/proc/trained"), "--output '/proc/trained': cannot be written"),
        (("cam", *WORDS, "-o", "x" * 300), "use a shorter name"),
    ],
)
def test_train_refuses_what_it_cannot_train(recorded_training, capsys, words, fix):
    code, _, err = run(capsys, "train", *words)
    assert code == 2 and fix in err and not recorded_training


def test_an_interrupted_training_prints_the_command_that_resumes(recorded_training, capsys):
    recorded_training["error"] = KeyboardInterrupt()
    code, _, err = run(capsys, "train", "cam", *WORDS, "--set", "steps=9")
    again = "streamingt2v train cam --model tiny --data clips -o runs/cam --set steps=9"
    assert code == 130 and err.splitlines()[-1].endswith(again)


def test_every_recipe_is_a_command_and_every_setting_can_be_given():
    assert tuple(recipes.RECIPES) == train.NAMES
    for recipe in (*recipes.RECIPES.values(), *lab_recipes.RECIPES.values()):
        own, loop = get_type_hints(recipe.config), get_type_hints(LoopConfig)
        assert not set(own) & set(loop), "a name must mean one thing"
        for name, hint in (own | loop).items():
            text = "." if Path in (hint, *get_args(hint)) else "yes" if hint is bool else "3"
            assert settings.parse_setting(name, text, hint) in (3, "3", (3,), Path(), True)


def test_a_setting_that_is_yes_or_no_takes_nothing_else():
    assert settings.parse_setting("x", "no", bool) is False
    with pytest.raises(RequestError, match="must be yes or no"):
        settings.parse_setting("x", "False", bool)


def test_recipes_of_the_embedded_model_have_a_command_of_their_own(monkeypatch, capsys):
    from lab.tiny import __main__ as command

    calls: list = []
    monkeypatch.setattr(command, "run_recipe", lambda *given: calls.append(given) or {"loss": 0.5})
    assert command.main(["judge", "-o", "out", "--set", "width=8", "--set", "steps=3"]) == 0
    assert calls == [("judge", Path("out"), {"width": 8}, {"steps": 3}, None)]
    assert json.loads(capsys.readouterr().out) == {"recipe": "judge", "output": "out", "loss": 0.5}
    assert command.main(["judge", "-o", "out", "--set", "wide=8"]) == 2 and re.search(
        "no such setting", capsys.readouterr().err
    )
