"""In what precision a recipe trains where nobody says it."""

import pytest
import torch

from lab.tiny import recipes
from streamingt2v.errors import RequestError
from streamingt2v.train import precision
from toy_training import LOOP, settings

CPU = torch.device("cpu")


def with_capabilities(monkeypatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **capabilities}, raising=False)


@pytest.mark.parametrize("name", ["amx_bf16", "avx512_bf16"])
def test_a_cpu_with_instructions_for_it_uses_bfloat16(name, monkeypatch):
    with_capabilities(monkeypatch, **{name: True})
    assert precision.resolved("auto", CPU) == "bf16" and precision.resolved("no", CPU) == "no"
    with_capabilities(monkeypatch, **{name: False})
    assert precision.resolved("auto", CPU) == "no" and precision.resolved("bf16", CPU) == "bf16"


def test_a_release_that_does_not_tell_means_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert precision.resolved("auto", CPU) == "no"


def test_it_is_what_a_recipe_does_that_is_told_nothing(monkeypatch, tmp_path):
    """In its steps and in the pictures of what was learnt."""
    recipes.run_recipe("text", tmp_path / "text", settings("text", tmp_path), {**LOOP, "steps": 1})
    untold = {name: value for name, value in LOOP.items() if name != "precision"}
    linear = torch.nn.functional.linear

    def in_float32(*inputs):
        value = linear(*inputs)
        assert value.dtype == torch.float32, "here in half precision"
        return value

    monkeypatch.setattr(torch.nn.functional, "linear", in_float32)
    with_capabilities(monkeypatch)
    recipes.run_recipe("base", tmp_path / "base", settings("base", tmp_path), {**untold, "steps": 1})
    with_capabilities(monkeypatch, amx_bf16=True)
    with pytest.raises(AssertionError, match="here in half precision"):
        recipes.run_recipe("base", tmp_path / "other", settings("base", tmp_path), {**LOOP, "steps": 1})


def test_another_word_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(RequestError, match="auto, bf16, no"):
        recipes.run_recipe("base", tmp_path, {"text": tmp_path / "nowhere"}, {"precision": "fp8"})
