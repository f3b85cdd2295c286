"""Test that weight files are read lazily and safely."""

import argparse
import contextlib
import os
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from streamingt2v.checkpoints.reading import read_tensors
from streamingt2v.checkpoints.writing import write_tensors
from streamingt2v.errors import ModelError

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor(2, dtype=torch.int64),
    "c": torch.ones(3, dtype=torch.bfloat16),
}


class Attack:
    """Unpickling this creates a file if code is executed."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def same(got: dict, expected: dict = TENSORS) -> bool:
    return got.keys() == expected.keys() and all(
        torch.equal(got[name], x) and got[name].dtype == x.dtype for name, x in expected.items()
    )


@pytest.mark.parametrize(
    "content", [TENSORS, {"state_dict": TENSORS, "epoch": 3, "optimizer_states": [{"lr": 0.1}]}]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_of_tensors(tmp_path, content, zipped):
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
    assert same(read_tensors(tmp_path / "x.ckpt"))


def test_safetensors_as_written_here_and_elsewhere(tmp_path):
    save_file(TENSORS, tmp_path / "theirs.safetensors")
    assert same(read_tensors(tmp_path / "theirs.safetensors"))
    write_tensors(tmp_path / "ours.safetensors", TENSORS)
    assert same(read_tensors(tmp_path / "ours.safetensors"))
    turned = {"a": torch.arange(6.0).reshape(2, 3).T, "alpha": torch.tensor(0.5), "none": torch.zeros(0, 4)}
    write_tensors(tmp_path / "half.safetensors", turned | {"b": TENSORS["b"]}, torch.float16)
    assert same(
        read_tensors(tmp_path / "half.safetensors"),
        {n: x.half() for n, x in turned.items()} | {"b": TENSORS["b"]},
    )


def test_a_trainers_bookkeeping_is_read_over(tmp_path, monkeypatch):
    """Objects of known trainer packages become placeholders, installed or not."""

    class Callback:
        def __init__(self):
            self.best = Path("/somewhere")

    Callback.__module__, Callback.__qualname__ = "pytorch_lightning", "Callback"
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.SimpleNamespace(Callback=Callback))
    content = {"state_dict": TENSORS, "hyper_parameters": argparse.Namespace(lr=1), "callbacks": Callback()}
    torch.save(content, tmp_path / "x.ckpt")
    monkeypatch.undo()
    assert same(read_tensors(tmp_path / "x.ckpt"))
    assert "pytorch_lightning" not in sys.modules


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["beside", "within"])
def test_a_pickle_that_would_run_code_runs_nothing(tmp_path, zipped, where):
    attack = Attack(tmp_path / "executed")
    content = (
        {"state_dict": dict(TENSORS), "callbacks": attack}
        if where == "beside"
        else {"state_dict": {"a": attack}}
    )
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"contains more than tensors.*(posix|system)"):
        read_tensors(tmp_path / "x.ckpt")
    assert not (tmp_path / "executed").exists()


def test_a_plain_pickle_that_would_run_code_runs_nothing(tmp_path):
    (tmp_path / "x.pth").write_bytes(pickle.dumps(Attack(tmp_path / "executed")))
    with pytest.raises(ModelError):
        read_tensors(tmp_path / "x.pth")
    assert not (tmp_path / "executed").exists()


def test_a_name_like_a_trainers_is_not_imported(tmp_path):
    """`argparse` is a real module; its placeholder must not be the module's object."""

    class Sneaky:
        def __reduce__(self):
            return argparse.FileType("w"), (str(tmp_path / "executed"),)

    torch.save({"state_dict": dict(TENSORS), "callbacks": Sneaky()}, tmp_path / "x.ckpt")
    read = None
    with contextlib.suppress(ModelError):
        read = read_tensors(tmp_path / "x.ckpt")
    assert not (tmp_path / "executed").exists() and (read is None or same(read))


@pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_file_that_is_cut_short(tmp_path, suffix, share):
    path = tmp_path / f"x{suffix}"
    tensors = {"a": torch.ones(5000)}
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(ModelError, match=r"x\.\w+: is "):
        read_tensors(path)


def test_what_is_no_weight_file(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        read_tensors(tmp_path / "x.ckpt")
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(ModelError, match="weights are read from"):
        read_tensors(tmp_path / "x.txt")
    for content, message in (([1, 2], "contains a list"), ({"a": 3}, "'a' is a int")):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(ModelError, match=message):
            read_tensors(tmp_path / "x.pt")
