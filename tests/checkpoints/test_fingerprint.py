"""Test that a fingerprint covers what a model is loaded from and nothing else."""

import shutil

import pytest

from streamingt2v.checkpoints.fingerprint import fingerprint


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "model.json").write_text("{}")
    (tmp_path / "model" / "unet" / "weights.safetensors").write_bytes(b"0123")
    return tmp_path / "model"


def test_it_is_the_same_wherever_the_folder_is(folder, tmp_path):
    before = fingerprint(folder)
    shutil.copytree(folder, tmp_path / "copy")
    (folder / "README.md").write_text("about it")
    assert fingerprint(tmp_path / "copy") == fingerprint(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "unet" / "weights.safetensors").write_bytes(b"0124"),
        lambda folder: (folder / "model.json").write_text("{ }"),
        lambda folder: (folder / "unet").rename(folder / "vae"),
        lambda folder: (folder / "unet" / "config.json").write_text("{}"),
    ],
)
def test_it_changes_with_all_that_is_loaded(folder, change):
    before = fingerprint(folder)
    change(folder)
    assert fingerprint(folder) != before
