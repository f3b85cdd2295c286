"""The parity tool, on the recordings that the tests carry in whole, and on what it must not let pass."""

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from recorded import config, golden, group

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def parity():
    spec = importlib.util.spec_from_file_location("parity", ROOT / "lab" / "benchmarks" / "parity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unpack(name: str, folder: Path) -> Path:
    """A recording as the folder it came from."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config(name)))
    for part in ("inputs", "outputs", "weights"):
        save_file(group(golden(name), f"{part}."), folder / f"{part}.safetensors")
    return folder


def test_whole_recordings_agree(parity, tmp_path, capsys):
    folders = [str(unpack(name, tmp_path / f"{name}_some_name")) for name in ("g2", "g5")]
    assert parity.main(folders) == 0
    lines = capsys.readouterr().out.splitlines()
    outputs = sum(name.startswith("outputs.") for recording in ("g2", "g5") for name in golden(recording))
    assert len(lines) == outputs
    assert all(re.fullmatch(r"\S+ +\S+e[-+]\d+ +\S+e[-+]\d+ ok", line) for line in lines)


def test_a_wrong_value_fails(parity, tmp_path, capsys):
    folder = unpack("g2", tmp_path / "g2_apm")
    outputs = group(golden("g2"), "outputs.")
    outputs["tokens_3d"] = outputs["tokens_3d"] + 2e-4
    save_file({**outputs, "unheard_of": torch.zeros(1)}, folder / "outputs.safetensors")
    assert parity.main([str(folder)]) == 1
    failed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.endswith("FAIL")]
    assert failed == ["g2_apm/tokens_3d", "g2_apm/unheard_of"]


def test_comparison(parity):
    inf = float("inf")
    assert parity.compare(torch.tensor([inf, 1.0]), torch.tensor([inf, 1.0]))[0] == 0
    assert parity.compare(torch.tensor([inf]), torch.tensor([1.0]))[0] == inf
    assert parity.compare(torch.tensor([torch.nan]), torch.tensor([1.0]))[0] == inf
    assert parity.compare(torch.zeros(2), torch.zeros(3))[0] == inf
    assert parity.compare(torch.tensor([3]), torch.tensor([4])) == (1, 0)
    pixels = torch.zeros(5000, dtype=torch.uint8)
    some, many = pixels.clone(), pixels + 1
    some[7] = 1
    assert parity.compare(some, pixels) == (1, 1)
    assert parity.compare(many, pixels) == (1, 0)


def test_unknown_folder(parity, tmp_path):
    with pytest.raises(SystemExit, match="unknown kind"):
        parity.main([str(tmp_path)])
    assert parity.main([]) == 2


@pytest.mark.skipif(
    "STREAMINGT2V_GOLDEN" not in os.environ,
    reason="set STREAMINGT2V_GOLDEN to the folder of the full recordings",
)
def test_full_recordings_agree(parity):
    folders = sorted(str(path) for path in Path(os.environ["STREAMINGT2V_GOLDEN"]).glob("g*/"))
    assert folders and parity.main(folders) == 0
